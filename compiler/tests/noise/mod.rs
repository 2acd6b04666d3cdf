//! Made-up tensors for models without a checkpoint.

use std::ops::Range;

use ir::{SourceError, TensorSource, Weights};

/// Noise that depends on a tensor's name, small enough that rows keep their size; variances are
/// positive.
pub struct Noise {
    weights: Weights,
}

impl Noise {
    /// For all tensors that the arena names.
    pub fn of(weights: &Weights) -> Noise {
        Noise { weights: weights.clone() }
    }
}

impl TensorSource for Noise {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.weights.tensors().find(|(n, _)| *n == name).map(|(_, shape)| shape.to_vec())
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, SourceError> {
        let shape = self.shape(name).ok_or_else(|| SourceError::Missing { name: name.into() })?;
        let width: usize = shape[1..].iter().product();
        let seed = name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let value = |i: usize| {
            let noise = noise(seed.wrapping_add(i as u64));
            if name.ends_with("running_var") { 1.0 + 0.5 * noise } else { noise / (width as f32).sqrt() }
        };
        Ok((rows.start * width..rows.end * width).map(value).collect())
    }
}

/// -1 to 1 (splitmix64).
pub fn noise(i: u64) -> f32 {
    let mut x = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
