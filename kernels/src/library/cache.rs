//! The cache of keys and values: how it lies, and how a row's keys and values come there.
//!
//! Positions lie in blocks, blocks outermost: the first positions of a cache are a run of whole blocks.
//! In a block, keys of a head are `[line of positions][head_dim][16]`, values
//! `[line of head_dim][positions][16]`, so that both products of attention are matrix products like
//! any other: the same orders as those of a matrix of floats or bytes.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, Elem, Kernel, Op, Ptr, ReduceOp, UnaryOp};
use crate::library::attention::Attention;
use crate::library::quantize::TINY;

/// Positions of a block, which is also what attention takes at a time.
pub const BLOCK: usize = 128;

/// Positions of a word of values in bytes: they are written by one thread, in order.
pub const GROUP: usize = 4;

/// The largest byte of keys and values, less the zero point of 64.
const LEVELS: f32 = 63.0;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cache {
    /// Floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Bytes of 7 bits, one scale for each head and position.
    Int8,
}

impl Cache {
    /// Part of a kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Cache::F32 => "f32",
            Cache::F16 => "f16",
            Cache::Int8 => "i8",
        }
    }

    /// A pointer parameter to keys or values.
    pub(super) fn read(self, k: &mut Builder, name: &str) -> Ptr {
        match self {
            Cache::F32 | Cache::Int8 => k.read(name),
            Cache::F16 => k.read_floats(name, Elem::F16),
        }
    }

    /// A pointer parameter to keys or values that are written.
    fn write(self, k: &mut Builder, name: &str) -> Ptr {
        match self {
            Cache::F32 | Cache::Int8 => k.write(name),
            Cache::F16 => k.write_floats(name, Elem::F16),
        }
    }

    /// Elements of the keys, or of the values, of one head in a block; bytes are counted in words, and the
    /// scales of the positions follow them.
    pub fn head(self, head_dim: usize) -> usize {
        match self {
            Cache::F32 | Cache::F16 => BLOCK * head_dim,
            Cache::Int8 => BLOCK * head_dim / 4 + BLOCK,
        }
    }

    /// Elements of a word.
    fn per_word(self) -> usize {
        match self {
            Cache::F32 | Cache::Int8 => 1,
            Cache::F16 => 2,
        }
    }

    /// Elements from one line of keys, and from one line of values, to the next.
    pub fn lines(self, head_dim: usize) -> (usize, usize) {
        let share = match self {
            Cache::F32 | Cache::F16 => 1,
            Cache::Int8 => 4,
        };
        (head_dim * LANES / share, BLOCK * LANES / share)
    }

    /// Floats of scratch of kernels that write the cache.
    pub fn scratch(self, head_dim: usize) -> usize {
        match self {
            Cache::F32 | Cache::F16 => 0,
            Cache::Int8 => head_dim / 4,
        }
    }
}

/// The parameters of a kernel that writes the cache.
#[derive(Clone, Copy)]
pub(super) struct Write {
    keys: Ptr,
    values: Ptr,
    /// There where [`Cache::scratch`] says so.
    scratch: Option<Ptr>,
}

impl Write {
    /// Declares the parameters keys, values, [scratch].
    pub fn declare(k: &mut Builder, a: &Attention) -> Write {
        let (keys, values) = (a.cache.write(k, "keys"), a.cache.write(k, "values"));
        Write { keys, values, scratch: (a.cache.scratch(a.head_dim) > 0).then(|| k.write("scratch")) }
    }
}

impl Attention {
    /// Elements of the keys, or of the values, of a block of positions.
    pub(super) fn block(&self) -> usize {
        self.kv_heads * self.cache.head(self.head_dim)
    }

    /// Floats of the keys, or of the values, of a block of [`BLOCK`] positions. The blocks of a cache follow
    /// each other, and positions of later ones are not among them.
    pub fn block_floats(&self) -> usize {
        self.block() / self.cache.per_word()
    }

