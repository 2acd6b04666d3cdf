//! Rows of signed bytes with a scale per block: what the integer products take.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, Kernel, Op, Ptr, ReduceOp, Reg, UnaryOp};
use crate::library::{lines, pitch};
use crate::math::{Exp, QuickGelu};

/// Channels of a group of 4-bit weights, which have one factor.
pub const GROUP: usize = 16;

/// Channels of a block of 4-bit weights: a line of factors and 16 lines of nibbles.
pub const BLOCK: usize = 128;

/// The least peak that is divided by: 127 over less than 3.8e-37 is no float. Blocks below it lose
/// levels, then become zero.
pub(super) const TINY: f32 = 1e-36;

/// Quantized rows: for each row its bytes, then a scale for each block, then sums.
///
/// `x ~ scale[block] * q`, q in -127..=127, rounded to the nearest. The sums are the zero points of
/// the weights times what the bytes add up to, negative: the value an integer sum starts from. For
/// 4-bit weights there is one for each group, then one for each block of weights expanded to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantRows {
    /// Channels.
    pub channels: usize,
    /// Channels that share a scale, a multiple of 16; the last block may be shorter.
    pub block: usize,
    /// Whether 4-bit weights follow: sums are by group and the last block is filled up with zeros.
    pub groups: bool,
}

impl QuantRows {
    /// Rows for a format of weights.
    pub fn new(channels: usize, block: usize, groups: bool) -> QuantRows {
        let block = if groups { BLOCK } else { block.min(lines(channels) * LANES) };
        QuantRows { channels, block, groups }
    }

    /// Channels as they lie in memory.
    pub fn physical(&self) -> usize {
        if self.groups { self.channels.next_multiple_of(BLOCK) } else { lines(self.channels) * LANES }
    }

    /// Blocks of a row.
    pub fn blocks(&self) -> usize {
        self.physical().div_ceil(self.block)
    }

    /// Words from a row's bytes to its scales.
    pub fn scales_at(&self) -> usize {
        self.physical() / 4
    }

    /// Words from a row's bytes to its sums.
    pub fn sums_at(&self) -> usize {
        self.scales_at() + self.blocks()
    }

    /// Words from a row's bytes to its sums by block, for weights of bytes.
    pub fn block_sums_at(&self) -> usize {
        self.sums_at() + self.group_sums()
    }

    fn group_sums(&self) -> usize {
        if self.groups { self.physical() / GROUP } else { 0 }
    }

    /// Words from one row to the next.
    pub fn pitch(&self) -> usize {
        pitch(self.block_sums_at() + self.blocks())
    }

    fn name(&self) -> String {
        let groups = if self.groups { "_groups" } else { "" };
        format!("{}_b{}{groups}", self.channels, self.block)
    }
}

/// What makes the values that are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The rows as they are.
    Plain,
    /// GELU of the rows, which is written over them.
    Gelu,
    /// `silu(gate) * up`; lines of gate and up alternate, the result is written over the first half
    /// of each pair.
    SwiGlu,
}

impl Source {
    /// Lines of the rows for each line of the result.
    pub fn width(self) -> usize {
        match self {
            Source::Plain | Source::Gelu => 1,
            Source::SwiGlu => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Source::Plain => "",
            Source::Gelu => "_gelu",
            Source::SwiGlu => "_swiglu",
        }
    }
}

/// The blocks that a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Whole blocks.
    pub whole: usize,
    /// Whether the last, short block of the rows follows.
    pub short: bool,
}

impl Span {
    /// All blocks of the rows.
    pub fn all(q: &QuantRows) -> Span {
        let short = !(lines(q.channels) * LANES).is_multiple_of(q.block);
        Span { whole: q.blocks() - usize::from(short), short }
    }
}

