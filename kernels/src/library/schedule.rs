//! Tile and strip sizes from a model of the machine.

use crate::LANES;
use crate::ir::{Op, Reg};
use crate::target::{Dots, Target};

/// The numbers the kernels are built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Rows and lines of a matrix product's register tile.
    pub tile: (usize, usize),
    /// Lines of a matrix-vector product's register tile.
    pub vector_lines: usize,
    /// Rows and lines of the register tiles of quantized products; the first one whose lines divide
    /// the matrix is taken.
    pub integer_tiles: [(usize, usize); 2],
    /// Lines of the register tile of a product of one row and weights of bytes. One line after the
    /// other is one stream of memory, which is read faster than several.
    pub byte_lines: usize,
    /// Lines of the register tile of a product of one row and 4-bit weights.
    pub nibble_lines: usize,
    /// Whether products of 4-bit weights are added up in halves of lanes first; of the target, and not measured.
    pub nibbles_in_halves: bool,
    /// What dot products take of rows; of the target, and not measured.
    pub dots: Dots,
    /// Bytes from weights that a product of one row reads to those it asks for; 0 asks for none.
    pub ahead: usize,
    /// Depth of a block of a matrix product: a panel of the tile's lines stays in L1.
    pub depth_block: usize,
    /// Outputs of a depthwise convolution's register tile along a row.
    pub depthwise: usize,
    /// Whether the weights of a kernel row stay in registers while a depthwise tile is computed.
    pub depthwise_weights_in_registers: bool,
    /// Bytes a strip's widened tensor may take: a share of L2.
    pub strip_bytes: usize,
}

/// First-level data cache the model assumes, bytes: the smallest of the CPUs of a level.
pub(super) const L1: usize = 32 << 10;
/// Second-level cache the model assumes, bytes.
pub(super) const L2: usize = 1 << 20;

/// Bytes of a page of memory.
const PAGE: usize = 4 << 10;

impl Schedule {
    /// The schedule for a target.
    pub fn new(target: &dyn Target) -> Schedule {
        let parts = LANES / target.lanes();
        let registers = target.registers();
        // Accumulators, one line of the panel per column and one broadcast; one register is free.
        let tile = match (parts, registers) {
            (1, 32) => (8, 3),
            (2, 16) => (6, 1),
            (4, 32) => (6, 1),
            (4, 0..32) => (2, 1),
            _ => (((registers - 1 - parts) / (parts + 1)).clamp(1, 4), 1),
        };
        // Twice the accumulators: integers, and floats that are added to once per block. Those spill
        // where registers are few.
        // A dot instruction answers after five cycles and two begin in each: ten sums keep it busy.
        let integer_tiles = match parts {
            1 => [(4, 3), (3, 4)],
            2 if target.supports(&Op::Dot(Reg(0), Reg(0), Reg(0))) => [(6, 1), (6, 1)],
            // Sums spill whatever the tile; weights that meet many rows make up for it, as long as the dot product is what takes
            // the time.
            4 if registers < 32 && target.supports(&Op::Dot(Reg(0), Reg(0), Reg(0))) => [(5, 1), (5, 1)],
            4 if registers < 32 => [(6, 1), (6, 1)],
            _ => match target.dots() {
                Dots::Words => [(4, 1), (4, 1)],
                // Twenty sums, a line of weights and four words of each row are 29 registers.
                Dots::Lanes => [(5, 1), (5, 1)],
                // Sixteen sums, four words of two pairs of rows, and a line of weights twice. Six rows would need a third fewer zips for
                // each product, but LLVM keeps 23 of their values on the stack.
                Dots::Pairs => [(4, 1), (4, 1)],
            },
        };
        // Few registers spill either way: then each pixel is loaded once.
        let few = parts == 4 && registers < 32;
        let depthwise = if few { 4 } else { ((registers / 2) / parts).clamp(2, 8) };
        // One line after the other is one stream of memory; where few registers hold a quarter of a line each, sums of bytes want
        // more.
        let byte_lines = if few { 4 } else { 1 };
        Schedule {
            tile,
            vector_lines: (registers / 4 / parts).max(1).next_power_of_two().min(8),
            integer_tiles,
            byte_lines,
            nibble_lines: 1,
            nibbles_in_halves: target.adds_in_halves(),
            dots: target.dots(),
            // The hardware's prefetchers stop at pages of 4 KB: asking two pages ahead has their next one under way.
            ahead: 2 * PAGE,
            depth_block: (L1 * 3 / 4 / (tile.1 * LANES * 4)).next_multiple_of(16),
            depthwise,
            depthwise_weights_in_registers: few || depthwise * parts + 7 * parts + parts < registers,
            strip_bytes: L2 / 2,
        }
    }
    /// The tile of a quantized product with `lines` lines.
    pub fn integer_tile(&self, lines: usize) -> (usize, usize) {
        self.integer_tiles.into_iter().find(|t| lines.is_multiple_of(t.1)).unwrap_or(self.integer_tiles[0])
    }
}
