//! Shape rules: what an op makes of its inputs' shapes, and what its weights must look like.

use std::fmt;

use crate::{Axis, DType, Op, Role, Shape, WeightId, Weights};

/// Why an op does not fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// Wrong number of inputs.
    InputCount {
        /// How many the op takes.
        expected: &'static str,
        /// How many it was given.
        found: usize,
    },
    /// An input is not a node of the graph.
    NoSuchInput,
    /// An input has a shape or type that the op cannot read.
    Input {
        /// What it reads.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A weight is not in the arena.
    NoSuchWeight {
        /// What the weight is to the op.
        role: Role,
        /// The id.
        id: WeightId,
    },
    /// A weight has the wrong shape.
    Weight {
        /// What the weight is to the op.
        role: Role,
        /// What the op needs.
        expected: Vec<usize>,
        /// What it was given.
        found: Vec<usize>,
    },
    /// A parameter makes no sense.
    Parameter {
        /// What is wrong with it.
        reason: String,
    },
}

use Mismatch as M;

/// The shape and type of an op's result.
pub(crate) fn infer(op: &Op, inputs: &[(Shape, DType)], weights: &Weights) -> Result<(Shape, DType), Mismatch> {
    let arity = Arity::of(op);
    if !arity.allows(inputs.len()) {
        return Err(M::InputCount { expected: arity.text(), found: inputs.len() });
    }
    // Ids are read by the table alone; a region reads what its body's input says.
    let wanted = if matches!(op, Op::Embed { .. }) { DType::U32 } else { DType::F32 };
    let judge = !matches!(op, Op::Region { .. });
    for &(_, dtype) in inputs {
        if judge && dtype != wanted {
            return Err(input(format!("{wanted:?}"), format!("{dtype:?}")));
        }
    }
    let check = Check { weights };
    let dtype = if let Op::Region { body, .. } = op {
        body[body_output(body)?].dtype
    } else if *op == Op::ArgMax {
        DType::U32
    } else {
        DType::F32
    };
    let first = inputs.first().map(|v| v.0);
    let shape = match (op, first) {
        (Op::Input, _) => return Err(M::Parameter { reason: "is added by Graph::input".into() }),
        (_, None) => return Err(M::InputCount { expected: arity.text(), found: 0 }),
        (Op::Conv2d { .. }, Some(x)) => check.conv(op, x)?,
        (Op::BatchNorm { gamma, beta, mean, var, .. }, Some(x)) => {
            check.vector(Role::Gain, *gamma, x.channels())?;
            check.vector(Role::Bias, *beta, x.channels())?;
            check.vector(Role::Mean, *mean, x.channels())?;
            check.vector(Role::Var, *var, x.channels())?;
            x
        }
        (Op::LayerScale { gamma }, Some(x)) => {
            check.vector(Role::Gain, *gamma, x.channels())?;
            x
        }
        (Op::LayerNorm { affine, .. }, Some(x)) => {
            if let Some((gain, bias)) = affine {
                check.vector(Role::Gain, *gain, x.channels())?;
                check.vector(Role::Bias, *bias, x.channels())?;
            }
            x
        }
        (Op::RmsNorm { gain, .. }, Some(x)) => {
            if let Some(gain) = gain {
                check.vector(Role::Gain, *gain, x.channels())?;
            }
            x
        }
        (Op::Linear { weight, bias }, Some(x)) => {
            let out = check.matrix(Role::Weight, *weight, x.channels())?;
            if let Some(bias) = bias {
                check.vector(Role::Bias, *bias, out)?;
            }
            x.with_channels(out)
        }
        (Op::Activation(_) | Op::Scale { .. }, Some(x)) => x,
        (Op::Add | Op::Mul, Some(x)) => {
            if inputs[1].0 != x {
                return Err(input(x.to_string(), inputs[1].0.to_string()));
            }
            x
        }
        (Op::SwiGlu, Some(x)) => {
            if x.channels() % 32 != 0 {
                return Err(input("a multiple of 32 channels", x));
            }
            x.with_channels(x.channels() / 2)
        }
        (Op::SqueezeExcite { reduce, expand }, Some(x)) => {
            let Shape::Map { c, .. } = x else { return Err(input("a map", x)) };
            let r = check.matrix(Role::ReduceWeight, reduce.0, c)?;
            check.vector(Role::ReduceBias, reduce.1, r)?;
            check.exactly(Role::ExpandWeight, expand.0, &[c, r])?;
            check.vector(Role::ExpandBias, expand.1, c)?;
            x
        }
        (Op::Flatten, Some(x)) => {
            let Shape::Map { h, w, c } = x else { return Err(input("a map", x)) };
            Shape::Rows { n: Axis::Fixed(h * w), c }
        }
        (Op::LastRow, Some(x)) => {
            let Shape::Rows { c, .. } = x else { return Err(input("rows", x)) };
            Shape::Rows { n: Axis::Fixed(1), c }
        }
        (Op::Embed { table }, Some(x)) => {
            let Shape::Rows { n, c: 1 } = x else { return Err(input("[n, 1]", x)) };
            let shape = check.shape(Role::Table, *table)?;
            let [_, c] = *shape else { return Err(weight(Role::Table, &[0, 0], shape)) };
            Shape::Rows { n, c }
        }
        (Op::ArgMax, Some(x)) => x.with_channels(1),
        (Op::Rope { heads, head_dim, .. }, Some(x)) => {
            if !matches!(x, Shape::Rows { .. }) || x.channels() < heads * head_dim {
                return Err(input(format!("rows of at least {} channels", heads * head_dim), x));
            }
            if head_dim % 2 != 0 {
                return Err(M::Parameter { reason: format!("head_dim is {head_dim}, not even") });
            }
            x
        }
        (Op::Attention { .. }, Some(_)) => attention(op, inputs)?,
        (Op::Region { body, .. }, Some(x)) => {
            let entry = body.entry().ok_or_else(|| M::Parameter { reason: "body has no input".into() })?;
            if (body[entry].shape, body[entry].dtype) != inputs[0] {
                return Err(input(body[entry].shape, x));
            }
            body[body_output(body)?].shape
        }
    };
    Ok((shape, dtype))
}

