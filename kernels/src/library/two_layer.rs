//! Two linear layers with an activation between them, block by block of the hidden channels.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Kernel, Ptr};
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::linear::{Norm, UNIT, each_strip, normalize};
use crate::library::matrix::{Format, Left, Matrix, Rest};
use crate::library::quantize::{QuantRows, Quantized, Source, Span, chunk, each_chunk};
use crate::library::{Schedule, elementwise, lines, pitch};

/// The activation between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Exact GELU.
    Gelu,
    /// `silu(gate) * up`; the first layer has twice the hidden channels, lines alternating.
    SwiGlu,
}

/// Sizes of two linear layers with an activation between them.
#[derive(Clone, Copy, Debug)]
pub struct TwoLayer {
    /// Input and output channels.
    pub channels: usize,
    /// Channels between the layers, after the activation.
    pub hidden: usize,
    /// The activation.
    pub activation: Activation,
    /// How both matrices are stored.
    pub format: Format,
    /// Hidden lines of a block: the widened rows of a block stay in L2.
    pub block_lines: usize,
}

impl TwoLayer {
    /// Hidden channels in front of the activation, for each after it.
    fn width(&self) -> usize {
        match self.activation {
            Activation::Gelu => 1,
            Activation::SwiGlu => 2,
        }
    }

    /// Block size so that the widened rows of `rows` rows take at most `bytes`, one line at least.
    pub fn new(
        (channels, hidden): (usize, usize),
        activation: Activation,
        format: Format,
        rows: usize,
        bytes: usize,
    ) -> TwoLayer {
        let mut t = TwoLayer { channels, hidden, activation, format, block_lines: lines(hidden) };
        if let Some(q) = format.rows(hidden) {
            // A block is what shares a scale, so that the bits do not depend on a schedule.
            t.block_lines = q.block / LANES;
            return t;
        }
        let line_bytes = rows * LANES * 4 * (t.width() + usize::from(t.width() > 1));
        let most = (bytes / line_bytes).max(1);
        let blocks = lines(hidden).div_ceil(most);
        t.block_lines = lines(hidden).div_ceil(blocks);
        t
    }

    /// Floats of scratch for `rows` rows.
    pub fn scratch(&self, rows: usize) -> usize {
        let hidden = self.block_lines * LANES;
        if let (Some(x), Some(h)) = (self.format.rows(self.channels), self.format.rows(self.hidden)) {
            return rows * (x.pitch() + h.pitch()) + chunk(rows) * pitch(self.width() * hidden);
        }
        rows * (pitch(self.width() * hidden) + if self.width() > 1 { pitch(hidden) } else { 0 })
    }
}

/// Operands of two linear layers, moved to their first element.
pub struct TwoLayerOperands {
    /// Input rows.
    pub x: (Ptr, Int),
    /// First matrix and its bias.
    pub w1: (Matrix, Option<Ptr>),
    /// Second matrix and its bias.
    pub w2: (Matrix, Option<Ptr>),
    /// Residual rows.
    pub residual: (Ptr, Int),
    /// Output rows.
    pub y: (Ptr, Int),
    /// Scratch.
    pub scratch: (Ptr, Int),
}

/// Emits `y = residual + b2 + act(b1 + x w1) w2` for `n` rows, `most` at the most, block by block
/// of the hidden channels. The sums run over the hidden channels in order.
pub fn two_layer(k: &mut Builder, s: &Schedule, t: &TwoLayer, n: &Int, most: usize, o: &TwoLayerOperands) {
    if let (Some(x), Some(h)) = (t.format.rows(t.channels), t.format.rows(t.hidden)) {
        return two_layer_quantized(k, s, t, n, most, o, (x, h));
    }
    let total = lines(t.hidden);
    let zero = || Int::from(0usize);
    let block = |k: &mut Builder, init: Init, first: Int, count: usize| {
        let hidden = count * LANES;
        let wide = t.width() * hidden;
        let shape = Shape { lines: Int::from(t.width() * count), ldc: pitch(wide), ..Shape::dense(t.channels, wide) };
        let start = if o.w1.1.is_some() { Init::Bias } else { Init::Zero };
        let up = Operands {
            a: (o.x.0, o.x.1.clone()),
            b: (o.w1.0.w, first.clone() * (t.width() * t.channels * LANES)),
            bias: o.w1.1.map(|b| (b, first.clone() * LANES)),
            residual: None,
            c: (o.scratch.0, o.scratch.1.clone()),
        };
        gemm::rows(k, s, &shape, start, n.clone(), &up);
        let mut a = (o.scratch.0, o.scratch.1.clone());
        match t.activation {
            Activation::Gelu => k.call(&elementwise::gelu(hidden), vec![a.clone().into(), n.clone().into()]),
            Activation::SwiGlu => {
                let out = (o.scratch.0, o.scratch.1.clone() + most * pitch(wide));
                let args = vec![a.into(), out.clone().into(), n.clone().into(), zero().into(), Int::from(count).into()];
                k.call(&elementwise::swiglu(hidden), args);
                a = out;
            }
        }
        let down = Operands {
            a,
            b: (o.w2.0.w, first * (LANES * LANES)),
            bias: o.w2.1.map(|b| (b, zero())),
            residual: Some((o.residual.0, o.residual.1.clone())),
            c: (o.y.0, o.y.1.clone()),
        };
        let shape = Shape { line: total * LANES * LANES, lda: pitch(hidden), ..Shape::dense(hidden, t.channels) };
        gemm::rows(k, s, &shape, init, n.clone(), &down);
    };
    let init = if o.w2.1.is_some() { Init::BiasResidual } else { Init::Residual };
    let full = total / t.block_lines;
    block(k, init, zero(), t.block_lines);
    k.each("block", 1usize, full, |k, i| block(k, Init::Accumulate, i * t.block_lines, t.block_lines));
    let rest = total % t.block_lines;
    if rest > 0 {
        block(k, Init::Accumulate, Int::from(full * t.block_lines), rest);
    }
}

