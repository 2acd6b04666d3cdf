//! The vector functions against f64: largest errors on dense sweeps, and the values at the ends.

use std::rc::Rc;

use codegen_avx2::Level;
use codegen_neon::Level::Neon;
use codegen_wasm::Simd128;
use kernels::library::elementwise;
use kernels::math::{Exp, QuickExp2, QuickGelu};
use kernels::{Builder, Kernel, LANES, Memory, Reg, Target, interpret, legalize};

#[path = "library/functions.rs"]
mod functions;
use functions::{gelu, sigmoid};

/// `y = f(x)` line by line.
fn kernel(f: impl Fn(&mut Builder, Reg) -> Reg) -> Rc<Kernel> {
    let mut k = Builder::new("function", &[]);
    let (x, y) = (k.read("x"), k.write("y"));
    let lines = k.size("lines");
    k.each("j", 0usize, lines, |k, j| {
        let v = k.load("v", x, j.clone() * LANES);
        let v = f(k, v);
        k.store(y, j * LANES, v);
    });
    k.finish()
}

fn exp() -> Rc<Kernel> {
    kernel(|k, x| {
        let f = Exp::new(k);
        f.apply(k, x)
    })
}

fn silu() -> Rc<Kernel> {
    kernel(|k, x| {
        let f = Exp::new(k);
        let zero = k.splat("zero", 0.0);
        let s = f.sigmoid(k, x, zero);
        k.mul("silu", x, s)
    })
}

fn sigmoids() -> Rc<Kernel> {
    kernel(|k, x| {
        let f = Exp::new(k);
        let zero = k.splat("zero", 0.0);
        f.sigmoid(k, x, zero)
    })
}

fn run(kernel: &Kernel, x: &[f32]) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(LANES), 0.0);
    let mut memory = Memory::default();
    let (from, to) = (memory.floats(&padded), memory.zeros(padded.len()));
    let lines = (padded.len() / LANES) as i64;
    // GELU is a kernel in place, on rows of a line.
    if kernel.pointers().count() == 1 {
        interpret(kernel, &mut memory, &[from], &[lines]).expect("in range");
        return memory.read(from, x.len());
    }
    interpret(kernel, &mut memory, &[from, to], &[lines]).expect("in range");
    memory.read(to, x.len())
}

/// The values with fused multiply-add, the same on three targets, and those without.
fn fused_and_not(kernel: &Kernel, x: &[f32]) -> [Vec<f32>; 2] {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let fused = run(kernel, x);
    let some: Vec<f32> = x.iter().copied().step_by(61).chain(x.iter().copied().take(64)).collect();
    let targets: [&dyn Target; 3] = [&Level::V3, &Level::V4, &Neon];
    for target in targets {
        assert_eq!(bits(&run(&legalize(kernel, target), &some)), bits(&run(kernel, &some)), "{}", target.level());
    }
    [fused, run(&legalize(kernel, &Simd128), x)]
}

/// `n` floats evenly from `low` to `high`, both among them.
fn sweep(low: f32, high: f32, n: usize) -> Vec<f32> {
    let (a, b) = (f64::from(low), f64::from(high));
    (0..n).map(|i| (a + (b - a) * i as f64 / (n - 1) as f64) as f32).collect()
}

/// Largest `error(x, y)` and where.
fn largest(x: &[f32], y: &[f32], error: impl Fn(f64, f64) -> f64) -> (f64, f32) {
    let errors = x.iter().zip(y).map(|(x, y)| (error(f64::from(*x), f64::from(*y)), *x));
    errors.fold((0.0, 0.0), |a, b| if b.0 > a.0 || b.0.is_nan() { b } else { a })
}