/// Quantizes rows, `ldx` floats apart; the parameter `block` is the first block in `to`.
///
/// Parameters: x, q, scales, sums, rows, block. `q`, `scales` and `sums` are views of one memory, at
/// the beginning, the scales and the sums of a row.
pub fn quantize(source: Source, ldx: usize, to: &QuantRows, span: Span) -> Rc<Kernel> {
    let (ldq, width) = (to.pitch(), source.width());
    let mut k = Builder::new(
        format!(
            "quantize{}_i8_{}x{}{}_a{ldx}",
            source.name(),
            to.name(),
            span.whole,
            if span.short { "_short" } else { "" }
        ),
        &[
            &format!("`q = round(x / scale)`, `scale = max(abs(x)) / 127` over {} channels.", to.block),
            "",
            &format!("Rows of `x` are {ldx} floats apart; rows of `q`, `scales` and `sums` {ldq} words."),
        ],
    );
    let x = if source == Source::Plain { k.read("x") } else { k.write("x") };
    let (q, scales, sums) = (k.write_i8("q"), k.write("scales"), k.write_u32("sums"));
    let (rows, block) = (k.size("rows"), k.size("block"));
    let gelu = (source == Source::Gelu).then(|| QuickGelu::new(&mut k));
    let exp = (source == Source::SwiGlu).then(|| Exp::new(&mut k));
    let zero = k.splat("zero", 0.0);
    let abs = k.bind("abs", Op::SplatBits(0x7fff_ffff));
    let tiny = k.splat("tiny", TINY);
    let levels = k.splat("levels", 127.0);
    let share = k.splat("share", 1.0 / 127.0);
    let per_block = to.block / LANES;
    let total = lines(to.channels);
    let one = |k: &mut Builder, i: &Int, b: Int, in_lines: usize, out_lines: usize| {
        let from = k.int("from", i.clone() * ldx + b.clone() * (per_block * width * LANES));
        let peak = k.bind_mut("peak", Op::Copy(zero));
        k.each("j", 0usize, in_lines, |k, j| {
            let at = k.int("at", from.clone() + j * (width * LANES));
            let v = k.load("v", x, at.clone());
            let v = match (&gelu, &exp) {
                (Some(f), _) => f.apply(k, v),
                (_, Some(f)) => {
                    let up = k.load("up", x, at.clone() + LANES);
                    let s = f.sigmoid(k, v, zero);
                    let g = k.mul("silu", v, s);
                    k.mul("gated", g, up)
                }
                _ => v,
            };
            if source != Source::Plain {
                k.store(x, at, v);
            }
            let bits = k.unary("bits", UnaryOp::BitsToInt, v);
            let bits = k.binary("bits", BinaryOp::And, bits, abs);
            let size = k.unary("size", UnaryOp::BitsToFloat, bits);
            k.set(peak, Op::Binary(BinaryOp::Max, peak, size));
        });
        let peak = k.reduce("peak", ReduceOp::Max, peak);
        let scale = k.mul("scale", peak, share);
        let bound = k.max("bound", peak, tiny);
        let inverse = k.div("inverse", levels, bound);
        let b = k.int("to_block", block.clone() + b);
        k.store_one(scales, i.clone() * ldq + b.clone(), scale);
        let bytes = k.int("bytes", i.clone() * (4 * ldq) + b.clone() * to.block);
        let sum = k.bind_mut("sum", Op::SplatBits(0));
        let group_sums = i.clone() * ldq + b.clone() * (to.block / GROUP);
        k.each("j", 0usize, in_lines, |k, j| {
            let v = k.load("v", x, from.clone() + j.clone() * (width * LANES));
            let v = k.mul("v", v, inverse);
            let n = k.unary("n", UnaryOp::RoundToInt, v);
            k.store(q, bytes.clone() + j.clone() * LANES, n);
            k.set(sum, Op::Binary(BinaryOp::AddInt, sum, n));
            if to.groups {
                // The zero point of a nibble is 8.
                let n = zero_share(k, n, 3);
                k.store_one(sums, group_sums.clone() + j, n);
            }
        });
        if in_lines < out_lines {
            let none = k.bind("none", Op::SplatBits(0));
            k.each("j", in_lines, out_lines, |k, j| {
                k.store(q, bytes.clone() + j.clone() * LANES, none);
                k.store_one(sums, group_sums.clone() + j, none);
            });
        }
        // The zero point of a byte is 64.
        let n = zero_share(k, sum, 6);
        k.store_one(sums, i.clone() * ldq + b + to.group_sums(), n);
    };
    let short = total % per_block;
    k.each("i", 0usize, rows, |k, i| {
        k.each("b", 0usize, span.whole, |k, b| one(k, &i, b, per_block, per_block));
        if span.short {
            let filled = if to.groups { per_block } else { short };
            one(k, &i, Int::from(span.whole), short, filled);
        }
    });
    k.finish()
}

