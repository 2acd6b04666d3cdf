//! Rejects malformed kernels, so that printing and interpreting cannot fail on form.

use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use crate::int::{Int, Var};
use crate::ir::{
    Access, Arg, CompareOp, Elem, Kernel, Op, ParamKind, Ptr, ReduceOp, Reg, RegInfo, Stmt, Ty, UnaryOp, each_call,
};

/// What is wrong with a kernel: its name and the finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The kernel.
    pub kernel: String,
    /// The finding, with the statement.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.reason)
    }
}

impl std::error::Error for Invalid {}

/// Checks that registers and variables are defined before use and hold the type their operation
/// wants, that only mutable registers are assigned, that nothing is written through a read-only
/// pointer, that names are unique, those of all callees too, and that calls match their callee's
/// parameters.
pub fn verify(kernel: &Kernel) -> Result<(), Invalid> {
    let fail = |reason: String| Invalid { kernel: kernel.name.clone(), reason };
    let mut scope =
        Scope { kernel, regs: vec![State::Undefined; kernel.regs.len()], vars: HashSet::new(), names: HashSet::new() };
    let mut pointers = 0;
    for param in &kernel.params {
        scope.name(&param.name).map_err(fail)?;
        match param.kind {
            ParamKind::Size(var) => {
                scope.var(var).map_err(fail)?;
                scope.vars.insert(var);
            }
            ParamKind::Ptr(ptr, ..) if ptr.0 == pointers => pointers += 1,
            ParamKind::Ptr(ptr, ..) => {
                return Err(fail(format!("{} is pointer {pointers} and says {}", param.name, ptr.0)));
            }
        }
    }
    scope.block(&kernel.body).map_err(fail)?;
    match namesake(kernel, &mut Vec::new()) {
        Some(name) => Err(fail(format!("two kernels are named {name}"))),
        None => Ok(()),
    }
}

/// The name of two different kernels that are called, if any: extents and the printed functions
/// know a kernel by its name.
fn namesake(kernel: &Kernel, known: &mut Vec<Rc<Kernel>>) -> Option<String> {
    let mut found = None;
    each_call(&kernel.body, &mut |callee| match known.iter().find(|k| k.name == callee.name) {
        Some(other) if other == callee => {}
        Some(other) => found = Some(other.name.clone()),
        None => {
            known.push(callee.clone());
            found = found.take().or_else(|| namesake(callee, known));
        }
    });
    found
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Undefined,
    Fixed,
    Mutable,
}

struct Scope<'a> {
    kernel: &'a Kernel,
    regs: Vec<State>,
    vars: HashSet<Var>,
    /// Names visible here.
    names: HashSet<String>,
}

