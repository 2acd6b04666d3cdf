//! The numbers of a schedule one by one: why the model of the machine takes them, and what else could be.

use crate::LANES;
use crate::library::Schedule;
use crate::library::schedule::{L1, L2};
use crate::target::Target;

/// A number of a [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// [`Schedule::integer_tiles`].
    IntegerTiles,
    /// [`Schedule::nibble_lines`].
    NibbleLines,
    /// [`Schedule::byte_lines`].
    ByteLines,
    /// [`Schedule::ahead`].
    Ahead,
    /// [`Schedule::tile`].
    Tile,
    /// [`Schedule::vector_lines`].
    VectorLines,
    /// [`Schedule::depth_block`].
    DepthBlock,
    /// [`Schedule::depthwise`] and [`Schedule::depthwise_weights_in_registers`].
    Depthwise,
    /// [`Schedule::strip_bytes`].
    StripBytes,
}

impl Choice {
    /// All of them.
    pub const ALL: [Choice; 9] = [
        Choice::IntegerTiles,
        Choice::NibbleLines,
        Choice::ByteLines,
        Choice::Ahead,
        Choice::Tile,
        Choice::VectorLines,
        Choice::DepthBlock,
        Choice::Depthwise,
        Choice::StripBytes,
    ];

    /// What it is, in words.
    pub fn name(self) -> &'static str {
        match self {
            Choice::IntegerTiles => "tile of quantized rows",
            Choice::NibbleLines => "lines of 4-bit weights at once, one row",
            Choice::ByteLines => "lines of 8-bit weights at once, one row",
            Choice::Ahead => "bytes asked ahead of weights, one row",
            Choice::Tile => "tile of float rows",
            Choice::VectorLines => "lines of float weights at once, one row",
            Choice::DepthBlock => "depth of a block of floats",
            Choice::Depthwise => "outputs of a depthwise tile",
            Choice::StripBytes => "bytes of a widened strip of floats",
        }
    }

    /// The number in a schedule.
    pub fn value(self, s: &Schedule) -> String {
        let lines = |(rows, lines): (usize, usize)| format!("{rows} x {}", lines * LANES);
        match self {
            Choice::IntegerTiles if s.integer_tiles[0] == s.integer_tiles[1] => lines(s.integer_tiles[0]),
            Choice::IntegerTiles => format!("{}, else {}", lines(s.integer_tiles[0]), lines(s.integer_tiles[1])),
            Choice::NibbleLines => s.nibble_lines.to_string(),
            Choice::ByteLines => s.byte_lines.to_string(),
            Choice::Ahead => s.ahead.to_string(),
            Choice::Tile => lines(s.tile),
            Choice::VectorLines => s.vector_lines.to_string(),
            Choice::DepthBlock => s.depth_block.to_string(),
            Choice::Depthwise if s.depthwise_weights_in_registers => format!("{}, weights in registers", s.depthwise),
            Choice::Depthwise => format!("{}, weights from memory", s.depthwise),
            Choice::StripBytes => s.strip_bytes.to_string(),
        }
    }

    /// Why the model of the machine takes this number.
    pub fn reason(self, s: &Schedule, target: &dyn Target) -> String {
        let (parts, registers) = (LANES / target.lanes(), target.registers());
        match self {
            Choice::IntegerTiles => {
                let (rows, lines) = s.integer_tiles[0];
                let sums = rows * lines * parts;
                format!(
                    "{sums} sums in flight hide the dot product's latency; with weights {} of {registers} registers",
                    sums + lines * parts + 1
                )
            }
            Choice::NibbleLines | Choice::ByteLines => {
                "one line after the other is one stream of memory, which is read fastest".to_string()
            }
            Choice::Ahead => {
                "prefetchers of the hardware stop at pages of 4 KB; this has the next one under way".to_string()
            }
            Choice::Tile => {
                let (rows, lines) = s.tile;
                let used = rows * lines * parts + lines * parts + 1;
                format!("sums, a row of the panel and a broadcast take {used} of {registers} registers")
            }
            Choice::VectorLines => {
                format!("{} sums of {registers} registers, each line a stream", s.vector_lines * parts)
            }
            Choice::DepthBlock => format!(
                "a panel of {} channels takes {} of {L1} bytes of L1",
                s.tile.1 * LANES,
                s.depth_block * s.tile.1 * LANES * 4
            ),
            Choice::Depthwise => {
                let sums = s.depthwise * parts;
                if s.depthwise_weights_in_registers && sums + 8 * parts >= registers {
                    format!("each pixel is loaded once; sums and weights spill from {registers} registers either way")
                } else if s.depthwise_weights_in_registers {
                    format!("{sums} sums, {} weights of a kernel row and a pixel fit {registers} registers", 7 * parts)
                } else {
                    format!("{sums} sums leave no room for {} weights in {registers} registers", 7 * parts)
                }
            }
            Choice::StripBytes => format!("half of an L2 of {L2} bytes, the other half for weights and rows"),
        }
    }

    /// Schedules that differ from `s` in this number, for a target to choose from by measuring.
    pub fn candidates(self, s: &Schedule, target: &dyn Target) -> Vec<Schedule> {
        let (parts, registers) = (LANES / target.lanes(), target.registers());
        let fits = |&(rows, lines): &(usize, usize)| rows * lines * parts + lines * parts + 1 < registers;
        let with = |change: &dyn Fn(&mut Schedule)| {
            let mut other = *s;
            change(&mut other);
            other
        };
        let all: Vec<Schedule> = match self {
            Choice::IntegerTiles => [
                [(4, 3), (3, 4)],
                [(6, 2), (6, 2)],
                [(8, 2), (8, 2)],
                [(4, 4), (4, 4)],
                [(8, 3), (6, 4)],
                [(12, 1), (12, 1)],
                [(6, 1), (6, 1)],
                [(5, 1), (5, 1)],
                [(4, 1), (4, 1)],
                [(3, 2), (3, 2)],
                [(2, 2), (2, 2)],
            ]
            .into_iter()
            .filter(|tiles| tiles.iter().all(fits))
            // Fewer sums than this wait for each other.
            .filter(|tiles| tiles.iter().all(|(rows, lines)| rows * lines * parts >= 8))
            .map(|tiles| with(&|s| s.integer_tiles = tiles))
            .collect(),
            Choice::NibbleLines => [1, 2, 4].iter().map(|&n| with(&|s| s.nibble_lines = n)).collect(),
            Choice::ByteLines => [1, 2, 4].iter().map(|&n| with(&|s| s.byte_lines = n)).collect(),
            Choice::Ahead => [0, 4 << 10, 8 << 10, 16 << 10].iter().map(|&n| with(&|s| s.ahead = n)).collect(),
            Choice::Tile => [(8, 3), (6, 4), (12, 2), (4, 6), (8, 2), (6, 1), (5, 1), (3, 2), (2, 2), (4, 1)]
                .into_iter()
                .filter(fits)
                .filter(|(rows, lines)| rows * lines * parts >= 8)
                .map(|tile| with(&|s| s.tile = tile))
                .collect(),
            Choice::VectorLines => [1, 2, 4, 8].iter().map(|&n| with(&|s| s.vector_lines = n)).collect(),
            Choice::DepthBlock => [s.depth_block / 2, s.depth_block * 2, s.depth_block * 4]
                .into_iter()
                .map(|n| with(&|s| s.depth_block = n.next_multiple_of(16)))
                .collect(),
            Choice::Depthwise => [2, 4, 6, 8]
                .iter()
                .flat_map(|&n| {
                    [true, false].map(|kept| {
                        with(&|s| {
                            s.depthwise = n;
                            s.depthwise_weights_in_registers = kept;
                        })
                    })
                })
                .collect(),
            Choice::StripBytes => [L2 / 8, L2 / 4, L2 / 2, L2].iter().map(|&n| with(&|s| s.strip_bytes = n)).collect(),
        };
        all.into_iter().filter(|other| other != s).collect()
    }

    /// Takes this number from another schedule.
    pub fn take(self, s: &mut Schedule, from: &Schedule) {
        match self {
            Choice::IntegerTiles => s.integer_tiles = from.integer_tiles,
            Choice::NibbleLines => s.nibble_lines = from.nibble_lines,
            Choice::ByteLines => s.byte_lines = from.byte_lines,
            Choice::Ahead => s.ahead = from.ahead,
            Choice::Tile => s.tile = from.tile,
            Choice::VectorLines => s.vector_lines = from.vector_lines,
            Choice::DepthBlock => s.depth_block = from.depth_block,
            Choice::Depthwise => {
                s.depthwise = from.depthwise;
                s.depthwise_weights_in_registers = from.depthwise_weights_in_registers;
            }
            Choice::StripBytes => s.strip_bytes = from.strip_bytes,
        }
    }
}

