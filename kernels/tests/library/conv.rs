//! The regions of the vision tower: stem, patch embedding, ConvFFN, squeeze and excite.

use kernels::Elem;
use kernels::library::conv::{Map, Stem, conv_ffn, conv_ffn_scratch, patch_embed, stem};
use kernels::library::depthwise::Shape;
use kernels::library::matrix::Format;
use kernels::library::squeeze_excite::{self, Shapes};
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::library::{lines, pitch};

use crate::case::{Buffer, Case, check, scratch};
use crate::data::{self, add_bias, noise, panels, product, want_rows, wide};
use crate::depthwise::{Weights, naive};
use crate::functions::{gelu, sigmoid};

/// Two or three products in a row, each of at most 128 numbers below 4; more take more.
const TOLERANCE: f64 = 1e-5;

/// GELU of each.
pub fn gelus(mut x: Vec<f64>) -> Vec<f64> {
    x.iter_mut().for_each(|x| *x = gelu(*x));
    x
}

/// `x w + bias`.
pub fn layer(x: &[f64], w: &[f32], bias: &[f32], depth: usize) -> Vec<f64> {
    let mut y = product(x, w, depth, bias.len());
    add_bias(&mut y, bias);
    y
}

/// 3x3 convolution of `[side, side, 3]` with stride 2; `w` is `[27, channels]`, rows, columns, colors.
pub fn first_conv(image: &[f32], side: usize, w: &[f32], bias: &[f32]) -> Vec<f64> {
    let (middle, mut patches) = (side.div_ceil(2), Vec::new());
    for y in 0..middle {
        for x in 0..middle {
            for tap in 0..27 {
                let (iy, ix) = (2 * y + tap / 9, 2 * x + tap / 3 % 3);
                let inside = (1..=side).contains(&iy) && (1..=side).contains(&ix);
                patches.push(if inside { f64::from(image[((iy - 1) * side + ix - 1) * 3 + tap % 3]) } else { 0.0 });
            }
        }
    }
    layer(&patches, w, bias, 27)
}

/// The picture with a border of zeros.
pub fn bordered(image: &[f32], side: usize) -> Vec<u32> {
    let mut out = vec![0; (side + 2) * (side + 2) * 3];
    for (y, row) in image.chunks(side * 3).enumerate() {
        for (i, v) in row.iter().enumerate() {
            out[((y + 1) * (side + 2) + 1) * 3 + i] = v.to_bits();
        }
    }
    out
}

fn check_stem(t: Stem) -> Vec<Vec<u32>> {
    let Stem { side, channels, strip, .. } = t;
    let (middle, out) = (side.div_ceil(2), t.out());
    let image = noise(30, side * side * 3);
    let (w0, b0) = (noise(31, 27 * channels), noise(32, channels));
    let (w2, b2) = (noise(33, channels * channels), noise(34, channels));
    let map = Map {
        row: Shape { channels, multiplier: 1, kernel: 3, stride: 2, width: middle, from: Elem::F32, to: Elem::F32 },
        height: middle,
    };
    let d = Weights::new(&map.row);
    let y = gelus(first_conv(&image, side, &w0, &b0));
    let y = gelus(naive(&map, &y, &d));
    let y = gelus(layer(&y, &w2, &b2, channels));
    check(&Case {
        name: format!("{t:?}"),
        kernel: &|s| stem(s, &t),
        buffers: vec![
            ("image", Buffer::Read(bordered(&image, side))),
            ("w0", Buffer::Read(panels(&w0, 27, channels))),
            ("b0", Buffer::Read(data::vector(&b0))),
            ("w1", Buffer::Read(d.packed(&map.row))),
            ("b1", Buffer::Read(d.packed_bias(&map.row))),
            ("w2", Buffer::Read(panels(&w2, channels, channels))),
            ("b2", Buffer::Read(data::vector(&b2))),
            ("y", Buffer::Write(want_rows(&y, channels))),
            ("scratch", scratch(t.scratch())),
        ],
        sizes: vec![],
        units: Some(out / strip),
        tolerance: TOLERANCE,
    })
}

