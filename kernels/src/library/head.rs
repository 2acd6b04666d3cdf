//! Token rows in, the most likely token out.

use std::rc::Rc;

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::{BinaryOp, CompareOp, Kernel, Op, ReduceOp};
use crate::library::lines;

/// One token's row out of a head's panels `[vocab / 16, channels, 16]`. Parameters: table, y, id.
pub fn embed(channels: usize, vocab: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("embed_f32_{channels}"),
        &[
            "Row `id` of the embedding, which is stored as the head's panels.",
            "",
            &format!("`table` is `[{}, {channels}, 16]`, `y` is `[{channels}]`.", lines(vocab)),
        ],
    );
    let (table, y) = (k.read("table"), k.write("y"));
    let id = k.size("id");
    let at = k.int("at", id.clone() / LANES as i64 * (channels * LANES) + id % LANES as i64);
    k.each("c", 0usize, channels, |k, c| k.copy_one(y, c.clone(), table, at + c * LANES));
    k.finish()
}

/// The index of the largest of `vocab` logits, the first one among equals. Parameters: logits,
/// token, first, last (one unit).
pub fn argmax(vocab: usize) -> Rc<Kernel> {
    let mut k = Builder::new(
        format!("argmax_f32_{vocab}"),
        &[
            "The index of the largest logit, the first among equals.",
            "",
            &format!("`logits` is `[{vocab}]`, `token` is one index."),
        ],
    );
    let (logits, token) = (k.read("logits"), k.write_u32("token"));
    let (first, last) = (k.size("first"), k.size("last"));
    k.if_less(
        first,
        last,
        |k| {
            let lowest = k.splat("lowest", f32::NEG_INFINITY);
            let best = k.bind_mut("best", Op::Copy(lowest));
            let best_at = k.bind_mut("best_at", Op::SplatBits(0));
            let lane = k.bind("lane", Op::Iota(0));
            let count = k.bind("count", Op::SplatInt(Int::from(vocab)));
            k.each("j", 0usize, lines(vocab), |k, j| {
                let base = k.bind("base", Op::SplatInt(j.clone() * LANES));
                let index = k.binary("index", BinaryOp::AddInt, lane, base);
                let v = k.load("v", logits, j * LANES);
                let valid = k.compare("valid", CompareOp::LessInt, index, count);
                let v = k.select("v", valid, v, lowest);
                let better = k.compare("better", CompareOp::Less, best, v);
                k.set(best, Op::Select(better, v, best));
                k.set(best_at, Op::Select(better, index, best_at));
            });
            let top = k.reduce("top", ReduceOp::Max, best);
            let none = k.bind("none", Op::SplatBits(i32::MAX));
            let is_top = k.compare("is_top", CompareOp::Equal, best, top);
            let candidate = k.select("candidate", is_top, best_at, none);
            let winner = k.reduce("winner", ReduceOp::MinInt, candidate);
            k.store_one(token, 0usize, winner);
        },
        |_| {},
    );
    k.finish()
}
