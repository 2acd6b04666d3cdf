//! Attention over a cache of keys and values, by a softmax that streams through blocks of keys.
//!
//! The rows of a product are the heads that share keys and values, of one position or of several, so
//! that each key and each value is read once for all of them. Bytes and floats differ in how
//! queries and weights are made for the products, and in the products; the way is one.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, Kernel, Ptr};
use crate::library::cache::{BLOCK, Cache};
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::linear::Rows;
use crate::library::quantize::{QuantRows, Quantized, Source, Span, quantize};
use crate::library::softmax::{STATE, Softmax, plane_views, planes};
use crate::library::{Schedule, integer, lines, pitch};

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head, a multiple of 16.
    pub head_dim: usize,
    /// Room for keys of each head, positions.
    pub capacity: usize,
    /// Whether row `i` sees the keys up to its own position only.
    pub causal: bool,
    /// How keys and values are stored.
    pub cache: Cache,
}

/// Rows of products in a unit of work, more or less: they and a block of keys stay in the first-level
/// cache.
const UNIT_ROWS: usize = 32;

impl Attention {
    /// Channels of a merged row of queries, keys and values.
    pub fn merged(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query heads that share keys and values.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Positions of a unit of work of [`attend`].
    pub fn unit(&self) -> usize {
        (UNIT_ROWS / self.group()).max(1)
    }

    /// Floats of scratch of [`attend`] with units of `positions` positions.
    pub fn scratch(&self, positions: usize) -> usize {
        Room::new(self, positions).floats
    }

    /// A line for the documentation of kernels.
    pub(super) fn layout(&self) -> String {
        let (blocks, heads, d) = (self.capacity.div_ceil(BLOCK), self.kv_heads, self.head_dim);
        let (per_line, in_line, rest) = match self.cache {
            Cache::F32 | Cache::F16 => (d, BLOCK, ""),
            Cache::Int8 => (d / 4, BLOCK / 4, " words, then scales"),
        };
        let keys = format!("`keys` is `[{blocks}, {heads}, {}, {per_line}, 16]`{rest}", BLOCK / LANES);
        format!("{keys}, `values` `[{blocks}, {heads}, {}, {in_line}, 16]`{rest}.", d / LANES)
    }

    /// Queries as quantized rows.
    fn queries(&self) -> QuantRows {
        QuantRows::new(self.head_dim, self.head_dim, false)
    }
}

/// What a unit's scratch holds, from which float on.
struct Room {
    queries: usize,
    /// Floats between two queries.
    query: usize,
    scores: usize,
    weights: usize,
    out: usize,
    state: usize,
    floats: usize,
}

impl Room {
    fn new(a: &Attention, positions: usize) -> Room {
        let rows = positions * a.group();
        let (query, weights) = match a.cache {
            Cache::F32 | Cache::F16 => (a.head_dim, 0),
            Cache::Int8 => (a.queries().pitch(), planes().pitch()),
        };
        let mut end = 0;
        let mut take = |floats: usize| {
            let at = end;
            end += (rows * floats).next_multiple_of(LANES);
            at
        };
        let [queries, scores, weights, out, state] = [query, BLOCK, weights, a.head_dim, STATE].map(&mut take);
        Room { queries, query, scores, weights, out, state, floats: end }
    }
}

/// Attention of all rows; a unit is a head of keys and values and a block of `positions` rows, heads
/// outermost. Parameters: qkv, keys, values, y, scratch, [start, rows], first, last.
///
/// Row `i` is position `start + i` and sees the keys `0..=start + i` if causal, else all of
/// `rows`. Scratch: [`Attention::scratch`] floats.
pub fn attend(s: &Schedule, a: &Attention, rows: Rows, positions: usize) -> Rc<Kernel> {
    let (d, group) = (a.head_dim, a.group());
    let (ldq, ldy) = (pitch(a.merged()), pitch(a.heads * d));
    let unit = positions.min(rows.most());
    let causal = if a.causal { "_causal" } else { "" };
    let one = if rows == Rows::Fixed(1) { "_one" } else { "" };
    let mut k = Builder::new(
        format!("attend{causal}{one}_{}_{}x{d}_c{}", a.cache.name(), a.heads, a.capacity),
        &[
            &format!("`y = softmax(q keys) values` for {} heads of {d}, {} of keys and values.", a.heads, a.kv_heads),
            "",
            &format!(
                "A unit is a head of keys and values and {unit} rows. `qkv` has rows {ldq} floats apart, `y` {ldy}."
            ),
            &a.layout(),
        ],
    );
    let (qkv, keys, values) = (k.read("qkv"), a.cache.read(&mut k, "keys"), a.cache.read(&mut k, "values"));
    let (y, scratch) = (k.write("y"), k.write("scratch"));
    let start = if a.causal { k.size("start") } else { Int::from(0usize) };
    let n = rows.size(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let room = Room::new(a, unit);
    let at = |from: usize| (scratch, Int::from(from));
    let softmax = Softmax { group, channels: d, causal: a.causal, planes: a.cache == Cache::Int8 }.block();
    // Never zero, which the compiler of the printed code cannot know.
    let units = k.int("units", n.clone().div_ceil(unit as i64).max(1usize));
    k.each("u", first, last, |k, u| {
        let head = k.int("head", u.clone() / units.clone());
        let row = k.int("row", (u % units) * unit);
        let count = k.int("count", Int::from(unit).min(n.clone() - row.clone()));
        let many = k.int("many", count.clone() * group);
        // Keys that the unit's last row sees.
        let seen = if a.causal { start.clone() + row.clone() + count.clone() } else { n.clone() };
        let seen = k.int("seen", seen.min(a.capacity));
        let q = (qkv, row.clone() * ldq + head.clone() * (group * d));
        queries(k, a, &q, (&count, &many), (scratch, &room));
        let (zero, lowest) = (k.splat("zero", 0.0), k.splat("lowest", f32::MIN));
        k.each("r", 0usize, many.clone(), |k, r| {
            k.store_one(scratch, r.clone() * STATE + room.state, lowest);
            k.store_one(scratch, r.clone() * STATE + (room.state + 1), zero);
            k.each("j", 0usize, d / LANES, |k, j| k.store(scratch, r * d + j * LANES + room.out, zero));
        });
        k.each("b", 0usize, seen.clone().div_ceil(BLOCK as i64), |k, b| {
            let from = k.int("from", b.clone() * BLOCK);
            let block = k.int("block", b * a.block() + head.clone() * a.cache.head(d));
            let depth = k.int("depth", (seen.clone() - from.clone()).min(BLOCK));
            score(k, s, a, (scratch, &room), (keys, &block), &many);
            let mut args: Vec<Arg> = vec![at(room.scores).into()];
            if a.cache == Cache::Int8 {
                args.push((values, block.clone() + BLOCK * d / 4).into());
                args.extend(plane_views(scratch, &Int::from(room.weights)));
            }
            args.extend([at(room.out).into(), at(room.state).into(), Arg::from(count.clone())]);
            let sees = if a.causal { start.clone() + row.clone() + 1usize } else { n.clone() };
            args.extend([sees, from, depth.clone().div_ceil(LANES as i64)].map(Arg::from));
            k.call(&softmax, args);
            mix(k, s, a, (scratch, &room), (values, &block), (&many, depth));
        });
        let one = k.splat("one", 1.0);
        k.each("i", 0usize, count, |k, i| {
            let to = k.int("to", (row + i.clone()) * ldy + head * (group * d));
            k.each("g", 0usize, group, |k, g| {
                let r = k.int("r", i * group + g.clone());
                let total = k.broadcast("total", scratch, r.clone() * STATE + (room.state + 1));
                let share = k.div("share", one, total);
                k.each("j", 0usize, d / LANES, |k, j| {
                    let v = k.load("v", scratch, r * d + j.clone() * LANES + room.out);
                    let v = k.mul("v", v, share);
                    k.store(y, to + g * d + j * LANES, v);
                });
            });
        });
    });
    k.finish()
}

/// The queries of `count` positions, `many` rows, to scratch: as floats, or as bytes with scales of base
/// two.
fn queries(k: &mut Builder, a: &Attention, q: &(Ptr, Int), (count, many): (&Int, &Int), (scratch, room): (Ptr, &Room)) {
    let (d, group, ldq) = (a.head_dim, a.group(), pitch(a.merged()));
    match a.cache {
        Cache::F32 | Cache::F16 => k.each("i", 0usize, count.clone(), |k, i| {
            k.each("j", 0usize, group * d / LANES, |k, j| {
                let v = k.load("q", q.0, q.1.clone() + i.clone() * ldq + j.clone() * LANES);
                k.store(scratch, i * (group * d) + j * LANES + room.queries, v);
            });
        }),
        Cache::Int8 => {
            let rows = a.queries();
            let to = Quantized { ptr: scratch, at: Int::from(room.queries), rows };
            let fill = |k: &mut Builder, i: Int, (ldx, n): (usize, Int)| {
                let mut args: Vec<Arg> = vec![(q.0, q.1.clone() + i.clone() * ldq).into()];
                args.extend(to.arguments(i * group, false));
                args.extend([Arg::from(n), Arg::from(Int::from(0usize))]);
                k.call(&quantize(Source::Plain, ldx, &rows, Span::all(&rows)), args);
            };
            if group == 1 {
                fill(k, Int::from(0usize), (ldq, count.clone()));
            } else {
                k.each("i", 0usize, count.clone(), |k, i| fill(k, i, (d, Int::from(group))));
            }
            let log2e = k.splat("log2e", std::f32::consts::LOG2_E);
            k.each("r", 0usize, many.clone(), |k, r| {
                let at = k.int("scale_at", r * room.query + (room.queries + rows.scales_at()));
                let scale = k.broadcast("scale", scratch, at.clone());
                let scale = k.mul("scale", scale, log2e);
                k.store_one(scratch, at, scale);
            });
        }
    }
}

/// Scores of all rows over a whole block of keys; those of positions behind the last one are of no use.
fn score(
    k: &mut Builder,
    s: &Schedule,
    a: &Attention,
    (scratch, room): (Ptr, &Room),
    (keys, block): (Ptr, &Int),
    many: &Int,
) {
    let d = a.head_dim;
    let c = (scratch, Int::from(room.scores));
    let count = BLOCK / LANES;
    match a.cache {
        Cache::F32 | Cache::F16 => {
            let shape = Shape {
                depth: Int::from(d),
                lines: Int::from(count),
                line: a.cache.lines(d).0,
                lda: room.query,
                ldc: BLOCK,
                ldr: 0,
                halves: a.cache == Cache::F16,
                segment: None,
            };
            let a = (scratch, Int::from(room.queries));
            let x = Operands { a, b: (keys, block.clone()), bias: None, residual: None, c };
            gemm::rows(k, s, &shape, Init::Zero, many.clone(), &x);
        }
        Cache::Int8 => {
            let q = Quantized { ptr: scratch, at: Int::from(room.queries), rows: a.queries() };
            let scale = Some((keys, block.clone() + BLOCK * d / 4));
            let w = integer::Weights { w: (keys, block.clone()), scale, bias: None, residual: None };
            integer::rows(k, s, &q, (&w, Init::Zero), (many, &Int::from(count)), (c, BLOCK));
        }
    }
}

/// The products of the weights and a block of values, added to the rows of the output.
fn mix(
    k: &mut Builder,
    s: &Schedule,
    a: &Attention,
    (scratch, room): (Ptr, &Room),
    (values, block): (Ptr, &Int),
    (many, depth): (&Int, Int),
) {
    let d = a.head_dim;
    let c = (scratch, Int::from(room.out));
    match a.cache {
        Cache::F32 | Cache::F16 => {
            let shape = Shape {
                depth,
                lines: Int::from(lines(d)),
                line: a.cache.lines(d).1,
                lda: BLOCK,
                ldc: d,
                ldr: 0,
                halves: a.cache == Cache::F16,
                segment: None,
            };
            let a = (scratch, Int::from(room.scores));
            let x = Operands { a, b: (values, block.clone()), bias: None, residual: None, c };
            gemm::rows(k, s, &shape, Init::Accumulate, many.clone(), &x);
        }
        Cache::Int8 => {
            let p = Quantized { ptr: scratch, at: Int::from(room.weights), rows: planes() };
            let w = integer::Weights { w: (values, block.clone()), scale: None, bias: None, residual: None };
            integer::rows(k, s, &p, (&w, Init::Accumulate), (many, &Int::from(lines(d))), (c, d));
        }
    }
}