impl Scope<'_> {
    fn int(&self, n: &Int) -> Result<(), String> {
        let mut missing = None;
        n.each_var(&mut |v| {
            if !self.vars.contains(&v) {
                missing = Some(v);
            }
        });
        match missing {
            Some(v) => Err(format!("{} is used before it is defined", self.var(v)?)),
            None => Ok(()),
        }
    }

    /// The name of a variable.
    fn var(&self, var: Var) -> Result<&str, String> {
        let name = self.kernel.vars.get(var.0 as usize);
        name.map(String::as_str).ok_or_else(|| format!("variable {} does not exist", var.0))
    }

    /// Name and type of a register.
    fn info(&self, reg: Reg) -> Result<&RegInfo, String> {
        self.kernel.regs.get(reg.0 as usize).ok_or_else(|| format!("register {} does not exist", reg.0))
    }

    fn reg(&self, reg: Reg, want: Ty) -> Result<(), String> {
        let info = self.info(reg)?;
        if self.regs[reg.0 as usize] == State::Undefined {
            return Err(format!("{} is used before it is defined", info.name));
        }
        if info.ty != want {
            return Err(format!("{} is {:?}, {want:?} is wanted", info.name, info.ty));
        }
        Ok(())
    }

    /// What a pointer points at.
    fn pointer(&self, ptr: Ptr, write: bool) -> Result<Elem, String> {
        let Some((name, elem, access)) = self.kernel.pointers().nth(ptr.0 as usize) else {
            return Err(format!("pointer {} does not exist", ptr.0));
        };
        if write && access == Access::Read {
            return Err(format!("{name} is read-only and is written"));
        }
        Ok(elem)
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        if self.names.insert(name.to_string()) { Ok(()) } else { Err(format!("the name {name} is used twice")) }
    }

    /// Checks operands, returns the type of the result.
    fn op(&self, op: &Op) -> Result<Ty, String> {
        match op {
            Op::Splat(_) => Ok(Ty::F32),
            Op::SplatBits(_) | Op::Iota(_) => Ok(Ty::I32),
            Op::SplatInt(n) => self.int(n).map(|()| Ty::I32),
            Op::Load(ptr, at) | Op::Broadcast(ptr, at) => {
                let ty = match self.pointer(*ptr, false)? {
                    Elem::F32 | Elem::F16 => Ty::F32,
                    Elem::U32 | Elem::I8 | Elem::U16 => Ty::I32,
                };
                self.int(at).map(|()| ty)
            }
            Op::Quad(ptr, at) => match self.pointer(*ptr, false)? {
                Elem::U32 => self.int(at).map(|()| Ty::I32),
                elem => Err(format!("a quad of {elem:?}")),
            },
            Op::Unary(op, a) => {
                let (from, to) = match op {
                    UnaryOp::Sqrt | UnaryOp::RoundEven => (Ty::F32, Ty::F32),
                    UnaryOp::ToInt | UnaryOp::RoundToInt | UnaryOp::BitsToInt => (Ty::F32, Ty::I32),
                    UnaryOp::ToFloat | UnaryOp::BitsToFloat => (Ty::I32, Ty::F32),
                };
                self.reg(*a, from).map(|()| to)
            }
            Op::Binary(op, a, b) => {
                let ty = if op.is_integer() { Ty::I32 } else { Ty::F32 };
                self.reg(*a, ty)?;
                self.reg(*b, ty).map(|()| ty)
            }
            Op::MulAdd(a, b, c) | Op::NegMulAdd(a, b, c) => {
                self.reg(*a, Ty::F32)?;
                self.reg(*b, Ty::F32)?;
                self.reg(*c, Ty::F32).map(|()| Ty::F32)
            }
            Op::ShiftLeft(a, by) | Op::ShiftRight(a, by) | Op::ShiftRightSigned(a, by) => match by {
                0..32 => self.reg(*a, Ty::I32).map(|()| Ty::I32),
                _ => Err(format!("a shift by {by}")),
            },
            Op::ShiftRightHalves(a, by) => match by {
                0..16 => self.reg(*a, Ty::I32).map(|()| Ty::I32),
                _ => Err(format!("a shift of halves by {by}")),
            },
            Op::Dot(w, a, acc) | Op::DotPairs(w, a, acc) => {
                self.reg(*w, Ty::I32)?;
                self.reg(*a, Ty::I32)?;
                self.reg(*acc, Ty::I32).map(|()| Ty::I32)
            }
            Op::DotLane(w, a, lane, acc) => {
                self.reg(*w, Ty::I32)?;
                self.reg(*a, Ty::I32)?;
                match lane {
                    0..4 => self.reg(*acc, Ty::I32).map(|()| Ty::I32),
                    _ => Err(format!("lane {lane} of a quad")),
                }
            }
            Op::Zip(_, a, b) => {
                self.reg(*a, Ty::I32)?;
                self.reg(*b, Ty::I32).map(|()| Ty::I32)
            }
            Op::Compare(op, a, b) => {
                let ty = match op {
                    CompareOp::Less | CompareOp::Equal => Ty::F32,
                    CompareOp::LessInt => Ty::I32,
                };
                self.reg(*a, ty)?;
                self.reg(*b, ty).map(|()| Ty::Mask)
            }
            Op::Select(mask, yes, no) => {
                let ty = self.info(*yes)?.ty;
                self.reg(*mask, Ty::Mask)?;
                self.reg(*yes, ty)?;
                self.reg(*no, ty).map(|()| ty)
            }
            Op::InterleaveLow(a, b) | Op::InterleaveHigh(a, b) => {
                self.reg(*a, Ty::F32)?;
                self.reg(*b, Ty::F32).map(|()| Ty::F32)
            }
            Op::Reduce(op, a) => {
                let ty = match op {
                    ReduceOp::Add | ReduceOp::Max => Ty::F32,
                    ReduceOp::MinInt | ReduceOp::AddInt => Ty::I32,
                };
                self.reg(*a, ty).map(|()| ty)
            }
            Op::Copy(a) => {
                let ty = self.info(*a)?.ty;
                self.reg(*a, ty).map(|()| ty)
            }
        }
    }

    fn define(&mut self, reg: Reg, op: &Op, state: State) -> Result<(), String> {
        let (ty, info) = (self.op(op)?, self.info(reg)?.clone());
        if self.regs[reg.0 as usize] != State::Undefined {
            return Err(format!("{} is defined twice", info.name));
        }
        if ty != info.ty {
            return Err(format!("{} is {:?} and is given {ty:?}", info.name, info.ty));
        }
        self.regs[reg.0 as usize] = state;
        self.name(&info.name)
    }

    fn block(&mut self, body: &[Stmt]) -> Result<(), String> {
        let (regs, vars, names) = (self.regs.clone(), self.vars.clone(), self.names.clone());
        for stmt in body {
            self.stmt(stmt)?;
        }
        // What a block defines ends with it.
        (self.regs, self.vars, self.names) = (regs, vars, names);
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), String> {
        match stmt {
            Stmt::Note(_) | Stmt::Blank => Ok(()),
            Stmt::Let(reg, op) => self.define(*reg, op, State::Fixed),
            Stmt::LetMut(reg, op) => self.define(*reg, op, State::Mutable),
            Stmt::Set(reg, op) => {
                let ty = self.op(op)?;
                self.reg(*reg, ty)?;
                match self.regs[reg.0 as usize] {
                    State::Mutable => Ok(()),
                    State::Fixed | State::Undefined => {
                        Err(format!("{} is assigned but not mutable", self.info(*reg)?.name))
                    }
                }
            }
            Stmt::Store(ptr, at, reg) | Stmt::StoreOne(ptr, at, reg) => {
                let ty = self.info(*reg)?.ty;
                self.reg(*reg, ty)?;
                self.int(at)?;
                match (ty, self.pointer(*ptr, true)?) {
                    (Ty::F32, Elem::F32 | Elem::F16) | (Ty::I32, Elem::U32 | Elem::I8 | Elem::U16) => Ok(()),
                    (Ty::Mask, _) => Err("a mask is stored".to_string()),
                    (ty, elem) => Err(format!("{ty:?} is stored through a pointer to {elem:?}")),
                }
            }
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                self.int(to_at)?;
                self.int(from_at)?;
                match (self.pointer(*from, false)?, self.pointer(*to, true)?) {
                    (from, to) if from != to => Err(format!("{from:?} is copied to {to:?}")),
                    (Elem::I8, _) => Err("bytes are copied one by one".to_string()),
                    (Elem::U16 | Elem::F16, _) => Err("halves are copied one by one".to_string()),
                    (Elem::F32 | Elem::U32, _) => Ok(()),
                }
            }
            Stmt::Prefetch(ptr, at) => {
                self.int(at)?;
                self.pointer(*ptr, false).map(|_| ())
            }
            Stmt::LetInt(var, value) => {
                self.int(value)?;
                let name = self.var(*var)?.to_string();
                self.vars.insert(*var);
                self.name(&name)
            }
            Stmt::Loop(var, from, to, body) => {
                self.int(from)?;
                self.int(to)?;
                let name = self.var(*var)?.to_string();
                self.name(&name)?;
                self.vars.insert(*var);
                self.block(body)?;
                self.vars.remove(var);
                self.names.remove(&name);
                Ok(())
            }
            Stmt::IfLess(a, b, then, otherwise) => {
                self.int(a)?;
                self.int(b)?;
                self.block(then)?;
                self.block(otherwise)
            }
            Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                self.int(x_at)?;
                self.int(y_at)?;
                match (self.pointer(*x, false)?, self.pointer(*y, false)?) {
                    (Elem::F32, Elem::F32) => self.block(then),
                    (x, y) => Err(format!("{x:?} is compared with {y:?}, floats are wanted")),
                }
            }
            Stmt::Call(callee, args) => self.call(callee, args),
        }
    }

    fn call(&self, callee: &Kernel, args: &[Arg]) -> Result<(), String> {
        if args.len() != callee.params.len() {
            return Err(format!("{} takes {} arguments, {} are given", callee.name, callee.params.len(), args.len()));
        }
        for (arg, param) in args.iter().zip(&callee.params) {
            match (arg, param.kind) {
                // Scratch memory holds what the callee takes it for: elements may differ.
                (Arg::Ptr(ptr, at), ParamKind::Ptr(_, wanted, access)) => {
                    self.int(at)?;
                    // A map of 16-bit floats is never scratch.
                    let given = self.kernel.pointers().nth(ptr.0 as usize).map_or(wanted, |(_, elem, _)| elem);
                    if given != wanted && (given == Elem::F16 || (wanted == Elem::F16 && access == Access::Read)) {
                        let name = &param.name;
                        return Err(format!("{}: {name} is of {wanted:?}, {given:?} is given", callee.name));
                    }
                    self.pointer(*ptr, access == Access::Write)?;
                }
                (Arg::Size(n), ParamKind::Size(_)) => self.int(n)?,
                _ => return Err(format!("{}: argument {} is of the wrong kind", callee.name, param.name)),
            }
        }
        verify(callee).map_err(|e| e.to_string())
    }
}
