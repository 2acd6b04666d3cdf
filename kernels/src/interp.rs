//! Runs kernels on plain memory: the meaning of every operation, bit for bit.

use std::fmt;

use crate::int::Int;
use crate::ir::{Arg, BinaryOp, CompareOp, Kernel, Op, ParamKind, Ptr, ReduceOp, Reg, Stmt, UnaryOp};

/// Buffers of 32-bit elements; floats are held by their bits.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The buffers.
    pub buffers: Vec<Vec<u32>>,
}

impl Memory {
    /// Adds a buffer of floats, returns the place of its first element.
    pub fn floats(&mut self, values: &[f32]) -> Place {
        self.buffers.push(values.iter().map(|v| v.to_bits()).collect());
        Place { buffer: self.buffers.len() - 1, at: 0 }
    }

    /// Adds a buffer of `n` zeros.
    pub fn zeros(&mut self, n: usize) -> Place {
        self.buffers.push(vec![0; n]);
        Place { buffer: self.buffers.len() - 1, at: 0 }
    }

    /// The floats of a buffer.
    pub fn read(&self, place: Place, n: usize) -> Vec<f32> {
        self.buffers[place.buffer][place.at..place.at + n].iter().map(|b| f32::from_bits(*b)).collect()
    }
}

/// An element of a buffer: the value of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The buffer.
    pub buffer: usize,
    /// The element.
    pub at: usize,
}

/// What stopped the interpreter: always a bug in a kernel or its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kernel.
    pub kernel: String,
    /// What happened.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.reason)
    }
}

impl std::error::Error for Fault {}

/// Runs `kernel`; `pointers` and `sizes` are its arguments, each kind in the order of parameters.
///
/// Every access is checked against its buffer. Works on lines and on legalized kernels.
pub fn interpret(kernel: &Kernel, memory: &mut Memory, pointers: &[Place], sizes: &[i64]) -> Result<(), Fault> {
    let lanes = kernel.lanes;
    let mut m = Machine {
        kernel,
        memory,
        pointers: pointers.to_vec(),
        regs: vec![0; kernel.regs.len() * lanes],
        vars: vec![0; kernel.vars.len()],
        scratch: vec![0; lanes],
    };
    let mut given = sizes.iter();
    for param in &kernel.params {
        if let ParamKind::Size(var) = param.kind {
            m.vars[var.0 as usize] = *given.next().ok_or_else(|| m.fault("too few sizes"))?;
        }
    }
    m.block(&kernel.body)
}

struct Machine<'a> {
    kernel: &'a Kernel,
    memory: &'a mut Memory,
    pointers: Vec<Place>,
    regs: Vec<u32>,
    vars: Vec<i64>,
    scratch: Vec<u32>,
}

