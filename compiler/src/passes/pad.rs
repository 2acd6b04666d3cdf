//! Heads of attention, and the hidden channels of a ConvFFN, to whole lines.
//!
//! A kernel reads a head in lines of 16 channels, and rotary positions turn the first half of a
//! head with the second, line by line. So each half is padded with zero channels to whole lines
//! (the head itself, where nothing is rotated): by zero rows in the weights that make queries,
//! keys and values, and zero columns in the weights that read the mixed values. Zero channels add
//! nothing to a score, and their own mixture is zero. Between the two 1x1 convolutions of a
//! ConvFFN a kernel goes line by line too, and the same is done there.
//!
//! Widths of rows need no such padding: a slot's rows and packed weights are padded to lines
//! where they lie, and what fills them up is zero.

use std::collections::BTreeMap;

use ir::{Graph, NodeId, Op, WeightError, WeightId, WeightOp, Weights};

use super::PassError;
use super::rewriter::{Rewriter, input, user};

/// Channels of a line.
const LINE: usize = 16;

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let mut r = Rewriter::new(graph, weights);
    let mut changed: BTreeMap<NodeId, Op> = BTreeMap::new();
    for (id, node) in r.nodes() {
        if let Op::Attention { head_dim, .. } = node.op
            && let Some(blocks) = Blocks::of(head_dim, rotated(graph, id))
        {
            let Some(chain) = Chain::find(graph, id) else {
                let reason = format!(
                    "heads of {head_dim} channels can be padded only between one linear that makes them and one that reads them"
                );
                return Err(PassError::Refused { node: node.name.clone(), reason });
            };
            chain.pad(graph, r.weights, blocks, &mut changed)?;
        }
        if let Some((first, second)) = hidden(graph, id) {
            let lines = node.shape.channels().next_multiple_of(LINE);
            widen(graph, r.weights, (first, second), lines, &mut changed)?;
        }
    }
    for (id, node) in r.nodes() {
        let op = match (changed.remove(&id), &node.op) {
            (Some(op), _) => op,
            (None, Op::Region { kind, body }) => {
                let body = run(body, r.weights)?;
                Op::Region { kind: *kind, body: Box::new(body) }
            }
            (None, op) => op.clone(),
        };
        r.copy_as(id, op)?;
    }
    Ok(r.new)
}

/// How heads grow: every `from` channels to `to`.
#[derive(Clone, Copy)]
struct Blocks {
    from: usize,
    to: usize,
}

impl Blocks {
    /// `None` if the heads fill their lines.
    fn of(head_dim: usize, rotated: bool) -> Option<Blocks> {
        let from = if rotated { head_dim / 2 } else { head_dim };
        let to = from.next_multiple_of(LINE);
        (from != to).then_some(Blocks { from, to })
    }

    fn grown(self, channels: usize) -> usize {
        channels / self.from * self.to
    }

    fn rows(self, a: WeightId, weights: &mut Weights) -> Result<WeightId, WeightError> {
        weights.derive(WeightOp::PadRowBlocks { a, block: self.from, to: self.to })
    }

    fn columns(self, a: WeightId, weights: &mut Weights) -> Result<WeightId, WeightError> {
        weights.derive(WeightOp::PadColBlocks { a, block: self.from, to: self.to })
    }
}

/// Whether rotary positions stand in front of an attention.
fn rotated(graph: &Graph, attention: NodeId) -> bool {
    graph.inputs(attention).iter().any(|&x| matches!(graph[x].op, Op::Rope { .. }))
}

/// An attention and what is around it, each read by the next alone.
struct Chain {
    linear: NodeId,
    rope: Option<NodeId>,
    attention: NodeId,
    out: NodeId,
}

impl Chain {
    fn find(graph: &Graph, attention: NodeId) -> Option<Chain> {
        let is_linear = |id: &NodeId| matches!(graph[*id].op, Op::Linear { .. });
        let out = user(graph, attention).filter(is_linear)?;
        let first = input(graph, attention)?;
        user(graph, first)?;
        let rope = matches!(graph[first].op, Op::Rope { .. }).then_some(first);
        let linear = if rope.is_some() { input(graph, first)? } else { first };
        user(graph, linear)?;
        is_linear(&linear).then_some(Chain { linear, rope, attention, out })
    }

    /// The chain's ops with padded heads.
    fn pad(
        &self,
        graph: &Graph,
        weights: &mut Weights,
        blocks: Blocks,
        changed: &mut BTreeMap<NodeId, Op>,
    ) -> Result<(), WeightError> {
        if let Op::Linear { weight, bias } = graph[self.linear].op {
            let bias = bias.map(|b| blocks.rows(b, weights)).transpose()?;
            changed.insert(self.linear, Op::Linear { weight: blocks.rows(weight, weights)?, bias });
        }
        if let Some(rope) = self.rope
            && let Op::Rope { heads, head_dim, theta } = graph[rope].op
        {
            // theta^(-2i / head_dim) stays what it was: the frequencies are those of the head's own width.
            let wide = blocks.grown(head_dim);
            let theta = theta.powf(wide as f64 / head_dim as f64);
            changed.insert(rope, Op::Rope { heads, head_dim: wide, theta });
        }
        if let Op::Attention { heads, kv_heads, head_dim, scale, causal, cache } = graph[self.attention].op {
            let head_dim = blocks.grown(head_dim);
            changed.insert(self.attention, Op::Attention { heads, kv_heads, head_dim, scale, causal, cache });
        }
        if let Op::Linear { weight, bias } = graph[self.out].op {
            changed.insert(self.out, Op::Linear { weight: blocks.columns(weight, weights)?, bias });
        }
        Ok(())
    }
}

/// The 1x1 convolutions around an activation whose channels do not fill their lines.
fn hidden(graph: &Graph, activation: NodeId) -> Option<(NodeId, NodeId)> {
    let is_point = |id: &NodeId| {
        matches!(graph[*id].op, Op::Conv2d { groups: 1, stride: 1, padding: 0, .. }) && user(graph, *id).is_some()
    };
    if !matches!(graph[activation].op, Op::Activation(_)) || graph[activation].shape.channels().is_multiple_of(LINE) {
        return None;
    }
    let first = input(graph, activation).filter(is_point)?;
    Some((first, user(graph, activation).filter(is_point)?))
}

/// Zero rows to the first convolution, zero columns to the second.
fn widen(
    graph: &Graph,
    weights: &mut Weights,
    (first, second): (NodeId, NodeId),
    lines: usize,
    changed: &mut BTreeMap<NodeId, Op>,
) -> Result<(), WeightError> {
    if let Op::Conv2d { weight, bias, stride, padding, groups, order } = graph[first].op {
        let mut rows = |a| weights.derive(WeightOp::PadRows { a, rows: lines });
        let (weight, bias) = (rows(weight)?, bias.map(rows).transpose()?);
        changed.insert(first, Op::Conv2d { weight, bias, stride, padding, groups, order });
    }
    if let Op::Conv2d { weight, bias, stride, padding, groups, order } = graph[second].op {
        let weight = weights.derive(WeightOp::PadCols { a: weight, cols: lines })?;
        changed.insert(second, Op::Conv2d { weight, bias, stride, padding, groups, order });
    }
    Ok(())
}