/// The sum over the lanes of `n` times the zero point `2^bits`, negative.
fn zero_share(k: &mut Builder, n: Reg, bits: u32) -> Reg {
    let n = k.reduce("n", ReduceOp::AddInt, n);
    let n = k.bind("n", Op::ShiftLeft(n, bits));
    let none = k.bind("none", Op::SplatBits(0));
    k.binary("n", BinaryOp::SubInt, none, n)
}

/// Where quantized rows lie: a pointer and words, in memory of floats.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The memory.
    pub ptr: Ptr,
    /// First word.
    pub at: Int,
    /// Layout.
    pub rows: QuantRows,
}

/// Rows that are made in floats and quantized before the next ones: they stay in L1.
const CHUNK: usize = 24;

/// Emits `body(first row, rows)` for `n` rows, a few at a time.
pub fn each_chunk(k: &mut Builder, n: &Int, body: impl Fn(&mut Builder, Int, Int)) {
    if let Some(n) = n.constant() {
        let (full, rest) = (n as usize / CHUNK, n as usize % CHUNK);
        k.each("chunk", 0usize, full, |k, i| body(k, i * CHUNK, Int::from(CHUNK)));
        if rest > 0 {
            body(k, Int::from(full * CHUNK), Int::from(rest));
        }
        return;
    }
    k.each("chunk", 0usize, n.clone().div_ceil(CHUNK as i64), |k, i| {
        let first = k.int("chunk_row", i * CHUNK);
        let count = k.int("chunk_rows", (n.clone() - first.clone()).min(CHUNK));
        body(k, first, count);
    });
}

/// Rows that [`each_chunk`] gives at the most.
pub fn chunk(most: usize) -> usize {
    most.min(CHUNK)
}

impl Quantized {
    /// The rows from `row` on.
    pub fn from_row(&self, row: Int) -> Quantized {
        Quantized { at: self.at.clone() + row * self.rows.pitch(), ..self.clone() }
    }

    /// The arguments `q, scales, sums` of a kernel, `row` rows on; the sums by block for weights of
    /// `bytes`, else by group.
    pub fn arguments(&self, row: Int, bytes: bool) -> [Arg; 3] {
        let at = self.at.clone() + row * self.rows.pitch();
        let sums = if bytes { self.rows.block_sums_at() } else { self.rows.sums_at() };
        [
            (self.ptr, at.clone()).into(),
            (self.ptr, at.clone() + self.rows.scales_at()).into(),
            (self.ptr, at + sums).into(),
        ]
    }

    /// Emits the quantization of `n` rows of `x`: the blocks of `span` from block `first` on.
    pub fn fill(
        &self,
        k: &mut Builder,
        source: Source,
        (x, ldx): ((Ptr, Int), usize),
        n: Int,
        (first, span): (Int, Span),
    ) {
        let mut args: Vec<Arg> = vec![x.into()];
        args.extend(self.arguments(Int::from(0usize), false));
        args.extend([Arg::from(n), Arg::from(first)]);
        k.call(&quantize(source, ldx, &self.rows, span), args);
    }

    /// Emits the quantization of all channels of `n` rows.
    pub fn fill_all(&self, k: &mut Builder, source: Source, x: (Ptr, Int), n: Int) {
        let ldx = pitch(source.width() * lines(self.rows.channels) * LANES);
        self.fill(k, source, (x, ldx), n, (Int::from(0usize), Span::all(&self.rows)));
    }
}
