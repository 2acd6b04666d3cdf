//! Factors and offsets into the weights next to them.
//!
//! - Towards the reader: a constant factor, a layer scale in front of a convolution or linear,
//!   and the affine part of a norm go into the columns of the weights that read the value.
//! - Towards the maker: a layer scale goes into the rows of the convolution or linear that makes
//!   the value, and so does the scale of attention into the queries' linear.
//!
//! An op whose factors cannot move (another kind of reader, a pinned weight) stays as it is.

use std::collections::BTreeMap;

use ir::{Graph, NodeId, Op, WeightError, WeightId, WeightOp, Weights};

use super::PassError;
use super::rewriter::{Rewriter, input, user};

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let mut columns: BTreeMap<NodeId, Columns> = BTreeMap::new();
    let mut rows: BTreeMap<NodeId, Vec<Rows>> = BTreeMap::new();
    for (id, node) in graph.nodes() {
        if let Op::Attention { heads, head_dim, scale, .. } = &node.op
            && *scale != 1.0
            && let Some(linear) = queries(graph, id)
        {
            rows.entry(linear).or_default().push(Rows::First { rows: heads * head_dim, by: *scale });
        }
    }
    let mut r = Rewriter::new(graph, weights);
    for (id, node) in r.nodes() {
        let before = graph.inputs(id).first().and_then(|x| columns.get(x)).cloned();
        match &node.op {
            Op::Scale { by } if movable(graph, r.weights, id, Readers::ConvOrLinear) => {
                let mut factors = before.unwrap_or_default();
                factors.push(Factor::All(*by));
                columns.insert(id, factors);
                r.alias(id, graph.inputs(id)[0])?;
            }
            Op::LayerScale { gamma } => {
                let x = graph.inputs(id)[0];
                if before.is_none() && is_matrix(&graph[x].op) && user(graph, x) == Some(id) {
                    // The maker has been told when it was visited.
                    r.alias(id, x)?;
                } else if movable(graph, r.weights, id, Readers::ConvOrLinear) {
                    let mut factors = before.unwrap_or_default();
                    factors.push(Factor::Each(*gamma));
                    columns.insert(id, factors);
                    r.alias(id, x)?;
                } else {
                    r.copy(id)?;
                }
            }
            Op::LayerNorm { affine: Some((gain, bias)), eps } if movable(graph, r.weights, id, Readers::Linear) => {
                columns.insert(id, vec![Factor::Affine(*gain, *bias)]);
                r.copy_as(id, Op::LayerNorm { affine: None, eps: *eps })?;
            }
            Op::RmsNorm { gain: Some(gain), eps } if movable(graph, r.weights, id, Readers::Linear) => {
                columns.insert(id, vec![Factor::Each(*gain)]);
                r.copy_as(id, Op::RmsNorm { gain: None, eps: *eps })?;
            }
            Op::Conv2d { weight, bias, .. } | Op::Linear { weight, bias } => {
                let mut after = rows.remove(&id).unwrap_or_default();
                if let Some(user) = user(graph, id)
                    && let Op::LayerScale { gamma } = &graph[user].op
                {
                    after.push(Rows::Each(*gamma));
                }
                let mut pair = (*weight, *bias);
                for factor in before.unwrap_or_default().into_iter().rev() {
                    pair = factor.apply(pair, r.weights)?;
                }
                for factor in after {
                    pair = factor.apply(pair, r.weights)?;
                }
                r.copy_as(id, with(&node.op, pair))?;
            }
            Op::Attention { heads, kv_heads, head_dim, causal, cache, .. } if queries(graph, id).is_some() => {
                let (heads, kv_heads, head_dim, causal, cache) = (*heads, *kv_heads, *head_dim, *causal, *cache);
                r.copy_as(id, Op::Attention { heads, kv_heads, head_dim, scale: 1.0, causal, cache })?;
            }
            Op::Input
            | Op::BatchNorm { .. }
            | Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::Activation(_)
            | Op::Scale { .. }
            | Op::Add
            | Op::Mul
            | Op::SwiGlu
            | Op::SqueezeExcite { .. }
            | Op::Flatten
            | Op::LastRow
            | Op::Embed { .. }
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::Region { .. } => r.copy(id)?,
        }
    }
    Ok(r.new)
}

