//! The softmax of a block of keys, in floats and in planes of bytes.

use kernels::LANES;
use kernels::library::cache::BLOCK;
use kernels::library::softmax::{Softmax, planes};

use crate::case::{Buffer, Case, Want, check, check_exact};
use crate::data::{HOLE, noise};

/// A block of a stream.
struct Block {
    softmax: Softmax,
    positions: usize,
    /// Keys of the block that the first row sees; none is 0.
    keys: usize,
    /// Whether blocks were before.
    before: bool,
    /// Scores are in -spread..spread.
    spread: f32,
}

/// What a row is made of.
struct Row {
    /// The scores it sees.
    scores: Vec<f32>,
    /// Its largest score and sum so far.
    state: [f32; 2],
}

/// The first key of the block.
const FROM: usize = 3 * BLOCK;

impl Block {
    fn rows(&self) -> Vec<Row> {
        let (n, group) = (self.positions * self.softmax.group, self.softmax.group);
        let row = |r: usize| {
            let more = if self.softmax.causal { r / group } else { 0 };
            let scores = noise(70 + r as u64, BLOCK).into_iter().map(|v| v * self.spread);
            let state = noise(80 + r as u64, 2);
            let state = if self.before { [state[0] * self.spread, 2.0 + state[1]] } else { [f32::MIN, 0.0] };
            Row { scores: scores.take((self.keys + more).min(BLOCK)).collect(), state }
        };
        (0..n).map(row).collect()
    }

    fn most(&self) -> usize {
        self.rows().iter().map(|r| r.scores.len()).max().unwrap_or(0)
    }

