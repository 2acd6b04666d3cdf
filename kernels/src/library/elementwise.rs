//! Elementwise work on rows: GELU, SwiGLU, copies.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::ir::{Kernel, Op};
use crate::library::{lines, pitch};
use crate::math::{Exp, Gelu};

/// `x = gelu(x)` on rows of `channels`, in place.
pub fn gelu(channels: usize) -> Rc<Kernel> {
    let (n, pitch) = (lines(channels), pitch(channels));
    let mut k = Builder::new(
        format!("gelu_f32_{channels}"),
        &[
            "`x = x / 2 (1 + erf(x / sqrt 2))` in place.",
            "",
            &format!("`x` is `[rows, {channels}]` with rows {pitch} floats apart."),
        ],
    );
    let x = k.write("x");
    let rows = k.size("rows");
    let f = Gelu::new(&mut k);
    k.each("i", 0usize, rows, |k, i| {
        k.each("j", 0usize, n, |k, j| {
            let at = k.int("at", i * pitch + j * LANES);
            let v = k.load("v", x, at.clone());
            let y = f.apply(k, v);
            k.store(x, at, y);
        });
    });
    k.finish()
}

/// `y = silu(gate) * up` on rows of `channels` outputs; lines of gate and up alternate in `x`.
pub fn swiglu(channels: usize) -> Rc<Kernel> {
    let (n, ldx, ldy) = (lines(channels), pitch(2 * channels), pitch(channels));
    let mut k = Builder::new(
        format!("swiglu_f32_{channels}"),
        &[
            "`y = gate / (1 + exp(-gate)) * up`; lines of gate and up alternate in `x`.",
            "",
            &format!(
                "`x` is `[rows, {}]`, `y` is `[rows, {channels}]`; lines `first..last` of `y` are made.",
                2 * channels
            ),
        ],
    );
    let (x, y) = (k.read("x"), k.write("y"));
    let (rows, first, last) = (k.size("rows"), k.size("first"), k.size("last"));
    let _ = n;
    let f = Exp::new(&mut k);
    let zero = k.splat("zero", 0.0);
    k.each("i", 0usize, rows, |k, i| {
        k.each("j", first, last, |k, j| {
            let gate = k.load("gate", x, i.clone() * ldx + j.clone() * (2 * LANES));
            let up = k.load("up", x, i.clone() * ldx + j.clone() * (2 * LANES) + LANES);
            let s = f.sigmoid(k, gate, zero);
            let g = k.mul("silu", gate, s);
            let out = k.mul("out", g, up);
            k.store(y, i * ldy + j * LANES, out);
        });
    });
    k.finish()
}

/// Copies rows of `channels`.
pub fn copy(channels: usize) -> Rc<Kernel> {
    let (n, pitch) = (lines(channels), pitch(channels));
    let mut k = Builder::new(
        format!("copy_f32_{channels}"),
        &["`y = x`.", "", &format!("Both are `[rows, {channels}]` with rows {pitch} floats apart.")],
    );
    let (x, y) = (k.read("x"), k.write("y"));
    let rows = k.size("rows");
    k.each("i", 0usize, rows, |k, i| {
        k.each("j", 0usize, n, |k, j| {
            let v = k.bind("v", Op::Load(x, i.clone() * pitch + j.clone() * LANES));
            k.store(y, i * pitch + j * LANES, v);
        });
    });
    k.finish()
}
