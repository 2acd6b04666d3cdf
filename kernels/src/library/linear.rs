//! Linear layers on rows, with what precedes and follows them.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Kernel, Ptr};
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::matrix::{Format, Left, Matrix, Rest};
use crate::library::quantize::{BLOCK, QuantRows, Quantized, Source, Span, chunk, each_chunk};
use crate::library::{Schedule, elementwise, lines, norm, pitch};

/// A normalization in front of a linear layer, its gain folded into the matrix unless kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Mean and variance over channels.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// Root mean square over channels.
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// Whether the gain is a parameter of the kernel.
        gain: bool,
    },
}

impl Norm {
    fn kernel(self, channels: usize) -> Rc<Kernel> {
        match self {
            Norm::Layer { eps } => norm::layer_norm(channels, eps),
            Norm::Rms { eps, gain } => norm::rms_norm(channels, eps, gain),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Norm::Layer { .. } => "layer_norm_",
            Norm::Rms { gain: false, .. } => "rms_norm_",
            Norm::Rms { gain: true, .. } => "rms_norm_gain_",
        }
    }

    pub(super) fn has_gain(self) -> bool {
        matches!(self, Norm::Rms { gain: true, .. })
    }
}

/// How many rows a kernel serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A number known now.
    Fixed(usize),
    /// At most this many; the number is the parameter `rows`.
    UpTo(usize),
}

impl Rows {
    /// The largest number.
    pub fn most(self) -> usize {
        match self {
            Rows::Fixed(n) | Rows::UpTo(n) => n,
        }
    }

    fn name(self) -> String {
        match self {
            Rows::Fixed(n) => format!("{n}"),
            Rows::UpTo(_) => "rows".to_string(),
        }
    }

    pub(super) fn size(self, k: &mut Builder) -> Int {
        match self {
            Rows::Fixed(n) => Int::from(n),
            Rows::UpTo(_) => k.size("rows"),
        }
    }
}

/// Rows of a unit of work: threads take whole units, so that tiles are seldom cut.
pub const UNIT: usize = 8;

/// Runs `body(first row, number of rows)` for the rows of units `first..last`, in strips.
pub(super) fn each_strip(k: &mut Builder, rows: &Int, strip: usize, body: impl Fn(&mut Builder, Int, Int)) {
    let (first, last) = (k.size("first"), k.size("last"));
    let begin = k.int("begin", first * UNIT);
    let end = k.int("end", (last * UNIT).min(rows.clone()).max(begin.clone()));
    k.each("u", 0usize, (end.clone() - begin.clone()).div_ceil(strip as i64), |k, u| {
        let row = k.int("row", begin + u * strip);
        let n = k.int("n", Int::from(strip).min(end - row.clone()));
        body(k, row, n);
    });
}

/// A linear layer on rows, by units of rows.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// What precedes it.
    pub norm: Option<Norm>,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// How the matrix is stored.
    pub format: Format,
    /// What the sums start from.
    pub init: Init,
    /// Whether GELU follows.
    pub gelu: bool,
    /// Rows in all.
    pub rows: Rows,
    /// Rows of a strip: a thread's rows are computed strip by strip.
    pub strip: usize,
}

impl Linear {
    /// Floats of scratch for `rows` rows: normalized, then quantized.
    pub fn scratch(&self, rows: usize) -> usize {
        self.normed(rows) + self.format.scratch(self.inputs, rows)
    }

    fn normed(&self, rows: usize) -> usize {
        if self.norm.is_some() { rows * pitch(self.inputs) } else { 0 }
    }

    /// The parameters before the sizes, in order.
    fn declare(&self, k: &mut Builder) -> Params {
        let x = k.read("x");
        let gain = self.norm.is_some_and(Norm::has_gain).then(|| k.read("gain"));
        let w = Matrix::declare(k, "w", self.format, self.inputs);
        let bias = self.init.has_bias().then(|| k.read("bias"));
        let residual = self.init.has_residual().then(|| k.read("residual"));
        let y = k.write("y");
        let scratch = (self.norm.is_some() || self.format != Format::F32).then(|| k.write("scratch"));
        Params { x, gain, w, bias, residual, y, scratch }
    }

