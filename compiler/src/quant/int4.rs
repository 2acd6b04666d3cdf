//! 4 bits a weight in two levels: `w ~ scale[channel] * g[group] * q`, `q` in -8..=7, `g` in -7..=7.
//!
//! A group is 16 consecutive inputs of one channel. The sign of `g` turns the range of `q` to the side
//! that needs it. Depth comes in blocks of 128: a line of `g` (the `u32` of lane `c` has the `g` of
//! group `t` in bits `4t..4t + 4`, two's complement), then 16 lines of `q + 8`: in line `t`, byte
//! `b` of lane `c` has input `8t + b` in its low nibble and input `8t + 4 + b` in its high one.
//!
//! One scale spans little: groups whose largest weights differ by more than about 15 share it at a
//! loss. Four columns in 896 that are 10 times as large as the others leave 1.3 dB more than
//! Q4_0 does; 20 times, 0.6 dB more; 40 times, 1.9 dB less. Gains that large do not belong in
//! the columns of such weights.

use kernels::LANES;
use kernels::library::integer::BLOCK_WORDS;
use kernels::library::quantize::{BLOCK, GROUP};

use super::Scaled;
use super::cpu::{Body, Level};
use super::int8::{inverse, scaled};
use super::line::{Best, Lanes, Line, NotFinite, clamp, nearest, times};

const GROUPS: usize = BLOCK / GROUP;

/// Inputs in a word.
const OCTET: usize = 8;

/// Magnitudes of `g`.
const MAGNITUDES: f32 = 7.0;

/// Words of a line of `depth` inputs.
pub fn int4_words(depth: usize) -> usize {
    depth.div_ceil(BLOCK) * BLOCK_WORDS
}

/// Quantizes `rows`, `[up to 16][depth]`, into `words`, whose number is [`int4_words`] of the
/// physical depth. In padding and missing channels `g` and `q` are zeros, as in every group that
/// becomes zeros.
///
/// `importance` weighs the squared error of each input, `[depth]`, finite and not negative;
/// without it all inputs weigh the same. The sums returned are never weighed.
///
/// # Errors
/// A weight that is not finite.
///
/// # Panics
/// If the sizes do not fit each other.
pub fn int4(rows: &[f32], depth: usize, importance: Option<&[f32]>, words: &mut [u32]) -> Result<Scaled, NotFinite> {
    int4_at(Level::best(), rows, depth, importance, words)
}

pub(super) fn int4_at(
    level: Level,
    rows: &[f32],
    depth: usize,
    importance: Option<&[f32]>,
    words: &mut [u32],
) -> Result<Scaled, NotFinite> {
    assert!(words.len().is_multiple_of(BLOCK_WORDS) && importance.is_none_or(|i| i.len() == depth));
    let physical = words.len() / BLOCK_WORDS * BLOCK;
    let line = Line::new(rows, depth, physical)?;
    Ok(match importance {
        None => level.run(Search::<false> { line: &line, importance: &[], words }),
        Some(importance) => {
            let mut padded = importance.to_vec();
            padded.resize(physical, 0.0);
            level.run(Search::<true> { line: &line, importance: &padded, words })
        }
    })
}

/// The weights of a line, `[16][depth]`.
///
/// # Panics
/// If there are fewer than `depth` inputs.
pub fn dequantize_int4(words: &[u32], scales: &[f32; LANES], depth: usize) -> Vec<f32> {
    let mut rows = vec![0.0; LANES * depth];
    for (i, weight) in rows.iter_mut().enumerate() {
        let (channel, k) = (i / depth, i % depth);
        let block = &words[k / BLOCK * BLOCK_WORDS..][..BLOCK_WORDS];
        let k = k % BLOCK;
        // Shifted to the top and back down, a nibble keeps its sign.
        let g = (block[channel] << (28 - 4 * (k / GROUP))) as i32 >> 28;
        let byte = block[(1 + k / OCTET) * LANES + channel].to_le_bytes()[k % 4];
        let q = i32::from(byte >> (k % OCTET / 4 * 4) & 15) - 8;
        *weight = scales[channel] * (g * q) as f32;
    }
    rows
}

/// Scales tried first, as shares of the one with which the largest weight is `7 * 8`. With the last
/// ones it is 4 times a power of two, which is exact for weights that are few steps apart.
const FIRST: [f32; 18] =
    [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.06, 1.13, 1.2, 1.75, 3.5, 7.0, 14.0];

/// Shares tried around the best of these.
const NEAR: [f32; 4] = [0.97, 0.985, 1.015, 1.03];

/// Refits of the scale to the integers, and of these to the scale.
const REFITS: usize = 3;

struct Search<'a, const WEIGHED: bool> {
    line: &'a Line,
    importance: &'a [f32],
    words: &'a mut [u32],
}

