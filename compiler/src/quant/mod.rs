//! Weights as integers: the formats, and the search for the scales with the least error.
//!
//! Every function here takes the 16 output channels of one line, so that lines can be quantized
//! side by side. A result depends on the weights alone: sums have a fixed order, nothing is
//! contracted, and every vector width gives the same bits.

mod cpu;
mod int4;
mod int8;
mod line;
mod report;
mod split;

pub use int4::{dequantize_int4, int4, int4_words};
pub use int8::{dequantize_int8, int8, int8_words};
use kernels::LANES;
pub use line::NotFinite;
pub use report::{Entry, Format, Part, QUANTIZATION_NAME, Report, Sums, limit_db};
pub use split::{Low, dequantize_low, low, low_words};

/// What a quantized line has beside its words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    /// One scale per channel, not negative; a normal number or zero, and zero for a missing channel.
    pub scales: [f32; LANES],
    /// Squares of the weights and of their errors.
    pub sums: Sums,
}

#[cfg(test)]
mod tests {
    use super::cpu::Level;
    use super::int4::int4_at;
    use super::int8::int8_at;
    use super::*;

    type Quantize = fn(Level, &[f32], usize, Option<&[f32]>, &mut [u32]) -> Result<Scaled, NotFinite>;

    #[test]
    fn every_level_gives_the_same_second_half() {
        let depth = 200;
        let rows: Vec<f32> = (0..13 * depth).map(|i| ((i * i) as f32 * 0.37).sin().powi(3)).collect();
        let made = |level: Level| {
            let mut words = vec![0; low_words(depth)];
            let low = split::low_at(level, &rows, depth, &mut words).expect("finite weights");
            (words, low)
        };
        let first = made(Level::Plain);
        assert!(Level::all().all(|level| made(level) == first));
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let depth = 200;
        let rows: Vec<f32> = (0..13 * depth).map(|i| ((i * i) as f32 * 0.37).sin().powi(3)).collect();
        let importance: Vec<f32> = (0..depth).map(|k| 0.5 + (k % 7) as f32).collect();
        let formats: [(&str, Quantize, usize); 2] =
            [("int8", int8_at, int8_words(208)), ("int4", int4_at, int4_words(depth))];
        for (name, quantize, words) in formats {
            for importance in [None, Some(&importance[..])] {
                let results: Vec<_> = Level::all()
                    .map(|level| {
                        let mut words = vec![0; words];
                        let scaled = quantize(level, &rows, depth, importance, &mut words).expect("finite weights");
                        (words, scaled)
                    })
                    .collect();
                assert!(results.iter().all(|r| r == &results[0]), "{name}, importance {}", importance.is_some());
            }
        }
    }
}
