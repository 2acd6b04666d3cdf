//! `out = x W^T + b`, the work of linear layers, 1x1 and dense convolutions.

use rayon::prelude::*;

use super::Constants;
use crate::{SourceError, WeightId};

/// Columns of a panel and rows of a register tile: 6 x 16 sums fill 12 of 16 AVX registers.
const COLS: usize = 16;
const ROWS: usize = 6;
/// Weights that are evaluated at once, in elements.
const BLOCK: usize = 1 << 20;
/// Rows of `x` that one task works on.
const TASK_ROWS: usize = 16 * ROWS;

/// `x` is `[n, depth]`, the weight `[m, depth]` (or a shape with that many elements in a row),
/// the result `[n, m]`.
pub(super) fn linear(
    x: &[f32],
    depth: usize,
    weight: WeightId,
    bias: Option<WeightId>,
    constants: &mut Constants<'_>,
) -> Result<Vec<f32>, SourceError> {
    let m = constants.shape(weight)[0];
    let n = x.len() / depth;
    constants.keep(weight)?;
    let bias = bias.map(|b| constants.all(b)).transpose()?;
    let mut out = match &bias {
        Some(bias) => bias.repeat(n),
        None => vec![0.0; n * m],
    };
    let block = (BLOCK / depth / COLS).max(1) * COLS;
    for first in (0..m).step_by(block) {
        let last = (first + block).min(m);
        if n < ROWS {
            few_rows(x, depth, (weight, first..last), constants, &mut out, m)?;
        } else {
            let panels = pack(&constants.rows(weight, first..last)?, depth);
            out.par_chunks_mut(TASK_ROWS * m).zip(x.par_chunks(TASK_ROWS * depth)).for_each(|(out, x)| {
                for (p, panel) in panels.chunks_exact(depth * COLS).enumerate() {
                    let column = first + p * COLS;
                    for (out, x) in out.chunks_mut(ROWS * m).zip(x.chunks(ROWS * depth)) {
                        let width = COLS.min(last - column);
                        let sums = tile(x, depth, panel);
                        for (out, sums) in out.chunks_exact_mut(m).zip(&sums) {
                            for (out, sum) in out[column..column + width].iter_mut().zip(sums) {
                                *out += sum;
                            }
                        }
                    }
                }
            });
        }
    }
    Ok(out)
}

/// Decoding: too few rows for packing to pay.
fn few_rows(
    x: &[f32],
    depth: usize,
    (weight, rows): (WeightId, std::ops::Range<usize>),
    constants: &Constants<'_>,
    out: &mut [f32],
    m: usize,
) -> Result<(), SourceError> {
    let w = constants.rows(weight, rows.clone())?;
    for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(m)) {
        out[rows.clone()].par_iter_mut().zip(w.par_chunks_exact(depth)).with_min_len(64).for_each(|(out, w)| {
            let mut sums = [0.0f32; COLS];
            let (xs, ws) = (x.chunks_exact(COLS), w.chunks_exact(COLS));
            let tail: f32 = xs.remainder().iter().zip(ws.remainder()).map(|(x, w)| x * w).sum();
            for (x, w) in xs.zip(ws) {
                for l in 0..COLS {
                    sums[l] += x[l] * w[l];
                }
            }
            *out += sums.iter().sum::<f32>() + tail;
        });
    }
    Ok(())
}

/// Panels `[depth, 16]` of 16 rows of `w` each; rows past the end are zero.
fn pack(w: &[f32], depth: usize) -> Vec<f32> {
    let m = w.len() / depth;
    let mut panels = vec![0.0; m.div_ceil(COLS) * COLS * depth];
    panels.par_chunks_exact_mut(depth * COLS).zip(w.par_chunks(depth * COLS)).for_each(|(panel, w)| {
        for (j, row) in w.chunks_exact(depth).enumerate() {
            for (p, value) in row.iter().enumerate() {
                panel[p * COLS + j] = *value;
            }
        }
    });
    panels
}

/// Products of up to 6 rows of `x` with one panel.
fn tile(x: &[f32], depth: usize, panel: &[f32]) -> [[f32; COLS]; ROWS] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, as was just asked.
        return unsafe { tile_avx2(x, depth, panel) };
    }
    tile_any(x, depth, panel)
}

/// The same code compiled for wider registers; products and sums are rounded one by one in
/// both, so the bits are the same.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn tile_avx2(x: &[f32], depth: usize, panel: &[f32]) -> [[f32; COLS]; ROWS] {
    tile_any(x, depth, panel)
}

#[inline(always)]
fn tile_any(x: &[f32], depth: usize, panel: &[f32]) -> [[f32; COLS]; ROWS] {
    let mut sums = [[0.0f32; COLS]; ROWS];
    let n = x.len() / depth;
    // Rows past the end read the last one again; their sums are not used.
    let row = |i: usize| &x[i.min(n - 1) * depth..][..depth];
    let [a, b, c, d, e, f] = std::array::from_fn::<_, ROWS, _>(row);
    for (p, w) in panel.chunks_exact(COLS).take(depth).enumerate() {
        for (sums, x) in sums.iter_mut().zip([a[p], b[p], c[p], d[p], e[p], f[p]]) {
            for l in 0..COLS {
                sums[l] += x * w[l];
            }
        }
    }
    sums
}
