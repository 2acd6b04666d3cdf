//! A head in two halves: all rows by the first one, the few that can win by both.
//!
//! A weight is the nibble of [`Format::Nibbles`](super::matrix::Format), whose scales leave the least error, and
//! another nibble for that error: `w = scale * g * q + low_scale * p`. A logit is `high + low`, each a sum in floats
//! times its scale, added last.
//!
//! The largest logit needs the second half of few rows. By Cauchy and Schwarz `|low|` is at most the length of the
//! row's second half, which is stored ([`REACH`]), times that of the activations. Whichever row is taken, its logit
//! is a lower bound of the largest one, and a row whose `high` and bound stay below it cannot be the largest, nor
//! equal to it. Both lengths are rounded up far enough to cover the rounding of the sums.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, CompareOp, Kernel, Op, Ptr, ReduceOp, Reg, UnaryOp};
use crate::library::gemm::Init;
use crate::library::integer::{nibbles, scaled};
use crate::library::linear::{Norm, normalize};
use crate::library::matrix::{Format, Left, Matrix, Rest};
use crate::library::quantize::{BLOCK, QuantRows, Quantized, Source};
use crate::library::{Schedule, head, lines, pitch};

/// The length of a row's second half is stored so much larger: it covers the rounding of `low`, whose sums
/// have a term for each block and lane, as does [`SLACK`].
pub const REACH: f32 = 1.0 + 1.0 / 4096.0;

/// The length of the activations is so much larger.
const SLACK: f32 = 1.0 + 1.0 / 1024.0;

/// Added to every bound: above all that is lost where floats are not normal numbers.
const TINY: f32 = 1e-30;

/// A head of `inputs` channels and `vocab` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Input channels.
    pub inputs: usize,
    /// Rows.
    pub vocab: usize,
}

impl Split {
    fn rows(&self) -> QuantRows {
        QuantRows::new(self.inputs, 0, true)
    }

    fn blocks(&self) -> usize {
        self.rows().blocks()
    }

    /// Words of a row of the second half: a line for each block. Byte `b` of lane `l` has input `4 l + b` in its
    /// low nibble and input `64 + 4 l + b` in its high one, each more by 8.
    pub fn low_words(&self) -> usize {
        self.blocks() * LANES
    }

    /// Words from a prepared row to what its sums with the second half start from.
    fn starts_at(&self) -> usize {
        self.rows().pitch()
    }

    /// Words from a prepared row to its length.
    fn length_at(&self) -> usize {
        self.starts_at() + self.blocks() * LANES
    }

    /// Words of a prepared row.
    pub fn row_words(&self) -> usize {
        self.length_at() + LANES
    }

    /// Floats of scratch of [`row`].
    pub fn row_scratch(&self) -> usize {
        pitch(self.inputs)
    }

    fn name(&self) -> String {
        format!("{}x{}", self.inputs, self.vocab)
    }

    fn left(&self, q: Ptr) -> Left {
        Left::Quantized(Quantized { ptr: q, at: Int::from(0usize), rows: self.rows() })
    }
}

/// Normalizes and quantizes one row for the head. Parameters: x, [gain], q, scratch, [row], first, last (one unit).
///
/// `q` takes [`Split::row_words`]: the quantized row, for each block and lane minus the zero points' share, and the
/// row's length.
pub fn row(h: &Split, norm: Norm, any_row: bool) -> Rc<Kernel> {
    let row_name = if any_row { "_row" } else { "" };
    let ldx = pitch(h.inputs);
    let mut k = Builder::new(
        format!("{}split{row_name}_{}", norm.name(), h.inputs),
        &[
            "One row as the two halves of a head take it: quantized, with zero shares and its length.",
            "",
            &format!("`x` has rows {ldx} floats apart, `q` is {} words.", h.row_words()),
        ],
    );
    let x = k.read("x");
    let gain = norm.has_gain().then(|| k.read("gain"));
    let (q, scratch) = (k.write("q"), k.write("scratch"));
    let row = if any_row { k.size("row") } else { Int::from(0usize) };
    let (first, last) = (k.size("first"), k.size("last"));
    let h = *h;
    k.if_less(
        first,
        last,
        |k| {
            let one = Int::from(1usize);
            let normed = normalize(k, norm, h.inputs, (x, row * ldx), gain, scratch, one.clone());
            let rows = Quantized { ptr: q, at: Int::from(0usize), rows: h.rows() };
            rows.fill_all(k, Source::Plain, normed, one);
            let at = |n: usize| Arg::from((q, Int::from(n)));
            let args = vec![at(0), at(0), at(h.rows().scales_at()), at(h.starts_at()), at(h.length_at())];
            k.call(&starts(h.blocks()), args);
        },
        |_| {},
    );
    k.finish()
}

