//! Sixteen channels beside each other, each brought to the same range by a power of two.
//!
//! The power keeps squares of huge and of tiny weights inside f32, and scaling by it is exact:
//! what is found for the scaled channel holds for the channel.

use std::fmt::{self, Display, Formatter};

use kernels::LANES;

/// One value per channel.
pub(super) type Lanes = [f32; LANES];

/// A weight that is no number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// The row in the line.
    pub channel: usize,
    /// The column.
    pub k: usize,
    /// Infinite or not a number.
    pub value: f32,
}

impl Display for NotFinite {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let NotFinite { channel, k, value } = self;
        write!(
            f,
            "a weight of column {k} is {value} (row {channel} of its 16): only finite weights can be quantized, --quant f32 keeps it"
        )
    }
}

impl std::error::Error for NotFinite {}

/// Channels whose largest weight is below 2^LEAST become zeros: their scale could be subnormal,
/// which some processors read as zero and some do not.
const LEAST: i32 = -112;

/// The largest exponent by which a channel is scaled. Its inverse has to be a normal number, so
/// the largest weights end up below 4, all others below 2.
const MOST: i32 = 126;

/// The largest scaled value that is finite as a weight, whatever the channel's exponent.
const LARGEST: f32 = 4.0 - 1.0 / (1 << 22) as f32;

/// The channels of a line, scaled.
pub(super) struct Line {
    /// `[padded depth][16]`; missing channels, channels below the least and padding are zeros.
    pub values: Vec<Lanes>,
    /// Largest magnitude of each channel, in `1.0..4.0`, or zero.
    pub max: Lanes,
    /// A weight is its value here times two to the power of this.
    pub exponents: [i32; LANES],
    /// Sum of squares of the weights that became zeros.
    pub lost: f64,
}

impl Line {
    /// Reads `[up to 16][depth]` rows.
    ///
    /// # Panics
    /// If the rows are not whole or more than 16.
    pub fn new(rows: &[f32], depth: usize, padded: usize) -> Result<Line, NotFinite> {
        assert!(depth > 0 && rows.len().is_multiple_of(depth) && rows.len() <= LANES * depth && padded >= depth);
        let mut line = Line { values: vec![[0.0; LANES]; padded], max: [0.0; LANES], exponents: [0; LANES], lost: 0.0 };
        let mut kept: Vec<(usize, &[f32], f32)> = Vec::with_capacity(LANES);
        for (channel, row) in rows.chunks_exact(depth).enumerate() {
            // Magnitudes of floats are in the order of their bits, and all that is not finite comes last.
            let bits = row.iter().fold(0, |most, w| (w.to_bits() & MAGNITUDE).max(most));
            let exponent = (bits >> 23) as i32 - 127;
            if exponent > 127 {
                let k = row.iter().position(|w| !w.is_finite()).unwrap_or(0);
                return Err(NotFinite { channel, k, value: row[k] });
            }
            if exponent < LEAST {
                line.lost += row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>();
                continue;
            }
            let exponent = exponent.min(MOST);
            let factor = power(-exponent);
            line.exponents[channel] = exponent;
            line.max[channel] = f32::from_bits(bits) * factor;
            kept.push((channel, row, factor));
        }
        for (k, values) in line.values[..depth].iter_mut().enumerate() {
            for (channel, row, factor) in &kept {
                values[*channel] = row[k] * factor;
            }
        }
        Ok(line)
    }

    /// The scale of a channel's weights for a scale of its values here. `largest` is the largest
    /// integer that the scale is multiplied by.
    pub fn bounded(&self, channel: usize, scale: f32, largest: f32) -> f32 {
        let mut scale = scale;
        if self.exponents[channel] == MOST && scale * largest > LARGEST {
            scale = LARGEST / largest;
            while scale * largest > LARGEST {
                scale = scale.next_down();
            }
        }
        scale
    }

    /// A channel's scale for its weights, from that of its values here.
    pub fn scale(&self, channel: usize, scale: f32) -> f32 {
        scale * power(self.exponents[channel])
    }

    /// What the square of a value here is as square of a weight.
    pub fn square(&self, channel: usize) -> f64 {
        let power = f64::from(power(self.exponents[channel]));
        power * power
    }
}

const MAGNITUDE: u32 = 0x7fff_ffff;

/// Two to the power of `exponent`, a normal number.
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The nearest integer, ties to even, of a value far below 2^22. Adding the constant leaves no
/// fraction bits; unlike `round_ties_even` it needs no instruction that a plain x86-64 lacks.
#[inline(always)]
pub(super) fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    value + SHIFT - SHIFT
}

/// `value` inside `least..=most`, as two vector instructions; there is no NaN here.
#[inline(always)]
pub(super) fn clamp(value: f32, least: f32, most: f32) -> f32 {
    let value = if value > least { value } else { least };
    if value < most { value } else { most }
}

/// For every channel the scale with the least error so far.
#[derive(Clone, Copy)]
pub(super) struct Best {
    pub scale: Lanes,
    pub error: Lanes,
}

impl Best {
    #[inline(always)]
    pub fn new() -> Best {
        Best { scale: [0.0; LANES], error: [f32::INFINITY; LANES] }
    }

    /// Takes the scales whose error is less than that of the best.
    #[inline(always)]
    pub fn offer(&mut self, scale: &Lanes, error: &Lanes) {
        for l in 0..LANES {
            let better = error[l] < self.error[l];
            self.scale[l] = if better { scale[l] } else { self.scale[l] };
            self.error[l] = if better { error[l] } else { self.error[l] };
        }
    }
}

/// `factor` times each.
#[inline(always)]
pub(super) fn times(values: &Lanes, factor: f32) -> Lanes {
    values.map(|v| v * factor)
}