    /// How the keys, or the values, are cut: pieces, floats from one to the next, positions of a block, floats of a
    /// block. Blocks follow each other in a piece.
    pub fn blocks(&self) -> [usize; 4] {
        [1, self.cache_floats(), BLOCK, self.block_floats()]
    }

    /// Floats of the keys, or of the values, of all positions.
    pub fn cache_floats(&self) -> usize {
        self.capacity.div_ceil(BLOCK) * self.block_floats()
    }

    /// Emits the copy of one row's keys and values of head `h` to their place at `position`. Positions of
    /// a [`GROUP`] come in order.
    pub(super) fn emit_store(
        &self,
        k: &mut Builder,
        (merged, row): (Ptr, Int),
        Write { keys, values, scratch }: Write,
        h: Int,
        position: Int,
    ) {
        let (d, (key_line, value_line)) = (self.head_dim, self.cache.lines(self.head_dim));
        let key = k.int("key", row.clone() + (h.clone() + self.heads) * d);
        let value = k.int("value", row + (h.clone() + self.heads + self.kv_heads) * d);
        let head = position.clone() / BLOCK as i64 * self.block() + h * self.cache.head(d);
        let head = k.int("head", head);
        let at = k.int("in_block", position % BLOCK as i64);
        let to = head.clone() + at.clone() / LANES as i64 * key_line + at.clone() % LANES as i64;
        let to = k.int("k_to", to);
        match (self.cache, scratch) {
            (Cache::Int8, Some(scratch)) => {
                let scale = head.clone() + BLOCK * d / 4 + at.clone();
                let bytes = bytes(d);
                k.call(&bytes, vec![(merged, key).into(), scratch.into(), (keys, scale.clone()).into()]);
                k.each("c", 0usize, d / 4, |k, c| k.copy_one(keys, to + c.clone() * LANES, scratch, c));
                k.call(&bytes, vec![(merged, value).into(), scratch.into(), (values, scale).into()]);
                let byte = k.int("byte", at.clone() % GROUP as i64);
                let to = k.int("v_to", head + at / GROUP as i64 * LANES);
                let [q, to] = [Arg::from(scratch), (values, to).into()];
                let first = |k: &mut Builder| k.call(&interleave(d, true), vec![q.clone(), to.clone()]);
                let later = |k: &mut Builder| {
                    // 2^8, 2^16 or 2^24.
                    let factor =
                        (byte.clone() % 2i64 * 255usize + 1usize) * (byte.clone() / 2i64 * 65535usize + 1usize);
                    k.call(&interleave(d, false), vec![q.clone(), to.clone(), factor.into()]);
                };
                k.if_less(byte.clone(), 1usize, first, later);
            }
            (Cache::F32 | Cache::F16 | Cache::Int8, _) => {
                k.each("c", 0usize, d, |k, c| {
                    let v = k.broadcast("c_of_key", merged, key + c.clone());
                    k.store_one(keys, to + c * LANES, v);
                });
                let to = k.int("v_to", head + at * LANES);
                for j in 0..d / LANES {
                    let v = k.load(&format!("v_{j}"), merged, value.clone() + j * LANES);
                    k.store(values, to.clone() + j * value_line, v);
                }
            }
        }
    }
}

/// A head's row as bytes. Parameters: x, q, scale.
fn bytes(channels: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("quantize_u7_{channels}"),
        &["`q = round(x / scale) + 64`, `scale = max(abs(x)) / 63`.", "", &format!("`x` and `q` are `[{channels}]`.")],
    );
    let (x, q, to) = (k.read("x"), k.write_i8("q"), k.write("scale"));
    let abs = k.bind("abs", Op::SplatBits(0x7fff_ffff));
    let middle = k.bind("middle", Op::SplatBits(64));
    let peak = k.bind_mut("peak", Op::Splat(0.0));
    k.each("j", 0usize, channels / LANES, |k, j| {
        let v = k.load("v", x, j * LANES);
        let v = k.unary("v", UnaryOp::BitsToInt, v);
        let v = k.binary("v", BinaryOp::And, v, abs);
        let v = k.unary("v", UnaryOp::BitsToFloat, v);
        k.set(peak, Op::Binary(BinaryOp::Max, v, peak));
    });
    let peak = k.reduce("peak", ReduceOp::Max, peak);
    let share = k.splat("share", 1.0 / LEVELS);
    let scale = k.mul("scale_of", peak, share);
    k.store_one(to, 0usize, scale);
    let (tiny, levels) = (k.splat("tiny", TINY), k.splat("levels", LEVELS));
    let bound = k.max("bound", peak, tiny);
    let inverse = k.div("inverse", levels, bound);
    k.each("j", 0usize, channels / LANES, |k, j| {
        let v = k.load("v", x, j.clone() * LANES);
        let v = k.mul("v", v, inverse);
        let n = k.unary("n", UnaryOp::RoundToInt, v);
        let n = k.binary("n", BinaryOp::AddInt, n, middle);
        k.store(q, j * LANES, n);
    });
    k.finish()
}

