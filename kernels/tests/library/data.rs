//! Deterministic inputs, the layouts of the library, and naive products.

use kernels::LANES;
use kernels::library::{lines, pitch};

use crate::case::Want;

/// A NaN no kernel makes: marks what must be neither read nor written.
pub const HOLE: u32 = 0x7fc0_dead;

/// Channels on both sides of one, two and three lines.
pub const CHANNELS: [usize; 7] = [1, 15, 16, 17, 31, 33, 48];

/// `n` floats in [-1, 1), the same for the same seed.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// A float as text; a hole by name.
pub fn float(bits: u32) -> String {
    if bits == HOLE { "a hole".to_string() } else { format!("{:?}", f32::from_bits(bits)) }
}

/// `[n, channels]` as rows of the library: zeros up to the line's end, holes up to the pitch. What
/// follows the last row is left out.
pub fn rows(values: &[f32], channels: usize) -> Vec<u32> {
    laid_out(values, channels, f32::to_bits as fn(f32) -> u32, 0, HOLE)
}

/// What rows hold after a kernel: channels that fill up a line stay zero, as all kernels rely on.
pub fn want_rows(values: &[f64], channels: usize) -> Vec<Want> {
    laid_out(values, channels, Want::Near, Want::Near(0.0), Want::Same)
}

fn laid_out<T: Copy, E: Copy>(values: &[T], channels: usize, element: fn(T) -> E, zero: E, hole: E) -> Vec<E> {
    let mut out = Vec::new();
    for row in values.chunks(channels) {
        let from = out.len();
        out.extend(row.iter().map(|v| element(*v)));
        out.resize(from + lines(channels) * LANES, zero);
        out.resize(from + pitch(channels), hole);
    }
    out
}

/// A vector of channels in whole lines.
pub fn vector(values: &[f32]) -> Vec<u32> {
    let mut out: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
    out.resize(lines(values.len()) * LANES, 0);
    out
}

/// `[depth, outputs]` as `[line][depth][16]`.
pub fn panels(w: &[f32], depth: usize, outputs: usize) -> Vec<u32> {
    let mut out = Vec::new();
    for line in 0..lines(outputs) {
        for p in 0..depth {
            for o in line * LANES..(line + 1) * LANES {
                out.push(if o < outputs { w[p * outputs + o].to_bits() } else { 0 });
            }
        }
    }
    out
}

/// As f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// `x w` of `[n, depth]` and `[depth, outputs]`.
pub fn product(x: &[f64], w: &[f32], depth: usize, outputs: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(depth) {
        for o in 0..outputs {
            y.push(row.iter().enumerate().map(|(p, x)| x * f64::from(w[p * outputs + o])).sum());
        }
    }
    y
}

/// `y += bias` for every row.
pub fn add_bias(y: &mut [f64], bias: &[f32]) {
    y.iter_mut().zip(bias.iter().cycle()).for_each(|(y, b)| *y += f64::from(*b));
}

/// Softmax in place.
pub fn softmax(x: &mut [f64]) {
    let top = x.iter().copied().fold(f64::MIN, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - top).exp());
    let total: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= total);
}
