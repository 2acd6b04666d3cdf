//! How far the quantized weights are from the weights.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::Serialize;

/// Sums of squares. To get the same bits from any number of threads, add those of a tensor's
/// lines in line order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of the weights.
    pub weight: f64,
    /// Of the weights less their quantized values.
    pub error: f64,
}

impl Sums {
    /// Signal to quantization noise in dB, rounded to hundredths so that it prints the same
    /// whatever the logarithm at hand; nothing if there is no error.
    pub fn snr_db(&self) -> Option<f64> {
        if self.error == 0.0 {
            return None;
        }
        // Weights below the least scale can lose all signal; the largest error is the signal.
        Some((1000.0 * (self.weight / self.error).log10()).round() / 100.0)
    }
}

impl Add for Sums {
    type Output = Sums;
    fn add(self, other: Sums) -> Sums {
        Sums { weight: self.weight + other.weight, error: self.error + other.error }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        *self = *self + other;
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Sums>>(sums: I) -> Sums {
        sums.fold(Sums::default(), Add::add)
    }
}

/// How a tensor's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Floats.
    F32,
    /// 7 bits in a byte, one scale per channel.
    Int8,
    /// 4 bits, a multiplier per 16 and one scale per channel.
    Int4,
}

/// A tensor's line in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The weight's node and role.
    pub name: String,
    /// How it is stored.
    pub format: Format,
    /// Bits in the file per weight of the model, with scales and padding; rounded to thousandths.
    pub bits_per_weight: f64,
    /// Signal to quantization noise in dB; null if the stored weights are exact.
    pub snr_db: Option<f64>,
}

impl Entry {
    /// The entry of a tensor of `weights` weights in `bytes` bytes.
    pub fn new(name: impl Into<String>, format: Format, weights: usize, bytes: usize, sums: Sums) -> Entry {
        let bits = 8.0 * bytes as f64 / weights.max(1) as f64;
        Entry { name: name.into(), format, bits_per_weight: (1000.0 * bits).round() / 1000.0, snr_db: sums.snr_db() }
    }
}
