//! Attention, its caches, and rotary positions.

use kernels::LANES;
use kernels::library::attention::{Attention, attend, pack};
use kernels::library::linear::Rows;
use kernels::library::rope::rope;
use kernels::library::{lines, pitch};

use crate::case::{Buffer, Case, Want, check, scratch};
use crate::data::{self, HOLE, noise, want_rows, wide};

/// Scores of at most 64 products, a softmax, and a mean.
const TOLERANCE: f64 = 3e-6;

/// Where element `c` of a key, and of a value, lies.
fn key_at(a: &Attention, head: usize, position: usize, c: usize) -> usize {
    head * a.head_floats() + position / LANES * a.head_dim * LANES + c * LANES + position % LANES
}

fn value_at(a: &Attention, head: usize, position: usize, c: usize) -> usize {
    head * a.head_floats() + (c / LANES * lines(a.capacity) * LANES + position) * LANES + c % LANES
}

/// The caches of the keys and values in merged rows, from position `start` on, over `before`.
fn caches<T: Copy>(a: &Attention, merged: &[T], start: usize, before: T) -> (Vec<T>, Vec<T>) {
    let (mut keys, mut values) = (vec![before; a.cache_floats()], vec![before; a.cache_floats()]);
    for (i, row) in merged.chunks(a.merged()).enumerate() {
        for head in 0..a.kv_heads {
            for c in 0..a.head_dim {
                let key = (a.heads + head) * a.head_dim + c;
                keys[key_at(a, head, start + i, c)] = row[key];
                values[value_at(a, head, start + i, c)] = row[key + a.kv_heads * a.head_dim];
            }
        }
    }
    (keys, values)
}

