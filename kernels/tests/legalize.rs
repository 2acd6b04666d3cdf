//! Every operation on registers of a target gives the bits it gives on lines.

use std::rc::Rc;

use codegen_avx2::Level;
use codegen_neon::Level::Neon;
use codegen_wasm::Simd128;
use kernels::{
    BinaryOp, Builder, CompareOp, Int, Kernel, LANES, Memory, Op, Place, ReduceOp, Reg, Target, UnaryOp, interpret,
    legalize, verify,
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
    /// Four bytes of 127 at most in each lane.
    weights: Reg,
    flat_weights: Reg,
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
    let low = k.bind("low", Op::SplatBits(0x7f7f_7f7f));
    let weights = k.binary("weights", BinaryOp::And, bits, low);
    let flat_weights = k.binary("flat_weights", BinaryOp::And, flat_bits, low);
    let mask = k.compare("mask", CompareOp::Less, a, b);
    let flat_mask = k.compare("flat_mask", CompareOp::Less, flat, flat);
    let op = op(&Operands { a, b, flat, bits, flat_bits, weights, flat_weights, mask, flat_mask });
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

/// Every target there is; NEON, V3 and V4 fuse multiply and add.
const TARGETS: [&dyn Target; 7] =
    [&Level::V3, &Level::V4, &Level::V3Exact, &Level::V3Vnni, &Level::V4Vnni, &Neon, &Simd128];

/// Checks an operation in every form on every target. Without a fused multiply-add a target rounds
/// twice: `same` says whether that makes no difference.
fn check(name: &str, integer: bool, same: bool, op: &dyn Fn(&Operands) -> Op) {
    for form in [Form::Let, Form::LetMut, Form::Set] {
        let lines = kernel(form, integer, op);
        verify(&lines).unwrap_or_else(|e| panic!("{name}: {e}"));
        for target in TARGETS {
            let registers = legalize(&lines, target);
            verify(&registers).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(registers.lanes, target.lanes());
            let fuses = target.supports(&Op::MulAdd(Reg(0), Reg(0), Reg(0)));
            if same || fuses {
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
    check("RoundToInt", true, true, &|o| Op::Unary(UnaryOp::RoundToInt, o.a));
    check("RoundToInt of a splat", true, true, &|o| Op::Unary(UnaryOp::RoundToInt, o.flat));
    for by in [0, 5, 31] {
        check("ShiftLeft", true, true, &|o| Op::ShiftLeft(o.bits, by));
        check("ShiftRight", true, true, &|o| Op::ShiftRight(o.bits, by));
        check("ShiftRightSigned", true, true, &|o| Op::ShiftRightSigned(o.bits, by));
        check("ShiftRight of a splat", true, true, &|o| Op::ShiftRight(o.flat_bits, by));
        check("ShiftRightSigned of a splat", true, true, &|o| Op::ShiftRightSigned(o.flat_bits, by));
    }
}

#[test]
fn operations_on_two_registers() {
    for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Min, BinaryOp::Max] {
        check(&format!("{op:?}"), false, true, &|o| Op::Binary(op, o.a, o.b));
        check(&format!("{op:?} with a splat"), false, true, &|o| Op::Binary(op, o.flat, o.b));
        check(&format!("{op:?} of splats"), false, true, &|o| Op::Binary(op, o.flat, o.flat));
    }
    let integer = [BinaryOp::AddInt, BinaryOp::SubInt, BinaryOp::MulInt, BinaryOp::And, BinaryOp::Or, BinaryOp::Xor];
    for op in integer {
        check(&format!("{op:?}"), true, true, &|o| Op::Binary(op, o.bits, o.flat_bits));
        check(&format!("{op:?} of splats"), true, true, &|o| Op::Binary(op, o.flat_bits, o.flat_bits));
    }
}

#[test]
fn operations_on_three_registers() {
    check("MulAdd", false, false, &|o| Op::MulAdd(o.a, o.b, o.flat));
    check("NegMulAdd", false, false, &|o| Op::NegMulAdd(o.a, o.flat, o.b));
    check("MulAdd of splats", false, false, &|o| Op::MulAdd(o.flat, o.flat, o.flat));
    check("Select", false, true, &|o| Op::Select(o.mask, o.a, o.flat));
    check("Select by a splat", false, true, &|o| Op::Select(o.flat_mask, o.a, o.b));
    check("Dot", true, true, &|o| Op::Dot(o.weights, o.bits, o.bits));
    check("Dot with a splat", true, true, &|o| Op::Dot(o.weights, o.flat_bits, o.bits));
    check("Dot of splats", true, true, &|o| Op::Dot(o.flat_weights, o.flat_bits, o.flat_bits));
    for (i, op) in [Op::InterleaveLow as fn(Reg, Reg) -> Op, Op::InterleaveHigh].into_iter().enumerate() {
        check(&format!("Interleave {i}"), false, true, &|o| op(o.a, o.b));
        check(&format!("Interleave {i} with a splat"), false, true, &|o| op(o.flat, o.b));
        check(&format!("Interleave {i} of splats"), false, true, &|o| op(o.flat, o.flat));
    }
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
    let mask = k.bind(
        "mask",
        op(&Operands {
            a,
            b,
            flat,
            bits,
            flat_bits,
            weights: bits,
            flat_weights: flat_bits,
            mask: unused,
            flat_mask: unused,
        }),
    );
    let (one, two) = (k.splat("one", 1.0), k.splat("two", 2.0));
    let out = k.select("out", mask, one, two);
    k.store(y, 0usize, out);
    let lines = k.finish();
    for target in TARGETS {
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
    check("AddInt", true, true, &|o| Op::Reduce(ReduceOp::AddInt, o.bits));
    check("AddInt of a splat", true, true, &|o| Op::Reduce(ReduceOp::AddInt, o.flat_bits));
    check("MinInt of a splat", true, true, &|o| Op::Reduce(ReduceOp::MinInt, o.flat_bits));
}

/// No target of quantized models is given a multiply-add: all round twice, and so have the same bits.
#[test]
fn exact_levels_never_fuse() {
    let fused = |op: fn(&Operands) -> Op| -> Vec<Vec<Vec<u32>>> {
        let lines = kernel(Form::Let, false, &op);
        let exact: [&dyn Target; 4] = [&Level::V3Exact, &Level::V3Vnni, &Level::V4Vnni, &Simd128];
        exact.iter().map(|t| run(&legalize(&lines, *t))).collect()
    };
    for op in [(|o| Op::MulAdd(o.a, o.b, o.flat)) as fn(&Operands) -> Op, |o| Op::NegMulAdd(o.a, o.b, o.a)] {
        let found = fused(op);
        assert!(found.iter().all(|bits| *bits == found[0]));
        assert_ne!(run(&kernel(Form::Let, false, &op)), found[0], "rounded twice, some lane differs");
    }
    for level in Level::EXACT {
        assert!(!level.supports(&Op::MulAdd(Reg(0), Reg(0), Reg(0))));
        assert!(!level.supports(&Op::NegMulAdd(Reg(0), Reg(0), Reg(0))));
    }
}

/// Bytes are widened by a load and narrowed by a store, at any byte.
#[test]
fn bytes() {
    let mut k = Builder::new("bytes", &[]);
    let (x, y) = (k.read_u32("x"), k.write_i8("y"));
    let line = k.load("line", x, 0usize);
    k.store(y, 3usize, line);
    let own = k.load("own", y, 3usize);
    let five = k.bind("five", Op::SplatBits(5));
    let less = k.binary("less", BinaryOp::SubInt, own, five);
    k.store(y, 22usize, less);
    let one = k.broadcast("one", y, 4usize);
    k.store(y, 38usize, one);
    k.store_one(y, 1usize, own);
    let lines = k.finish();
    verify(&lines).expect("sound");
    let words: Vec<u32> = (0..LANES as i32).map(|i| (i * 37 - 300) as u32).collect();
    let low: Vec<i8> = words.iter().map(|w| *w as i8).collect();
    let mut want = [0i8; 56];
    want[1] = low[0];
    want[3..19].copy_from_slice(&low);
    want[22..38].copy_from_slice(&low.iter().map(|b| b.wrapping_sub(5)).collect::<Vec<_>>());
    want[38..54].fill(low[1]);
    let want: Vec<u32> =
        want.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]].map(|b| b as u8))).collect();
    for kernel in TARGETS.map(|t| legalize(&lines, t)).iter().chain([&lines]) {
        verify(kernel).expect("sound");
        let mut memory = Memory::default();
        let places = [memory.words(&words), memory.zeros(14)];
        interpret(kernel, &mut memory, &places, &[]).expect("in range");
        assert_eq!(memory.buffers[1], want, "in {} lanes", kernel.lanes);
    }
}

