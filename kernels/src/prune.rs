//! Drops registers that nothing reads: parts of a line that an operation on the other parts left over.

use crate::ir::{Op, Reg, Stmt};

/// Drops every `Let` of `body` whose register no statement of it reads, and then those that only it read.
pub(crate) fn prune(body: &mut Vec<Stmt>, n_regs: usize) {
    loop {
        let mut read = vec![false; n_regs];
        mark(body, &mut read);
        if !sweep(body, &read) {
            return;
        }
    }
}

fn mark(body: &[Stmt], read: &mut [bool]) {
    for stmt in body {
        let mut all = |regs: &[Reg]| regs.iter().for_each(|reg| read[reg.0 as usize] = true);
        match stmt {
            Stmt::Let(_, op) | Stmt::LetMut(_, op) => all(&operands(op)),
            // What is assigned again is kept, with what it is made of.
            Stmt::Set(reg, op) => {
                all(&operands(op));
                all(&[*reg]);
            }
            Stmt::Store(_, _, reg) | Stmt::StoreOne(_, _, reg) => all(&[*reg]),
            Stmt::Loop(_, _, _, body) | Stmt::IfAtLeast(_, _, body) => mark(body, read),
            Stmt::IfLess(_, _, then, otherwise) => {
                mark(then, read);
                mark(otherwise, read);
            }
            Stmt::Note(_)
            | Stmt::Blank
            | Stmt::CopyOne(..)
            | Stmt::Prefetch(..)
            | Stmt::LetInt(..)
            | Stmt::Call(..) => {}
        }
    }
}

/// Whether something was dropped.
fn sweep(body: &mut Vec<Stmt>, read: &[bool]) -> bool {
    let before = body.len();
    body.retain(|stmt| !matches!(stmt, Stmt::Let(reg, _) if !read[reg.0 as usize]));
    let mut dropped = body.len() < before;
    for stmt in body {
        match stmt {
            Stmt::Loop(_, _, _, body) | Stmt::IfAtLeast(_, _, body) => dropped |= sweep(body, read),
            Stmt::IfLess(_, _, then, otherwise) => {
                dropped |= sweep(then, read);
                dropped |= sweep(otherwise, read);
            }
            _ => {}
        }
    }
    dropped
}

fn operands(op: &Op) -> Vec<Reg> {
    match op {
        Op::Splat(_) | Op::SplatBits(_) | Op::SplatInt(_) | Op::Iota(_) => vec![],
        Op::Load(..) | Op::Broadcast(..) | Op::Quad(..) => vec![],
        Op::Unary(_, a)
        | Op::ShiftLeft(a, _)
        | Op::ShiftRight(a, _)
        | Op::ShiftRightSigned(a, _)
        | Op::ShiftRightHalves(a, _)
        | Op::Reduce(_, a)
        | Op::Copy(a) => vec![*a],
        Op::Binary(_, a, b) | Op::Compare(_, a, b) | Op::InterleaveLow(a, b) | Op::InterleaveHigh(a, b) => vec![*a, *b],
        Op::MulAdd(a, b, c) | Op::NegMulAdd(a, b, c) | Op::Select(a, b, c) | Op::Dot(a, b, c) => vec![*a, *b, *c],
        Op::DotLane(w, a, _, acc) | Op::DotPairs(w, a, acc) => vec![*w, *a, *acc],
        Op::Zip(_, a, b) => vec![*a, *b],
    }
}
