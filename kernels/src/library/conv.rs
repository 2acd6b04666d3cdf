//! The convolutional regions of the vision tower, strip by strip.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Elem, Kernel, Ptr};
use crate::library::gemm::{self, Init, Operands, Segment, Shape};
use crate::library::matrix::{Format, Matrix, Rest};
use crate::library::quantize::Source;
use crate::library::two_layer::{TwoLayer, TwoLayerOperands, two_layer};
use crate::library::{Schedule, depthwise, elementwise, lines, pitch, stored};

/// A map's depthwise convolution: the row's shape and the input's height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// The convolution along a row.
    pub row: depthwise::Shape,
    /// Rows of the input.
    pub height: usize,
}

impl Map {
    /// Rows of the output.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.row.stride)
    }

    /// Elements of an input row.
    fn in_row(&self) -> usize {
        self.row.width * pitch(self.row.channels)
    }

    /// Emits output row `y`. `x` is the input map, its row `skipped` at the pointer.
    fn emit(
        &self,
        k: &mut Builder,
        s: &Schedule,
        y: Int,
        (x, at, skipped): (Ptr, Int, Int),
        (w, bias): (Ptr, Ptr),
        out: (Ptr, Int),
    ) {
        let (padding, kernel) = (self.row.padding(), self.row.kernel);
        let center = k.int("center", y * self.row.stride);
        let top = k.int("top", Int::from(padding) - center.clone().min(padding));
        let bottom = k.int("bottom", Int::from(kernel).min(Int::from(self.height + padding) - center.clone()));
        let first = k.int("first_row", center.max(padding) - padding - skipped);
        let args =
            vec![(x, at + first * self.in_row()).into(), w.into(), bias.into(), out.into(), top.into(), bottom.into()];
        k.call(&depthwise::row(s, &self.row), args);
    }
}

/// A depthwise convolution on its own, by output rows. Parameters: x, w, bias, y, first, last.
pub fn depthwise_map(s: &Schedule, map: &Map) -> Rc<Kernel> {
    let row = &map.row;
    let mut k = Builder::new(
        format!(
            "conv_{}x{}_s{}_{}_{}x{}x{}",
            row.kernel,
            row.kernel,
            row.stride,
            row.elems(),
            map.height,
            row.width,
            row.out_channels()
        ),
        &[
            &format!("Depthwise {0}x{0} convolution, stride {1}; output rows `first..last`.", row.kernel, row.stride),
            "",
            &format!(
                "`x` is `[{}, {}, {}]`, `y` is `[{}, {}, {}]`.",
                map.height,
                row.width,
                row.channels,
                map.out_height(),
                row.out_width(),
                row.out_channels()
            ),
        ],
    );
    let (x, w, bias) = (k.read_floats("x", row.from), k.read("w"), k.read("bias"));
    let y = k.write_floats("y", row.to);
    let (first, last) = (k.size("first"), k.size("last"));
    let out_row = row.out_width() * pitch(row.out_channels());
    let zero = || Int::from(0usize);
    k.each("r", first, last, |k, r| {
        map.emit(k, s, r.clone(), (x, zero(), zero()), (w, bias), (y, r * out_row));
    });
    k.finish()
}

