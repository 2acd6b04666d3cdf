//! 16-bit floats: what their conversions give, and the same out of integer operations on lanes.

use crate::ir::{BinaryOp, CompareOp, Op, Reg, Ty, UnaryOp};

/// A 16-bit float as a 32-bit one, by their bits. Exact; a NaN becomes quiet.
pub fn widen(half: u32) -> u32 {
    let (sign, exponent, fraction) = (half >> 15 & 1, half >> 10 & 0x1f, half & 0x3ff);
    let magnitude = match (exponent, fraction) {
        (0, _) => (fraction as f32 * LEAST).to_bits(),
        (0x1f, 0) => INFINITY,
        (0x1f, _) => INFINITY | QUIET | fraction << 13,
        _ => ((exponent + REBIAS) << 23) | (fraction << 13),
    };
    sign << 31 | magnitude
}

/// A 32-bit float as the nearest 16-bit one, ties to even, by their bits: from 65520 on infinity.
/// A NaN becomes quiet and keeps the upper bits of its payload.
pub fn narrow(bits: u32) -> u32 {
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let value = f64::from(f32::from_bits(magnitude));
    let half = match magnitude {
        ..NORMAL => (value / f64::from(LEAST)).round_ties_even() as u32,
        NORMAL..OVERFLOW => {
            // In steps of its exponent's last place; a carry into the exponent is the next one's first.
            let exponent = (magnitude >> 23) - REBIAS;
            let step = f64::from(LEAST) * f64::from(1u32 << (exponent - 1));
            ((exponent - 1) << 10) + (value / step).round_ties_even() as u32
        }
        OVERFLOW..=INFINITY => 0x7c00,
        _ => 0x7e00 | magnitude >> 13 & 0x1ff,
    };
    sign | half
}

/// The least 16-bit float, 2^-24.
const LEAST: f32 = 1.0 / (1 << 24) as f32;
/// The difference of the exponents' biases, 127 - 15.
const REBIAS: u32 = 112;
/// Bits of infinity.
const INFINITY: u32 = 0x7f80_0000;
/// The bit of a quiet NaN.
const QUIET: u32 = 0x0040_0000;
/// Bits of the least normal 16-bit float, 2^-14.
const NORMAL: u32 = 113 << 23;
/// Bits of 65520, half a step above the largest: the first that becomes infinity.
const OVERFLOW: u32 = 0x477f_f000;

/// Pushes an operation whose result is a new register of a type.
pub(crate) type Push<'a> = &'a mut dyn FnMut(Ty, Op) -> Reg;

/// Emits [`widen`] on integers: the operation whose result is the float.
pub(crate) fn emit_widen(push: Push, half: Reg) -> Op {
    let mut k = Lanes(push);
    let low = k.bits(0x7fff);
    let magnitude = k.integer(BinaryOp::And, half, low);
    let placed = k.lane(Op::ShiftLeft(magnitude, 13));
    let rebias = k.bits(REBIAS << 23);
    let normal = k.integer(BinaryOp::AddInt, placed, rebias);
    // Below the least normal one: a count of the least of all.
    let count = k.float(Op::Unary(UnaryOp::ToFloat, magnitude));
    let least = k.float(Op::Splat(LEAST));
    let small = k.float(Op::Binary(BinaryOp::Mul, count, least));
    let small = k.lane(Op::Unary(UnaryOp::BitsToInt, small));
    let first = k.bits(0x400);
    let finite = k.choose((magnitude, first), small, normal);
    // Infinity, and above it NaN.
    let infinity = k.bits(INFINITY);
    let beyond = k.integer(BinaryOp::Or, placed, infinity);
    let quiet = k.bits(QUIET);
    let nan = k.integer(BinaryOp::Or, beyond, quiet);
    let top = k.bits(0x7c00);
    let beyond = k.choose((top, magnitude), nan, beyond);
    let below = k.bits(0x7bff);
    let all = k.choose((below, magnitude), beyond, finite);
    let sign = k.integer(BinaryOp::Xor, half, magnitude);
    let sign = k.lane(Op::ShiftLeft(sign, 16));
    let all = k.integer(BinaryOp::Or, all, sign);
    Op::Unary(UnaryOp::BitsToFloat, all)
}

/// Emits [`narrow`]: the integer whose low half is the result.
pub(crate) fn emit_narrow(push: Push, value: Reg) -> Reg {
    let mut k = Lanes(push);
    let bits = k.lane(Op::Unary(UnaryOp::BitsToInt, value));
    let low = k.bits(0x7fff_ffff);
    let magnitude = k.integer(BinaryOp::And, bits, low);
    // Just under half a step, and one more where the last bit that stays is odd.
    let last = k.lane(Op::ShiftRight(magnitude, 13));
    let one = k.bits(1);
    let odd = k.integer(BinaryOp::And, last, one);
    let under = k.bits(0xfff_u32.wrapping_sub(REBIAS << 23));
    let normal = k.integer(BinaryOp::AddInt, magnitude, under);
    let normal = k.integer(BinaryOp::AddInt, normal, odd);
    let normal = k.lane(Op::ShiftRight(normal, 13));
    // Beside one half, floats are as far apart as the 16-bit ones below the least normal one.
    let float = k.float(Op::Unary(UnaryOp::BitsToFloat, magnitude));
    let half = k.float(Op::Splat(0.5));
    let small = k.float(Op::Binary(BinaryOp::Add, float, half));
    let small = k.lane(Op::Unary(UnaryOp::BitsToInt, small));
    let zero = k.bits(0.5f32.to_bits());
    let small = k.integer(BinaryOp::SubInt, small, zero);
    let first = k.bits(NORMAL);
    let finite = k.choose((magnitude, first), small, normal);
    let infinity = k.bits(0x7c00);
    let overflow = k.bits(OVERFLOW);
    let all = k.choose((magnitude, overflow), finite, infinity);
    let payload = k.bits(0x1ff);
    let payload = k.integer(BinaryOp::And, last, payload);
    let quiet = k.bits(0x7e00);
    let nan = k.integer(BinaryOp::Or, payload, quiet);
    let top = k.bits(INFINITY);
    let all = k.choose((top, magnitude), nan, all);
    let sign = k.lane(Op::ShiftRight(bits, 16));
    let only = k.bits(0x8000);
    let sign = k.integer(BinaryOp::And, sign, only);
    k.integer(BinaryOp::Or, all, sign)
}

/// Operations in the order they are pushed.
struct Lanes<'a>(Push<'a>);

impl Lanes<'_> {
    fn lane(&mut self, op: Op) -> Reg {
        (self.0)(Ty::I32, op)
    }

    fn float(&mut self, op: Op) -> Reg {
        (self.0)(Ty::F32, op)
    }

    fn bits(&mut self, bits: u32) -> Reg {
        self.lane(Op::SplatBits(bits as i32))
    }

    fn integer(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        self.lane(Op::Binary(op, a, b))
    }

    /// `a < b ? yes : no`.
    fn choose(&mut self, (a, b): (Reg, Reg), yes: Reg, no: Reg) -> Reg {
        let less = (self.0)(Ty::Mask, Op::Compare(CompareOp::LessInt, a, b));
        self.lane(Op::Select(less, yes, no))
    }
}