/// What is known of a group before any scale.
struct Reach {
    /// Largest magnitude.
    most: Lanes,
    /// The end of the range that suits it: -8 if the largest is below zero, else -7.
    least: Lanes,
}

/// A multiplier: its magnitude, and -8 if it is positive, -7 if it is negative. The integer of a
/// negative one is negated, so that its range is -7..=8 and the product has the sign of the weight.
#[derive(Clone, Copy)]
struct Multiplier {
    magnitude: Lanes,
    least: Lanes,
}

impl Multiplier {
    #[inline(always)]
    fn step(&self, scale: &Lanes) -> Lanes {
        let mut step = [0.0; LANES];
        for l in 0..LANES {
            step[l] = scale[l] * self.magnitude[l];
        }
        step
    }

    /// The integer of a value, for one over the step.
    #[inline(always)]
    fn integer(&self, l: usize, value: f32, inverse: f32) -> f32 {
        nearest(clamp(value * inverse, self.least[l], self.least[l] + 15.0))
    }
}

impl<const WEIGHED: bool> Body for Search<'_, WEIGHED> {
    type Output = Scaled;

    #[inline(always)]
    fn run(mut self) -> Scaled {
        let reaches: Vec<Reach> = self.groups().map(|(group, _)| reach(group)).collect();
        let eighth = times(&self.line.max, 1.0 / 8.0);
        let mut coarse = Best::new();
        for share in FIRST {
            let scale = times(&eighth, share / MAGNITUDES);
            coarse.offer(&scale, &self.glance(&scale, &reaches));
        }
        let around = coarse.scale;
        for near in NEAR {
            let scale = times(&around, near);
            coarse.offer(&scale, &self.glance(&scale, &reaches));
        }
        let mut best = Best::new();
        let mut scale = coarse.scale;
        for _ in 0..=REFITS {
            let fit = self.fit(&scale);
            best.offer(&scale, &fit.error);
            for (l, scale) in scale.iter_mut().enumerate() {
                if fit.squares[l] > 0.0 {
                    *scale = (fit.products[l] / fit.squares[l]) as f32;
                }
            }
        }
        let mut scale = best.scale;
        loop {
            let (scaled, bounded) = self.write(&scale);
            if bounded == scale {
                return scaled;
            }
            // A weight would not be finite. The next scale is less, so this ends.
            scale = bounded;
        }
    }
}

/// What one scale gives.
struct Fit {
    /// Sum of squared errors.
    error: Lanes,
    /// Sums of `w g q` and of its square with `g q` for `w`, whose quotient is the best scale for these integers.
    products: [f64; LANES],
    squares: [f64; LANES],
}