    /// Scores as they lie; what a row does not see is NaN or infinite.
    fn scores(&self) -> Vec<u32> {
        let behind = |r: usize| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][r % 3].to_bits();
        let row = |(r, row): (usize, Row)| {
            let seen: Vec<u32> = row.scores.iter().map(|v| v.to_bits()).collect();
            let rest = vec![behind(r); BLOCK - seen.len()];
            [seen, rest].concat()
        };
        self.rows().into_iter().enumerate().flat_map(row).collect()
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        let seen = FROM + self.keys;
        vec![("positions", self.positions), ("seen", seen), ("from", FROM), ("lines", self.most().div_ceil(LANES))]
    }

    /// How much of a row's past stays, and of the block's own weights, which are to the block's largest.
    fn shares(&self, row: &Row) -> (f64, f64, f64) {
        let wide = |x: f32| f64::from(x);
        let own = row.scores.iter().copied().fold(f32::MIN, f32::max);
        let top = own.max(row.state[0]);
        let exp = |x: f64| if self.softmax.planes { x.exp2() } else { x.exp() };
        (exp(wide(row.state[0]) - wide(top)), exp(wide(own) - wide(top)), wide(own))
    }

    fn weights(&self, row: &Row) -> Vec<f64> {
        let (_, _, own) = self.shares(row);
        let exp = |x: f64| if self.softmax.planes { x.exp2() } else { x.exp() };
        row.scores.iter().map(|v| exp(f64::from(*v) - own)).collect()
    }

    fn out(&self) -> (Vec<u32>, Vec<Want>) {
        let channels = self.softmax.channels;
        let start = noise(90, self.rows().len() * channels);
        let rows = self.rows();
        let want = |(i, v): (usize, &f32)| Want::Near(f64::from(*v) * self.shares(&rows[i / channels]).0);
        (start.iter().map(|v| v.to_bits()).collect(), start.iter().enumerate().map(want).collect())
    }

    fn state(&self) -> (Vec<u32>, Vec<Want>) {
        let (mut start, mut want) = (Vec::new(), Vec::new());
        for row in self.rows() {
            let (keep, share, own) = self.shares(&row);
            let sum: f64 = self.weights(&row).iter().sum::<f64>() * share + f64::from(row.state[1]) * keep;
            start.extend(row.state.map(f32::to_bits));
            want.extend([Want::Bits((own as f32).max(row.state[0]).to_bits()), Want::Near(sum)]);
        }
        (start, want)
    }

    fn name(&self) -> String {
        let Block { softmax, positions, keys, before, spread } = self;
        format!("{softmax:?}: {positions} from {keys} keys, before: {before}, times {spread}")
    }

    fn check_floats(&self) {
        let lines = self.most().div_ceil(LANES);
        let (out, state) = (self.out(), self.state());
        let mut weights = Vec::new();
        for row in self.rows() {
            let (_, share, _) = self.shares(&row);
            let mut want: Vec<Want> = self.weights(&row).iter().map(|w| Want::Near(w * share)).collect();
            want.resize(lines * LANES, Want::Bits(0));
            want.resize(BLOCK, Want::Same);
            weights.extend(want);
        }
        check(&Case {
            name: self.name(),
            kernel: &|_| self.softmax.block(),
            buffers: vec![
                ("s", Buffer::Update(self.scores(), weights)),
                ("out", Buffer::Update(out.0, out.1)),
                ("state", Buffer::Update(state.0, state.1)),
            ],
            sizes: self.sizes(),
            units: None,
            tolerance: 1e-6,
        });
    }

    /// Bytes, scales and sums are judged together: what they say of each weight, and that the sum is
    /// that of the bytes.
    fn check_planes(&self) {
        let n = self.rows().len();
        let (out, state) = (self.out(), self.state());
        let scales: Vec<f32> = noise(71, BLOCK).iter().map(|v| 0.01 + 0.005 * v).collect();
        let mut given: Vec<u32> = scales.iter().map(|v| v.to_bits()).collect();
        given[self.most()..].fill(HOLE);
        let layout = planes();
        // Each view begins at its own part of the rows.
        let view = |words: usize| {
            let mut row = vec![Want::Same; layout.pitch()];
            row[..words].fill(Want::Word);
            Buffer::Write((0..n).flat_map(|_| row.clone()).collect())
        };
        let all = check_exact(&Case {
            name: self.name(),
            kernel: &|_| self.softmax.block(),
            buffers: vec![
                ("s", Buffer::Read(self.scores())),
                ("scales", Buffer::Loose(given)),
                ("planes", view(layout.scales_at())),
                ("plane_scales", view(2)),
                ("plane_sums", view(2)),
                ("out", Buffer::Update(out.0, out.1)),
                ("state", Buffer::Update(state.0, state.1)),
            ],
            sizes: self.sizes(),
            units: None,
            // The error of the short exponential.
            tolerance: 1.1e-4,
        });
        let [bytes, units, sums, ..] = &all[..] else { panic!("{} buffers", all.len()) };
        for (r, row) in self.rows().iter().enumerate() {
            let at = r * layout.pitch();
            let bytes: Vec<i64> = bytes[at..at + layout.scales_at()]
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .map(|b| i64::from(b as i8))
                .collect();
            let (high, low) = bytes.split_at(BLOCK);
            assert!(bytes.iter().all(|b| (0..128).contains(b)), "{}, row {r}: {bytes:?}", self.name());
            let levels: Vec<i64> = high.iter().zip(low).map(|(h, l)| 128 * h + l).collect();
            let sum = -64 * levels.iter().sum::<i64>();
            assert_eq!([sums[at] as i32, sums[at + 1] as i32].map(i64::from), [0, sum], "{}, row {r}", self.name());
            let [high, unit] = [units[at], units[at + 1]].map(|u| f64::from(f32::from_bits(u)));
            assert_eq!(high, 128.0 * unit, "{}, row {r}", self.name());
            let (_, share, _) = self.shares(row);
            let peak = scales[..row.scores.len()].iter().copied().fold(0.0, f32::max);
            for (i, weight) in self.weights(row).iter().enumerate() {
                let want = weight * share * f64::from(scales[i]);
                let error = (levels[i] as f64 * unit - want).abs();
                // Half a level, and the short exponential's error, twice where the row has grown.
                let allowed = share * f64::from(peak) * (0.51 / 16256.0 + 2.1e-4 * weight);
                assert!(error <= allowed, "{}, row {r}: weight {i} is off by {error}", self.name());
            }
            assert!(levels[row.scores.len()..].iter().all(|n| *n == 0), "{}, row {r}: keys behind", self.name());
            let most = levels.iter().max().copied().unwrap_or(0);
            assert!(most <= 16256, "{}, row {r}: {most}", self.name());
        }
    }

    fn check(&self) {
        if self.softmax.planes { self.check_planes() } else { self.check_floats() }
    }
}

