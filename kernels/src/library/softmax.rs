//! Softmax over a block of keys, in a stream of blocks.
//!
//! A row keeps its largest score and the sum of its weights so far. A block that has a larger score
//! shrinks what was summed before. Blocks are counted from the first position and each row is made of
//! the keys that it sees and nothing else: its bits depend neither on the rows beside it nor on threads.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, CompareOp, Kernel, Op, Ptr, ReduceOp, Reg, UnaryOp};
use crate::library::cache::BLOCK;
use crate::library::quantize::{QuantRows, TINY};
use crate::math::{Exp, QuickExp2};

/// Bits of the lower of two planes.
const LOW_BITS: u32 = 7;

/// The largest weight in two planes of 7 bits.
const LEVELS: f32 = (127 << LOW_BITS) as f32;

/// Where the state of a row lies: its largest score, the sum of its weights.
pub const STATE: usize = 2;

/// The sizes of a block's softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// Rows of one position: heads that share keys and values.
    pub group: usize,
    /// Channels of a row of the output, a multiple of 16.
    pub channels: usize,
    /// Whether each position sees one key more than the one before it.
    pub causal: bool,
    /// Whether values are bytes: the weights then become planes of bytes.
    pub planes: bool,
}

/// The weights of a row as planes of bytes: the high 7 bits, then the low ones. Both are times the
/// values' scales, so that the product meets bytes only.
pub fn planes() -> QuantRows {
    QuantRows { channels: 2 * BLOCK, block: BLOCK, groups: false }
}

/// Constants of either exponential.
enum Exponential {
    Natural(Exp),
    Two(QuickExp2),
}

impl Exponential {
    fn apply(&self, k: &mut Builder, x: Reg) -> Reg {
        match self {
            Exponential::Natural(f) => f.apply(k, x),
            Exponential::Two(f) => f.apply(k, x),
        }
    }

    fn one(&self) -> Reg {
        match self {
            Exponential::Natural(f) => f.one(),
            Exponential::Two(f) => f.one(),
        }
    }
}

/// A kernel in the making: its parameters and constants.
struct Row {
    s: Ptr,
    /// Scales of the values, planes, their scales and sums.
    planes: Option<[Ptr; 4]>,
    out: Ptr,
    state: Ptr,
    f: Exponential,
    zero: Reg,
    lane: Reg,
    /// For planes: levels over the largest scale of the whole block, and the reverse.
    whole: Option<(Reg, Reg)>,
    channels: usize,
}

impl Softmax {
    /// The weights of a block's scores, in place or as [`planes`], and the rows of `out` ready to have
    /// their products with the values added.
    ///
    /// Row `i * group + g` sees the keys before `seen + i` (causal), or before `seen`; the block's first
    /// one is `from`. Scores are of base two for planes, else natural; those from line `lines` on are
    /// not looked at. Parameters: s, [scales, planes, plane_scales, plane_sums], out, state, positions,
    /// seen, from, lines.
    pub fn block(&self) -> Rc<Kernel> {
        let Softmax { group, channels, causal, planes } = *self;
        let (name, columns) = if causal { ("_causal", "`seen + i - from`") } else { ("", "`seen - from`") };
        let kind = if planes { "u14" } else { "f32" };
        let mut k = Builder::new(
            format!("softmax{name}_{kind}_{group}x{channels}"),
            &[
                &format!("One block of a softmax: {group} rows of position `i`, over their first {columns} columns."),
                "",
                &format!(
                    "`s` is `[rows, {BLOCK}]`, `out` is `[rows, {channels}]`, `state` holds a row's largest score and"
                ),
                "its sum so far. What a row of `out` has so far shrinks to the new largest score.",
            ],
        );
        let s = if planes { k.read("s") } else { k.write("s") };
        let planes = planes
            .then(|| [k.read("scales"), k.write_i8("planes"), k.write("plane_scales"), k.write_u32("plane_sums")]);
        let (out, state) = (k.write("out"), k.write("state"));
        let positions = k.size("positions");
        let (seen, from, lines) = (k.size("seen"), k.size("from"), k.size("lines"));
        let f = match planes {
            Some(_) => Exponential::Two(QuickExp2::new(&mut k)),
            None => Exponential::Natural(Exp::new(&mut k)),
        };
        let zero = k.splat("zero", 0.0);
        let lane = k.bind("lane", Op::Iota(0));
        let mut row = Row { s, planes, out, state, f, zero, lane, whole: None, channels };
        if let Some([scales, ..]) = planes {
            // Of no use to a row that sees a part of the block.
            let peak = k.bind_mut("peak", Op::Copy(zero));
            k.each("j", 0usize, BLOCK / LANES, |k, j| {
                let scale = k.load("scale", scales, j * LANES);
                k.set(peak, Op::Binary(BinaryOp::Max, scale, peak));
            });
            row.whole = Some(row.levels(&mut k, peak));
        }
        k.each("i", 0usize, positions, |k, i| {
            let end = if causal { seen.clone() + i.clone() } else { seen };
            let count = k.int("count", (end.max(from.clone()) - from).min(BLOCK));
            k.each("g", 0usize, group, |k, g| {
                let r = k.int("r", i * group + g);
                let partly = |k: &mut Builder| row.weigh(k, &r, Some(&count), &lines);
                let part = |k: &mut Builder| {
                    if causal {
                        k.if_less(count.clone(), 1usize, |k| row.skip(k, &r, &lines), partly);
                    } else {
                        partly(k);
                    }
                };
                k.if_less(count.clone(), BLOCK, part, |k| row.weigh(k, &r, None, &Int::from(BLOCK / LANES)));
            });
        });
        k.finish()
    }
}