/// Parameters: words, bytes (two views of one memory), scales, starts, length.
fn starts(blocks: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("split_starts_{blocks}"),
        &[
            "Of a quantized row: for each block and lane, minus 8 times the sum of the eight bytes that meet the",
            "lane's nibbles, and the length of the row, rounded up.",
        ],
    );
    let (words, bytes, scales) = (k.read_u32("words"), k.read_i8("bytes"), k.read("scales"));
    let (starts, length) = (k.write_u32("starts"), k.write("length"));
    let none = k.bind("none", Op::SplatBits(0));
    let zero = k.bind("zero", Op::SplatBits(0x0808_0808));
    let tiny = k.splat("tiny", f32::MIN_POSITIVE);
    let most = k.bind_mut("most", Op::Copy(tiny));
    k.each("b", 0usize, blocks, |k, b| {
        let scale = k.broadcast("scale", scales, b);
        k.set(most, Op::Binary(BinaryOp::Max, most, scale));
    });
    // Squares of the scales alone could be no normal numbers.
    let total = k.bind_mut("total", Op::Splat(0.0));
    k.each("b", 0usize, blocks, |k, b| {
        let at = k.int("at", b.clone() * (BLOCK / 4));
        let low = k.load("low", words, at.clone());
        let high = k.load("high", words, at + LANES);
        let sum = k.bind("sum", Op::Dot(zero, low, none));
        let sum = k.bind("sum", Op::Dot(zero, high, sum));
        let start = k.binary("start", BinaryOp::SubInt, none, sum);
        k.store(starts, b.clone() * LANES, start);
        let squares = k.bind_mut("squares", Op::SplatBits(0));
        k.each("i", 0usize, BLOCK / LANES, |k, i| {
            let v = k.load("v", bytes, b.clone() * BLOCK + i * LANES);
            let v = k.binary("v", BinaryOp::MulInt, v, v);
            k.set(squares, Op::Binary(BinaryOp::AddInt, squares, v));
        });
        // Below 2^24, so exact.
        let squares = k.reduce("squares", ReduceOp::AddInt, squares);
        let squares = k.unary("squares", UnaryOp::ToFloat, squares);
        let scale = k.broadcast("scale", scales, b);
        let share = k.div("share", scale, most);
        let squares = k.mul("squares", squares, share);
        let squares = k.mul("squares", squares, share);
        k.set(total, Op::Binary(BinaryOp::Add, total, squares));
    });
    let root = k.unary("root", UnaryOp::Sqrt, total);
    let slack = k.splat("slack", SLACK);
    let root = k.mul("root", root, slack);
    let all = k.mul("all", root, most);
    k.store_one(length, 0usize, all);
    k.finish()
}

/// `y = high + low_scale * (q . row)` of one row of the second half. Parameters: q, scales, starts, low, low_scale,
/// high, y. The lanes add up over the blocks in floats, then with each other.
fn low_row(blocks: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("split_low_u4s8_{blocks}"),
        &[
            "`y = high + low_scale * sum`, the sum over one row of the second half.",
            "",
            &format!("`low` is `[{blocks}, 16]` words: a lane has inputs 4 l in low and 64 + 4 l in high nibbles."),
        ],
    );
    let (q, scales, starts) = (k.read_u32("q"), k.read("scales"), k.read_u32("starts"));
    let (low, low_scale, high, y) = (k.read_u32("low"), k.read("low_scale"), k.read("high"), k.write("y"));
    let mask = k.bind("mask", Op::SplatBits(0x0f0f_0f0f));
    let sum = k.bind_mut("sum", Op::Splat(0.0));
    k.each("b", 0usize, blocks, |k, b| {
        let n = k.load("n", low, b.clone() * LANES);
        let parts = nibbles(k, n, mask);
        let mut acc = k.load("start", starts, b.clone() * LANES);
        for (half, part) in parts.into_iter().enumerate() {
            let a = k.load("a", q, b.clone() * (BLOCK / 4) + half * LANES);
            acc = k.bind("acc", Op::Dot(part, a, acc));
        }
        let scale = k.broadcast("scale", scales, b);
        scaled(k, sum, acc, scale);
    });
    let sum = k.reduce("sum", ReduceOp::Add, sum);
    let scale = k.broadcast("scale", low_scale, 0usize);
    let sum = k.mul("sum", sum, scale);
    let high = k.broadcast("high", high, 0usize);
    let out = k.add("out", high, sum);
    k.store_one(y, 0usize, out);
    k.finish()
}

