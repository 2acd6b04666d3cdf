//! Matrix products of quantized rows: weights of 7 or 4 bits, sums in integers.
//!
//! A weight is at most 127 and unsigned, an activation signed: no instruction set saturates on the
//! way, so all give the same sums. Floats meet once per block of activations, multiplied, then added,
//! in block order: the same bits for every tile.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{Arg, BinaryOp, Elem, Kernel, Op, Ptr, Reg, UnaryOp};
use crate::library::gemm::{Init, in_powers};
use crate::library::quantize::{BLOCK, GROUP, QuantRows, Quantized};
use crate::library::{Schedule, pairs, stored};
use crate::target::Dots;

/// Words of a block of 4-bit weights of one line: a line of factors and 16 of nibbles.
pub const BLOCK_WORDS: usize = 17 * LANES;

/// Weights of 7 or 4 bits and what is added to their products.
pub struct Weights {
    /// Bytes or nibbles, as words.
    pub w: (Ptr, Int),
    /// A scale for each output channel. Without one, the blocks of a row are planes of one number: each
    /// has a scale of its own and meets the same weights, which are one block deep.
    pub scale: Option<(Ptr, Int)>,
    /// Bias, for the `Init`s that have one.
    pub bias: Option<(Ptr, Int)>,
    /// Residual and floats between its rows, for the `Init`s that have one.
    pub residual: Option<((Ptr, Int), usize)>,
}

/// Pointer parameters of a tile, in order.
struct Params {
    a: Ptr,
    scales: Ptr,
    sums: Ptr,
    w: Ptr,
    w_scale: Option<Ptr>,
    bias: Option<Ptr>,
    residual: Option<Ptr>,
    c: Ptr,
    accumulate: bool,
}

impl Params {
    fn declare(k: &mut Builder, init: Init, planes: bool, to: Elem) -> Params {
        Params {
            a: k.read_u32("a"),
            scales: k.read("scales"),
            sums: k.read_u32("sums"),
            w: k.read_u32("w"),
            w_scale: (!planes).then(|| k.read("w_scale")),
            bias: init.has_bias().then(|| k.read("bias")),
            residual: init.has_residual().then(|| k.read_floats("residual", to)),
            c: k.write_floats("c", to),
            accumulate: init == Init::Accumulate,
        }
    }

    /// `c = f * w_scale + bias + residual` for line `j` of row `i`.
    fn finish(&self, k: &mut Builder, (i, j): (usize, usize), f: Reg, ldr: &Int, ldc: &Int) {
        let mut out = f;
        if let Some(w_scale) = self.w_scale {
            let scale = k.load("w_s", w_scale, j * LANES);
            out = k.mul("out", f, scale);
        }
        if let Some(bias) = self.bias {
            let b = k.load("b", bias, j * LANES);
            out = k.add("out", out, b);
        }
        if let Some(residual) = self.residual {
            let r = k.load("r", residual, ldr.clone() * i + j * LANES);
            out = k.add("out", r, out);
        }
        if self.accumulate {
            let own = k.load("own", self.c, ldc.clone() * i + j * LANES);
            out = k.add("out", own, out);
        }
        k.store(self.c, ldc.clone() * i + j * LANES, out);
    }
}