impl Machine<'_> {
    fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault { kernel: self.kernel.name.clone(), reason: reason.into() }
    }

    fn int(&self, n: &Int) -> Result<i64, Fault> {
        n.eval(&|v| self.vars[v.0 as usize]).ok_or_else(|| self.fault(format!("{n:?} is out of range")))
    }

    /// The elements `at..at + n` of a pointer, checked: buffer and first element.
    fn place(&self, ptr: Ptr, at: &Int, n: usize) -> Result<(usize, usize), Fault> {
        let base = *self.pointers.get(ptr.0 as usize).ok_or_else(|| self.fault("too few pointers"))?;
        let first = base.at + self.int(at)? as usize;
        let len = self.memory.buffers[base.buffer].len();
        if first + n > len {
            let name = self.kernel.pointers().nth(ptr.0 as usize).map_or("?", |p| p.0);
            return Err(self.fault(format!("{name}: elements {first}..{} of {len}", first + n)));
        }
        Ok((base.buffer, first))
    }

    fn reg(&self, reg: Reg) -> &[u32] {
        let lanes = self.kernel.lanes;
        &self.regs[reg.0 as usize * lanes..][..lanes]
    }

    fn block(&mut self, body: &[Stmt]) -> Result<(), Fault> {
        for stmt in body {
            self.stmt(stmt)?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Fault> {
        let lanes = self.kernel.lanes;
        match stmt {
            Stmt::Note(_) | Stmt::Blank => {}
            Stmt::Let(dst, op) | Stmt::LetMut(dst, op) | Stmt::Set(dst, op) => {
                let mut out = std::mem::take(&mut self.scratch);
                let result = self.op(op, &mut out);
                self.regs[dst.0 as usize * lanes..][..lanes].copy_from_slice(&out);
                self.scratch = out;
                result?;
            }
            Stmt::Store(ptr, at, src) => {
                let (buffer, first) = self.place(*ptr, at, lanes)?;
                let from = src.0 as usize * lanes;
                self.memory.buffers[buffer][first..first + lanes].copy_from_slice(&self.regs[from..from + lanes]);
            }
            Stmt::StoreOne(ptr, at, src) => {
                let (buffer, first) = self.place(*ptr, at, 1)?;
                self.memory.buffers[buffer][first] = self.reg(*src)[0];
            }
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                let (from_buffer, from_first) = self.place(*from, from_at, 1)?;
                let (buffer, first) = self.place(*to, to_at, 1)?;
                self.memory.buffers[buffer][first] = self.memory.buffers[from_buffer][from_first];
            }
            Stmt::LetInt(var, value) => self.vars[var.0 as usize] = self.int(value)?,
            Stmt::Loop(var, from, to, body) => {
                for i in self.int(from)?..self.int(to)? {
                    self.vars[var.0 as usize] = i;
                    self.block(body)?;
                }
            }
            Stmt::IfLess(a, b, then, otherwise) => {
                let less = self.int(a)? < self.int(b)?;
                self.block(if less { then } else { otherwise })?;
            }
            Stmt::Call(callee, args) => {
                let (mut pointers, mut sizes) = (Vec::new(), Vec::new());
                for arg in args {
                    match arg {
                        Arg::Ptr(ptr, at) => {
                            let (buffer, at) = self.place(*ptr, at, 0)?;
                            pointers.push(Place { buffer, at });
                        }
                        Arg::Size(n) => sizes.push(self.int(n)?),
                    }
                }
                interpret(callee, self.memory, &pointers, &sizes)?;
            }
        }
        Ok(())
    }

    fn op(&self, op: &Op, out: &mut [u32]) -> Result<(), Fault> {
        let lanes = self.kernel.lanes;
        match op {
            Op::Splat(x) => out.fill(x.to_bits()),
            Op::SplatBits(x) => out.fill(*x as u32),
            Op::SplatInt(n) => out.fill(self.int(n)? as u32),
            Op::Iota(from) => out.iter_mut().enumerate().for_each(|(i, o)| *o = (from + i as i32) as u32),
            Op::Load(ptr, at) => {
                let (buffer, first) = self.place(*ptr, at, lanes)?;
                out.copy_from_slice(&self.memory.buffers[buffer][first..first + lanes]);
            }
            Op::Broadcast(ptr, at) => {
                let (buffer, first) = self.place(*ptr, at, 1)?;
                out.fill(self.memory.buffers[buffer][first]);
            }
            Op::Unary(op, a) => out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = unary(*op, *a)),
            Op::Binary(op, a, b) => {
                let pairs = self.reg(*a).iter().zip(self.reg(*b));
                out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = binary(*op, *a, *b));
            }
            Op::MulAdd(a, b, c) => self.fused(out, *a, *b, *c, 1.0),
            Op::NegMulAdd(a, b, c) => self.fused(out, *a, *b, *c, -1.0),
            Op::ShiftLeft(a, by) => out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = a << by),
            Op::Compare(op, a, b) => {
                let pairs = self.reg(*a).iter().zip(self.reg(*b));
                out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = compare(*op, *a, *b) as u32);
            }
            Op::Select(mask, yes, no) => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = if self.reg(*mask)[i] != 0 { self.reg(*yes)[i] } else { self.reg(*no)[i] };
                }
            }
            Op::Reduce(op, a) => {
                let mut tree = self.reg(*a).to_vec();
                while tree.len() > 1 {
                    let half = tree.len() / 2;
                    for i in 0..half {
                        tree[i] = match op {
                            ReduceOp::Add => binary(BinaryOp::Add, tree[i], tree[i + half]),
                            ReduceOp::Max => binary(BinaryOp::Max, tree[i], tree[i + half]),
                            ReduceOp::MinInt => (tree[i] as i32).min(tree[i + half] as i32) as u32,
                        };
                    }
                    tree.truncate(half);
                }
                out.fill(tree[0]);
            }
            Op::Copy(a) => out.copy_from_slice(self.reg(*a)),
        }
        Ok(())
    }

    fn fused(&self, out: &mut [u32], a: Reg, b: Reg, c: Reg, sign: f32) {
        let (a, b, c) = (self.reg(a), self.reg(b), self.reg(c));
        for (i, o) in out.iter_mut().enumerate() {
            *o = (sign * f32::from_bits(a[i])).mul_add(f32::from_bits(b[i]), f32::from_bits(c[i])).to_bits();
        }
    }
}

fn unary(op: UnaryOp, a: u32) -> u32 {
    let x = f32::from_bits(a);
    match op {
        UnaryOp::Sqrt => x.sqrt().to_bits(),
        UnaryOp::RoundEven => x.round_ties_even().to_bits(),
        UnaryOp::ToInt => (x as i32) as u32,
        UnaryOp::ToFloat => (a as i32 as f32).to_bits(),
        UnaryOp::BitsToInt | UnaryOp::BitsToFloat => a,
    }
}

fn binary(op: BinaryOp, a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    match op {
        BinaryOp::Add => (x + y).to_bits(),
        BinaryOp::Sub => (x - y).to_bits(),
        BinaryOp::Mul => (x * y).to_bits(),
        BinaryOp::Div => (x / y).to_bits(),
        BinaryOp::Min => {
            if x < y {
                a
            } else {
                b
            }
        }
        BinaryOp::Max => {
            if x > y {
                a
            } else {
                b
            }
        }
        BinaryOp::AddInt => a.wrapping_add(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
    }
}

fn compare(op: CompareOp, a: u32, b: u32) -> bool {
    match op {
        CompareOp::Less => f32::from_bits(a) < f32::from_bits(b),
        CompareOp::LessInt => (a as i32) < (b as i32),
        CompareOp::Equal => f32::from_bits(a) == f32::from_bits(b),
    }
}
