//! Depthwise convolutions, one output row at a time.

use std::ops::Range;
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
    fn taps(&self, x: usize) -> Range<usize> {
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

    let (padding, out_width) = (shape.padding(), shape.out_width());
    let tile = s.depthwise.min(out_width);
    // Outputs at both ends whose windows meet the border.
    let left = (0..out_width).take_while(|&x| shape.taps(x).start > 0).count();
    let right = (left..out_width).rev().take_while(|&x| shape.taps(x).end < kernel).count();

    for plane in 0..multiplier {
        k.each("c", 0usize, in_lines, |k, c| {
            let c_out = c.clone() + plane * in_lines;
            let b = k.load("b", bias, c_out.clone() * LANES);
            // The outputs of a tile from `at` on; tap 0 of the first one lies at `from`, and pixels
            // `taps` of its window are inside the row.
            let block = |k: &mut Builder, at: Int, from: Int, taps: Range<usize>| {
                let acc: Vec<Reg> = (0..tile).map(|i| k.bind_mut(&format!("acc_{i}"), Op::Copy(b))).collect();
                k.each("r", top.clone(), bottom.clone(), |k, r| {
                    let row_at = (r.clone() - top.clone()) * (width * in_pitch) + c.clone() * LANES;
                    let x_at = k.int("x_at", row_at + from.clone() * in_pitch);
                    let w_at = k.int("w_at", (c_out.clone() * kernel + r) * (kernel * LANES));
                    accumulate(k, s, shape, (w, w_at), (x, x_at), &acc, &taps);
                });
                for (i, &a) in acc.iter().enumerate() {
                    k.store(y, (at.clone() + i) * out_pitch + c_out.clone() * LANES, a);
                }
            };
            let window = (tile - 1) * stride + kernel;
            let border = |k: &mut Builder, at: usize| {
                let first = at * stride;
                let taps = padding.saturating_sub(first)..window.min(width + padding - first);
                block(k, Int::from(at), Int::from((first + taps.start) - padding), taps);
            };
            // Tiles overlap where they do not divide the row: an output computed again has the same bits.
            if out_width - left - right < tile {
                return (0..out_width.div_ceil(tile)).for_each(|t| border(k, (t * tile).min(out_width - tile)));
            }
            let (before, after) = (left.div_ceil(tile), right.div_ceil(tile));
            (0..before).for_each(|t| border(k, t * tile));
            let middle = out_width.saturating_sub((before + after) * tile);
            k.each("t", 0usize, middle.div_ceil(tile), |k, t| {
                let at = k.int("at", ((t + before) * tile).min(out_width - right - tile));
                block(k, at.clone(), at * stride - padding, 0..window);
            });
            (0..after).rev().for_each(|t| border(k, out_width - (t + 1) * tile));
        });
    }
    k.finish()
}

/// One kernel row into the accumulators: the pixels `taps` of the window of all outputs, the first of
/// them at `from`.
fn accumulate(
    k: &mut Builder,
    s: &Schedule,
    shape: &Shape,
    (w, w_at): (Ptr, Int),
    (x, from): (Ptr, Int),
    acc: &[Reg],
    taps: &Range<usize>,
) {
    let (kernel, stride, in_pitch) = (shape.kernel, shape.stride, pitch(shape.channels));
    let pixel = |k: &mut Builder, name: usize, p: usize| {
        k.load(&format!("x_{name}"), x, from.clone() + (p - taps.start) * in_pitch)
    };
    // At the ends of a row some weights meet border only.
    let met = |t: &usize| (0..acc.len()).any(|i| taps.contains(&(t + i * stride)));
    let weight = |k: &mut Builder, t: usize| k.load(&format!("w_{t}"), w, w_at.clone() + t * LANES);
    if s.depthwise_weights_in_registers {
        // Each input pixel is loaded once and meets every output whose window holds it.
        let weights: Vec<Option<Reg>> = (0..kernel).map(|t| met(&t).then(|| weight(k, t))).collect();
        for p in taps.clone() {
            let v = pixel(k, p, p);
            for (i, &a) in acc.iter().enumerate() {
                let t = p.checked_sub(i * stride);
                if let Some(tap) = t.and_then(|t| weights.get(t).copied().flatten()) {
                    k.mul_add(a, tap, v);
                }
            }
        }
    } else {
        for t in (0..kernel).filter(met) {
            let weight = weight(k, t);
            for (i, &a) in acc.iter().enumerate().filter(|(i, _)| taps.contains(&(t + i * stride))) {
                let v = pixel(k, i, t + i * stride);
                k.mul_add(a, weight, v);
            }
        }
    }
}