    /// Emits the norm and the quantization of `n` rows `x`, `most` at the most.
    fn left(&self, k: &mut Builder, p: &Params, x: (Ptr, Int), n: &Int, most: usize) -> Left {
        let mut x = x;
        if let (Some(norm), Some(scratch)) = (self.norm, p.scratch) {
            x = normalize(k, norm, self.inputs, x, p.gain, scratch, n.clone());
        }
        let after = p.scratch.map(|s| (s, Int::from(self.normed(most))));
        p.w.left(k, Source::Plain, x, n, after)
    }
}

/// Pointer parameters of a linear layer.
struct Params {
    x: Ptr,
    gain: Option<Ptr>,
    w: Matrix,
    bias: Option<Ptr>,
    residual: Option<Ptr>,
    y: Ptr,
    scratch: Option<Ptr>,
}

impl Params {
    fn rest(&self, row: Int, ld: usize) -> Rest {
        Rest {
            line: Int::from(0usize),
            bias: self.bias.map(|b| (b, Int::from(0usize))),
            residual: self.residual.map(|r| (r, row.clone() * ld)),
            c: (self.y, row * ld),
            ldc: ld,
        }
    }
}

/// `y = [gelu](init + [norm](x) w)`. Parameters: x, [gain], w, [w_scale], [bias], [residual], y,
/// [scratch], [rows], first, last. Scratch: [`Linear::scratch`] of a strip.
pub fn linear(s: &Schedule, l: &Linear) -> Rc<Kernel> {
    let (ldx, ldy) = (pitch(l.inputs), pitch(l.outputs));
    let before = l.norm.map_or("", Norm::name);
    let after = if l.gelu { "_gelu" } else { "" };
    let start = l.init.name();
    let mut k = Builder::new(
        format!("{before}linear{start}{after}_{}_{}x{}x{}", l.format.name(), l.rows.name(), l.inputs, l.outputs),
        &[
            &format!("Rows of {} channels to rows of {}; units of {UNIT} rows `first..last`.", l.inputs, l.outputs),
            "",
            &format!("`x` is `[rows, {}]` with rows {ldx} floats apart, {},", l.inputs, panels("w", l)),
            &format!("`y` is `[rows, {}]` with rows {ldy} floats apart.", l.outputs),
        ],
    );
    let p = l.declare(&mut k);
    let rows = l.rows.size(&mut k);
    let gelu = elementwise::gelu(l.outputs);
    each_strip(&mut k, &rows, l.strip, |k, row, n| {
        let left = l.left(k, &p, (p.x, row.clone() * ldx), &n, l.strip);
        let whole = Int::from(lines(l.outputs));
        p.w.rows(k, s, &left, l.init, (&n, &whole), p.rest(row.clone(), ldy));
        if l.gelu {
            k.call(&gelu, vec![(p.y, row * ldy).into(), n.into()]);
        }
    });
    k.finish()
}

/// The layout of a matrix in words.
fn panels(name: &str, l: &Linear) -> String {
    let (out, inputs) = (lines(l.outputs), l.inputs);
    match l.format {
        Format::F32 => format!("`{name}` is `[{out}, {inputs}, 16]`"),
        Format::Bytes { .. } => format!("`{name}` is `[{out}, {}, 16]` words of bytes", lines(inputs) * LANES / 4),
        Format::Nibbles => format!("`{name}` is `[{out}, {}, 17, 16]` words", inputs.div_ceil(BLOCK)),
    }
}

