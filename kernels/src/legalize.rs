//! Splits lines into a target's registers and expands what the target has no instruction for.

use std::collections::HashMap;
use std::rc::Rc;

use crate::LANES;
use crate::half;
use crate::int::Int;
use crate::ir::{BinaryOp, CompareOp, Elem, Kernel, Op, Param, ParamKind, Ptr, ReduceOp, Reg, RegInfo, Stmt, Ty};
use crate::prune::prune;
use crate::target::Target;

/// The kernel, and every kernel it calls, on registers of the target.
///
/// A value that is the same in all lanes (a splat, a broadcast, a reduction) takes one register;
/// everything else takes one per part of the line.
pub fn legalize(kernel: &Kernel, target: &dyn Target) -> Rc<Kernel> {
    let parts = LANES / target.lanes();
    let mut l = Legalizer {
        target,
        parts,
        source: kernel,
        regs: Vec::new(),
        map: Vec::new(),
        quads: HashMap::new(),
        part_of: HashMap::new(),
    };
    l.map = vec![Vec::new(); kernel.regs.len()];
    let mut body = l.block(&kernel.body);
    prune(&mut body, l.regs.len());
    Rc::new(Kernel {
        name: kernel.name.clone(),
        docs: kernel.docs.clone(),
        params: kernel.params.iter().map(|p| moved(p, target)).collect(),
        regs: l.regs,
        vars: kernel.vars.clone(),
        body,
        lanes: target.lanes(),
    })
}

/// A parameter as the target's loads and stores take it: 16-bit floats it cannot convert by their bits.
fn moved(param: &Param, target: &dyn Target) -> Param {
    let kind = match param.kind {
        ParamKind::Ptr(ptr, Elem::F16, access) if !target.converts_halves() => ParamKind::Ptr(ptr, Elem::U16, access),
        kind => kind,
    };
    Param { name: param.name.clone(), kind }
}

struct Legalizer<'a> {
    target: &'a dyn Target,
    /// Registers of a line.
    parts: usize,
    source: &'a Kernel,
    regs: Vec<RegInfo>,
    /// Registers of each line: one if uniform, else one per part.
    map: Vec<Vec<Reg>>,
    /// Where quads are read that the target does not have.
    quads: HashMap<Reg, (Ptr, Int)>,
    /// Which part of a line a register is.
    part_of: HashMap<Reg, usize>,
}

