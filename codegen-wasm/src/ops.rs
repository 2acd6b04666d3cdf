//! The table of operations: what each kernel operation is made of, once for printed Rust and for encoded modules.
//!
//! A recipe is a few steps over the operands; a step is an instruction with its intrinsic's name. Printed Rust nests
//! the steps or calls a helper of the prelude that consists of them, an encoded function has them in line.

use kernels::{BinaryOp, CompareOp, Elem, Op, ReduceOp, UnaryOp};
use wasm_encoder::{Instruction, MemArg};

use crate::Level;

/// An operand of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// An operand of the operation, in the order of its fields.
    Arg(usize),
    /// The result of an earlier step.
    Step(usize),
    /// A 16-bit integer in all lanes.
    Halves(i16),
}

/// One instruction.
pub(crate) struct Step {
    /// What a helper calls the result.
    pub name: &'static str,
    /// The intrinsic, with its lanes where it is a shuffle.
    pub intrinsic: &'static str,
    /// The instruction.
    pub code: Instruction<'static>,
    /// Vectors it takes.
    pub args: Vec<Value>,
    /// A scalar it takes after them: the bits of a shift.
    pub by: Option<u32>,
}

/// A helper of the printed prelude.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Helper {
    pub name: &'static str,
    pub doc: &'static str,
    /// Names of the operands.
    pub params: &'static [&'static str],
}

/// What an operation is made of; the last step is the result, without steps the first operand is.
pub(crate) struct Recipe {
    /// What printed Rust calls instead.
    pub helper: Option<Helper>,
    pub steps: Vec<Step>,
}

const A: Value = Value::Arg(0);
const B: Value = Value::Arg(1);
const C: Value = Value::Arg(2);

impl Recipe {
    fn none() -> Recipe {
        Recipe { helper: None, steps: Vec::new() }
    }

    fn one(intrinsic: &'static str, code: Instruction<'static>, args: &[Value]) -> Recipe {
        Recipe::none().then("", intrinsic, code, args)
    }

    fn then(
        mut self,
        name: &'static str,
        intrinsic: &'static str,
        code: Instruction<'static>,
        args: &[Value],
    ) -> Recipe {
        self.steps.push(Step { name, intrinsic, code, args: args.to_vec(), by: None });
        self
    }

    fn by(mut self, by: u32) -> Recipe {
        if let Some(last) = self.steps.last_mut() {
            last.by = Some(by);
        }
        self
    }

    fn helper(self, name: &'static str, doc: &'static str, params: &'static [&'static str]) -> Recipe {
        Recipe { helper: Some(Helper { name, doc, params }), ..self }
    }
}

