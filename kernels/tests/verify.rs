//! The verifier refuses every kind of malformed kernel, and says what is wrong.

use std::rc::Rc;

use codegen_avx2::Level;
use codegen_wasm::Simd128;
use kernels::{
    Arg, BinaryOp, Builder, CompareOp, Elem, Int, Kernel, Op, ParamKind, Ptr, ReduceOp, Reg, RegInfo, Stmt, Target, Ty,
    UnaryOp, Var, legalize, verify,
};

/// A kernel with everything the cases spoil: `out = x * 2` for `lines` lines.
///
/// Pointers: 0 x (read), 1 out (written), 2 ids (integers, written). Registers: 0 two, 1 total
/// (mutable), 2 v, 3 y, 4 mask, 5 bits. Variables: 0 lines, 1 at, 2 j.
fn sound() -> Kernel {
    let mut k = Builder::new("double", &[]);
    let (x, out, ids) = (k.read("x"), k.write("out"), k.write_u32("ids"));
    let lines = k.size("lines");
    let two = k.splat("two", 2.0);
    let total = k.bind_mut("total", Op::Splat(0.0));
    let at = k.int("at", lines.clone() * 2usize);
    k.each("j", 0usize, lines, |k, j| {
        let v = k.load("v", x, j.clone() * 16usize);
        let y = k.mul("y", v, two);
        k.set(total, Op::Binary(BinaryOp::Add, total, y));
        k.store(out, j * 16usize, y);
    });
    let mask = k.compare("mask", CompareOp::Less, two, total);
    let bits = k.unary("bits", UnaryOp::BitsToInt, total);
    k.store_one(ids, at, bits);
    let _ = mask;
    Rc::unwrap_or_clone(k.finish())
}

const X: Ptr = Ptr(0);
const OUT: Ptr = Ptr(1);
const IDS: Ptr = Ptr(2);
const TWO: Reg = Reg(0);
const TOTAL: Reg = Reg(1);
const MASK: Reg = Reg(4);
const BITS: Reg = Reg(5);

fn zero() -> Int {
    Int::from(0usize)
}

/// Registers that a case may define: `free` (F32), `whole` (I32) and `truth` (Mask).
fn with(stmts: Vec<Stmt>) -> Kernel {
    let mut kernel = sound();
    for (name, ty) in [("free", Ty::F32), ("whole", Ty::I32), ("truth", Ty::Mask)] {
        kernel.regs.push(RegInfo { name: name.to_string(), ty });
    }
    kernel.vars.push("unset".to_string());
    kernel.body.extend(stmts);
    kernel
}

const FREE: Reg = Reg(6);
const WHOLE: Reg = Reg(7);
const TRUTH: Reg = Reg(8);

fn unset() -> Int {
    Int::from(Var(3))
}

/// `expected` is a part of the message; empty for a sound kernel.
fn check(kernel: &Kernel, expected: &str) {
    match verify(kernel) {
        Ok(()) => assert_eq!(expected, "", "accepted, should have said: {expected}"),
        Err(e) => {
            assert_eq!(e.kernel, kernel.name);
            assert!(!expected.is_empty() && e.reason.contains(expected), "said {e:?}, should have said: {expected}");
        }
    }
}

#[test]
fn the_sound_kernel_is_accepted_on_lines_and_registers() {
    check(&sound(), "");
    check(&with(vec![]), "");
    let targets: [&dyn Target; 3] = [&Level::V3, &Level::V4, &Simd128];
    for target in targets {
        check(&legalize(&sound(), target), "");
    }
}