impl Legalizer<'_> {
    fn block(&mut self, body: &[Stmt]) -> Vec<Stmt> {
        let mut out = Vec::new();
        for stmt in body {
            self.stmt(stmt, &mut out);
        }
        self.by_parts(&mut out);
        out
    }

    /// Orders turns of products of pairs by parts of lines instead of line by line. A part needs its own weights alone, and
    /// twice as many at once as another product, so that a compiler which keeps the order has registers for them.
    fn by_parts(&self, block: &mut [Stmt]) {
        let turn = |stmts: &[Stmt]| {
            let dots = |stmt: &Stmt| matches!(stmt, Stmt::Set(_, Op::DotPairs(..)));
            let brings = |stmt: &Stmt| matches!(stmt, Stmt::Let(_, Op::Load(..) | Op::Zip(..)) | Stmt::Prefetch(..));
            let first = stmts.iter().take_while(|stmt| brings(stmt)).count();
            (first, first + stmts[first..].iter().take_while(|stmt| dots(stmt)).count())
        };
        let mut at = 0;
        while at < block.len() {
            let (first, length) = turn(&block[at..]);
            // Uniform values and hints come first.
            if length > first {
                block[at..at + length].sort_by_key(|stmt| match stmt {
                    Stmt::Let(reg, _) | Stmt::Set(reg, _) => self.part_of.get(reg).map_or(0, |part| part + 1),
                    _ => 0,
                });
            }
            at += length.max(1);
        }
    }

    fn stmt(&mut self, stmt: &Stmt, out: &mut Vec<Stmt>) {
        let lanes = self.target.lanes();
        match stmt {
            Stmt::Note(_) | Stmt::Blank | Stmt::CopyOne(..) | Stmt::LetInt(..) => out.push(stmt.clone()),
            Stmt::Prefetch(..) => out.extend(self.target.prefetches().then(|| stmt.clone())),
            Stmt::Let(reg, op) => self.bind(*reg, op, out),
            Stmt::LetMut(reg, op) => {
                let ops = self.each_part(op, out);
                let parts = self.fresh(*reg, self.parts);
                for (op, &dst) in ops.into_iter().zip(&parts) {
                    self.emit(dst, op, Stmt::LetMut, out);
                }
                self.map[reg.0 as usize] = parts;
            }
            Stmt::Set(reg, op) => {
                let ops = self.each_part(op, out);
                let parts = self.map[reg.0 as usize].clone();
                for (op, dst) in ops.into_iter().zip(parts) {
                    self.emit(dst, op, Stmt::Set, out);
                }
            }
            Stmt::Store(ptr, at, reg) => {
                for part in 0..self.parts {
                    let value = self.stored(*ptr, self.of(*reg, part), out);
                    out.push(Stmt::Store(*ptr, at.clone() + part * lanes, value));
                }
            }
            Stmt::StoreOne(ptr, at, reg) => {
                let value = self.stored(*ptr, self.of(*reg, 0), out);
                out.push(Stmt::StoreOne(*ptr, at.clone(), value));
            }
            Stmt::Loop(var, from, to, body) => {
                let body = self.block(body);
                out.push(Stmt::Loop(*var, from.clone(), to.clone(), body));
            }
            Stmt::IfLess(a, b, then, otherwise) => {
                let (then, otherwise) = (self.block(then), self.block(otherwise));
                out.push(Stmt::IfLess(a.clone(), b.clone(), then, otherwise));
            }
            Stmt::IfAtLeast(x, y, then) => {
                let then = self.block(then);
                out.push(Stmt::IfAtLeast(x.clone(), y.clone(), then));
            }
            Stmt::Call(callee, args) => out.push(Stmt::Call(legalize(callee, self.target), args.clone())),
        }
    }

    fn bind(&mut self, reg: Reg, op: &Op, out: &mut Vec<Stmt>) {
        if let Op::Reduce(reduce, a) = op {
            let sum = self.tree(*reduce, *a, out);
            let dst = self.fresh(reg, 1);
            out.push(Stmt::Let(dst[0], Op::Reduce(*reduce, sum)));
            self.map[reg.0 as usize] = dst;
            return;
        }
        let parts = self.fresh(reg, if self.uniform(op) { 1 } else { self.parts });
        for (part, &dst) in parts.iter().enumerate() {
            let op = self.part(op, part);
            self.emit(dst, op, Stmt::Let, out);
        }
        self.map[reg.0 as usize] = parts;
    }

    /// The operation on each part of the line. A reduction is one of all parts.
    fn each_part(&mut self, op: &Op, out: &mut Vec<Stmt>) -> Vec<Op> {
        match op {
            Op::Reduce(reduce, a) => vec![Op::Reduce(*reduce, self.tree(*reduce, *a, out)); self.parts],
            op => (0..self.parts).map(|part| self.part(op, part)).collect(),
        }
    }

    /// The parts of a line combined into one register, in the order of the reduction tree.
    fn tree(&mut self, reduce: ReduceOp, a: Reg, out: &mut Vec<Stmt>) -> Reg {
        let name = self.source.regs[a.0 as usize].name.clone();
        let ty = self.source.regs[a.0 as usize].ty;
        let mut parts: Vec<Reg> = (0..self.parts).map(|p| self.of(a, p)).collect();
        while parts.len() > 1 {
            let half = parts.len() / 2;
            parts = (0..half)
                .map(|i| {
                    let (x, y) = (parts[i], parts[i + half]);
                    match reduce {
                        ReduceOp::Add => self.temp(&name, ty, Op::Binary(BinaryOp::Add, x, y), out),
                        ReduceOp::AddInt => self.temp(&name, ty, Op::Binary(BinaryOp::AddInt, x, y), out),
                        ReduceOp::Max => self.temp(&name, ty, Op::Binary(BinaryOp::Max, x, y), out),
                        ReduceOp::MinInt => {
                            let less = self.temp(&name, Ty::Mask, Op::Compare(CompareOp::LessInt, x, y), out);
                            self.temp(&name, ty, Op::Select(less, x, y), out)
                        }
                    }
                })
                .collect();
        }
        parts[0]
    }

    /// Pushes `wrap(dst, op)`, expanded first where the target lacks the operation.
    fn emit(&mut self, dst: Reg, op: Op, wrap: fn(Reg, Op) -> Stmt, out: &mut Vec<Stmt>) {
        let name = self.regs[dst.0 as usize].name.clone();
        if let Op::Load(ptr, _) | Op::Broadcast(ptr, _) = &op
            && self.expands_half(*ptr)
        {
            let bits = self.temp(&name, Ty::I32, op, out);
            let op = half::emit_widen(&mut |ty, op| self.temp(&name, ty, op, out), bits);
            return out.push(wrap(dst, op));
        }
        if self.target.supports(&op) {
            return out.push(wrap(dst, op));
        }
        match op {
            // What is left of a quad is where it was read.
            Op::Quad(ptr, at) => {
                self.quads.insert(dst, (ptr, at));
            }
            Op::DotLane(w, a, lane, acc) => {
                let (ptr, at) = self.quads[&a].clone();
                let one = self.temp(&name, Ty::I32, Op::Broadcast(ptr, at + Int::from(lane as usize)), out);
                out.push(wrap(dst, Op::Dot(w, one, acc)));
            }
            Op::MulAdd(a, b, c) => {
                let product = self.temp(&name, Ty::F32, Op::Binary(BinaryOp::Mul, a, b), out);
                out.push(wrap(dst, Op::Binary(BinaryOp::Add, product, c)));
            }
            Op::NegMulAdd(a, b, c) => {
                let product = self.temp(&name, Ty::F32, Op::Binary(BinaryOp::Mul, a, b), out);
                out.push(wrap(dst, Op::Binary(BinaryOp::Sub, c, product)));
            }
            // Every target has the rest; the verifier of the printed source would tell.
            op => out.push(wrap(dst, op)),
        }
    }

    /// Whether a pointer's elements are 16-bit floats that the target cannot convert.
    fn expands_half(&self, ptr: Ptr) -> bool {
        let elem = self.source.pointers().nth(ptr.0 as usize).map(|(_, elem, _)| elem);
        elem == Some(Elem::F16) && !self.target.converts_halves()
    }

    /// What is stored for a register: its bits as a 16-bit float where the target cannot convert.
    fn stored(&mut self, ptr: Ptr, value: Reg, out: &mut Vec<Stmt>) -> Reg {
        if !self.expands_half(ptr) {
            return value;
        }
        let name = self.regs[value.0 as usize].name.clone();
        half::emit_narrow(&mut |ty, op| self.temp(&name, ty, op, out), value)
    }

    fn temp(&mut self, near: &str, ty: Ty, op: Op, out: &mut Vec<Stmt>) -> Reg {
        let reg = Reg(self.regs.len() as u32);
        self.regs.push(RegInfo { name: format!("{near}_t{}", reg.0), ty });
        out.push(Stmt::Let(reg, op));
        reg
    }

    fn fresh(&mut self, reg: Reg, parts: usize) -> Vec<Reg> {
        let RegInfo { name, ty } = &self.source.regs[reg.0 as usize];
        (0..parts)
            .map(|part| {
                let name = if parts == 1 { name.clone() } else { format!("{name}_p{part}") };
                self.regs.push(RegInfo { name, ty: *ty });
                let fresh = Reg(self.regs.len() as u32 - 1);
                if parts > 1 {
                    self.part_of.insert(fresh, part);
                }
                fresh
            })
            .collect()
    }

    fn of(&self, reg: Reg, part: usize) -> Reg {
        let parts = &self.map[reg.0 as usize];
        if parts.len() == 1 { parts[0] } else { parts[part] }
    }

    /// Whether an operation gives the same value in all lanes.
    fn uniform(&self, op: &Op) -> bool {
        // One register is all there is of a line.
        if self.parts == 1 {
            return true;
        }
        let all = |regs: &[Reg]| regs.iter().all(|r| self.map[r.0 as usize].len() == 1);
        match op {
            Op::Splat(_) | Op::SplatBits(_) | Op::SplatInt(_) | Op::Reduce(..) => true,
            Op::Broadcast(..) | Op::Quad(..) => true,
            Op::Iota(_) | Op::Load(..) | Op::InterleaveLow(..) | Op::InterleaveHigh(..) => false,
            Op::Unary(_, a) | Op::ShiftLeft(a, _) | Op::Copy(a) => all(&[*a]),
            Op::ShiftRight(a, _) | Op::ShiftRightSigned(a, _) | Op::ShiftRightHalves(a, _) => all(&[*a]),
            Op::Binary(_, a, b) | Op::Compare(_, a, b) => all(&[*a, *b]),
            Op::MulAdd(a, b, c) | Op::NegMulAdd(a, b, c) | Op::Select(a, b, c) | Op::Dot(a, b, c) => all(&[*a, *b, *c]),
            Op::DotPairs(a, b, c) => all(&[*a, *b, *c]),
            Op::Zip(_, a, b) => all(&[*a, *b]),
            Op::DotLane(w, a, _, acc) => all(&[*w, *a, *acc]),
        }
    }

    /// Register `at` of two lines' lanes in turn, of twice as many registers as a line has.
    fn interleaved(&self, a: Reg, b: Reg, at: usize) -> Op {
        let (a, b) = (self.of(a, at / 2), self.of(b, at / 2));
        if at.is_multiple_of(2) { Op::InterleaveLow(a, b) } else { Op::InterleaveHigh(a, b) }
    }

    fn part(&self, op: &Op, part: usize) -> Op {
        let of = |r: &Reg| self.of(*r, part);
        match op {
            Op::Splat(_) | Op::SplatBits(_) | Op::SplatInt(_) => op.clone(),
            Op::Broadcast(..) | Op::Quad(..) => op.clone(),
            Op::Iota(from) => Op::Iota(from + (part * self.target.lanes()) as i32),
            Op::Load(ptr, at) => Op::Load(*ptr, at.clone() + Int::from(part * self.target.lanes())),
            Op::Unary(op, a) => Op::Unary(*op, of(a)),
            Op::Binary(op, a, b) => Op::Binary(*op, of(a), of(b)),
            Op::MulAdd(a, b, c) => Op::MulAdd(of(a), of(b), of(c)),
            Op::NegMulAdd(a, b, c) => Op::NegMulAdd(of(a), of(b), of(c)),
            Op::ShiftLeft(a, by) => Op::ShiftLeft(of(a), *by),
            Op::ShiftRight(a, by) => Op::ShiftRight(of(a), *by),
            Op::ShiftRightSigned(a, by) => Op::ShiftRightSigned(of(a), *by),
            Op::ShiftRightHalves(a, by) => Op::ShiftRightHalves(of(a), *by),
            Op::Dot(w, a, acc) => Op::Dot(of(w), of(a), of(acc)),
            Op::DotLane(w, a, lane, acc) => Op::DotLane(of(w), of(a), *lane, of(acc)),
            Op::DotPairs(w, a, acc) => Op::DotPairs(of(w), of(a), of(acc)),
            Op::Zip(zip, a, b) => Op::Zip(*zip, of(a), of(b)),
            Op::Compare(op, a, b) => Op::Compare(*op, of(a), of(b)),
            Op::Select(a, b, c) => Op::Select(of(a), of(b), of(c)),
            Op::InterleaveLow(a, b) => self.interleaved(*a, *b, part),
            Op::InterleaveHigh(a, b) => self.interleaved(*a, *b, self.parts + part),
            Op::Reduce(op, a) => Op::Reduce(*op, of(a)),
            Op::Copy(a) => Op::Copy(of(a)),
        }
    }
}
