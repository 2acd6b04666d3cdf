//! Kernels for the distances they are called with: constants become part of a callee instead of arguments of a call.
//!
//! Distances of rows and lines are constants of a model, and addresses made of constants need no registers. How many
//! rows there are stays an argument: that would make many functions and no address cheaper.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::int::{Int, Var};
use crate::ir::{Arg, Kernel, Op, ParamKind, Stmt};

/// The kernel with a callee of its own for each set of constant distances that it calls one with, where `worth` says that
/// a callee is faster so; these are named after them. `known` keeps what was made before, by name.
pub fn specialize(
    kernel: &Rc<Kernel>,
    worth: &dyn Fn(&Kernel) -> bool,
    known: &mut HashMap<String, Rc<Kernel>>,
) -> Rc<Kernel> {
    if let Some(made) = known.get(&kernel.name) {
        return made.clone();
    }
    let body = calls(&kernel.body, worth, known);
    let made = Rc::new(Kernel { body, ..kernel.as_ref().clone() });
    known.insert(made.name.clone(), made.clone());
    made
}

fn calls(body: &[Stmt], worth: &dyn Fn(&Kernel) -> bool, known: &mut HashMap<String, Rc<Kernel>>) -> Vec<Stmt> {
    let mut out = Vec::with_capacity(body.len());
    for stmt in body {
        out.push(match stmt {
            Stmt::Call(callee, args) => {
                let (own, rest) = with_constants(callee, args, worth, known);
                Stmt::Call(own, rest)
            }
            Stmt::Loop(var, from, to, body) => Stmt::Loop(*var, from.clone(), to.clone(), calls(body, worth, known)),
            Stmt::IfLess(a, b, then, otherwise) => {
                Stmt::IfLess(a.clone(), b.clone(), calls(then, worth, known), calls(otherwise, worth, known))
            }
            Stmt::IfAtLeast(x, y, then) => Stmt::IfAtLeast(x.clone(), y.clone(), calls(then, worth, known)),
            stmt => stmt.clone(),
        });
    }
    out
}

/// The callee with the constants among `args`, and the arguments that are left.
fn with_constants(
    callee: &Rc<Kernel>,
    args: &[Arg],
    worth: &dyn Fn(&Kernel) -> bool,
    known: &mut HashMap<String, Rc<Kernel>>,
) -> (Rc<Kernel>, Vec<Arg>) {
    if !worth(callee) {
        return (specialize(callee, worth, known), args.to_vec());
    }
    let (mut sizes, mut name) = (HashMap::new(), callee.name.clone());
    let (mut params, mut rest) = (Vec::new(), Vec::new());
    let mut distances = HashSet::new();
    indexed(&callee.body, &mut distances);
    for (param, arg) in callee.params.iter().zip(args) {
        match (param.kind, arg) {
            (ParamKind::Size(var), Arg::Size(Int::Const(n))) if distances.contains(&var) => {
                sizes.insert(var, *n);
                // Names of parameters tell apart what numbers alone would not.
                name += &format!("_{}{n}", param.name);
            }
            _ => {
                params.push(param.clone());
                rest.push(arg.clone());
            }
        }
    }
    if let Some(made) = known.get(&name) {
        return (made.clone(), rest);
    }
    let body = replace(&callee.body, &|var| sizes.get(&var).copied().map(Int::Const));
    let own = Rc::new(Kernel { name, params, body, ..callee.as_ref().clone() });
    (specialize(&own, worth, known), rest)
}

/// Collects the variables that indices of memory are made of.
fn indexed(body: &[Stmt], found: &mut HashSet<Var>) {
    for stmt in body {
        let mut index = |n: &Int| {
            n.each_var(&mut |var| {
                found.insert(var);
            })
        };
        match stmt {
            Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => {
                if let Op::Load(_, at) | Op::Broadcast(_, at) | Op::Quad(_, at) = op {
                    index(at);
                }
            }
            Stmt::Store(_, at, _) | Stmt::StoreOne(_, at, _) => index(at),
            Stmt::CopyOne((_, to), (_, from)) => {
                index(to);
                index(from);
            }
            Stmt::Loop(_, _, _, body) => indexed(body, found),
            Stmt::IfLess(_, _, then, otherwise) => {
                indexed(then, found);
                indexed(otherwise, found);
            }
            Stmt::IfAtLeast((_, x), (_, y), then) => {
                index(x);
                index(y);
                indexed(then, found);
            }
            Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) | Stmt::LetInt(..) | Stmt::Call(..) => {}
        }
    }
}

/// The statements with variables replaced by what `value` gives.
pub fn replace(body: &[Stmt], value: &impl Fn(Var) -> Option<Int>) -> Vec<Stmt> {
    let int = |n: &Int| n.replace(value);
    let op = |op: &Op| match op {
        Op::Load(ptr, at) => Op::Load(*ptr, int(at)),
        Op::Broadcast(ptr, at) => Op::Broadcast(*ptr, int(at)),
        Op::Quad(ptr, at) => Op::Quad(*ptr, int(at)),
        Op::SplatInt(n) => Op::SplatInt(int(n)),
        op => op.clone(),
    };
    let arg = |arg: &Arg| match arg {
        Arg::Ptr(ptr, at) => Arg::Ptr(*ptr, int(at)),
        Arg::Size(n) => Arg::Size(int(n)),
    };
    let one = |stmt: &Stmt| match stmt {
        Stmt::Note(_) | Stmt::Blank => stmt.clone(),
        Stmt::Let(reg, o) => Stmt::Let(*reg, op(o)),
        Stmt::LetMut(reg, o) => Stmt::LetMut(*reg, op(o)),
        Stmt::Set(reg, o) => Stmt::Set(*reg, op(o)),
        Stmt::Store(ptr, at, reg) => Stmt::Store(*ptr, int(at), *reg),
        Stmt::StoreOne(ptr, at, reg) => Stmt::StoreOne(*ptr, int(at), *reg),
        Stmt::CopyOne((to, to_at), (from, from_at)) => Stmt::CopyOne((*to, int(to_at)), (*from, int(from_at))),
        Stmt::Prefetch(ptr, at) => Stmt::Prefetch(*ptr, int(at)),
        Stmt::LetInt(v, n) => Stmt::LetInt(*v, int(n)),
        Stmt::Loop(v, from, to, body) => Stmt::Loop(*v, int(from), int(to), replace(body, value)),
        Stmt::IfLess(a, b, then, otherwise) => {
            Stmt::IfLess(int(a), int(b), replace(then, value), replace(otherwise, value))
        }
        Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
            Stmt::IfAtLeast((*x, int(x_at)), (*y, int(y_at)), replace(then, value))
        }
        Stmt::Call(callee, args) => Stmt::Call(callee.clone(), args.iter().map(arg).collect()),
    };
    body.iter().map(one).collect()
}
