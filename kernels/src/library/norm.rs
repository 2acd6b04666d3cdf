//! Normalizations of rows, without their gains, which are folded into the next matrix.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::ir::{BinaryOp, Elem, Kernel, Op, Ptr, ReduceOp, Reg, UnaryOp};
use crate::library::{lines, pitch};

fn each_line(k: &mut Builder, n: usize, body: impl FnOnce(&mut Builder, crate::Int)) {
    k.each("j", 0usize, n, |k, j| {
        let at = k.int("at", j * LANES);
        body(k, at);
    });
}

/// `y = (x - mean) / sqrt(variance + eps)`, row by row; the biased variance.
///
/// `channels` is a multiple of 16.
pub fn layer_norm(channels: usize, eps: f32, from: Elem) -> Rc<Kernel> {
    let (n, pitch) = (lines(channels), pitch(channels));
    let mut k = Builder::new(
        format!("layer_norm_{}_{channels}", from.name()),
        &[
            &format!("`y = (x - mean(x)) / sqrt(variance(x) + {eps:e})` for each row."),
            "",
            &format!("`x` and `y` are `[rows, {channels}]` with rows {pitch} elements apart."),
        ],
    );
    let (x, y) = (k.read_floats("x", from), k.write("y"));
    let rows = k.size("rows");
    let scale = k.splat("per_channel", 1.0 / channels as f32);
    let eps = k.splat("eps", eps);
    let one = k.splat("one", 1.0);
    k.each("i", 0usize, rows, |k, i| {
        let row = k.int("row", i * pitch);
        let sum = k.bind_mut("sum", Op::Splat(0.0));
        each_line(k, n, |k, at| {
            let v = k.load("v", x, row.clone() + at);
            k.set(sum, Op::Binary(BinaryOp::Add, sum, v));
        });
        let total = k.reduce("total", ReduceOp::Add, sum);
        let mean = k.mul("mean", total, scale);
        let squares = k.bind_mut("squares", Op::Splat(0.0));
        each_line(k, n, |k, at| {
            let v = k.load("v", x, row.clone() + at);
            let d = k.sub("d", v, mean);
            k.mul_add(squares, d, d);
        });
        let total = k.reduce("total", ReduceOp::Add, squares);
        let inverse = inverse_root(k, total, scale, eps, one);
        each_line(k, n, |k, at| {
            let v = k.load("v", x, row.clone() + at.clone());
            let d = k.sub("d", v, mean);
            let out = k.mul("out", d, inverse);
            k.store(y, row.clone() + at, out);
        });
    });
    k.finish()
}

fn inverse_root(k: &mut Builder, total: Reg, scale: Reg, eps: Reg, one: Reg) -> Reg {
    let mean = k.bind("mean_square", Op::MulAdd(total, scale, eps));
    let root = k.unary("root", UnaryOp::Sqrt, mean);
    k.div("inverse", one, root)
}

/// `y = x / sqrt(mean(x^2) + eps) [* gain]`, row by row.
///
/// `channels` is a multiple of 16.
pub fn rms_norm(channels: usize, eps: f32, with_gain: bool) -> Rc<Kernel> {
    let (n, pitch) = (lines(channels), pitch(channels));
    let (suffix, formula) = if with_gain { ("_gain", " * gain") } else { ("", "") };
    let mut k = Builder::new(
        format!("rms_norm{suffix}_f32_{channels}"),
        &[
            &format!("`y = x / sqrt(mean(x^2) + {eps:e}){formula}` for each row."),
            "",
            &format!("`x` and `y` are `[rows, {channels}]` with rows {pitch} floats apart."),
        ],
    );
    let x = k.read("x");
    let gain: Option<Ptr> = with_gain.then(|| k.read("gain"));
    let y = k.write("y");
    let rows = k.size("rows");
    let scale = k.splat("per_channel", 1.0 / channels as f32);
    let eps = k.splat("eps", eps);
    let one = k.splat("one", 1.0);
    k.each("i", 0usize, rows, |k, i| {
        let row = k.int("row", i * pitch);
        let squares = k.bind_mut("squares", Op::Splat(0.0));
        each_line(k, n, |k, at| {
            let v = k.load("v", x, row.clone() + at);
            k.mul_add(squares, v, v);
        });
        let total = k.reduce("total", ReduceOp::Add, squares);
        let inverse = inverse_root(k, total, scale, eps, one);
        each_line(k, n, |k, at| {
            let v = k.load("v", x, row.clone() + at.clone());
            let mut out = k.mul("out", v, inverse);
            if let Some(gain) = gain {
                let g = k.load("g", gain, at.clone());
                out = k.mul("out", out, g);
            }
            k.store(y, row.clone() + at, out);
        });
    });
    k.finish()
}