/// A register tile of `rows` x `width` lines over all blocks of the depth. `planes` says that all blocks
/// meet the same weights, which have no scale.
///
/// Parameters: those of [`Params`], then blocks, line, lda, ldc, ldr, those of what there is only one
/// of left out. Weights `ahead` bytes on are asked for, if that is not 0. Residual and result are stored as `to`.
fn tile(
    (rows, width): (usize, usize),
    q: &QuantRows,
    init: Init,
    (ahead, planes, dots, to): (usize, bool, Dots, Elem),
) -> Rc<Kernel> {
    let tail = q.physical() % q.block;
    let tail_name = if tail > 0 { format!("_t{tail}") } else { String::new() };
    let mut k = Builder::new(
        format!(
            "{}{}_u7s8_{rows}x{width}_b{}{tail_name}{}{}",
            if ahead > 0 { "gemv" } else { "gemm" },
            init.name(),
            q.block,
            if planes { "_planes" } else { "" },
            stored("", to)
        ),
        &[
            &format!("One {rows}x{} register tile of a product of quantized rows.", width * LANES),
            "",
            "For each block of depth the sums are integers, which start from minus the zero point's share;",
            &format!(
                "they are scaled and added in floats. A block is {} deep, `w` is `[{width}, {} / 4, 16]` words{}.",
                q.block,
                if planes { "block" } else { "depth" },
                if planes { " for all blocks" } else { "" }
            ),
        ],
    );
    let p = Params::declare(&mut k, init, planes, to);
    let blocks = k.size("blocks");
    let one = || Int::from(0usize);
    let line = if width > 1 { k.size("line") } else { one() };
    let lda = if rows > 1 { k.size("lda") } else { one() };
    let ldc = if rows > 1 { k.size("ldc") } else { one() };
    let ldr = if rows > 1 && init.has_residual() { k.size("ldr") } else { one() };
    let f: Vec<Vec<Reg>> =
        (0..rows).map(|i| (0..width).map(|j| k.bind_mut(&format!("f_{i}_{j}"), Op::Splat(0.0))).collect()).collect();
    // A tile of few sums would wait for each: it has several of them for every output, which are
    // integers and so the same in any order.
    let chains = (4 / (rows * width)).max(1);
    let pairs = dots == Dots::Pairs && rows.is_multiple_of(2);
    let block = |k: &mut Builder, b: Int, depth: usize| {
        let first = k.int("first", b.clone() * (q.block / 4));
        let sums: Vec<Reg> =
            (0..rows).map(|i| k.broadcast(&format!("sum_{i}"), p.sums, lda.clone() * i + b.clone())).collect();
        // Of pairs of rows, the line of each is one of the two in which both have their sums.
        let starts: Vec<Reg> = match pairs {
            false => sums,
            true => (0..rows / 2)
                .flat_map(|pair| [pairs::start(k, pair, [sums[2 * pair], sums[2 * pair + 1]]); 2])
                .collect(),
        };
        let acc: Vec<Vec<Reg>> = starts
            .iter()
            .enumerate()
            .map(|(i, &start)| (0..width).map(|j| k.bind_mut(&format!("acc_{i}_{j}"), Op::Copy(start))).collect())
            .collect();
        let more: Vec<Vec<Reg>> = (1..chains)
            .map(|c| (0..rows * width).map(|n| k.bind_mut(&format!("more_{c}_{n}"), Op::SplatBits(0))).collect())
            .collect();
        // Adds to the sum of row `i` and line `j` in a turn.
        let add = |k: &mut Builder, (i, j): (usize, usize), turn: usize, dot: &dyn Fn(Reg) -> Op| {
            let chain = turn % chains;
            let acc = if chain == 0 { acc[i][j] } else { more[chain - 1][i * width + j] };
            k.set(acc, dot(acc));
        };
        let weights = |k: &mut Builder, of: &Int| -> Vec<Reg> {
            let line_at = |j: usize| line.clone() * j + of.clone() * LANES;
            (0..width).for_each(|j| ask(k, ahead, p.w, &line_at(j)));
            (0..width).map(|j| k.load(&format!("w_{j}"), p.w, line_at(j))).collect()
        };
        // The quad `at` of the rows meets the quad `of` of the weights; `four` has it and what follows, by row.
        let quads = |k: &mut Builder, at: Int, of: Int, turn: usize, four: Option<&[Reg]>| {
            let w = weights(k, &of);
            for i in 0..rows {
                let one = |k: &mut Builder| k.broadcast(&format!("a_{i}"), p.a, at.clone() + lda.clone() * i);
                let a = four.map_or_else(|| one(k), |four| four[i]);
                for (j, &w) in w.iter().enumerate() {
                    match four {
                        Some(_) => add(k, (i, j), turn, &|acc| Op::DotLane(w, a, turn as u32, acc)),
                        None => add(k, (i, j), turn, &|acc| Op::Dot(w, a, acc)),
                    }
                }
            }
        };
        // Four quads of the rows, in pairs, meet those from `of` on of the weights.
        let in_pairs = |k: &mut Builder, of: Int, four: &[Reg]| {
            let words: Vec<[Reg; pairs::TURNS]> =
                (0..rows / 2).map(|pair| pairs::rows(k, pair, [four[2 * pair], four[2 * pair + 1]])).collect();
            for turn in 0..pairs::TURNS {
                let a: Vec<Reg> = words.iter().map(|words| words[turn]).collect();
                let [first, second] = [0usize, 1].map(|n| weights(k, &(of.clone() + (2 * turn + n))));
                for j in 0..width {
                    let w = pairs::weights(k, j, [first[j], second[j]]);
                    // Low sums of all rows first: what is behind them has registers then.
                    for i in (0..rows).step_by(2).chain((1..rows).step_by(2)) {
                        add(k, (i, j), turn, &|acc| Op::DotPairs(w[i % 2], a[i / 2], acc));
                    }
                }
            }
        };
        if chains == 1 && !planes && dots == Dots::Words {
            k.each("p", first.clone(), first + depth / 4, |k, at| quads(k, at.clone(), at, 0, None));
        } else {
            // Blocks are whole lines: their quads come in fours.
            let turns = if dots == Dots::Words { chains } else { 4 };
            k.each("p", 0usize, depth / 4 / turns, |k, n| {
                let within = n * turns;
                let at = k.int("quad", first + within.clone());
                let of = if planes { within } else { at.clone() };
                let quad = |i: usize| (format!("four_{i}"), Op::Quad(p.a, at.clone() + lda.clone() * i));
                let four: Vec<Reg> =
                    (0..rows).filter(|_| dots != Dots::Words).map(quad).map(|(name, op)| k.bind(&name, op)).collect();
                if pairs {
                    return in_pairs(k, of, &four);
                }
                let four = (dots != Dots::Words).then_some(four.as_slice());
                (0..turns).for_each(|c| quads(k, at.clone() + c, of.clone() + c, c, four));
            });
        }
        for sums in &more {
            for (n, sum) in sums.iter().enumerate() {
                let acc = acc[n / width][n % width];
                k.set(acc, Op::Binary(BinaryOp::AddInt, acc, *sum));
            }
        }
        let mut totals = acc.clone();
        for i in (0..rows).step_by(2).filter(|_| pairs) {
            for j in 0..width {
                [totals[i][j], totals[i + 1][j]] = pairs::apart(k, [acc[i][j], acc[i + 1][j]]);
            }
        }
        for (i, row) in totals.iter().enumerate() {
            let scale = k.broadcast(&format!("s_{i}"), p.scales, lda.clone() * i + b.clone());
            for (j, &total) in row.iter().enumerate() {
                scaled(k, f[i][j], total, scale);
            }
        }
    };
    k.blank();
    k.each("b", 0usize, blocks.clone(), |k, b| block(k, b, q.block));
    if tail > 0 {
        k.note("The last, short block.");
        block(&mut k, blocks, tail);
    }
    k.blank();
    for (i, row) in f.iter().enumerate() {
        for (j, &f) in row.iter().enumerate() {
            p.finish(&mut k, (i, j), f, &ldr, &ldc);
        }
    }
    k.finish()
}

