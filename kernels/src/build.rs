//! The builder: kernels are written as ordinary Rust that calls it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::LANES;
use crate::int::{Int, Var};
use crate::ir::{
    Access, Arg, BinaryOp, CompareOp, Elem, Kernel, Op, Param, ParamKind, Ptr, ReduceOp, Reg, RegInfo, Stmt, Ty,
    UnaryOp,
};

/// Builds one kernel. Loops in Rust unroll while building; [`Builder::each`] loops at run time.
pub struct Builder {
    kernel: Kernel,
    /// Open blocks; the last one takes statements.
    blocks: Vec<Vec<Stmt>>,
    names: HashMap<String, usize>,
    n_ptrs: u32,
}

impl Builder {
    /// A kernel of this name; `docs` become its documentation.
    pub fn new(name: impl Into<String>, docs: &[&str]) -> Builder {
        Builder {
            kernel: Kernel {
                name: name.into(),
                docs: docs.iter().map(|d| d.to_string()).collect(),
                params: Vec::new(),
                regs: Vec::new(),
                vars: Vec::new(),
                body: Vec::new(),
                lanes: LANES,
            },
            blocks: vec![Vec::new()],
            names: HashMap::new(),
            n_ptrs: 0,
        }
    }

    /// The finished kernel.
    pub fn finish(mut self) -> Rc<Kernel> {
        self.kernel.body = self.blocks.pop().expect("one block is always open");
        Rc::new(self.kernel)
    }

    /// A name not used before in this kernel.
    fn unique(&mut self, name: &str) -> String {
        let n = self.names.entry(name.to_string()).or_insert(0);
        *n += 1;
        match *n {
            1 => name.to_string(),
            n => {
                let fresh = format!("{name}_n{n}");
                self.names.insert(fresh.clone(), 1);
                fresh
            }
        }
    }

    fn pointer(&mut self, name: &str, elem: Elem, access: Access) -> Ptr {
        let ptr = Ptr(self.n_ptrs);
        self.n_ptrs += 1;
        let name = self.unique(name);
        self.kernel.params.push(Param { name, kind: ParamKind::Ptr(ptr, elem, access) });
        ptr
    }