/// The recipe of an operation on registers; `None` for those that make registers of numbers or memory.
pub(crate) fn recipe(level: Level, op: &Op) -> Option<Recipe> {
    use Instruction as I;
    let one = Recipe::one;
    Some(match op {
        Op::Splat(_) | Op::SplatBits(_) | Op::SplatInt(_) | Op::Iota(_) | Op::Load(..) | Op::Broadcast(..) => {
            return None;
        }
        // Expanded by the legalizer.
        Op::Quad(..) | Op::DotLane(..) | Op::DotPairs(..) | Op::Zip(..) => return None,
        Op::Copy(_) => Recipe::none(),
        Op::Unary(op, _) => match op {
            UnaryOp::Sqrt => one("f32x4_sqrt", I::F32x4Sqrt, &[A]),
            UnaryOp::RoundEven => one("f32x4_nearest", I::F32x4Nearest, &[A]),
            UnaryOp::ToInt => to_int(level, Recipe::none(), A),
            UnaryOp::RoundToInt => to_int(level, one("f32x4_nearest", I::F32x4Nearest, &[A]), Value::Step(0)),
            UnaryOp::ToFloat => one("f32x4_convert_i32x4", I::F32x4ConvertI32x4S, &[A]),
            UnaryOp::BitsToInt | UnaryOp::BitsToFloat => Recipe::none(),
        },
        Op::Binary(op, ..) => match op {
            BinaryOp::Add => one("f32x4_add", I::F32x4Add, &[A, B]),
            BinaryOp::Sub => one("f32x4_sub", I::F32x4Sub, &[A, B]),
            BinaryOp::Mul => one("f32x4_mul", I::F32x4Mul, &[A, B]),
            BinaryOp::Div => one("f32x4_div", I::F32x4Div, &[A, B]),
            // `pmin(b, a)` is `a < b ? a : b`: operands swapped to take b where either is NaN.
            BinaryOp::Min => one("f32x4_pmin", I::F32x4PMin, &[B, A]),
            BinaryOp::Max => one("f32x4_pmax", I::F32x4PMax, &[B, A]),
            BinaryOp::AddInt => one("i32x4_add", I::I32x4Add, &[A, B]),
            BinaryOp::SubInt => one("i32x4_sub", I::I32x4Sub, &[A, B]),
            BinaryOp::MulInt => one("i32x4_mul", I::I32x4Mul, &[A, B]),
            BinaryOp::DotBytes if level.relaxed() => {
                one("i16x8_relaxed_dot_i8x16_i7x16", I::I16x8RelaxedDotI8x16I7x16S, &[B, A])
            }
            BinaryOp::DotBytes => dot_bytes(),
            BinaryOp::AddHalves => one("i16x8_add", I::I16x8Add, &[A, B]),
            BinaryOp::DotHalves => one("i32x4_dot_i16x8", I::I32x4DotI16x8S, &[A, B]),
            BinaryOp::And => one("v128_and", I::V128And, &[A, B]),
            BinaryOp::Or => one("v128_or", I::V128Or, &[A, B]),
            BinaryOp::Xor => one("v128_xor", I::V128Xor, &[A, B]),
        },
        // Expanded by the legalizer where the level does not fuse.
        Op::MulAdd(..) => one("f32x4_relaxed_madd", I::F32x4RelaxedMadd, &[A, B, C]),
        Op::NegMulAdd(..) => one("f32x4_relaxed_nmadd", I::F32x4RelaxedNmadd, &[A, B, C]),
        Op::ShiftLeft(_, by) => one("i32x4_shl", I::I32x4Shl, &[A]).by(*by),
        Op::ShiftRight(_, by) => one("u32x4_shr", I::I32x4ShrU, &[A]).by(*by),
        Op::ShiftRightSigned(_, by) => one("i32x4_shr", I::I32x4ShrS, &[A]).by(*by),
        Op::ShiftRightHalves(_, by) => one("i16x8_shr", I::I16x8ShrS, &[A]).by(*by),
        Op::Dot(..) => dot(level),
        Op::Compare(op, ..) => match op {
            CompareOp::Less => one("f32x4_lt", I::F32x4Lt, &[A, B]),
            CompareOp::LessInt => one("i32x4_lt", I::I32x4LtS, &[A, B]),
            CompareOp::Equal => one("f32x4_eq", I::F32x4Eq, &[A, B]),
        },
        // The lanes of a mask are all ones or all zeros, where the relaxed one is no choice.
        Op::Select(..) => match level.relaxed() {
            true => one("i32x4_relaxed_laneselect", I::I32x4RelaxedLaneselect, &[B, C, A]),
            false => one("v128_bitselect", I::V128Bitselect, &[B, C, A]),
        },
        Op::InterleaveLow(..) => one("i32x4_shuffle::<0, 4, 1, 5>", words([0, 4, 1, 5]), &[A, B]),
        Op::InterleaveHigh(..) => one("i32x4_shuffle::<2, 6, 3, 7>", words([2, 6, 3, 7]), &[A, B]),
        Op::Reduce(op, _) => match op {
            ReduceOp::Add => tree("f32x4_add", I::F32x4Add, false).helper(
                "reduce_add",
                "The sum of all lanes, in all lanes.",
                &["x"],
            ),
            ReduceOp::Max => {
                tree("f32x4_pmax", I::F32x4PMax, true).helper("reduce_max", "The largest lane, in all lanes.", &["x"])
            }
            ReduceOp::MinInt => tree("i32x4_min", I::I32x4MinS, false).helper(
                "reduce_min_int",
                "The smallest integer, in all lanes.",
                &["x"],
            ),
            ReduceOp::AddInt => tree("i32x4_add", I::I32x4Add, false).helper(
                "reduce_add_int",
                "The sum of all integers, in all lanes.",
                &["x"],
            ),
        },
    })
}

