//! Parallel branches to one convolution: MobileOne, RepMixer, position encodings, BatchNorm.
//!
//! A *branch* is a value that is a linear function of some source, channel by channel or as a
//! convolution, in whatever ops it is written: BatchNorm and factors keep a branch a branch, and
//! the sum of two branches of one source is one again. Kernels of different sizes add after
//! padding the smaller with zeros, because all are centered. Every value that is a convolution
//! of a source is computed by one `Conv2d`; what nothing reads any more is left out.
//!
//! A layer scale of a single convolution or linear is left to `fold`.

use ir::{ChannelOrder, Graph, NodeId, Op, WeightError, WeightId, WeightOp, Weights};

use super::PassError;
use super::rewriter::Rewriter;

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let mut branches: Vec<Option<Branch>> = Vec::with_capacity(graph.len());
    for (id, _) in graph.nodes() {
        let branch = find(graph, weights, &branches, id)?;
        branches.push(branch);
    }
    let convs: Vec<Option<(NodeId, Op)>> =
        branches.iter().map(|b| b.as_ref().and_then(|b| Some((b.source, b.op(weights)?)))).collect();
    let mut needed = vec![false; graph.len()];
    needed[graph.output().number()] = true;
    for (id, _) in graph.nodes().rev() {
        if needed[id.number()] {
            match &convs[id.number()] {
                Some((source, _)) => needed[source.number()] = true,
                None => graph.inputs(id).iter().for_each(|i| needed[i.number()] = true),
            }
        }
    }
    let mut r = Rewriter::new(graph, weights);
    for (id, node) in r.nodes().filter(|(id, _)| needed[id.number()]) {
        match &convs[id.number()] {
            Some((source, op)) => {
                let source = r.place(*source)?;
                let new = r.add(node.name.clone(), op.clone(), &[source])?;
                r.set(id, new);
            }
            None => r.copy(id)?,
        }
    }
    Ok(r.new)
}

/// `kernel(source) + bias`.
#[derive(Clone, Copy)]
struct Branch {
    source: NodeId,
    kernel: Kernel,
    bias: Option<WeightId>,
}

#[derive(Clone, Copy)]
enum Kernel {
    /// Each channel times its own factor; `None` is one.
    Diagonal(Option<WeightId>),
    /// A convolution with an odd, centered kernel.
    Conv { weight: WeightId, stride: usize, groups: usize, order: ChannelOrder },
}

impl Branch {
    /// The branch as one op; a diagonal stays as it was written.
    fn op(&self, weights: &Weights) -> Option<Op> {
        match self.kernel {
            Kernel::Diagonal(_) => None,
            Kernel::Conv { weight, stride, groups, order } => {
                let padding = weights.shape(weight)[2] / 2;
                Some(Op::Conv2d { weight, bias: self.bias, stride, padding, groups, order })
            }
        }
    }

    /// `v` times the branch, per channel.
    fn times(self, v: WeightId, weights: &mut Weights) -> Result<Branch, WeightError> {
        let kernel = match self.kernel {
            Kernel::Diagonal(None) => Kernel::Diagonal(Some(v)),
            Kernel::Diagonal(Some(gain)) => Kernel::Diagonal(Some(weights.derive(WeightOp::Mul(gain, v))?)),
            Kernel::Conv { weight: w, stride, groups, order } => {
                let weight = weights.derive(WeightOp::MulRows { w, v })?;
                Kernel::Conv { weight, stride, groups, order }
            }
        };
        let bias = self.bias.map(|b| weights.derive(WeightOp::Mul(b, v))).transpose()?;
        Ok(Branch { source: self.source, kernel, bias })
    }

