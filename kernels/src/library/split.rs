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
    /// Rows of activations that are prepared at a time, at the most.
    pub rows: usize,
}

impl Split {
    fn quant(&self) -> QuantRows {
        QuantRows::new(self.inputs, 0, true)
    }

    fn blocks(&self) -> usize {
        self.quant().blocks()
    }

    /// Words of a row of the second half: a line for each block. Byte `b` of lane `l` has input `4 l + b` in its
    /// low nibble and input `64 + 4 l + b` in its high one, each more by 8.
    pub fn low_words(&self) -> usize {
        self.blocks() * LANES
    }

    /// Words of what follows the quantized rows for each of them: what its sums with the second half start from, its
    /// length.
    fn extra(&self) -> usize {
        (self.blocks() + 1) * LANES
    }

    /// Where the sums of a prepared row start from.
    fn starts_at(&self, row: Int) -> Int {
        row * self.extra() + self.rows * self.quant().pitch()
    }

    /// Where a prepared row's length is.
    fn length_at(&self, row: Int) -> Int {
        self.starts_at(row) + self.blocks() * LANES
    }

    /// Words of the prepared rows.
    pub fn row_words(&self) -> usize {
        self.rows * (self.quant().pitch() + self.extra())
    }

    /// Words from the lines of one row to those of the next, where there is one for each line of the vocabulary.
    pub fn line_pitch(&self) -> usize {
        pitch(lines(self.vocab))
    }

    /// Floats of scratch of [`row`].
    pub fn row_scratch(&self) -> usize {
        pitch(self.inputs)
    }

    fn name(&self) -> String {
        format!("{}x{}", self.inputs, self.vocab)
    }

    fn left(&self, q: Ptr) -> Left {
        Left::Quantized(Quantized { ptr: q, at: Int::from(0usize), rows: self.quant() })
    }
}

/// Normalizes and quantizes rows `first..last` for the head, those from `row` on if `any_row`. Parameters: x, [gain], q,
/// scratch, [row], first, last.
///
/// `q` takes [`Split::row_words`]: the quantized rows, then for each, by block and lane, minus the zero points' share, and
/// its length.
pub fn row(h: &Split, norm: Norm, any_row: bool) -> Rc<Kernel> {
    let row_name = if any_row { "_row" } else { "" };
    let (h, ldx) = (*h, pitch(h.inputs));
    let mut k = Builder::new(
        format!("{}split{row_name}_{}", norm.name(), h.inputs),
        &[
            "Rows as the two halves of a head take them: quantized, with zero shares and their lengths.",
            "",
            &format!("`x` has rows {ldx} floats apart, `q` is {} words.", h.row_words()),
        ],
    );
    let x = k.read("x");
    let gain = norm.has_gain().then(|| k.read("gain"));
    let (q, scratch) = (k.write("q"), k.write("scratch"));
    let row = if any_row { k.size("row") } else { Int::from(0usize) };
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("i", first, last, |k, i| {
        let one = Int::from(1usize);
        let normed = normalize(k, norm, h.inputs, (x, (i.clone() + row) * ldx), gain, scratch, one.clone());
        let rows = Quantized { ptr: q, at: i.clone() * h.quant().pitch(), rows: h.quant() };
        rows.fill_all(k, Source::Plain, normed, one);
        let words = || Arg::from((q, rows.at.clone()));
        let scales = Arg::from((q, rows.at.clone() + h.quant().scales_at()));
        let args = vec![words(), words(), scales, (q, h.starts_at(i.clone())).into(), (q, h.length_at(i)).into()];
        k.call(&starts(h.blocks()), args);
    });
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
    let most = k.reduce("most", ReduceOp::Max, most);
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
    let total = k.reduce("total", ReduceOp::Max, total);
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

    /// `y = logit` of a row of activations and row `id` of the head, whose first half is `high`.
    fn logit(&self, k: &mut Builder, row: &Int, id: Int, high: (Ptr, Int), y: (Ptr, Int)) {
        let words = row.clone() * self.h.quant().pitch();
        let args = vec![
            (self.q, words.clone()).into(),
            (self.q, words + self.h.quant().scales_at()).into(),
            (self.q, self.h.starts_at(row.clone())).into(),
            (self.low, id.clone() * self.h.low_words()).into(),
            (self.low_scale, id).into(),
            high.into(),
            y.into(),
        ];
        k.call(&low_row(self.h.blocks()), args);
    }
}

/// Registers that bounds are made of.
struct Bounds {
    vocab: usize,
    lowest: Reg,
    infinite: Reg,
    tiny: Reg,
}

