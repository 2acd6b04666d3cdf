//! Attention, its caches, and rotary positions.

use kernels::LANES;
use kernels::library::attention::{Attention, attend};
use kernels::library::cache::{BLOCK, Cache, GROUP, pack};
use kernels::library::linear::Rows;
use kernels::library::pitch;
use kernels::library::rope::rope;

use crate::case::{Buffer, Case, Want, check, check_exact, scratch};
use crate::data::{self, HOLE, noise, want_rows, wide};

/// All formats.
const CACHES: [Cache; 3] = [Cache::F32, Cache::F16, Cache::Int8];

/// A head's row as it is stored in bytes: values less the zero point, and their scale.
fn bytes(x: &[f32], levels: f32) -> (Vec<i32>, f32) {
    let peak = x.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
    let inverse = levels / peak.max(1e-36);
    let q = x.iter().map(|v| f64::from(v * inverse).round_ties_even() as i32).collect();
    (q, peak * (1.0 / levels))
}

/// The nearest 16-bit float, of numbers it can hold.
fn half(x: f32) -> u16 {
    let magnitude = f64::from(x.abs());
    let exponent = (magnitude.log2().floor().max(-14.0)) as i32;
    let steps = (magnitude / 2f64.powi(exponent - 10)).round_ties_even() as u16;
    // A carry goes into the exponent.
    ((((exponent + 14) as u16) << 10) + steps) | (u16::from(x.is_sign_negative()) << 15)
}

/// What a 16-bit float that is no special one stands for.
fn value(half: u16) -> f64 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    let magnitude = if exponent == 0 { fraction / 1024.0 } else { (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 1) };
    magnitude * 2f64.powi(-14) * if half >> 15 == 1 { -1.0 } else { 1.0 }
}

/// A word with a half as element `at` of it; what was not there is a part of a hole.
fn with_half(word: Option<u32>, at: usize, half: u16) -> u32 {
    let shift = 16 * (at % 2);
    word.unwrap_or(HOLE) & !(0xffff << shift) | u32::from(half) << shift
}

/// What of a cache holds something.
#[derive(Clone)]
struct Caches {
    keys: Vec<Option<u32>>,
    values: Vec<Option<u32>>,
}

impl Caches {
    fn new(a: &Attention) -> Caches {
        let nothing = vec![None; a.cache_floats()];
        Caches { keys: nothing.clone(), values: nothing }
    }

    /// The caches of the keys and values in merged rows, which are the first positions.
    fn of(a: &Attention, merged: &[f32]) -> Caches {
        let mut caches = Caches::new(a);
        caches.put(a, merged, 0);
        caches
    }

    /// Puts those of merged rows, from position `start` on.
    fn put(&mut self, a: &Attention, merged: &[f32], start: usize) {
        let d = a.head_dim;
        for (i, row) in merged.chunks(a.merged()).enumerate() {
            for h in 0..a.kv_heads {
                let key = &row[(a.heads + h) * d..][..d];
                let value = &row[(a.heads + a.kv_heads + h) * d..][..d];
                self.put_head(a, h, start + i, (key, value));
            }
        }
    }

    fn put_head(&mut self, a: &Attention, h: usize, position: usize, (key, value): (&[f32], &[f32])) {
        let (d, t) = (a.head_dim, position % BLOCK);
        match a.cache {
            Cache::F32 => {
                let head = (position / BLOCK * a.kv_heads + h) * BLOCK * d;
                for c in 0..d {
                    self.keys[head + (t / LANES * d + c) * LANES + t % LANES] = Some(key[c].to_bits());
                    self.values[head + (c / LANES * BLOCK + t) * LANES + c % LANES] = Some(value[c].to_bits());
                }
            }
            Cache::F16 => {
                let head = (position / BLOCK * a.kv_heads + h) * BLOCK * d;
                for c in 0..d {
                    let at = head + (t / LANES * d + c) * LANES + t % LANES;
                    self.keys[at / 2] = Some(with_half(self.keys[at / 2], at, half(key[c])));
                    let at = head + (c / LANES * BLOCK + t) * LANES + c % LANES;
                    self.values[at / 2] = Some(with_half(self.values[at / 2], at, half(value[c])));
                }
            }
            Cache::Int8 => {
                let head = (position / BLOCK * a.kv_heads + h) * BLOCK * (d / 4 + 1);
                let (scales, (k, k_scale), (v, v_scale)) = (head + BLOCK * d / 4, bytes(key, 63.0), bytes(value, 63.0));
                self.keys[scales + t] = Some(k_scale.to_bits());
                self.values[scales + t] = Some(v_scale.to_bits());
                for c in 0..d {
                    let at = head + (t / LANES * (d / 4) + c / 4) * LANES + t % LANES;
                    self.keys[at] = Some(byte(self.keys[at], c % 4, k[c]));
                    let at = head + (c / LANES * (BLOCK / 4) + t / 4) * LANES + c % LANES;
                    self.values[at] = Some(byte(self.values[at], t % 4, v[c]));
                }
            }
        }
    }

