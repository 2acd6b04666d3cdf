//! A head in two halves: exact to the bit, and the largest logit is among those that are made.

use kernels::LANES;
use kernels::library::gemm::Init;
use kernels::library::head::argmax;
use kernels::library::linear::Norm;
use kernels::library::matrix::Format;
use kernels::library::split::{REACH, RESCORE_SCRATCH, Split, complete, embed, pick, rescore, row, screen};
use kernels::library::{lines, pitch};

use crate::case::{Buffer, Case, Want, check_exact, scratch, unfused};
use crate::data::{self, HOLE, noise};
use crate::integer::normed;
use crate::packed::{Quant, Row, cut, quantized};

const BLOCK: usize = 128;

/// A head and the rows in front of it.
struct Head {
    h: Split,
    high: Quant,
    /// `[rows, inputs]` of whole lines, -8..=7; zero behind the vocabulary.
    low: Vec<i32>,
    low_scale: Vec<f32>,
    /// `[h.rows, inputs]`
    x: Vec<f32>,
}

impl Head {
    fn new(h: Split, high: Quant, low: impl Fn(usize, usize) -> i32, low_scale: f32, x: Vec<f32>) -> Head {
        let rows = lines(h.vocab) * LANES;
        let value = |i: usize| if i / h.inputs < h.vocab { low(i / h.inputs, i % h.inputs) } else { 0 };
        let low = (0..rows * h.inputs).map(value).collect();
        let low_scale = (0..rows).map(|o| if o < h.vocab { low_scale } else { 0.0 }).collect();
        Head { h, high, low, low_scale, x }
    }

    /// Both halves by chance, the second one at most a step of the first.
    fn noise(inputs: usize, vocab: usize, seed: u64) -> Head {
        Head::of_rows(1, inputs, vocab, seed)
    }

    fn of_rows(n: usize, inputs: usize, vocab: usize, seed: u64) -> Head {
        let high = Quant::noise(Format::Nibbles, inputs, vocab, seed);
        let low = noise(seed + 2, inputs * lines(vocab) * LANES);
        let low = move |o: usize, i: usize| (low[o * inputs + i] * 8.0).floor() as i32;
        Head::new(Split { inputs, vocab, rows: n }, high, low, 0.01 / 4.0, noise(seed + 3, n * inputs))
    }

    fn rows(&self) -> usize {
        self.low_scale.len()
    }

    fn row(&self, n: usize) -> Row {
        quantized(&self.x[n * self.h.inputs..][..self.h.inputs], cut(Format::Nibbles, self.h.inputs))
    }

    fn p(&self, o: usize, i: usize) -> i32 {
        if i < self.h.inputs { self.low[o * self.h.inputs + i] } else { 0 }
    }

    /// As the library lays it out; what meets no input must not matter.
    fn low_words(&self, fill: u32) -> Vec<u32> {
        let nibble =
            |o: usize, i: usize| if i < self.h.inputs { (self.low[o * self.h.inputs + i] + 8) as u32 } else { fill };
        let mut out = Vec::new();
        for o in 0..self.rows() {
            for block in (0..self.h.inputs).step_by(BLOCK) {
                for l in 0..LANES {
                    let at = block + 4 * l;
                    out.push(
                        (0..4).map(|b| nibble(o, at + b) << (8 * b) | nibble(o, at + 64 + b) << (8 * b + 4)).sum(),
                    );
                }
            }
        }
        out
    }

    /// Lengths of the rows of the second half, as the compiler stores them.
    fn reach(&self) -> Vec<f32> {
        let square = |o: usize| (0..self.h.inputs).map(|i| f64::from(self.p(o, i)).powi(2)).sum::<f64>();
        (0..self.rows()).map(|o| (square(o).sqrt() * f64::from(self.low_scale[o]) * f64::from(REACH)) as f32).collect()
    }

    fn firsts(&self, n: usize) -> Vec<f32> {
        self.high.product(&[self.row(n)], Init::Zero, &[], &[])
    }

