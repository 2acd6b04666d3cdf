//! Pillow's antialiased bicubic resize, bit for bit.
//!
//! Two passes, each in fixed point with 22 fractional bits and rounded to 8 bits. Only what the result shows is computed,
//! and padding is never stored: its share of every sum is a constant. So beside the result this takes a few dozen bytes
//! for each column and row of the picture, never a multiple of its pixels.

use super::{ITEM, Rgb8, bytes};
use crate::Error;
use crate::room;
use alloc::vec::Vec;
use core::ops::Range;

/// How one axis of the picture becomes one axis of the input.
pub struct Fit {
    /// Pixels of the picture.
    pub len: usize,
    /// Padding before them.
    pub before: usize,
    /// Pixels with padding.
    pub whole: usize,
    /// What `whole` is resized to; beyond `usize` for the longest pictures on small machines.
    pub scaled: u64,
    /// First pixel of it that is shown.
    pub first: u64,
}

impl Fit {
    /// A picture of `len` in the middle of `whole`.
    pub fn padded(len: usize, whole: usize, side: usize) -> Self {
        Self { len, before: (whole - len) / 2, whole, scaled: side as u64, first: 0 }
    }

    /// The middle of a picture whose `shorter` side becomes `side`.
    pub fn cropped(len: usize, shorter: usize, side: usize) -> Self {
        // Rounded down, as the reference does.
        let scaled = side as u64 * len as u64 / shorter as u64;
        Self { len, before: 0, whole: len, scaled, first: (scaled - side as u64) / 2 }
    }

    /// True if pixels stay as they are.
    pub fn is_unscaled(&self) -> bool {
        self.whole as u64 == self.scaled
    }
}

/// Fractional bits of a weight.
const PRECISION: u32 = 22;

/// Where sums start, so that cutting the fraction off rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// The input pixels that one output pixel is made of.
#[derive(Clone, Copy)]
struct Taps {
    /// First of them in the picture.
    first: usize,
    n: usize,
    /// Index of their first weight.
    at: usize,
    /// Sum of the weights that fall on padding.
    outside: i32,
    /// Sum of all weights.
    total: i32,
}

/// All taps of one axis.
struct Axis {
    taps: Vec<Taps>,
    weights: Vec<i32>,
    /// Outputs that see the picture; the others see padding only.
    seeing: Range<usize>,
}

impl Axis {
    /// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, statement by statement: the order of roundings matters.
    fn new(fit: &Fit, side: usize) -> Result<Self, Error> {
        let scale = fit.whole as f64 / fit.scaled as f64;
        let filter_scale = scale.max(1.0);
        let support = 2.0 * filter_scale;
        let per_filter = 1.0 / filter_scale;
        let mut axis = Self { taps: room::with_room(side, ITEM)?, weights: Vec::new(), seeing: 0..0 };
        let mut window = Vec::new();
        for (row, out) in (fit.first..).take(side).enumerate() {
            let center = (out as f64 + 0.5) * scale;
            // Casting cuts the fraction off and takes negative numbers to zero.
            let first = (center - support + 0.5) as usize;
            let last = ((center + support + 0.5) as usize).min(fit.whole);
            window.clear();
            room::reserve(&mut window, last.saturating_sub(first), ITEM)?;
            window.extend((first..last).map(|at| cubic((at as f64 - center + 0.5) * per_filter)));
            let sum: f64 = window.iter().fold(0.0, |sum, weight| sum + weight);
            let at = axis.weights.len();
            let inside = first.max(fit.before)..last.min(fit.before + fit.len);
            let (mut outside, mut total) = (0i32, 0i32);
            for (input, weight) in (first..last).zip(&window) {
                let weight = if sum != 0.0 { weight / sum } else { *weight };
                let rounding = if weight < 0.0 { -0.5 } else { 0.5 };
                let weight = (rounding + weight * f64::from(1 << PRECISION)) as i32;
                total = total.wrapping_add(weight);
                if inside.contains(&input) {
                    room::push(&mut axis.weights, weight, ITEM)?;
                } else {
                    outside = outside.wrapping_add(weight);
                }
            }
            let n = axis.weights.len() - at;
            if n > 0 {
                let start = if axis.seeing.is_empty() { row } else { axis.seeing.start };
                axis.seeing = start..row + 1;
            }
            axis.taps.push(Taps { first: inside.start.saturating_sub(fit.before), n, at, outside, total });
        }
        Ok(axis)
    }
}

