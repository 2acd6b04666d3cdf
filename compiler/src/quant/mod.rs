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

pub use int4::{BLOCK, GROUP, dequantize_int4, int4, int4_words};
pub use int8::{dequantize_int8, int8, int8_words};
use kernels::LANES;
pub use line::NotFinite;
pub use report::{Entry, Format, Part, QUANTIZATION_NAME, Report, Sums, limit_db};

/// What a quantized line has beside its words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    /// One scale per channel, not negative; a normal number or zero, and zero for a missing channel.
    pub scales: [f32; LANES],
    /// Squares of the weights and of their errors.
    pub sums: Sums,
}