/// Floats that are in range to integers: one relaxed instruction, or one that minds those that are not.
fn to_int(level: Level, before: Recipe, value: Value) -> Recipe {
    if level.relaxed() {
        before.then("", "i32x4_relaxed_trunc_f32x4", Instruction::I32x4RelaxedTruncF32x4S, &[value])
    } else {
        before.then("", "i32x4_trunc_sat_f32x4", Instruction::I32x4TruncSatF32x4S, &[value])
    }
}

/// Four lanes to one in all of them: lane i with i+2, then with i+1. `swapped` says that the second operand comes first.
fn tree(intrinsic: &'static str, code: Instruction<'static>, swapped: bool) -> Recipe {
    let pair = |x: Value, y: Value| if swapped { [y, x] } else { [x, y] };
    let (far, half, near) = (Value::Step(0), Value::Step(1), Value::Step(2));
    Recipe::none()
        .then("far", "i32x4_shuffle::<2, 3, 0, 1>", words([2, 3, 0, 1]), &[A, A])
        .then("half", intrinsic, code.clone(), &pair(A, far))
        .then("near", "i32x4_shuffle::<1, 0, 3, 2>", words([1, 0, 3, 2]), &[half, half])
        .then("", intrinsic, code, &pair(half, near))
}

/// `acc` plus the sum of four products of bytes in each lane. The weights are the second operand of a relaxed dot product:
/// with less than 128 there all engines give the same.
fn dot(level: Level) -> Recipe {
    use Instruction as I;
    let params = &["w", "a", "acc"];
    let doc = "`acc` plus the sum of four products of bytes in each lane; those of `w` are at most 127.";
    let step = Value::Step;
    let recipe = match level {
        // Engines without a dot instruction of the processor make a vector of ones anew for the single instruction.
        Level::Relaxed | Level::RelaxedExact => Recipe::none()
            .then("pairs", "i16x8_relaxed_dot_i8x16_i7x16", I::I16x8RelaxedDotI8x16I7x16S, &[B, A])
            .then("quads", "i32x4_dot_i16x8", I::I32x4DotI16x8S, &[step(0), Value::Halves(1)])
            .then("", "i32x4_add", I::I32x4Add, &[C, step(1)]),
        Level::RelaxedDot => {
            Recipe::one("i32x4_relaxed_dot_i8x16_i7x16_add", I::I32x4RelaxedDotI8x16I7x16AddS, &[B, A, C])
        }
        Level::Simd128 => even_and_odd("i32x4_dot_i16x8", I::I32x4DotI16x8S)
            .then("sum", "i32x4_add", I::I32x4Add, &[C, step(3)])
            .then("", "i32x4_add", I::I32x4Add, &[step(7), step(6)]),
    };
    recipe.helper("dot", doc, params)
}

/// The sums of two products of bytes each, in halves, without the relaxed instruction.
fn dot_bytes() -> Recipe {
    even_and_odd("i16x8_mul", Instruction::I16x8Mul)
        .then("", "i16x8_add", Instruction::I16x8Add, &[Value::Step(3), Value::Step(6)])
        .helper("dot_bytes", "The sums of two products of bytes each, in the halves of each lane.", &["w", "a"])
}

