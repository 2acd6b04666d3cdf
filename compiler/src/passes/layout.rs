//! Channel orders that kernels can read without shuffling; heads and hidden channels of whole lines (`pad`).
//!
//! A depthwise convolution that doubles the channels reads input `o / 2` for output `o`. In
//! planar order it is two plain depthwise convolutions, one behind the other, on lines of
//! neighboring channels (and likewise for any other multiple). The order travels with the value through ops that do not mix channels,
//! and ends in the columns of the next 1x1 convolution or linear; nothing is shuffled at run time.

use ir::{ChannelOrder, ColumnOrder, Graph, NodeId, Op, WeightId, WeightOp, Weights};

use super::{PassError, pad};

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let graph = &pad::run(graph, weights)?;
    let (new, order) = ordered(graph, weights, None)?;
    match order {
        None => Ok(new),
        Some(_) => Err(refuse(graph, graph.output(), "the result would be in planar channel order")),
    }
}

/// The order of a value's channels; `None` is the checkpoint's.
type Order = Option<ColumnOrder>;

/// The graph with planar multiples, and the order of its result, for an input in this order.
fn ordered(graph: &Graph, weights: &mut Weights, entry: Order) -> Result<(Graph, Order), PassError> {
    let mut new = Graph::new(graph.name.clone());
    let mut orders: Vec<Order> = Vec::with_capacity(graph.len());
    // Creation order is kept, so old ids are new ids.
    for (id, node) in graph.nodes() {
        let inputs = graph.inputs(id);
        let order = inputs.first().and_then(|x| orders[x.number()]);
        if inputs.iter().any(|x| orders[x.number()] != order) {
            return Err(refuse(graph, id, "reads values in different channel orders"));
        }
        let (op, after) = match &node.op {
            Op::Input => {
                new.input(node.name.clone(), node.shape, node.dtype);
                orders.push(entry);
                continue;
            }
            Op::Region { kind, body } => {
                let (body, after) = ordered(body, weights, order)?;
                (Op::Region { kind: *kind, body: Box::new(body) }, after)
            }
            Op::Conv2d { weight, bias, stride, padding, groups, order: channels } => {
                let (stride, padding, groups) = (*stride, *padding, *groups);
                let inputs = graph[inputs[0]].shape.channels();
                // Verified: a depthwise convolution has a multiple of its inputs.
                let planes = node.shape.channels() / inputs;
                if groups == 1 {
                    let weight = columns(weights, *weight, order)?;
                    let op = Op::Conv2d { weight, bias: *bias, stride, padding, groups, order: *channels };
                    (op, None)
                } else if planes > 1 && *channels == ChannelOrder::Interleaved && order.is_none() {
                    let planar = Some(ColumnOrder::Planar { planes, each: inputs });
                    let weight = rows(weights, *weight, planar)?;
                    let bias = bias.map(|b| rows(weights, b, planar)).transpose()?;
                    (Op::Conv2d { weight, bias, stride, padding, groups, order: ChannelOrder::Planar }, planar)
                } else if planes == 1 {
                    let weight = rows(weights, *weight, order)?;
                    let bias = bias.map(|b| rows(weights, b, order)).transpose()?;
                    (Op::Conv2d { weight, bias, stride, padding, groups, order: *channels }, order)
                } else if order.is_none() {
                    (node.op.clone(), None)
                } else {
                    return Err(refuse(graph, id, "multiplies channels that are in planar order"));
                }
            }
            Op::Linear { weight, bias } => {
                (Op::Linear { weight: columns(weights, *weight, order)?, bias: *bias }, None)
            }
            Op::LayerScale { gamma } => (Op::LayerScale { gamma: rows(weights, *gamma, order)? }, order),
            Op::SqueezeExcite { reduce, expand } => {
                let reduce = (columns(weights, reduce.0, order)?, reduce.1);
                let expand = (rows(weights, expand.0, order)?, rows(weights, expand.1, order)?);
                (Op::SqueezeExcite { reduce, expand }, order)
            }
            Op::Activation(_) | Op::Scale { .. } | Op::Add | Op::Mul | Op::Flatten | Op::LastRow => {
                (node.op.clone(), order)
            }
            Op::BatchNorm { .. }
            | Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::SwiGlu
            | Op::Embed { .. }
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Attention { .. } => {
                if order.is_some() {
                    return Err(refuse(graph, id, "reads channels in planar order"));
                }
                (node.op.clone(), None)
            }
        };
        new.add(weights, node.name.clone(), op, &inputs)?;
        orders.push(after);
    }
    let order = orders.last().copied().flatten();
    Ok((new, order))
}

fn rows(weights: &mut Weights, a: WeightId, order: Order) -> Result<WeightId, PassError> {
    match order {
        Some(order) => Ok(weights.derive(WeightOp::PermuteRows { a, order })?),
        None => Ok(a),
    }
}

fn columns(weights: &mut Weights, a: WeightId, order: Order) -> Result<WeightId, PassError> {
    match order {
        Some(order) => Ok(weights.derive(WeightOp::PermuteCols { a, order })?),
        None => Ok(a),
    }
}

fn refuse(graph: &Graph, id: NodeId, reason: &str) -> PassError {
    PassError::Refused { node: graph[id].name.clone(), reason: reason.into() }
}