    /// All logits, whole lines: what is behind the vocabulary is zero.
    fn logits(&self, n: usize) -> Vec<f32> {
        let (row, firsts) = (self.row(n), self.firsts(n));
        let second = |o: usize| {
            let mut lanes = [0.0f32; LANES];
            for (b, scale) in row.scales.iter().enumerate() {
                for (l, sum) in lanes.iter_mut().enumerate() {
                    let inputs = (0..4).flat_map(|i| [b * BLOCK + 4 * l + i, b * BLOCK + 64 + 4 * l + i]);
                    let whole: i32 = inputs.map(|i| self.p(o, i) * i32::from(row.bytes[i])).sum();
                    *sum += whole as f32 * scale;
                }
            }
            for half in [8, 4, 2, 1] {
                (0..half).for_each(|i| lanes[i] += lanes[i + half]);
            }
            lanes[0] * self.low_scale[o]
        };
        (0..self.rows()).map(|o| firsts[o] + second(o)).collect()
    }

    fn length(&self, n: usize) -> f32 {
        let row = self.row(n);
        let most = row.scales.iter().fold(f32::MIN_POSITIVE, |most, s| most.max(*s));
        let mut total = 0.0f32;
        for (bytes, scale) in row.bytes.chunks(BLOCK).zip(&row.scales) {
            let squares: i32 = bytes.iter().map(|b| i32::from(*b).pow(2)).sum();
            let share = scale / most;
            total += squares as f32 * share * share;
        }
        total.sqrt() * (1.0 + 1.0 / 1024.0) * most
    }

    /// What each logit is at most.
    fn most(&self, n: usize) -> Vec<f32> {
        let (firsts, reach, length) = (self.firsts(n), self.reach(), self.length(n));
        let inside = |o: usize, v: f32| if o < self.h.vocab { v } else { f32::NEG_INFINITY };
        let most = |o: usize| firsts[o] + (reach[o] * length + 1e-30);
        (0..self.rows()).map(|o| inside(o, if most(o) < f32::INFINITY { most(o) } else { f32::INFINITY })).collect()
    }

    /// The largest of each line.
    fn by_line(&self, values: &[f32]) -> Vec<f32> {
        let inside = |o: usize| if o < self.h.vocab { values[o] } else { f32::NEG_INFINITY };
        let line = |j: usize| (j * LANES..(j + 1) * LANES).map(inside).fold(f32::NEG_INFINITY, f32::max);
        (0..self.rows() / LANES).map(line).collect()
    }

    /// The prepared rows, after whatever norm.
    fn prepared(&self) -> Vec<u32> {
        let mut out: Vec<u32> = (0..self.h.rows).flat_map(|n| self.row(n).words()).collect();
        for n in 0..self.h.rows {
            for bytes in self.row(n).bytes.chunks(BLOCK) {
                for l in 0..LANES {
                    let sum: i32 = (0..4).map(|i| i32::from(bytes[4 * l + i]) + i32::from(bytes[64 + 4 * l + i])).sum();
                    out.push((-8 * sum) as u32);
                }
            }
            out.push(self.length(n).to_bits());
            out.resize(out.len() + LANES - 1, HOLE);
        }
        assert_eq!(out.len(), self.h.row_words());
        out
    }

    /// `of(row)` for all rows, as far apart as the kernels have them; what lies between them counts for nothing.
    fn laid_out(&self, of: &dyn Fn(usize) -> Vec<f32>) -> Vec<u32> {
        let mut bits = Vec::new();
        for values in (0..self.h.rows).map(of) {
            let end = bits.len() + pitch(values.len());
            bits.extend(values.iter().map(|v| v.to_bits()));
            bits.resize(end, f32::INFINITY.to_bits());
        }
        bits
    }