impl<const WEIGHED: bool> Search<'_, WEIGHED> {
    #[inline(always)]
    fn groups(&self) -> impl Iterator<Item = (&[Lanes; GROUP], &[f32; GROUP])> {
        let groups = self.line.values.as_chunks().0;
        let weights = self.importance.as_chunks().0;
        groups.iter().enumerate().map(move |(i, group)| (group, if WEIGHED { &weights[i] } else { &[1.0; GROUP] }))
    }

    /// The errors of a scale, with the few multipliers per group that are mostly the best.
    #[inline(always)]
    fn glance(&self, scale: &Lanes, reaches: &[Reach]) -> Lanes {
        let inverse = inverse(scale);
        let mut sum = [0.0; LANES];
        for ((group, weights), reach) in self.groups().zip(reaches) {
            let mut best = Best::new();
            let mut magnitude = [0.0; LANES];
            for l in 0..LANES {
                let needed = reach.most[l] * inverse[l] * (1.0 / 8.0);
                magnitude[l] = clamp(nearest(needed - 0.25), 1.0, MAGNITUDES);
            }
            for _ in 0..2 {
                let g = Multiplier { magnitude, least: reach.least };
                best.offer(&magnitude, &self.error(group, weights, scale, &g));
                magnitude = magnitude.map(|m| clamp(m + 1.0, 1.0, MAGNITUDES));
            }
            for (sum, error) in sum.iter_mut().zip(best.error) {
                *sum += error;
            }
        }
        sum
    }

    /// The squared errors of a group for one multiplier per channel.
    #[inline(always)]
    fn error(&self, group: &[Lanes; GROUP], weights: &[f32; GROUP], scale: &Lanes, g: &Multiplier) -> Lanes {
        let mut sum = [0.0; LANES];
        let step = g.step(scale);
        let inverse = inverse(&step);
        for (values, weight) in group.iter().zip(weights) {
            for l in 0..LANES {
                let error = values[l] - g.integer(l, values[l], inverse[l]) * step[l];
                sum[l] += if WEIGHED { error * error * weight } else { error * error };
            }
        }
        sum
    }

    /// The multipliers of a group with the least error, and that error.
    #[inline(always)]
    fn choose(&self, group: &[Lanes; GROUP], weights: &[f32; GROUP], scale: &Lanes) -> (Multiplier, Lanes) {
        let mut best = Multiplier { magnitude: [1.0; LANES], least: [-8.0; LANES] };
        let mut least_error = [f32::INFINITY; LANES];
        for magnitude in 1..=7 {
            for least in [-8.0, -7.0] {
                let g = Multiplier { magnitude: [magnitude as f32; LANES], least: [least; LANES] };
                let error = self.error(group, weights, scale, &g);
                for l in 0..LANES {
                    let better = error[l] < least_error[l];
                    best.magnitude[l] = if better { g.magnitude[l] } else { best.magnitude[l] };
                    best.least[l] = if better { g.least[l] } else { best.least[l] };
                    least_error[l] = if better { error[l] } else { least_error[l] };
                }
            }
        }
        (best, least_error)
    }

    /// The errors of a scale with the best multipliers, and what the scale should have been for them.
    #[inline(always)]
    fn fit(&self, scale: &Lanes) -> Fit {
        let mut fit = Fit { error: [0.0; LANES], products: [0.0; LANES], squares: [0.0; LANES] };
        for (group, weights) in self.groups() {
            let (g, error) = self.choose(group, weights, scale);
            let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
            let inverse = inverse(&g.step(scale));
            for (values, weight) in group.iter().zip(weights) {
                for l in 0..LANES {
                    let v = g.integer(l, values[l], inverse[l]) * g.magnitude[l];
                    let weighed = if WEIGHED { v * weight } else { v };
                    products[l] += values[l] * weighed;
                    squares[l] += v * weighed;
                }
            }
            for l in 0..LANES {
                fit.error[l] += error[l];
                fit.products[l] += f64::from(products[l]);
                fit.squares[l] += f64::from(squares[l]);
            }
        }
        fit
    }

    /// Writes the words of a scale. The scale returned is less where a weight would not be finite.
    #[inline(always)]
    fn write(&mut self, scale: &Lanes) -> (Scaled, Lanes) {
        let words = std::mem::take(&mut self.words);
        words.fill(0);
        let (mut weights, mut errors, mut largest) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f32; LANES]);
        for (i, (group, importance)) in self.groups().enumerate() {
            let (g, _) = self.choose(group, importance, scale);
            let inverse = inverse(&g.step(scale));
            let block = &mut words[i / GROUPS * BLOCK_WORDS..][..BLOCK_WORDS];
            let (multipliers, block) = block.split_at_mut(LANES);
            let lines = &mut block[i % GROUPS * GROUP / OCTET * LANES..][..GROUP / OCTET * LANES];
            let mut most = [0.0f32; LANES];
            for (k, values) in group.iter().enumerate() {
                let shift = k % 4 * 8 + k % OCTET / 4 * 4;
                for l in 0..LANES {
                    let q = g.integer(l, values[l], inverse[l]);
                    let error = f64::from(values[l]) - f64::from(scale[l] * (q * g.magnitude[l]));
                    weights[l] += f64::from(values[l]) * f64::from(values[l]);
                    errors[l] += error * error;
                    most[l] = if q.abs() > most[l] { q.abs() } else { most[l] };
                    let stored = if g.least[l] == -8.0 { q } else { -q };
                    lines[k / OCTET * LANES + l] |= ((stored as i32 + 8) as u32) << shift;
                }
            }
            for l in 0..LANES {
                let product = most[l] * g.magnitude[l];
                largest[l] = if product > largest[l] { product } else { largest[l] };
                let sign = if g.least[l] == -8.0 { 1 } else { -1 };
                let g = if most[l] > 0.0 { g.magnitude[l] as i32 * sign } else { 0 };
                multipliers[l] |= (g as u32 & 15) << (4 * (i % GROUPS));
            }
        }
        self.words = words;
        let mut bounded = *scale;
        for l in 0..LANES {
            bounded[l] = self.line.bounded(l, scale[l], largest[l]);
        }
        (scaled(self.line, scale, &weights, &errors), bounded)
    }
}

#[inline(always)]
fn reach(group: &[Lanes; GROUP]) -> Reach {
    let (mut least, mut most) = ([0.0; LANES], [0.0; LANES]);
    for values in group {
        for l in 0..LANES {
            least[l] = if values[l] < least[l] { values[l] } else { least[l] };
            most[l] = if values[l] > most[l] { values[l] } else { most[l] };
        }
    }
    let mut reach = Reach { most: [0.0; LANES], least: [-7.0; LANES] };
    for l in 0..LANES {
        let below: f32 = -least[l];
        reach.most[l] = if below > most[l] { below } else { most[l] };
        reach.least[l] = if below > most[l] { -8.0 } else { -7.0 };
    }
    reach
}