/// `f += float(acc) * scale`, rounded twice.
pub(super) fn scaled(k: &mut Builder, f: Reg, acc: Reg, scale: Reg) {
    let v = k.unary("v", UnaryOp::ToFloat, acc);
    let v = k.mul("v", v, scale);
    k.set(f, Op::Binary(BinaryOp::Add, f, v));
}

/// Emits `c = init + q w` for `n` rows and `count` lines of bytes: panels of lines, tiles of rows.
pub fn rows(
    k: &mut Builder,
    s: &Schedule,
    q: &Quantized,
    (w, init): (&Weights, Init),
    (n, count): (&Int, &Int),
    (c, ldc): ((Ptr, Int), usize),
) {
    let (height, width) = s.integer_tile(count.constant().unwrap_or(0) as usize);
    let planes = w.scale.is_none();
    let line = if planes { q.rows.block } else { q.rows.physical() } / 4 * LANES;
    in_powers(k, "j", width, Int::from(0usize), count, |k, width, j| {
        in_powers(k, "i", height, Int::from(0usize), n, |k, height, i| {
            let kernel = tile((height, width), &q.rows, init, (0, planes, s.dots, k.elem(c.0)));
            call(k, (&kernel, true), q, (w, init), (i, j.clone()), line, (&c, ldc), (height, width));
        });
    });
}