/// Keys' cubic with a = -0.5, as Pillow writes it.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Pixels that the horizontal pass takes at once.
const STEP: usize = 8;

/// `STEP` weights, each three times: one per byte of a pixel.
type Weights = [i32; STEP * 3];

/// Bytes that the vertical pass makes at once.
const BLOCK: usize = 64;

/// Both passes, ready to run.
pub struct Resize<'a> {
    image: Rgb8<'a>,
    side: usize,
    x: Axis,
    y: Axis,
    /// Weights of the horizontal pass: for each output that sees the picture, `steps` entries from `first_weights` on.
    weights: Vec<Weights>,
    first_weights: Vec<(usize, usize)>,
    /// What the horizontal pass makes of a row of padding, `[side, 3]`.
    padding: Vec<u8>,
    color: [u8; 3],
    vertical_first: bool,
}

impl<'a> Resize<'a> {
    /// Fits `image` to `side` pixels each way, as `x` and `y` say; what lies outside of it has `color`.
    pub fn new(image: &Rgb8<'a>, x: &Fit, y: &Fit, color: [u8; 3], side: usize) -> Result<Self, Error> {
        // The pass that comes first shows in the rounding. Pillow 13 begins with the rows where that removes more than
        // twice as many as the other pass removes columns. A padded picture is square, so this never meets padding.
        let removed = |fit: &Fit| (fit.whole as u64).saturating_sub(fit.scaled);
        let vertical_first = removed(y) > 2 * removed(x);
        let (x, y) = (Axis::new(x, side)?, Axis::new(y, side)?);
        let mut weights = Vec::new();
        let mut first_weights = room::with_room(x.seeing.len(), ITEM)?;
        for taps in &x.taps[x.seeing.clone()] {
            first_weights.push((weights.len(), taps.n.div_ceil(STEP)));
            for chunk in x.weights[taps.at..taps.at + taps.n].chunks(STEP) {
                let weight = core::array::from_fn(|lane| chunk.get(lane / 3).copied().unwrap_or(0));
                room::push(&mut weights, weight, ITEM)?;
            }
        }
        let mut padding = bytes(side * 3)?;
        for (pixel, taps) in padding.as_chunks_mut::<3>().0.iter_mut().zip(&x.taps) {
            *pixel = color.map(|c| clip(HALF.wrapping_add(taps.total.wrapping_mul(i32::from(c)))));
        }
        Ok(Self { image: *image, side, x, y, weights, first_weights, padding, color, vertical_first })
    }

