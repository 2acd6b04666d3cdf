//! Products of many quantized rows with a decoder's matrices: threads take output channels.
//!
//! The rows are quantized once, by all threads; then each thread makes its lines for all rows. A
//! panel of 4-bit weights is expanded once and serves every row.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Kernel, Ptr};
use crate::library::gemm::{Init, in_powers};
use crate::library::integer::Weights;
use crate::library::linear::{Norm, Rows, each_strip, normalize};
use crate::library::matrix::{Format, Matrix, Rest};
use crate::library::quantize::{QuantRows, Quantized, Source, Span, chunk, each_chunk};
use crate::library::{Schedule, integer, lines, pitch};

/// Lines of a unit of work.
pub const UNIT_LINES: usize = 4;

/// Normalizes and quantizes rows, by units of rows. Parameters: x, [gain], q, [scratch], rows, first,
/// last. Scratch: `strip * pitch(channels)` floats, if there is a norm.
pub fn quantize_rows(norm: Option<Norm>, to: &QuantRows, rows: Rows, strip: usize) -> Rc<Kernel> {
    let (channels, ldx) = (to.channels, pitch(to.channels));
    let before = norm.map_or("", Norm::name);
    let groups = if to.groups { "_groups" } else { "" };
    let mut k = Builder::new(
        format!("{before}quantize_rows_{channels}_b{}{groups}", to.block),
        &[
            &format!("Rows of {channels} channels to bytes; units of rows `first..last`."),
            "",
            &format!("Rows of `x` are {ldx} floats apart, rows of `q` {} words.", to.pitch()),
        ],
    );
    let x = k.read("x");
    let gain = norm.is_some_and(Norm::has_gain).then(|| k.read("gain"));
    let q = k.write("q");
    let scratch = norm.map(|n| (n, k.write("scratch")));
    let rows = rows.size(&mut k);
    each_strip(&mut k, &rows, strip, |k, row, n| {
        let mut from = (x, row.clone() * ldx);
        if let Some((norm, scratch)) = scratch {
            from = normalize(k, norm, channels, from, gain, scratch, n.clone());
        }
        let to = Quantized { ptr: q, at: row * to.pitch(), rows: *to };
        to.fill_all(k, Source::Plain, from, n);
    });
    k.finish()
}

/// The sizes of a product by columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Input channels.
    pub inputs: usize,
    /// Output channels; for [`gated`] after the activation.
    pub outputs: usize,
    /// How the matrix is stored, not as floats.
    pub format: Format,
    /// What is added to the products.
    pub init: Init,
    /// Rows in all.
    pub rows: Rows,
}

impl Columns {
    /// The layout of quantized rows of `channels`.
    ///
    /// # Panics
    /// If the matrix is of floats.
    fn layout(&self, channels: usize) -> QuantRows {
        self.format.rows(channels).expect("products by columns are of quantized rows")
    }

    /// Floats of a panel of `lines` lines of expanded weights.
    fn panel(&self, lines: usize) -> usize {
        let q = self.layout(self.inputs);
        if q.groups { lines * q.physical() / 4 * LANES } else { 0 }
    }

    /// Channels of a block of the outputs.
    fn block(&self) -> usize {
        self.layout(self.outputs).block
    }

    /// Floats of scratch of [`columns`].
    pub fn scratch(&self) -> usize {
        self.panel(UNIT_LINES)
    }

    /// Units of [`columns`].
    pub fn units(&self) -> usize {
        lines(self.outputs).div_ceil(UNIT_LINES)
    }

    /// Units of [`gated`]: blocks of the outputs that share a scale.
    pub fn blocks(&self) -> usize {
        self.layout(self.outputs).blocks()
    }

    /// Floats of scratch of [`gated`]: the panels of a block, and its gates and ups for some rows.
    pub fn gated_scratch(&self) -> usize {
        self.panel(2 * self.block() / LANES) + chunk(self.rows.most()) * pitch(2 * self.block())
    }
}