    fn buffers(&self) -> Vec<(&'static str, Buffer)> {
        vec![
            ("q", Buffer::Read(self.prepared())),
            ("w", Buffer::Read(self.high.words(0x7f))),
            ("w_scale", Buffer::Read(data::vector(&self.high.scale))),
            ("low", Buffer::Read(self.low_words(0xf))),
            ("low_scale", Buffer::Read(data::vector(&self.low_scale))),
            ("reach", Buffer::Read(data::vector(&self.reach()))),
            ("high", Buffer::Read(self.laid_out(&|n| self.firsts(n)))),
            ("best", Buffer::Read(self.laid_out(&|n| self.by_line(&self.firsts(n))))),
            ("top", Buffer::Read(self.laid_out(&|n| self.by_line(&self.most(n))))),
            ("scratch", scratch(RESCORE_SCRATCH)),
        ]
    }

    /// The buffers with some of them replaced.
    fn with(&self, written: Vec<(&'static str, Buffer)>) -> Vec<(&'static str, Buffer)> {
        let kept = self.buffers().into_iter().filter(|(name, _)| written.iter().all(|(other, _)| other != name));
        written.iter().cloned().chain(kept).collect()
    }

    fn name(&self, what: &str) -> String {
        format!("{what} of {:?}", self.h)
    }
}

/// Rows as they must be written, nothing between them.
fn rows_of(n: usize, of: &dyn Fn(usize) -> Vec<Want>) -> Vec<Want> {
    let mut out = Vec::new();
    for values in (0..n).map(of) {
        let end = out.len() + pitch(values.len());
        out.extend(values);
        out.resize(end, Want::Same);
    }
    out
}

fn bits(values: &[f32]) -> Vec<Want> {
    values.iter().map(|v| Want::Bits(v.to_bits())).collect()
}

fn check_screen(head: &Head) {
    let n = head.h.rows;
    let written = vec![
        ("high", Buffer::Write(rows_of(n, &|n| bits(&head.firsts(n))))),
        ("best", Buffer::Write(rows_of(n, &|n| bits(&head.by_line(&head.firsts(n)))))),
        ("top", Buffer::Write(rows_of(n, &|n| bits(&head.by_line(&head.most(n)))))),
    ];
    check_exact(&Case {
        name: head.name("first half"),
        kernel: &|s| screen(s, &head.h, n),
        buffers: head.with(written),
        sizes: vec![],
        units: Some(head.rows() / LANES),
        tolerance: 0.0,
    });
}

/// For each line the largest of the logits that are made, and where it is; and how many are made.
fn winners(head: &Head, n: usize) -> (Vec<(f32, Option<usize>)>, usize) {
    let (firsts, logits, most) = (head.firsts(n), head.logits(n), head.most(n));
    let (best, top) = (head.by_line(&firsts), head.by_line(&most));
    let largest = best.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let all = head.by_line(&logits);
    let limit = (0..best.len()).filter(|j| best[*j] == largest).map(|j| all[j]).fold(f32::NEG_INFINITY, f32::max);
    let made = |o: usize| o < head.h.vocab && top[o / LANES] >= limit && most[o] >= limit;
    let line = |j: usize| {
        let rows = (j * LANES..(j + 1) * LANES).filter(|o| made(*o));
        let most = rows.clone().map(|o| logits[o]).fold(f32::NEG_INFINITY, f32::max);
        (most, rows.clone().find(|o| logits[*o] == most))
    };
    for (o, logit) in logits.iter().enumerate().take(head.h.vocab) {
        assert!(*logit <= most[o], "{}: logit {o} is {logit}, at most {} was said", head.name("bounds"), most[o]);
    }
    ((0..best.len()).map(line).collect(), (0..head.h.vocab).filter(|o| made(*o)).count())
}

/// Checks the logits that are made, and that the largest is what it is of all. Returns how many were made, of each row.
fn check_rescore(head: &Head) -> Vec<usize> {
    let n = head.h.rows;
    let values = rows_of(n, &|n| winners(head, n).0.iter().map(|(most, _)| Want::Bits(most.to_bits())).collect());
    // Lines without a winner have any index.
    let id = |id: &Option<usize>| id.map_or(Want::Word, |id| Want::Bits(id as u32));
    let ids = rows_of(n, &|n| winners(head, n).0.iter().map(|(_, at)| id(at)).collect());
    let written = check_exact(&Case {
        name: head.name("logits that may win"),
        kernel: &|_| rescore(&head.h, n > 1),
        buffers: head.with(vec![("value", Buffer::Write(values)), ("id", Buffer::Write(ids))]),
        sizes: vec![("rows", n)],
        units: Some(head.rows() / LANES),
        tolerance: 0.0,
    });
    let token = |n: usize| {
        let bits = head.logits(n).iter().map(|v| v.to_bits()).collect();
        Want::Bits(unfused(&argmax(head.h.vocab), &[bits, vec![0]], &[0, 1])[1][0])
    };
    // What no kernel has written is no candidate.
    let behind = |bits: &[u32]| -> Vec<u32> {
        bits.iter().map(|b| if *b == HOLE { f32::INFINITY.to_bits() } else { *b }).collect()
    };
    check_exact(&Case {
        name: head.name("the largest"),
        kernel: &|_| pick(head.h.vocab),
        buffers: vec![
            ("value", Buffer::Read(behind(&written[0]))),
            ("id", Buffer::Read(behind(&written[1]))),
            ("token", Buffer::Write((0..n).map(token).collect())),
        ],
        sizes: vec![],
        units: Some(n),
        tolerance: 0.0,
    });
    (0..n).map(|n| winners(head, n).1).collect()
}

fn check_complete(head: &Head) {
    let n = head.h.rows;
    let want = rows_of(n, &|n| {
        let mut want = bits(&head.logits(n));
        want[head.h.vocab..].fill(Want::Same);
        want
    });
    check_exact(&Case {
        name: head.name("all logits"),
        kernel: &|_| complete(&head.h),
        buffers: head.with(vec![("logits", Buffer::Update(head.laid_out(&|n| head.firsts(n)), want))]),
        sizes: vec![("rows", n)],
        units: Some(head.rows() / LANES),
        tolerance: 0.0,
    });
}

const INPUTS: [usize; 7] = [16, 48, 112, 128, 144, 256, 400];
const VOCABS: [usize; 6] = [1, 16, 17, 100, 256, 300];

#[test]
fn heads_of_every_size() {
    for (turn, inputs) in INPUTS.into_iter().enumerate() {
        for vocab in VOCABS.into_iter().skip(turn % 2).step_by(2) {
            let head = Head::of_rows([1, 3, 1, 4][(turn + vocab) % 4], inputs, vocab, 70 + turn as u64);
            check_screen(&head);
            check_rescore(&head);
            check_complete(&head);
        }
    }
}

/// A row that fits its activations much better than the others: few are made.
#[test]
fn a_clear_winner_needs_few() {
    let (inputs, vocab) = (256, 300);
    for winner in [0, 137, 299] {
        let mut head = Head::noise(inputs, vocab, 5);
        let sign = |i: usize| if noise(8, inputs)[i] < 0.0 { -1 } else { 1 };
        head.high = Quant::new(
            Format::Nibbles,
            (inputs, vocab),
            |i, o| if o == winner { 7 * sign(i) } else { (i * 7 + o * 13) as i32 % 15 - 7 },
            |_, _| 7,
        );
        head.x = (0..inputs).map(|i| sign(i) as f32 * (1.0 + 0.3 * noise(9, inputs)[i])).collect();
        assert_eq!(check_rescore(&head), [1]);
    }
}

/// All rows alike, or alike in the half that is seen first: every one is made, and the first of equals wins.
#[test]
fn flat_logits_need_all() {
    let (inputs, vocab) = (144, 75);
    let h = Split { inputs, vocab, rows: 1 };
    let high = || {
        let mut high = Quant::new(Format::Nibbles, (inputs, vocab), |i, _| i as i32 % 16 - 8, |_, _| 3);
        high.scale[..vocab].fill(0.01);
        high
    };
    let alike = Head::new(h, high(), |_, i| i as i32 % 5 - 2, 0.004, noise(3, inputs));
    assert_eq!(check_rescore(&alike), [vocab]);
    check_screen(&alike);
    let hidden = Head::new(h, high(), |o, i| (o * 31 + i * 17) as i32 % 16 - 8, 0.004, noise(3, inputs));
    assert_eq!(check_rescore(&hidden), [vocab]);
    // Nothing at all: all logits are zero, and the first token is the largest.
    let nothing = Head::new(h, high(), |_, _| 7, 0.004, vec![0.0; inputs]);
    assert_eq!(check_rescore(&nothing), [vocab]);
    check_complete(&nothing);
}

/// The second half is parallel to the activations, where the bound is reached, and all bytes are at an end of
/// their range.
#[test]
fn bounds_hold_where_they_are_reached() {
    for inputs in [16, 128, 400] {
        let vocab = 40;
        let high =
            Quant::new(Format::Nibbles, (inputs, vocab), |i, o| [7, -8][(i + o) % 2], |g, o| [7, -7][(g + o) % 2]);
        for x in [1.0f32, -1.0] {
            let row: Vec<f32> = (0..inputs).map(|_| x).collect();
            let mut head = Head::new(Split { inputs, vocab, rows: 1 }, high.clone(), |o, _| [7, -8][o % 2], 0.02, row);
            check_screen(&head);
            check_rescore(&head);
            check_complete(&head);
            // The least floats that are quantized, and those that become zero.
            for tiny in [1e-30, 1e-36, 1e-38] {
                head.x = vec![x * tiny; inputs];
                check_rescore(&head);
            }
        }
    }
}

#[test]
fn rows_are_prepared() {
    for inputs in INPUTS {
        for gain in [false, true] {
            let norm = Norm::Rms { eps: 1e-6, gain };
            let x = noise(93, 3 * inputs);
            // One row of three, and all of them.
            for (any_row, n) in [(true, 1), (false, 1), (false, 3)] {
                let at = if any_row { 2 } else { 0 };
                let normed = normed(Some(norm), &x, inputs)[at..at + n].concat();
                let head = Head { x: normed, ..Head::of_rows(n, inputs, 16, 1) };
                let bits = |word: u32| if word == HOLE { Want::Same } else { Want::Bits(word) };
                check_exact(&Case {
                    name: head.name("prepared rows"),
                    kernel: &|_| row(&head.h, norm, any_row),
                    buffers: vec![
                        ("x", Buffer::Read(data::rows(&x, inputs))),
                        ("gain", Buffer::Read(data::vector(&noise(96, inputs)))),
                        ("q", Buffer::Write(head.prepared().into_iter().map(bits).collect())),
                        ("scratch", scratch(head.h.row_scratch())),
                    ],
                    sizes: vec![("row", at)],
                    units: Some(n),
                    tolerance: 0.0,
                });
            }
        }
    }
}

#[test]
fn embeddings_of_both_halves() {
    for inputs in [16, 48, 112, 128, 144, 256, 400, 20] {
        let head = Head::noise(inputs, 40, 3);
        for id in [0, 17, 39] {
            let value = |i: usize| head.high.value(i, id) + head.p(id, i) as f32 * head.low_scale[id];
            let mut want: Vec<Want> = (0..inputs).map(|i| Want::Bits(value(i).to_bits())).collect();
            // The first half's kernel writes eight inputs at a time.
            want.resize(inputs.next_multiple_of(8), Want::Any);
            want.resize(pitch(inputs), Want::Same);
            check_exact(&Case {
                name: head.name("embedding"),
                kernel: &|_| embed(&head.h),
                buffers: vec![
                    ("table", Buffer::Read(head.high.words(0x7f))),
                    ("table_scale", Buffer::Read(data::vector(&head.high.scale))),
                    ("low", Buffer::Read(head.low_words(0xf))),
                    ("low_scale", Buffer::Read(data::vector(&head.low_scale))),
                    ("y", Buffer::Write(want)),
                ],
                sizes: vec![("id", id)],
                units: None,
                tolerance: 0.0,
            });
        }
    }
}
