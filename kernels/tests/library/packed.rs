//! Quantized operands as the library lays them out, and their products by plain code.
//!
//! Written from the layouts' description, not from the library: sums are 64-bit integers by group,
//! floats are multiplied and added one by one in the documented order.

use kernels::LANES;
use kernels::library::gemm::Init;
use kernels::library::matrix::Format;
use kernels::library::{lines, pitch};

use crate::case::Want;
use crate::data::{HOLE, noise};

/// Channels of a group and of a block of 4-bit weights.
const GROUP: usize = 16;
const BLOCK: usize = 128;

/// How rows are cut: channels in memory, channels of a block, and whether sums are by group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    pub physical: usize,
    pub block: usize,
    pub groups: bool,
}

/// The rows of `channels` that a format takes.
pub fn cut(format: Format, channels: usize) -> Cut {
    let whole = channels.div_ceil(16) * 16;
    match format {
        Format::F32 => panic!("floats are not quantized"),
        Format::Bytes { block } => Cut { physical: whole, block: block.min(whole), groups: false },
        Format::Nibbles => Cut { physical: channels.div_ceil(BLOCK) * BLOCK, block: BLOCK, groups: true },
    }
}

impl Cut {
    fn blocks(&self) -> usize {
        self.physical.div_ceil(self.block)
    }

    fn sums(&self) -> usize {
        self.blocks() + if self.groups { self.physical / GROUP } else { 0 }
    }

    /// Words from one row to the next.
    pub fn pitch(&self) -> usize {
        pitch(self.physical / 4 + self.blocks() + self.sums())
    }
}

/// A quantized row.
pub struct Row {
    pub cut: Cut,
    pub bytes: Vec<i8>,
    pub scales: Vec<f32>,
    /// Of groups, if there are, then of blocks.
    pub sums: Vec<i32>,
}

/// `q = round(x / scale)` by blocks; channels that fill up the last block are zero.
pub fn quantized(x: &[f32], cut: Cut) -> Row {
    let mut x = x.to_vec();
    x.resize(cut.physical, 0.0);
    let (mut bytes, mut scales) = (Vec::new(), Vec::new());
    for block in x.chunks(cut.block) {
        let peak = block.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
        scales.push(peak * (1.0f32 / 127.0));
        bytes.extend(block.iter().map(|v| nearest(*v, peak)));
    }
    let sum = |part: &[i8]| part.iter().map(|b| i32::from(*b)).sum::<i32>();
    let by_group = bytes.chunks(GROUP).filter(|_| cut.groups).map(|part| -8 * sum(part));
    let sums = by_group.chain(bytes.chunks(cut.block).map(|part| -64 * sum(part))).collect();
    Row { cut, bytes, scales, sums }
}

/// Peaks below this count as this: 127 over less than 3.8e-37 is no float.
const TINY: f32 = 1e-36;

/// `127 v / peak` as the kernel rounds it: the quotient `127 / peak` and the product in floats.
fn nearest(v: f32, peak: f32) -> i8 {
    let inverse = 127.0 / peak.max(TINY);
    let q = f64::from(v * inverse).round_ties_even();
    assert!((-127.0..=127.0).contains(&q), "{v} of {peak} is {q}");
    q as i8
}

impl Row {
    /// As the library lays it out, holes up to the pitch.
    pub fn words(&self) -> Vec<u32> {
        let bytes = self.bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]].map(|b| b as u8)));
        let mut out: Vec<u32> = bytes.collect();
        out.extend(self.scales.iter().map(|s| s.to_bits()));
        out.extend(self.sums.iter().map(|s| *s as u32));
        out.resize(self.cut.pitch(), HOLE);
        out
    }

    /// What a kernel must have written.
    pub fn want(&self) -> Vec<Want> {
        self.words().into_iter().map(|word| if word == HOLE { Want::Same } else { Want::Bits(word) }).collect()
    }
}

/// A quantized matrix.
#[derive(Clone)]
pub struct Quant {
    pub format: Format,
    pub inputs: usize,
    pub outputs: usize,
    /// `[inputs, channels]`, channels being whole lines: -64..=63 in bytes, -8..=7 in nibbles.
    q: Vec<i32>,
    /// `[groups, channels]`; ones for bytes.
    factor: Vec<i32>,
    /// By channel; zero where it fills up a line.
    pub scale: Vec<f32>,
}

impl Quant {
    /// A matrix of what `q(input, output)` and `factor(group, output)` say, scales of 0.005 to 0.015.
    pub fn new(
        format: Format,
        (inputs, outputs): (usize, usize),
        q: impl Fn(usize, usize) -> i32,
        factor: impl Fn(usize, usize) -> i32,
    ) -> Quant {
        let (channels, groups) = (lines(outputs) * LANES, inputs.div_ceil(GROUP));
        let grid = |n: usize, f: &dyn Fn(usize, usize) -> i32| -> Vec<i32> {
            (0..n * channels).map(|i| f(i / channels, i % channels)).collect()
        };
        let mut scale: Vec<f32> = noise(90, outputs).iter().map(|v| 0.01 + 0.005 * v).collect();
        scale.resize(channels, 0.0);
        let factor = if format == Format::Nibbles { grid(groups, &factor) } else { vec![1; groups * channels] };
        Quant { format, inputs, outputs, q: grid(inputs, &q), factor, scale }
    }

