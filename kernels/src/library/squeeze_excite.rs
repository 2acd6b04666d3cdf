//! Squeeze and excite.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{BinaryOp, Kernel, Op};
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::{Schedule, lines, pitch};
use crate::math::{Exp, Gelu};

/// Sizes of a squeeze and excite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Pixels of the map.
    pub pixels: usize,
    /// Channels of the map.
    pub channels: usize,
    /// Channels in between.
    pub reduced: usize,
}

/// `gate = sigmoid(b2 + w2 relu(b1 + w1 mean(x)))`. Parameters: x, w1, b1, w2, b2, gate, scratch,
/// first, last (one unit). Scratch: `pitch(channels) + pitch(reduced)` floats.
pub fn gate(s: &Schedule, x: &Shapes) -> Rc<Kernel> {
    let Shapes { pixels, channels, reduced } = *x;
    let ld = pitch(channels);
    let mut k = Builder::new(
        format!("squeeze_excite_f32_{pixels}x{channels}x{reduced}"),
        &[
            "`gate = sigmoid(b2 + w2 relu(b1 + w1 mean(x)))`, the mean over pixels.",
            "",
            &format!(
                "`x` is `[{pixels}, {channels}]`, `w1` is `[{}, {channels}, 16]`, `w2` is `[{}, {reduced}, 16]`.",
                lines(reduced),
                lines(channels)
            ),
        ],
    );
    let (map, w1, b1, w2, b2) = (k.read("x"), k.read("w1"), k.read("b1"), k.read("w2"), k.read("b2"));
    let (gate, scratch) = (k.write("gate"), k.write("scratch"));
    let (first, last) = (k.size("first"), k.size("last"));
    k.if_less(
        first,
        last,
        |k| {
            let (zero, share) = (k.splat("zero", 0.0), k.splat("share", 1.0 / pixels as f32));
            k.each("j", 0usize, lines(channels), |k, j| {
                let sum = k.bind_mut("sum", Op::Copy(zero));
                k.each("p", 0usize, pixels, |k, p| {
                    let v = k.load("v", map, p * ld + j.clone() * LANES);
                    k.set(sum, Op::Binary(BinaryOp::Add, sum, v));
                });
                let mean = k.mul("mean", sum, share);
                k.store(scratch, j * LANES, mean);
            });
            let at = |n: usize| Int::from(n);
            let reduce = Operands {
                a: (scratch, at(0)),
                b: (w1, at(0)),
                bias: Some((b1, at(0))),
                residual: None,
                c: (scratch, at(ld)),
            };
            gemm::vector(k, s, &Shape::dense(channels, reduced), Init::Bias, (at(0), at(lines(reduced))), &reduce);
            k.each("j", 0usize, lines(reduced), |k, j| {
                let v = k.load("v", scratch, j.clone() * LANES + ld);
                let v = k.max("v", v, zero);
                k.store(scratch, j * LANES + ld, v);
            });
            let expand = Operands {
                a: (scratch, at(ld)),
                b: (w2, at(0)),
                bias: Some((b2, at(0))),
                residual: None,
                c: (gate, at(0)),
            };
            gemm::vector(k, s, &Shape::dense(reduced, channels), Init::Bias, (at(0), at(lines(channels))), &expand);
            let f = Exp::new(k);
            k.each("j", 0usize, lines(channels), |k, j| {
                let v = k.load("v", gate, j.clone() * LANES);
                let g = f.sigmoid(k, v, zero);
                k.store(gate, j * LANES, g);
            });
        },
        |_| {},
    );
    k.finish()
}

/// `y = gelu(x * gate)`; pixels in units of `unit`. Parameters: x, gate, y, first, last.
pub fn scale_gelu(x: &Shapes, unit: usize) -> Rc<Kernel> {
    let ld = pitch(x.channels);
    let mut k = Builder::new(
        format!("scale_gelu_f32_{}x{}", x.pixels, x.channels),
        &[
            "`y = gelu(x * gate)`, the gate per channel.",
            "",
            &format!("`x` and `y` are `[{}, {}]`; units of {unit} pixels `first..last`.", x.pixels, x.channels),
        ],
    );
    let (map, gate, y) = (k.read("x"), k.read("gate"), k.write("y"));
    let (first, last) = (k.size("first"), k.size("last"));
    let f = Gelu::new(&mut k);
    k.each("p", first * unit, (last * unit).min(x.pixels), |k, p| {
        k.each("j", 0usize, lines(x.channels), |k, j| {
            let at = k.int("at", p * ld + j.clone() * LANES);
            let v = k.load("v", map, at.clone());
            let g = k.load("g", gate, j * LANES);
            let v = k.mul("v", v, g);
            let v = f.apply(k, v);
            k.store(y, at, v);
        });
    });
    k.finish()
}
