//! 7 bits a weight in a byte: `w ~ scale[channel] * q`, `q` in -63..=63, stored as `q + 64`.
//!
//! A 64-byte line holds four consecutive inputs of 16 channels: the `u32` of lane `c` at `p` has
//! inputs `4p..4p + 4` of channel `c`, lowest byte first.

use kernels::LANES;

use super::cpu::{Body, Level};
use super::line::{Best, Lanes, Line, NotFinite, clamp, nearest, times};
use super::{Scaled, Sums};

/// The largest magnitude. With 64 added the byte is at most 127, as the unsigned operand has to be.
const MOST: f32 = 63.0;

/// Inputs in a word.
const QUAD: usize = 4;

/// Words of a line of `physical` inputs, a multiple of four.
pub fn int8_words(physical: usize) -> usize {
    physical / QUAD * LANES
}

/// Quantizes `rows`, `[up to 16][depth]`, into `words`, whose number is [`int8_words`] of the
/// physical depth. Padding and missing channels become zeros, which are bytes of 64.
///
/// `importance` weighs the squared error of each input, `[depth]`, finite and not negative;
/// without it all inputs weigh the same. The sums returned are never weighed.
///
/// # Errors
/// A weight that is not finite.
///
/// # Panics
/// If the sizes do not fit each other.
pub fn int8(rows: &[f32], depth: usize, importance: Option<&[f32]>, words: &mut [u32]) -> Result<Scaled, NotFinite> {
    int8_at(Level::best(), rows, depth, importance, words)
}

pub(super) fn int8_at(
    level: Level,
    rows: &[f32],
    depth: usize,
    importance: Option<&[f32]>,
    words: &mut [u32],
) -> Result<Scaled, NotFinite> {
    assert!(words.len().is_multiple_of(LANES) && importance.is_none_or(|i| i.len() == depth));
    let line = Line::new(rows, depth, words.len() / LANES * QUAD)?;
    Ok(match importance {
        None => {
            let search = Search::<false> { line: &line, importance: &[], least: -MOST, most: MOST };
            level.run(Bytes { search, words })
        }
        Some(importance) => {
            let search = Search::<true> { line: &line, importance, least: -MOST, most: MOST };
            level.run(Bytes { search, words })
        }
    })
}

/// The weights of a line, `[16][depth]`.
///
/// # Panics
/// If there are fewer than `depth` inputs.
pub fn dequantize_int8(words: &[u32], scales: &[f32; LANES], depth: usize) -> Vec<f32> {
    let mut rows = vec![0.0; LANES * depth];
    for (i, weight) in rows.iter_mut().enumerate() {
        let (channel, k) = (i / depth, i % depth);
        let byte = words[k / QUAD * LANES + channel].to_le_bytes()[k % QUAD];
        *weight = scales[channel] * (f32::from(byte) - 64.0);
    }
    rows
}

/// Scales tried, as shares of the one that clips nothing: a ratio of 1.06 from one to the next, down to a
/// third. Heavy tails are worth clipping, and below a third the clipped weights cost more than any
/// step can save.
const SHARES: usize = 20;
const RATIO: f32 = 1.06;

/// Shares tried around the best of these.
const NEAR: [f32; 6] = [0.97, 0.98, 0.99, 1.01, 1.02, 1.03];

/// Refits of the scale to the integers, and of these to the scale. Later ones change nothing.
const REFITS: usize = 3;

/// The search for the scales of integers in `least..=most`.
pub(super) struct Search<'a, const WEIGHED: bool> {
    pub line: &'a Line,
    pub importance: &'a [f32],
    pub least: f32,
    pub most: f32,
}

/// What one scale gives.
struct Fit {
    /// Sum of squared errors.
    error: Lanes,
    /// Sums of `w q` and of `q q`, whose quotient is the best scale for these integers.
    products: Lanes,
    squares: Lanes,
}