/// A head's row of bytes to one byte of each of its words, the first one or a later one. Parameters: q,
/// values, [factor].
fn interleave(channels: usize, first: bool) -> Rc<Kernel> {
    let shapes = format!("`q` is `[{channels}]`, `values` is `[{}, {}, 16]`", channels / LANES, BLOCK / GROUP);
    let name = if first { "first" } else { "later" };
    let docs = match first {
        true => ["The first position of the words of four; the other three become zero.", "", &format!("{shapes}.")],
        false => [
            "A later position of the words of four: those before it stay, those behind it are zero.",
            "",
            &format!("{shapes}, `factor` is 256 to the power of its place."),
        ],
    };
    let mut k = Builder::new(format!("interleave_u7_{name}_{channels}"), &docs);
    let (q, values) = (k.read_i8("q"), k.write_u32("values"));
    let factor = (!first).then(|| {
        let factor = k.size("factor");
        let earlier = k.bind("earlier", Op::SplatInt(factor.clone() - 1usize));
        (k.bind("by", Op::SplatInt(factor)), earlier)
    });
    k.each("j", 0usize, channels / LANES, |k, j| {
        let mut n = k.load("n", q, j.clone() * LANES);
        let at = k.int("at", j * (BLOCK / GROUP * LANES));
        if let Some((factor, earlier)) = factor {
            n = k.binary("n", BinaryOp::MulInt, n, factor);
            let old = k.load("old", values, at.clone());
            let old = k.binary("old", BinaryOp::And, old, earlier);
            n = k.binary("new", BinaryOp::Or, old, n);
        }
        k.store(values, at, n);
    });
    k.finish()
}

/// Copies keys and values of `rows` merged rows; heads `first..last`. Parameters: qkv, keys, values,
/// [scratch], first, last.
pub fn pack(a: &Attention, rows: usize) -> Rc<Kernel> {
    let ld = crate::library::pitch(a.merged());
    let mut k = Builder::new(
        format!("pack_kv_{}_{rows}x{}x{}", a.cache.name(), a.kv_heads, a.head_dim),
        &[
            "Keys and values of merged rows to their places; heads `first..last`.",
            "",
            &format!("`qkv` is `[{rows}, {}]` with rows {ld} floats apart.", a.merged()),
            &a.layout(),
        ],
    );
    let qkv = k.read("qkv");
    let to = Write::declare(&mut k, a);
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("h", first, last, |k, h| {
        if a.cache == Cache::Int8 && !rows.is_multiple_of(BLOCK) {
            // Bytes of positions that are not there meet the products, which want at most 127.
            let words = a.cache.head(a.head_dim);
            let at = k.int("rest", h.clone() * words + rows / BLOCK * a.block());
            let zero = k.splat("zero", 0.0);
            k.each("j", 0usize, words / LANES, |k, j| {
                k.store(to.keys, at.clone() + j.clone() * LANES, zero);
                k.store(to.values, at + j * LANES, zero);
            });
        }
        k.each("t", 0usize, rows, |k, t| {
            let row = k.int("row", t.clone() * ld);
            a.emit_store(k, (qkv, row), to, h, t);
        });
    });
    k.finish()
}