    /// The sum, if the two kernels have one geometry.
    fn plus(self, other: Branch, c: usize, weights: &mut Weights) -> Result<Option<Branch>, WeightError> {
        let kernel = match (self.kernel, other.kernel) {
            (Kernel::Diagonal(a), Kernel::Diagonal(b)) => {
                let mut gain = |g: Option<WeightId>| g.unwrap_or_else(|| weights.fill(1.0, &[c]));
                let (a, b) = (gain(a), gain(b));
                Kernel::Diagonal(Some(weights.derive(WeightOp::Add(a, b))?))
            }
            (Kernel::Conv { weight, stride, groups, order }, Kernel::Diagonal(gain))
            | (Kernel::Diagonal(gain), Kernel::Conv { weight, stride, groups, order }) => {
                let shape = weights.shape(weight).to_vec();
                if stride != 1 || (shape[1] != 1 && shape[1] != shape[0]) || shape[0] != c {
                    return Ok(None);
                }
                let mut unit = weights.unit(&shape)?;
                if let Some(v) = gain {
                    unit = weights.derive(WeightOp::MulRows { w: unit, v })?;
                }
                let weight = weights.derive(WeightOp::Add(weight, unit))?;
                Kernel::Conv { weight, stride, groups, order }
            }
            (
                Kernel::Conv { weight: a, stride, groups, order },
                Kernel::Conv { weight: b, stride: stride_b, groups: groups_b, order: order_b },
            ) => {
                if (stride, groups, order) != (stride_b, groups_b, order_b) {
                    return Ok(None);
                }
                let k = weights.shape(a)[2].max(weights.shape(b)[2]);
                let (a, b) = (pad(weights, a, k)?, pad(weights, b, k)?);
                let weight = weights.derive(WeightOp::Add(a, b))?;
                Kernel::Conv { weight, stride, groups, order }
            }
        };
        let bias = match (self.bias, other.bias) {
            (Some(a), Some(b)) => Some(weights.derive(WeightOp::Add(a, b))?),
            (a, b) => a.or(b),
        };
        Ok(Some(Branch { source: self.source, kernel, bias }))
    }
}

/// The node as a branch, if it is one.
fn find(
    graph: &Graph,
    weights: &mut Weights,
    branches: &[Option<Branch>],
    id: NodeId,
) -> Result<Option<Branch>, PassError> {
    let inputs = graph.inputs(id);
    let known = |id: NodeId| branches[id.number()];
    let identity = |id: NodeId| Branch { source: id, kernel: Kernel::Diagonal(None), bias: None };
    match &graph[id].op {
        Op::Conv2d { weight, bias, stride, padding, groups, order } => {
            let k = weights.shape(*weight)[2];
            if k.is_multiple_of(2) || *padding != k / 2 {
                return Ok(None);
            }
            let kernel = Kernel::Conv { weight: *weight, stride: *stride, groups: *groups, order: *order };
            Ok(Some(Branch { source: inputs[0], kernel, bias: *bias }))
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            // After a convolution it belongs to that; else it is a branch of its own.
            let of_conv = matches!(graph[inputs[0]].op, Op::Conv2d { .. });
            let x = known(inputs[0]).filter(|_| of_conv).unwrap_or_else(|| identity(inputs[0]));
            let scale = weights.derive(WeightOp::BnScale { gamma: *gamma, var: *var, eps: *eps })?;
            let mut branch = x.times(scale, weights)?;
            let shift = weights.derive(WeightOp::Mul(*mean, scale))?;
            let offset = weights.derive(WeightOp::Sub(*beta, shift))?;
            branch.bias = Some(match branch.bias {
                Some(bias) => weights.derive(WeightOp::Add(bias, offset))?,
                None => offset,
            });
            Ok(Some(branch))
        }
        Op::LayerScale { gamma } => match known(inputs[0]) {
            Some(x) if graph[inputs[0]].op == Op::Add => Ok(Some(x.times(*gamma, weights)?)),
            Some(_) | None => Ok(None),
        },
        Op::Scale { by } => match known(inputs[0]) {
            Some(x) => {
                let v = weights.fill(*by, &[graph[id].shape.channels()]);
                Ok(Some(x.times(v, weights)?))
            }
            None => Ok(None),
        },
        Op::Add => {
            let (a, b) = (inputs[0], inputs[1]);
            let sources = [known(a).map(|x| x.source), known(b).map(|x| x.source)];
            for source in sources.into_iter().flatten() {
                let of = |id| if id == source { Some(identity(id)) } else { known(id).filter(|x| x.source == source) };
                if let (Some(x), Some(y)) = (of(a), of(b)) {
                    return Ok(x.plus(y, graph[id].shape.channels(), weights)?);
                }
            }
            Ok(None)
        }
        Op::Input
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::Linear { .. }
        | Op::Activation(_)
        | Op::Mul
        | Op::SwiGlu
        | Op::SqueezeExcite { .. }
        | Op::Flatten
        | Op::LastRow
        | Op::Embed { .. }
        | Op::ArgMax
        | Op::Rope { .. }
        | Op::Attention { .. }
        | Op::Region { .. } => Ok(None),
    }
}

fn pad(weights: &mut Weights, a: WeightId, k: usize) -> Result<WeightId, WeightError> {
    if weights.shape(a)[2] == k { Ok(a) } else { weights.derive(WeightOp::PadKernel { a, k }) }
}