impl<const WEIGHED: bool> Search<'_, WEIGHED> {
    /// The scales with the least error, such that no weight is too large for a float.
    #[inline(always)]
    pub fn run(&self) -> Lanes {
        let mut best = Best::new();
        let mut scale = times(&self.line.max, 1.0 / self.most);
        for _ in 0..SHARES {
            best.offer(&scale, &self.fit(&scale).error);
            scale = times(&scale, 1.0 / RATIO);
        }
        let around = best.scale;
        for near in NEAR {
            let scale = times(&around, near);
            best.offer(&scale, &self.fit(&scale).error);
        }
        for _ in 0..REFITS {
            let fit = self.fit(&best.scale);
            let mut scale = best.scale;
            for (l, scale) in scale.iter_mut().enumerate() {
                if fit.squares[l] > 0.0 {
                    *scale = fit.products[l] / fit.squares[l];
                }
            }
            best.offer(&scale, &self.fit(&scale).error);
        }
        let mut bounded = best.scale;
        for (l, scale) in bounded.iter_mut().enumerate() {
            *scale = self.line.bounded(l, *scale, self.most.max(-self.least));
        }
        bounded
    }

    #[inline(always)]
    fn fit(&self, scale: &Lanes) -> Fit {
        let inverse = inverse(scale);
        let mut fit = Fit { error: [0.0; LANES], products: [0.0; LANES], squares: [0.0; LANES] };
        for (k, values) in self.line.values.iter().enumerate() {
            let weight = if WEIGHED { self.importance.get(k).copied().unwrap_or(0.0) } else { 1.0 };
            for l in 0..LANES {
                let q = self.integer(values[l], inverse[l]);
                let error = values[l] - q * scale[l];
                let weighed = if WEIGHED { q * weight } else { q };
                fit.error[l] += if WEIGHED { error * error * weight } else { error * error };
                fit.products[l] += values[l] * weighed;
                fit.squares[l] += q * weighed;
            }
        }
        fit
    }

    /// The integer of a value, for one over the scale.
    #[inline(always)]
    pub fn integer(&self, value: f32, inverse: f32) -> f32 {
        nearest(clamp(value * inverse, self.least, self.most))
    }
}

struct Bytes<'a, const WEIGHED: bool> {
    search: Search<'a, WEIGHED>,
    words: &'a mut [u32],
}

impl<const WEIGHED: bool> Body for Bytes<'_, WEIGHED> {
    type Output = Scaled;

    #[inline(always)]
    fn run(self) -> Scaled {
        let (search, line) = (&self.search, self.search.line);
        let scale = search.run();
        let inverse = inverse(&scale);
        let (mut weights, mut errors) = ([0.0f64; LANES], [0.0f64; LANES]);
        for (quad, words) in line.values.chunks_exact(QUAD).zip(self.words.chunks_exact_mut(LANES)) {
            words.fill(0);
            for (b, values) in quad.iter().enumerate() {
                for l in 0..LANES {
                    let q = search.integer(values[l], inverse[l]);
                    let error = f64::from(values[l]) - f64::from(q * scale[l]);
                    weights[l] += f64::from(values[l]) * f64::from(values[l]);
                    errors[l] += error * error;
                    words[l] |= ((q as i32 + 64) as u32) << (8 * b);
                }
            }
        }
        scaled(line, &scale, &weights, &errors)
    }
}

/// One over each scale; zero for a channel of zeros, whose integers then are zeros.
#[inline(always)]
pub(super) fn inverse(scale: &Lanes) -> Lanes {
    scale.map(|s| if s > 0.0 { 1.0 / s } else { 0.0 })
}

/// Scales and sums in the weights' own range.
pub(super) fn scaled(line: &Line, scale: &Lanes, weights: &[f64; LANES], errors: &[f64; LANES]) -> Scaled {
    let mut scaled = Scaled { scales: [0.0; LANES], sums: Sums { weight: line.lost, error: line.lost } };
    for l in 0..LANES {
        scaled.scales[l] = line.scale(l, scale[l]);
        scaled.sums += Sums { weight: weights[l] * line.square(l), error: errors[l] * line.square(l) };
    }
    scaled
}
