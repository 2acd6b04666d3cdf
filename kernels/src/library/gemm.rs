//! Matrix products: the register tile, and the blocks around it.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, Elem, Kernel, Op, Ptr, Reg};
use crate::library::{Schedule, lines, pitch};

/// What a tile's accumulators start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Init {
    /// Zero.
    Zero,
    /// A bias per output channel.
    Bias,
    /// A bias per output channel plus a row of another operand.
    BiasResidual,
    /// A row of another operand.
    Residual,
    /// The output's own values: a later block of the depth.
    Accumulate,
}

impl Init {
    /// Part of a kernel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Init::Zero => "",
            Init::Bias => "_bias",
            Init::BiasResidual => "_bias_residual",
            Init::Residual => "_residual",
            Init::Accumulate => "_accumulate",
        }
    }

    /// Whether a bias is read.
    pub fn has_bias(self) -> bool {
        matches!(self, Init::Bias | Init::BiasResidual)
    }

    /// Whether a residual is read.
    pub fn has_residual(self) -> bool {
        matches!(self, Init::Residual | Init::BiasResidual)
    }
}

/// A register tile: its sizes, and whether the distance of `a`'s rows is a constant of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Rows of accumulators.
    pub rows: usize,
    /// Lines of accumulators.
    pub lines: usize,
    /// What the accumulators start from.
    pub init: Init,
    /// Whether `b` is of 16-bit floats.
    pub halves: bool,
    /// Floats between rows of `a`, as a constant: the tile that does most of the work then needs
    /// one address register for all rows. The tiles of what is left take it as a parameter.
    pub lda: Option<usize>,
}

/// `c = init + a b` on `rows` x `lines` accumulators, held in registers over the whole depth.
///
/// `a` has rows `lda` apart; `b` is `[lines][depth][16]`, lines `line` floats apart; `c` has rows
/// `ldc` apart. Each sum runs over the depth in order, so every tile gives the same bits.
/// Distances of what there is only one of are not parameters.
pub fn tile(t: &Tile) -> Rc<Kernel> {
    let Tile { rows, lines, init, halves, lda } = *t;
    let b_name = if halves { "f16" } else { "f32" };
    let suffix = lda.map(|n| format!("_a{n}")).unwrap_or_default();
    let apart = |n: &str| if rows > 1 { format!(" with rows {n} floats apart") } else { String::new() };
    let lines_apart = if lines > 1 { " with lines `line` floats apart" } else { "" };
    let lda_text = lda.map_or("`lda`".to_string(), |n| n.to_string());
    let mut k = Builder::new(
        format!("gemm{}_{b_name}_{rows}x{lines}{suffix}", init.name()),
        &[
            &format!("`c = {} + a b` on one {rows}x{} register tile.", start(init), lines * LANES),
            "",
            &format!("`a` is `[{rows}, depth]`{}, `b` is `[{lines}, depth, 16]`{lines_apart},", apart(&lda_text)),
            &format!("`c` is `[{rows}, {}]`{}.", lines * LANES, apart("`ldc`")),
        ],
    );
    let a = k.read("a");
    let b = k.read_floats("b", if halves { Elem::F16 } else { Elem::F32 });
    let bias = init.has_bias().then(|| k.read("bias"));
    let residual = init.has_residual().then(|| k.read("residual"));
    let c = k.write("c");
    let depth = k.size("depth");
    let one = || Int::from(0usize);
    let line = if lines > 1 { k.size("line") } else { one() };
    let lda = match lda {
        Some(n) => Int::from(n),
        None if rows > 1 => k.size("lda"),
        None => one(),
    };
    let ldc = if rows > 1 { k.size("ldc") } else { one() };
    let ldr = if rows > 1 && init.has_residual() { k.size("ldr") } else { one() };

    let mut acc: Vec<Vec<Reg>> = Vec::new();
    let bias: Option<Vec<Reg>> =
        bias.map(|bias| (0..lines).map(|j| k.load(&format!("bias_{j}"), bias, j * LANES)).collect());
    for i in 0..rows {
        let row = (0..lines)
            .map(|j| {
                let residual = residual.map(|r| (r, ldr.clone() * i));
                let own = (init == Init::Accumulate).then_some((c, ldc.clone() * i));
                start_value(&mut k, (i, j), residual, bias.as_ref().map(|b| b[j]), own)
            })
            .collect();
        acc.push(row);
    }
    k.blank();
    k.each("p", 0usize, depth, |k, p| {
        let b_rows: Vec<Reg> =
            (0..lines).map(|j| k.load(&format!("b_{j}"), b, line.clone() * j + p.clone() * LANES)).collect();
        for (i, row) in acc.iter().enumerate() {
            let a_i = k.broadcast(&format!("a_{i}"), a, p.clone() + lda.clone() * i);
            for (j, &acc) in row.iter().enumerate() {
                k.mul_add(acc, a_i, b_rows[j]);
            }
        }
    });
    k.blank();
    for (i, row) in acc.iter().enumerate() {
        for (j, &acc) in row.iter().enumerate() {
            k.store(c, ldc.clone() * i + j * LANES, acc);
        }
    }
    k.finish()
}