#[expect(clippy::too_many_arguments, reason = "the arguments of one kernel call")]
fn call(
    k: &mut Builder,
    (kernel, bytes): (&Rc<Kernel>, bool),
    q: &Quantized,
    (w, init): (&Weights, Init),
    (row, line_at): (Int, Int),
    line: usize,
    (c, ldc): (&(Ptr, Int), usize),
    (height, width): (usize, usize),
) {
    let column = line_at.clone() * LANES;
    let moved = |x: &(Ptr, Int), by: Int| Arg::from((x.0, x.1.clone() + by));
    let mut args: Vec<Arg> = q.arguments(row.clone(), bytes).into();
    args.push(moved(&w.w, line_at * line));
    args.extend(w.scale.as_ref().map(|scale| moved(scale, column.clone())));
    if let (true, Some(bias)) = (init.has_bias(), &w.bias) {
        args.push(moved(bias, column.clone()));
    }
    let mut ldr = 0;
    if let (true, Some((residual, pitch))) = (init.has_residual(), &w.residual) {
        args.push(moved(residual, row.clone() * *pitch + column.clone()));
        ldr = *pitch;
    }
    args.push(moved(c, row * ldc + column));
    args.push(Int::from(q.rows.physical() / q.rows.block).into());
    let sizes =
        [(width > 1, line), (height > 1, q.rows.pitch()), (height > 1, ldc), (height > 1 && init.has_residual(), ldr)];
    args.extend(sizes.into_iter().filter(|(given, _)| *given).map(|(_, n)| Arg::from(Int::from(n))));
    k.call(kernel, args);
}

/// The low and the high nibbles of a line, a byte each.
pub(super) fn nibbles(k: &mut Builder, line: Reg, mask: Reg) -> [Reg; 2] {
    let low = k.binary("low", BinaryOp::And, line, mask);
    let high = k.bind("high", Op::ShiftRight(line, 4));
    [low, k.binary("high", BinaryOp::And, high, mask)]
}

/// Nibble `i` of each lane, with its sign.
pub(super) fn signed_nibble(k: &mut Builder, name: &str, word: Reg, i: u32) -> Reg {
    let high = k.bind(name, Op::ShiftLeft(word, 28 - 4 * i));
    k.bind(name, Op::ShiftRightSigned(high, 28))
}

/// Emits the hint for the line of weights that is `ahead` bytes behind `at`, unless it is 0.
fn ask(k: &mut Builder, ahead: usize, w: Ptr, at: &Int) {
    if ahead > 0 {
        k.prefetch(w, at.clone() + ahead / 4);
    }
}

/// A few rows and `width` lines of 4-bit weights: a group's sum is multiplied by its factor. Parameters as of
/// [`tile`].
///
/// With `halves` a group's products are added up in 16 bits, 4 x 2 x 15 x 127 and 8 x 16 x 127 at most, and a factor in both
/// halves of a lane multiplies and adds them.
fn nibble_tile((rows, width): (usize, usize), init: Init, s: &Schedule) -> Rc<Kernel> {
    let Schedule { ahead, nibbles_in_halves: halves, dots, .. } = *s;
    let height = if rows > 1 { format!("{rows}x") } else { String::new() };
    let mut k = Builder::new(
        format!("gemv{}_u4s8_{height}{width}", init.name()),
        &[
            &format!("{} output channels of a product of {rows} quantized rows and 4-bit weights.", width * LANES),
            "",
            "A weight is its channel's scale times its group's factor times a nibble less 8. A block of",
            "depth is a line of factors, eight nibbles a lane, and 16 lines of nibbles: low ones for four",
            "inputs, high ones for the next four. Two lines are a group: its sum starts from minus the zero",
            "point's share.",
        ],
    );
    let p = Params::declare(&mut k, init, false, Elem::F32);
    let blocks = k.size("blocks");
    let one = || Int::from(0usize);
    let line = if width > 1 { k.size("line") } else { one() };
    let lda = if rows > 1 { k.size("lda") } else { one() };
    let ldc = if rows > 1 { k.size("ldc") } else { one() };
    let ldr = if rows > 1 && init.has_residual() { k.size("ldr") } else { one() };
    let of_row = |name: &str, i: usize| if rows > 1 { format!("{name}_{i}") } else { name.to_string() };
    let mask = k.bind("mask", Op::SplatBits(0x0f0f_0f0f));
    let half = halves.then(|| k.bind("half", Op::SplatBits(0xffff)));
    let f: Vec<Vec<Reg>> = (0..rows)
        .map(|i| (0..width).map(|j| k.bind_mut(&format!("{}_{j}", of_row("f", i)), Op::Splat(0.0))).collect())
        .collect();
    k.each("b", 0usize, blocks, |k, b| {
        // One line after the other, each with all registers; both are streams of memory.
        for j in 0..width {
            let words = k.int(&format!("words_{j}"), line.clone() * j + b.clone() * BLOCK_WORDS);
            let block = NibbleBlock {
                p: &p,
                rows,
                lda: &lda,
                b: &b,
                words,
                mask,
                half,
                lanes: dots != Dots::Words && !halves,
                ahead,
            };
            for (i, (total, f)) in block.totals(k).into_iter().zip(&f).enumerate() {
                let scale = k.broadcast(&of_row("s", i), p.scales, lda.clone() * i + b.clone());
                scaled(k, f[j], total, scale);
            }
        }
    });
    for (i, f) in f.iter().enumerate() {
        for (j, &f) in f.iter().enumerate() {
            p.finish(&mut k, (i, j), f, &ldr, &ldc);
        }
    }
    k.finish()
}

