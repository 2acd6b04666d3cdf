//! The kernel IR itself.

use std::rc::Rc;

use crate::int::{Int, Var};

/// A virtual vector register: a line before legalization, a machine register after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u32);

/// A pointer parameter, by its place among the pointer parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ptr(pub u32);

/// What a register holds in each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// A 32-bit float.
    F32,
    /// A 32-bit integer.
    I32,
    /// A truth value, the result of a comparison.
    Mask,
}

/// What a pointer points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// 32-bit floats.
    F32,
    /// 32-bit words: unsigned integers, or four bytes a lane.
    U32,
    /// Signed bytes. A load widens them to 32-bit integers, a store keeps the low byte of each lane.
    I8,
    /// Unsigned halves of words. A load widens them to 32-bit integers, a store keeps the low half of each lane.
    U16,
    /// 16-bit floats. A load widens them to 32-bit floats, a store rounds to the nearest, ties to even, beyond
    /// 65504 to infinity; a NaN stays one, made quiet.
    F16,
}

impl Elem {
    /// Whether a load makes floats of it.
    pub fn is_float(self) -> bool {
        match self {
            Elem::F32 | Elem::F16 => true,
            Elem::U32 | Elem::I8 | Elem::U16 => false,
        }
    }

    /// Part of a kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::U32 => "u32",
            Elem::I8 => "i8",
            Elem::U16 => "u16",
            Elem::F16 => "f16",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Elem::F32 | Elem::U32 => 4,
            Elem::U16 | Elem::F16 => 2,
            Elem::I8 => 1,
        }
    }
}

/// How a kernel uses a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Written, and perhaps read.
    Write,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name in the printed function.
    pub name: String,
    /// Pointer or size.
    pub kind: ParamKind,
}

/// The kinds of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    /// A pointer to elements.
    Ptr(Ptr, Elem, Access),
    /// A size or position.
    Size(Var),
}

/// Operations on one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// Square root, correctly rounded.
    Sqrt,
    /// To the nearest integer, ties to even, still a float.
    RoundEven,
    /// Float to integer, toward zero; in range by construction.
    ToInt,
    /// Float to the nearest integer, ties to even; in range by construction.
    RoundToInt,
    /// Integer to float.
    ToFloat,
    /// The same bits as an integer.
    BitsToInt,
    /// The same bits as a float.
    BitsToFloat,
}

/// Operations on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// Float sum.
    Add,
    /// Float difference.
    Sub,
    /// Float product.
    Mul,
    /// Float quotient.
    Div,
    /// Smaller float; the second operand if either is NaN.
    Min,
    /// Larger float; the second operand if either is NaN.
    Max,
    /// Integer sum, wrapping.
    AddInt,
    /// Integer difference, wrapping.
    SubInt,
    /// Low half of an integer product.
    MulInt,
    /// Of four bytes a lane: the sums of two products each, in the lane's halves of 16 bits. Operands as of [`Op::Dot`]: w, a.
    DotBytes,
    /// Sums of the halves of 16 bits, wrapping.
    AddHalves,
    /// The sum of the products of both halves of 16 bits, signed.
    DotHalves,
    /// Bits of both.
    And,
    /// Bits of either.
    Or,
    /// Bits of one of the two.
    Xor,
}

impl BinaryOp {
    /// Whether operands and result are integers.
    pub fn is_integer(self) -> bool {
        match self {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Min | BinaryOp::Max => false,
            BinaryOp::AddInt | BinaryOp::SubInt | BinaryOp::MulInt => true,
            BinaryOp::DotBytes | BinaryOp::AddHalves | BinaryOp::DotHalves => true,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => true,
        }
    }
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// Floats, `a < b`.
    Less,
    /// Signed integers, `a < b`.
    LessInt,
    /// Floats, `a == b`.
    Equal,
}

/// Reductions over the lanes of a line, in a fixed tree: lane i with i+8, then i+4, i+2, i+1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Sum.
    Add,
    /// Largest.
    Max,
    /// Smallest integer, signed.
    MinInt,
    /// Sum of integers, wrapping.
    AddInt,
}

/// Which lanes of two lines, in every four lanes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zip {
    /// a0, b0, a1, b1.
    Low,
    /// a2, b2, a3, b3.
    High,
    /// a0, a1, b0, b1.
    LowPairs,
    /// a2, a3, b2, b3.
    HighPairs,
}

impl Zip {
    /// The lanes, those of `b` from 4 on.
    pub fn lanes(self) -> [usize; 4] {
        match self {
            Zip::Low => [0, 4, 1, 5],
            Zip::High => [2, 6, 3, 7],
            Zip::LowPairs => [0, 1, 4, 5],
            Zip::HighPairs => [2, 3, 6, 7],
        }
    }
}