fn start(init: Init) -> &'static str {
    match init {
        Init::Zero => "0",
        Init::Bias => "bias",
        Init::BiasResidual => "residual + bias",
        Init::Residual => "residual",
        Init::Accumulate => "c",
    }
}

fn start_value(
    k: &mut Builder,
    (i, j): (usize, usize),
    residual: Option<(Ptr, Int)>,
    bias: Option<Reg>,
    own: Option<(Ptr, Int)>,
) -> Reg {
    let name = format!("acc_{i}_{j}");
    let loaded = residual.or(own).map(|(ptr, at)| Op::Load(ptr, at + j * LANES));
    match (loaded, bias) {
        (Some(load), Some(bias)) => {
            let r = k.bind(&format!("r_{i}_{j}"), load);
            k.bind_mut(&name, Op::Binary(crate::ir::BinaryOp::Add, r, bias))
        }
        (Some(load), None) => k.bind_mut(&name, load),
        (None, Some(bias)) => k.bind_mut(&name, Op::Copy(bias)),
        (None, None) => k.bind_mut(&name, Op::Splat(0.0)),
    }
}

/// The sizes of a matrix product.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Depth of each product of two rows.
    pub depth: Int,
    /// Lines of output channels.
    pub lines: Int,
    /// Elements of `b` from one line to the next; `depth * 16` for a whole matrix.
    pub line: usize,
    /// Whether `b` is of 16-bit floats.
    pub halves: bool,
    /// Floats between rows of `a`.
    pub lda: usize,
    /// Floats between rows of `c`.
    pub ldc: usize,
    /// Floats between rows of the residual.
    pub ldr: usize,
    /// The depth in blocks of this size, if it is not one run of `a`: a convolution's kernel rows.
    pub segment: Option<Segment>,
}

impl Shape {
    /// A product of whole matrices: `inputs` and `outputs` channels, rows at their pitches.
    pub fn dense(inputs: usize, outputs: usize) -> Shape {
        Shape {
            depth: Int::from(inputs),
            lines: Int::from(lines(outputs)),
            line: inputs * LANES,
            halves: false,
            lda: pitch(inputs),
            ldc: pitch(outputs),
            ldr: pitch(outputs),
            segment: None,
        }
    }
}

/// A depth made of equal runs of `a` that do not follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Depth of one run.
    pub depth: usize,
    /// Floats of `a` from one run to the next.
    pub stride: usize,
}

/// Operands of a product, moved to their first element.
pub struct Operands {
    /// Left operand.
    pub a: (Ptr, Int),
    /// Weights.
    pub b: (Ptr, Int),
    /// Bias, for the `Init`s that have one.
    pub bias: Option<(Ptr, Int)>,
    /// Residual, for the `Init`s that have one.
    pub residual: Option<(Ptr, Int)>,
    /// Result.
    pub c: (Ptr, Int),
}

/// Emits `c = init + a b` for `n` rows into the kernel under construction, tile by tile.
///
/// The order is block of depth, panel of lines, tile of rows: a panel stays in L1 while the rows
/// pass. Rows and lines that do not fill a tile take smaller tiles, powers of two.
///
/// # Panics
/// For a result of other elements than 32-bit floats.
pub fn rows(k: &mut Builder, s: &Schedule, shape: &Shape, init: Init, n: impl Into<Int>, x: &Operands) {
    let n = n.into();
    assert_eq!(k.elem(x.c.0), Elem::F32, "the result of a product of floats");
    let Segment { depth: block, stride } =
        shape.segment.unwrap_or(Segment { depth: s.depth_block, stride: s.depth_block });
    let Some(depth) = shape.depth.constant().map(|d| d as usize) else {
        // The keys of an attention block: one run of a depth known when it is called.
        return panels(k, s, shape, init, &n, x, (x.a.1.clone(), x.b.1.clone(), shape.depth.clone()));
    };
    let block_at = |k: &mut Builder, init: Init, q: Int, depth: usize| {
        let a = x.a.1.clone() + q.clone() * stride;
        let b = x.b.1.clone() + q * (block * LANES);
        panels(k, s, shape, init, &n, x, (a, b, Int::from(depth)));
    };
    let full = depth / block;
    if full > 0 {
        block_at(k, init, Int::from(0usize), block);
        k.each("q", 1usize, full, |k, q| block_at(k, Init::Accumulate, q, block));
    }
    if depth % block > 0 {
        let init = if full > 0 { Init::Accumulate } else { init };
        block_at(k, init, Int::from(full), depth % block);
    }
}

