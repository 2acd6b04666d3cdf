//! Weights in the order and layout in which the kernels read them.
//!
//! Every matrix is `[line][depth][16]`: 16 output channels beside each other for each input. A pack
//! is written in pieces of whole lines, so that no tensor has to be in memory whole.

use std::ops::Range;

use ir::{SourceError, TensorSource, WeightId, Weights};
use kernels::LANES;
use kernels::library::lines;
use rayon::prelude::*;

/// A packed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub usize);

/// All packed weights in file order.
#[derive(Debug, Default)]
pub struct Packs {
    packs: Vec<Pack>,
    floats: usize,
}

/// A packed weight and its place.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The weight's node and role.
    pub name: String,
    /// Layout and source.
    pub kind: Kind,
    /// First float in the file's weights section.
    pub at: usize,
    /// Floats, whole lines.
    pub floats: usize,
}

/// Layouts.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `[outputs, depth]` to `[line][depth][16]`; with a gap, columns from `gap` on begin a new line
    /// of inputs.
    Matrix {
        /// The weight.
        weight: WeightId,
        /// Output channels.
        outputs: usize,
        /// Input channels.
        depth: usize,
        /// Channels of a plane of inputs that is padded to whole lines.
        gap: Option<usize>,
    },
    /// `[outputs, 3, 3, 3]` to `[line][row][column][channel][16]`.
    Stem {
        /// The weight.
        weight: WeightId,
        /// Output channels.
        outputs: usize,
    },
    /// `[multiplier * channels, 1, k, k]` to `[plane][line][k][k][16]`.
    Depthwise {
        /// The weight.
        weight: WeightId,
        /// Channels of a plane.
        channels: usize,
        /// Planes.
        multiplier: usize,
        /// Taps.
        taps: usize,
    },
    /// `[planes * channels]` to lines, each plane padded.
    Vector {
        /// The weight.
        weight: WeightId,
        /// Channels of a plane.
        channels: usize,
        /// Planes.
        planes: usize,
    },
    /// Values known while compiling.
    Table(Vec<f32>),
}

impl Packs {
    /// All packs in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Pack> {
        self.packs.iter()
    }

    /// Floats of one pack.
    pub fn floats(&self, id: PackId) -> usize {
        self.packs[id.0].floats
    }

    /// Byte offset of a pack in the weights section.
    pub fn offset(&self, id: PackId) -> usize {
        4 * self.packs[id.0].at
    }

    /// Floats of all packs.
    pub fn total(&self) -> usize {
        self.floats
    }

    /// Name of a pack.
    pub fn name(&self, id: PackId) -> &str {
        &self.packs[id.0].name
    }

    fn add(&mut self, name: &str, kind: Kind, floats: usize) -> PackId {
        // One weight in one layout is one pack: a tied head is the embedding.
        if let Some(known) = self.packs.iter().position(|p| p.kind == kind) {
            return PackId(known);
        }
        let floats = floats.next_multiple_of(LANES);
        self.packs.push(Pack { name: name.to_string(), kind, at: self.floats, floats });
        self.floats += floats;
        PackId(self.packs.len() - 1)
    }

    /// A matrix `[outputs, depth]`.
    pub fn matrix(&mut self, name: &str, weight: WeightId, outputs: usize, depth: usize, gap: Option<usize>) -> PackId {
        // Planes that fill their lines leave no gap.
        let gap = gap.filter(|g| !g.is_multiple_of(LANES));
        let physical = physical_depth(depth, gap);
        self.add(name, Kind::Matrix { weight, outputs, depth, gap }, lines(outputs) * physical * LANES)
    }

    /// The stem's first convolution.
    pub fn stem(&mut self, name: &str, weight: WeightId, outputs: usize) -> PackId {
        self.add(name, Kind::Stem { weight, outputs }, lines(outputs) * 27 * LANES)
    }

    /// A depthwise convolution.
    pub fn depthwise(
        &mut self,
        name: &str,
        weight: WeightId,
        channels: usize,
        multiplier: usize,
        kernel: usize,
    ) -> PackId {
        let taps = kernel * kernel;
        let floats = multiplier * lines(channels) * taps * LANES;
        self.add(name, Kind::Depthwise { weight, channels, multiplier, taps }, floats)
    }

    /// A vector.
    pub fn vector(&mut self, name: &str, weight: WeightId, channels: usize) -> PackId {
        self.planes(name, weight, channels, 1)
    }

    /// A vector of planes.
    pub fn planes(&mut self, name: &str, weight: WeightId, channels: usize, planes: usize) -> PackId {
        self.add(name, Kind::Vector { weight, channels, planes }, planes * lines(channels) * LANES)
    }

    /// Known values.
    pub fn table(&mut self, name: &str, values: Vec<f32>) -> PackId {
        let floats = values.len();
        self.add(name, Kind::Table(values), floats)
    }

    /// Evaluates all packs in order and hands their floats to `write`, piece by piece; `progress`
    /// gets the floats written so far.
    ///
    /// # Errors
    /// A tensor that cannot be read, or what `write` gives.
    pub fn write<E: From<SourceError>>(
        &self,
        weights: &Weights,
        source: &dyn TensorSource,
        write: &mut dyn FnMut(&[f32]) -> Result<(), E>,
        progress: &dyn Fn(usize),
    ) -> Result<(), E> {
        let pieces: Vec<(&Pack, Range<usize>)> =
            self.packs.iter().flat_map(|p| p.pieces().map(move |r| (p, r))).collect();
        let mut done = 0;
        for batch in pieces.chunks(BATCH) {
            let made: Vec<Result<Vec<f32>, SourceError>> =
                batch.par_iter().map(|(pack, units)| pack.piece(weights, source, units.clone())).collect();
            for floats in made {
                let floats = floats?;
                write(&floats)?;
                done += floats.len();
                progress(done);
            }
        }
        Ok(())
    }
}