/// Where the operands of [`low_row`] begin.
struct Low {
    h: Split,
    q: Ptr,
    low: Ptr,
    low_scale: Ptr,
}

impl Low {
    fn declare(k: &mut Builder, h: &Split) -> Low {
        Low { h: *h, q: k.read("q"), low: k.read_u32("low"), low_scale: k.read("low_scale") }
    }

    /// `y = logit` of row `id`, whose first half is in `high`.
    fn logit(&self, k: &mut Builder, id: Int, high: Ptr, y: (Ptr, Int)) {
        let at = |n: usize| Arg::from((self.q, Int::from(n)));
        let args = vec![
            at(0),
            at(self.h.rows().scales_at()),
            at(self.h.starts_at()),
            (self.low, id.clone() * self.h.low_words()).into(),
            (self.low_scale, id.clone()).into(),
            (high, id).into(),
            y.into(),
        ];
        k.call(&low_row(self.h.blocks()), args);
    }
}

/// Registers that bounds are made of.
struct Bounds {
    vocab: usize,
    lane: Reg,
    count: Reg,
    lowest: Reg,
    infinite: Reg,
    length: Reg,
    tiny: Reg,
}

impl Bounds {
    fn new(k: &mut Builder, h: &Split, q: Ptr) -> Bounds {
        Bounds {
            vocab: h.vocab,
            lane: k.bind("lane", Op::Iota(0)),
            count: k.bind("count", Op::SplatInt(Int::from(h.vocab))),
            lowest: k.splat("lowest", f32::NEG_INFINITY),
            infinite: k.splat("infinite", f32::INFINITY),
            length: k.broadcast("length", q, h.length_at()),
            tiny: k.splat("tiny", TINY),
        }
    }

    /// Minus infinity behind the vocabulary.
    fn inside(&self, k: &mut Builder, j: Int, v: Reg) -> Reg {
        if self.vocab.is_multiple_of(LANES) {
            return v;
        }
        let base = k.bind("base", Op::SplatInt(j * LANES));
        let index = k.binary("index", BinaryOp::AddInt, self.lane, base);
        let valid = k.compare("valid", CompareOp::LessInt, index, self.count);
        k.select("v", valid, v, self.lowest)
    }

    /// What the logits of line `j` are at most; infinite for what is no number.
    fn most(&self, k: &mut Builder, j: Int, high: Reg, reach: Ptr) -> Reg {
        let reach = k.load("reach", reach, j.clone() * LANES);
        let low = k.mul("low", reach, self.length);
        let low = k.add("low", low, self.tiny);
        let most = k.add("most", high, low);
        let finite = k.compare("finite", CompareOp::Less, most, self.infinite);
        let most = k.select("most", finite, most, self.infinite);
        self.inside(k, j, most)
    }

    /// A line without what is no number.
    fn numbers(&self, k: &mut Builder, j: Int, v: Reg) -> Reg {
        let number = k.compare("number", CompareOp::Less, self.lowest, v);
        let v = k.select("v", number, v, self.lowest);
        self.inside(k, j, v)
    }
}

/// Lines whose bounds are made after their products.
const CHUNK: usize = 16;