impl Schedule {
    /// What makes this no schedule that kernels can be built with in reasonable size, if anything: schedules may come
    /// from files.
    pub fn fault(&self) -> Option<String> {
        let tile = |(rows, lines): (usize, usize)| (1..=16).contains(&rows) && (1..=8).contains(&lines);
        let lines = |n: usize| (1..=16).contains(&n);
        let checks = [
            (Choice::IntegerTiles, self.integer_tiles.into_iter().all(tile), "up to 16 rows and 8 lines"),
            (Choice::NibbleLines, lines(self.nibble_lines), "1 to 16"),
            (Choice::ByteLines, lines(self.byte_lines), "1 to 16"),
            (Choice::Ahead, self.ahead <= 1 << 20, "at most 1 MB"),
            (Choice::Tile, tile(self.tile), "up to 16 rows and 8 lines"),
            (Choice::VectorLines, lines(self.vector_lines), "1 to 16"),
            (
                Choice::DepthBlock,
                self.depth_block.is_multiple_of(16) && (16..=1 << 16).contains(&self.depth_block),
                "a multiple of 16 up to 65536",
            ),
            (Choice::Depthwise, lines(self.depthwise), "1 to 16"),
            (Choice::StripBytes, (1 << 10..=1 << 30).contains(&self.strip_bytes), "1 KB to 1 GB"),
        ];
        let (choice, _, expected) = checks.into_iter().find(|(_, good, _)| !good)?;
        Some(format!("{}: found {}, expected {expected}", choice.name(), choice.value(self)))
    }
}
