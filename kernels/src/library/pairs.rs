//! Products of bytes whose instruction multiplies two rows with two output channels, eight bytes deep.
//!
//! Lines of weights stay as every target has them: two words of an output channel come side by side by zipping two lines, two
//! words of two rows by zipping their quads. Sums of two rows lie in two lines: low ones for the first two output channels of
//! every four, high ones for the others. Zipped by pairs they are the sums of each row.

use crate::build::Builder;
use crate::ir::{Op, Reg, Zip};

/// Words of a row that one quad has, in pairs.
pub(super) const TURNS: usize = 2;

/// The start of the sums of two rows, in both lines of theirs.
pub(super) fn start(k: &mut Builder, pair: usize, [first, second]: [Reg; 2]) -> Reg {
    k.bind(&format!("sums_{pair}"), Op::Zip(Zip::LowPairs, first, second))
}

/// The words of two rows that meet in turn 0 and in turn 1.
pub(super) fn rows(k: &mut Builder, pair: usize, [first, second]: [Reg; 2]) -> [Reg; TURNS] {
    let zip = |k: &mut Builder, zip: Zip, name: &str| k.bind(&format!("{name}_{pair}"), Op::Zip(zip, first, second));
    [zip(k, Zip::LowPairs, "front"), zip(k, Zip::HighPairs, "back")]
}

/// The words of the output channels of two following lines: for the low sums and for the high ones.
pub(super) fn weights(k: &mut Builder, line: usize, [first, second]: [Reg; 2]) -> [Reg; 2] {
    let zip = |k: &mut Builder, zip: Zip, name: &str| k.bind(&format!("{name}_{line}"), Op::Zip(zip, first, second));
    [zip(k, Zip::Low, "low"), zip(k, Zip::High, "high")]
}

/// The sums of each of two rows.
pub(super) fn apart(k: &mut Builder, [low, high]: [Reg; 2]) -> [Reg; 2] {
    [Zip::LowPairs, Zip::HighPairs].map(|zip| k.bind("total", Op::Zip(zip, low, high)))
}