/// What a value has to be multiplied by where it is read, innermost first.
type Columns = Vec<Factor>;

#[derive(Clone, Copy)]
enum Factor {
    All(f64),
    Each(WeightId),
    /// Gain and bias.
    Affine(WeightId, WeightId),
}

/// What a weight's outputs have to be multiplied by.
enum Rows {
    Each(WeightId),
    /// The first `rows` outputs by a constant.
    First {
        rows: usize,
        by: f64,
    },
}

type Pair = (WeightId, Option<WeightId>);

impl Factor {
    /// `W (gain * x + bias) + b`.
    fn apply(self, (w, b): Pair, weights: &mut Weights) -> Result<Pair, WeightError> {
        match self {
            Factor::All(by) => Ok((weights.derive(WeightOp::Scale(w, by))?, b)),
            Factor::Each(v) => Ok((weights.derive(WeightOp::MulCols { w, v })?, b)),
            Factor::Affine(gain, bias) => {
                let offset = weights.derive(WeightOp::MatVec { w, v: bias })?;
                let b = match b {
                    Some(b) => weights.derive(WeightOp::Add(b, offset))?,
                    None => offset,
                };
                Ok((weights.derive(WeightOp::MulCols { w, v: gain })?, Some(b)))
            }
        }
    }
}

impl Rows {
    fn apply(self, (w, b): Pair, weights: &mut Weights) -> Result<Pair, WeightError> {
        let v = match self {
            Rows::Each(v) => v,
            Rows::First { rows, by } => {
                let rest = weights.shape(w)[0] - rows;
                let first = weights.fill(by, &[rows]);
                if rest == 0 {
                    first
                } else {
                    let rest = weights.fill(1.0, &[rest]);
                    weights.derive(WeightOp::ConcatRows(vec![first, rest]))?
                }
            }
        };
        let b = b.map(|b| weights.derive(WeightOp::Mul(b, v))).transpose()?;
        Ok((weights.derive(WeightOp::MulRows { w, v })?, b))
    }
}

/// Readers that a factor can move into.
#[derive(Clone, Copy, PartialEq)]
enum Readers {
    /// Zero padding stays zero under a factor.
    ConvOrLinear,
    /// An offset would be wrong under zero padding.
    Linear,
}

fn movable(graph: &Graph, weights: &Weights, id: NodeId, readers: Readers) -> bool {
    let users = graph.users(id);
    !users.is_empty()
        && users.iter().all(|&user| match &graph[user].op {
            Op::Linear { weight, .. } => !weights.is_pinned(*weight),
            Op::Conv2d { weight, groups: 1, .. } => readers == Readers::ConvOrLinear && !weights.is_pinned(*weight),
            // The maker of the next factor passes this one on.
            Op::LayerScale { .. } | Op::Scale { .. } => {
                readers == Readers::ConvOrLinear && movable(graph, weights, user, readers)
            }
            Op::Input
            | Op::Conv2d { .. }
            | Op::BatchNorm { .. }
            | Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::Activation(_)
            | Op::Add
            | Op::Mul
            | Op::SwiGlu
            | Op::SqueezeExcite { .. }
            | Op::Flatten
            | Op::LastRow
            | Op::Embed { .. }
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::Region { .. } => false,
        })
}

/// The linear that makes an attention's queries, alone or merged with keys and values.
fn queries(graph: &Graph, attention: NodeId) -> Option<NodeId> {
    let first = graph.inputs(attention)[0];
    let mut id = first;
    if matches!(graph[id].op, Op::Rope { .. }) {
        user(graph, id)?;
        id = input(graph, id)?;
    }
    matches!(graph[id].op, Op::Linear { .. }).then(|| user(graph, id)).flatten()?;
    Some(id)
}

fn is_matrix(op: &Op) -> bool {
    matches!(op, Op::Linear { .. } | Op::Conv2d { .. })
}

/// A convolution or linear with other weights.
fn with(op: &Op, (weight, bias): Pair) -> Op {
    if let Op::Conv2d { stride, padding, groups, order, .. } = op {
        let (stride, padding, groups, order) = (*stride, *padding, *groups, *order);
        Op::Conv2d { weight, bias, stride, padding, groups, order }
    } else {
        Op::Linear { weight, bias }
    }
}