/// The same with quantized rows: a block of hidden channels is made in floats and quantized, the
/// second product runs over all blocks at once.
fn two_layer_quantized(
    k: &mut Builder,
    s: &Schedule,
    t: &TwoLayer,
    n: &Int,
    most: usize,
    o: &TwoLayerOperands,
    (x, hidden): (QuantRows, QuantRows),
) {
    let source = match t.activation {
        Activation::Gelu => Source::Gelu,
        Activation::SwiGlu => Source::SwiGlu,
    };
    let (ptr, at) = &o.scratch;
    let hidden = Quantized { ptr: *ptr, at: at.clone() + most * x.pitch(), rows: hidden };
    let wide = (*ptr, hidden.at.clone() + most * hidden.rows.pitch());
    let x = o.w1.0.quantize(k, Source::Plain, o.x.clone(), n, o.scratch.clone());
    let ldc = pitch(t.width() * t.block_lines * LANES);
    let block = |k: &mut Builder, b: Int, count: usize, span: Span| {
        each_chunk(k, n, |k, row, n| {
            let line = b.clone() * (t.width() * t.block_lines);
            let bias = o.w1.1.map(|bias| (bias, line.clone() * LANES));
            let rest = Rest { bias, line, residual: None, c: wide.clone(), ldc };
            let init = if o.w1.1.is_some() { Init::Bias } else { Init::Zero };
            let x = Left::Quantized(x.from_row(row.clone()));
            o.w1.0.rows(k, s, &x, init, (&n, &Int::from(t.width() * count)), rest);
            hidden.from_row(row).fill(k, source, (wide.clone(), ldc), n, (b.clone(), span));
        });
    };
    let total = lines(t.hidden);
    let (full, short) = (total / t.block_lines, total % t.block_lines);
    k.each("block", 0usize, full, |k, b| block(k, b, t.block_lines, Span { whole: 1, short: false }));
    if short > 0 {
        block(k, Int::from(full), short, Span { whole: 0, short: true });
    }
    let rest = Rest {
        line: Int::from(0usize),
        bias: o.w2.1.map(|b| (b, Int::from(0usize))),
        residual: Some(o.residual.clone()),
        c: o.y.clone(),
        ldc: pitch(t.channels),
    };
    let init = if o.w2.1.is_some() { Init::BiasResidual } else { Init::Residual };
    let left = Left::Quantized(hidden);
    o.w2.0.rows(k, s, &left, init, (n, &Int::from(lines(t.channels))), rest);
}

/// The decoder's MLP on rows: norm, gate and up, SwiGLU, down, residual. Parameters: x, w1, w2, y,
/// scratch, rows, first, last. Scratch: `strip * pitch(channels) + t.scratch(strip)` floats.
pub fn mlp(s: &Schedule, norm: Norm, t: &TwoLayer, strip: usize) -> Rc<Kernel> {
    let ld = pitch(t.channels);
    let mut k = Builder::new(
        format!("mlp_{}_rows_{}x{}", t.format.name(), t.channels, t.hidden),
        &[
            "`y = x + swiglu(norm(x) w1) w2`; units of rows `first..last`.",
            "",
            &format!(
                "`x` and `y` are `[rows, {}]` with rows {ld} floats apart, `w1` is `[{}, {}, 16]` with lines of gate and",
                t.channels,
                2 * lines(t.hidden),
                t.channels
            ),
            &format!(
                "up in turn, `w2` is `[{}, {}, 16]`. A unit has {UNIT} rows.",
                lines(t.channels),
                lines(t.hidden) * LANES
            ),
        ],
    );
    let x = k.read("x");
    let w1 = Matrix::declare(&mut k, "w1", t.format, t.channels);
    let w2 = Matrix::declare(&mut k, "w2", t.format, t.hidden);
    let (y, scratch) = (k.write("y"), k.write("scratch"));
    let rows = k.size("rows");
    each_strip(&mut k, &rows, strip, |k, row, n| {
        let normed = normalize(k, norm, t.channels, (x, row.clone() * ld), None, scratch, n.clone());
        let operands = TwoLayerOperands {
            x: normed,
            w1: (w1, None),
            w2: (w2, None),
            residual: (x, row.clone() * ld),
            y: (y, row * ld),
            scratch: (scratch, Int::from(strip * ld)),
        };
        two_layer(k, s, t, &n, strip, &operands);
    });
    k.finish()
}