/// Floats of a piece: small enough that the pieces of a batch stay far below the memory bound.
const PIECE: usize = 1 << 20;

/// Pieces evaluated at a time.
const BATCH: usize = 8;

fn physical_depth(depth: usize, gap: Option<usize>) -> usize {
    match gap {
        Some(plane) => depth.div_ceil(plane) * lines(plane) * LANES,
        None => depth,
    }
}

impl Pack {
    /// Lines of a unit-divisible layout, and floats of each.
    fn unit(&self) -> (usize, usize) {
        match &self.kind {
            Kind::Matrix { outputs, depth, gap, .. } => (lines(*outputs), physical_depth(*depth, *gap) * LANES),
            Kind::Stem { outputs, .. } => (lines(*outputs), 27 * LANES),
            Kind::Depthwise { .. } | Kind::Vector { .. } | Kind::Table(_) => (1, self.floats),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (units, floats) = self.unit();
        let step = (PIECE / floats.max(1)).max(1);
        (0..units).step_by(step).map(move |first| first..(first + step).min(units))
    }

    /// The floats of units `units`.
    fn piece(
        &self,
        weights: &Weights,
        source: &dyn TensorSource,
        units: Range<usize>,
    ) -> Result<Vec<f32>, SourceError> {
        let mut out = vec![0.0; units.len() * self.unit().1];
        match &self.kind {
            Kind::Matrix { weight, outputs, depth, gap } => {
                let rows = units.start * LANES..(units.end * LANES).min(*outputs);
                let values = weights.eval_rows(*weight, rows, source)?;
                let physical = physical_depth(*depth, *gap);
                transpose(&values, *depth, &mut out, physical, |c| match gap {
                    Some(plane) => c / plane * lines(*plane) * LANES + c % plane,
                    None => c,
                });
            }
            Kind::Stem { weight, outputs } => {
                let rows = units.start * LANES..(units.end * LANES).min(*outputs);
                let values = weights.eval_rows(*weight, rows, source)?;
                // Stored by channel, row, column; read by row, column, channel.
                transpose(&values, 27, &mut out, 27, |c| c % 9 * 3 + c / 9);
            }
            Kind::Depthwise { weight, channels, multiplier, taps } => {
                let values = weights.eval(*weight, source)?;
                for (o, taps_of) in values.chunks_exact(*taps).enumerate().take(multiplier * channels) {
                    let (plane, c) = (o / channels, o % channels);
                    let line = plane * lines(*channels) + c / LANES;
                    for (t, value) in taps_of.iter().enumerate() {
                        out[(line * taps + t) * LANES + c % LANES] = *value;
                    }
                }
            }
            Kind::Vector { weight, channels, planes } => {
                let values = weights.eval(*weight, source)?;
                for (o, value) in values.iter().enumerate().take(channels * planes) {
                    out[o / channels * lines(*channels) * LANES + o % channels] = *value;
                }
            }
            Kind::Table(values) => out[..values.len()].copy_from_slice(values),
        }
        Ok(out)
    }
}

/// Rows of `depth` values to lines of 16 rows; column `c` goes to `place(c)`.
fn transpose(values: &[f32], depth: usize, out: &mut [f32], physical: usize, place: impl Fn(usize) -> usize) {
    let places: Vec<usize> = (0..depth).map(|c| place(c) * LANES).collect();
    for (line, rows) in values.chunks(depth * LANES).enumerate() {
        let out = &mut out[line * physical * LANES..][..physical * LANES];
        for (lane, row) in rows.chunks_exact(depth).enumerate() {
            for (value, at) in row.iter().zip(&places) {
                out[at + lane] = *value;
            }
        }
    }
}
