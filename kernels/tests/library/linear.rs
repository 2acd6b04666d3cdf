//! Matrix products on rows and on one row, with norms, biases, residuals and GELU.

use kernels::library::gemm::{self, Init, Tile};
use kernels::library::linear::{Linear, Norm, Rows, UNIT, linear, vector};
use kernels::library::matrix::Format;
use kernels::library::{lines, pitch};
use kernels::{Elem, LANES};

use crate::case::{Buffer, Case, check, scratch};
use crate::data::{self, CHANNELS, add_bias, noise, panels, product, want_rows, wide};
use crate::functions::gelu;
use crate::rows::{layer_norm, rms_norm};

/// Sums of at most 1024 products of numbers below 1 (below 4 after a norm), against f64.
const TOLERANCE: f64 = 2e-5;

const BARE: Linear = Linear {
    norm: None,
    inputs: 16,
    outputs: 16,
    format: Format::F32,
    init: Init::Zero,
    gelu: false,
    rows: Rows::Fixed(1),
    strip: 8,
    from: Elem::F32,
    to: Elem::F32,
};

struct Data {
    x: Vec<f32>,
    gain: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

fn data(l: &Linear, n: usize) -> Data {
    Data {
        x: noise(1, n * l.inputs),
        gain: noise(2, l.inputs),
        w: noise(3, l.inputs * l.outputs),
        bias: noise(4, l.outputs),
        residual: noise(5, n * l.outputs),
    }
}

fn naive(l: &Linear, d: &Data) -> Vec<f64> {
    let x = match l.norm {
        None => wide(&d.x),
        Some(Norm::Layer { eps }) => layer_norm(&d.x, l.inputs, eps),
        Some(Norm::Rms { eps, gain }) => rms_norm(&d.x, l.inputs, eps, gain.then_some(&d.gain[..])),
    };
    let mut y = product(&x, &d.w, l.inputs, l.outputs);
    if l.init.has_bias() {
        add_bias(&mut y, &d.bias);
    }
    if l.init.has_residual() {
        y.iter_mut().zip(&d.residual).for_each(|(y, r)| *y += f64::from(*r));
    }
    if l.gelu {
        y.iter_mut().for_each(|y| *y = gelu(*y));
    }
    y
}

fn buffers(l: &Linear, d: &Data, y: &[f64], floats: usize) -> Vec<(&'static str, Buffer)> {
    vec![
        ("x", Buffer::Read(data::rows(&d.x, l.inputs))),
        ("gain", Buffer::Read(data::vector(&d.gain))),
        ("w", Buffer::Read(panels(&d.w, l.inputs, l.outputs))),
        ("bias", Buffer::Read(data::vector(&d.bias))),
        ("residual", Buffer::Read(data::rows(&d.residual, l.outputs))),
        ("y", Buffer::Write(want_rows(y, l.outputs))),
        ("scratch", scratch(floats)),
    ]
}

fn check_rows(l: Linear) -> Vec<Vec<u32>> {
    let n = l.rows.most();
    let d = data(&l, n);
    check(&Case {
        name: format!("{l:?}"),
        kernel: &|s| linear(s, &l),
        buffers: buffers(&l, &d, &naive(&l, &d), l.strip * pitch(l.inputs)),
        sizes: vec![("rows", n)],
        units: Some(n.div_ceil(UNIT)),
        tolerance: TOLERANCE,
    })
}

fn check_vector(l: Linear, row: Option<usize>) {
    let n = row.map_or(1, |r| r + 2);
    let d = data(&l, n);
    let all = naive(&l, &d);
    let row_or_first = row.unwrap_or(0);
    let y = &all[row_or_first * l.outputs..][..l.outputs];
    check(&Case {
        name: format!("{l:?} as a vector, row {row:?}"),
        kernel: &|s| vector(s, &l, row.is_some()),
        buffers: buffers(&l, &d, y, pitch(l.inputs)),
        sizes: vec![("row", row_or_first)],
        units: Some(lines(l.outputs)),
        tolerance: TOLERANCE,
    });
}

#[test]
fn linear_on_all_channels() {
    for (i, &inputs) in CHANNELS.iter().enumerate() {
        for &outputs in &CHANNELS {
            let init = [Init::Zero, Init::Bias, Init::BiasResidual, Init::Residual][i % 4];
            let gelu = i % 3 == 0;
            check_rows(Linear { inputs, outputs, init, gelu, rows: Rows::Fixed(9), ..BARE });
            check_vector(Linear { inputs, outputs, init, ..BARE }, None);
        }
    }
}

#[test]
fn linear_on_rows_around_the_tiles() {
    // Tiles of 3, 4, 5, 6 and 8 rows; units of 8.
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 19] {
        for rows in [Rows::Fixed(n), Rows::UpTo(n)] {
            check_rows(Linear { inputs: 33, outputs: 80, init: Init::BiasResidual, rows, ..BARE });
        }
    }
}

