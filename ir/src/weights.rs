//! The model's constants as expressions over the checkpoint's tensors.
//!
//! Passes change weights by writing expressions; nothing is read until something is evaluated.
//! Every expression can be evaluated by slices of rows (of the first axis) without holding more
//! than that slice of its large operands, which is what keeps the compiler's memory small. The
//! shape rules below are what makes this true: no op moves data between distant rows, except
//! the interleaving and planar orders, whose sources are again slices.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All expressions of a model, in an order in which operands come first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    pub(crate) nodes: Vec<WeightNode>,
    pinned: Vec<WeightId>,
    #[serde(skip)]
    shared: bool,
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightNode {
    /// How it is computed.
    pub op: WeightOp,
    /// Its shape; at least one axis.
    pub shape: Vec<usize>,
}

/// An expression of one arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WeightId(pub u32);

/// How a weight is computed. Arithmetic is done in f64 and rounded once, to f32, at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WeightOp {
    /// A tensor of the checkpoint.
    Tensor {
        /// Its name in the checkpoint.
        name: String,
    },
    /// A vector of known values.
    Values(Vec<f64>),
    /// The same value everywhere.
    Fill(f64),
    /// The kernel of the identity, `[c, c, k, k]` (dense) or `[c, 1, k, k]` (depthwise).
    Unit,
    /// The same elements; the first axis stays as it is.
    Reshape(WeightId),
    /// A kernel `[o, i, k0, k0]` with zeros around it, `[o, i, k, k]`.
    PadKernel {
        /// The kernel.
        a: WeightId,
        /// The new size.
        k: usize,
    },
    /// `gamma / sqrt(var + eps)`.
    BnScale {
        /// Vector.
        gamma: WeightId,
        /// Vector.
        var: WeightId,
        /// Added to the variance.
        eps: f64,
    },
    /// Row `i` of `w` times `v[i]`; a vector's rows are its elements.
    MulRows {
        /// Any shape.
        w: WeightId,
        /// As long as `w` has rows.
        v: WeightId,
    },
    /// Item `j` of the second axis of `w` times `v[j]`: a factor of input channel `j`.
    MulCols {
        /// Matrix or kernel.
        w: WeightId,
        /// As long as `w` has columns.
        v: WeightId,
    },
    /// Element by element.
    Add(WeightId, WeightId),
    /// Element by element.
    Sub(WeightId, WeightId),
    /// Element by element.
    Mul(WeightId, WeightId),
    /// Every element times a constant.
    Scale(WeightId, f64),
    /// Matrix times vector.
    MatVec {
        /// Matrix.
        w: WeightId,
        /// As long as `w` has columns.
        v: WeightId,
    },
    /// The diagonal of a square matrix, `[n, n]` or `[n, n, 1, 1]`.
    Diagonal(WeightId),
    /// A square matrix with zeros on its diagonal.
    OffDiagonal(WeightId),
    /// One below the other.
    ConcatRows(Vec<WeightId>),
    /// Blocks of `block` rows, alternating a, b, a, b; both have a multiple of `block` rows.
    InterleaveRows {
        /// First.
        a: WeightId,
        /// Second.
        b: WeightId,
        /// Rows of a block.
        block: usize,
    },
    /// Rows in another order.
    PermuteRows {
        /// Any shape.
        a: WeightId,
        /// The order of the result's rows.
        order: ColumnOrder,
    },
    /// The second axis in another order.
    PermuteCols {
        /// At least two axes.
        a: WeightId,
        /// The order of the result's columns.
        order: ColumnOrder,
    },
    /// Zero rows at the end.
    PadRows {
        /// Any shape.
        a: WeightId,
        /// Rows of the result.
        rows: usize,
    },
    /// Zero columns at the end of a matrix, zero input channels at the end of a kernel.
    PadCols {
        /// At least two axes.
        a: WeightId,
        /// Columns of the result.
        cols: usize,
    },
    /// Every `block` rows to `to` rows, the new ones zero.
    PadRowBlocks {
        /// Any shape with a multiple of `block` rows.
        a: WeightId,
        /// Rows of a block.
        block: usize,
        /// Rows of a block of the result.
        to: usize,
    },
    /// Every `block` columns to `to` columns, the new ones zero.
    PadColBlocks {
        /// Matrix with a multiple of `block` columns.
        a: WeightId,
        /// Columns of a block.
        block: usize,
        /// Columns of a block of the result.
        to: usize,
    },
}

/// An order of rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnOrder {
    /// Of `planes * each` items: position `m * each + i` holds item `planes * i + m`.
    Planar {
        /// Items that were neighbors and are `each` apart.
        planes: usize,
        /// Items of a plane.
        each: usize,
    },
}

