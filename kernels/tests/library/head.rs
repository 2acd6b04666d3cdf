//! Token rows in, the most likely token out.

use kernels::library::head::{argmax, embed};
use kernels::library::matrix::Format;
use kernels::library::{lines, pitch};

use crate::case::{Buffer, Case, Want, check};
use crate::data::{noise, panels};

#[test]
fn embeddings() {
    for (channels, vocab) in [(1, 1), (16, 16), (48, 17), (33, 40)] {
        let w = noise(70, channels * vocab);
        let panels = panels(&w, channels, vocab);
        for id in [0, vocab / 2, vocab - 1] {
            let row = (0..channels).map(|c| Want::Bits(w[c * vocab + id].to_bits()));
            check(&Case {
                name: format!("row {id} of {vocab} x {channels}"),
                kernel: &|_| embed(Format::F32, channels, vocab),
                buffers: vec![("table", Buffer::Read(panels.clone())), ("y", Buffer::Write(row.collect()))],
                sizes: vec![("id", id)],
                units: None,
                tolerance: 0.0,
            });
        }
    }
}

/// The first of the largest; NaN is never the largest; 0 when nothing is.
fn naive(logits: &[f32]) -> usize {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, v) in logits.iter().enumerate() {
        if *v > best {
            (best, at) = (*v, i);
        }
    }
    at
}

fn check_argmax(logits: &[f32], behind: f32) {
    let mut x: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
    x.resize(lines(logits.len()) * 16, behind.to_bits());
    let want = naive(logits) as u32;
    check(&Case {
        name: format!("argmax of {logits:?}"),
        kernel: &|_| argmax(logits.len()),
        buffers: vec![("logits", Buffer::Read(x)), ("token", Buffer::Write(vec![Want::Bits(want)]))],
        sizes: vec![],
        units: Some(1),
        tolerance: 0.0,
    });
}

#[test]
fn largest_of_noise() {
    for vocab in [1, 2, 15, 16, 17, 31, 32, 33, 100] {
        // What lies behind the vocabulary does not count.
        for behind in [0.0, f32::INFINITY, f32::NAN] {
            let logits: Vec<f32> = noise(vocab as u64, vocab).iter().map(|v| v - 2.0).collect();
            check_argmax(&logits, behind);
        }
    }
}

#[test]
fn largest_of_each_row() {
    for (vocab, n) in [(17, 3), (1024, 2), (33, 5)] {
        let logits = noise(7, vocab * n);
        let mut x = Vec::new();
        for row in logits.chunks(vocab) {
            x.extend(row.iter().map(|v| v.to_bits()));
            // What lies between the rows does not count.
            x.resize(x.len() + pitch(vocab) - vocab, f32::INFINITY.to_bits());
        }
        let want = logits.chunks(vocab).map(|row| Want::Bits(naive(row) as u32)).collect();
        check(&Case {
            name: format!("argmax of {n} rows of {vocab} logits"),
            kernel: &|_| argmax(vocab),
            buffers: vec![("logits", Buffer::Read(x)), ("token", Buffer::Write(want))],
            sizes: vec![],
            units: Some(n),
            tolerance: 0.0,
        });
    }
}

#[test]
fn largest_at_every_place() {
    for at in 0..37 {
        let mut logits = vec![-1.0; 37];
        logits[at] = 0.5;
        check_argmax(&logits, 1.0);
    }
}

#[test]
fn ties_and_oddities() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for at in [[0, 1], [3, 19], [19, 35], [16, 20], [15, 16], [5, 37]] {
        for base in [-1.0, -inf, nan] {
            for top in [0.5, inf, f32::MIN, -0.0] {
                let mut logits = vec![base; 38];
                at.iter().for_each(|&i| logits[i] = top);
                if top > base || base.is_nan() {
                    check_argmax(&logits, nan);
                }
            }
        }
    }
    // 0 and -0 are equal: the first one.
    check_argmax(&[-1.0, -0.0, 0.0, -1.0], 0.0);
    check_argmax(&[-1.0, 0.0, -0.0, -1.0], 0.0);
    for all in [-inf, nan, inf, 0.0] {
        check_argmax(&[all; 33], 0.0);
    }
    check_argmax(&[nan, -inf, nan, -3e38, nan], 0.0);
    check_argmax(&[-inf, nan, -inf], 0.0);
}
