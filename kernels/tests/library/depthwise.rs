//! Depthwise convolutions: kernels, strides, multipliers, and widths around the tile.

use kernels::library::conv::{Map, depthwise_map};
use kernels::library::depthwise::{Shape, row};
use kernels::library::{lines, pitch};
use kernels::{Elem, LANES};

use crate::case::{Buffer, Case, check};
use crate::data::{self, noise, want_rows};

/// Sums of at most 49 products of numbers below 1.
const TOLERANCE: f64 = 3e-6;

/// Weights `[channels * multiplier][kernel][kernel]`, plane by plane, and their bias.
pub struct Weights {
    pub w: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Weights {
    pub fn new(s: &Shape) -> Weights {
        let outputs = s.channels * s.multiplier;
        Weights { w: noise(21, outputs * s.kernel * s.kernel), bias: noise(22, outputs) }
    }

    /// `[line][kernel][kernel][16]`.
    pub fn packed(&self, s: &Shape) -> Vec<u32> {
        let taps = s.kernel * s.kernel;
        let mut out = vec![0; s.multiplier * lines(s.channels) * taps * LANES];
        for plane in 0..s.multiplier {
            for c in 0..s.channels {
                let line = plane * lines(s.channels) + c / LANES;
                for tap in 0..taps {
                    let w = self.w[(plane * s.channels + c) * taps + tap];
                    out[(line * taps + tap) * LANES + c % LANES] = w.to_bits();
                }
            }
        }
        out
    }

    /// Each plane in whole lines.
    pub fn packed_bias(&self, s: &Shape) -> Vec<u32> {
        self.bias.chunks(s.channels).flat_map(data::vector).collect()
    }
}

/// `x [height, width, channels]` to `[out, out, out_channels]`, with the zeros between planes.
pub fn naive(map: &Map, x: &[f64], d: &Weights) -> Vec<f64> {
    let s = &map.row;
    let (taps, padding) = (s.kernel * s.kernel, s.padding() as isize);
    let mut y = Vec::new();
    for oy in 0..map.height.div_ceil(s.stride) {
        for ox in 0..s.width.div_ceil(s.stride) {
            for plane in 0..s.multiplier {
                let from = y.len();
                for c in 0..s.channels {
                    let o = plane * s.channels + c;
                    let mut sum = f64::from(d.bias[o]);
                    for tap in 0..taps {
                        let iy = (oy * s.stride + tap / s.kernel) as isize - padding;
                        let ix = (ox * s.stride + tap % s.kernel) as isize - padding;
                        if (0..map.height as isize).contains(&iy) && (0..s.width as isize).contains(&ix) {
                            let at = (iy as usize * s.width + ix as usize) * s.channels + c;
                            sum += x[at] * f64::from(d.w[o * taps + tap]);
                        }
                    }
                    y.push(sum);
                }
                if s.multiplier > 1 {
                    y.resize(from + lines(s.channels) * LANES, 0.0);
                }
            }
        }
    }
    y
}

fn check_map(row: Shape, height: usize) {
    let map = Map { row, height };
    let x = noise(20, height * row.width * row.channels);
    let d = Weights::new(&row);
    let want = naive(&map, &data::wide(&x), &d);
    check(&Case {
        name: format!("{map:?}"),
        kernel: &|s| depthwise_map(s, &map),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&x, row.channels))),
            ("w", Buffer::Read(d.packed(&row))),
            ("bias", Buffer::Read(d.packed_bias(&row))),
            ("y", Buffer::Write(want_rows(&want, row.out_channels()))),
        ],
        sizes: vec![],
        units: Some(map.out_height()),
        tolerance: TOLERANCE,
    });
}

#[test]
fn widths_around_kernel_and_tile() {
    // Tiles of 1, 3, 4, 5 and 8 outputs; widths below the kernel have no whole window.
    for kernel in [3, 5, 7] {
        for stride in [1, 2] {
            for width in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 22, 25] {
                check_map(
                    Shape { channels: 16, multiplier: 1, kernel, stride, width, from: Elem::F32, to: Elem::F32 },
                    3,
                );
            }
        }
    }
}

#[test]
fn heights_around_the_kernel() {
    for kernel in [3, 7] {
        for stride in [1, 2] {
            for height in [1, 2, 4, 5, 8] {
                check_map(
                    Shape { channels: 3, multiplier: 1, kernel, stride, width: 9, from: Elem::F32, to: Elem::F32 },
                    height,
                );
            }
        }
    }
}

#[test]
fn channels_and_planes() {
    for channels in [1, 15, 17, 33, 48] {
        for multiplier in [1, 2] {
            for stride in [1, 2] {
                check_map(
                    Shape { channels, multiplier, kernel: 7, stride, width: 10, from: Elem::F32, to: Elem::F32 },
                    4,
                );
                check_map(
                    Shape { channels, multiplier, kernel: 3, stride, width: 5, from: Elem::F32, to: Elem::F32 },
                    2,
                );
            }
        }
    }
    // Output pixels with a gap: two planes of 512.
    check_map(
        Shape { channels: 512, multiplier: 2, kernel: 3, stride: 2, width: 3, from: Elem::F32, to: Elem::F32 },
        2,
    );
}

#[test]
fn one_row_under_every_part_of_the_kernel() {
    let (kernel, width) = (5, 12);
    let shape = Shape { channels: 17, multiplier: 1, kernel, stride: 1, width, from: Elem::F32, to: Elem::F32 };
    let d = Weights::new(&shape);
    for (top, bottom) in [(0, 5), (2, 5), (0, 3), (2, 3), (0, 1), (4, 5)] {
        // The rows that kernel rows `top..bottom` meet: the others are zero.
        let met = noise(23, (bottom - top) * width * 17);
        let mut x = vec![0.0; kernel * width * 17];
        x[top * width * 17..bottom * width * 17].copy_from_slice(&data::wide(&met));
        let all = naive(&Map { row: shape, height: kernel }, &x, &d);
        check(&Case {
            name: format!("one row, kernel rows {top}..{bottom}"),
            kernel: &|s| row(s, &shape),
            buffers: vec![
                ("x", Buffer::Read(data::rows(&met, 17))),
                ("w", Buffer::Read(d.packed(&shape))),
                ("bias", Buffer::Read(d.packed_bias(&shape))),
                ("y", Buffer::Write(want_rows(&all[2 * width * 17..3 * width * 17], 17))),
            ],
            sizes: vec![("top", top), ("bottom", bottom)],
            units: None,
            tolerance: TOLERANCE,
        });
    }
    assert_eq!(pitch(17), 32);
}