/// Bytes in even places and those in odd ones, each as 16-bit integers: products need no shuffle. Steps 3 and 6 are these.
fn even_and_odd(product: &'static str, code: Instruction<'static>) -> Recipe {
    use Instruction as I;
    let step = Value::Step;
    Recipe::none()
        .then("w_even", "v128_and", I::V128And, &[A, Value::Halves(0xff)])
        .then("a_low", "i16x8_shl", I::I16x8Shl, &[B])
        .by(8)
        .then("a_even", "i16x8_shr", I::I16x8ShrS, &[step(1)])
        .by(8)
        .then("even", product, code.clone(), &[step(0), step(2)])
        .then("w_odd", "u16x8_shr", I::I16x8ShrU, &[A])
        .by(8)
        .then("a_odd", "i16x8_shr", I::I16x8ShrS, &[B])
        .by(8)
        .then("odd", product, code, &[step(4), step(5)])
}

/// A shuffle of words.
fn words(lanes: [u8; 4]) -> Instruction<'static> {
    let mut bytes = [0; 16];
    bytes.iter_mut().enumerate().for_each(|(i, b)| *b = 4 * lanes[i / 4] + (i % 4) as u8);
    Instruction::I8x16Shuffle(bytes)
}

/// An access of memory.
pub(crate) struct Access {
    /// The intrinsic.
    pub intrinsic: &'static str,
    /// The instruction.
    pub code: fn(MemArg) -> Instruction<'static>,
    /// What is done to the value: after a load, before a store.
    pub convert: Recipe,
}

/// Consecutive elements, widened. A 16-bit float was made an integer by the legalizer, here and below.
pub(crate) fn load(elem: Elem) -> Access {
    use Instruction as I;
    match elem {
        Elem::F32 | Elem::U32 => Access { intrinsic: "v128_load", code: I::V128Load, convert: Recipe::none() },
        Elem::I8 => Access {
            intrinsic: "v128_load32_zero",
            code: I::V128Load32Zero,
            convert: Recipe::one("i16x8_extend_low_i8x16", I::I16x8ExtendLowI8x16S, &[A])
                .then("", "i32x4_extend_low_i16x8", I::I32x4ExtendLowI16x8S, &[Value::Step(0)])
                .helper("widen", "The low four bytes with their signs, one in each lane.", &["x"]),
        },
        Elem::U16 | Elem::F16 => Access {
            intrinsic: "v128_load64_zero",
            code: I::V128Load64Zero,
            convert: Recipe::one("u32x4_extend_low_u16x8", I::I32x4ExtendLowI16x8U, &[A]),
        },
    }
}

/// All lanes, narrowed.
pub(crate) fn store(elem: Elem) -> Access {
    use Instruction as I;
    match elem {
        Elem::F32 | Elem::U32 => Access { intrinsic: "v128_store", code: I::V128Store, convert: Recipe::none() },
        Elem::I8 => Access {
            intrinsic: "v128_store32_lane::<0>",
            code: |memarg| I::V128Store32Lane { memarg, lane: 0 },
            convert: Recipe::one(
                "i8x16_shuffle::<0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12>",
                I::I8x16Shuffle([0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12]),
                &[A, A],
            )
            .helper("narrow", "The low byte of each lane, in the low four bytes.", &["x"]),
        },
        Elem::U16 | Elem::F16 => Access {
            intrinsic: "v128_store64_lane::<0>",
            code: |memarg| I::V128Store64Lane { memarg, lane: 0 },
            convert: Recipe::one(
                "i16x8_shuffle::<0, 2, 4, 6, 0, 2, 4, 6>",
                I::I8x16Shuffle([0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13]),
                &[A, A],
            ),
        },
    }
}

/// The first lane, narrowed.
pub(crate) fn store_one(elem: Elem) -> Access {
    use Instruction as I;
    let (intrinsic, code): (_, fn(MemArg) -> Instruction<'static>) = match elem {
        Elem::F32 | Elem::U32 => ("v128_store32_lane::<0>", |memarg| I::V128Store32Lane { memarg, lane: 0 }),
        Elem::I8 => ("v128_store8_lane::<0>", |memarg| I::V128Store8Lane { memarg, lane: 0 }),
        Elem::U16 | Elem::F16 => ("v128_store16_lane::<0>", |memarg| I::V128Store16Lane { memarg, lane: 0 }),
    };
    Access { intrinsic, code, convert: Recipe::none() }
}