#[test]
fn stems() {
    for (side, channels) in [(4, 1), (8, 17), (7, 16), (18, 16), (21, 3)] {
        check_stem(Stem { side, channels, strip: 1, format: Format::F32, to: Elem::F32 });
    }
    let one = check_stem(Stem { side: 23, channels: 15, strip: 1, format: Format::F32, to: Elem::F32 });
    for strip in [2, 3, 6] {
        assert_eq!(
            check_stem(Stem { side: 23, channels: 15, strip, format: Format::F32, to: Elem::F32 }),
            one,
            "strips of {strip}"
        );
    }
}

fn check_patch_embed(row: Shape, height: usize, channels: usize, strip: usize) -> Vec<Vec<u32>> {
    let map = Map { row, height };
    let middle = row.out_channels();
    let x = noise(35, height * row.width * row.channels);
    let d = Weights::new(&row);
    let (w1, b1) = (noise(36, middle * channels), noise(37, channels));
    let y = gelus(naive(&map, &wide(&x), &d));
    let y = gelus(layer(&y, &w1, &b1, middle));
    check(&Case {
        name: format!("patch embedding of {map:?} to {channels}, strips of {strip}"),
        kernel: &|s| patch_embed(s, &map, Format::F32, channels, strip),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&x, row.channels))),
            ("w0", Buffer::Read(d.packed(&row))),
            ("b0", Buffer::Read(d.packed_bias(&row))),
            ("w1", Buffer::Read(panels(&w1, middle, channels))),
            ("b1", Buffer::Read(data::vector(&b1))),
            ("y", Buffer::Write(want_rows(&y, channels))),
            ("scratch", scratch(strip * row.out_width() * pitch(middle))),
        ],
        sizes: vec![],
        units: Some(map.out_height() / strip),
        tolerance: TOLERANCE,
    })
}

#[test]
fn patch_embeddings() {
    for (channels, multiplier, out) in [(16, 2, 32), (15, 2, 33), (33, 1, 17), (1, 1, 1), (48, 2, 96)] {
        for stride in [1, 2] {
            check_patch_embed(
                Shape { channels, multiplier, kernel: 7, stride, width: 9, from: Elem::F32, to: Elem::F32 },
                4,
                out,
                2,
            );
        }
    }
    let row = Shape { channels: 17, multiplier: 2, kernel: 7, stride: 2, width: 7, from: Elem::F32, to: Elem::F32 };
    let one = check_patch_embed(row, 12, 31, 1);
    for strip in [2, 3, 6] {
        assert_eq!(check_patch_embed(row, 12, 31, strip), one, "strips of {strip}");
    }
}

fn check_conv_ffn(row: Shape, height: usize, hidden: usize, strip: usize, block_lines: usize) -> Vec<Vec<u32>> {
    let (map, channels) = (Map { row, height }, row.channels);
    let t = TwoLayer { channels, hidden, activation: Activation::Gelu, format: Format::F32, block_lines };
    let x = noise(40, height * row.width * channels);
    let d = Weights::new(&row);
    let (w1, b1) = (noise(41, channels * hidden), noise(42, hidden));
    let (mut w2, b2) = (noise(43, hidden * channels), noise(44, channels));
    let up = gelus(layer(&naive(&map, &wide(&x), &d), &w1, &b1, channels));
    let mut y = layer(&up, &w2, &b2, hidden);
    y.iter_mut().zip(&x).for_each(|(y, x)| *y += f64::from(*x));
    // The depth of the second product is whole lines.
    w2.resize(lines(hidden) * 16 * channels, 0.0);
    check(&Case {
        name: format!("{map:?} -> {hidden}, strips of {strip}, blocks of {block_lines} lines"),
        kernel: &|s| conv_ffn(s, &map, &t, strip),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&x, channels))),
            ("w0", Buffer::Read(d.packed(&row))),
            ("b0", Buffer::Read(d.packed_bias(&row))),
            ("w1", Buffer::Read(panels(&w1, channels, hidden))),
            ("b1", Buffer::Read(data::vector(&b1))),
            ("w2", Buffer::Read(panels(&w2, lines(hidden) * 16, channels))),
            ("b2", Buffer::Read(data::vector(&b2))),
            ("y", Buffer::Write(want_rows(&y, channels))),
            ("scratch", scratch(conv_ffn_scratch(&map, &t, strip))),
        ],
        sizes: vec![],
        units: Some(height / strip),
        tolerance: TOLERANCE * hidden.div_ceil(128) as f64,
    })
}

