//! Depthwise convolutions, one output row at a time.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Kernel, Op, Ptr, Reg};
use crate::library::{Schedule, lines, pitch};

/// A depthwise convolution along one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Input channels; the output has `multiplier` planes of as many.
    pub channels: usize,
    /// 1, or 2: planes of output channels computed from each input channel.
    pub multiplier: usize,
    /// Side of the kernel, odd.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Pixels of an input row.
    pub width: usize,
}

impl Shape {
    /// Zero padding on each side.
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Pixels of an output row.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Output channels as they lie in memory: two planes are whole lines each, so that channels
    /// that do not fill a line leave a gap of zeros between the planes.
    pub fn out_channels(&self) -> usize {
        if self.multiplier == 1 { self.channels } else { self.multiplier * lines(self.channels) * LANES }
    }

    /// Taps of output pixel `x` that fall inside the row.
    fn taps(&self, x: usize) -> std::ops::Range<usize> {
        let left = x * self.stride;
        let from = self.padding().saturating_sub(left);
        let to = self.kernel.min(self.width + self.padding() - left);
        from..to
    }
}

/// One output row. `x` points at the first input row that a kernel row meets, kernel rows
/// `top..bottom` are inside the picture.
///
/// Weights are `[line][kernel][kernel][16]`, output planes one after the other. Each sum starts
/// from the bias and takes the taps in order, whatever the tile.
pub fn row(s: &Schedule, shape: &Shape) -> Rc<Kernel> {
    let Shape { channels, multiplier, kernel, stride, width } = *shape;
    let (in_lines, in_pitch, out_pitch) = (lines(channels), pitch(channels), pitch(shape.out_channels()));
    let mut k = Builder::new(
        format!("depthwise_f32_{kernel}x{kernel}_s{stride}_{width}x{channels}x{multiplier}"),
        &[
            &format!("One output row of a {kernel}x{kernel} depthwise convolution, stride {stride}."),
            "",
            &format!(
                "`x` is `[bottom - top, {width}, {channels}]`, pixels {in_pitch} floats apart: the input rows that kernel"
            ),
            &format!("rows `top..bottom` meet. `w` is `[{}, {kernel}, {kernel}, 16]`, `y` is", multiplier * in_lines),
            &format!("`[{}, {}]`, pixels {out_pitch} floats apart.", shape.out_width(), shape.out_channels()),
        ],
    );
    let (x, w, bias, y) = (k.read("x"), k.read("w"), k.read("bias"), k.write("y"));
    let (top, bottom) = (k.size("top"), k.size("bottom"));

    let (whole, padding) = (0..kernel, shape.padding());
    let out_width = shape.out_width();
    let left = (0..out_width).take_while(|&p| shape.taps(p) != whole).count();
    let right = (left..out_width).rev().take_while(|&p| shape.taps(p) != whole).count();
    let inner = out_width - left - right;
    let tile = s.depthwise.min(inner.max(1));

    for plane in 0..multiplier {
        k.each("c", 0usize, in_lines, |k, c| {
            let c_out = c.clone() + plane * in_lines;
            let b = k.load("b", bias, c_out.clone() * LANES);
            // First floats of kernel row `r` in `x` and in `w`.
            let row_at = |k: &mut Builder, r: Int| {
                let x_at = k.int("x_at", (r.clone() - top.clone()) * (width * in_pitch) + c.clone() * LANES);
                let w_at = k.int("w_at", (c_out.clone() * kernel + r) * (kernel * LANES));
                (x_at, w_at)
            };
            let edge = |k: &mut Builder, from: usize, to: usize| {
                k.each("e", from, to, |k, e| {
                    let center = k.int("center", e.clone() * stride);
                    let first = k.int("first", Int::from(padding) - center.clone().min(padding));
                    let last = k.int("last", Int::from(kernel).min(Int::from(width + padding) - center.clone()));
                    let pixel = k.int("pixel", center.max(padding) - padding);
                    let acc = k.bind_mut("acc", Op::Copy(b));
                    k.each("r", top.clone(), bottom.clone(), |k, r| {
                        let (x_at, w_at) = row_at(k, r);
                        k.each("t", first.clone(), last, |k, t| {
                            let weight = k.load("w_t", w, w_at + t.clone() * LANES);
                            let v = k.load("x_t", x, x_at + (pixel + (t - first)) * in_pitch);
                            k.mul_add(acc, weight, v);
                        });
                    });
                    k.store(y, e * out_pitch + c_out.clone() * LANES, acc);
                });
            };
            // `n` outputs from `at` on whose windows lie inside the row, the first one at `pixel`.
            let block = |k: &mut Builder, at: Int, n: usize, pixel: Int| {
                let acc: Vec<Reg> = (0..n).map(|i| k.bind_mut(&format!("acc_{i}"), Op::Copy(b))).collect();
                k.each("r", top.clone(), bottom.clone(), |k, r| {
                    let (x_at, w_at) = row_at(k, r);
                    let from = k.int("from", x_at + pixel * in_pitch);
                    accumulate(k, s, shape, (w, w_at), (x, from), &acc);
                });
                for (i, &a) in acc.iter().enumerate() {
                    k.store(y, (at.clone() + i) * out_pitch + c_out.clone() * LANES, a);
                }
            };
            edge(k, 0, left);
            // The last block ends with the row: it may compute outputs again, to the same bits.
            k.each("t", 0usize, inner.div_ceil(tile), |k, t| {
                let at = k.int("at", (t * tile).min(inner - tile) + left);
                block(k, at.clone(), tile, at * stride - padding);
            });
            edge(k, out_width - right, out_width);
        });
    }
    k.finish()
}

/// One kernel row into the accumulators. `x` is at the first tap of the first output.
fn accumulate(k: &mut Builder, s: &Schedule, shape: &Shape, (w, w_at): (Ptr, Int), (x, from): (Ptr, Int), acc: &[Reg]) {
    let (kernel, stride, in_pitch) = (shape.kernel, shape.stride, pitch(shape.channels));
    if s.depthwise_weights_in_registers {
        // Each input pixel is loaded once and meets every output whose window holds it.
        let weights: Vec<Reg> = (0..kernel).map(|t| k.load(&format!("w_{t}"), w, w_at.clone() + t * LANES)).collect();
        for pixel in 0..(acc.len() - 1) * stride + kernel {
            let v = k.load(&format!("x_{pixel}"), x, from.clone() + pixel * in_pitch);
            for (i, &a) in acc.iter().enumerate() {
                if let Some(t) = pixel.checked_sub(i * stride).filter(|t| *t < kernel) {
                    k.mul_add(a, weights[t], v);
                }
            }
        }
    } else {
        for t in 0..kernel {
            let weight = k.load(&format!("w_{t}"), w, w_at.clone() + t * LANES);
            for (i, &a) in acc.iter().enumerate() {
                let v = k.load(&format!("x_{i}"), x, from.clone() + (t + i * stride) * in_pitch);
                k.mul_add(a, weight, v);
            }
        }
    }
}
