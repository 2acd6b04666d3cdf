//! Rotary positions, and the write of keys and values into the cache.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::ir::{Kernel, Op};
use crate::library::attention::Attention;
use crate::library::pitch;

/// Rotates queries and keys of merged rows in place and stores keys and values at their positions;
/// rows `first..last`, row `i` at position `start + i`. Parameters: qkv, cos, sin, keys, values,
/// start, first, last.
///
/// Element `i` of a head turns with element `i + head_dim / 2`; the tables are
/// `[positions, head_dim / 2]`. `head_dim` is a multiple of 32.
pub fn rope(a: &Attention) -> Rc<Kernel> {
    let (d, ld) = (a.head_dim, pitch(a.merged()));
    let half = d / 2;
    let mut k = Builder::new(
        format!("rope_cache_f32_{}x{}x{d}_c{}", a.heads, a.kv_heads, a.capacity),
        &[
            "Rotates queries and keys in place, writes keys and values to the cache; rows `first..last`.",
            "",
            &format!("`qkv` has rows {ld} floats apart; `cos` and `sin` are `[{}, {half}]`.", a.capacity),
        ],
    );
    let (qkv, cos, sin) = (k.write("qkv"), k.read("cos"), k.read("sin"));
    let (keys, values) = (k.write("keys"), k.write("values"));
    let (start, first, last) = (k.size("start"), k.size("first"), k.size("last"));
    k.each("r", first, last, |k, r| {
        let row = k.int("row", r.clone() * ld);
        let position = k.int("position", start + r);
        k.each("h", 0usize, a.heads + a.kv_heads, |k, h| {
            let at = k.int("at", row.clone() + h * d);
            for j in 0..half / LANES {
                let (low, high) = (at.clone() + j * LANES, at.clone() + half + j * LANES);
                let x = k.load(&format!("x_{j}"), qkv, low.clone());
                let y = k.load(&format!("y_{j}"), qkv, high.clone());
                let c = k.load(&format!("cos_{j}"), cos, position.clone() * half + j * LANES);
                let s = k.load(&format!("sin_{j}"), sin, position.clone() * half + j * LANES);
                let xc = k.mul(&format!("xc_{j}"), x, c);
                let yc = k.mul(&format!("yc_{j}"), y, c);
                let turned_x = k.bind(&format!("turned_x_{j}"), Op::NegMulAdd(y, s, xc));
                let turned_y = k.bind(&format!("turned_y_{j}"), Op::MulAdd(x, s, yc));
                k.store(qkv, low, turned_x);
                k.store(qkv, high, turned_y);
            }
        });
        k.each("kv", 0usize, a.kv_heads, |k, h| {
            a.emit_store(k, (qkv, row), (keys, values), h, position);
        });
    });
    k.finish()
}