impl Row {
    /// Levels over the largest of `peak`'s lanes, and the reverse.
    fn levels(&self, k: &mut Builder, peak: Reg) -> (Reg, Reg) {
        let peak = k.reduce("peak", ReduceOp::Max, peak);
        let tiny = k.splat("tiny", TINY);
        let levels = k.splat("levels", LEVELS);
        let share = k.splat("share", 1.0 / LEVELS);
        let bound = k.max("bound", peak, tiny);
        let inverse = k.div("inverse", levels, bound);
        let unit = k.mul("unit", peak, share);
        (inverse, unit)
    }

    /// Which lanes of line `j` are below `count`; all, if there is none.
    fn valid(&self, k: &mut Builder, j: &Int, count: Option<Reg>) -> Option<Reg> {
        count.map(|count| {
            let base = k.bind("base", Op::SplatInt(j.clone() * LANES));
            let column = k.binary("column", BinaryOp::AddInt, self.lane, base);
            k.compare("valid", CompareOp::LessInt, column, count)
        })
    }

    /// `v`, or `other` where it is not valid.
    fn only(&self, k: &mut Builder, name: &str, valid: Option<Reg>, v: Reg, other: Reg) -> Reg {
        valid.map_or(v, |valid| k.select(name, valid, v, other))
    }

    /// A row that sees no key of the block, which others see.
    fn skip(&self, k: &mut Builder, r: &Int, lines: &Int) {
        match self.planes {
            None => {
                k.each("j", 0usize, lines.clone(), |k, j| k.store(self.s, r.clone() * BLOCK + j * LANES, self.zero))
            }
            Some(_) => {
                let none = k.bind("none", Op::SplatBits(0));
                self.close(k, r, self.zero, none);
                self.clear(k, r, Int::from(0usize));
            }
        }
    }

    /// Zeros for the planes of row `r` from line `from` on, of which it has as many as the block.
    fn clear(&self, k: &mut Builder, r: &Int, from: Int) {
        let Some([_, bytes, ..]) = self.planes else { return };
        let none = k.bind("none", Op::SplatBits(0));
        let at = k.int("bytes", r.clone() * (4 * planes().pitch()));
        k.each("j", from, BLOCK / LANES, |k, j| {
            k.store(bytes, at.clone() + j.clone() * LANES, none);
            k.store(bytes, at + j * LANES + BLOCK, none);
        });
    }

    /// Scales and sums of the planes of row `r`: its unit, and minus the zero point's share, which is all
    /// in the low plane's sum.
    fn close(&self, k: &mut Builder, r: &Int, unit: Reg, sum: Reg) {
        let Some([_, _, scales, sums]) = self.planes else { return };
        let at = k.int("plane", r.clone() * planes().pitch());
        let high = k.splat("high_unit", (1u32 << LOW_BITS) as f32);
        let high = k.mul("high", unit, high);
        k.store_one(scales, at.clone(), high);
        k.store_one(scales, at.clone() + 1usize, unit);
        let none = k.bind("none", Op::SplatBits(0));
        k.store_one(sums, at.clone(), none);
        k.store_one(sums, at + 1usize, sum);
    }

