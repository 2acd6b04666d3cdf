//! Rotary positions and attention with its cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::Value;
use crate::Op;

/// Keys and values of the positions so far, `[positions, kv_heads * head_dim]` each.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Rotates the leading heads of rows of `c` columns; row `i` stands at position `start + i`.
pub(super) fn rope(x: &[f32], c: usize, heads: usize, head_dim: usize, theta: f64, start: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut out = x.to_vec();
    for (i, row) in out.chunks_exact_mut(c).enumerate() {
        for j in 0..half {
            let angle = (start + i) as f64 * theta.powf(-2.0 * j as f64 / head_dim as f64);
            let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
            for head in row.chunks_exact_mut(head_dim).take(heads) {
                let (a, b) = (head[j], head[j + half]);
                head[j] = a * cos - b * sin;
                head[j + half] = b * cos + a * sin;
            }
        }
    }
    out
}

/// `start` is the position of the first row; earlier ones are in the cache.
pub(super) fn attention(op: &Op, args: &[Arc<Value>], start: usize, caches: &mut BTreeMap<usize, Cache>) -> Vec<f32> {
    let Op::Attention { heads, kv_heads, head_dim, scale, causal, cache } = op else {
        unreachable!("called for attention");
    };
    let (d, group) = (*head_dim, heads / kv_heads);
    let (q_width, kv_width) = (heads * d, kv_heads * d);
    let merged = q_width + 2 * kv_width;
    let (q, k, v) = match args {
        [all] => (
            cut(&all.data, merged, 0, q_width),
            cut(&all.data, merged, q_width, kv_width),
            cut(&all.data, merged, q_width + kv_width, kv_width),
        ),
        _ => (args[0].data.clone(), args[1].data.clone(), args[2].data.clone()),
    };
    let (k, v, start) = match cache {
        Some(layer) => {
            let cache = caches.entry(*layer).or_default();
            cache.keys.truncate(start * kv_width);
            cache.values.truncate(start * kv_width);
            cache.keys.extend(k);
            cache.values.extend(v);
            (cache.keys.clone(), cache.values.clone(), start)
        }
        None => (k, v, 0),
    };
    let n_keys = k.len() / kv_width;
    // Keys by column, so that the inner loop over keys is contiguous.
    let mut columns = vec![0.0; k.len()];
    for (i, row) in k.chunks_exact(kv_width).enumerate() {
        for (j, value) in row.iter().enumerate() {
            columns[j * n_keys + i] = *value;
        }
    }
    let mut out = vec![0.0; q.len()];
    let rows = out.par_chunks_exact_mut(q_width).zip(q.par_chunks_exact(q_width)).enumerate();
    rows.for_each(|(i, (out, q))| {
        let seen = if *causal { start + i + 1 } else { n_keys };
        let mut scores = vec![0.0f32; seen];
        for (head, (out, q)) in out.chunks_exact_mut(d).zip(q.chunks_exact(d)).enumerate() {
            let first = head / group * d;
            scores.fill(0.0);
            for (j, q) in q.iter().enumerate() {
                let keys = &columns[(first + j) * n_keys..][..seen];
                for (score, k) in scores.iter_mut().zip(keys) {
                    *score += q * k;
                }
            }
            softmax(&mut scores, *scale as f32);
            for (p, v) in scores.iter().zip(v.chunks_exact(kv_width)) {
                for (out, v) in out.iter_mut().zip(&v[first..first + d]) {
                    *out += p * v;
                }
            }
        }
    });
    out
}

/// `exp(scale * x - max)`, normalized.
fn softmax(x: &mut [f32], scale: f32) {
    let max = x.iter().fold(f32::NEG_INFINITY, |m, x| m.max(x * scale));
    let mut sum = 0.0f64;
    for x in x.iter_mut() {
        *x = (*x * scale - max).exp();
        sum += f64::from(*x);
    }
    let inverse = (1.0 / sum) as f32;
    for x in x.iter_mut() {
        *x *= inverse;
    }
}

/// `width` columns from `first` of rows of `c`.
fn cut(x: &[f32], c: usize, first: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(c).flat_map(|row| &row[first..first + width]).copied().collect()
}
