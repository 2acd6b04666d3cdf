//! Token rows in, the most likely token out.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{BinaryOp, CompareOp, Kernel, Op, Ptr, ReduceOp, Reg, UnaryOp};
use crate::library::integer::{BLOCK_WORDS, signed_nibble};
use crate::library::matrix::{Format, Matrix};
use crate::library::quantize::{BLOCK, GROUP};
use crate::library::{lines, pitch};

/// One token's row out of a head's panels. Parameters: table, [table_scale], y, id.
pub fn embed(format: Format, channels: usize, vocab: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("embed_{}_{channels}", format.name()),
        &[
            "Row `id` of the embedding, which is stored as the head's panels.",
            "",
            &format!("`y` is `[{channels}]`, the table has {vocab} rows in lines of 16."),
        ],
    );
    let table = Matrix::declare(&mut k, "table", format, channels);
    let y = k.write("y");
    let id = k.size("id");
    let line = k.int("at", id.clone() / LANES as i64 * format.line_words(channels) + id.clone() % LANES as i64);
    let Some((rows, scale)) = table.quantized else {
        k.each("c", 0usize, channels, |k, c| k.copy_one(y, c.clone(), table.w, line + c * LANES));
        return k.finish();
    };
    let scale = k.broadcast("scale", scale, id);
    let one = |k: &mut Builder, at: Int, (word, shift, mask): (Reg, u32, i32), zero: i32, factor: Option<Reg>| {
        let v = k.bind("v", Op::ShiftRight(word, shift));
        let mask = k.bind("mask", Op::SplatBits(mask));
        let v = k.binary("v", BinaryOp::And, v, mask);
        let zero = k.bind("zero", Op::SplatBits(zero));
        let mut v = k.binary("v", BinaryOp::SubInt, v, zero);
        if let Some(factor) = factor {
            v = k.binary("v", BinaryOp::MulInt, v, factor);
        }
        let v = k.unary("v", UnaryOp::ToFloat, v);
        let v = k.mul("v", v, scale);
        k.store_one(y, at, v);
    };
    if !rows.groups {
        k.each("p", 0usize, rows.physical() / 4, |k, p| {
            let word = k.broadcast("word", table.w, line.clone() + p.clone() * LANES);
            for i in 0..4 {
                one(k, p.clone() * 4usize + i as usize, (word, 8 * i, 0xff), 64, None);
            }
        });
        return k.finish();
    }
    // The row is written up to its pitch: what fills the last block lies behind it.
    let quads = channels.div_ceil(8);
    k.each("p", 0usize, quads, |k, p| {
        let block = k.int("block", p.clone() / (BLOCK / 8) as i64);
        let words = k.int("words", line.clone() + block * BLOCK_WORDS);
        let within = k.int("within", p.clone() % (BLOCK / 8) as i64);
        let word = k.broadcast("word", table.w, words.clone() + within.clone() * LANES + LANES);
        let factors = k.broadcast("factors", table.w, words);
        let group = k.bind("group", Op::SplatInt(within / 2i64));
        let factor = nibble(k, factors, group);
        for i in 0..8u32 {
            // Four low nibbles, then four high ones.
            let shift = 8 * (i % 4) + 4 * (i / 4);
            one(k, p.clone() * 8usize + i as usize, (word, shift, 0xf), 8, Some(factor));
        }
    });
    k.finish()
}

/// Nibble `group` of a word, signed.
fn nibble(k: &mut Builder, word: Reg, group: Reg) -> Reg {
    let mut found = k.bind("found", Op::SplatBits(0));
    for i in 0..(BLOCK / GROUP) as i32 {
        let v = signed_nibble(k, "v", word, i as u32);
        let index = k.bind("index", Op::SplatBits(i));
        let before = k.compare("before", CompareOp::LessInt, group, index);
        found = k.select("found", before, found, v);
    }
    found
}

/// The index of the largest of `vocab` logits, the first one among equals, of each of the rows `first..last`.
/// Parameters: logits, token, first, last.
pub fn argmax(vocab: usize) -> Rc<Kernel> {
    let ld = pitch(vocab);
    let mut k = Builder::new(
        format!("argmax_f32_{vocab}"),
        &[
            "The index of the largest logit, the first among equals; rows `first..last`.",
            "",
            &format!("`logits` is `[rows, {vocab}]` with rows {ld} floats apart, `token` an index for each."),
        ],
    );
    let (logits, token) = (k.read("logits"), k.write_u32("token"));
    let (first, last) = (k.size("first"), k.size("last"));
    k.each("row", first, last, |k, row| largest(k, vocab, (logits, ld), None, (token, row)));
    k.finish()
}

/// Emits `token = id` of the largest of `n` values of a row, the first among equals. Rows of values and of ids are `ld`
/// apart; ids rise, and are places where none are given.
pub(super) fn largest(
    k: &mut Builder,
    n: usize,
    (values, ld): (Ptr, usize),
    ids: Option<Ptr>,
    (token, row): (Ptr, Int),
) {
    let from = k.int("from", row.clone() * ld);
    let lowest = k.splat("lowest", f32::NEG_INFINITY);
    let best = k.bind_mut("best", Op::Copy(lowest));
    let best_at = k.bind_mut("best_at", Op::SplatBits(0));
    let lane = k.bind("lane", Op::Iota(0));
    let count = k.bind("count", Op::SplatInt(Int::from(n)));
    k.each("j", 0usize, lines(n), |k, j| {
        let base = k.bind("base", Op::SplatInt(j.clone() * LANES));
        let index = k.binary("index", BinaryOp::AddInt, lane, base);
        let v = k.load("v", values, from.clone() + j.clone() * LANES);
        let valid = k.compare("valid", CompareOp::LessInt, index, count);
        let v = k.select("v", valid, v, lowest);
        let better = k.compare("better", CompareOp::Less, best, v);
        k.set(best, Op::Select(better, v, best));
        let id = ids.map_or(index, |ids| k.load("id", ids, from + j * LANES));
        k.set(best_at, Op::Select(better, id, best_at));
    });
    let top = k.reduce("top", ReduceOp::Max, best);
    let none = k.bind("none", Op::SplatBits(i32::MAX));
    let is_top = k.compare("is_top", CompareOp::Equal, best, top);
    let candidate = k.select("candidate", is_top, best_at, none);
    let winner = k.reduce("winner", ReduceOp::MinInt, candidate);
    k.store_one(token, row, winner);
}