    /// Fills `out`, `[side, side, 3]`.
    pub fn run(&self, out: &mut [u8]) -> Result<(), Error> {
        let longest = self.y.taps.iter().map(|taps| taps.n).max().unwrap_or(0).max(1);
        // The newest rows of the horizontal pass, when it is the first: row `y` lies in place `y % longest`.
        let mut ring = bytes(if self.vertical_first { 0 } else { longest * self.x.seeing.len() * 3 })?;
        // A row as wide as the picture, with room for the last step to read beyond it.
        let mut row = bytes((self.image.width + STEP) * 3)?;
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, it was asked on the line above.
            unsafe { self.passes_avx2(&mut ring, &mut row, out) };
            return Ok(());
        }
        self.passes(&mut ring, &mut row, out);
        Ok(())
    }

    /// `passes`, compiled for wider registers.
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    #[target_feature(enable = "avx2")]
    fn passes_avx2(&self, ring: &mut [u8], row: &mut [u8], out: &mut [u8]) {
        self.passes(ring, row, out);
    }

    #[inline(always)]
    fn passes(&self, ring: &mut [u8], row: &mut [u8], out: &mut [u8]) {
        if self.vertical_first {
            let pitch = self.image.width * 3;
            for (taps, out) in self.y.taps.iter().zip(out.chunks_exact_mut(self.side * 3)) {
                self.vertical(self.image.pixels, pitch, taps, &[], &mut row[..pitch]);
                self.horizontal(row, out);
            }
            return;
        }
        let (seen, pitch) = (self.x.seeing.start * 3..self.x.seeing.end * 3, self.x.seeing.len() * 3);
        let n_places = ring.len() / pitch;
        let mut next = 0;
        for (taps, out) in self.y.taps.iter().zip(out.chunks_exact_mut(self.side * 3)) {
            next = next.max(taps.first);
            while next < taps.first + taps.n {
                let pixels = &self.image.pixels[next * self.image.width * 3..][..self.image.width * 3];
                row[..pixels.len()].copy_from_slice(pixels);
                self.horizontal(row, &mut ring[next % n_places * pitch..][..pitch]);
                next += 1;
            }
            // Columns of padding only.
            for at in (0..seen.start).chain(seen.end..out.len()) {
                out[at] = clip(HALF.wrapping_add(taps.total.wrapping_mul(i32::from(self.padding[at]))));
            }
            self.vertical(ring, pitch, taps, &self.padding[seen.clone()], &mut out[seen.clone()]);
        }
    }

    /// One row of the picture, resized: `out` is `[seeing, 3]`.
    #[inline(always)]
    fn horizontal(&self, row: &[u8], out: &mut [u8]) {
        let taps = &self.x.taps[self.x.seeing.clone()];
        for ((pixel, taps), (at, n)) in out.as_chunks_mut::<3>().0.iter_mut().zip(taps).zip(&self.first_weights) {
            let inputs = row[taps.first * 3..].as_chunks::<{ STEP * 3 }>().0;
            let mut sums = [0i32; STEP * 3];
            for (inputs, weights) in inputs[..*n].iter().zip(&self.weights[*at..*at + *n]) {
                multiply_add(&mut sums, inputs, weights);
            }
            // Hides what the sums are for. The compiler would otherwise keep the channels apart in the loop above, in
            // single lanes, which takes twice as long.
            let sums = core::hint::black_box(sums);
            let sums: [i32; 12] = core::array::from_fn(|lane| sums[lane].wrapping_add(sums[lane + 12]));
            let sums: [i32; 6] = core::array::from_fn(|lane| sums[lane].wrapping_add(sums[lane + 6]));
            for channel in 0..3 {
                let start = HALF.wrapping_add(taps.outside.wrapping_mul(i32::from(self.color[channel])));
                pixel[channel] = clip(start.wrapping_add(sums[channel]).wrapping_add(sums[channel + 3]));
            }
        }
    }

    /// One row, resized from the rows that `taps` names: row `y` lies in place `y % n` of `rows`, where `n` places of
    /// `pitch` bytes are. `padding` is what a row outside of the picture holds, empty where there are none.
    #[inline(always)]
    fn vertical(&self, rows: &[u8], pitch: usize, taps: &Taps, padding: &[u8], out: &mut [u8]) {
        let weights = &self.y.weights[taps.at..taps.at + taps.n];
        let n_places = rows.len() / pitch;
        let n_blocks = pitch / BLOCK;
        for at in (0..n_blocks).map(|block| block * BLOCK) {
            let mut sums = [HALF; BLOCK];
            if let Some(padding) = padding.get(at..).and_then(|rest| rest.first_chunk()) {
                multiply_add(&mut sums, padding, &[taps.outside; BLOCK]);
            }
            let mut place = taps.first % n_places;
            for weight in weights {
                if let Some(row) = rows[place * pitch + at..].first_chunk() {
                    multiply_add(&mut sums, row, &[*weight; BLOCK]);
                }
                place = if place + 1 == n_places { 0 } else { place + 1 };
            }
            for (out, sum) in out[at..at + BLOCK].iter_mut().zip(&sums) {
                *out = clip(*sum);
            }
        }
        for at in n_blocks * BLOCK..pitch {
            let start = padding.get(at).map_or(0, |value| taps.outside.wrapping_mul(i32::from(*value)));
            let sum = (taps.first..).zip(weights).fold(HALF.wrapping_add(start), |sum, (y, weight)| {
                sum.wrapping_add(i32::from(rows[y % n_places * pitch + at]).wrapping_mul(*weight))
            });
            out[at] = clip(sum);
        }
    }
}

/// `sums += values * weights`, by lanes.
#[inline(always)]
fn multiply_add<const N: usize>(sums: &mut [i32; N], values: &[u8; N], weights: &[i32; N]) {
    for lane in 0..N {
        sums[lane] = sums[lane].wrapping_add(i32::from(values[lane]).wrapping_mul(weights[lane]));
    }
}

/// A fixed-point sum as a byte.
#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
