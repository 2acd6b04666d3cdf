//! Depthwise convolutions, one output row at a time.

use std::ops::Range;
use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, Elem, Kernel, Op, Ptr, Reg};
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
    /// How the input is stored.
    pub from: Elem,
    /// How the output is stored.
    pub to: Elem,
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

    /// Part of a kernel's name.
    fn name(&self) -> String {
        let Shape { channels, multiplier, kernel, stride, width, .. } = self;
        format!("{}_{kernel}x{kernel}_s{stride}_{width}x{channels}x{multiplier}", self.elems())
    }

    /// The part that tells how input and output are stored.
    pub(super) fn elems(&self) -> String {
        if self.from == self.to {
            self.to.name().to_string()
        } else {
            format!("{}{}", self.from.name(), self.to.name())
        }
    }

    /// Elements from one input row to the next, from one pixel to the next, and from one output to the next.
    fn distances(&self) -> [usize; 3] {
        let in_pitch = pitch(self.channels);
        [self.width * in_pitch, in_pitch, pitch(self.out_channels())]
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
    let Shape { channels, multiplier, kernel, stride, width, .. } = *shape;
    let in_lines = lines(channels);
    let [_, in_pitch, out_pitch] = shape.distances();
    let mut k = Builder::new(
        format!("depthwise_{}", shape.name()),
        &[
            &format!("One output row of a {kernel}x{kernel} depthwise convolution, stride {stride}."),
            "",
            &format!(
                "`x` is `[bottom - top, {width}, {channels}]`, pixels {in_pitch} elements apart: the input rows that kernel"
            ),
            &format!("rows `top..bottom` meet. `w` is `[{}, {kernel}, {kernel}, 16]`, `y` is", multiplier * in_lines),
            &format!("`[{}, {}]`, pixels {out_pitch} elements apart.", shape.out_width(), shape.out_channels()),
        ],
    );
    let (x, w, bias) = (k.read_floats("x", shape.from), k.read("w"), k.read("bias"));
    let y = k.write_floats("y", shape.to);
    let (top, bottom) = (k.size("top"), k.size("bottom"));

    let (padding, out_width, most) = (shape.padding(), shape.out_width(), s.depthwise);
    // Outputs at both ends whose windows meet the border; those between have all their taps.
    let left = (0..out_width).take_while(|&x| shape.taps(x).start > 0).count();
    let right = (left..out_width).rev().take_while(|&x| shape.taps(x).end < kernel).count();
    let rows = k.int("rows", bottom - top.clone());
    k.each("line", 0usize, multiplier * in_lines, |k, line| {
        let c = if multiplier > 1 { k.int("c", line.clone() % in_lines) } else { line.clone() };
        let w_at = k.int("w_at", (line.clone() * kernel + top) * (kernel * LANES));
        let outputs = |k: &mut Builder, at: Int, from: Int, (count, taps): (usize, Range<usize>)| {
            let mut args: Vec<Arg> = vec![
                (x, from * in_pitch + c.clone() * LANES).into(),
                (w, w_at.clone()).into(),
                (bias, line.clone() * LANES).into(),
                (y, at * out_pitch + line.clone() * LANES).into(),
                rows.clone().into(),
            ];
            let distances = shape.distances().into_iter().zip(asked(shape, count, &taps));
            args.extend(distances.filter(|(_, asked)| *asked).map(|(n, _)| Arg::from(Int::from(n))));
            k.call(&tile(s, shape, count, taps), args);
        };
        let window = |count: usize| (count - 1) * stride + kernel;
        let end = |k: &mut Builder, range: Range<usize>| {
            for at in range.clone().step_by(most) {
                let (count, first) = (most.min(range.end - at), at * stride);
                let taps = padding.saturating_sub(first)..window(count).min(width + padding - first);
                outputs(k, Int::from(at), Int::from(first + taps.start - padding), (count, taps));
            }
        };
        end(k, 0..left);
        let middle = out_width - left - right;
        if middle > 0 {
            // Tiles overlap where they do not divide the row: an output computed again has the same bits.
            let count = most.min(middle);
            k.each("t", 0usize, middle.div_ceil(count), |k, t| {
                let at = k.int("at", (t * count + left).min(out_width - right - count));
                outputs(k, at.clone(), at * stride - padding, (count, 0..window(count)));
            });
        }
        end(k, out_width - right..out_width);
    });
    k.finish()
}