/// A block of 4-bit weights of one line, and the rows that it meets.
struct NibbleBlock<'a> {
    p: &'a Params,
    rows: usize,
    /// Words from one row's bytes, scales and sums to the next.
    lda: &'a Int,
    /// Which block.
    b: &'a Int,
    /// Where its weights are.
    words: Int,
    /// Low nibbles of all bytes.
    mask: Reg,
    /// Low halves of all lanes, if products are added up in halves.
    half: Option<Reg>,
    /// Whether four words of a row are read at once; not with `half`.
    lanes: bool,
    /// Bytes to the weights that are asked for.
    ahead: usize,
}

impl NibbleBlock<'_> {
    /// The name of a row's value; a single row needs no number.
    fn of_row(&self, name: &str, i: usize) -> String {
        if self.rows > 1 { format!("{name}_{i}") } else { name.to_string() }
    }

    /// Emits the sums of the block, one for each row.
    fn totals(&self, k: &mut Builder) -> Vec<Reg> {
        ask(k, self.ahead, self.p.w, &self.words);
        let all = k.load("all", self.p.w, self.words.clone());
        let factors = k.bind_mut("factors", Op::Copy(all));
        let totals: Vec<Reg> = (0..self.rows).map(|i| k.bind_mut(&self.of_row("total", i), Op::SplatBits(0))).collect();
        let groups = BLOCK / GROUP;
        match self.half {
            None => k.each("g", 0usize, groups, |k, g| self.group(k, g, factors, &totals)),
            // The factors of four groups, in both halves, then those of the other four.
            Some(half) => k.each("h", 0usize, 2usize, |k, h| {
                let low = k.binary("low", BinaryOp::And, factors, half);
                let high = k.bind("high", Op::ShiftLeft(factors, 16));
                let pair = k.binary("pair", BinaryOp::Or, low, high);
                let both = k.bind_mut("both", Op::Copy(pair));
                k.set(factors, Op::ShiftRight(factors, 16));
                k.each("g", 0usize, groups / 2, |k, g| {
                    let g = k.int("group", h.clone() * (groups / 2) + g);
                    self.group(k, g, both, &totals);
                });
            }),
        }
        totals
    }

    /// Adds a group's products, times its factor, and moves on to the next factor.
    fn group(&self, k: &mut Builder, g: Int, factors: Reg, totals: &[Reg]) {
        let at = k.int("at", self.words.clone() + g.clone() * (2 * LANES) + LANES);
        let [low, high] = [0, LANES].map(|half| {
            let at = at.clone() + half;
            ask(k, self.ahead, self.p.w, &at);
            let n = k.load("n", self.p.w, at);
            nibbles(k, n, self.mask)
        });
        let quads = [low[0], low[1], high[0], high[1]];
        let factor = match self.half {
            None => signed_nibble(k, "factor", factors, 0),
            Some(_) => {
                let high = k.bind("factor", Op::ShiftLeft(factors, 12));
                k.bind("factor", Op::ShiftRightHalves(high, 12))
            }
        };
        let quad = k.int("quad", self.b.clone() * (BLOCK / 4) + g.clone() * 4usize);
        for (i, &total) in totals.iter().enumerate() {
            let from = |at: Int| self.lda.clone() * i + at;
            let mut acc =
                k.broadcast(&self.of_row("sum", i), self.p.sums, from(self.b.clone() * (BLOCK / GROUP) + g.clone()));
            if let Some(half) = self.half {
                acc = k.binary(&self.of_row("sum", i), BinaryOp::And, acc, half);
            }
            let four = self.lanes.then(|| k.bind(&self.of_row("four", i), Op::Quad(self.p.a, from(quad.clone()))));
            for (n, nibbles) in quads.into_iter().enumerate() {
                if let Some(four) = four {
                    acc = k.bind("acc", Op::DotLane(nibbles, four, n as u32, acc));
                    continue;
                }
                let a = k.broadcast(&self.of_row(&format!("a_{n}"), i), self.p.a, from(quad.clone() + n));
                acc = match self.half {
                    None => k.bind("acc", Op::Dot(nibbles, a, acc)),
                    Some(_) => {
                        let products = k.binary("products", BinaryOp::DotBytes, nibbles, a);
                        k.binary("acc", BinaryOp::AddHalves, acc, products)
                    }
                };
            }
            let by = if self.half.is_some() { BinaryOp::DotHalves } else { BinaryOp::MulInt };
            let share = k.binary("share", by, acc, factor);
            k.set(total, Op::Binary(BinaryOp::AddInt, total, share));
        }
        k.set(factors, Op::ShiftRight(factors, 4));
    }
}

