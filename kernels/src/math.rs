//! Vector functions out of plain operations: the same polynomials on every target.

// Published coefficients are kept with the digits they were published with.
#![allow(clippy::excessive_precision)]

use crate::build::Builder;
use crate::ir::{BinaryOp, Op, Reg, UnaryOp};

/// Constants of the functions, bound once before a loop.
pub struct Exp {
    low: Reg,
    high: Reg,
    log2e: Reg,
    ln2_high: Reg,
    ln2_low: Reg,
    coefficients: [Reg; 6],
    one: Reg,
    bias: Reg,
}

/// ln 2 in two parts: the first has few bits, so that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_400_546_905_8e-4;
/// Minimax polynomial of (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2], highest power first (Cephes).
const EXP: [f32; 6] = [
    1.987_569_150_0e-4,
    1.398_199_950_7e-3,
    8.333_451_907_3e-3,
    4.166_579_589_4e-2,
    1.666_666_545_9e-1,
    5.000_000_120_1e-1,
];

impl Exp {
    /// Binds the constants.
    pub fn new(k: &mut Builder) -> Exp {
        let low = k.splat("exp_low", -87.3);
        let high = k.splat("exp_high", 88.3);
        let log2e = k.splat("log2e", std::f32::consts::LOG2_E);
        let ln2_high = k.splat("ln2_high", LN2_HIGH);
        let ln2_low = k.splat("ln2_low", LN2_LOW);
        let coefficients = EXP.map(|c| k.splat("exp_c", c));
        let one = k.splat("one", 1.0);
        let bias = k.bind("exponent_bias", Op::SplatBits(127));
        Exp { low, high, log2e, ln2_high, ln2_low, coefficients, one, bias }
    }

    /// The constant 1.
    pub fn one(&self) -> Reg {
        self.one
    }

    /// `exp(x)`, x clamped to [-87.3, 88.3]; NaN becomes -87.3. Largest error 1.02 ULP there, fused or
    /// not, against f64 exp on every float.
    pub fn apply(&self, k: &mut Builder, x: Reg) -> Reg {
        let x = k.max("exp_x", x, self.low);
        let x = k.min("exp_x", x, self.high);
        let n = k.mul("exp_n", x, self.log2e);
        let n = k.unary("exp_n", UnaryOp::RoundEven, n);
        let r = k.bind("exp_r", Op::NegMulAdd(n, self.ln2_high, x));
        let r = k.bind("exp_r", Op::NegMulAdd(n, self.ln2_low, r));
        let mut p = self.coefficients[0];
        for c in &self.coefficients[1..] {
            p = k.bind("exp_p", Op::MulAdd(p, r, *c));
        }
        let r2 = k.mul("exp_r2", r, r);
        let p = k.bind("exp_p", Op::MulAdd(p, r2, r));
        let p = k.add("exp_p", p, self.one);
        // 2^n by its exponent bits.
        let e = k.unary("exp_e", UnaryOp::ToInt, n);
        let e = k.binary("exp_e", BinaryOp::AddInt, e, self.bias);
        let e = k.bind("exp_e", Op::ShiftLeft(e, 23));
        let scale = k.unary("exp_scale", UnaryOp::BitsToFloat, e);
        k.mul("exp", p, scale)
    }

    /// `1 / (1 + exp(-x))`. Largest error 1.2e-7; never below 4.5e-39, and 1 for NaN.
    pub fn sigmoid(&self, k: &mut Builder, x: Reg, zero: Reg) -> Reg {
        let minus = k.sub("minus_x", zero, x);
        let e = self.apply(k, minus);
        let d = k.add("sigmoid_d", e, self.one);
        k.div("sigmoid", self.one, d)
    }
}

/// Constants of a power of two for values that are quantized next: a short polynomial.
pub struct QuickExp2 {
    low: Reg,
    round: Reg,
    coefficients: [Reg; 3],
    one: Reg,
}

/// Minimax polynomial of (2^f - 1) / f on [-1/2, 1/2], of the least relative error of 2^f; highest
/// power first.
const EXP2: [f32; 3] = [5.500_885_099e-2, 2.422_109_544e-1, 6.932_829_618e-1];

/// Added to a float of less than 2^22, leaves the nearest integer in its low bits.
const ROUND: f32 = 12_582_912.0;

impl QuickExp2 {
    /// Binds the constants.
    pub fn new(k: &mut Builder) -> QuickExp2 {
        let low = k.splat("exp2_low", -125.0);
        let round = k.splat("exp2_round", ROUND);
        let coefficients = EXP2.map(|c| k.splat("exp2_c", c));
        let one = k.splat("one", 1.0);
        QuickExp2 { low, round, coefficients, one }
    }

    /// The constant 1.
    pub fn one(&self) -> Reg {
        self.one
    }