/// ConvFFN by strips of `strip` rows; `y` is stored as `x` is. Parameters: x, w0, b0, w1, [w1_scale], b1, w2, [w2_scale], b2,
/// y, scratch, first, last. Scratch: [`conv_ffn_scratch`] floats.
pub fn conv_ffn(s: &Schedule, map: &Map, t: &TwoLayer, strip: usize) -> Rc<Kernel> {
    let (width, channels) = (map.row.width, map.row.channels);
    let mut k = Builder::new(
        format!("conv_ffn_{}_{}x{width}x{channels}{}", t.format.name(), map.height, stored("", map.row.from)),
        &[
            "`y = x + gelu(conv(x) w1 + b1) w2 + b2`, the convolution depthwise.",
            "",
            &format!(
                "`x` and `y` are `[{}, {width}, {channels}]`; strips of {strip} rows `first..last`. The {}",
                map.height, t.hidden
            ),
            "channels between the two products live in scratch alone.",
        ],
    );
    let (x, w0, b0) = (k.read_floats("x", map.row.from), k.read("w0"), k.read("b0"));
    let (w1, b1) = (Matrix::declare(&mut k, "w1", t.format, channels), k.read("b1"));
    let (w2, b2) = (Matrix::declare(&mut k, "w2", t.format, t.hidden), k.read("b2"));
    let (y, scratch) = (k.write_floats("y", map.row.from), k.write("scratch"));
    let (first, last) = (k.size("first"), k.size("last"));
    let (row, pixels) = (width * pitch(channels), strip * width);
    let zero = || Int::from(0usize);
    k.each("u", first, last, |k, u| {
        k.each("r", 0usize, strip, |k, r| {
            let y = u.clone() * strip + r.clone();
            map.emit(k, s, y, (x, zero(), zero()), (w0, b0), (scratch, r * row));
        });
        let at = k.int("at", u * (strip * row));
        let operands = TwoLayerOperands {
            x: (scratch, zero()),
            w1: (w1, Some(b1)),
            w2: (w2, Some(b2)),
            residual: (x, at.clone()),
            y: (y, at),
            scratch: (scratch, Int::from(strip * row)),
        };
        two_layer(k, s, t, &Int::from(pixels), pixels, &operands);
    });
    k.finish()
}

/// Floats of scratch of [`conv_ffn`].
pub fn conv_ffn_scratch(map: &Map, t: &TwoLayer, strip: usize) -> usize {
    let pixels = strip * map.row.width;
    pixels * pitch(map.row.channels) + t.scratch(pixels)
}

/// Whether the matrix behind a depthwise convolution is quantized without its diagonal, which is a
/// parameter of its own: an identity branch was folded into it, and would take the scale of each row.
pub fn has_diagonal(row: &depthwise::Shape, format: Format, outputs: usize) -> bool {
    format != Format::F32 && row.multiplier <= 2 && outputs == row.multiplier * row.channels
}

/// Depthwise convolution, GELU, pointwise convolution, GELU, by strips of `strip` output rows; `y` is stored as `x` is.
/// Parameters: x, w0, b0, w1, [w1_scale], [w1_diagonal], b1, y, scratch, first, last. Scratch:
/// [`patch_embed_scratch`] floats.
pub fn patch_embed(s: &Schedule, map: &Map, format: Format, channels: usize, strip: usize) -> Rc<Kernel> {
    let (width, middle) = (map.row.out_width(), map.row.out_channels());
    // FastViTHD doubles channels from stage to stage; what does otherwise can make the same map in two ways.
    let from = if channels == 2 * map.row.channels { String::new() } else { format!("_of{}", map.row.channels) };
    let (name, height, stored) = (format.name(), map.out_height(), stored("", map.row.from));
    let mut k = Builder::new(
        format!("patch_embed_{name}_{height}x{width}x{channels}{from}{stored}"),
        &[
            &format!(
                "`y = gelu(gelu(conv(x)) w1 + b1)`, the convolution depthwise with stride 2{}.",
                diagonal_text(&map.row, format, channels)
            ),
            "",
            &format!(
                "`x` is `[{}, {}, {}]`, `y` is `[{}, {width}, {channels}]`; strips of {strip} rows `first..last`.",
                map.height,
                map.row.width,
                map.row.channels,
                map.out_height()
            ),
        ],
    );
    let (x, w0, b0) = (k.read_floats("x", map.row.from), k.read("w0"), k.read("b0"));
    let pointwise = Pointwise::declare(&mut k, ["w1", "w1_diagonal", "b1"], &map.row, format, channels);
    let (y, scratch) = (k.write_floats("y", map.row.from), k.write("scratch"));
    let after = strip * width * pitch(middle);
    let (first, last) = (k.size("first"), k.size("last"));
    let zero = || Int::from(0usize);
    k.each("u", first, last, |k, u| {
        k.each("r", 0usize, strip, |k, r| {
            let y = u.clone() * strip + r.clone();
            map.emit(k, s, y, (x, zero(), zero()), (w0, b0), (scratch, r * (width * pitch(middle))));
        });
        let at = k.int("at", u * (strip * width * pitch(channels)));
        let x = (scratch, zero());
        pointwise.emit(k, s, strip * width, x, (y, at), (scratch, Int::from(after)));
    });
    k.finish()
}