/// Emits `c = init + q w` for `n` rows, a few, and the lines `first..last`: weights are read once.
pub fn vectors(
    k: &mut Builder,
    s: &Schedule,
    (q, n): (&Quantized, usize),
    (w, init): (&Weights, Init),
    (first, last): (Int, Int),
    (c, ldc): (&(Ptr, Int), usize),
) {
    let none = Int::from(0usize);
    if !q.rows.groups {
        let line = q.rows.physical() / 4 * LANES;
        return in_powers(k, "j", s.byte_lines, first, &last, |k, width, j| {
            let kernel = tile((n, width), &q.rows, init, (s.ahead, false, s.dots, k.elem(c.0)));
            call(k, (&kernel, true), q, (w, init), (none.clone(), j), line, (c, ldc), (n, width));
        });
    }
    let line = q.rows.blocks() * BLOCK_WORDS;
    in_powers(k, "j", s.nibble_lines, first, &last, |k, width, j| {
        let kernel = nibble_tile((n, width), init, s);
        call(k, (&kernel, false), q, (w, init), (none.clone(), j), line, (c, ldc), (n, width));
    });
}

/// 4-bit weights to the bytes of [`rows`]: `factor * (nibble - 8) + 64`. Parameters: w, panel,
/// lines, blocks; lines follow each other.
///
/// A lane's four bytes have one factor, and every result is a byte, so one 32-bit product makes four.
pub fn expand() -> Rc<Kernel> {
    let mut k = Builder::new(
        "expand_u4_u7",
        &[
            "Lines of 4-bit weights as bytes, `factor * (nibble - 8) + 64`.",
            "",
            "`w` is `[lines, blocks, 17, 16]` words, `panel` is `[lines, blocks * 32, 16]`. The four bytes of a lane have",
            "one factor and every result is a byte, so one product of words makes four of them.",
        ],
    );
    let (w, panel) = (k.read_u32("w"), k.write_u32("panel"));
    let (count, blocks) = (k.size("lines"), k.size("blocks"));
    let mask = k.bind("mask", Op::SplatBits(0x0f0f_0f0f));
    let zero = k.bind("zero", Op::SplatBits(0x0808_0808));
    let middle = k.bind("middle", Op::SplatBits(0x4040_4040));
    k.each("b", 0usize, count * blocks, |k, b| {
        let all = k.load("all", w, b.clone() * BLOCK_WORDS);
        let factors = k.bind_mut("factors", Op::Copy(all));
        k.each("g", 0usize, BLOCK / GROUP, |k, g| {
            let factor = signed_nibble(k, "factor", factors, 0);
            k.set(factors, Op::ShiftRight(factors, 4));
            for half in 0..2usize {
                let n = k.load("n", w, b.clone() * BLOCK_WORDS + g.clone() * (2 * LANES) + (1 + half) * LANES);
                for (i, part) in nibbles(k, n, mask).into_iter().enumerate() {
                    let v = k.binary("v", BinaryOp::SubInt, part, zero);
                    let v = k.binary("v", BinaryOp::MulInt, v, factor);
                    let v = k.binary("v", BinaryOp::AddInt, v, middle);
                    let at = b.clone() * (BLOCK / 4 * LANES) + g.clone() * (4 * LANES) + (2 * half + i) * LANES;
                    k.store(panel, at, v);
                }
            }
        });
    });
    k.finish()
}