/// `y = init + q w`; output lines in units `first..last`. Parameters: q, w, w_scale, [bias],
/// [residual], y, [scratch], rows, first, last.
pub fn columns(s: &Schedule, c: &Columns) -> Rc<Kernel> {
    let ld = pitch(c.outputs);
    let mut k = Builder::new(
        format!("columns{}_{}_{}x{}", c.init.name(), c.format.name(), c.inputs, c.outputs),
        &[
            &format!(
                "Quantized rows of {} channels to {}; units of {UNIT_LINES} lines `first..last`.",
                c.inputs, c.outputs
            ),
            "",
            &format!("Rows of `y` are {ld} floats apart. 4-bit weights are expanded a panel at a time."),
        ],
    );
    let q = k.read("q");
    let w = Matrix::declare(&mut k, "w", c.format, c.inputs);
    let bias = c.init.has_bias().then(|| k.read("bias"));
    let residual = c.init.has_residual().then(|| k.read("residual"));
    let y = k.write("y");
    let scratch = (c.panel(UNIT_LINES) > 0).then(|| k.write("scratch"));
    let rows = c.rows.size(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let left = Quantized { ptr: q, at: Int::from(0usize), rows: c.layout(c.inputs) };
    let from = first * UNIT_LINES;
    let to = k.int("end", (last * UNIT_LINES).min(lines(c.outputs)).max(from.clone()));
    let rest = |line: Int| Rest {
        bias: bias.map(|b| (b, line.clone() * LANES)),
        residual: residual.map(|r| (r, line.clone() * LANES)),
        c: (y, line.clone() * LANES),
        line,
        ldc: ld,
    };
    in_powers(&mut k, "panel", UNIT_LINES, from, &to, |k, width, line| {
        let (weights, out, ldc) = w.weights(rest(line));
        let weights = expanded(k, weights, scratch, width, &left.rows);
        integer::rows(k, s, &left, (&weights, c.init), (&rows, &Int::from(width)), (out, ldc));
    });
    k.finish()
}

/// The weights of `count` lines as bytes: those of 4 bits are expanded into `panel`.
fn expanded(k: &mut Builder, weights: Weights, panel: Option<Ptr>, count: usize, rows: &QuantRows) -> Weights {
    let Some(panel) = panel.filter(|_| rows.groups) else { return weights };
    let args = vec![weights.w.into(), panel.into(), Int::from(count).into(), Int::from(rows.blocks()).into()];
    k.call(&integer::expand(), args);
    Weights { w: (panel, Int::from(0usize)), ..weights }
}

/// `h = quantize(swiglu(q w))`; blocks `first..last` of the outputs. Parameters: q, w, w_scale, h,
/// scratch, rows, first, last. Scratch: [`Columns::gated_scratch`] floats.
pub fn gated(s: &Schedule, c: &Columns) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("columns_swiglu_{}_{}x{}", c.format.name(), c.inputs, c.outputs),
        &[
            &format!("`swiglu(q w)` of quantized rows, quantized; blocks `first..last` of {} channels.", c.outputs),
            "",
            "Lines of gate and up alternate in `w`.",
        ],
    );
    let q = k.read("q");
    let w = Matrix::declare(&mut k, "w", c.format, c.inputs);
    let (h, scratch) = (k.write("h"), k.write("scratch"));
    let rows = c.rows.size(&mut k);
    let (first, last) = (k.size("first"), k.size("last"));
    let left = Quantized { ptr: q, at: Int::from(0usize), rows: c.layout(c.inputs) };
    let hidden = Quantized { ptr: h, at: Int::from(0usize), rows: c.layout(c.outputs) };
    let (per_block, ldc) = (hidden.rows.block / LANES, pitch(2 * hidden.rows.block));
    let wide = (scratch, Int::from(c.panel(2 * per_block)));
    let block = |k: &mut Builder, b: Int, count: usize, span: Span| {
        let rest = Rest { line: b.clone() * (2 * per_block), c: wide.clone(), bias: None, residual: None, ldc };
        let (weights, out, ldc) = w.weights(rest);
        let weights = expanded(k, weights, Some(scratch), 2 * count, &left.rows);
        each_chunk(k, &rows, |k, row, n| {
            let left = left.from_row(row.clone());
            integer::rows(k, s, &left, (&weights, Init::Zero), (&n, &Int::from(2 * count)), (out.clone(), ldc));
            hidden.from_row(row).fill(k, Source::SwiGlu, (wide.clone(), ldc), n, (b.clone(), span));
        });
    };
    let total = lines(c.outputs);
    let (full, short) = (total / per_block, total % per_block);
    let whole = last.clone().min(full);
    k.each("b", first.clone(), whole, |k, b| block(k, b, per_block, Span { whole: 1, short: false }));
    if short > 0 {
        // The last unit is the short one.
        k.each("b", first.max(full), last, |k, b| block(k, b, short, Span { whole: 0, short: true }));
    }
    k.finish()
}