/// The distance of two floats at `x`.
fn ulp(x: f64) -> f64 {
    let x = x.abs() as f32;
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

fn check(name: &str, kernel: &Kernel, x: &[f32], limits: [f64; 2], error: impl Fn(f64, f64) -> f64) {
    for ((y, limit), how) in fused_and_not(kernel, x).iter().zip(limits).zip(["fused", "not fused"]) {
        let (most, at) = largest(x, y, &error);
        println!("{name}, {how}: {most:.4e} at {at:e}");
        assert!(most <= limit, "{name}, {how}: {most} at {at:e}, the limit is {limit}");
    }
}

#[test]
fn exp_over_its_range() {
    let in_ulp = |x: f64, y: f64| (y - x.exp()).abs() / ulp(x.exp());
    check("exp", &exp(), &sweep(-87.3, 88.3, 400_000), [1.02, 1.02], in_ulp);
    check("exp near 0", &exp(), &sweep(-1.0, 1.0, 200_000), [1.02, 1.02], in_ulp);
    // The largest errors over all floats: 1.0103 fused, 0.9903 not.
    check("exp at its worst", &exp(), &[-5.877_884_4, 70.403_1], [1.02, 1.02], in_ulp);
    // Around the halves of ln 2, where the reduction turns to the next power.
    let turns = (-126..127).flat_map(|n| {
        let x = (f64::from(n) + 0.5) * std::f64::consts::LN_2;
        (-40..40).map(move |i| f32::from_bits((x as f32).to_bits().wrapping_add_signed(i)))
    });
    let turns: Vec<f32> = turns.filter(|x| (-87.3..=88.3).contains(x)).collect();
    check("exp at its turns", &exp(), &turns, [1.02, 1.02], in_ulp);
    let tiny: Vec<f32> = (0..2000).map(|i| f32::from_bits(i * 0x1_0001)).flat_map(|x| [x, -x]).collect();
    check("exp of tiny numbers", &exp(), &tiny, [0.0, 0.0], |_, y| (y - 1.0).abs());
}

#[test]
fn exp_beyond_its_range() {
    let far = [-87.3, -88.0, -104.0, -1e30, f32::MIN, f32::NEG_INFINITY, f32::NAN];
    let [y, _] = fused_and_not(&exp(), &far);
    assert!(y.iter().all(|v| *v == y[0] && (1e-38..2e-38).contains(v)), "{y:?}");
    let far = [88.3, 88.8, 104.0, 1e30, f32::MAX, f32::INFINITY];
    let [y, _] = fused_and_not(&exp(), &far);
    assert!(y.iter().all(|v| *v == y[0] && (2e38..f32::MAX).contains(v)), "{y:?}");
    let [y, _] = fused_and_not(&exp(), &[0.0, -0.0]);
    assert_eq!(y, [1.0, 1.0]);
}

/// As a share of |x|, or of the smallest normal float.
fn share(x: f64, error: f64) -> f64 {
    error.abs() / x.abs().max(f64::from(f32::MIN_POSITIVE))
}

#[test]
fn gelu_over_its_range() {
    let kernel = elementwise::gelu(LANES);
    let error = |x: f64, y: f64| share(x, y - gelu(x));
    check("gelu", &kernel, &sweep(-10.0, 10.0, 300_000), [2.7e-7, 2.7e-7], error);
    // The largest over every fourth float: 2.42e-7 fused, 2.63e-7 not.
    check("gelu at its worst", &kernel, &[5.516_626_4, 4.690_38], [2.7e-7, 2.7e-7], error);
    check("gelu near 0", &kernel, &sweep(-0.01, 0.01, 50_000), [2.7e-7, 2.7e-7], error);
    let large: Vec<f32> = (0..38).flat_map(|e| [10f32.powi(e), -(10f32.powi(e)), 5.66, -5.66]).collect();
    check("gelu of large numbers", &kernel, &large, [2.7e-7, 2.7e-7], error);
    let tiny: Vec<f32> = (0..4000).map(|i| f32::from_bits(i * 0x8001)).flat_map(|x| [x, -x]).collect();
    check("gelu of tiny numbers", &kernel, &tiny, [2.7e-7, 2.7e-7], error);
}

#[test]
fn gelu_at_the_ends() {
    let (inf, max) = (f32::INFINITY, f32::MAX);
    for y in fused_and_not(&elementwise::gelu(LANES), &[0.0, -0.0, inf, max, -max, f32::NAN, -inf]) {
        assert_eq!(y[..5], [0.0, 0.0, inf, max, 0.0]);
        // 0 times infinity, as in the formula.
        assert!(y[5].is_nan() && y[6].is_nan());
    }
}

/// The GELU of what is quantized next: by absolute error, and with GELU's own ends.
#[test]
fn quick_gelu_is_near() {
    let kernel = kernel(|k, x| {
        let f = QuickGelu::new(k);
        f.apply(k, x)
    });
    let error = |x: f64, y: f64| (y - gelu(x)).abs();
    check("quick GELU", &kernel, &sweep(-8.0, 8.0, 300_000), [1e-4, 1e-4], error);
    // Beyond its range the polynomial's last bits are multiplied by x.
    let large: Vec<f32> = (0..38).flat_map(|e| [10f32.powi(e), -(10f32.powi(e)), 5.66, -5.66]).collect();
    let error = |x: f64, y: f64| share(x, y - gelu(x));
    check("quick GELU of large numbers", &kernel, &large[4..], [2e-5, 2e-5], error);
    for y in fused_and_not(&kernel, &[0.0, -0.0]) {
        assert_eq!(y, [0.0, 0.0]);
    }
}

/// The power of two of what is quantized next, of numbers up to 0.
#[test]
fn quick_exp2_is_near() {
    let kernel = kernel(|k, x| {
        let f = QuickExp2::new(k);
        f.apply(k, x)
    });
    let relative = |x: f64, y: f64| (y / x.exp2() - 1.0).abs();
    check("quick 2^x", &kernel, &sweep(-125.0, 0.0, 300_000), [1.02e-4, 1.02e-4], relative);
    let least = (-125f32).exp2();
    for y in fused_and_not(&kernel, &[0.0, -0.0, -1.0, -126.0, f32::MIN, f32::NEG_INFINITY, f32::NAN]) {
        assert_eq!(y, [1.0, 1.0, 0.5, least, least, least, least]);
    }
}

#[test]
fn sigmoid_and_silu() {
    let error = |x: f64, y: f64| (y - sigmoid(x)).abs();
    check("sigmoid", &sigmoids(), &sweep(-100.0, 100.0, 200_000), [1.2e-7, 1.2e-7], error);
    let relative = |x: f64, y: f64| (y / sigmoid(x) - 1.0).abs();
    check("sigmoid, relative", &sigmoids(), &sweep(-86.0, 30.0, 200_000), [4e-7, 4e-7], relative);
    let error = |x: f64, y: f64| share(x, y - x * sigmoid(x));
    check("silu", &silu(), &sweep(-100.0, 100.0, 200_000), [2e-7, 2e-7], error);
    let large: Vec<f32> = (0..38).flat_map(|e| [10f32.powi(e), -(10f32.powi(e))]).collect();
    check("silu of large numbers", &silu(), &large, [2e-7, 2e-7], error);
    let (inf, max) = (f32::INFINITY, f32::MAX);
    for y in fused_and_not(&silu(), &[0.0, -0.0, inf, max, f32::NAN, -inf, -max]) {
        assert_eq!(y[..4], [0.0, 0.0, inf, max]);
        // The sigmoid does not reach 0: the smallest is 4.5e-39.
        assert!(y[4].is_nan() && y[5] == -inf && (-1.6..0.0).contains(&y[6]));
    }
    for y in fused_and_not(&sigmoids(), &[0.0, -0.0, inf, max, f32::NAN, -inf, -max]) {
        assert_eq!(y[..5], [0.5, 0.5, 1.0, 1.0, 1.0]);
        assert!(y[5] == y[6] && (0.0..4.6e-39).contains(&y[5]));
    }
}
