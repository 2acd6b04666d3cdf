//! The kernel library: every kernel written once, one file per kernel family.
//!
//! Conventions: activations are rows of `pitch` floats (channels padded to lines); matrices of
//! weights are `[line][depth][16]`, a line being 16 output channels, so that one panel order
//! serves every tile and every target. Region kernels end in the sizes `first` and `last`, the
//! units of work their thread takes.

pub mod attention;
pub mod cache;
pub mod choice;
pub mod columns;
pub mod conv;
pub mod depthwise;
pub mod elementwise;
pub mod gemm;
pub mod head;
pub mod integer;
pub mod linear;
pub mod matrix;
pub mod norm;
mod pairs;
pub mod quantize;
pub mod rope;
pub mod schedule;
pub mod softmax;
pub mod split;
pub mod squeeze_excite;
pub mod two_layer;

pub use choice::Choice;
pub use schedule::Schedule;

use crate::LANES;
use crate::ir::Elem;

/// How something is stored, where not as 32-bit floats, as part of a kernel's name.
fn stored(what: &str, elem: Elem) -> String {
    if elem == Elem::F32 { String::new() } else { format!("{what}_{}", elem.name()) }
}

/// Lines that hold `n` channels.
pub fn lines(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// Floats from one row of `n` channels to the next: whole lines, and never a multiple of 4 KB,
/// so that the rows of a register tile do not fall into one set of the first-level cache.
pub fn pitch(n: usize) -> usize {
    let floats = lines(n) * LANES;
    if floats.is_multiple_of(1024) { floats + LANES } else { floats }
}