    /// The words, with `none` for what holds nothing.
    fn words<T>(&self, some: fn(u32) -> T, none: fn() -> T) -> (Vec<T>, Vec<T>) {
        let [keys, values] =
            [&self.keys, &self.values].map(|all| all.iter().map(|w| w.map_or_else(none, some)).collect());
        (keys, values)
    }

    fn bits(&self) -> (Vec<u32>, Vec<u32>) {
        self.words(|w| w, || HOLE)
    }
}

/// A word with `q` and the zero point as byte `i`; bytes behind it are zero.
fn byte(word: Option<u32>, i: usize, q: i32) -> u32 {
    let before = word.unwrap_or(0) & ((1u32 << (8 * i)) - 1);
    before | ((q + 64) as u32) << (8 * i)
}

/// Merged rows as attention sees them: as they are, keys and values rounded to 16 bits, or as their
/// bytes say, queries with 8 bits, keys and values with 7.
fn seen(a: &Attention, merged: &[f32]) -> Vec<f64> {
    match a.cache {
        Cache::F32 => wide(merged),
        Cache::F16 => {
            let queries = |i: usize| i % a.merged() < a.heads * a.head_dim;
            let one = |(i, x): (usize, &f32)| if queries(i) { f64::from(*x) } else { value(half(*x)) };
            merged.iter().enumerate().map(one).collect()
        }
        Cache::Int8 => {
            let head = |(i, x): (usize, &[f32])| {
                let levels = if i % (a.heads + 2 * a.kv_heads) < a.heads { 127.0 } else { 63.0 };
                let (q, scale) = bytes(x, levels);
                q.into_iter().map(move |q| f64::from(q) * f64::from(scale)).collect::<Vec<f64>>()
            };
            merged.chunks(a.head_dim).enumerate().flat_map(head).collect()
        }
    }
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

/// Runs the last `n` of the merged rows over all of them.
fn check_rows(a: Attention, merged: &[f32], rows: Rows, n: usize, positions: usize) -> Vec<Vec<u32>> {
    let start = merged.len() / a.merged() - n;
    // Positions that are not there have the largest bytes there are, and scales that are no numbers.
    let nothing = if a.cache == Cache::Int8 { 0x7f7f_7f7f } else { HOLE };
    let (mut keys, mut values) = Caches::of(&a, merged).bits();
    for part in keys.chunks_mut(a.cache.head(a.head_dim)).chain(values.chunks_mut(a.cache.head(a.head_dim))) {
        let bytes = part.len() - if a.cache == Cache::Int8 { BLOCK } else { 0 };
        part[..bytes].iter_mut().filter(|w| **w == HOLE).for_each(|w| *w = nothing);
    }
    let y = naive(&a, &seen(&a, merged), n);
    let unit = positions.min(rows.most());
    // Values of positions that are not there meet weights of zero if they are bytes.
    let values = if a.cache == Cache::Int8 { Buffer::Loose(values) } else { Buffer::Read(values) };
    let case = Case {
        name: format!("{a:?}, {rows:?}: {n} from {start}, units of {positions}"),
        kernel: &|s| attend(s, &a, rows, positions),
        buffers: vec![
            ("qkv", Buffer::Read(data::rows(&merged[start * a.merged()..], a.merged()))),
            // Keys are read in blocks: those not yet there are holes.
            ("keys", Buffer::Loose(keys)),
            ("values", values),
            ("y", Buffer::Write(want_rows(&y, a.heads * a.head_dim))),
            ("scratch", scratch(a.scratch(unit))),
        ],
        sizes: vec![("start", start), ("rows", n)],
        units: Some(a.kv_heads * n.div_ceil(unit)),
        // Scores of at most 64 products, a softmax, and a mean; or a short exponential and a weight's
        // levels.
        tolerance: if a.cache == Cache::Int8 { 3e-4 } else { 3e-6 },
    };
    if a.cache == Cache::Int8 { check_exact(&case) } else { check(&case) }
}

fn check_attend(a: Attention, start: usize, rows: Rows, n: usize, positions: usize) -> Vec<Vec<u32>> {
    check_rows(a, &noise(60, (start + n) * a.merged()), rows, n, positions)
}

#[test]
fn attention_over_all_keys() {
    for cache in CACHES {
        for n in [1, 3, 15, 16, 17, 33, 127, 129] {
            let a = Attention { heads: 2, kv_heads: 2, head_dim: 16, capacity: n, causal: false, cache };
            check_attend(a, 0, Rows::Fixed(n), n, 40);
        }
        let a = Attention { heads: 3, kv_heads: 1, head_dim: 48, capacity: 19, causal: false, cache };
        let one = check_attend(a, 0, Rows::Fixed(19), 19, 1);
        for positions in [3, 8, 19, 64] {
            assert_eq!(check_attend(a, 0, Rows::Fixed(19), 19, positions), one, "units of {positions}");
        }
    }
}

#[test]
fn causal_attention() {
    for cache in CACHES {
        let a = Attention { heads: 4, kv_heads: 2, head_dim: 32, capacity: 300, causal: true, cache };
        for (start, n) in [(0, 1), (0, 9), (1, 16), (15, 2), (16, 17), (126, 5), (250, 19)] {
            check_attend(a, start, Rows::UpTo(19), n, 8);
        }
        for start in [0, 14, 15, 16, 126, 127, 128, 256, 299] {
            check_attend(a, start, Rows::Fixed(1), 1, 8);
        }
        let one = check_attend(a, 119, Rows::UpTo(17), 17, 1);
        for positions in [2, 5, 8, 17] {
            assert_eq!(check_attend(a, 119, Rows::UpTo(17), 17, positions), one, "units of {positions}");
        }
    }
}

/// A row made alone, with nothing behind it in the cache, and among others: the same bits. Speculation
/// rests on this.
#[test]
fn a_row_alone_and_among_others() {
    for cache in CACHES {
        let a = Attention { heads: 6, kv_heads: 2, head_dim: 32, capacity: 300, causal: true, cache };
        for (start, n) in [(0, 5), (124, 9), (13, 4), (253, 7)] {
            let merged = noise(65, (start + n) * a.merged());
            let among = check_rows(a, &merged, Rows::UpTo(9), n, 4).remove(0);
            for (i, row) in among.chunks(pitch(a.heads * a.head_dim)).enumerate() {
                let alone = check_rows(a, &merged[..(start + i + 1) * a.merged()], Rows::Fixed(1), 1, 4).remove(0);
                assert_eq!(alone, row[..alone.len()], "{a:?}: row {i} of {n} from {start}");
            }
        }
    }
}

#[test]
fn rows_with_a_gap() {
    for cache in CACHES {
        let a = Attention { heads: 32, kv_heads: 16, head_dim: 16, capacity: 5, causal: false, cache };
        assert_ne!(pitch(a.merged()), a.merged());
        check_attend(a, 0, Rows::Fixed(3), 3, 2);
        let a = Attention { heads: 1, kv_heads: 1, head_dim: 16, capacity: 1024, causal: true, cache };
        check_attend(a, 2, Rows::UpTo(3), 3, 2);
    }
}

/// Every byte at an end of its range, all weights alike or one for all: no sum overflows.
#[test]
fn corners_do_not_saturate() {
    let a = Attention { heads: 2, kv_heads: 1, head_dim: 256, capacity: 130, causal: false, cache: Cache::Int8 };
    let n = 130;
    for (query, key, value) in [(0.0, 1.0, 1.0), (1.0, 1.0, -1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0)] {
        // The sign of a channel alternates by position or not at all.
        for alternating in [false, true] {
            let row = |t: usize| {
                let sign = if alternating && t % 2 == 1 { -1.0 } else { 1.0 };
                let parts = [(a.heads, query * 0.05), (1, key * sign), (1, value * sign)];
                parts.into_iter().flat_map(|(heads, v)| vec![v; heads * a.head_dim])
            };
            let merged: Vec<f32> = (0..n).flat_map(row).collect();
            check_rows(a, &merged[..n * a.merged()], Rows::Fixed(n), n, 7);
        }
    }
}

#[test]
fn keys_and_values_packed() {
    for cache in CACHES {
        for (kv_heads, head_dim, n) in [(1, 16, 1), (2, 32, 16), (3, 16, 17), (7, 48, 5), (2, 16, 130)] {
            let a = Attention { heads: 2 * kv_heads, kv_heads, head_dim, capacity: n, causal: false, cache };
            let merged = noise(61, n * a.merged());
            // Of bytes, the rest of the last block is zero.
            let rest = if cache == Cache::Int8 { || Want::Bits(0) } else { || Want::Same };
            let (keys, values) = Caches::of(&a, &merged).words(Want::Bits, rest);
            let case = Case {
                name: format!("pack {a:?}"),
                kernel: &|_| pack(&a, n),
                buffers: vec![
                    ("qkv", Buffer::Read(data::rows(&merged, a.merged()))),
                    ("keys", Buffer::Write(keys)),
                    ("values", Buffer::Write(values)),
                    ("scratch", scratch(cache.scratch(head_dim))),
                ],
                sizes: vec![],
                units: Some(kv_heads),
                tolerance: 0.0,
            };
            if cache == Cache::Int8 {
                check_exact(&case)
            } else {
                check(&case)
            };
        }
    }
}

/// What the rows become, products rounded as where nothing is fused.
fn turned(a: &Attention, merged: &[f32], start: usize, (cos, sin): (&[f32], &[f32])) -> Vec<f32> {
    let half = a.head_dim / 2;
    let mut turned = merged.to_vec();
    for (i, row) in turned.chunks_mut(a.merged()).enumerate() {
        for head in row[..(a.heads + a.kv_heads) * a.head_dim].chunks_mut(a.head_dim) {
            for c in 0..half {
                let at = (start + i) * half + c;
                let (x, y) = (head[c], head[c + half]);
                (head[c], head[c + half]) = (x * cos[at] - y * sin[at], y * cos[at] + x * sin[at]);
            }
        }
    }
    turned
}

fn check_rope(a: Attention, start: usize, n: usize, kind: Rows) {
    let half = a.head_dim / 2;
    let merged = noise(62, n * a.merged());
    let (cos, sin) = (noise(63, a.capacity * half), noise(64, a.capacity * half));
    let turned = turned(&a, &merged, start, (&cos, &sin));
    // Earlier positions of the first word of values are there and stay.
    let first = start - start % GROUP;
    let mut before = Caches::new(&a);
    before.put(&a, &noise(66, (start - first) * a.merged()), first);
    let mut after = before.clone();
    after.put(&a, &turned, start);
    // Rounded to fewer bits, what is fused and what is not may be a step apart.
    let exact = a.cache != Cache::F32;
    let want = |before: &[Option<u32>], after: &[Option<u32>]| {
        let one = |(before, after): (&Option<u32>, &Option<u32>)| match after {
            Some(bits) if before != after && exact => Want::Bits(*bits),
            Some(bits) if before != after => Want::Near(f64::from(f32::from_bits(*bits))),
            _ => Want::Same,
        };
        before.iter().zip(after).map(one).collect::<Vec<Want>>()
    };
    let (keys, values) = (want(&before.keys, &after.keys), want(&before.values, &after.values));
    let (keys_before, values_before) = before.bits();
    // Values are not turned: they stay where and what they were.
    let mut rows = want_rows(&wide(&turned), a.merged());
    for row in rows.chunks_mut(pitch(a.merged())) {
        row[(a.heads + a.kv_heads) * a.head_dim..].fill(Want::Same);
    }
    let case = Case {
        name: format!("rope of {a:?}: {n} from {start}"),
        kernel: &|_| rope(&a, kind),
        buffers: vec![
            ("qkv", Buffer::Update(data::rows(&merged, a.merged()), rows)),
            ("cos", Buffer::Read(bits(&cos))),
            ("sin", Buffer::Read(bits(&sin))),
            ("keys", Buffer::Update(keys_before, keys)),
            ("values", Buffer::Update(values_before, values)),
            ("scratch", scratch(a.cache.scratch(a.head_dim))),
        ],
        sizes: vec![("start", start), ("rows", n)],
        units: Some(n.div_ceil(GROUP)),
        tolerance: 2e-7,
    };
    if exact {
        check_exact(&case)
    } else {
        check(&case)
    };
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn ropes() {
    for cache in CACHES {
        for (heads, kv_heads, head_dim) in [(1, 1, 32), (4, 2, 64), (3, 1, 96), (24, 4, 32)] {
            let a = Attention { heads, kv_heads, head_dim, capacity: 135, causal: true, cache };
            for (start, n) in [(0, 1), (134, 1), (15, 2), (0, 17), (13, 22), (121, 14)] {
                check_rope(a, start, n, if n == 1 { Rows::Fixed(1) } else { Rows::UpTo(22) });
            }
        }
    }
}