/// Floats of scratch of [`patch_embed`]: a strip of the convolution's outputs, and what the pointwise one needs.
pub fn patch_embed_scratch(map: &Map, format: Format, channels: usize, strip: usize) -> usize {
    let (pixels, middle) = (strip * map.row.out_width(), map.row.out_channels());
    pixels * pitch(middle) + Pointwise::scratch((middle, channels), format, pixels, map.row.from)
}

/// The pointwise convolution behind a depthwise one.
struct Pointwise {
    w: Matrix,
    diagonal: Option<Ptr>,
    bias: Ptr,
    row: depthwise::Shape,
    outputs: usize,
}

impl Pointwise {
    fn declare(
        k: &mut Builder,
        [w, diagonal, bias]: [&str; 3],
        row: &depthwise::Shape,
        format: Format,
        outputs: usize,
    ) -> Pointwise {
        Pointwise {
            w: Matrix::declare(k, w, format, row.out_channels()),
            diagonal: has_diagonal(row, format, outputs).then(|| k.read(diagonal)),
            bias: k.read(bias),
            row: *row,
            outputs,
        }
    }

    /// Floats of scratch for `pixels` rows: quantized, and their sums where `y` is not of 32-bit floats.
    fn scratch((inputs, outputs): (usize, usize), format: Format, pixels: usize, to: Elem) -> usize {
        format.scratch(inputs, pixels) + if to == Elem::F32 { 0 } else { pixels * pitch(outputs) }
    }

    /// `x = gelu(x)` in place, then `y = gelu(x (w + diagonal) + bias)`, on `pixels` rows.
    fn emit(&self, k: &mut Builder, s: &Schedule, pixels: usize, x: (Ptr, Int), y: (Ptr, Int), scratch: (Ptr, Int)) {
        let n = Int::from(pixels);
        let to = k.elem(y.0);
        let sums = scratch.1.clone() + self.w.format.scratch(self.row.out_channels(), pixels);
        let (y, out) = if to == Elem::F32 { (y, None) } else { ((scratch.0, sums), Some(y)) };
        let left = self.w.left(k, Source::Gelu, x.clone(), &n, Some(scratch));
        if let Some(d) = self.diagonal {
            let kernel = elementwise::diagonal(self.row.multiplier, self.row.channels);
            k.call(&kernel, vec![x.into(), d.into(), y.clone().into(), n.clone().into()]);
        }
        let rest = Rest {
            line: Int::from(0usize),
            bias: Some((self.bias, Int::from(0usize))),
            residual: self.diagonal.map(|_| y.clone()),
            c: y.clone(),
            ldc: pitch(self.outputs),
        };
        let init = if self.diagonal.is_some() { Init::BiasResidual } else { Init::Bias };
        self.w.rows(k, s, &left, init, (&n, &Int::from(lines(self.outputs))), rest);
        match out {
            None => k.call(&elementwise::gelu(self.outputs), vec![y.into(), n.into()]),
            Some(out) => k.call(&elementwise::gelu_into(self.outputs, to), vec![y.into(), out.into(), n.into()]),
        }
    }
}

fn diagonal_text(row: &depthwise::Shape, format: Format, outputs: usize) -> &'static str {
    if has_diagonal(row, format, outputs) { "; the diagonal of `w` is apart" } else { "" }
}

/// Sizes of the stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stem {
    /// Side of the picture, pixels.
    pub side: usize,
    /// Output channels.
    pub channels: usize,
    /// Output rows of a strip.
    pub strip: usize,
    /// How the pointwise convolution's matrix is stored.
    pub format: Format,
    /// How `y` is stored.
    pub to: Elem,
}

impl Stem {
    /// Side of the first convolution's output.
    fn middle(&self) -> usize {
        self.side.div_ceil(2)
    }

    /// Side of the output.
    pub fn out(&self) -> usize {
        self.middle().div_ceil(2)
    }