/// A vector operation. Its result is a register.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The same float in all lanes.
    Splat(f32),
    /// The same integer in all lanes.
    SplatBits(i32),
    /// The value of an integer expression in all lanes.
    SplatInt(Int),
    /// 0, 1, .. 15, plus the offset (a register's part of the line).
    Iota(i32),
    /// Consecutive elements.
    Load(Ptr, Int),
    /// One element in all lanes.
    Broadcast(Ptr, Int),
    /// Four consecutive words, in every four lanes again.
    Quad(Ptr, Int),
    /// One operand.
    Unary(UnaryOp, Reg),
    /// Two operands.
    Binary(BinaryOp, Reg, Reg),
    /// `a * b + c`, rounded once.
    MulAdd(Reg, Reg, Reg),
    /// `c - a * b`, rounded once.
    NegMulAdd(Reg, Reg, Reg),
    /// Integer shift to the left by a constant.
    ShiftLeft(Reg, u32),
    /// Shift to the right by a constant, zeros from the left.
    ShiftRight(Reg, u32),
    /// Shift to the right by a constant, the sign from the left.
    ShiftRightSigned(Reg, u32),
    /// The same of the halves of 16 bits of each lane.
    ShiftRightHalves(Reg, u32),
    /// Of four bytes a lane: `acc + sum of w[i] * a[i]`. The bytes of `w` are at most 127, those of
    /// `a` signed, so that no target saturates on the way: w, a, acc.
    Dot(Reg, Reg, Reg),
    /// The same with one lane of each four of a [`Op::Quad`] in all of these: w, a, lane, acc.
    DotLane(Reg, Reg, u32, Reg),
    /// Of every four lanes, which are two rows of eight bytes in both operands: what each row of `a` gives with each of `w`,
    /// `acc[2 i + j] + sum of a[i] * w[j]`. Bytes as of [`Op::Dot`]: w, a, acc.
    DotPairs(Reg, Reg, Reg),
    /// Lanes of two lines of integers, in every four of them.
    Zip(Zip, Reg, Reg),
    /// A comparison.
    Compare(CompareOp, Reg, Reg),
    /// `mask ? yes : no`.
    Select(Reg, Reg, Reg),
    /// The first halves of two lines of floats, lanes in turn: a0, b0, a1, b1, .. b7.
    InterleaveLow(Reg, Reg),
    /// The same of the second halves: a8, b8, .. b15.
    InterleaveHigh(Reg, Reg),
    /// The reduction in all lanes.
    Reduce(ReduceOp, Reg),
    /// Another register's value.
    Copy(Reg),
}

/// Name and type of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegInfo {
    /// Name in the printed source; unique in the kernel.
    pub name: String,
    /// What it holds.
    pub ty: Ty,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A pointer moved by a number of elements.
    Ptr(Ptr, Int),
    /// A size.
    Size(Int),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// A comment that travels to the printed source.
    Note(String),
    /// An empty line in the printed source.
    Blank,
    /// A new register.
    Let(Reg, Op),
    /// A new register that is assigned again later.
    LetMut(Reg, Op),
    /// A new value for a `LetMut` register.
    Set(Reg, Op),
    /// All lanes to consecutive elements.
    Store(Ptr, Int, Reg),
    /// The first lane to one element.
    StoreOne(Ptr, Int, Reg),
    /// One element copied, bits unchanged: destination, source.
    CopyOne((Ptr, Int), (Ptr, Int)),
    /// Asks for the cache line of an element, which may lie behind the operand: a hint without a result.
    Prefetch(Ptr, Int),
    /// A named integer.
    LetInt(Var, Int),
    /// `for var in from..to`.
    Loop(Var, Int, Int, Vec<Stmt>),
    /// `if a < b { then } else { otherwise }`.
    IfLess(Int, Int, Vec<Stmt>, Vec<Stmt>),
    /// `if x >= y { then }` of two floats in memory; not where one is no number. Decisions depend on values
    /// nowhere else, addresses never do.
    IfAtLeast((Ptr, Int), (Ptr, Int), Vec<Stmt>),
    /// Another kernel, with arguments in the order of its parameters.
    Call(Rc<Kernel>, Vec<Arg>),
}

/// A kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Function name without the level's suffix: `{op}[_{epilogue}]_{dtypes}_{tile}`.
    pub name: String,
    /// Documentation lines of the printed function: formula, shapes, tile.
    pub docs: Vec<String>,
    /// Parameters, in order.
    pub params: Vec<Param>,
    /// Registers.
    pub regs: Vec<RegInfo>,
    /// Names of the integer variables.
    pub vars: Vec<String>,
    /// Statements.
    pub body: Vec<Stmt>,
    /// Lanes of a register; 16 until legalized.
    pub lanes: usize,
}

impl Kernel {
    /// The pointer parameters: name, element, access.
    pub fn pointers(&self) -> impl Iterator<Item = (&str, Elem, Access)> {
        self.params.iter().filter_map(|p| match p.kind {
            ParamKind::Ptr(_, elem, access) => Some((p.name.as_str(), elem, access)),
            ParamKind::Size(_) => None,
        })
    }

    /// Every kernel this one calls, callees before callers, this one last, each name once.
    pub fn with_callees(self: &Rc<Self>) -> Vec<Rc<Kernel>> {
        fn visit(kernel: &Rc<Kernel>, out: &mut Vec<Rc<Kernel>>) {
            if out.iter().any(|k| k.name == kernel.name) {
                return;
            }
            each_call(&kernel.body, &mut |callee| visit(callee, out));
            out.push(kernel.clone());
        }
        let mut out = Vec::new();
        visit(self, &mut out);
        out
    }
}

/// Runs `f` on the callee of every call in `body`.
pub(crate) fn each_call(body: &[Stmt], f: &mut impl FnMut(&Rc<Kernel>)) {
    for stmt in body {
        match stmt {
            Stmt::Call(callee, _) => f(callee),
            Stmt::Loop(_, _, _, body) | Stmt::IfAtLeast(_, _, body) => each_call(body, f),
            Stmt::IfLess(_, _, then, otherwise) => {
                each_call(then, f);
                each_call(otherwise, f);
            }
            Stmt::Note(_)
            | Stmt::Blank
            | Stmt::Prefetch(..)
            | Stmt::Let(..)
            | Stmt::LetMut(..)
            | Stmt::Set(..)
            | Stmt::Store(..)
            | Stmt::StoreOne(..)
            | Stmt::CopyOne(..)
            | Stmt::LetInt(..) => {}
        }
    }
}