/// The first half of all logits, and for each line the largest of them and the largest bound. Parameters: q, w,
/// w_scale, reach, high, best, top, first, last (lines).
pub fn screen(s: &Schedule, h: &Split) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("split_screen_{}", h.name()),
        &[
            "The first half of the logits of lines `first..last`, the largest of each line, and what its logits",
            "are at most.",
            "",
            &format!(
                "`w` is `[{}, {}, 17, 16]` words, `reach` and `high` are `[{}]`.",
                lines(h.vocab),
                h.blocks(),
                h.vocab
            ),
        ],
    );
    let q = k.read("q");
    let w = Matrix::declare(&mut k, "w", Format::Nibbles, h.inputs);
    let reach = k.read("reach");
    let (high, best, top) = (k.write("high"), k.write("best"), k.write("top"));
    let (first, last) = (k.size("first"), k.size("last"));
    let bounds = Bounds::new(&mut k, h, q);
    let left = h.left(q);
    k.each("chunk", 0usize, (last.clone() - first.clone()).div_ceil(CHUNK as i64), |k, chunk| {
        let from = k.int("from", first + chunk * CHUNK);
        let to = k.int("to", (from.clone() + CHUNK).min(last));
        let rest = Rest {
            line: Int::from(0usize),
            bias: None,
            residual: None,
            c: (high, Int::from(0usize)),
            ldc: pitch(h.vocab),
        };
        w.vector(k, s, &left, Init::Zero, (from.clone(), to.clone()), rest);
        k.each("line", from, to, |k, j| {
            let v = k.load("v", high, j.clone() * LANES);
            let most = bounds.most(k, j.clone(), v, reach);
            let most = k.reduce("most", ReduceOp::Max, most);
            k.store_one(top, j.clone(), most);
            let v = bounds.numbers(k, j.clone(), v);
            let v = k.reduce("v", ReduceOp::Max, v);
            k.store_one(best, j, v);
        });
    });
    k.finish()
}

/// Floats of scratch of [`rescore`].
pub const RESCORE_SCRATCH: usize = 4 * LANES;

/// The logits of lines `first..last` that may be the largest, minus infinity for all others. Parameters: q, low,
/// low_scale, reach, high, best, top, y, scratch, first, last.
///
/// Every thread finds the bound for itself: the largest logit of the line with the largest first half.
pub fn rescore(h: &Split) -> Rc<Kernel> {
    let n_lines = lines(h.vocab);
    let mut k = Builder::new(
        format!("split_rescore_{}", h.name()),
        &[
            "The logits of lines `first..last` that may be the largest of all; minus infinity for the others.",
            "",
            &format!("`low` is `[{}, {}, 16]` words, `best` and `top` are `[{n_lines}]`.", n_lines * LANES, h.blocks()),
        ],
    );
    let low = Low::declare(&mut k, h);
    let (reach, high) = (k.read("reach"), k.read("high"));
    let (best, top) = (k.read("best"), k.read("top"));
    let (y, scratch) = (k.write("y"), k.write("scratch"));
    let (first, last) = (k.size("first"), k.size("last"));
    let bounds = Bounds::new(&mut k, h, low.q);
    let [largest_at, limit_at, most_at, exact_at] = [0, 1, 2, 3].map(|n| Int::from(n * LANES));

    k.note("The largest first half of all lines.");
    let largest = k.bind_mut("largest", Op::Copy(bounds.lowest));
    let count = k.bind("n_lines", Op::SplatInt(Int::from(n_lines)));
    k.each("i", 0usize, lines(n_lines), |k, i| {
        let base = k.bind("base", Op::SplatInt(i.clone() * LANES));
        let index = k.binary("index", BinaryOp::AddInt, bounds.lane, base);
        let v = k.load("v", best, i * LANES);
        let valid = k.compare("valid", CompareOp::LessInt, index, count);
        let v = k.select("v", valid, v, bounds.lowest);
        k.set(largest, Op::Binary(BinaryOp::Max, largest, v));
    });
    let largest = k.reduce("largest", ReduceOp::Max, largest);
    k.store_one(scratch, largest_at.clone(), largest);

    k.blank();
    k.note("The largest logit where it is: none below that can win.");
    let limit = k.bind_mut("limit", Op::Copy(bounds.lowest));
    k.each("j", 0usize, n_lines, |k, j| {
        k.if_at_least((best, j.clone()), (scratch, largest_at), |k| {
            k.each("i", 0usize, LANES, |k, i| {
                low.logit(k, j.clone() * LANES + i.clone(), high, (scratch, exact_at.clone() + i));
            });
            let v = k.load("v", scratch, exact_at.clone());
            let v = bounds.numbers(k, j, v);
            let v = k.reduce("v", ReduceOp::Max, v);
            k.set(limit, Op::Binary(BinaryOp::Max, limit, v));
        });
    });
    k.store_one(scratch, limit_at.clone(), limit);

    k.blank();
    k.each("j", first, last, |k, j| {
        k.store(y, j.clone() * LANES, bounds.lowest);
        k.if_at_least((top, j.clone()), (scratch, limit_at.clone()), |k| {
            let v = k.load("v", high, j.clone() * LANES);
            let most = bounds.most(k, j.clone(), v, reach);
            k.store(scratch, most_at.clone(), most);
            k.each("i", 0usize, LANES, |k, i| {
                k.if_at_least((scratch, most_at + i.clone()), (scratch, limit_at), |k| {
                    let id = k.int("id", j * LANES + i);
                    low.logit(k, id.clone(), high, (y, id));
                });
            });
        });
    });
    k.finish()
}