    /// All weights there are, by chance.
    pub fn noise(format: Format, inputs: usize, outputs: usize, seed: u64) -> Quant {
        let channels = lines(outputs) * LANES;
        let (q, factor) = (noise(seed, inputs * channels), noise(seed + 1, inputs.div_ceil(GROUP) * channels));
        let half = if format == Format::Nibbles { 8.0 } else { 64.0 };
        Quant::new(
            format,
            (inputs, outputs),
            |i, o| (q[i * channels + o] * half).floor() as i32,
            |g, o| (factor[g * channels + o] * 7.99) as i32,
        )
    }

    fn channels(&self) -> usize {
        self.scale.len()
    }

    /// A weight without its channel's scale.
    pub fn whole(&self, input: usize, output: usize) -> i32 {
        self.factor[input / GROUP * self.channels() + output] * self.q[input * self.channels() + output]
    }

    /// A weight.
    pub fn value(&self, input: usize, output: usize) -> f32 {
        self.whole(input, output) as f32 * self.scale[output]
    }

    /// `[inputs, outputs]` as floats.
    pub fn floats(&self) -> Vec<f32> {
        (0..self.inputs).flat_map(|i| (0..self.outputs).map(move |o| self.value(i, o))).collect()
    }

    /// As the library lays it out. What meets no input is `fill`: it must not matter.
    pub fn words(&self, fill: u8) -> Vec<u32> {
        let physical = cut(self.format, self.inputs).physical;
        let mut out = Vec::new();
        for line in 0..self.channels() / LANES {
            let lanes = line * LANES..(line + 1) * LANES;
            if self.format == Format::Nibbles {
                for block in (0..physical).step_by(BLOCK) {
                    self.nibbles(&mut out, block, lanes.clone(), fill);
                }
            } else {
                for p in (0..physical).step_by(4) {
                    out.extend(
                        lanes.clone().map(|o| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.byte(p + i, o, fill)))),
                    );
                }
            }
        }
        out
    }

    fn byte(&self, input: usize, output: usize, fill: u8) -> u8 {
        if input < self.inputs { (self.q[input * self.channels() + output] + 64) as u8 } else { fill }
    }

    /// A line of factors, nibble `g` of group `g`; 16 lines of eight inputs, the first four in the low
    /// nibbles.
    fn nibbles(&self, out: &mut Vec<u32>, first: usize, lanes: std::ops::Range<usize>, fill: u8) {
        let (fill, channels) = (u32::from(fill & 0xf), self.channels());
        for o in lanes.clone() {
            let factor = |g: usize| {
                let at = (first / GROUP + g) * channels + o;
                self.factor.get(at).map_or(fill, |f| (*f & 0xf) as u32)
            };
            out.push((0..8).map(|g| factor(g) << (4 * g)).sum());
        }
        for p in (first..first + BLOCK).step_by(8) {
            for o in lanes.clone() {
                let nibble = |i: usize| {
                    let inside = p + i < self.inputs;
                    if inside { (self.q[(p + i) * channels + o] + 8) as u32 } else { fill }
                };
                out.push((0..4).map(|i| nibble(i) << (8 * i) | nibble(4 + i) << (8 * i + 4)).sum());
            }
        }
    }

    /// `init + rows w`, whole lines of channels.
    pub fn product(&self, rows: &[Row], init: Init, bias: &[f32], residual: &[f32]) -> Vec<f32> {
        let channels = self.channels();
        let mut out = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            for o in 0..channels {
                let mut sum = 0.0f32;
                for (b, scale) in row.scales.iter().enumerate() {
                    let inputs = b * row.cut.block..((b + 1) * row.cut.block).min(self.inputs);
                    let whole: i64 = inputs.map(|p| i64::from(self.whole(p, o)) * i64::from(row.bytes[p])).sum();
                    sum += i32::try_from(whole).expect("32 bits are enough") as f32 * scale;
                }
                let mut y = sum * self.scale[o];
                if init.has_bias() {
                    y += bias.get(o).copied().unwrap_or(0.0);
                }
                if init.has_residual() {
                    y += if o < self.outputs { residual[i * self.outputs + o] } else { 0.0 };
                }
                out.push(y);
            }
        }
        out
    }
}

/// Rows of whole lines as a kernel must write them: these bits, nothing up to the pitch.
pub fn want_exact(y: &[f32], outputs: usize) -> Vec<Want> {
    let mut out = Vec::new();
    for row in y.chunks(lines(outputs) * LANES) {
        let from = out.len();
        out.extend(row.iter().map(|v| Want::Bits(v.to_bits())));
        out.resize(from + pitch(outputs), Want::Same);
    }
    out
}

/// Rows of whole lines, holes up to the pitch.
pub fn whole_rows(y: &[f32], outputs: usize) -> Vec<u32> {
    let bits = |want| match want {
        Want::Bits(bits) => bits,
        _ => HOLE,
    };
    want_exact(y, outputs).into_iter().map(bits).collect()
}

/// Signal to noise, dB, of rows that a kernel wrote.
pub fn quality(found: &[u32], want: &[f64], channels: usize) -> f64 {
    let (mut signal, mut error) = (0.0, 0.0);
    for (row, want) in found.chunks(pitch(channels)).zip(want.chunks(channels)) {
        for (found, want) in row.iter().zip(want) {
            signal += want * want;
            error += (f64::from(f32::from_bits(*found)) - want).powi(2);
        }
    }
    10.0 * (signal / error).log10()
}