/// Attention of the last `n` of the merged rows over all of them.
fn naive(a: &Attention, merged: &[f64], n: usize) -> Vec<f64> {
    let (d, ld) = (a.head_dim, a.merged());
    let total = merged.len() / ld;
    let mut y = Vec::new();
    for row in total - n..total {
        for head in 0..a.heads {
            let kv = head / (a.heads / a.kv_heads);
            let seen = if a.causal { row + 1 } else { total };
            let key = |t: usize| &merged[t * ld + (a.heads + kv) * d..][..d];
            let value = |t: usize| &merged[t * ld + (a.heads + a.kv_heads + kv) * d..][..d];
            let q = &merged[row * ld + head * d..][..d];
            let mut s: Vec<f64> = (0..seen).map(|t| q.iter().zip(key(t)).map(|(q, k)| q * k).sum()).collect();
            data::softmax(&mut s);
            y.extend((0..d).map(|c| s.iter().enumerate().map(|(t, s)| s * value(t)[c]).sum::<f64>()));
        }
    }
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn check_attend(a: Attention, start: usize, rows: Rows, n: usize, block: usize) -> Vec<Vec<u32>> {
    let merged = noise(60, (start + n) * a.merged());
    let (keys, values) = caches(&a, &bits(&merged), 0, HOLE);
    let y = naive(&a, &wide(&merged), n);
    let unit = block.min(rows.most());
    check(&Case {
        name: format!("{a:?}, {rows:?}: {n} from {start}, blocks of {block}"),
        kernel: &|s| attend(s, &a, rows, block),
        buffers: vec![
            ("qkv", Buffer::Read(data::rows(&merged[start * a.merged()..], a.merged()))),
            // Keys are read in lines: those not yet there are holes.
            ("keys", Buffer::Loose(keys)),
            ("values", Buffer::Read(values)),
            ("y", Buffer::Write(want_rows(&y, a.heads * a.head_dim))),
            ("scratch", scratch(block * pitch(a.capacity))),
        ],
        sizes: vec![("start", start), ("rows", n)],
        units: Some(a.heads * n.div_ceil(unit)),
        tolerance: TOLERANCE,
    })
}

#[test]
fn attention_over_all_keys() {
    for n in [1, 3, 15, 16, 17, 19, 33] {
        let a = Attention { heads: 2, kv_heads: 2, head_dim: 16, capacity: n, causal: false };
        check_attend(a, 0, Rows::Fixed(n), n, 8);
    }
    let a = Attention { heads: 3, kv_heads: 1, head_dim: 48, capacity: 19, causal: false };
    let one = check_attend(a, 0, Rows::Fixed(19), 19, 1);
    for block in [3, 8, 19, 64] {
        assert_eq!(check_attend(a, 0, Rows::Fixed(19), 19, block), one, "blocks of {block}");
    }
}

#[test]
fn causal_attention() {
    let a = Attention { heads: 4, kv_heads: 2, head_dim: 32, capacity: 40, causal: true };
    for (start, n) in [(0, 1), (0, 9), (1, 16), (15, 2), (16, 1), (16, 17), (21, 19)] {
        check_attend(a, start, Rows::UpTo(19), n, 8);
    }
    for start in [0, 14, 15, 16, 39] {
        check_attend(a, start, Rows::Fixed(1), 1, 8);
    }
    let one = check_attend(a, 5, Rows::UpTo(17), 17, 1);
    for block in [2, 5, 8, 17] {
        assert_eq!(check_attend(a, 5, Rows::UpTo(17), 17, block), one, "blocks of {block}");
    }
}

#[test]
fn rows_with_a_gap() {
    let a = Attention { heads: 32, kv_heads: 16, head_dim: 16, capacity: 5, causal: false };
    assert_ne!(pitch(a.merged()), a.merged());
    check_attend(a, 0, Rows::Fixed(3), 3, 2);
    let a = Attention { heads: 1, kv_heads: 1, head_dim: 16, capacity: 1024, causal: true };
    check_attend(a, 2, Rows::UpTo(3), 3, 2);
}

#[test]
fn keys_and_values_packed() {
    for (kv_heads, head_dim, n) in [(1, 16, 1), (2, 32, 16), (3, 16, 17), (7, 48, 5)] {
        let a = Attention { heads: 2 * kv_heads, kv_heads, head_dim, capacity: n, causal: false };
        let merged = noise(61, n * a.merged());
        let wanted: Vec<Want> = bits(&merged).into_iter().map(Want::Bits).collect();
        let (keys, values) = caches(&a, &wanted, 0, Want::Same);
        check(&Case {
            name: format!("pack {a:?}"),
            kernel: &|_| pack(&a, n),
            buffers: vec![
                ("qkv", Buffer::Read(data::rows(&merged, a.merged()))),
                ("keys", Buffer::Write(keys)),
                ("values", Buffer::Write(values)),
            ],
            sizes: vec![],
            units: Some(kv_heads),
            tolerance: 0.0,
        });
    }
}

fn check_rope(a: Attention, start: usize, n: usize) {
    let (d, half) = (a.head_dim, a.head_dim / 2);
    let merged = noise(62, n * a.merged());
    let (cos, sin) = (noise(63, a.capacity * half), noise(64, a.capacity * half));
    let mut turned = wide(&merged);
    for (i, row) in turned.chunks_mut(a.merged()).enumerate() {
        for head in row[..(a.heads + a.kv_heads) * d].chunks_mut(d) {
            for c in 0..half {
                let at = (start + i) * half + c;
                let (cos, sin) = (f64::from(cos[at]), f64::from(sin[at]));
                (head[c], head[c + half]) =
                    (head[c] * cos - head[c + half] * sin, head[c + half] * cos + head[c] * sin);
            }
        }
    }
    let wanted: Vec<Want> = turned.iter().map(|v| Want::Near(*v)).collect();
    let (keys, values) = caches(&a, &wanted, start, Want::Same);
    // Values are not turned: they stay where and what they were.
    let mut rows = want_rows(&turned, a.merged());
    let (ld, merged_rows) = (pitch(a.merged()), data::rows(&merged, a.merged()));
    for row in rows.chunks_mut(ld) {
        row[(a.heads + a.kv_heads) * d..].fill(Want::Same);
    }
    check(&Case {
        name: format!("rope of {a:?}: {n} from {start}"),
        kernel: &|_| rope(&a),
        buffers: vec![
            ("qkv", Buffer::Update(merged_rows, rows)),
            ("cos", Buffer::Read(bits(&cos))),
            ("sin", Buffer::Read(bits(&sin))),
            ("keys", Buffer::Write(keys)),
            ("values", Buffer::Write(values)),
        ],
        sizes: vec![("start", start)],
        units: Some(n),
        tolerance: 2e-7,
    });
}

#[test]
fn ropes() {
    for (heads, kv_heads, head_dim) in [(1, 1, 32), (4, 2, 64), (3, 1, 96), (24, 4, 32)] {
        let a = Attention { heads, kv_heads, head_dim, capacity: 35, causal: true };
        for (start, n) in [(0, 1), (34, 1), (15, 2), (0, 17), (13, 22)] {
            check_rope(a, start, n);
        }
    }
}