/// Two lines in turn: first halves, then second halves.
#[test]
fn interleaving() {
    let mut k = Builder::new("interleave", &[]);
    let (x, y) = (k.read("x"), k.write("y"));
    let (a, b) = (k.load("a", x, 0usize), k.load("b", x, LANES));
    let (low, high) = (k.bind("low", Op::InterleaveLow(a, b)), k.bind("high", Op::InterleaveHigh(a, b)));
    k.store(y, 0usize, low);
    k.store(y, LANES, high);
    let lines = k.finish();
    let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let want: Vec<f32> = (0..32).map(|i| (i / 2 + i % 2 * 16) as f32).collect();
    for kernel in TARGETS.map(|t| legalize(&lines, t)).iter().chain([&lines]) {
        let mut memory = Memory::default();
        let places = [memory.floats(&values), memory.zeros(32)];
        interpret(kernel, &mut memory, &places, &[]).expect("in range");
        assert_eq!(memory.read(places[1], 32), want, "in {} lanes", kernel.lanes);
    }
}

/// What the interpreter refuses: never a wrong number.
#[test]
fn faults() {
    let fault = |kernel: &Kernel, start: &[u32], at: usize| {
        let mut memory = Memory::default();
        let place = Place { at, ..memory.words(start) };
        interpret(kernel, &mut memory, &[place], &[]).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let mut k = Builder::new("dot", &[]);
    let y = k.write_u32("y");
    let w = k.load("w", y, 0usize);
    let sum = k.bind("sum", Op::Dot(w, w, w));
    k.store(y, 0usize, sum);
    let dot = k.finish();
    assert_eq!(fault(&dot, &[0x7f7f_7f7f; LANES], 0), "");
    for i in 0..4 {
        for lane in [0, 15] {
            let mut start = [0x7f7f_7f7f; LANES];
            start[lane] = 0x7f7f_7f7f + (1 << (8 * i));
            assert_eq!(fault(&dot, &start, 0), "dot: a weight byte is 128, at most 127 is allowed");
        }
    }
    // A view of bytes may begin at any byte, one of words at every fourth.
    for at in 1..4 {
        let text = format!("dot: y: byte {at} is not the first of an element");
        assert_eq!(fault(&dot, &[0; LANES + 1], at), text);
    }
    assert_eq!(fault(&dot, &[0; LANES + 1], 4), "");
    assert_eq!(fault(&dot, &[0; LANES], 4), "dot: y: bytes 4..68 of 64");
    let mut k = Builder::new("bytes", &[]);
    let y = k.write_i8("y");
    let line = k.load("line", y, 1usize);
    k.store(y, 0usize, line);
    let bytes = k.finish();
    assert_eq!(fault(&bytes, &[0; 5], 3), "");
    assert_eq!(fault(&bytes, &[0; 5], 4), "bytes: y: bytes 5..21 of 20");
    let mut k = Builder::new("caller", &[]);
    let y = k.write_i8("y");
    k.call(&dot, vec![(y, Int::from(2usize)).into()]);
    assert_eq!(fault(&k.finish(), &[0; LANES + 1], 0), "dot: y: byte 2 is not the first of an element");
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
        let registers = TARGETS.map(|t| legalize(&lines, t));
        for kernel in registers.iter().chain([&lines]) {
            let mut memory = Memory::default();
            let places = [memory.floats(&values), memory.zeros(LANES)];
            interpret(kernel, &mut memory, &places, &[]).expect("in range");
            assert_eq!(memory.buffers[1], want, "NaN at {at} in {} lanes", kernel.lanes);
        }
    }
}

/// The lower half of two lines is made of their first registers alone where a line has several.
#[test]
fn parts_that_nothing_reads_are_dropped() {
    let mut k = Builder::new("low".to_string(), &["The lower halves, lanes in turn."]);
    let (x, y) = (k.read("x"), k.write("y"));
    let (a, b) = (k.load("a", x, 0usize), k.load("b", x, LANES));
    let low = k.bind("low", Op::InterleaveLow(a, b));
    k.store(y, 0usize, low);
    let kernel = k.finish();
    let loads = |target: &dyn Target| {
        let body = &legalize(&kernel, target).body;
        body.iter().filter(|stmt| matches!(stmt, kernels::Stmt::Let(_, Op::Load(..)))).count()
    };
    assert_eq!([loads(&Level::V4), loads(&Level::V3), loads(&Simd128)], [2, 2, 4]);
}
