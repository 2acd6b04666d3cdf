//! Elementwise work on rows: GELU, SwiGLU, copies.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Elem, Kernel, Op, Ptr, Reg};
use crate::library::{lines, pitch};
use crate::math::{Exp, Gelu};

/// `x = gelu(x)` on rows of `channels`, in place.
pub fn gelu(channels: usize) -> Rc<Kernel> {
    let pitch = pitch(channels);
    let mut k = Builder::new(
        format!("gelu_f32_{channels}"),
        &[
            "`x = x / 2 (1 + erf(x / sqrt 2))` in place.",
            "",
            &format!("`x` is `[rows, {channels}]` with rows {pitch} floats apart."),
        ],
    );
    let x = k.write("x");
    gelu_rows(&mut k, channels, x, x);
    k.finish()
}

/// `y = gelu(x)` on rows of `channels`, stored as `to`.
pub fn gelu_into(channels: usize, to: Elem) -> Rc<Kernel> {
    let pitch = pitch(channels);
    let mut k = Builder::new(
        format!("gelu_f32{}_{channels}", to.name()),
        &[
            "`y = x / 2 (1 + erf(x / sqrt 2))`.",
            "",
            &format!("`x` and `y` are `[rows, {channels}]` with rows {pitch} elements apart."),
        ],
    );
    let (x, y) = (k.read("x"), k.write_floats("y", to));
    gelu_rows(&mut k, channels, x, y);
    k.finish()
}

/// Emits `y = gelu(x)` on the rows of a parameter.
fn gelu_rows(k: &mut Builder, channels: usize, x: Ptr, y: Ptr) {
    let rows = k.size("rows");
    let f = Gelu::new(k);
    k.each("i", 0usize, rows, |k, i| {
        k.each("j", 0usize, lines(channels), |k, j| {
            let at = k.int("at", i * pitch(channels) + j * LANES);
            let v = k.load("v", x, at.clone());
            let out = f.apply(k, v);
            k.store(y, at, out);
        });
    });
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

/// `y = d x` by channel, where output `planes * i + m` reads channel `i` of plane `m`: the diagonal of
/// a matrix behind a convolution that multiplies channels.
///
/// # Panics
/// For more than two planes.
pub fn diagonal(planes: usize, channels: usize) -> Rc<Kernel> {
    assert!(planes == 1 || planes == 2, "a diagonal over {planes} planes");
    let out = planes * channels;
    let (each, n) = (lines(channels), lines(out));
    let (ldx, ldy) = (pitch(planes * each * LANES), pitch(out));
    let mut k = Builder::new(
        format!("diagonal_f32_{channels}x{planes}"),
        &[
            "`y = d x` by channel; output `planes * i + m` reads channel `i` of plane `m` of `x`.",
            "",
            &format!(
                "`x` is `[rows, {planes}, {channels}]` with rows {ldx} floats apart, `y` is `[rows, {out}]` with rows {ldy}."
            ),
        ],
    );
    let (x, d, y) = (k.read("x"), k.read("d"), k.write("y"));
    let rows = k.size("rows");
    k.each("i", 0usize, rows, |k, i| {
        let times = |k: &mut Builder, v: Reg, line: Int| {
            let factor = k.load("factor", d, line.clone() * LANES);
            let v = k.mul("product", v, factor);
            k.store(y, i.clone() * ldy + line * LANES, v);
        };
        let loaded = |k: &mut Builder, line: Int| k.load("v", x, i.clone() * ldx + line * LANES);
        if planes == 1 {
            return k.each("j", 0usize, n, |k, j| {
                let v = loaded(k, j.clone());
                times(k, v, j);
            });
        }
        let pair = |k: &mut Builder, j: Int, both: bool| {
            let (a, b) = (loaded(k, j.clone()), loaded(k, j.clone() + each));
            let low = k.bind("low", Op::InterleaveLow(a, b));
            times(k, low, j.clone() * 2usize);
            if both {
                let high = k.bind("high", Op::InterleaveHigh(a, b));
                times(k, high, j * 2usize + 1usize);
            }
        };
        k.each("j", 0usize, n / 2, |k, j| pair(k, j, true));
        if !n.is_multiple_of(2) {
            pair(k, Int::from(n / 2), false);
        }
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