fn attention(op: &Op, inputs: &[(Shape, DType)]) -> Result<Shape, Mismatch> {
    let Op::Attention { heads, kv_heads, head_dim, causal, cache, .. } = op else {
        return Err(M::Parameter { reason: "is not attention".into() });
    };
    if *kv_heads == 0 || *head_dim == 0 || heads % kv_heads != 0 {
        return Err(M::Parameter { reason: format!("{heads} heads cannot share {kv_heads} key/value heads") });
    }
    if cache.is_some() && !causal {
        return Err(M::Parameter { reason: "a cache needs causal attention".into() });
    }
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let widths: &[usize] = if inputs.len() == 1 { &[q + 2 * kv] } else { &[q, kv, kv] };
    for ((shape, _), width) in inputs.iter().zip(widths) {
        if *shape != inputs[0].0.with_channels(*width) {
            return Err(input(inputs[0].0.with_channels(*width), shape));
        }
    }
    Ok(inputs[0].0.with_channels(q))
}

fn body_output(body: &crate::Graph) -> Result<crate::NodeId, Mismatch> {
    if body.is_empty() {
        return Err(M::Parameter { reason: "body has no nodes".into() });
    }
    Ok(body.output())
}

fn input(expected: impl ToString, found: impl ToString) -> Mismatch {
    M::Input { expected: expected.to_string(), found: found.to_string() }
}

fn weight(role: Role, expected: &[usize], found: &[usize]) -> Mismatch {
    M::Weight { role, expected: expected.to_vec(), found: found.to_vec() }
}

/// Checks of weights.
struct Check<'a> {
    weights: &'a Weights,
}