fn both(group: usize, causal: bool) -> [Softmax; 2] {
    [false, true].map(|planes| Softmax { group, channels: 32, causal, planes })
}

#[test]
fn blocks_of_every_length() {
    for keys in [1, 2, 15, 16, 17, 63, 113, 127, 128] {
        for softmax in both(1, false).into_iter().chain(both(3, true)) {
            for before in [false, true] {
                Block { softmax, positions: 2, keys, before, spread: 3.0 }.check();
            }
        }
    }
}

/// The first rows of a unit may end before the block begins, the last ones behind its end.
#[test]
fn rows_that_see_nothing_and_rows_that_see_all() {
    for softmax in both(2, true) {
        for (keys, positions) in [(0, 3), (0, 18), (125, 5), (0, 140)] {
            let block = Block { softmax, positions, keys, before: true, spread: 2.0 };
            if keys == 0 {
                block.check_from_nothing();
            } else {
                block.check();
            }
        }
    }
}

impl Block {
    /// As [`Block::check`], of rows whose first ones see no key: these stay as they are.
    fn check_from_nothing(&self) {
        let group = self.softmax.group;
        let later = Block { positions: self.positions - 1, keys: 1, ..*self };
        let (n, channels) = (self.positions * group, self.softmax.channels);
        let scores = vec![f32::NAN.to_bits(); group * BLOCK].into_iter().chain(later.scores()).collect::<Vec<_>>();
        let skip = |words: usize| vec![1.5f32.to_bits(); group * words];
        let (out, state) = (later.out(), later.state());
        let join = |first: Vec<u32>, rest: (Vec<u32>, Vec<Want>)| {
            let want = first.iter().map(|b| Want::Bits(*b)).chain(rest.1).collect();
            (first.into_iter().chain(rest.0).collect(), want)
        };
        let (out, state) = (join(skip(channels), out), join(skip(2), state));
        let lines = later.most().div_ceil(LANES);
        let sizes = vec![("positions", self.positions), ("seen", FROM), ("from", FROM), ("lines", lines)];
        let mut buffers = vec![("out", Buffer::Update(out.0, out.1)), ("state", Buffer::Update(state.0, state.1))];
        let name = self.name();
        if !self.softmax.planes {
            let any = |r: usize| {
                let mut row = vec![if r < group { Want::Bits(0) } else { Want::Any }; lines * LANES];
                row.resize(BLOCK, Want::Same);
                row
            };
            buffers.push(("s", Buffer::Update(scores, (0..n).flat_map(any).collect())));
            let kernel = || self.softmax.block();
            check(&Case { name, kernel: &|_| kernel(), buffers, sizes, units: None, tolerance: 1e-6 });
            return;
        }
        let layout = planes();
        let row = |r: usize, words: usize| {
            let mut row = vec![if r < group { Want::Bits(0) } else { Want::Word }; words];
            row.resize(layout.pitch(), Want::Same);
            row
        };
        let view = |words: usize| Buffer::Write((0..n).flat_map(|r| row(r, words)).collect());
        buffers.extend([
            ("s", Buffer::Read(scores)),
            ("scales", Buffer::Loose(noise(71, BLOCK).iter().map(|v| (v + 2.0).to_bits()).collect())),
            ("planes", view(layout.scales_at())),
            ("plane_scales", view(2)),
            ("plane_sums", view(2)),
        ]);
        let kernel = || self.softmax.block();
        check_exact(&Case { name, kernel: &|_| kernel(), buffers, sizes, units: None, tolerance: 1.1e-4 });
    }
}

/// Differences beyond the range of an exponential, and scores near the largest float.
#[test]
fn scores_of_any_size() {
    for softmax in both(1, false).into_iter().chain(both(2, true)) {
        for spread in [1e-9, 300.0, 1e6] {
            Block { softmax, positions: 2, keys: 20, before: false, spread }.check();
        }
        Block { softmax, positions: 1, keys: 40, before: false, spread: 1.6e38 }.check();
    }
}
