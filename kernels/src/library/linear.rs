//! Linear layers on rows, with what precedes and follows them.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Elem, Kernel, Ptr};
use crate::library::gemm::Init;
use crate::library::matrix::{Format, Left, Matrix, Rest};
use crate::library::quantize::{BLOCK, Source};
use crate::library::{Schedule, elementwise, lines, norm, pitch, stored};

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
    /// The kernel for rows that are stored as `from`.
    ///
    /// # Panics
    /// For 16-bit floats that are divided by their root mean square: no model has them.
    fn kernel(self, channels: usize, from: Elem) -> Rc<Kernel> {
        match self {
            Norm::Layer { eps } => norm::layer_norm(channels, eps, from),
            Norm::Rms { eps, gain } => {
                assert_eq!(from, Elem::F32, "rows of a root mean square");
                norm::rms_norm(channels, eps, gain)
            }
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
    /// How `x` is stored; what no norm follows is of 32-bit floats.
    pub from: Elem,
    /// How the residual and `y` are stored; 32-bit floats where GELU follows or the matrix is of floats.
    pub to: Elem,
}

impl Linear {
    /// A layer with a bias, and nothing before or after it; all of 32-bit floats, all rows in one strip.
    pub fn new(inputs: usize, outputs: usize, format: Format, rows: Rows) -> Linear {
        Linear {
            norm: None,
            inputs,
            outputs,
            format,
            init: Init::Bias,
            gelu: false,
            rows,
            strip: rows.most(),
            from: Elem::F32,
            to: Elem::F32,
        }
    }

    /// Floats of scratch for `rows` rows: normalized, then quantized.
    pub fn scratch(&self, rows: usize) -> usize {
        self.normed(rows) + self.format.scratch(self.inputs, rows)
    }

    fn normed(&self, rows: usize) -> usize {
        if self.norm.is_some() { rows * pitch(self.inputs) } else { 0 }
    }

    /// The parameters before the sizes, in order.
    fn declare(&self, k: &mut Builder) -> Params {
        let x = k.read_floats("x", self.from);
        let gain = self.norm.is_some_and(Norm::has_gain).then(|| k.read("gain"));
        let w = Matrix::declare(k, "w", self.format, self.inputs);
        let bias = self.init.has_bias().then(|| k.read("bias"));
        let residual = self.init.has_residual().then(|| k.read_floats("residual", self.to));
        let y = k.write_floats("y", self.to);
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
    let elems = stored("_x", l.from) + &stored("_y", l.to);
    let mut k = Builder::new(
        format!("{before}linear{start}{after}_{}_{}x{}x{}{elems}", l.format.name(), l.rows.name(), l.inputs, l.outputs),
        &[
            &format!("Rows of {} channels to rows of {}; units of {UNIT} rows `first..last`.", l.inputs, l.outputs),
            "",
            &format!("`x` is `[rows, {}]` with rows {ldx} elements apart, {},", l.inputs, panels("w", l)),
            &format!("`y` is `[rows, {}]` with rows {ldy} elements apart.", l.outputs),
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
    let kernel = norm.kernel(channels, k.elem(x.0));
    let mut args = vec![x.into()];
    args.extend(gain.map(Into::into));
    args.extend([scratch.into(), n.into()]);
    k.call(&kernel, args);
    (scratch, Int::from(0usize))
}

/// A linear layer on one row, by output lines `first..last`: every thread normalizes the row for
/// itself and makes its lines. Parameters as [`linear`]; `row` selects the row of `x` and of the
/// residual when `any_row`. Scratch: [`Linear::scratch`] of one row.
pub fn vector(s: &Schedule, l: &Linear, any_row: bool) -> Rc<Kernel> {
    by_lines(s, l, any_row, 1)
}

/// As [`vector`] for `n` rows, a few, each with the bits it has alone: the weights are read once for all of them.
/// Scratch: [`Linear::scratch`] of `n` rows.
pub fn vectors(s: &Schedule, l: &Linear, n: usize) -> Rc<Kernel> {
    by_lines(s, l, false, n)
}

fn by_lines(s: &Schedule, l: &Linear, any_row: bool, n: usize) -> Rc<Kernel> {
    let ldx = pitch(l.inputs);
    let before = l.norm.map_or("", Norm::name);
    let start = l.init.name();
    let row_name = if any_row { "_row" } else { "" };
    let mut k = Builder::new(
        format!("{before}gemv{start}{row_name}{}_{}_{}x{}", few(n), l.format.name(), l.inputs, l.outputs),
        &[
            &format!("{} of {} channels to {}; output lines `first..last`.", in_words(n), l.inputs, l.outputs),
            "",
            &format!("`x` has rows {ldx} floats apart, {}.", panels("w", l)),
        ],
    );
    let p = l.declare(&mut k);
    let row = if any_row { k.size("row") } else { Int::from(0usize) };
    let (first, last) = (k.size("first"), k.size("last"));
    let left = l.left(&mut k, &p, (p.x, row.clone() * ldx), &Int::from(n), n);
    let rest = Rest {
        residual: p.residual.map(|r| (r, row * pitch(l.outputs))),
        ..p.rest(Int::from(0usize), pitch(l.outputs))
    };
    p.w.vectors(&mut k, s, (&left, n), l.init, (first, last), rest);
    k.finish()
}

/// The part of a kernel's name that tells a few rows from one.
fn few(n: usize) -> String {
    if n > 1 { format!("_{n}") } else { String::new() }
}

fn in_words(n: usize) -> String {
    if n > 1 { format!("{n} rows") } else { "One row".to_string() }
}

/// Gate and up lines of `n` rows, one or a few, and their SwiGLU: hidden lines `first..last`. Parameters: x, w,
/// [w_scale], y, scratch, first, last. Scratch: [`gated_vectors_scratch`] floats.
pub fn gated_vectors(
    s: &Schedule,
    norm: Norm,
    format: Format,
    (channels, hidden): (usize, usize),
    n: usize,
) -> Rc<Kernel> {
    let wide = 2 * lines(hidden) * LANES;
    let l = Linear { norm: Some(norm), init: Init::Zero, ..Linear::new(channels, wide, format, Rows::Fixed(n)) };
    let mut k = Builder::new(
        format!("gemv_swiglu{}_{}_{channels}x{hidden}", few(n), format.name()),
        &[
            &format!("`y = swiglu(norm(x) w)`. {}; hidden lines `first..last`.", in_words(n)),
            "",
            &format!("{}, lines of gate and up in turn.", panels("w", &l)),
        ],
    );
    let p = l.declare(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let left = l.left(&mut k, &p, (p.x, Int::from(0usize)), &Int::from(n), n);
    let scratch = p.scratch.expect("a layer with a norm has scratch");
    let between = (scratch, Int::from(l.scratch(n)));
    let rest = Rest { c: between.clone(), residual: None, ..p.rest(Int::from(0usize), pitch(wide)) };
    p.w.vectors(&mut k, s, (&left, n), Init::Zero, (first.clone() * 2usize, last.clone() * 2usize), rest);
    let args = vec![between.into(), p.y.into(), Int::from(n).into(), first.into(), last.into()];
    k.call(&elementwise::swiglu(lines(hidden) * LANES), args);
    k.finish()
}

/// Floats of scratch of [`gated_vectors`].
pub fn gated_vectors_scratch(format: Format, (channels, hidden): (usize, usize), n: usize) -> usize {
    n * (pitch(channels) + pitch(2 * lines(hidden) * LANES)) + format.scratch(channels, n)
}