#[test]
fn malformed_statements_are_refused() {
    let binary = |op, a, b| Op::Binary(op, a, b);
    let cases: Vec<(Stmt, &str)> = vec![
        // Use before definition, of registers and of variables.
        (Stmt::Let(FREE, Op::Unary(UnaryOp::Sqrt, FREE)), "free is used before it is defined"),
        (Stmt::Set(FREE, Op::Splat(1.0)), "free is used before it is defined"),
        (Stmt::Store(OUT, zero(), FREE), "free is used before it is defined"),
        (Stmt::Let(FREE, Op::Load(X, unset())), "unset is used before it is defined"),
        (Stmt::Let(WHOLE, Op::SplatInt(unset())), "unset is used before it is defined"),
        (Stmt::LetInt(Var(3), unset() + 1usize), "unset is used before it is defined"),
        (Stmt::Loop(Var(3), zero(), unset(), vec![]), "unset is used before it is defined"),
        (Stmt::IfLess(unset(), zero(), vec![], vec![]), "unset is used before it is defined"),
        (Stmt::IfAtLeast((X, zero()), (OUT, unset()), vec![]), "unset is used before it is defined"),
        (Stmt::CopyOne((OUT, unset()), (X, zero())), "unset is used before it is defined"),
        // What a loop or a branch defines ends with it: registers 2 and 3, variable 2.
        (Stmt::Store(OUT, zero(), Reg(3)), "y is used before it is defined"),
        (Stmt::Store(OUT, Int::from(Var(2)), TWO), "j is used before it is defined"),
        // Assignment of what is not mutable; a second definition.
        (Stmt::Set(TWO, Op::Splat(1.0)), "two is assigned but not mutable"),
        (Stmt::Let(TWO, Op::Splat(1.0)), "two is defined twice"),
        (Stmt::LetMut(TOTAL, Op::Splat(1.0)), "total is defined twice"),
        // Wrong types: of operands, of results, of what is assigned.
        (Stmt::Let(FREE, binary(BinaryOp::Add, TWO, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(WHOLE, binary(BinaryOp::Xor, BITS, TWO)), "two is F32, I32 is wanted"),
        (Stmt::Let(FREE, Op::MulAdd(TWO, TWO, MASK)), "mask is Mask, F32 is wanted"),
        (Stmt::Let(FREE, Op::NegMulAdd(BITS, TWO, TWO)), "bits is I32, F32 is wanted"),
        (Stmt::Let(FREE, Op::Unary(UnaryOp::ToFloat, TWO)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::Unary(UnaryOp::ToInt, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(TRUTH, Op::Compare(CompareOp::LessInt, BITS, TWO)), "two is F32, I32 is wanted"),
        (Stmt::Let(TRUTH, Op::Compare(CompareOp::Equal, BITS, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(FREE, Op::Select(BITS, TWO, TWO)), "bits is I32, Mask is wanted"),
        (Stmt::Let(FREE, Op::Select(MASK, TWO, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(WHOLE, Op::ShiftLeft(TWO, 3)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::ShiftLeft(BITS, 32)), "a shift by 32"),
        (Stmt::Let(WHOLE, Op::ShiftRight(TWO, 3)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::ShiftRight(BITS, 32)), "a shift by 32"),
        (Stmt::Let(WHOLE, Op::ShiftRightSigned(TWO, 3)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::ShiftRightSigned(BITS, 32)), "a shift by 32"),
        (Stmt::Let(FREE, Op::ShiftRight(BITS, 31)), "free is F32 and is given I32"),
        (Stmt::Let(WHOLE, Op::Dot(TWO, BITS, BITS)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::Dot(BITS, TWO, BITS)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::Dot(BITS, BITS, TWO)), "two is F32, I32 is wanted"),
        (Stmt::Let(FREE, Op::Dot(BITS, BITS, BITS)), "free is F32 and is given I32"),
        (Stmt::Let(WHOLE, binary(BinaryOp::MulInt, BITS, TWO)), "two is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, binary(BinaryOp::SubInt, TWO, BITS)), "two is F32, I32 is wanted"),
        (Stmt::Let(FREE, binary(BinaryOp::SubInt, BITS, BITS)), "free is F32 and is given I32"),
        (Stmt::Let(WHOLE, Op::Unary(UnaryOp::RoundToInt, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(WHOLE, Op::Reduce(ReduceOp::AddInt, TOTAL)), "total is F32, I32 is wanted"),
        (Stmt::Let(FREE, Op::Reduce(ReduceOp::MinInt, TOTAL)), "total is F32, I32 is wanted"),
        (Stmt::Let(WHOLE, Op::Reduce(ReduceOp::Add, BITS)), "bits is I32, F32 is wanted"),
        (Stmt::Let(FREE, Op::Copy(BITS)), "free is F32 and is given I32"),
        (Stmt::Let(FREE, Op::SplatBits(1)), "free is F32 and is given I32"),
        (Stmt::Let(WHOLE, Op::Splat(1.0)), "whole is I32 and is given F32"),
        (Stmt::Let(TRUTH, Op::Iota(0)), "truth is Mask and is given I32"),
        (Stmt::Set(TOTAL, Op::SplatBits(1)), "total is F32, I32 is wanted"),
        // Pointers: read-only, of other elements, not there.
        (Stmt::Store(X, zero(), TWO), "x is read-only and is written"),
        (Stmt::StoreOne(X, zero(), TWO), "x is read-only and is written"),
        (Stmt::CopyOne((X, zero()), (OUT, zero())), "x is read-only and is written"),
        (Stmt::Store(OUT, zero(), BITS), "I32 is stored through a pointer to F32"),
        (Stmt::StoreOne(IDS, zero(), TWO), "F32 is stored through a pointer to U32"),
        (Stmt::Store(OUT, zero(), MASK), "a mask is stored"),
        (Stmt::Let(FREE, Op::Load(IDS, zero())), "free is F32 and is given I32"),
        (Stmt::Let(FREE, Op::Broadcast(Ptr(3), zero())), "pointer 3 does not exist"),
        (Stmt::IfAtLeast((Ptr(3), zero()), (X, zero()), vec![]), "pointer 3 does not exist"),
        (Stmt::IfAtLeast((X, zero()), (IDS, zero()), vec![]), "F32 is compared with U32, floats are wanted"),
    ];
    for (stmt, expected) in cases {
        check(&with(vec![stmt.clone()]), expected);
        // Also inside a loop and a branch.
        if !expected.starts_with("unset") {
            check(&with(vec![Stmt::Loop(Var(3), zero(), 3usize.into(), vec![stmt.clone()])]), expected);
        }
        check(&with(vec![Stmt::IfLess(zero(), 1usize.into(), vec![], vec![stmt.clone()])]), expected);
        check(&with(vec![Stmt::IfAtLeast((X, zero()), (OUT, zero()), vec![stmt])]), expected);
    }
}

/// Bytes take what is an integer, and are not copied one by one: no target prints that.
#[test]
fn pointers_to_bytes() {
    let kernel = |stmts: &dyn Fn(Ptr, Reg, Reg) -> Stmt| {
        let mut k = Builder::new("bytes", &[]);
        let y = k.write_i8("y");
        let (float, whole) = (k.splat("float", 1.0), k.bind("whole", Op::SplatBits(1)));
        let mut kernel = Rc::unwrap_or_clone(k.finish());
        kernel.regs.push(RegInfo { name: "out".to_string(), ty: Ty::F32 });
        kernel.body.push(stmts(y, float, whole));
        kernel
    };
    check(&kernel(&|y, _, whole| Stmt::Store(y, zero(), whole)), "");
    check(&kernel(&|y, float, _| Stmt::Store(y, zero(), float)), "F32 is stored through a pointer to I8");
    check(&kernel(&|y, float, _| Stmt::StoreOne(y, zero(), float)), "F32 is stored through a pointer to I8");
    check(&kernel(&|y, _, _| Stmt::Let(Reg(2), Op::Load(y, zero()))), "out is F32 and is given I32");
    check(&kernel(&|y, _, _| Stmt::Let(Reg(2), Op::Broadcast(y, zero()))), "out is F32 and is given I32");
    check(&kernel(&|y, _, _| Stmt::CopyOne((y, zero()), (y, zero()))), "bytes are copied one by one");
}

#[test]
fn pointers_to_16_bit_floats() {
    let kernel = |stmts: &dyn Fn(Ptr, Reg, Reg) -> Stmt| {
        let mut k = Builder::new("halves", &[]);
        let y = k.write_floats("y", Elem::F16);
        let (float, whole) = (k.splat("float", 1.0), k.bind("whole", Op::SplatBits(1)));
        let mut kernel = Rc::unwrap_or_clone(k.finish());
        kernel.regs.push(RegInfo { name: "out".to_string(), ty: Ty::I32 });
        kernel.body.push(stmts(y, float, whole));
        kernel
    };
    check(&kernel(&|y, float, _| Stmt::Store(y, zero(), float)), "");
    check(&kernel(&|y, _, whole| Stmt::Store(y, zero(), whole)), "I32 is stored through a pointer to F16");
    check(&kernel(&|y, _, whole| Stmt::StoreOne(y, zero(), whole)), "I32 is stored through a pointer to F16");
    check(&kernel(&|y, _, _| Stmt::Let(Reg(2), Op::Load(y, zero()))), "out is I32 and is given F32");
    check(&kernel(&|y, _, _| Stmt::Let(Reg(2), Op::Broadcast(y, zero()))), "out is I32 and is given F32");
    check(&kernel(&|y, _, _| Stmt::CopyOne((y, zero()), (y, zero()))), "halves are copied one by one");
}

/// What does not exist is refused by its number, wherever it stands.
#[test]
fn registers_and_variables_exist() {
    let (none, var) = (Reg(99), || Int::from(Var(77)));
    let registers = [
        Stmt::Let(none, Op::Splat(1.0)),
        Stmt::LetMut(none, Op::Splat(1.0)),
        Stmt::Set(none, Op::Splat(1.0)),
        Stmt::Set(TOTAL, Op::Copy(none)),
        Stmt::Store(OUT, zero(), none),
        Stmt::StoreOne(OUT, zero(), none),
        Stmt::Let(FREE, Op::Unary(UnaryOp::Sqrt, none)),
        Stmt::Let(FREE, Op::Binary(BinaryOp::Add, TWO, none)),
        Stmt::Let(FREE, Op::MulAdd(TWO, TWO, none)),
        Stmt::Let(FREE, Op::NegMulAdd(TWO, none, TWO)),
        Stmt::Let(WHOLE, Op::ShiftLeft(none, 1)),
        Stmt::Let(WHOLE, Op::ShiftRight(none, 1)),
        Stmt::Let(WHOLE, Op::ShiftRightSigned(none, 1)),
        Stmt::Let(WHOLE, Op::Dot(none, BITS, BITS)),
        Stmt::Let(TRUTH, Op::Compare(CompareOp::Less, none, TWO)),
        Stmt::Let(FREE, Op::Select(none, TWO, TWO)),
        Stmt::Let(FREE, Op::Select(MASK, none, TWO)),
        Stmt::Let(FREE, Op::Select(MASK, TWO, none)),
        Stmt::Let(FREE, Op::Reduce(ReduceOp::Add, none)),
        Stmt::Let(FREE, Op::Copy(none)),
    ];
    for stmt in registers {
        check(&with(vec![stmt]), "register 99 does not exist");
    }
    let variables = [
        Stmt::LetInt(Var(77), zero()),
        Stmt::LetInt(Var(3), var() + 1usize),
        Stmt::Loop(Var(77), zero(), 3usize.into(), vec![]),
        Stmt::Loop(Var(3), var(), 3usize.into(), vec![]),
        Stmt::Loop(Var(3), zero(), var(), vec![]),
        Stmt::IfLess(var(), zero(), vec![], vec![]),
        Stmt::IfAtLeast((X, var()), (X, zero()), vec![]),
        Stmt::Store(OUT, var(), TWO),
        Stmt::CopyOne((OUT, zero()), (X, var())),
        Stmt::Let(FREE, Op::Load(X, var())),
        Stmt::Let(WHOLE, Op::SplatInt(var())),
    ];
    for stmt in variables {
        check(&with(vec![stmt]), "variable 77 does not exist");
    }
    let mut kernel = sound();
    kernel.params[3].kind = ParamKind::Size(Var(77));
    check(&kernel, "variable 77 does not exist");
    let mut kernel = sound();
    kernel.params.swap(0, 1);
    check(&kernel, "out is pointer 0 and says 1");
}

#[test]
fn names_are_given_once() {
    let named = |reg: usize, name: &str, stmt: Stmt| {
        let mut kernel = with(vec![stmt]);
        kernel.regs[reg].name = name.to_string();
        kernel
    };
    let free = Stmt::Let(FREE, Op::Splat(1.0));
    for name in ["two", "total", "x", "lines", "at"] {
        check(&named(6, name, free.clone()), &format!("the name {name} is used twice"));
    }
    // `v` ended with its loop.
    check(&named(6, "v", free), "");
    let mut kernel = sound();
    kernel.params[1].name = "x".to_string();
    check(&kernel, "the name x is used twice");
    let mut kernel = with(vec![Stmt::LetInt(Var(3), 1usize.into())]);
    kernel.vars[3] = "two".to_string();
    check(&kernel, "the name two is used twice");
    let mut kernel = with(vec![Stmt::Loop(Var(3), zero(), 3usize.into(), vec![])]);
    kernel.vars[3] = "total".to_string();
    check(&kernel, "the name total is used twice");
}

#[test]
fn calls_match_their_callee() {
    let callee = Rc::new(sound());
    let call = |args: Vec<Arg>| with(vec![Stmt::Call(callee.clone(), args)]);
    let ptr = |p: Ptr| Arg::Ptr(p, zero());
    let size = || Arg::Size(4usize.into());
    check(&call(vec![ptr(X), ptr(OUT), ptr(IDS), size()]), "");
    check(&call(vec![ptr(OUT), ptr(OUT), ptr(IDS), size()]), "");
    check(&call(vec![ptr(X), ptr(OUT), ptr(IDS)]), "takes 4 arguments, 3 are given");
    check(&call(vec![ptr(X), ptr(OUT), ptr(IDS), size(), size()]), "takes 4 arguments, 5 are given");
    check(&call(vec![ptr(X), ptr(OUT), size(), ptr(IDS)]), "argument ids is of the wrong kind");
    check(&call(vec![size(), ptr(OUT), ptr(IDS), size()]), "argument x is of the wrong kind");
    check(&call(vec![ptr(X), ptr(X), ptr(IDS), size()]), "x is read-only and is written");
    // A callee may take memory for other elements than the caller: scratch has no type of its own.
    check(&call(vec![ptr(X), ptr(OUT), ptr(OUT), size()]), "");
    check(&call(vec![ptr(Ptr(9)), ptr(OUT), ptr(IDS), size()]), "pointer 9 does not exist");
    check(&call(vec![Arg::Ptr(X, unset()), ptr(OUT), ptr(IDS), size()]), "unset is used before it is defined");
    check(&call(vec![ptr(X), ptr(OUT), ptr(IDS), Arg::Size(unset())]), "unset is used before it is defined");
}

#[test]
fn callees_are_verified_too() {
    let mut broken = with(vec![Stmt::Set(TWO, Op::Splat(1.0))]);
    broken.name = "broken".to_string();
    let args = [X, OUT, IDS].map(|p| Arg::Ptr(p, zero())).into_iter().chain([Arg::Size(1usize.into())]);
    let kernel = with(vec![Stmt::Call(Rc::new(broken), args.collect())]);
    check(&kernel, "broken: two is assigned but not mutable");
}

#[test]
fn callees_are_known_by_name() {
    let args = || [X, OUT, IDS].map(|p| Arg::Ptr(p, zero())).into_iter().chain([Arg::Size(1usize.into())]).collect();
    let named = |mut kernel: Kernel, name: &str| {
        kernel.name = name.to_string();
        Rc::new(kernel)
    };
    let call = |kernel: &Rc<Kernel>| Stmt::Call(kernel.clone(), args());
    let (one, same) = (named(sound(), "inner"), named(sound(), "inner"));
    let other = named(with(vec![Stmt::Store(OUT, zero(), TWO)]), "inner");
    check(&with(vec![call(&one), call(&same)]), "");
    check(&with(vec![call(&one), call(&other)]), "two kernels are named inner");
    let around = named(with(vec![call(&other)]), "around");
    check(&with(vec![call(&around), call(&other)]), "");
    check(&with(vec![call(&around), call(&one)]), "two kernels are named inner");
}
