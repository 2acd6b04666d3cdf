//! Every operation on registers of a target gives the bits it gives on lines.

use std::rc::Rc;

use codegen_avx2::Level;
use codegen_neon::Neon;
use codegen_wasm::Simd128;
use kernels::{
    BinaryOp, Builder, CompareOp, Int, Kernel, LANES, Memory, Op, ReduceOp, Reg, Target, UnaryOp, interpret, legalize,
    verify,
};

/// Three lines of floats, oddities among them.
fn inputs() -> Vec<f32> {
    let odd = [f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0, -0.0, 1e-40, 2.5, -2.5, 3.5, 1e30];
    let plain = (0..).map(|i: i32| ((i * 37) % 64 - 30) as f32 * 0.37);
    let mixed = plain.enumerate().map(|(i, v)| if i % 5 == 3 { odd[i / 5 % odd.len()] } else { v });
    mixed.take(3 * LANES).collect()
}

/// Registers on which an operation is tried.
struct Operands {
    a: Reg,
    b: Reg,
    /// The same in all lanes.
    flat: Reg,
    bits: Reg,
    flat_bits: Reg,
    mask: Reg,
    flat_mask: Reg,
}

/// How a result is bound.
#[derive(Clone, Copy, Debug)]
enum Form {
    Let,
    LetMut,
    Set,
}

/// The operation's result, as floats or as integers.
fn kernel(form: Form, integer: bool, op: &dyn Fn(&Operands) -> Op) -> Rc<Kernel> {
    let mut k = Builder::new("operation", &[]);
    let (x, y, ids) = (k.read("x"), k.write("y"), k.write_u32("ids"));
    let (a, b) = (k.load("a", x, 0usize), k.load("b", x, LANES));
    let flat = k.broadcast("flat", x, 2 * LANES);
    let bits = k.unary("bits", UnaryOp::BitsToInt, a);
    let flat_bits = k.unary("flat_bits", UnaryOp::BitsToInt, flat);
    let mask = k.compare("mask", CompareOp::Less, a, b);
    let flat_mask = k.compare("flat_mask", CompareOp::Less, flat, flat);
    let op = op(&Operands { a, b, flat, bits, flat_bits, mask, flat_mask });
    let out = match form {
        Form::Let => k.bind("out", op),
        Form::LetMut => k.bind_mut("out", op),
        Form::Set => {
            let out = k.bind_mut("out", if integer { Op::SplatBits(9) } else { Op::Splat(9.0) });
            k.set(out, op);
            out
        }
    };
    if integer {
        k.store(ids, 0usize, out);
        k.store_one(ids, LANES, out);
    } else {
        k.store(y, 0usize, out);
        k.store_one(y, LANES, out);
    }
    k.finish()
}

fn run(kernel: &Kernel) -> Vec<Vec<u32>> {
    let mut memory = Memory::default();
    let places = [memory.floats(&inputs()), memory.zeros(LANES + 1), memory.zeros(LANES + 1)];
    interpret(kernel, &mut memory, &places, &[]).expect("in range");
    memory.buffers
}

/// Checks an operation in every form on every target. Without a fused multiply-add a target rounds
/// twice: `same` says whether that makes no difference.
fn check(name: &str, integer: bool, same: bool, op: &dyn Fn(&Operands) -> Op) {
    let targets: [&dyn Target; 4] = [&Level::V3, &Level::V4, &Neon, &Simd128];
    for form in [Form::Let, Form::LetMut, Form::Set] {
        let lines = kernel(form, integer, op);
        verify(&lines).unwrap_or_else(|e| panic!("{name}: {e}"));
        for target in targets {
            let registers = legalize(&lines, target);
            verify(&registers).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(registers.lanes, target.lanes());
            if same || target.level() != "simd128" {
                assert_eq!(run(&registers), run(&lines), "{name} by {form:?} at {}", target.level());
            }
        }
    }
}

#[test]
fn operations_on_one_register() {
    for op in [UnaryOp::Sqrt, UnaryOp::RoundEven] {
        check(&format!("{op:?}"), false, true, &|o| Op::Unary(op, o.a));
        check(&format!("{op:?} of a splat"), false, true, &|o| Op::Unary(op, o.flat));
    }
    check("ToFloat", false, true, &|o| Op::Unary(UnaryOp::ToFloat, o.bits));
    check("BitsToFloat", false, true, &|o| Op::Unary(UnaryOp::BitsToFloat, o.bits));
    check("ToInt", true, true, &|o| Op::Unary(UnaryOp::ToInt, o.a));
    check("BitsToInt", true, true, &|o| Op::Unary(UnaryOp::BitsToInt, o.flat));
    check("Copy", false, true, &|o| Op::Copy(o.a));
    check("Copy of a splat", true, true, &|o| Op::Copy(o.flat_bits));
    check("ShiftLeft", true, true, &|o| Op::ShiftLeft(o.bits, 5));
}

#[test]
fn operations_on_two_registers() {
    for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Min, BinaryOp::Max] {
        check(&format!("{op:?}"), false, true, &|o| Op::Binary(op, o.a, o.b));
        check(&format!("{op:?} with a splat"), false, true, &|o| Op::Binary(op, o.flat, o.b));
        check(&format!("{op:?} of splats"), false, true, &|o| Op::Binary(op, o.flat, o.flat));
    }
    for op in [BinaryOp::AddInt, BinaryOp::And, BinaryOp::Or, BinaryOp::Xor] {
        check(&format!("{op:?}"), true, true, &|o| Op::Binary(op, o.bits, o.flat_bits));
    }
}

