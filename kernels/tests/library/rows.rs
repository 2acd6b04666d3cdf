//! Kernels that work row by row: norms, GELU, SwiGLU, copies, softmax.

use kernels::library::{elementwise, lines, norm};
use kernels::{Elem, LANES};

use crate::case::{Buffer, Case, Want, check};
use crate::data::{self, CHANNELS, HOLE, noise, want_rows, wide};
use crate::functions::{gelu, sigmoid};

/// `(x - mean) / sqrt(variance + eps)` in f64.
pub fn layer_norm(x: &[f32], channels: usize, eps: f32) -> Vec<f64> {
    let centered = |row: &[f32]| {
        let mean = wide(row).iter().sum::<f64>() / row.len() as f64;
        row.iter().map(move |v| f64::from(*v) - mean).collect::<Vec<f64>>()
    };
    x.chunks(channels).map(centered).flat_map(|row| scaled(row, eps)).collect()
}

/// `x / sqrt(mean(x^2) + eps) [* gain]` in f64.
pub fn rms_norm(x: &[f32], channels: usize, eps: f32, gain: Option<&[f32]>) -> Vec<f64> {
    let mut y: Vec<f64> = x.chunks(channels).flat_map(|row| scaled(wide(row), eps)).collect();
    if let Some(gain) = gain {
        y.iter_mut().zip(gain.iter().cycle()).for_each(|(y, g)| *y *= f64::from(*g));
    }
    y
}

fn scaled(row: Vec<f64>, eps: f32) -> Vec<f64> {
    let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
    row.iter().map(|v| v / (mean + f64::from(eps)).sqrt()).collect()
}

/// Largest error of a norm on rows whose mean is `shift` times their spread: see below.
fn check_norms(channels: usize, n: usize, shift: f32, tolerance: f64) {
    let eps = 1e-5;
    let x: Vec<f32> = noise(7, n * channels).iter().map(|v| v + shift).collect();
    let gain = noise(8, channels);
    let case = |name: &str, want: &[f64]| Case {
        name: format!("{name} of {n} x {channels}, shifted by {shift}"),
        kernel: &|_| norm::layer_norm(1, 0.0, Elem::F32),
        buffers: vec![
            ("x", Buffer::Read(data::rows(&x, channels))),
            ("gain", Buffer::Read(data::vector(&gain))),
            ("y", Buffer::Write(want_rows(want, channels))),
        ],
        sizes: vec![("rows", n)],
        units: None,
        tolerance,
    };
    let layer = layer_norm(&x, channels, eps);
    check(&Case { kernel: &|_| norm::layer_norm(channels, eps, Elem::F32), ..case("layer norm", &layer) });
    let rms = rms_norm(&x, channels, eps, None);
    check(&Case { kernel: &|_| norm::rms_norm(channels, eps, false), ..case("rms norm", &rms) });
    let rms = rms_norm(&x, channels, eps, Some(&gain));
    check(&Case { kernel: &|_| norm::rms_norm(channels, eps, true), ..case("rms norm with gain", &rms) });
}

#[test]
fn norms() {
    for channels in [16, 32, 48, 80] {
        for n in [1, 2, 5] {
            check_norms(channels, n, 0.0, 2e-6);
        }
    }
    check_norms(1024, 2, 0.0, 2e-6);
    // The mean is rounded to f32: 100 times the spread costs 100 roundings.
    check_norms(48, 2, 100.0, 1e-4);
}

#[test]
fn gelus_and_copies() {
    for channels in CHANNELS.into_iter().chain([1024]) {
        for n in [1, 3] {
            let x: Vec<f32> = noise(9, n * channels).iter().map(|v| v * 6.0).collect();
            let want: Vec<f64> = x.iter().map(|v| gelu(f64::from(*v))).collect();
            let start = data::rows(&x, channels);
            check(&Case {
                name: format!("gelu of {n} x {channels}"),
                kernel: &|_| elementwise::gelu(channels),
                buffers: vec![("x", Buffer::Update(start.clone(), want_rows(&want, channels)))],
                sizes: vec![("rows", n)],
                units: None,
                // 3e-7 |x|, and |x| is at most 6.
                tolerance: 1.8e-6,
            });
            check(&Case {
                name: format!("copy of {n} x {channels}"),
                kernel: &|_| elementwise::copy(channels),
                buffers: vec![
                    (
                        "y",
                        Buffer::Write(
                            start.iter().map(|b| if *b == HOLE { Want::Same } else { Want::Bits(*b) }).collect(),
                        ),
                    ),
                    ("x", Buffer::Read(start)),
                ],
                sizes: vec![("rows", n)],
                units: None,
                tolerance: 0.0,
            });
        }
    }
}

#[test]
fn swiglus() {
    for channels in [16, 48, 512, 1024] {
        for n in [1, 3] {
            let (gate, up) = (noise(10, n * channels), noise(11, n * channels));
            let gate: Vec<f32> = gate.iter().map(|v| v * 10.0).collect();
            let silu = |(g, u): (&f32, &f32)| f64::from(*g) * sigmoid(f64::from(*g)) * f64::from(*u);
            let want: Vec<f64> = gate.iter().zip(&up).map(silu).collect();
            let pairs = gate.chunks(LANES).zip(up.chunks(LANES));
            let x: Vec<f32> = pairs.flat_map(|(g, u)| g.iter().chain(u).copied()).collect();
            check(&Case {
                name: format!("swiglu of {n} x {channels}"),
                kernel: &|_| elementwise::swiglu(channels),
                buffers: vec![
                    ("x", Buffer::Read(data::rows(&x, 2 * channels))),
                    ("y", Buffer::Write(want_rows(&want, channels))),
                ],
                sizes: vec![("rows", n)],
                units: Some(lines(channels)),
                tolerance: 1e-6,
            });
        }
    }
}