pub(super) fn normalize(
    k: &mut Builder,
    norm: Norm,
    channels: usize,
    x: (Ptr, Int),
    gain: Option<Ptr>,
    scratch: Ptr,
    n: Int,
) -> (Ptr, Int) {
    let mut args = vec![x.into()];
    args.extend(gain.map(Into::into));
    args.extend([scratch.into(), n.into()]);
    k.call(&norm.kernel(channels), args);
    (scratch, Int::from(0usize))
}

/// A linear layer on one row, by output lines `first..last`: every thread normalizes the row for
/// itself and makes its lines. Parameters as [`linear`]; `row` selects the row of `x` and of the
/// residual when `any_row`. Scratch: [`Linear::scratch`] of one row.
pub fn vector(s: &Schedule, l: &Linear, any_row: bool) -> Rc<Kernel> {
    let ldx = pitch(l.inputs);
    let before = l.norm.map_or("", Norm::name);
    let start = l.init.name();
    let row_name = if any_row { "_row" } else { "" };
    let mut k = Builder::new(
        format!("{before}gemv{start}{row_name}_{}_{}x{}", l.format.name(), l.inputs, l.outputs),
        &[
            &format!("One row of {} channels to {}; output lines `first..last`.", l.inputs, l.outputs),
            "",
            &format!("`x` has rows {ldx} floats apart, {}.", panels("w", l)),
        ],
    );
    let p = l.declare(&mut k);
    let row = if any_row { k.size("row") } else { Int::from(0usize) };
    let (first, last) = (k.size("first"), k.size("last"));
    let left = l.left(&mut k, &p, (p.x, row.clone() * ldx), &Int::from(1usize), 1);
    let rest = Rest {
        residual: p.residual.map(|r| (r, row * pitch(l.outputs))),
        ..p.rest(Int::from(0usize), pitch(l.outputs))
    };
    p.w.vector(&mut k, s, &left, l.init, (first, last), rest);
    k.finish()
}

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
    let Left::Quantized(x) = o.w1.0.left(k, Source::Plain, o.x.clone(), n, Some(o.scratch.clone())) else { return };
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

/// One row's gate and up lines and their SwiGLU: hidden lines `first..last`. Parameters: x, w,
/// [w_scale], y, scratch, first, last. Scratch: [`gated_vector_scratch`] floats.
pub fn gated_vector(s: &Schedule, norm: Norm, format: Format, channels: usize, hidden: usize) -> Rc<Kernel> {
    let wide = 2 * lines(hidden) * LANES;
    let l = Linear {
        norm: Some(norm),
        inputs: channels,
        outputs: wide,
        format,
        init: Init::Zero,
        gelu: false,
        rows: Rows::Fixed(1),
        strip: 1,
    };
    let mut k = Builder::new(
        format!("gemv_swiglu_{}_{channels}x{hidden}", format.name()),
        &[
            "`y = swiglu(norm(x) w)` for one row; hidden lines `first..last`.",
            "",
            &format!("{}, lines of gate and up in turn.", panels("w", &l)),
        ],
    );
    let p = l.declare(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let left = l.left(&mut k, &p, (p.x, Int::from(0usize)), &Int::from(1usize), 1);
    let Some(scratch) = p.scratch else { return k.finish() };
    let between = (scratch, Int::from(l.scratch(1)));
    let rest = Rest { c: between.clone(), residual: None, ..p.rest(Int::from(0usize), pitch(wide)) };
    p.w.vector(&mut k, s, &left, Init::Zero, (first.clone() * 2usize, last.clone() * 2usize), rest);
    let args = vec![between.into(), p.y.into(), Int::from(1usize).into(), first.into(), last.into()];
    k.call(&elementwise::swiglu(lines(hidden) * LANES), args);
    k.finish()
}

/// Floats of scratch of [`gated_vector`].
pub fn gated_vector_scratch(format: Format, channels: usize, hidden: usize) -> usize {
    pitch(channels) + format.scratch(channels, 1) + pitch(2 * lines(hidden) * LANES)
}
