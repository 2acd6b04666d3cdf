//! What 4-bit weights leave out, in 4 more bits: `w ~ scale * g * q + low_scale * p`, `p` in -8..=7.
//!
//! The first half is that of [`int4`](super::int4), so that it alone is as near to the weights as 4 bits are; the second has one
//! scale for each channel. Rows of the second half follow each other, as few of them are read: a line of 64 bytes
//! holds 128 inputs, byte `b` of `u32` `l` input `4 l + b` in its low nibble and `64 + 4 l + b` in its high one,
//! each more by 8.

use kernels::LANES;
use kernels::library::quantize::BLOCK;
use kernels::library::split::REACH;

use super::cpu::{Body, Level};
use super::int4::{dequantize_int4, int4_at, int4_words};
use super::int8::{Search, inverse, scaled};
use super::line::{Line, NotFinite};
use super::{Scaled, Sums};

/// The range of `p`.
const LEAST: f32 = -8.0;
const MOST: f32 = 7.0;

/// The second half of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Low {
    /// Its scales; the sums are of both halves together.
    pub scaled: Scaled,
    /// Of each channel, the length of the row of `low_scale * p`, rounded up by [`REACH`].
    pub reach: [f32; LANES],
}

/// Words of the second half of a line of `depth` inputs.
pub fn low_words(depth: usize) -> usize {
    depth.div_ceil(BLOCK) * LANES * LANES
}

/// Quantizes what [`int4`](super::int4) leaves of `rows`, `[up to 16][depth]`, into `words`, whose number is [`low_words`].
///
/// # Errors
/// A weight that is not finite.
///
/// # Panics
/// If the sizes do not fit each other.
pub fn low(rows: &[f32], depth: usize, words: &mut [u32]) -> Result<Low, NotFinite> {
    low_at(Level::best(), rows, depth, words)
}

pub(super) fn low_at(level: Level, rows: &[f32], depth: usize, words: &mut [u32]) -> Result<Low, NotFinite> {
    assert_eq!(words.len(), low_words(depth));
    let mut high = vec![0; int4_words(depth)];
    let first = int4_at(level, rows, depth, None, &mut high)?;
    let rest: Vec<f32> = rows.iter().zip(dequantize_int4(&high, &first.scales, depth)).map(|(w, q)| w - q).collect();
    let line = Line::new(&rest, depth, depth)?;
    let second = level.run(Nibbles { line: &line, words });
    let sums = Sums { weight: first.sums.weight, error: second.scaled.sums.error };
    Ok(Low { scaled: Scaled { sums, ..second.scaled }, ..second })
}

/// What the words of [`low`] add to the weights of a line, `[16][depth]`.
///
/// # Panics
/// If there are fewer than `depth` inputs.
pub fn dequantize_low(words: &[u32], scales: &[f32; LANES], depth: usize) -> Vec<f32> {
    let row = words.len() / LANES;
    let weight = |i: usize| {
        let (channel, (word, shift)) = (i / depth, place(i % depth));
        scales[channel] * ((words[channel * row + word] >> shift & 15) as f32 - 8.0)
    };
    (0..LANES * depth).map(weight).collect()
}

/// Word and bit of input `k` in its row.
fn place(k: usize) -> (usize, usize) {
    let (block, within) = (k / BLOCK, k % BLOCK);
    let (half, within) = (within / (BLOCK / 2), within % (BLOCK / 2));
    (block * LANES + within / 4, within % 4 * 8 + half * 4)
}

struct Nibbles<'a> {
    line: &'a Line,
    words: &'a mut [u32],
}

impl Body for Nibbles<'_> {
    type Output = Low;

    #[inline(always)]
    fn run(self) -> Low {
        let line = self.line;
        let search = Search::<false> { line, importance: &[], least: LEAST, most: MOST };
        let scale = search.run();
        let inverse = inverse(&scale);
        let row = self.words.len() / LANES;
        let (mut weights, mut errors, mut squares) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        self.words.fill(0);
        for (k, values) in line.values.iter().enumerate() {
            let (word, shift) = place(k);
            for l in 0..LANES {
                let q = search.integer(values[l], inverse[l]);
                let error = f64::from(values[l]) - f64::from(q * scale[l]);
                weights[l] += f64::from(values[l]) * f64::from(values[l]);
                errors[l] += error * error;
                squares[l] += f64::from(q) * f64::from(q);
                self.words[l * row + word] |= ((q as i32 + 8) as u32) << shift;
            }
        }
        let scaled = scaled(line, &scale, &weights, &errors);
        let mut reach = [0.0; LANES];
        for l in 0..LANES {
            let length = squares[l].sqrt() * f64::from(scaled.scales[l]) * f64::from(REACH);
            reach[l] = (length as f32).next_up();
        }
        Low { scaled, reach }
    }
}
