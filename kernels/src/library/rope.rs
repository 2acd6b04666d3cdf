//! Rotary positions, and the write of keys and values into the cache.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::ir::{Kernel, Op};
use crate::library::attention::Attention;
use crate::library::cache::{GROUP, Write};
use crate::library::linear::Rows;
use crate::library::pitch;

/// Rotates queries and keys of merged rows in place and stores keys and values at their positions;
/// row `i` at position `start + i`. Units `first..last` are [`GROUP`]s of positions, aligned, so that two
/// threads never write one word; the last unit takes what is left. Parameters: qkv, cos, sin, keys,
/// values, [scratch], start, [rows], first, last.
///
/// Element `i` of a head turns with element `i + head_dim / 2`; the tables are
/// `[positions, head_dim / 2]`. `head_dim` is a multiple of 32.
pub fn rope(a: &Attention, rows: Rows) -> Rc<Kernel> {
    let (d, ld) = (a.head_dim, pitch(a.merged()));
    let half = d / 2;
    let one = if rows == Rows::Fixed(1) { "_one" } else { "" };
    let mut k = Builder::new(
        format!("rope_cache{one}_{}_{}x{}x{d}_c{}", a.cache.name(), a.heads, a.kv_heads, a.capacity),
        &[
            "Rotates queries and keys in place, writes keys and values to the cache; units `first..last` of",
            &format!("{GROUP} positions, aligned."),
            "",
            &format!("`qkv` has rows {ld} floats apart; `cos` and `sin` are `[{}, {half}]`.", a.capacity),
            &a.layout(),
        ],
    );
    let (qkv, cos, sin) = (k.write("qkv"), k.read("cos"), k.read("sin"));
    let to = Write::declare(&mut k, a);
    let start = k.size("start");
    let n = rows.size(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let skew = k.int("skew", start.clone() % GROUP as i64);
    let begin = k.int("begin", (first.clone() * GROUP).max(skew.clone()) - skew.clone());
    // One more unit's rows if this is the last one; none where there are no units.
    let more = (last.clone() * GROUP / n.clone().max(1usize)).min(1usize) * GROUP;
    let more = k.int("more", more * (last.clone() - first.clone()).min(1usize));
    let end = k.int("end", ((last * GROUP).max(skew.clone()) - skew + more).min(n));
    k.each("r", begin, end, |k, r| {
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
            a.emit_store(k, (qkv, row), to, h, position);
        });
    });
    k.finish()
}