#[test]
fn conv_ffns() {
    for (channels, hidden) in [(16, 64), (1, 4), (15, 60), (17, 68), (33, 48), (48, 33)] {
        let row = Shape { channels, multiplier: 1, kernel: 7, stride: 1, width: 5, from: Elem::F32, to: Elem::F32 };
        check_conv_ffn(row, 4, hidden, 2, lines(hidden).min(2));
    }
    let row = Shape { channels: 17, multiplier: 1, kernel: 3, stride: 1, width: 3, from: Elem::F32, to: Elem::F32 };
    let one = check_conv_ffn(row, 6, 80, 1, 1);
    for (strip, block_lines) in [(1, 2), (2, 5), (3, 3), (6, 4)] {
        let found = check_conv_ffn(row, 6, 80, strip, block_lines);
        assert_eq!(found, one, "strips of {strip}, blocks of {block_lines} lines");
    }
    // A block of 1024 hidden channels has a gap between its rows.
    let row = Shape { width: 2, ..row };
    let whole = check_conv_ffn(row, 2, 1040, 1, 65);
    assert_eq!(check_conv_ffn(row, 2, 1040, 1, 64), whole);
}

fn check_squeeze_excite(t: Shapes) {
    let Shapes { pixels, channels, reduced } = t;
    let x = noise(45, pixels * channels);
    let (w1, b1) = (noise(46, channels * reduced), noise(47, reduced));
    let (w2, b2) = (noise(48, reduced * channels), noise(49, channels));
    let mean = |c: usize| x.iter().skip(c).step_by(channels).map(|v| f64::from(*v)).sum::<f64>() / pixels as f64;
    let mean: Vec<f64> = (0..channels).map(mean).collect();
    let less: Vec<f64> = layer(&mean, &w1, &b1, channels).into_iter().map(|v| v.max(0.0)).collect();
    let gate: Vec<f64> = layer(&less, &w2, &b2, reduced).into_iter().map(sigmoid).collect();
    // The sigmoid of a channel that fills up the line is 1/2: it meets zeros only.
    let mut want = want_rows(&gate, channels);
    want[channels..lines(channels) * 16].fill(crate::case::Want::Near(0.5));
    let made = check(&Case {
        name: format!("gate of {t:?}"),
        kernel: &|s| squeeze_excite::gate(s, &t),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&x, channels))),
            ("w1", Buffer::Read(panels(&w1, channels, reduced))),
            ("b1", Buffer::Read(data::vector(&b1))),
            ("w2", Buffer::Read(panels(&w2, reduced, channels))),
            ("b2", Buffer::Read(data::vector(&b2))),
            ("gate", Buffer::Write(want)),
            ("scratch", scratch(pitch(channels) + lines(reduced) * 16)),
        ],
        sizes: vec![],
        units: Some(1),
        tolerance: TOLERANCE,
    });
    let y: Vec<f64> = x.iter().zip(gate.iter().cycle()).map(|(x, g)| gelu(f64::from(*x) * g)).collect();
    for unit in [1, 8] {
        check(&Case {
            name: format!("{t:?} scaled, units of {unit}"),
            kernel: &|_| squeeze_excite::scale_gelu(&t, unit),
            buffers: vec![
                ("x", Buffer::Read(data::rows(&x, channels))),
                ("gate", Buffer::Read(made[0].clone())),
                ("y", Buffer::Write(want_rows(&y, channels))),
            ],
            sizes: vec![],
            units: Some(pixels.div_ceil(unit)),
            tolerance: TOLERANCE,
        });
    }
}

#[test]
fn squeeze_and_excite() {
    for (pixels, channels, reduced) in [(1, 16, 1), (4, 48, 3), (9, 17, 16), (7, 1, 1), (15, 33, 17), (2, 1024, 64)] {
        check_squeeze_excite(Shapes { pixels, channels, reduced });
    }
}