    /// Row `r`, which sees `count` keys of the block, or all.
    fn weigh(&self, k: &mut Builder, r: &Int, count: Option<&Int>, lines: &Int) {
        let row = k.int("row", r.clone() * BLOCK);
        let count = count.map(|n| k.bind("seen_keys", Op::SplatInt(n.clone())));
        let lowest = k.splat("lowest", f32::MIN);
        let largest = k.bind_mut("largest", Op::Copy(lowest));
        // A row that sees a part has levels of its own: they must not depend on keys behind it.
        let own = self
            .planes
            .filter(|_| count.is_some())
            .map(|[scales, ..]| (scales, k.bind_mut("peak", Op::Copy(self.zero))));
        k.each("j", 0usize, lines.clone(), |k, j| {
            let valid = self.valid(k, &j, count);
            let v = k.load("v", self.s, row.clone() + j.clone() * LANES);
            let v = self.only(k, "v", valid, v, lowest);
            k.set(largest, Op::Binary(BinaryOp::Max, v, largest));
            if let Some((scales, peak)) = own {
                let scale = k.load("scale", scales, j * LANES);
                let scale = self.only(k, "scale", valid, scale, self.zero);
                k.set(peak, Op::Binary(BinaryOp::Max, scale, peak));
            }
        });
        let top = k.reduce("top", ReduceOp::Max, largest);
        let levels = match own {
            Some((_, peak)) => Some(self.levels(k, peak)),
            None => self.whole,
        };
        let state = k.int("state_at", r.clone() * STATE);
        let old = k.broadcast("old", self.state, state.clone());
        let newer = k.max("newer", top, old);
        k.store_one(self.state, state.clone(), newer);
        // What is summed so far shrinks by `keep`, this block's weights by `share`.
        let lower = k.binary("lower", BinaryOp::Min, top, old);
        let down = k.sub("down", lower, newer);
        let e = self.f.apply(k, down);
        let grows = k.compare("grows", CompareOp::Less, old, top);
        let keep = k.select("keep", grows, e, self.f.one());
        let total = k.bind_mut("total", Op::Copy(self.zero));
        let base = if levels.is_some() { top } else { newer };
        let n_total = levels.map(|_| k.bind_mut("n_total", Op::SplatBits(0)));
        k.each("j", 0usize, lines.clone(), |k, j| {
            let valid = self.valid(k, &j, count);
            let at = k.int("at", row.clone() + j.clone() * LANES);
            let v = k.load("v", self.s, at.clone());
            let v = k.sub("v", v, base);
            let e = self.f.apply(k, v);
            let e = self.only(k, "e", valid, e, self.zero);
            k.set(total, Op::Binary(BinaryOp::Add, total, e));
            match (self.planes, levels, n_total) {
                (Some([scales, bytes, ..]), Some((inverse, _)), Some(n_total)) => {
                    let scale = k.load("scale", scales, j.clone() * LANES);
                    let scale = k.mul("scale", scale, inverse);
                    let v = k.mul("v", e, scale);
                    let v = self.only(k, "v", valid, v, self.zero);
                    let n = k.unary("n", UnaryOp::RoundToInt, v);
                    k.set(n_total, Op::Binary(BinaryOp::AddInt, n_total, n));
                    let high = k.bind("high", Op::ShiftRightSigned(n, LOW_BITS));
                    let mask = k.bind("mask", Op::SplatBits((1 << LOW_BITS) - 1));
                    let low = k.binary("low", BinaryOp::And, n, mask);
                    let at = k.int("byte", r.clone() * (4 * planes().pitch()) + j * LANES);
                    k.store(bytes, at.clone(), high);
                    k.store(bytes, at + BLOCK, low);
                }
                _ => k.store(self.s, at, e),
            }
        });
        let mut sum = k.reduce("sum", ReduceOp::Add, total);
        if let (Some((_, unit)), Some(n_total)) = (levels, n_total) {
            let share = k.select("share", grows, self.f.one(), e);
            sum = k.mul("sum", sum, share);
            let unit = k.mul("unit", unit, share);
            let n = k.reduce("n", ReduceOp::AddInt, n_total);
            let n = k.bind("n", Op::ShiftLeft(n, 6));
            let none = k.bind("none", Op::SplatBits(0));
            let n = k.binary("n", BinaryOp::SubInt, none, n);
            self.close(k, r, unit, n);
            if count.is_some() {
                self.clear(k, r, lines.clone());
            }
        }
        let before = k.broadcast("before", self.state, state.clone() + 1usize);
        let before = k.mul("before", before, keep);
        let sum = k.add("sum", before, sum);
        k.store_one(self.state, state + 1usize, sum);
        for j in 0..self.channels / LANES {
            let at = k.int("out_at", r.clone() * self.channels + j * LANES);
            let v = k.load("out", self.out, at.clone());
            let v = k.mul("out", v, keep);
            k.store(self.out, at, v);
        }
    }
}

/// The arguments `plane_scales` and `plane_sums` for planes at `at`, in memory of floats.
pub fn plane_views(ptr: Ptr, at: &Int) -> [Arg; 3] {
    let rows = planes();
    [(ptr, at.clone()).into(), (ptr, at.clone() + rows.scales_at()).into(), (ptr, at.clone() + rows.sums_at()).into()]
}
