//! Runs kernels on plain memory: the meaning of every operation, bit for bit.

use std::fmt;

use crate::half;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, CompareOp, Elem, Kernel, Op, ParamKind, Ptr, ReduceOp, Reg, Stmt, UnaryOp};

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

    /// Adds a buffer of words.
    pub fn words(&mut self, values: &[u32]) -> Place {
        self.buffers.push(values.to_vec());
        Place { buffer: self.buffers.len() - 1, at: 0 }
    }

    /// Adds a buffer of `n` zeros.
    pub fn zeros(&mut self, n: usize) -> Place {
        self.buffers.push(vec![0; n]);
        Place { buffer: self.buffers.len() - 1, at: 0 }
    }

    /// The floats of a buffer.
    pub fn read(&self, place: Place, n: usize) -> Vec<f32> {
        let first = place.at / 4;
        self.buffers[place.buffer][first..first + n].iter().map(|b| f32::from_bits(*b)).collect()
    }
}

/// A byte of a buffer: the value of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The buffer.
    pub buffer: usize,
    /// The byte; where elements are 32 bits wide, a multiple of four.
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

    /// The elements `at..at + n` of a pointer, checked: the place of the first, and their kind.
    fn place(&self, ptr: Ptr, at: &Int, n: usize) -> Result<(Place, Elem), Fault> {
        let base = *self.pointers.get(ptr.0 as usize).ok_or_else(|| self.fault("too few pointers"))?;
        let (name, elem, _) =
            self.kernel.pointers().nth(ptr.0 as usize).ok_or_else(|| self.fault("too few parameters"))?;
        let first = base.at + self.int(at)? as usize * elem.bytes();
        let (end, len) = (first + n * elem.bytes(), self.memory.buffers[base.buffer].len() * 4);
        if end > len {
            return Err(self.fault(format!("{name}: bytes {first}..{end} of {len}")));
        }
        if !first.is_multiple_of(elem.bytes()) {
            return Err(self.fault(format!("{name}: byte {first} is not the first of an element")));
        }
        Ok((Place { buffer: base.buffer, at: first }, elem))
    }

    /// The elements at a place, widened to 32 bits.
    fn load(&self, place: Place, elem: Elem, out: &mut [u32]) {
        let buffer = &self.memory.buffers[place.buffer];
        match elem {
            Elem::F32 | Elem::U32 => out.copy_from_slice(&buffer[place.at / 4..][..out.len()]),
            Elem::I8 => {
                for (at, o) in (place.at..).zip(out) {
                    *o = buffer[at / 4].to_le_bytes()[at % 4] as i8 as u32;
                }
            }
            Elem::U16 | Elem::F16 => {
                for (at, o) in (place.at..).step_by(2).zip(out) {
                    let bits = buffer[at / 4] >> (8 * (at % 4)) & 0xffff;
                    *o = if elem == Elem::F16 { half::widen(bits) } else { bits };
                }
            }
        }
    }

    /// The `n` first lanes of a register to a place.
    fn store(&mut self, place: Place, elem: Elem, from: Reg, n: usize) {
        let values = &self.regs[from.0 as usize * self.kernel.lanes..][..n];
        let buffer = &mut self.memory.buffers[place.buffer];
        match elem {
            Elem::F32 | Elem::U32 => buffer[place.at / 4..][..n].copy_from_slice(values),
            Elem::I8 => {
                for (at, value) in (place.at..).zip(values) {
                    let mut word = buffer[at / 4].to_le_bytes();
                    word[at % 4] = *value as u8;
                    buffer[at / 4] = u32::from_le_bytes(word);
                }
            }
            Elem::U16 | Elem::F16 => {
                for (at, value) in (place.at..).step_by(2).zip(values) {
                    let bits = if elem == Elem::F16 { half::narrow(*value) } else { *value & 0xffff };
                    let (word, shift) = (&mut buffer[at / 4], 8 * (at % 4));
                    *word = *word & !(0xffff << shift) | bits << shift;
                }
            }
        }
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
            Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) => {}
            Stmt::Let(dst, op) | Stmt::LetMut(dst, op) | Stmt::Set(dst, op) => {
                let mut out = std::mem::take(&mut self.scratch);
                let result = self.op(op, &mut out);
                self.regs[dst.0 as usize * lanes..][..lanes].copy_from_slice(&out);
                self.scratch = out;
                result?;
            }
            Stmt::Store(ptr, at, src) => {
                let (place, elem) = self.place(*ptr, at, lanes)?;
                self.store(place, elem, *src, lanes);
            }
            Stmt::StoreOne(ptr, at, src) => {
                let (place, elem) = self.place(*ptr, at, 1)?;
                self.store(place, elem, *src, 1);
            }
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                let (from, elem) = self.place(*from, from_at, 1)?;
                let (to, _) = self.place(*to, to_at, 1)?;
                if elem.bytes() != 4 {
                    return Err(self.fault("only whole words are copied one by one"));
                }
                self.memory.buffers[to.buffer][to.at / 4] = self.memory.buffers[from.buffer][from.at / 4];
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
            Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                let ((x, _), (y, _)) = (self.place(*x, x_at, 1)?, self.place(*y, y_at, 1)?);
                let value = |p: Place| f32::from_bits(self.memory.buffers[p.buffer][p.at / 4]);
                if value(x) >= value(y) {
                    self.block(then)?;
                }
            }
            Stmt::Call(callee, args) => {
                let (mut pointers, mut sizes) = (Vec::new(), Vec::new());
                for arg in args {
                    match arg {
                        Arg::Ptr(ptr, at) => {
                            pointers.push(self.place(*ptr, at, 0)?.0);
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
                let (place, elem) = self.place(*ptr, at, lanes)?;
                self.load(place, elem, out);
            }
            Op::Broadcast(ptr, at) => {
                let (place, elem) = self.place(*ptr, at, 1)?;
                self.load(place, elem, &mut out[..1]);
                out.fill(out[0]);
            }
            Op::Quad(ptr, at) => {
                let (place, elem) = self.place(*ptr, at, 4)?;
                self.load(place, elem, &mut out[..4]);
                (4..out.len()).for_each(|i| out[i] = out[i % 4]);
            }
            Op::Unary(op, a) => out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = unary(*op, *a)),
            Op::Binary(op, a, b) => {
                if *op == BinaryOp::DotBytes {
                    self.reg(*a).iter().try_for_each(|w| self.weight(*w))?;
                }
                let pairs = self.reg(*a).iter().zip(self.reg(*b));
                out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = binary(*op, *a, *b));
            }
            Op::MulAdd(a, b, c) => self.fused(out, *a, *b, *c, 1.0),
            Op::NegMulAdd(a, b, c) => self.fused(out, *a, *b, *c, -1.0),
            Op::ShiftLeft(a, by) => out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = a << by),
            Op::ShiftRight(a, by) => out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = a >> by),
            Op::ShiftRightSigned(a, by) => {
                out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = (*a as i32 >> by) as u32);
            }
            Op::ShiftRightHalves(a, by) => {
                let shifted = |a: &u32| join(halves(*a).map(|half| half >> by));
                out.iter_mut().zip(self.reg(*a)).for_each(|(o, a)| *o = shifted(a));
            }
            Op::Dot(w, a, acc) => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = self.dot(self.reg(*w)[i], self.reg(*a)[i], self.reg(*acc)[i])?;
                }
            }
            Op::DotLane(w, a, lane, acc) => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = self.dot(self.reg(*w)[i], self.reg(*a)[i / 4 * 4 + *lane as usize], self.reg(*acc)[i])?;
                }
            }
            Op::DotPairs(w_reg, a_reg, acc) => {
                for (i, o) in out.iter_mut().enumerate() {
                    let (w, a) = (i / 4 * 4 + i % 2 * 2, i / 4 * 4 + i % 4 / 2 * 2);
                    let first = self.dot(self.reg(*w_reg)[w], self.reg(*a_reg)[a], self.reg(*acc)[i])?;
                    *o = self.dot(self.reg(*w_reg)[w + 1], self.reg(*a_reg)[a + 1], first)?;
                }
            }
            Op::Zip(zip, a, b) => {
                for (i, o) in out.iter_mut().enumerate() {
                    let lane = zip.lanes()[i % 4];
                    *o = self.reg(if lane < 4 { *a } else { *b })[i / 4 * 4 + lane % 4];
                }
            }
            Op::Compare(op, a, b) => {
                let pairs = self.reg(*a).iter().zip(self.reg(*b));
                out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = compare(*op, *a, *b) as u32);
            }
            Op::Select(mask, yes, no) => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = if self.reg(*mask)[i] != 0 { self.reg(*yes)[i] } else { self.reg(*no)[i] };
                }
            }
            Op::InterleaveLow(a, b) | Op::InterleaveHigh(a, b) => {
                let first = if matches!(op, Op::InterleaveHigh(..)) { lanes / 2 } else { 0 };
                for (i, o) in out.iter_mut().enumerate() {
                    *o = self.reg(if i % 2 == 0 { *a } else { *b })[first + i / 2];
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
                            ReduceOp::AddInt => tree[i].wrapping_add(tree[i + half]),
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

    fn dot(&self, w: u32, a: u32, acc: u32) -> Result<u32, Fault> {
        let mut sum = acc as i32;
        self.weight(w)?;
        for (w, a) in w.to_le_bytes().into_iter().zip(a.to_le_bytes()) {
            sum = sum.wrapping_add(i32::from(w) * i32::from(a as i8));
        }
        Ok(sum as u32)
    }

    /// Refuses bytes that are no weights.
    fn weight(&self, w: u32) -> Result<(), Fault> {
        match w.to_le_bytes().into_iter().find(|byte| *byte > 127) {
            Some(byte) => Err(self.fault(format!("a weight byte is {byte}, at most 127 is allowed"))),
            None => Ok(()),
        }
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
        UnaryOp::RoundToInt => (x.round_ties_even() as i32) as u32,
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
        BinaryOp::SubInt => a.wrapping_sub(b),
        BinaryOp::MulInt => a.wrapping_mul(b),
        BinaryOp::DotBytes => {
            let (w, a) = (a.to_le_bytes().map(i16::from), b.to_le_bytes().map(|byte| i16::from(byte as i8)));
            join([w[0] * a[0] + w[1] * a[1], w[2] * a[2] + w[3] * a[3]])
        }
        BinaryOp::AddHalves => {
            let (a, b) = (halves(a), halves(b));
            join([a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])])
        }
        BinaryOp::DotHalves => {
            let (a, b) = (halves(a).map(i32::from), halves(b).map(i32::from));
            (a[0] * b[0]).wrapping_add(a[1] * b[1]) as u32
        }
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
    }
}

/// The 16-bit halves of a word, the low one first.
fn halves(word: u32) -> [i16; 2] {
    [word as i16, (word >> 16) as i16]
}

fn join([low, high]: [i16; 2]) -> u32 {
    u32::from(low as u16) | u32::from(high as u16) << 16
}

fn compare(op: CompareOp, a: u32, b: u32) -> bool {
    match op {
        CompareOp::Less => f32::from_bits(a) < f32::from_bits(b),
        CompareOp::LessInt => (a as i32) < (b as i32),
        CompareOp::Equal => f32::from_bits(a) == f32::from_bits(b),
    }
}
