//! Softmax over the keys of an attention block.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{BinaryOp, CompareOp, Kernel, Op, ReduceOp, Reg};
use crate::math::Exp;

/// `s = softmax(s)` in place: row `i` over its first `keys` (not causal) or `keys + i` (causal)
/// columns; the rest of the `lines` lines becomes zero.
pub fn softmax(pitch: usize, causal: bool) -> Rc<Kernel> {
    let (name, columns) = if causal { ("softmax_causal", "`keys + i`") } else { ("softmax", "`keys`") };
    let mut k = Builder::new(
        format!("{name}_f32_{pitch}"),
        &[
            &format!("`s = softmax(s)` in place, row `i` over its first {columns} columns; the rest becomes zero."),
            "",
            &format!("`s` is `[rows, 16 * lines]` with rows {pitch} floats apart."),
        ],
    );
    let s = k.write("s");
    let (rows, keys, lines) = (k.size("rows"), k.size("keys"), k.size("lines"));
    let f = Exp::new(&mut k);
    let (zero, lowest) = (k.splat("zero", 0.0), k.splat("lowest", f32::MIN));
    let lane = k.bind("lane", Op::Iota(0));
    k.each("i", 0usize, rows, |k, i| {
        let row = k.int("row", i.clone() * pitch);
        let count = if causal { keys.clone() + i } else { keys };
        let count = k.bind("count", Op::SplatInt(count));
        let largest = k.bind_mut("largest", Op::Splat(f32::MIN));
        k.each("j", 0usize, lines.clone(), |k, j| {
            let valid = in_range(k, lane, &j, count);
            let v = k.load("v", s, row.clone() + j * LANES);
            let v = k.select("v", valid, v, lowest);
            k.set(largest, Op::Binary(BinaryOp::Max, v, largest));
        });
        let top = k.reduce("top", ReduceOp::Max, largest);
        let sum = k.bind_mut("sum", Op::Splat(0.0));
        k.each("j", 0usize, lines.clone(), |k, j| {
            let valid = in_range(k, lane, &j, count);
            let v = k.load("v", s, row.clone() + j.clone() * LANES);
            let v = k.sub("v", v, top);
            let e = f.apply(k, v);
            let e = k.select("e", valid, e, zero);
            k.set(sum, Op::Binary(BinaryOp::Add, sum, e));
            k.store(s, row.clone() + j * LANES, e);
        });
        let total = k.reduce("total", ReduceOp::Add, sum);
        let scale = k.div("scale", f.one(), total);
        k.each("j", 0usize, lines, |k, j| {
            let v = k.load("v", s, row.clone() + j.clone() * LANES);
            let v = k.mul("v", v, scale);
            k.store(s, row.clone() + j * LANES, v);
        });
    });
    k.finish()
}

/// Which lanes of line `j` are below `count`.
fn in_range(k: &mut Builder, lane: Reg, j: &Int, count: Reg) -> Reg {
    let base = k.bind("base", Op::SplatInt(j.clone() * LANES));
    let column = k.binary("column", BinaryOp::AddInt, lane, base);
    k.compare("valid", CompareOp::LessInt, column, count)
}