    /// A pointer parameter to floats that are only read.
    pub fn read(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::F32, Access::Read)
    }

    /// A pointer parameter to floats that are written.
    pub fn write(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::F32, Access::Write)
    }

    /// A pointer parameter to integers that are written.
    pub fn write_u32(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::U32, Access::Write)
    }

    /// A pointer parameter to words that are only read.
    pub fn read_u32(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::U32, Access::Read)
    }

    /// A pointer parameter to signed bytes that are only read.
    pub fn read_i8(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::I8, Access::Read)
    }

    /// A pointer parameter to signed bytes that are written.
    pub fn write_i8(&mut self, name: &str) -> Ptr {
        self.pointer(name, Elem::I8, Access::Write)
    }

    /// A pointer parameter that is only read, to floats of either width.
    pub fn read_floats(&mut self, name: &str, elem: Elem) -> Ptr {
        debug_assert!(elem.is_float(), "{elem:?}");
        self.pointer(name, elem, Access::Read)
    }

    /// A pointer parameter that is written, to floats of either width.
    pub fn write_floats(&mut self, name: &str, elem: Elem) -> Ptr {
        debug_assert!(elem.is_float(), "{elem:?}");
        self.pointer(name, elem, Access::Write)
    }

    /// A size parameter.
    pub fn size(&mut self, name: &str) -> Int {
        let var = self.var(name);
        let name = self.kernel.vars[var.0 as usize].clone();
        self.kernel.params.push(Param { name, kind: ParamKind::Size(var) });
        Int::Var(var)
    }

    fn var(&mut self, name: &str) -> Var {
        let name = self.unique(name);
        self.kernel.vars.push(name);
        Var(self.kernel.vars.len() as u32 - 1)
    }

    fn push(&mut self, stmt: Stmt) {
        self.blocks.last_mut().expect("one block is always open").push(stmt);
    }

    fn reg(&mut self, name: &str, ty: Ty) -> Reg {
        let name = self.unique(name);
        self.kernel.regs.push(RegInfo { name, ty });
        Reg(self.kernel.regs.len() as u32 - 1)
    }

    /// What a pointer parameter points at.
    pub fn elem(&self, ptr: Ptr) -> Elem {
        self.kernel.pointers().nth(ptr.0 as usize).map_or(Elem::F32, |(_, elem, _)| elem)
    }

    fn ty(&self, reg: Reg) -> Ty {
        self.kernel.regs[reg.0 as usize].ty
    }

    fn type_of(&self, op: &Op) -> Ty {
        match op {
            Op::Load(ptr, _) | Op::Broadcast(ptr, _) => match self.elem(*ptr) {
                Elem::F32 | Elem::F16 => Ty::F32,
                Elem::U32 | Elem::I8 | Elem::U16 => Ty::I32,
            },
            Op::Splat(_) | Op::MulAdd(..) | Op::NegMulAdd(..) => Ty::F32,
            Op::InterleaveLow(..) | Op::InterleaveHigh(..) => Ty::F32,
            Op::SplatBits(_) | Op::SplatInt(_) | Op::Iota(_) | Op::Quad(..) | Op::Dot(..) | Op::DotLane(..) => Ty::I32,
            Op::DotPairs(..) | Op::Zip(..) => Ty::I32,
            Op::ShiftLeft(..) | Op::ShiftRight(..) | Op::ShiftRightSigned(..) | Op::ShiftRightHalves(..) => Ty::I32,
            Op::Unary(UnaryOp::ToInt | UnaryOp::RoundToInt | UnaryOp::BitsToInt, _) => Ty::I32,
            Op::Unary(_, _) => Ty::F32,
            Op::Binary(op, ..) if op.is_integer() => Ty::I32,
            Op::Binary(..) => Ty::F32,
            Op::Compare(..) => Ty::Mask,
            Op::Select(_, yes, _) => self.ty(*yes),
            Op::Reduce(_, a) | Op::Copy(a) => self.ty(*a),
        }
    }

    /// A comment in the printed source.
    pub fn note(&mut self, text: impl Into<String>) {
        self.push(Stmt::Note(text.into()));
    }

    /// An empty line in the printed source.
    pub fn blank(&mut self) {
        self.push(Stmt::Blank);
    }

    /// A register holding `op`.
    pub fn bind(&mut self, name: &str, op: Op) -> Reg {
        let reg = self.reg(name, self.type_of(&op));
        self.push(Stmt::Let(reg, op));
        reg
    }

    /// A register holding `op` that [`Builder::set`] and [`Builder::mul_add`] may change.
    pub fn bind_mut(&mut self, name: &str, op: Op) -> Reg {
        let reg = self.reg(name, self.type_of(&op));
        self.push(Stmt::LetMut(reg, op));
        reg
    }

    /// Assigns a mutable register.
    pub fn set(&mut self, reg: Reg, op: Op) {
        self.push(Stmt::Set(reg, op));
    }

    /// A float in all lanes.
    pub fn splat(&mut self, name: &str, value: f32) -> Reg {
        self.bind(name, Op::Splat(value))
    }

    /// One line from `ptr` at element `at`.
    pub fn load(&mut self, name: &str, ptr: Ptr, at: impl Into<Int>) -> Reg {
        self.bind(name, Op::Load(ptr, at.into()))
    }

    /// One element in all lanes.
    pub fn broadcast(&mut self, name: &str, ptr: Ptr, at: impl Into<Int>) -> Reg {
        self.bind(name, Op::Broadcast(ptr, at.into()))
    }

    /// `acc += a * b`, rounded once.
    pub fn mul_add(&mut self, acc: Reg, a: Reg, b: Reg) {
        self.set(acc, Op::MulAdd(a, b, acc));
    }

    /// An operation on two registers.
    pub fn binary(&mut self, name: &str, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        self.bind(name, Op::Binary(op, a, b))
    }

    /// `a + b`.
    pub fn add(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Add, a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Sub, a, b)
    }

    /// `a * b`.
    pub fn mul(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Mul, a, b)
    }

    /// `a / b`.
    pub fn div(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Div, a, b)
    }

    /// The larger one.
    pub fn max(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Max, a, b)
    }

    /// The smaller one.
    pub fn min(&mut self, name: &str, a: Reg, b: Reg) -> Reg {
        self.binary(name, BinaryOp::Min, a, b)
    }

    /// An operation on one register.
    pub fn unary(&mut self, name: &str, op: UnaryOp, a: Reg) -> Reg {
        self.bind(name, Op::Unary(op, a))
    }

    /// A comparison.
    pub fn compare(&mut self, name: &str, op: CompareOp, a: Reg, b: Reg) -> Reg {
        self.bind(name, Op::Compare(op, a, b))
    }

    /// `mask ? yes : no`.
    pub fn select(&mut self, name: &str, mask: Reg, yes: Reg, no: Reg) -> Reg {
        self.bind(name, Op::Select(mask, yes, no))
    }

    /// A reduction, in all lanes of the result.
    pub fn reduce(&mut self, name: &str, op: ReduceOp, a: Reg) -> Reg {
        self.bind(name, Op::Reduce(op, a))
    }

    /// Writes a line.
    pub fn store(&mut self, ptr: Ptr, at: impl Into<Int>, reg: Reg) {
        self.push(Stmt::Store(ptr, at.into(), reg));
    }

    /// Writes the first lane.
    pub fn store_one(&mut self, ptr: Ptr, at: impl Into<Int>, reg: Reg) {
        self.push(Stmt::StoreOne(ptr, at.into(), reg));
    }

    /// Copies one element.
    pub fn copy_one(&mut self, to: Ptr, to_at: impl Into<Int>, from: Ptr, from_at: impl Into<Int>) {
        self.push(Stmt::CopyOne((to, to_at.into()), (from, from_at.into())));
    }

    /// Asks for the cache line of an element that is needed later; it may lie behind the operand.
    pub fn prefetch(&mut self, ptr: Ptr, at: impl Into<Int>) {
        self.push(Stmt::Prefetch(ptr, at.into()));
    }

    /// A named integer; a constant is not named.
    pub fn int(&mut self, name: &str, value: impl Into<Int>) -> Int {
        let value = value.into();
        if value.constant().is_some() {
            return value;
        }
        let var = self.var(name);
        self.push(Stmt::LetInt(var, value));
        Int::Var(var)
    }

    /// A loop at run time over `from..to`. A constant empty range makes nothing, a constant range
    /// of one makes its body once.
    pub fn each(&mut self, name: &str, from: impl Into<Int>, to: impl Into<Int>, body: impl FnOnce(&mut Builder, Int)) {
        let (from, to) = (from.into(), to.into());
        if let (Some(a), Some(b)) = (from.constant(), to.constant()) {
            if a >= b {
                return;
            }
            if b - a == 1 {
                return body(self, from);
            }
        }
        let outer = self.names.clone();
        let var = self.var(name);
        let block = self.scope(|k| body(k, Int::Var(var)));
        self.names = outer;
        self.push(Stmt::Loop(var, from, to, block));
    }

    /// `if a < b { then } else { otherwise }`, decided now when both are constants.
    pub fn if_less(
        &mut self,
        a: impl Into<Int>,
        b: impl Into<Int>,
        then: impl FnOnce(&mut Builder),
        otherwise: impl FnOnce(&mut Builder),
    ) {
        let (a, b) = (a.into(), b.into());
        if let (Some(a), Some(b)) = (a.constant(), b.constant()) {
            return if a < b { then(self) } else { otherwise(self) };
        }
        let (yes, no) = (self.scope(then), self.scope(otherwise));
        self.push(Stmt::IfLess(a, b, yes, no));
    }

    /// `if x >= y { then }` of two floats in memory.
    pub fn if_at_least(&mut self, x: (Ptr, Int), y: (Ptr, Int), then: impl FnOnce(&mut Builder)) {
        let then = self.scope(then);
        self.push(Stmt::IfAtLeast(x, y, then));
    }

    /// The statements `body` makes. Names it gives may be given again after it.
    fn scope(&mut self, body: impl FnOnce(&mut Builder)) -> Vec<Stmt> {
        let outer = self.names.clone();
        self.blocks.push(Vec::new());
        body(self);
        self.names = outer;
        self.blocks.pop().expect("pushed above")
    }

    /// Calls another kernel.
    pub fn call(&mut self, callee: &Rc<Kernel>, args: Vec<Arg>) {
        self.push(Stmt::Call(callee.clone(), args));
    }
}

/// A pointer argument.
impl From<(Ptr, Int)> for Arg {
    fn from((ptr, at): (Ptr, Int)) -> Arg {
        Arg::Ptr(ptr, at)
    }
}

/// A pointer argument that is not moved.
impl From<Ptr> for Arg {
    fn from(ptr: Ptr) -> Arg {
        Arg::Ptr(ptr, Int::Const(0))
    }
}

/// A size argument.
impl From<Int> for Arg {
    fn from(size: Int) -> Arg {
        Arg::Size(size)
    }
}
