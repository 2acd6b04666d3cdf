//! The decoder's MLP on rows and on one row.

use kernels::LANES;
use kernels::library::linear::{Norm, UNIT, gated_vectors, gated_vectors_scratch};
use kernels::library::matrix::Format;
use kernels::library::two_layer::{Activation, TwoLayer, mlp};
use kernels::library::{Schedule, lines, pitch};

use crate::case::{Buffer, Case, check, scratch};
use crate::data::{self, noise, panels, product, want_rows};
use crate::functions::sigmoid;
use crate::rows::rms_norm;

/// Two products in a row, of at most 80 numbers below 4.
const TOLERANCE: f64 = 1e-5;

const NORM: Norm = Norm::Rms { eps: 1e-6, gain: false };

/// Columns of gate and up, lines in turn.
fn in_turn(gate: &[f32], up: &[f32], hidden: usize) -> Vec<f32> {
    let rows = gate.chunks(hidden).zip(up.chunks(hidden));
    let lines = rows.flat_map(|(g, u)| g.chunks(LANES).zip(u.chunks(LANES)));
    lines.flat_map(|(g, u)| g.iter().chain(u).copied()).collect()
}

struct Mlp {
    x: Vec<f32>,
    w1: Vec<f32>,
    w2: Vec<f32>,
    between: Vec<f64>,
    y: Vec<f64>,
}

fn naive(n: usize, channels: usize, hidden: usize) -> Mlp {
    let x = noise(50, n * channels);
    let (gate, up) = (noise(51, channels * hidden), noise(52, channels * hidden));
    let w2: Vec<f32> = noise(53, hidden * channels).iter().map(|v| v / 4.0).collect();
    let normed = rms_norm(&x, channels, 1e-6, None);
    let gated = product(&normed, &gate, channels, hidden);
    let between: Vec<f64> =
        gated.iter().zip(product(&normed, &up, channels, hidden)).map(|(g, u)| g * sigmoid(*g) * u).collect();
    let mut y = product(&between, &w2, hidden, channels);
    y.iter_mut().zip(&x).for_each(|(y, x)| *y += f64::from(*x));
    Mlp { w1: in_turn(&gate, &up, hidden), x, w2, between, y }
}

fn check_mlp(n: usize, channels: usize, hidden: usize, strip: usize, block_lines: Option<usize>) -> Vec<Vec<u32>> {
    let m = naive(n, channels, hidden);
    let two = |s: &Schedule| {
        let t = TwoLayer::new((channels, hidden), Activation::SwiGlu, Format::F32, strip, s.strip_bytes);
        TwoLayer { block_lines: block_lines.unwrap_or(t.block_lines), ..t }
    };
    // Blocks depend on the schedule; the largest is all of the hidden channels.
    let floats = strip * pitch(channels)
        + TwoLayer { block_lines: lines(hidden), ..two(&crate::case::odd_schedules()[0]) }.scratch(strip);
    check(&Case {
        name: format!("MLP of {n} x {channels}, {hidden} hidden, strips of {strip}, blocks {block_lines:?}"),
        kernel: &|s| mlp(s, NORM, &two(s), strip),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&m.x, channels))),
            ("w1", Buffer::Read(panels(&m.w1, channels, 2 * hidden))),
            ("w2", Buffer::Read(panels(&m.w2, hidden, channels))),
            ("y", Buffer::Write(want_rows(&m.y, channels))),
            ("scratch", scratch(floats)),
        ],
        sizes: vec![("rows", n)],
        units: Some(n.div_ceil(UNIT)),
        tolerance: TOLERANCE,
    })
}

#[test]
fn mlps() {
    for (channels, hidden) in [(16, 16), (32, 48), (48, 80)] {
        for n in [1, 7, 9, 19] {
            check_mlp(n, channels, hidden, 8, None);
        }
    }
    let one = check_mlp(17, 16, 80, 1, Some(1));
    for (strip, block_lines) in [(3, 2), (8, 5), (32, 3), (5, 4)] {
        assert_eq!(check_mlp(17, 16, 80, strip, Some(block_lines)), one, "strips of {strip}, blocks of {block_lines}");
    }
    // Gate and up of 512 channels are a row of 4 KB, with a gap.
    check_mlp(2, 16, 544, 2, Some(32));
}

#[test]
fn scratch_of_the_blocks_a_schedule_takes() {
    for bytes in [1, 1 << 10, 1 << 13, 1 << 20] {
        for rows in [1, 5, 64] {
            for hidden in [16, 80, 544] {
                let t = TwoLayer::new((16, hidden), Activation::SwiGlu, Format::F32, rows, bytes);
                let block = t.block_lines * LANES;
                assert!(t.block_lines >= 1 && t.block_lines <= lines(hidden));
                assert_eq!(t.scratch(rows), rows * (pitch(2 * block) + pitch(block)));
                let fits = rows * 3 * block * 4 <= bytes || t.block_lines == 1;
                assert!(fits, "{rows} rows of {block} channels, {bytes} bytes");
            }
        }
    }
}

#[test]
fn gated_rows_of_a_few() {
    for (channels, hidden, n) in [(16, 16, 1), (48, 80, 1), (48, 80, 3), (32, 272, 1), (16, 512, 1), (16, 512, 4)] {
        let m = naive(n, channels, hidden);
        check(&Case {
            name: format!("gated vectors, {n} of {channels} to {hidden}"),
            kernel: &|s| gated_vectors(s, NORM, Format::F32, (channels, hidden), n),
            buffers: vec![
                ("x", Buffer::Read(data::rows(&m.x, channels))),
                ("w", Buffer::Read(panels(&m.w1, channels, 2 * hidden))),
                ("y", Buffer::Write(want_rows(&m.between, hidden))),
                ("scratch", scratch(gated_vectors_scratch(Format::F32, (channels, hidden), n))),
            ],
            sizes: vec![],
            units: Some(lines(hidden)),
            tolerance: TOLERANCE,
        });
    }
}