#[test]
fn operations_on_three_registers() {
    check("MulAdd", false, false, &|o| Op::MulAdd(o.a, o.b, o.flat));
    check("NegMulAdd", false, false, &|o| Op::NegMulAdd(o.a, o.flat, o.b));
    check("MulAdd of splats", false, false, &|o| Op::MulAdd(o.flat, o.flat, o.flat));
    check("Select", false, true, &|o| Op::Select(o.mask, o.a, o.flat));
    check("Select by a splat", false, true, &|o| Op::Select(o.flat_mask, o.a, o.b));
    check("Select of integers", true, true, &|o| Op::Select(o.mask, o.flat_bits, o.bits));
}

#[test]
fn comparisons() {
    // A mask is seen through a selection.
    for op in [CompareOp::Less, CompareOp::Equal] {
        check_mask(&format!("{op:?}"), &|o| Op::Compare(op, o.a, o.b));
        check_mask(&format!("{op:?} with a splat"), &|o| Op::Compare(op, o.a, o.flat));
    }
    check_mask("LessInt", &|o| Op::Compare(CompareOp::LessInt, o.bits, o.flat_bits));
    check_mask("LessInt of splats", &|o| Op::Compare(CompareOp::LessInt, o.flat_bits, o.flat_bits));
}

fn check_mask(name: &str, op: &dyn Fn(&Operands) -> Op) {
    let mut k = Builder::new("comparison", &[]);
    let (x, y, _) = (k.read("x"), k.write("y"), k.write_u32("ids"));
    let (a, b) = (k.load("a", x, 0usize), k.load("b", x, LANES));
    let flat = k.broadcast("flat", x, 2usize);
    let bits = k.unary("bits", UnaryOp::BitsToInt, a);
    let flat_bits = k.unary("flat_bits", UnaryOp::BitsToInt, flat);
    let unused = k.compare("unused", CompareOp::Less, a, b);
    let mask = k.bind("mask", op(&Operands { a, b, flat, bits, flat_bits, mask: unused, flat_mask: unused }));
    let (one, two) = (k.splat("one", 1.0), k.splat("two", 2.0));
    let out = k.select("out", mask, one, two);
    k.store(y, 0usize, out);
    let lines = k.finish();
    let targets: [&dyn Target; 4] = [&Level::V3, &Level::V4, &Neon, &Simd128];
    for target in targets {
        assert_eq!(run(&legalize(&lines, target)), run(&lines), "{name} at {}", target.level());
    }
}

#[test]
fn sources() {
    check("Splat", false, true, &|_| Op::Splat(1.5));
    check("SplatBits", true, true, &|_| Op::SplatBits(-3));
    check("SplatInt", true, true, &|_| Op::SplatInt(Int::from(70usize)));
    check("Iota", true, true, &|_| Op::Iota(100));
    check("Load", false, true, &|_| Op::Load(kernels::Ptr(0), Int::from(7usize)));
    check("Broadcast", false, true, &|_| Op::Broadcast(kernels::Ptr(0), Int::from(9usize)));
}

#[test]
fn reductions() {
    for op in [ReduceOp::Add, ReduceOp::Max] {
        // A sum of infinities is NaN everywhere; the second line has none of the first's.
        check(&format!("{op:?}"), false, true, &|o| Op::Reduce(op, o.a));
        check(&format!("{op:?} of b"), false, true, &|o| Op::Reduce(op, o.b));
        check(&format!("{op:?} of a splat"), false, true, &|o| Op::Reduce(op, o.flat));
    }
    check("MinInt", true, true, &|o| Op::Reduce(ReduceOp::MinInt, o.bits));
    check("MinInt of a splat", true, true, &|o| Op::Reduce(ReduceOp::MinInt, o.flat_bits));
}

/// Where a lane is NaN, the maximum takes what the tree says: the second operand.
#[test]
fn largest_with_nan_at_every_lane() {
    let mut k = Builder::new("largest", &[]);
    let (x, y) = (k.read("x"), k.write("y"));
    let line = k.load("line", x, 0usize);
    let top = k.reduce("top", ReduceOp::Max, line);
    k.store(y, 0usize, top);
    let lines = k.finish();
    for at in 0..LANES {
        let mut values: Vec<f32> = (0..LANES).map(|i| (i * 5 % 16) as f32).collect();
        values[at] = f32::NAN;
        let mut tree = values.clone();
        while tree.len() > 1 {
            let far = tree.split_off(tree.len() / 2);
            tree.iter_mut().zip(far).for_each(|(near, far)| *near = if *near > far { *near } else { far });
        }
        let want = vec![tree[0].to_bits(); LANES];
        let registers = [&Level::V3 as &dyn Target, &Level::V4, &Neon, &Simd128].map(|t| legalize(&lines, t));
        for kernel in registers.iter().chain([&lines]) {
            let mut memory = Memory::default();
            let places = [memory.floats(&values), memory.zeros(LANES)];
            interpret(kernel, &mut memory, &places, &[]).expect("in range");
            assert_eq!(memory.buffers[1], want, "NaN at {at} in {} lanes", kernel.lanes);
        }
    }
}