/// An expression whose operands do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightError {
    /// Name of the operation.
    pub op: &'static str,
    /// What does not fit.
    pub reason: String,
}

impl Weights {
    /// An arena without expressions.
    pub fn new() -> Weights {
        Weights::default()
    }

    /// The expression, if `id` is one of this arena.
    pub fn get(&self, id: WeightId) -> Option<&WeightNode> {
        self.nodes.get(id.0 as usize)
    }

    /// The expression's shape.
    ///
    /// # Panics
    /// If `id` is of another arena.
    pub fn shape(&self, id: WeightId) -> &[usize] {
        &self.nodes[id.0 as usize].shape
    }

    /// All expressions, operands first.
    pub fn nodes(&self) -> impl Iterator<Item = (WeightId, &WeightNode)> {
        self.nodes.iter().enumerate().map(|(i, n)| (WeightId(i as u32), n))
    }

    /// All checkpoint tensors that the arena names, in the order of their first use.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.nodes.iter().filter_map(|n| {
            let WeightOp::Tensor { name } = &n.op else { return None };
            Some((name.as_str(), n.shape.as_slice()))
        })
    }

    /// Marks a weight that something besides the graph reads as it is. Passes leave it alone:
    /// a scaled copy of a tied embedding would cost a second table.
    pub fn pin(&mut self, id: WeightId) {
        if !self.pinned.contains(&id) {
            self.pinned.push(id);
        }
    }

    /// Whether passes have to leave the weight alone.
    pub fn is_pinned(&self, id: WeightId) -> bool {
        self.pinned.contains(&id)
    }

    /// A tensor of the checkpoint; one name is one expression.
    ///
    /// # Panics
    /// If the name is already in the arena with another shape.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize]) -> WeightId {
        let name = name.into();
        let known = self.nodes.iter().position(|n| matches!(&n.op, WeightOp::Tensor { name: n } if *n == name));
        match known {
            Some(i) => {
                assert_eq!(self.nodes[i].shape, shape, "tensor {name} with two shapes");
                WeightId(i as u32)
            }
            None => self.push(WeightOp::Tensor { name }, shape.to_vec()),
        }
    }

    /// A vector of known values.
    pub fn values(&mut self, values: Vec<f64>) -> WeightId {
        let shape = vec![values.len()];
        self.push(WeightOp::Values(values), shape)
    }

    /// The same value everywhere.
    pub fn fill(&mut self, value: f64, shape: &[usize]) -> WeightId {
        self.push(WeightOp::Fill(value), shape.to_vec())
    }

    /// The kernel of the identity: `[c, c, k, k]` or `[c, 1, k, k]` with odd `k`.
    pub fn unit(&mut self, shape: &[usize]) -> Result<WeightId, WeightError> {
        self.checked(WeightOp::Unit, shape.to_vec())
    }

    /// The same elements in another shape with the same first axis.
    pub fn reshape(&mut self, a: WeightId, shape: &[usize]) -> Result<WeightId, WeightError> {
        self.checked(WeightOp::Reshape(a), shape.to_vec())
    }

    /// An expression whose shape follows from its operands: every op but `Tensor`, `Values`,
    /// `Fill`, `Unit` and `Reshape`, which have functions of their own.
    pub fn derive(&mut self, op: WeightOp) -> Result<WeightId, WeightError> {
        match self.infer(&op, &[])? {
            Some(shape) => Ok(self.push(op, shape)),
            None => Err(WeightError { op: op.name(), reason: "needs a shape; use its own function".into() }),
        }
    }

    fn checked(&mut self, op: WeightOp, shape: Vec<usize>) -> Result<WeightId, WeightError> {
        self.infer(&op, &shape)?;
        Ok(self.push(op, shape))
    }

    /// From now on an expression that is there already is not made again, so that a second graph over the same tensors
    /// names the weights of the first.
    pub fn share(&mut self) {
        self.shared = true;
    }

    fn push(&mut self, op: WeightOp, shape: Vec<usize>) -> WeightId {
        let known = |n: &WeightNode| n.op == op && n.shape == shape;
        if let Some(at) = self.shared.then(|| self.nodes.iter().position(known)).flatten() {
            return WeightId(at as u32);
        }
        self.nodes.push(WeightNode { op, shape });
        WeightId(self.nodes.len() as u32 - 1)
    }

    /// Checks every expression again, for arenas that come from text.
    pub fn check(&self) -> Result<(), WeightError> {
        for (i, node) in self.nodes.iter().enumerate() {
            let op = node.op.name();
            if node.shape.is_empty() || node.shape.contains(&0) {
                return Err(WeightError {
                    op,
                    reason: format!("w{i} is {:?}: an axis is missing or empty", node.shape),
                });
            }
            if node.op.operands().iter().any(|o| o.0 as usize >= i) {
                return Err(WeightError { op, reason: format!("w{i} reads an expression that comes after it") });
            }
            if let Some(shape) = self.infer(&node.op, &node.shape)?
                && shape != node.shape
            {
                return Err(WeightError { op, reason: format!("w{i} says {:?}, its operands {shape:?}", node.shape) });
            }
        }
        match self.pinned.iter().find(|id| self.get(**id).is_none()) {
            Some(id) => Err(WeightError { op: "pinned", reason: format!("{id} is not in the arena") }),
            None => Ok(()),
        }
    }

    /// The shape that follows from the operands, or `None` where the op is given its shape,
    /// which is then checked.
    fn infer(&self, op: &WeightOp, given: &[usize]) -> Result<Option<Vec<usize>>, WeightError> {
        let fail = |reason: String| Err(WeightError { op: op.name(), reason });
        for id in op.operands() {
            if self.get(id).is_none() {
                return fail(format!("{id} is not in the arena"));
            }
        }
        let of = |id: &WeightId| self.shape(*id);
        let same = |a: &WeightId, b: &WeightId| match of(a) == of(b) {
            true => Ok(Some(of(a).to_vec())),
            false => fail(format!("{:?} and {:?}", of(a), of(b))),
        };
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        match op {
            WeightOp::Tensor { .. } | WeightOp::Fill(_) => Ok(None),
            WeightOp::Values(values) => Ok(Some(vec![values.len()])),
            WeightOp::Unit => match *given {
                [o, i, k, k2] if (i == o || i == 1) && k == k2 && k % 2 == 1 => Ok(None),
                _ => fail(format!("{given:?} is no kernel of an identity")),
            },
            WeightOp::Reshape(a) => {
                if given.first() != of(a).first() || count(given) != count(of(a)) {
                    return fail(format!("{:?} to {given:?}", of(a)));
                }
                Ok(None)
            }
            WeightOp::PadKernel { a, k } => match *of(a) {
                [o, i, k0, k1] if k0 == k1 && k0 <= *k && (k - k0) % 2 == 0 => Ok(Some(vec![o, i, *k, *k])),
                _ => fail(format!("{:?} to {k} x {k}", of(a))),
            },
            WeightOp::BnScale { gamma: a, var: b, .. }
            | WeightOp::Add(a, b)
            | WeightOp::Sub(a, b)
            | WeightOp::Mul(a, b) => same(a, b),
            WeightOp::MulRows { w, v } => match (of(w), of(v)) {
                ([rows, ..], [n]) if rows == n => Ok(Some(of(w).to_vec())),
                (w, v) => fail(format!("{w:?} by {v:?}")),
            },
            WeightOp::MulCols { w, v } => match (of(w), of(v)) {
                ([_, cols, ..], [n]) if cols == n => Ok(Some(of(w).to_vec())),
                (w, v) => fail(format!("{w:?} by {v:?}")),
            },
            WeightOp::MatVec { w, v } => match (of(w), of(v)) {
                ([rows, cols], [n]) if cols == n => Ok(Some(vec![*rows])),
                (w, v) => fail(format!("{w:?} by {v:?}")),
            },
            WeightOp::Scale(a, _) => Ok(Some(of(a).to_vec())),
            WeightOp::Diagonal(a) => match square(of(a)) {
                Some(n) => Ok(Some(vec![n])),
                None => fail(format!("{:?} is not square", of(a))),
            },
            WeightOp::OffDiagonal(a) => match square(of(a)) {
                Some(_) => Ok(Some(of(a).to_vec())),
                None => fail(format!("{:?} is not square", of(a))),
            },
            WeightOp::ConcatRows(parts) => {
                let Some((first, rest)) = parts.split_first() else { return fail("of nothing".into()) };
                let mut shape = of(first).to_vec();
                for part in rest {
                    if of(part).get(1..) != shape.get(1..) {
                        return fail(format!("{shape:?} and {:?}", of(part)));
                    }
                    shape[0] += of(part)[0];
                }
                Ok(Some(shape))
            }
            WeightOp::InterleaveRows { a, b, block } => {
                let mut shape = same(a, b)?.unwrap_or_default();
                if *block == 0 || shape[0] % block != 0 {
                    return fail(format!("{shape:?} in blocks of {block} rows"));
                }
                shape[0] *= 2;
                Ok(Some(shape))
            }
            WeightOp::PermuteRows { a, order: ColumnOrder::Planar { planes, each } } => match of(a) {
                [rows, ..] if *rows == planes * each => Ok(Some(of(a).to_vec())),
                shape => fail(format!("{shape:?} as {planes} x {each} rows")),
            },
            WeightOp::PermuteCols { a, order: ColumnOrder::Planar { planes, each } } => match of(a) {
                [_, cols, ..] if *cols == planes * each => Ok(Some(of(a).to_vec())),
                shape => fail(format!("{shape:?} as {planes} x {each} columns")),
            },
            WeightOp::PadRows { a, rows } => match of(a) {
                [n, rest @ ..] if n <= rows => Ok(Some([&[*rows], rest].concat())),
                shape => fail(format!("{shape:?} to {rows} rows")),
            },
            WeightOp::PadCols { a, cols } => match of(a) {
                [rows, n, rest @ ..] if n <= cols => Ok(Some([&[*rows, *cols], rest].concat())),
                shape => fail(format!("{shape:?} to {cols} columns")),
            },
            WeightOp::PadRowBlocks { a, block, to } => match of(a) {
                [n, rest @ ..] if *block > 0 && n.is_multiple_of(*block) && block <= to => {
                    Ok(Some([&[n / block * to], rest].concat()))
                }
                shape => fail(format!("{shape:?} in blocks of {block} rows to {to}")),
            },
            WeightOp::PadColBlocks { a, block, to } => match *of(a) {
                [rows, n] if *block > 0 && n.is_multiple_of(*block) && block <= to => {
                    Ok(Some(vec![rows, n / block * to]))
                }
                ref shape => fail(format!("{shape:?} in blocks of {block} columns to {to}")),
            },
        }
    }
}