impl<'a> Check<'a> {
    fn shape(&self, role: Role, id: WeightId) -> Result<&'a [usize], Mismatch> {
        self.weights.get(id).map(|n| n.shape.as_slice()).ok_or(M::NoSuchWeight { role, id })
    }

    fn exactly(&self, role: Role, id: WeightId, expected: &[usize]) -> Result<(), Mismatch> {
        let found = self.shape(role, id)?;
        if found == expected { Ok(()) } else { Err(weight(role, expected, found)) }
    }

    fn vector(&self, role: Role, id: WeightId, n: usize) -> Result<(), Mismatch> {
        self.exactly(role, id, &[n])
    }

    /// Rows of a matrix with `columns` columns.
    fn matrix(&self, role: Role, id: WeightId, columns: usize) -> Result<usize, Mismatch> {
        let found = self.shape(role, id)?;
        match *found {
            [rows, c] if c == columns => Ok(rows),
            _ => Err(weight(role, &[found.first().copied().unwrap_or(0), columns], found)),
        }
    }

    fn conv(&self, op: &Op, x: Shape) -> Result<Shape, Mismatch> {
        let Op::Conv2d { weight: w, bias, stride, padding, groups, order } = op else {
            return Err(M::Parameter { reason: "is not a convolution".into() });
        };
        let Shape::Map { h, w: width, c } = x else { return Err(input("a map", x)) };
        let found = self.shape(Role::Weight, *w)?;
        let [out, per_group, k, k2] = *found else { return Err(weight(Role::Weight, &[0, 0, 0, 0], found)) };
        if *stride == 0 || *groups == 0 || c % groups != 0 {
            return Err(M::Parameter { reason: format!("stride {stride}, {groups} groups of {c} channels") });
        }
        if per_group != c / groups || k != k2 || k == 0 {
            return Err(weight(Role::Weight, &[out, c / groups, k, k], found));
        }
        if *groups != 1 && (*groups != c || out % c != 0) {
            let reason = format!("{groups} groups of {c} channels to {out}: neither dense nor depthwise");
            return Err(M::Parameter { reason });
        }
        if *order == crate::ChannelOrder::Planar && *groups == 1 {
            return Err(M::Parameter { reason: "a dense convolution has no channel order".into() });
        }
        if let Some(bias) = bias {
            self.vector(Role::Bias, *bias, out)?;
        }
        let side = |n: usize| (n + 2 * padding).checked_sub(k).map(|n| n / stride + 1);
        match (side(h), side(width)) {
            (Some(h), Some(w)) => Ok(Shape::Map { h, w, c: out }),
            _ => Err(input(format!("at least {k} x {k} pixels"), x)),
        }
    }
}

/// How many inputs an op takes.
enum Arity {
    Exactly(usize),
    OneOrThree,
}

impl Arity {
    fn of(op: &Op) -> Arity {
        match op {
            Op::Input => Arity::Exactly(0),
            Op::Add | Op::Mul => Arity::Exactly(2),
            Op::Attention { .. } => Arity::OneOrThree,
            Op::Conv2d { .. }
            | Op::BatchNorm { .. }
            | Op::LayerScale { .. }
            | Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::Linear { .. }
            | Op::Activation(_)
            | Op::Scale { .. }
            | Op::SwiGlu
            | Op::SqueezeExcite { .. }
            | Op::Flatten
            | Op::LastRow
            | Op::Embed { .. }
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Region { .. } => Arity::Exactly(1),
        }
    }

    fn allows(&self, n: usize) -> bool {
        match self {
            Arity::Exactly(m) => n == *m,
            Arity::OneOrThree => n == 1 || n == 3,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Arity::Exactly(0) => "no inputs",
            Arity::Exactly(1) => "one input",
            Arity::Exactly(_) => "two inputs",
            Arity::OneOrThree => "one merged input or three",
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            M::InputCount { expected, found } => write!(f, "takes {expected}, found {found}"),
            M::NoSuchInput => f.write_str("reads a node that is not in the graph"),
            M::Input { expected, found } => write!(f, "reads {expected}, found {found}"),
            M::NoSuchWeight { role, id } => write!(f, "has {} {id}, which is not in the arena", role.name()),
            M::Weight { role, expected, found } => {
                write!(f, "has {} {found:?}, expected {expected:?}", role.name())
            }
            M::Parameter { reason } => f.write_str(reason),
        }
    }
}