/// Whether a tile lacks pixels of its outputs' windows.
fn is_end(shape: &Shape, count: usize, taps: &Range<usize>) -> bool {
    *taps != (0..(count - 1) * shape.stride + shape.kernel)
}

/// Which of a shape's distances are parameters of its tile. That of rows always is, so that maps of other widths share it.
fn asked(shape: &Shape, count: usize, taps: &Range<usize>) -> [bool; 3] {
    let end = is_end(shape, count, taps);
    [true, end && taps.len() > 1, end && count > 1]
}

/// `count` outputs of one line, beside each other: a register tile. `x` points at pixel `taps.start` of their
/// common window, whose pixels `taps` are inside the row.
///
/// Where these are all, the tile does most of a row's work and has the distances of pixels as constants, which addresses
/// then hold; the tiles at the ends of rows take them as parameters, so that maps of other depths share them.
fn tile(s: &Schedule, shape: &Shape, count: usize, taps: Range<usize>) -> Rc<Kernel> {
    let Shape { kernel, stride, channels, multiplier, .. } = *shape;
    let asked = asked(shape, count, &taps);
    let name = match is_end(shape, count, &taps) {
        false => {
            format!("depthwise_tile_{}_{kernel}x{kernel}_s{stride}_{channels}x{multiplier}_{count}", shape.elems(),)
        }
        true => format!(
            "depthwise_end_{}_{kernel}x{kernel}_s{stride}_{count}_taps_{}_{}",
            shape.elems(),
            taps.start,
            taps.end
        ),
    };
    let mut k = Builder::new(
        name,
        &[
            &format!("{count} outputs of one line of a {kernel}x{kernel} depthwise convolution, `rows` kernel rows."),
            "",
            &format!(
                "`x` is at pixel {} of their common window, whose pixels {0}..{} are inside the row.",
                taps.start, taps.end
            ),
        ],
    );
    let (x, w, bias) = (k.read_floats("x", shape.from), k.read("w"), k.read("bias"));
    let y = k.write_floats("y", shape.to);
    let rows = k.size("rows");
    let mut names = ["in_row", "in_pitch", "out_pitch"].into_iter().zip(asked);
    let [in_row, in_pitch, out_pitch] = shape.distances().map(|n| match names.next() {
        Some((name, true)) => k.size(name),
        _ => Int::from(n),
    });
    let b = k.load("b", bias, 0usize);
    let acc: Vec<Reg> = (0..count).map(|i| k.bind_mut(&format!("acc_{i}"), Op::Copy(b))).collect();
    k.each("r", 0usize, rows, |k, r| {
        let x_at = k.int("x_at", r.clone() * in_row);
        let w_at = k.int("w_at", r * (kernel * LANES));
        accumulate(k, s, (kernel, stride), (w, w_at), (x, x_at, in_pitch), &acc, &taps);
    });
    for (i, &a) in acc.iter().enumerate() {
        k.store(y, out_pitch.clone() * i, a);
    }
    k.finish()
}

/// One kernel row into the accumulators: the pixels `taps` of the window of all outputs, the first of
/// them at `from`. Each is loaded once and meets every output whose window holds it.
fn accumulate(
    k: &mut Builder,
    s: &Schedule,
    (kernel, stride): (usize, usize),
    (w, w_at): (Ptr, Int),
    (x, from, in_pitch): (Ptr, Int, Int),
    acc: &[Reg],
    taps: &Range<usize>,
) {
    let load = |k: &mut Builder, t: usize| k.load(&format!("w_{t}"), w, w_at.clone() + t * LANES);
    // At the ends of a row some weights meet border only.
    let met = |t: &usize| (0..acc.len()).any(|i| taps.contains(&(t + i * stride)));
    let held: Vec<Option<Reg>> =
        (0..kernel).map(|t| (s.depthwise_weights_in_registers && met(&t)).then(|| load(k, t))).collect();
    for p in taps.clone() {
        let v = k.load(&format!("x_{p}"), x, from.clone() + in_pitch.clone() * (p - taps.start));
        for (i, &a) in acc.iter().enumerate() {
            if let Some(t) = p.checked_sub(i * stride).filter(|&t| t < kernel) {
                let weight = held[t].unwrap_or_else(|| load(k, t));
                k.mul_add(a, weight, v);
            }
        }
    }
}