impl Bounds {
    fn new(k: &mut Builder, h: &Split) -> Bounds {
        Bounds {
            vocab: h.vocab,
            lowest: k.splat("lowest", f32::NEG_INFINITY),
            infinite: k.splat("infinite", f32::INFINITY),
            tiny: k.splat("tiny", TINY),
        }
    }

    /// Minus infinity behind the vocabulary.
    fn inside(&self, k: &mut Builder, j: Int, v: Reg) -> Reg {
        if self.vocab.is_multiple_of(LANES) {
            return v;
        }
        let valid = below(k, j, self.vocab);
        k.select("v", valid, v, self.lowest)
    }

    /// What the logits of line `j` are at most, for a row of activations of this length; infinite for what is no number.
    fn most(&self, k: &mut Builder, j: Int, high: Reg, (reach, length): (Ptr, Reg)) -> Reg {
        let reach = k.load("reach", reach, j.clone() * LANES);
        let low = k.mul("low", reach, length);
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

/// The indices of line `j`.
fn index(k: &mut Builder, j: Int) -> Reg {
    let lane = k.bind("lane", Op::Iota(0));
    let base = k.bind("base", Op::SplatInt(j * LANES));
    k.binary("index", BinaryOp::AddInt, lane, base)
}

/// Which indices of line `j` are below `n`.
fn below(k: &mut Builder, j: Int, n: usize) -> Reg {
    let index = index(k, j);
    let count = k.bind("count", Op::SplatInt(Int::from(n)));
    k.compare("valid", CompareOp::LessInt, index, count)
}

/// Lines whose bounds are made after their products.
const CHUNK: usize = 16;

/// The first half of all logits of `n` rows, and for each line the largest of them and the largest bound. Parameters: q,
/// w, w_scale, reach, high, best, top, first, last (lines).
pub fn screen(s: &Schedule, h: &Split, n: usize) -> Rc<Kernel> {
    let few = if n > 1 { format!("_{n}") } else { String::new() };
    let ld = pitch(h.vocab);
    let mut k = Builder::new(
        format!("split_screen{few}_{}", h.name()),
        &[
            "The first half of the logits of lines `first..last`, the largest of each line, and what its logits",
            "are at most.",
            "",
            &format!("`w` is `[{}, {}, 17, 16]` words, `high` has rows {ld} floats apart.", lines(h.vocab), h.blocks()),
        ],
    );
    let q = k.read("q");
    let w = Matrix::declare(&mut k, "w", Format::Nibbles, h.inputs);
    let reach = k.read("reach");
    let (high, best, top) = (k.write("high"), k.write("best"), k.write("top"));
    let (first, last) = (k.size("first"), k.size("last"));
    let bounds = Bounds::new(&mut k, h);
    let left = h.left(q);
    let lengths: Vec<Reg> = (0..n).map(|i| k.broadcast("length", q, h.length_at(Int::from(i)))).collect();
    k.each("chunk", 0usize, (last.clone() - first.clone()).div_ceil(CHUNK as i64), |k, chunk| {
        let from = k.int("from", first + chunk * CHUNK);
        let to = k.int("to", (from.clone() + CHUNK).min(last));
        let zero = Int::from(0usize);
        let rest = Rest { line: zero.clone(), bias: None, residual: None, c: (high, zero), ldc: ld };
        w.vectors(k, s, (&left, n), Init::Zero, (from.clone(), to.clone()), rest);
        k.each("line", from, to, |k, j| {
            for (i, length) in lengths.into_iter().enumerate() {
                let v = k.load("v", high, j.clone() * LANES + i * ld);
                let most = bounds.most(k, j.clone(), v, (reach, length));
                let most = k.reduce("most", ReduceOp::Max, most);
                k.store_one(top, j.clone() + i * h.line_pitch(), most);
                let v = bounds.numbers(k, j.clone(), v);
                let v = k.reduce("v", ReduceOp::Max, v);
                k.store_one(best, j.clone() + i * h.line_pitch(), v);
            }
        });
    });
    k.finish()
}

/// Lines whose second halves are asked for before the first of them is waited for.
const ASKED: usize = 32;

/// Floats of scratch of [`rescore`].
pub const RESCORE_SCRATCH: usize = (3 + ASKED) * LANES;

/// Of each of the lines `first..last` the largest logit and its index, the first among equals; minus infinity and any
/// index where none can be the largest of all. For one row, or if `few` for `rows` of them. Parameters: q, low, low_scale,
/// reach, high, best, top, value, id, scratch, [rows], first, last.
///
/// Every thread finds the bound for itself: the largest logit of the line with the largest first half.
pub fn rescore(h: &Split, few: bool) -> Rc<Kernel> {
    let (n_lines, blocks) = (lines(h.vocab), h.blocks());
    let mut k = Builder::new(
        format!("split_rescore{}_{}", if few { "_rows" } else { "" }, h.name()),
        &[
            "The largest logit of each of the lines `first..last` and its index, minus infinity where none can be the",
            "largest of all.",
            "",
            &format!("`low` is `[{}, {blocks}, 16]` words, a row of `best` and `top` `[{n_lines}]`.", n_lines * LANES),
        ],
    );
    let low = Low::declare(&mut k, h);
    let (reach, high) = (k.read("reach"), k.read("high"));
    let (best, top) = (k.read("best"), k.read("top"));
    let (value, id, scratch) = (k.write("value"), k.write_u32("id"), k.write("scratch"));
    let rows = if few { k.size("rows") } else { Int::from(1usize) };
    let (first, last) = (k.size("first"), k.size("last"));
    let bounds = Bounds::new(&mut k, h);
    k.each("row", 0usize, rows, |k, row| {
        let r = Rescore { h: *h, low, reach, high, best, top, scratch, row, bounds };
        let limit = r.limit(k);
        r.candidates(k, (value, id), (first, last), limit);
    });
    k.finish()
}

/// The operands of [`rescore`] for one row of activations.
struct Rescore {
    h: Split,
    low: Low,
    reach: Ptr,
    high: Ptr,
    best: Ptr,
    top: Ptr,
    scratch: Ptr,
    row: Int,
    bounds: Bounds,
}

impl Rescore {
    /// A line of scratch.
    fn line(n: usize) -> Int {
        Int::from(n * LANES)
    }

    /// Where the first half of row `id` of the head is.
    fn high_at(&self, id: Int) -> Int {
        self.row.clone() * pitch(self.h.vocab) + id
    }

    /// Where what is known of line `j` is.
    fn line_at(&self, j: &Int) -> Int {
        self.row.clone() * self.h.line_pitch() + j.clone()
    }

    /// Emits the logit of row `id` of the head.
    fn logit(&self, k: &mut Builder, id: Int, to: Int) {
        self.low.logit(k, &self.row, id.clone(), (self.high, self.high_at(id)), (self.scratch, to));
    }

    /// Emits the logit below which none can win; it lies in scratch.
    fn limit(&self, k: &mut Builder) -> Int {
        let n_lines = lines(self.h.vocab);
        let (largest_at, limit_at, exact_at) = (Self::line(0), Self::line(1), Self::line(2));
        k.note("The largest first half of all lines.");
        let largest = k.bind_mut("largest", Op::Copy(self.bounds.lowest));
        k.each("i", 0usize, lines(n_lines), |k, i| {
            let v = k.load("v", self.best, self.line_at(&(i.clone() * LANES)));
            let valid = below(k, i, n_lines);
            let v = k.select("v", valid, v, self.bounds.lowest);
            k.set(largest, Op::Binary(BinaryOp::Max, largest, v));
        });
        let largest = k.reduce("largest", ReduceOp::Max, largest);
        k.store_one(self.scratch, largest_at.clone(), largest);

        k.blank();
        k.note("The largest logit where it is: none below that can win.");
        let limit = k.bind_mut("limit", Op::Copy(self.bounds.lowest));
        k.each("j", 0usize, n_lines, |k, j| {
            k.if_at_least((self.best, self.line_at(&j)), (self.scratch, largest_at), |k| {
                k.each("i", 0usize, LANES, |k, i| {
                    self.logit(k, j.clone() * LANES + i.clone(), exact_at.clone() + i);
                });
                let v = k.load("v", self.scratch, exact_at.clone());
                let v = self.bounds.numbers(k, j, v);
                let v = k.reduce("v", ReduceOp::Max, v);
                k.set(limit, Op::Binary(BinaryOp::Max, limit, v));
            });
        });
        k.store_one(self.scratch, limit_at.clone(), limit);
        limit_at
    }

    /// Emits the largest logits of lines `first..last` among those that reach the limit.
    fn candidates(&self, k: &mut Builder, (value, id): (Ptr, Ptr), (first, last): (Int, Int), limit: Int) {
        let (exact_at, most_at, scratch) = (Self::line(2), Self::line(3), self.scratch);
        k.blank();
        let length = k.broadcast("length", self.low.q, self.h.length_at(self.row.clone()));
        let asked = k.bind_mut("asked", Op::SplatBits(0));
        k.each("chunk", 0usize, (last.clone() - first.clone()).div_ceil(ASKED as i64), |k, chunk| {
            let from = k.int("from", first + chunk * ASKED);
            let to = k.int("to", (from.clone() + ASKED).min(last));
            let most_of = |j: &Int| most_at.clone() + (j.clone() - from.clone()) * LANES;
            k.note("What is far away is asked for all at once.");
            k.each("j", from.clone(), to.clone(), |k, j| {
                k.if_at_least((self.top, self.line_at(&j)), (scratch, limit.clone()), |k| {
                    let v = k.load("v", self.high, self.high_at(j.clone() * LANES));
                    let most = self.bounds.most(k, j.clone(), v, (self.reach, length));
                    let at = k.int("at", most_of(&j));
                    k.store(scratch, at.clone(), most);
                    k.each("i", 0usize, LANES, |k, i| {
                        k.if_at_least((scratch, at + i.clone()), (scratch, limit.clone()), |k| {
                            let words = k.int("words", (j * LANES + i) * self.h.low_words());
                            k.each("b", 0usize, self.h.blocks(), |k, b| {
                                let n = k.load("n", self.low.low, words + b * LANES);
                                k.set(asked, Op::Binary(BinaryOp::Or, asked, n));
                            });
                        });
                    });
                });
            });
            k.each("j", from.clone(), to, |k, j| {
                k.store_one(value, self.line_at(&j), self.bounds.lowest);
                let none = k.bind("none", Op::SplatBits(0));
                k.store_one(id, self.line_at(&j), none);
                k.if_at_least((self.top, self.line_at(&j)), (scratch, limit.clone()), |k| {
                    k.store(scratch, exact_at.clone(), self.bounds.lowest);
                    let at = k.int("at", most_of(&j));
                    k.each("i", 0usize, LANES, |k, i| {
                        k.if_at_least((scratch, at + i.clone()), (scratch, limit), |k| {
                            self.logit(k, j.clone() * LANES + i.clone(), exact_at.clone() + i);
                        });
                    });
                    let v = k.load("v", scratch, exact_at.clone());
                    let v = self.bounds.numbers(k, j.clone(), v);
                    let most = k.reduce("most", ReduceOp::Max, v);
                    k.store_one(value, self.line_at(&j), most);
                    let ids = index(k, j.clone());
                    let is_most = k.compare("is_most", CompareOp::Equal, v, most);
                    let none = k.bind("none", Op::SplatBits(i32::MAX));
                    let ids = k.select("ids", is_most, ids, none);
                    let ids = k.reduce("ids", ReduceOp::MinInt, ids);
                    k.store_one(id, self.line_at(&j), ids);
                });
            });
        });
        // Kept, so that asking is not left out.
        let asked = k.reduce("asked", ReduceOp::AddInt, asked);
        let asked = k.unary("asked", UnaryOp::BitsToFloat, asked);
        k.store_one(scratch, Self::line(0), asked);
    }
}

/// The index of the largest of the lines' logits of rows `first..last`, the first one among equals. Parameters: value, id,
/// token, first, last.
pub fn pick(vocab: usize) -> Rc<Kernel> {
    let (n_lines, ld) = (lines(vocab), pitch(lines(vocab)));
    let mut k = Builder::new(
        format!("split_pick_{n_lines}"),
        &[
            "The index of the largest logit of all lines, the first among equals; rows `first..last`.",
            "",
            &format!("`value` and `id` have rows {ld} words apart, `token` is an index for each."),
        ],
    );
    let (value, id, token) = (k.read("value"), k.read_u32("id"), k.write_u32("token"));
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("row", first, last, |k, row| head::largest(k, n_lines, (value, ld), Some(id), (token, row)));
    k.finish()
}

/// Adds the second half to the first of all logits of lines `first..last`, for `rows` rows. Parameters: q, low, low_scale,
/// logits, rows, first, last.
pub fn complete(h: &Split) -> Rc<Kernel> {
    let ld = pitch(h.vocab);
    let mut k = Builder::new(
        format!("split_complete_{}", h.name()),
        &[
            "Adds the second half to the first of the logits of lines `first..last`.",
            "",
            &format!(
                "`low` is `[{}, {}, 16]` words, `logits` has rows {ld} floats apart.",
                lines(h.vocab) * LANES,
                h.blocks()
            ),
        ],
    );
    let low = Low::declare(&mut k, h);
    let logits = k.write("logits");
    let (rows, first, last) = (k.size("rows"), k.size("first"), k.size("last"));
    k.each("id", first * LANES, (last * LANES).min(h.vocab), |k, id| {
        k.each("row", 0usize, rows, |k, row| {
            let at = (logits, row.clone() * ld + id.clone());
            low.logit(k, &row, id, at.clone(), at);
        });
    });
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