/// Rows of a square matrix.
fn square(shape: &[usize]) -> Option<usize> {
    match shape {
        [n, m, rest @ ..] if n == m && rest.iter().all(|axis| *axis == 1) => Some(*n),
        _ => None,
    }
}

impl WeightNode {
    /// Length of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements of one row.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}

impl WeightOp {
    /// The operation's name as in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            WeightOp::Tensor { .. } => "Tensor",
            WeightOp::Values(_) => "Values",
            WeightOp::Fill(_) => "Fill",
            WeightOp::Unit => "Unit",
            WeightOp::Reshape(_) => "Reshape",
            WeightOp::PadKernel { .. } => "PadKernel",
            WeightOp::BnScale { .. } => "BnScale",
            WeightOp::MulRows { .. } => "MulRows",
            WeightOp::MulCols { .. } => "MulCols",
            WeightOp::Add(..) => "Add",
            WeightOp::Sub(..) => "Sub",
            WeightOp::Mul(..) => "Mul",
            WeightOp::Scale(..) => "Scale",
            WeightOp::MatVec { .. } => "MatVec",
            WeightOp::Diagonal(_) => "Diagonal",
            WeightOp::OffDiagonal(_) => "OffDiagonal",
            WeightOp::ConcatRows(_) => "ConcatRows",
            WeightOp::InterleaveRows { .. } => "InterleaveRows",
            WeightOp::PermuteRows { .. } => "PermuteRows",
            WeightOp::PermuteCols { .. } => "PermuteCols",
            WeightOp::PadRows { .. } => "PadRows",
            WeightOp::PadCols { .. } => "PadCols",
            WeightOp::PadRowBlocks { .. } => "PadRowBlocks",
            WeightOp::PadColBlocks { .. } => "PadColBlocks",
        }
    }

    /// The expressions that this one reads.
    pub fn operands(&self) -> Vec<WeightId> {
        match self {
            WeightOp::Tensor { .. } | WeightOp::Values(_) | WeightOp::Fill(_) | WeightOp::Unit => Vec::new(),
            WeightOp::Reshape(a)
            | WeightOp::PadKernel { a, .. }
            | WeightOp::Scale(a, _)
            | WeightOp::Diagonal(a)
            | WeightOp::OffDiagonal(a)
            | WeightOp::PermuteRows { a, .. }
            | WeightOp::PermuteCols { a, .. }
            | WeightOp::PadRows { a, .. }
            | WeightOp::PadCols { a, .. }
            | WeightOp::PadRowBlocks { a, .. }
            | WeightOp::PadColBlocks { a, .. } => vec![*a],
            WeightOp::BnScale { gamma: a, var: b, .. }
            | WeightOp::MulRows { w: a, v: b }
            | WeightOp::MulCols { w: a, v: b }
            | WeightOp::MatVec { w: a, v: b }
            | WeightOp::Add(a, b)
            | WeightOp::Sub(a, b)
            | WeightOp::Mul(a, b)
            | WeightOp::InterleaveRows { a, b, .. } => vec![*a, *b],
            WeightOp::ConcatRows(parts) => parts.clone(),
        }
    }
}

impl fmt::Display for WeightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

impl fmt::Display for WeightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weight expression {}: {}", self.op, self.reason)
    }
}

impl std::error::Error for WeightError {}
