//! Functions of elements and rows: activations, norms, squeeze and excite.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::Constants;
use super::matmul::linear;
use crate::{Activation, SourceError, WeightId};

/// Elements that one task works on.
const TASK: usize = 1 << 14;

/// `f` of each element.
pub(super) fn each(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
        for (out, x) in out.iter_mut().zip(x) {
            *out = f(*x);
        }
    });
    out
}

/// `f` of each pair of elements.
pub(super) fn pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(TASK).zip(a.par_chunks(TASK).zip(b.par_chunks(TASK))).for_each(|(out, (a, b))| {
        for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
            *out = f(*a, *b);
        }
    });
    out
}

/// `f` of each element and the number of its column, in rows of `c`.
pub(super) fn columns(x: &[f32], c: usize, f: impl Fn(usize, f32) -> f32 + Sync) -> Vec<f32> {
    rows(x, c, c, |x, out| {
        for (j, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = f(j, *x);
        }
    })
}

/// `f` of each row of `c` elements, to rows of `to` elements.
fn rows(x: &[f32], c: usize, to: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / c * to];
    let n = TASK.div_ceil(c);
    out.par_chunks_mut(n * to).zip(x.par_chunks(n * c)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(to).zip(x.chunks_exact(c)) {
            f(x, out);
        }
    });
    out
}

pub(super) fn activation(x: &[f32], kind: Activation) -> Vec<f32> {
    match kind {
        Activation::Gelu => {
            let erf = Erf::get();
            each(x, |x| (0.5 * f64::from(x) * (1.0 + erf.at(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))) as f32)
        }
        Activation::Silu => each(x, silu),
        Activation::Relu => each(x, |x| x.max(0.0)),
        Activation::Sigmoid => each(x, sigmoid),
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

pub(super) fn swiglu(x: &[f32]) -> Vec<f32> {
    rows(x, 32, 16, |x, out| {
        for (out, (gate, up)) in out.iter_mut().zip(x[..16].iter().zip(&x[16..])) {
            *out = silu(*gate) * up;
        }
    })
}

pub(super) fn layer_norm(x: &[f32], c: usize, eps: f64) -> Vec<f32> {
    rows(x, c, c, |x, out| {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / c as f64;
        let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / c as f64;
        let scale = 1.0 / (var + eps).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            *out = ((f64::from(*x) - mean) * scale) as f32;
        }
    })
}

pub(super) fn rms_norm(x: &[f32], c: usize, eps: f64) -> Vec<f32> {
    rows(x, c, c, |x, out| {
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / c as f64;
        let scale = 1.0 / (mean + eps).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            *out = (f64::from(*x) * scale) as f32;
        }
    })
}

pub(super) fn squeeze_excite(
    x: &[f32],
    c: usize,
    reduce: (WeightId, WeightId),
    expand: (WeightId, WeightId),
    constants: &mut Constants<'_>,
) -> Result<Vec<f32>, SourceError> {
    let mut mean = vec![0.0f64; c];
    for row in x.chunks_exact(c) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let pixels = (x.len() / c) as f64;
    let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / pixels) as f32).collect();
    let hidden = activation(&linear(&mean, c, reduce.0, Some(reduce.1), constants)?, Activation::Relu);
    let gate = linear(&hidden, hidden.len(), expand.0, Some(expand.1), constants)?;
    let gate = activation(&gate, Activation::Sigmoid);
    Ok(columns(x, c, |j, x| x * gate[j]))
}

/// Index of the largest element, the first among equals.
pub(super) fn arg_max(row: &[f32]) -> f32 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as f32
}

/// The error function to 1e-11: Taylor polynomials of degree 5 around multiples of `STEP`.
struct Erf {
    /// Coefficients of `h^0..=h^5` at `i * STEP`.
    around: Vec<[f64; 6]>,
}

/// Largest error of the next Taylor term at half a step: about `(1/64)^6 = 1.5e-11`.
const STEP: f64 = 1.0 / 32.0;
/// erf is 1 to 16 digits from here on.
const FLAT: f64 = 6.0;

impl Erf {
    fn get() -> &'static Erf {
        static TABLE: OnceLock<Erf> = OnceLock::new();
        TABLE.get_or_init(|| Erf {
            around: (0..=(FLAT / STEP) as usize).map(|i| Erf::expand(i as f64 * STEP)).collect(),
        })
    }

    /// erf(x) = 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 * 3 * ... * (2n+1)), whose terms
    /// are all positive; the derivatives are Hermite polynomials times exp(-x^2).
    fn expand(x: f64) -> [f64; 6] {
        let slope = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp();
        let (mut term, mut sum) = (x, 0.0);
        for n in 1..200 {
            sum += term;
            term *= 2.0 * x * x / f64::from(2 * n + 1);
        }
        let x2 = x * x;
        [
            slope * sum,
            slope,
            -slope * x,
            slope * (4.0 * x2 - 2.0) / 6.0,
            slope * x * (12.0 - 8.0 * x2) / 24.0,
            slope * (16.0 * x2 * x2 - 48.0 * x2 + 12.0) / 120.0,
        ]
    }

    fn at(&self, x: f64) -> f64 {
        let size = x.abs();
        if size.is_nan() {
            return x;
        }
        if size >= FLAT {
            return x.signum();
        }
        let i = (size / STEP + 0.5) as usize;
        let h = size - i as f64 * STEP;
        let [a, b, c, d, e, f] = self.around[i];
        (a + h * (b + h * (c + h * (d + h * (e + h * f))))).copysign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of erf from tables, 15 digits.
    #[test]
    fn erf_at_known_points() {
        let erf = Erf::get();
        for (x, y) in [
            (0.0, 0.0),
            (0.1, 0.112462916018285),
            (0.5, 0.520499877813047),
            (1.0, 0.842700792949715),
            (1.7, 0.983790458590775),
            (2.0, 0.995322265018953),
            (3.0, 0.999977909503001),
            (-1.0, -0.842700792949715),
            (7.0, 1.0),
        ] {
            assert!((erf.at(x) - y).abs() < 2e-11, "erf({x}) = {}", erf.at(x));
        }
    }

    #[test]
    fn swiglu_alternates_blocks() {
        let x: Vec<f32> = (0..32).map(|i| if i < 16 { 1.0 } else { i as f32 }).collect();
        assert_eq!(swiglu(&x), (16..32).map(|i| silu(1.0) * i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn first_of_equal_maxima() {
        assert_eq!(arg_max(&[1.0, 3.0, 3.0, 2.0]), 1.0);
    }
}