    /// `2^x` of x up to 0, at least 2^-125; 1 for 0, and 2^-125 for NaN. Largest relative error 1.02e-4
    /// against f64.
    pub fn apply(&self, k: &mut Builder, x: Reg) -> Reg {
        let x = k.max("exp2_x", x, self.low);
        let n = k.add("exp2_n", x, self.round);
        let whole = k.sub("exp2_whole", n, self.round);
        let f = k.sub("exp2_f", x, whole);
        let mut p = self.coefficients[0];
        for c in self.coefficients[1..].iter().chain([&self.one]) {
            p = k.bind("exp2_p", Op::MulAdd(p, f, *c));
        }
        // The exponent bits of 2^whole: those of the constant are shifted out.
        let n = k.unary("exp2_n", UnaryOp::BitsToInt, n);
        let e = k.bind("exp2_e", Op::ShiftLeft(n, 23));
        let p = k.unary("exp2_p", UnaryOp::BitsToInt, p);
        let p = k.binary("exp2_p", BinaryOp::AddInt, p, e);
        k.unary("exp2", UnaryOp::BitsToFloat, p)
    }
}

/// Constants of a GELU for values that are quantized next: a polynomial, no division.
pub struct QuickGelu {
    low: Reg,
    high: Reg,
    half: Reg,
    coefficients: [Reg; 8],
}

/// Phi(x) - 1/2 = x P(x^2) on [-4.25, 4.25], highest power first; fitted to the least error of GELU,
/// with P(4.25^2) * 4.25 = 1/2, so that GELU ends in 0 and x.
const PHI: [f32; 8] = [
    -8.460_442_531e-10,
    7.570_854_863e-8,
    -2.938_808_261e-6,
    6.552_717_109e-5,
    -9.404_481_652e-4,
    9.257_825_435e-3,
    -6.545_350_395e-2,
    3.984_200_458e-1,
];

impl QuickGelu {
    /// Binds the constants.
    pub fn new(k: &mut Builder) -> QuickGelu {
        let low = k.splat("phi_low", -4.25);
        let high = k.splat("phi_high", 4.25);
        let half = k.splat("half", 0.5);
        let coefficients = PHI.map(|c| k.splat("phi_c", c));
        QuickGelu { low, high, half, coefficients }
    }

    /// GELU with an error of at most 1e-4 on [-8, 8] and 2e-5 |x| beyond, which is below the step of a
    /// signed byte wherever the largest value beside it is above 0.02.
    pub fn apply(&self, k: &mut Builder, x: Reg) -> Reg {
        let u = k.max("phi_x", x, self.low);
        let u = k.min("phi_x", u, self.high);
        let u2 = k.mul("phi_x2", u, u);
        let mut p = self.coefficients[0];
        for c in &self.coefficients[1..] {
            p = k.bind("phi_p", Op::MulAdd(p, u2, *c));
        }
        let phi = k.bind("phi", Op::MulAdd(p, u, self.half));
        k.mul("gelu", x, phi)
    }
}

/// Constants of the error function.
pub struct Gelu {
    low: Reg,
    high: Reg,
    scale: Reg,
    half: Reg,
    numerator: [Reg; 7],
    denominator: [Reg; 5],
}

/// erf(x) = x P(x^2) / Q(x^2) on [-4, 4], where it is 1 to f32's precision at the ends; highest
/// power first (the rational minimax approximation that Eigen and XLA use).
const ERF_P: [f32; 7] = [
    -2.726_142_258_013_06e-10,
    2.770_681_424_959_02e-8,
    -2.101_024_020_825_08e-6,
    -5.692_506_394_623_46e-5,
    -7.349_906_303_268_55e-4,
    -2.954_599_808_540_25e-3,
    -1.609_603_332_624_15e-2,
];
const ERF_Q: [f32; 5] = [
    -1.456_607_184_649_96e-5,
    -2.133_740_552_789_05e-4,
    -1.682_826_974_382_03e-3,
    -7.373_329_167_204_68e-3,
    -1.426_473_905_141_89e-2,
];

impl Gelu {
    /// Binds the constants.
    pub fn new(k: &mut Builder) -> Gelu {
        let low = k.splat("erf_low", -4.0);
        let high = k.splat("erf_high", 4.0);
        let scale = k.splat("sqrt_half", std::f32::consts::FRAC_1_SQRT_2);
        let half = k.splat("half", 0.5);
        let numerator = ERF_P.map(|c| k.splat("erf_p", c));
        let denominator = ERF_Q.map(|c| k.splat("erf_q", c));
        Gelu { low, high, scale, half, numerator, denominator }
    }

    /// `x / 2 * (1 + erf(x / sqrt 2))`. Largest error 2.7e-7 |x|, fused or not, against f64; NaN for
    /// minus infinity.
    pub fn apply(&self, k: &mut Builder, x: Reg) -> Reg {
        let u = k.mul("erf_x", x, self.scale);
        let u = k.max("erf_x", u, self.low);
        let u = k.min("erf_x", u, self.high);
        let u2 = k.mul("erf_x2", u, u);
        let mut p = self.numerator[0];
        for c in &self.numerator[1..] {
            p = k.bind("erf_num", Op::MulAdd(p, u2, *c));
        }
        let mut q = self.denominator[0];
        for c in &self.denominator[1..] {
            q = k.bind("erf_den", Op::MulAdd(q, u2, *c));
        }
        let p = k.mul("erf_num", p, u);
        let erf = k.div("erf", p, q);
        let h = k.mul("half_x", x, self.half);
        k.bind("gelu", Op::MulAdd(h, erf, h))
    }
}