#[test]
fn linear_with_norms() {
    let eps = 1e-5;
    for norm in [Norm::Layer { eps }, Norm::Rms { eps, gain: false }, Norm::Rms { eps, gain: true }] {
        for inputs in [16, 32, 48] {
            let l = Linear { norm: Some(norm), inputs, outputs: 33, init: Init::Bias, ..BARE };
            check_rows(Linear { rows: Rows::UpTo(19), strip: 5, ..l });
            check_vector(l, None);
            check_vector(l, Some(2));
        }
    }
}

#[test]
fn strips_do_not_change_bits() {
    let l = Linear {
        norm: Some(Norm::Layer { eps: 1e-6 }),
        inputs: 48,
        outputs: 33,
        gelu: true,
        rows: Rows::Fixed(27),
        ..BARE
    };
    let one = check_rows(Linear { strip: 1, ..l });
    for strip in [2, 7, 8, 27, 64] {
        assert_eq!(check_rows(Linear { strip, ..l }), one, "strips of {strip}");
    }
}

#[test]
fn rows_of_4_kb_have_a_gap() {
    assert_eq!(pitch(1024), 1040);
    check_rows(Linear { inputs: 16, outputs: 1024, init: Init::Residual, gelu: true, rows: Rows::Fixed(3), ..BARE });
    let norm = Some(Norm::Layer { eps: 1e-5 });
    check_rows(Linear { norm, inputs: 1024, outputs: 17, rows: Rows::UpTo(3), strip: 2, ..BARE });
    check_vector(Linear { norm, inputs: 1024, outputs: 17, ..BARE }, Some(1));
}

#[test]
fn every_tile() {
    let depth = 5;
    for init in [Init::Zero, Init::Bias, Init::BiasResidual, Init::Residual, Init::Accumulate] {
        for (n, width) in [(1, 1), (1, 4), (2, 3), (6, 1), (8, 3)] {
            let outputs = width * LANES;
            let l = Linear { inputs: depth, outputs, init, ..BARE };
            let d = data(&l, n);
            let mut want = naive(&l, &d);
            let y = if init == Init::Accumulate {
                want.iter_mut().zip(&d.residual).for_each(|(y, r)| *y += f64::from(*r));
                Buffer::Update(data::rows(&d.residual, outputs), want_rows(&want, outputs))
            } else {
                Buffer::Write(want_rows(&want, outputs))
            };
            for lda in [None, Some(pitch(depth))] {
                check(&Case {
                    name: format!("tile {n}x{width} {init:?} {lda:?}"),
                    kernel: &|_| gemm::tile(&Tile { rows: n, lines: width, init, halves: false, lda }),
                    buffers: vec![
                        ("a", Buffer::Read(data::rows(&d.x, depth))),
                        ("b", Buffer::Read(panels(&d.w, depth, outputs))),
                        ("bias", Buffer::Read(data::vector(&d.bias))),
                        ("residual", Buffer::Read(data::rows(&d.residual, outputs))),
                        ("c", y.clone()),
                    ],
                    sizes: vec![
                        ("depth", depth),
                        ("line", depth * LANES),
                        ("lda", pitch(depth)),
                        ("ldc", outputs),
                        ("ldr", outputs),
                    ],
                    units: None,
                    tolerance: TOLERANCE,
                });
            }
        }
    }
}
