//! Attention: keys and values in the order the products read them, and the products.
//!
//! Keys of one head are `[line of keys][head_dim][16]`, values `[line of head_dim][keys][16]`, so
//! both products are matrix products like any other.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::Kernel;
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::linear::Rows;
use crate::library::{Schedule, lines, pitch, softmax};

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
}

impl Attention {
    /// Channels of a merged row of queries, keys and values.
    pub fn merged(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Floats of the keys, or of the values, of one head.
    pub fn head_floats(&self) -> usize {
        lines(self.capacity) * LANES * self.head_dim
    }

    /// How the keys of the cache are cut: pieces, floats from one to the next, positions of a block, floats of a block.
    /// Blocks follow each other in a piece.
    pub fn key_blocks(&self) -> [usize; 4] {
        [self.kv_heads, self.head_floats(), LANES, LANES * self.head_dim]
    }

    /// How the values of the cache are cut, as [`Attention::key_blocks`].
    pub fn value_blocks(&self) -> [usize; 4] {
        let piece = lines(self.capacity) * LANES * LANES;
        [self.kv_heads * self.head_dim / LANES, piece, LANES, LANES * LANES]
    }

    /// Floats of the keys, or of the values, of all heads.
    pub fn cache_floats(&self) -> usize {
        self.kv_heads * self.head_floats()
    }

    /// Emits the copy of one row's keys and values of head `h` to their place at `position`.
    pub fn emit_store(
        &self,
        k: &mut Builder,
        (merged, row): (crate::Ptr, Int),
        (keys, values): (crate::Ptr, crate::Ptr),
        h: Int,
        position: Int,
    ) {
        let d = self.head_dim;
        let from = k.int("k_at", row.clone() + (h.clone() + self.heads) * d);
        let (line, lane) = (position.clone() / LANES as i64, position.clone() % LANES as i64);
        let to = k.int("k_to", h.clone() * self.head_floats() + line * (d * LANES) + lane);
        k.each("c", 0usize, d, |k, c| {
            k.copy_one(keys, to + c.clone() * LANES, merged, from + c);
        });
        let from = k.int("v_at", row + (h.clone() + self.heads + self.kv_heads) * d);
        let to = k.int("v_to", h * self.head_floats() + position * LANES);
        for j in 0..d / LANES {
            let v = k.load(&format!("v_{j}"), merged, from.clone() + j * LANES);
            k.store(values, to.clone() + j * (lines(self.capacity) * LANES * LANES), v);
        }
    }
}

/// Copies keys and values of `rows` merged rows; heads `first..last`. Parameters: qkv, keys, values,
/// first, last.
pub fn pack(a: &Attention, rows: usize) -> Rc<Kernel> {
    let ld = pitch(a.merged());
    let mut k = Builder::new(
        format!("pack_kv_f32_{rows}x{}x{}", a.kv_heads, a.head_dim),
        &[
            "Keys and values of merged rows to their panels; heads `first..last`.",
            "",
            &format!(
                "`qkv` is `[{rows}, {}]` with rows {ld} floats apart, `keys` is `[{}, {}, {}, 16]`,",
                a.merged(),
                a.kv_heads,
                lines(a.capacity),
                a.head_dim
            ),
            &format!("`values` is `[{}, {}, {}, 16]`.", a.kv_heads, lines(a.head_dim), lines(a.capacity) * LANES),
        ],
    );
    let (qkv, keys, values) = (k.read("qkv"), k.write("keys"), k.write("values"));
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("h", first, last, |k, h| {
        k.each("t", 0usize, rows, |k, t| {
            let row = k.int("row", t.clone() * ld);
            a.emit_store(k, (qkv, row), (keys, values), h, t);
        });
    });
    k.finish()
}

/// Attention of all rows; a unit is a head and a block of `block` rows, heads outermost.
/// Parameters: qkv, keys, values, y, scratch, [start, rows], first, last.
///
/// Row `i` is position `start + i` and sees the keys `0..=start + i` if causal, else all of
/// `rows`. Scratch: `block * pitch(capacity)` floats.
pub fn attend(s: &Schedule, a: &Attention, rows: Rows, block: usize) -> Rc<Kernel> {
    let (d, group) = (a.head_dim, a.heads / a.kv_heads);
    let (ldq, ldy, lds) = (pitch(a.merged()), pitch(a.heads * d), pitch(a.capacity));
    let unit = block.min(rows.most());
    let causal = if a.causal { "_causal" } else { "" };
    let one = if rows == Rows::Fixed(1) { "_one" } else { "" };
    let mut k = Builder::new(
        format!("attend{causal}{one}_f32_{}x{d}_c{}", a.heads, a.capacity),
        &[
            &format!("`y = softmax(q keys) values` for {} heads of {d}, {} of keys and values.", a.heads, a.kv_heads),
            "",
            &format!("A unit is a head and {unit} rows. `qkv` has rows {ldq} floats apart, `y` {ldy}; `keys` is"),
            &format!(
                "`[{}, {}, {d}, 16]`, `values` is `[{}, {}, {}, 16]`.",
                a.kv_heads,
                lines(a.capacity),
                a.kv_heads,
                lines(d),
                lines(a.capacity) * LANES
            ),
        ],
    );
    let (qkv, keys, values) = (k.read("qkv"), k.read("keys"), k.read("values"));
    let (y, scratch) = (k.write("y"), k.write("scratch"));
    let start = if a.causal { k.size("start") } else { Int::from(0usize) };
    let n = match rows {
        Rows::Fixed(n) => Int::from(n),
        Rows::UpTo(_) => k.size("rows"),
    };
    let (first, last) = (k.size("first"), k.size("last"));
    // Never zero, which the compiler of the printed code cannot know.
    let blocks = k.int("blocks", n.clone().div_ceil(unit as i64).max(1usize));
    let softmax = softmax::softmax(lds, a.causal);
    k.each("u", first, last, |k, u| {
        let head = k.int("head", u.clone() / blocks.clone());
        let row = k.int("row", (u % blocks) * unit);
        let count = k.int("count", Int::from(unit).min(n.clone() - row.clone()));
        let kv = k.int("kv", head.clone() / group as i64 * a.head_floats());
        // Keys that the block's last row sees.
        let seen = if a.causal { start.clone() + row.clone() + count.clone() } else { n.clone() };
        let seen = k.int("seen", seen);
        let seen_lines = k.int("seen_lines", seen.clone().div_ceil(LANES as i64));
        let scores = Operands {
            a: (qkv, row.clone() * ldq + head.clone() * d),
            b: (keys, kv.clone()),
            bias: None,
            residual: None,
            c: (scratch, Int::from(0usize)),
        };
        let shape = Shape {
            depth: Int::from(d),
            lines: seen_lines.clone(),
            line: d * LANES,
            lda: ldq,
            ldc: lds,
            ldr: 0,
            segment: None,
        };
        gemm::rows(k, s, &shape, Init::Zero, count.clone(), &scores);
        let visible = if a.causal { start.clone() + row.clone() + 1usize } else { n };
        k.call(&softmax, vec![scratch.into(), count.clone().into(), visible.into(), seen_lines.into()]);
        let mix = Operands {
            a: (scratch, Int::from(0usize)),
            b: (values, kv),
            bias: None,
            residual: None,
            c: (y, row * ldy + head * d),
        };
        let shape = Shape {
            depth: seen,
            lines: Int::from(lines(d)),
            line: lines(a.capacity) * LANES * LANES,
            lda: lds,
            ldc: ldy,
            ldr: 0,
            segment: None,
        };
        gemm::rows(k, s, &shape, Init::Zero, count, &mix);
    });
    k.finish()
}