/// Adds the second half to the first of all logits of lines `first..last`. Parameters: q, low, low_scale, logits,
/// first, last.
pub fn complete(h: &Split) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("split_complete_{}", h.name()),
        &[
            "Adds the second half to the first of the logits of lines `first..last`.",
            "",
            &format!("`low` is `[{}, {}, 16]` words.", lines(h.vocab) * LANES, h.blocks()),
        ],
    );
    let low = Low::declare(&mut k, h);
    let logits = k.write("logits");
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("id", first * LANES, (last * LANES).min(h.vocab), |k, id| low.logit(k, id.clone(), logits, (logits, id)));
    k.finish()
}

/// One token's row out of both halves. Parameters: table, table_scale, low, low_scale, y, id.
pub fn embed(h: &Split) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("embed_split_{}", h.inputs),
        &[
            "Row `id` of the embedding, which is stored as the head's two halves.",
            "",
            &format!("`y` is `[{}]`, the table has {} rows in lines of 16.", h.inputs, h.vocab),
        ],
    );
    let (table, table_scale) = (k.read_u32("table"), k.read("table_scale"));
    let (low, low_scale) = (k.read_u32("low"), k.read("low_scale"));
    let y = k.write("y");
    let id = k.size("id");
    let args = vec![table.into(), table_scale.into(), y.into(), id.clone().into()];
    k.call(&head::embed(Format::Nibbles, h.inputs, h.vocab), args);
    let scale = k.broadcast("scale", low_scale, id.clone());
    let mask = k.bind("mask", Op::SplatBits(0xf));
    let zero = k.bind("zero", Op::SplatBits(8));
    let from = k.int("from", id * h.low_words());
    let block = |k: &mut Builder, b: Int, channels: usize| {
        for half in 0..2usize {
            let quads = channels.saturating_sub(half * BLOCK / 2).min(BLOCK / 2) / 4;
            k.each("l", 0usize, quads, |k, l| {
                let word = k.broadcast("word", low, from.clone() + b.clone() * LANES + l.clone());
                for i in 0..4usize {
                    let v = k.bind("v", Op::ShiftRight(word, (8 * i + 4 * half) as u32));
                    let v = k.binary("v", BinaryOp::And, v, mask);
                    let v = k.binary("v", BinaryOp::SubInt, v, zero);
                    let v = k.unary("v", UnaryOp::ToFloat, v);
                    let v = k.mul("v", v, scale);
                    let at = k.int("at", b.clone() * BLOCK + l.clone() * 4usize + (half * BLOCK / 2 + i));
                    let first = k.broadcast("first", y, at.clone());
                    let v = k.add("v", first, v);
                    k.store_one(y, at, v);
                }
            });
        }
    };
    // As far as the first half is written: eight inputs at a time.
    let channels = h.inputs.next_multiple_of(8);
    k.each("b", 0usize, channels / BLOCK, |k, b| block(k, b, BLOCK));
    if !channels.is_multiple_of(BLOCK) {
        block(&mut k, Int::from(channels / BLOCK), channels % BLOCK);
    }
    k.finish()
}