fn panels(
    k: &mut Builder,
    s: &Schedule,
    shape: &Shape,
    init: Init,
    n: &Int,
    x: &Operands,
    (a, b, depth): (Int, Int, Int),
) {
    let panel = |k: &mut Builder, width: usize, j: Int| {
        let at = (a.clone(), b.clone() + j.clone() * shape.line, j * LANES);
        row_tiles(k, s, shape, init, n, x, width, &at, &depth);
    };
    in_powers(k, "j", s.tile.1, Int::from(0usize), &shape.lines, panel);
}

/// Calls `body(width, at)` for `from..to` in steps of `width`, and for what is left in powers of
/// two below it, largest first.
pub(super) fn in_powers(
    k: &mut Builder,
    name: &str,
    width: usize,
    from: Int,
    to: &Int,
    body: impl Fn(&mut Builder, usize, Int),
) {
    if let (Some(first), Some(last)) = (from.constant(), to.constant()) {
        let (first, last) = (first as usize, last as usize);
        let full = (last - first) / width;
        k.each(name, 0usize, full, |k, i| body(k, width, i * width + first));
        let mut done = first + full * width;
        for small in powers_below(width) {
            while done + small <= last {
                body(k, small, Int::from(done));
                done += small;
            }
        }
        return;
    }
    let full = k.int(&format!("full_{name}"), (to.clone() - from.clone()) / width as i64);
    k.each(name, 0usize, full.clone(), |k, i| body(k, width, from.clone() + i * width));
    if width == 1 {
        return;
    }
    let mut done = k.int(&format!("done_{name}"), from + full * width);
    for small in powers_below(width) {
        let next = k.int(&format!("next_{name}"), done.clone() + (to.clone() - done.clone()) / small as i64 * small);
        k.if_less(done.clone(), next.clone(), |k| body(k, small, done.clone()), |_| {});
        done = next;
    }
}

#[expect(clippy::too_many_arguments, reason = "one call site, all of them indices of the same loop nest")]
fn row_tiles(
    k: &mut Builder,
    s: &Schedule,
    shape: &Shape,
    init: Init,
    n: &Int,
    x: &Operands,
    width: usize,
    (a, b, column): &(Int, Int, Int),
    depth: &Int,
) {
    let call = |k: &mut Builder, height: usize, row: Int| {
        let at = (a.clone() + row.clone() * shape.lda, b.clone(), column.clone());
        let own = ((height, width) == s.tile).then_some(shape.lda);
        call_tile(
            k,
            shape,
            &Tile { rows: height, lines: width, init, halves: shape.halves, lda: own },
            x,
            row,
            at,
            depth,
        );
    };
    in_powers(k, "i", s.tile.0, Int::from(0usize), n, call);
}

/// One tile of rows from `row` on and lines from `column` on.
fn call_tile(
    k: &mut Builder,
    shape: &Shape,
    t: &Tile,
    x: &Operands,
    row: Int,
    (a, b, column): (Int, Int, Int),
    depth: &Int,
) {
    let mut args: Vec<Arg> = vec![(x.a.0, a).into(), (x.b.0, b).into()];
    if let (true, Some((ptr, at))) = (t.init.has_bias(), &x.bias) {
        args.push((*ptr, at.clone() + column.clone()).into());
    }
    if let (true, Some((ptr, at))) = (t.init.has_residual(), &x.residual) {
        args.push((*ptr, at.clone() + row.clone() * shape.ldr + column.clone()).into());
    }
    args.push((x.c.0, x.c.1.clone() + row * shape.ldc + column).into());
    args.push(depth.clone().into());
    let several = t.rows > 1;
    let sizes = [
        (t.lines > 1, shape.line),
        (several && t.lda.is_none(), shape.lda),
        (several, shape.ldc),
        (several && t.init.has_residual(), shape.ldr),
    ];
    args.extend(sizes.into_iter().filter(|(given, _)| *given).map(|(_, n)| Arg::from(Int::from(n))));
    k.call(&tile(t), args);
}

/// Powers of two below `n`, largest first.
fn powers_below(n: usize) -> impl Iterator<Item = usize> + Clone {
    (0..usize::BITS).rev().map(|b| 1usize << b).filter(move |p| *p < n)
}

/// Emits `c = init + a b` for one row and the lines `first..last`: a matrix-vector product.
pub fn vector(k: &mut Builder, s: &Schedule, shape: &Shape, init: Init, (first, last): (Int, Int), x: &Operands) {
    let call = |k: &mut Builder, width: usize, j: Int| {
        let at = (x.a.1.clone(), x.b.1.clone() + j.clone() * shape.line, j * LANES);
        let tile = Tile { rows: 1, lines: width, init, halves: shape.halves, lda: None };
        call_tile(k, shape, &tile, x, Int::from(0usize), at, &shape.depth);
    };
    in_powers(k, "j", s.vector_lines, first, &last, call);
}
