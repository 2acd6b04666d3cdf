//! Weights in the order and layout in which the kernels read them.
//!
//! Every matrix is `[line][depth][16]`: 16 output channels beside each other for each input. A
//! quantized one holds words of bytes or nibbles in that order and after them a scale for each
//! output channel. A pack is written in pieces of whole lines, so that no tensor has to be in memory
//! whole.

use std::ops::Range;

use ir::{SourceError, TensorSource, WeightId, WeightOp, Weights};
use kernels::LANES;
use kernels::library::lines;
use kernels::library::matrix::Format;
use rayon::prelude::*;

use crate::quant::{self, Entry, Scaled, Sums};

/// A packed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub usize);

/// All packed weights in file order.
#[derive(Debug, Default, PartialEq)]
pub struct Packs {
    packs: Vec<Pack>,
    floats: usize,
}

/// A packed weight and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// The weight's node and role.
    pub name: String,
    /// Layout and source.
    pub kind: Kind,
    /// First word in the file's weights section.
    pub at: usize,
    /// Words, whole lines.
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
        /// How it is stored.
        format: Format,
    },
    /// The second half of a matrix whose first is [`Format::Nibbles`]: `[outputs, depth]` to `[row][block][16]`.
    Low {
        /// The weight.
        weight: WeightId,
        /// Output channels.
        outputs: usize,
        /// Input channels.
        depth: usize,
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

    /// Words of one pack.
    pub fn floats(&self, id: PackId) -> usize {
        self.packs[id.0].floats
    }

    /// Byte offset of a pack in the weights section.
    pub fn offset(&self, id: PackId) -> usize {
        4 * self.packs[id.0].at
    }

    /// Words of all packs.
    pub fn total(&self) -> usize {
        self.floats
    }

    /// Words from the beginning of a quantized matrix to its scales.
    pub fn scales_at(&self, id: PackId) -> usize {
        let (lines, words) = self.packs[id.0].unit();
        lines * words
    }

    /// Words from the beginning of the second half of a matrix to the lengths of its rows.
    pub fn reach_at(&self, id: PackId) -> usize {
        self.scales_at(id) + self.packs[id.0].unit().0 * LANES
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
    pub fn matrix(
        &mut self,
        name: &str,
        weight: WeightId,
        (outputs, depth): (usize, usize),
        gap: Option<usize>,
        format: Format,
    ) -> PackId {
        // Planes that fill their lines leave no gap.
        let gap = gap.filter(|g| !g.is_multiple_of(LANES));
        let scales = if format == Format::F32 { 0 } else { lines(outputs) * LANES };
        let words = lines(outputs) * format.line_words(physical_depth(depth, gap)) + scales;
        self.add(name, Kind::Matrix { weight, outputs, depth, gap, format }, words)
    }

    /// What the nibbles of a matrix `[outputs, depth]` leave out: rows, their scales, their lengths.
    pub fn low(&mut self, name: &str, weight: WeightId, (outputs, depth): (usize, usize)) -> PackId {
        let words = lines(outputs) * (quant::low_words(depth) + 2 * LANES);
        self.add(name, Kind::Low { weight, outputs, depth }, words)
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

    /// Evaluates all packs in order and hands their words to `write`, piece by piece; `progress`
    /// gets the words written so far. Returns how each tensor is stored and what that cost it.
    ///
    /// # Errors
    /// A tensor that cannot be read, or what `write` gives.
    pub fn write<E: From<SourceError>>(
        &self,
        weights: &Weights,
        source: &dyn TensorSource,
        write: &mut dyn FnMut(&[u32]) -> Result<(), E>,
        progress: &dyn Fn(usize),
    ) -> Result<Vec<Entry>, E> {
        let pieces: Vec<(&Pack, Range<usize>)> =
            self.packs.iter().flat_map(|p| p.pieces().map(move |r| (p, r))).collect();
        let (mut done, mut entries) = (0, Vec::new());
        let (mut scales, mut reach, mut sums) = (Vec::new(), Vec::new(), Sums::default());
        for batch in pieces.chunks(BATCH) {
            let made: Vec<Result<Piece, SourceError>> =
                batch.par_iter().map(|(pack, units)| pack.piece(weights, source, units.clone())).collect();
            for ((pack, units), made) in batch.iter().zip(made) {
                let mut made = made?;
                for line in &made.scaled {
                    scales.extend(line.scales.map(f32::to_bits));
                    sums += line.sums;
                }
                reach.append(&mut made.reach);
                if units.end == pack.unit().0 {
                    made.words.append(&mut scales);
                    made.words.append(&mut reach);
                    entries.extend(self.entry(pack, std::mem::take(&mut sums)));
                }
                write(&made.words)?;
                done += made.words.len();
                progress(done);
            }
        }
        Ok(entries)
    }

    /// How a tensor is stored; that of one in two halves belongs to the second.
    fn entry(&self, pack: &Pack, sums: Sums) -> Option<Entry> {
        let (format, weights) = pack.stored()?;
        let of = |kind: &Kind| match kind {
            Kind::Matrix { weight, format: Format::Nibbles, .. } | Kind::Low { weight, .. } => Some(*weight),
            _ => None,
        };
        let is_low = |p: &Pack| matches!(p.kind, Kind::Low { .. });
        let other = |p: &&Pack| is_low(p) != is_low(pack) && of(&p.kind).is_some() && of(&p.kind) == of(&pack.kind);
        match (self.packs.iter().find(other), is_low(pack)) {
            (Some(_), false) => None,
            (Some(first), true) => {
                Some(Entry::new(&first.name, format, weights, 4 * (first.floats + pack.floats), sums))
            }
            (None, _) => Some(Entry::new(&pack.name, format, weights, 4 * pack.floats, sums)),
        }
    }
}

/// A part of a pack: whole lines, and what belongs to each quantized one.
struct Piece {
    words: Vec<u32>,
    scaled: Vec<Scaled>,
    /// Of a second half: the lengths of its rows.
    reach: Vec<u32>,
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

/// Where column `c` lies among the physical ones.
fn place(gap: Option<usize>, c: usize) -> usize {
    match gap {
        Some(plane) => c / plane * lines(plane) * LANES + c % plane,
        None => c,
    }
}

impl Pack {
    /// The format and number of the weights; none of what is added, and of tables.
    fn stored(&self) -> Option<(quant::Format, usize)> {
        match &self.kind {
            Kind::Matrix { outputs, depth, format, .. } => {
                let format = match format {
                    Format::F32 => quant::Format::F32,
                    Format::Bytes { .. } => quant::Format::Int8,
                    Format::Nibbles => quant::Format::Int4,
                };
                Some((format, outputs * depth))
            }
            Kind::Low { outputs, depth, .. } => Some((quant::Format::Int8Split, outputs * depth)),
            Kind::Stem { outputs, .. } => Some((quant::Format::F32, outputs * 27)),
            Kind::Depthwise { channels, multiplier, taps, .. } => {
                Some((quant::Format::F32, channels * multiplier * taps))
            }
            Kind::Vector { .. } | Kind::Table(_) => None,
        }
    }

    /// Lines of a unit-divisible layout, and words of each.
    fn unit(&self) -> (usize, usize) {
        match &self.kind {
            Kind::Matrix { outputs, depth, gap, format, .. } => {
                (lines(*outputs), format.line_words(physical_depth(*depth, *gap)))
            }
            Kind::Low { outputs, depth, .. } => (lines(*outputs), quant::low_words(*depth)),
            Kind::Stem { outputs, .. } => (lines(*outputs), 27 * LANES),
            Kind::Depthwise { .. } | Kind::Vector { .. } | Kind::Table(_) => (1, self.floats),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (units, floats) = self.unit();
        let step = (PIECE / floats.max(1)).max(1);
        (0..units).step_by(step).map(move |first| first..(first + step).min(units))
    }

    /// The words of units `units`.
    fn piece(&self, weights: &Weights, source: &dyn TensorSource, units: Range<usize>) -> Result<Piece, SourceError> {
        let rows = |outputs: usize| units.start * LANES..(units.end * LANES).min(outputs);
        let words = units.len() * self.unit().1;
        let named = |e| self.not_finite(e, weights);
        match &self.kind {
            Kind::Matrix { weight, outputs, depth, gap, format } => {
                let values = weights.eval_rows(*weight, rows(*outputs), source)?;
                let (depth, gap) = (*depth, *gap);
                match format {
                    Format::F32 => {
                        let physical = physical_depth(depth, gap);
                        Ok(floats(words, |out| transpose(&values, depth, out, physical, |c| place(gap, c))))
                    }
                    Format::Bytes { .. } => self.quantized(quant::int8, values, depth, gap, words).map_err(named),
                    Format::Nibbles => self.quantized(quant::int4, values, depth, gap, words).map_err(named),
                }
            }
            Kind::Low { weight, outputs, depth } => {
                let values = weights.eval_rows(*weight, rows(*outputs), source)?;
                self.second_half(&values, *depth, words).map_err(named)
            }
            Kind::Stem { weight, outputs } => {
                let values = weights.eval_rows(*weight, rows(*outputs), source)?;
                // Stored by channel, row, column; read by row, column, channel.
                Ok(floats(words, |out| transpose(&values, 27, out, 27, |c| c % 9 * 3 + c / 9)))
            }
            Kind::Depthwise { weight, channels, multiplier, taps } => {
                let values = weights.eval(*weight, source)?;
                Ok(floats(words, |out| {
                    for (o, taps_of) in values.chunks_exact(*taps).enumerate().take(multiplier * channels) {
                        let (plane, c) = (o / channels, o % channels);
                        let line = plane * lines(*channels) + c / LANES;
                        for (t, value) in taps_of.iter().enumerate() {
                            out[(line * taps + t) * LANES + c % LANES] = *value;
                        }
                    }
                }))
            }
            Kind::Vector { weight, channels, planes } => {
                let values = weights.eval(*weight, source)?;
                Ok(floats(words, |out| {
                    for (o, value) in values.iter().enumerate().take(channels * planes) {
                        out[place(Some(*channels), o)] = *value;
                    }
                }))
            }
            Kind::Table(values) => Ok(floats(words, |out| out[..values.len()].copy_from_slice(values))),
        }
    }

    /// Rows of `depth` values as `words` words of whole lines.
    fn quantized(
        &self,
        quantize: Quantize,
        values: Vec<f32>,
        depth: usize,
        gap: Option<usize>,
        words: usize,
    ) -> Result<Piece, quant::NotFinite> {
        let physical = physical_depth(depth, gap);
        let values = if gap.is_some() { spread(&values, depth, gap) } else { values };
        let mut words = vec![0; words];
        let made: Result<Vec<Scaled>, quant::NotFinite> = words
            .chunks_exact_mut(self.unit().1)
            .zip(values.chunks(physical * LANES))
            .map(|(words, rows)| quantize(rows, physical, None, words))
            .collect();
        Ok(Piece { words, scaled: made?, reach: Vec::new() })
    }

    /// What the nibbles of rows of `depth` values leave out, as `words` words of whole lines.
    fn second_half(&self, values: &[f32], depth: usize, words: usize) -> Result<Piece, quant::NotFinite> {
        let mut words = vec![0; words];
        let lines = words.chunks_exact_mut(self.unit().1).zip(values.chunks(depth * LANES));
        let made: Result<Vec<quant::Low>, quant::NotFinite> =
            lines.map(|(words, rows)| quant::low(rows, depth, words)).collect();
        let made = made?;
        let reach = made.iter().flat_map(|low| low.reach.map(f32::to_bits)).collect();
        Ok(Piece { words, scaled: made.into_iter().map(|low| low.scaled).collect(), reach })
    }

    /// The error by the checkpoint's names.
    fn not_finite(&self, e: quant::NotFinite, weights: &Weights) -> SourceError {
        let (Kind::Matrix { weight, .. } | Kind::Low { weight, .. }) = self.kind else {
            return SourceError::Read { name: self.name.clone(), reason: e.to_string() };
        };
        let (mut names, mut left) = (Vec::new(), vec![weight]);
        while let Some(node) = left.pop().and_then(|id| weights.get(id)) {
            match &node.op {
                WeightOp::Tensor { name } if names.contains(&name.as_str()) => {}
                WeightOp::Tensor { name } => names.push(name.as_str()),
                op => left.extend(op.operands()),
            }
        }
        SourceError::Read { name: names.join("\", \""), reason: e.to_string() }
    }
}

type Quantize = fn(&[f32], usize, Option<&[f32]>, &mut [u32]) -> Result<Scaled, quant::NotFinite>;

/// `words` floats, zeros where `fill` leaves them.
fn floats(words: usize, fill: impl FnOnce(&mut [f32])) -> Piece {
    let mut out = vec![0.0; words];
    fill(&mut out);
    Piece { words: out.into_iter().map(f32::to_bits).collect(), scaled: Vec::new(), reach: Vec::new() }
}

/// Rows of `depth` values with zeros between their planes.
fn spread(values: &[f32], depth: usize, gap: Option<usize>) -> Vec<f32> {
    let physical = physical_depth(depth, gap);
    let mut spread = vec![0.0; values.len() / depth * physical];
    for (from, to) in values.chunks_exact(depth).zip(spread.chunks_exact_mut(physical)) {
        for (c, v) in from.iter().enumerate() {
            to[place(gap, c)] = *v;
        }
    }
    spread
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
