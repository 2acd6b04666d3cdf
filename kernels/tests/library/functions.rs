//! Naive functions in f64.

/// `x / 2 (1 + erf(x / sqrt 2))`: below zero by erfc, which does not cancel.
pub fn gelu(x: f64) -> f64 {
    let half = erfc(x.abs() * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    if x < 0.0 { x * half } else { x * (1.0 - half) }
}

/// `1 - erf(z)` for `z >= 0`: the series of erf up to 2.5, the continued fraction above.
fn erfc(z: f64) -> f64 {
    if z < 2.5 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..80).rev().fold(z, |f, n| z + f64::from(n) / 2.0 / f);
        (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
    }
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn gelu_has_the_known_values() {
    // From the 17-digit values of the normal distribution at 1, 2, 3 and 5.
    let known = [(1.0, 0.841_344_746_068_542_9), (2.0, 0.977_249_868_051_820_8), (3.0, 0.998_650_101_968_369_9)];
    for (x, share) in known {
        assert!((gelu(x) - x * share).abs() < 1e-14, "{x}");
    }
    assert!((gelu(-5.0) / (-5.0 * 2.866_515_718_791_939e-7) - 1.0).abs() < 1e-9);
    assert!((gelu(-3.6) / (-3.6 * 1.591_085_901_575_338e-4) - 1.0).abs() < 1e-9);
}