    /// Its depthwise convolution.
    pub fn map(&self) -> Map {
        let row = depthwise::Shape {
            channels: self.channels,
            multiplier: 1,
            kernel: 3,
            stride: 2,
            width: self.middle(),
            from: Elem::F32,
            to: Elem::F32,
        };
        Map { row, height: self.middle() }
    }

    /// Floats of the first convolution's rows under a strip, and of the strip.
    fn floats(&self) -> usize {
        ((2 * self.strip + 1) * self.middle() + self.strip * self.out()) * pitch(self.channels)
    }

    /// Floats of scratch.
    pub fn scratch(&self) -> usize {
        let pixels = self.strip * self.out();
        self.floats() + Pointwise::scratch((self.channels, self.channels), self.format, pixels, self.to)
    }
}

/// 3x3 convolution of the picture with stride 2, GELU, depthwise 3x3 with stride 2, GELU, pointwise,
/// GELU. Parameters: image, w0, b0, w1, b1, w2, [w2_scale], [w2_diagonal], b2, y, scratch, first, last.
///
/// The image is `[side + 2][side + 2][3]` with a border of zeros, so that a kernel row's nine
/// inputs follow each other and the convolution is a matrix product in three runs. Rows that two
/// strips need are computed by both.
pub fn stem(s: &Schedule, stem: &Stem) -> Rc<Kernel> {
    let Stem { side, channels, strip, format, to } = *stem;
    let (middle, out) = (stem.middle(), stem.out());
    let mut k = Builder::new(
        format!("stem_{}_{side}x{channels}{}", format.name(), stored("", to)),
        &[
            "`y = gelu(gelu(conv2(gelu(conv1(image)))) w2 + b2)`: 3x3 and depthwise 3x3, both with stride 2.",
            "",
            &format!(
                "`image` is `[{0}, {0}, 3]` with a border of zeros, `y` is `[{out}, {out}, {channels}]`;",
                side + 2
            ),
            &format!("strips of {strip} rows `first..last`."),
        ],
    );
    let (image, w0, b0, w1, b1) = (k.read("image"), k.read("w0"), k.read("b0"), k.read("w1"), k.read("b1"));
    let map = stem.map();
    let pointwise = Pointwise::declare(&mut k, ["w2", "w2_diagonal", "b2"], &map.row, format, channels);
    let (y, scratch) = (k.write_floats("y", to), k.write("scratch"));
    let (first, last) = (k.size("first"), k.size("last"));
    let (in_row, image_row) = (middle * pitch(channels), (side + 2) * 3);
    let below = (2 * strip + 1) * in_row;
    let zero = || Int::from(0usize);
    let shape = Shape {
        depth: Int::from(27usize),
        lines: Int::from(lines(channels)),
        line: 27 * LANES,
        halves: false,
        lda: 6,
        ldc: pitch(channels),
        ldr: 0,
        segment: Some(Segment { depth: 9, stride: image_row }),
    };
    k.each("u", first, last, |k, u| {
        let top = k.int("top_row", (u.clone() * (2 * strip)).max(1usize) - 1usize);
        let end = k.int("end_row", (u.clone() * (2 * strip) + 2 * strip).min(middle));
        let rows = k.int("rows", end - top.clone());
        k.each("r", 0usize, rows.clone(), |k, r| {
            let operands = Operands {
                a: (image, (top.clone() + r.clone()) * (2 * image_row)),
                b: (w0, zero()),
                bias: Some((b0, zero())),
                residual: None,
                c: (scratch, r * in_row),
            };
            gemm::rows(k, s, &shape, Init::Bias, middle, &operands);
        });
        k.call(&elementwise::gelu(channels), vec![scratch.into(), (rows * middle).into()]);
        k.each("r", 0usize, strip, |k, r| {
            let y = u.clone() * strip + r.clone();
            let into = (scratch, r * (out * pitch(channels)) + below);
            map.emit(k, s, y, (scratch, zero(), top.clone()), (w1, b1), into);
        });
        let at = k.int("at", u * (strip * out * pitch(channels)));
        let (x, after) = ((scratch, Int::from(below)), (scratch, Int::from(stem.floats())));
        pointwise.emit(k, s, strip * out, x, (y, at), after);
    });
    k.finish()
}
