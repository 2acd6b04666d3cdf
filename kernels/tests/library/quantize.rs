//! Rows to signed bytes: scales, roundings and sums, of whole blocks, short ones and groups.

use std::rc::Rc;

use kernels::library::linear::{Norm, Rows, UNIT};
use kernels::library::matrix::Format;
use kernels::library::quantize::{QuantRows, Source, Span, quantize};
use kernels::library::{columns, elementwise, lines, norm, pitch};
use kernels::math::QuickGelu;
use kernels::{Arg, Builder, Int, Kernel, LANES};

use crate::case::{Buffer, Case, Want, check_exact, scratch, unfused};
use crate::data::{self, HOLE, noise};
use crate::packed::{Row, cut, quantized};

const FORMATS: [Format; 4] =
    [Format::Bytes { block: 16 }, Format::Bytes { block: 128 }, Format::Bytes { block: 384 }, Format::Nibbles];

const CHANNELS: [usize; 10] = [1, 16, 48, 100, 112, 128, 144, 256, 384, 400];

fn values(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| f32::from_bits(*w)).collect()
}

/// Lines of the rows that `source` reads, `ldx` apart, and what it makes of them.
struct Given {
    start: Vec<u32>,
    /// After the kernel: the source's values over what they were made of.
    after: Vec<Want>,
    /// `[rows, lines * 16]`
    made: Vec<Vec<f32>>,
    ldx: usize,
}

/// `x` is `[n, channels]`, for SwiGLU `[n, 2 * channels]` of whole lines, gate and up in turn.
fn given(source: Source, x: &[f32], channels: usize) -> Given {
    let whole = lines(channels) * LANES;
    match source {
        Source::Plain => {
            let start = data::rows(x, channels);
            let made = start.chunks(pitch(channels)).map(|row| values(&row[..whole])).collect();
            Given { after: vec![Want::Same; start.len()], start, made, ldx: pitch(channels) }
        }
        Source::Gelu => {
            let start = data::rows(x, channels);
            let n = start.len() / pitch(channels);
            let done = unfused(&quick_gelu(channels), std::slice::from_ref(&start), &[n]).remove(0);
            let want = |bits: &u32| if *bits == HOLE { Want::Same } else { Want::Bits(*bits) };
            let made = done.chunks(pitch(channels)).map(|row| values(&row[..whole])).collect();
            Given { after: done.iter().map(want).collect(), start, made, ldx: pitch(channels) }
        }
        Source::SwiGlu => {
            let start = data::rows(x, 2 * whole);
            let ldx = pitch(2 * whole);
            let n = start.len() / ldx;
            let buffers = [start.clone(), vec![HOLE; n * pitch(whole)]];
            let done = unfused(&elementwise::swiglu(whole), &buffers, &[n, 0, lines(whole)]).remove(1);
            let made: Vec<Vec<f32>> = done.chunks(pitch(whole)).map(|row| values(&row[..whole])).collect();
            let mut after = vec![Want::Same; start.len()];
            for (i, row) in made.iter().enumerate() {
                for (c, v) in row.iter().enumerate() {
                    after[i * ldx + c / LANES * 2 * LANES + c % LANES] = Want::Bits(v.to_bits());
                }
            }
            Given { start, after, made, ldx }
        }
    }
}

/// The GELU of rows that are quantized afterwards, in place.
fn quick_gelu(channels: usize) -> Rc<Kernel> {
    let mut k = Builder::new("quick_gelu", &[]);
    let (x, rows) = (k.write("x"), k.size("rows"));
    let f = QuickGelu::new(&mut k);
    k.each("i", 0usize, rows, |k, i| {
        for line in 0..lines(channels) {
            let at = i.clone() * pitch(channels) + line * LANES;
            let v = k.load("v", x, at.clone());
            let y = f.apply(k, v);
            k.store(x, at, y);
        }
    });
    k.finish()
}

fn check(name: &str, source: Source, format: Format, x: &[f32], channels: usize) {
    let g = given(source, x, channels);
    let layout = cut(format, channels);
    let rows: Vec<Row> = g.made.iter().map(|row| quantized(row, layout)).collect();
    let q = format.rows(channels).expect("a quantized format");
    assert_eq!(
        (q.physical(), q.block, q.groups, q.pitch()),
        (layout.physical, layout.block, layout.groups, layout.pitch())
    );
    check_calls(&format!("{name}, {source:?} of {channels} as {format:?}"), source, &q, &g, &rows);
}

/// One call for all blocks, and one for each: what the region kernels do.
fn check_calls(name: &str, source: Source, q: &QuantRows, g: &Given, rows: &[Row]) {
    let want: Vec<Want> = rows.iter().flat_map(Row::want).collect();
    let x = if source == Source::Plain {
        Buffer::Read(g.start.clone())
    } else {
        Buffer::Update(g.start.clone(), g.after.clone())
    };
    for pieces in [false, true] {
        check_exact(&Case {
            name: format!("{name}, {}", if pieces { "block by block" } else { "at once" }),
            kernel: &|_| on_one_memory(source, g.ldx, q, pieces),
            buffers: vec![("x", x.clone()), ("to", Buffer::Write(want.clone()))],
            sizes: vec![("rows", rows.len())],
            units: None,
            tolerance: 0.0,
        });
    }
}

/// A caller of `quantize`: `q`, `scales` and `sums` are views of `to`.
fn on_one_memory(source: Source, ldx: usize, q: &QuantRows, pieces: bool) -> Rc<Kernel> {
    let mut k = Builder::new("on_one_memory", &[]);
    let x = if source == Source::Plain { k.read("x") } else { k.write("x") };
    let to = k.write("to");
    let rows = k.size("rows");
    let at = |n: usize| (to, Int::from(n));
    let Span { whole, short } = Span::all(q);
    let one = |first: usize, whole: usize, short: bool| (first, Span { whole, short });
    let calls = if pieces {
        (0..whole).map(|b| one(b, 1, false)).chain(short.then(|| one(whole, 0, true))).collect()
    } else {
        vec![one(0, whole, short)]
    };
    for (first, span) in calls {
        let from = Int::from(first * q.block * source.width());
        let views = [(x, from), at(0), at(q.scales_at()), at(q.sums_at())];
        let args = views.into_iter().map(Arg::from).chain([rows.clone().into(), Int::from(first).into()]);
        k.call(&quantize(source, ldx, q, span), args.collect());
    }
    k.finish()
}

#[test]
fn noise_of_every_shape() {
    for format in FORMATS {
        for channels in CHANNELS {
            for source in [Source::Plain, Source::Gelu] {
                check("noise", source, format, &noise(60, 3 * channels), channels);
            }
            let x: Vec<f32> = noise(61, 3 * 2 * lines(channels) * LANES).iter().map(|v| 6.0 * v).collect();
            check("noise", Source::SwiGlu, format, &x, channels);
        }
    }
}

/// Rows of zeros, of one huge value, of negative values, of ties, of values too small to divide by.
#[test]
fn odd_rows() {
    let channels = 144;
    let mut rows: Vec<Vec<f32>> = vec![vec![0.0; channels], vec![-0.0; channels], vec![-2.5; channels]];
    for huge in [f32::MAX, -3e38, 1e30, -1.0] {
        rows.push((0..channels).map(|c| if c == 77 { huge } else { 1e-3 * c as f32 }).collect());
    }
    // Halves of a level: to the even one.
    rows.push((0..channels).map(|c| if c % 16 == 0 { 127.0 } else { c as f32 - 60.5 }).collect());
    for small in [1e-45, 1e-40, -1.2e-38, 9.9e-37, 1.01e-36, 4e-36, -1e-30] {
        rows.push((0..channels).map(|c| small * [1.0, 0.25, -0.5][c % 3]).collect());
    }
    for format in FORMATS {
        for (i, row) in rows.iter().enumerate() {
            check(&format!("odd row {i}"), Source::Plain, format, row, channels);
        }
        check("odd rows", Source::Plain, format, &rows.concat(), channels);
    }
}

/// A value and its byte times the scale are half a level apart at most.
#[test]
fn bytes_are_near_the_values() {
    for format in FORMATS {
        let x = noise(62, 400);
        let row = quantized(&x, cut(format, 400));
        for (c, v) in x.iter().enumerate() {
            let scale = row.scales[c / row.cut.block];
            let error = (f32::from(row.bytes[c]) * scale - v).abs();
            assert!(error <= 0.5001 * scale, "{format:?}: {v} is {} x {scale}", row.bytes[c]);
        }
    }
}

/// Rows of a phase, normalized or not, by units.
#[test]
fn rows_by_units() {
    for norm in [None, Some(Norm::Rms { eps: 1e-6, gain: false }), Some(Norm::Rms { eps: 1e-6, gain: true })] {
        for (format, channels) in [(FORMATS[1], 144), (FORMATS[3], 112), (FORMATS[0], 48)] {
            for n in [1, 8, 13] {
                let (x, gain) = (noise(63, n * channels), noise(64, channels));
                let start = data::rows(&x, channels);
                let normed = match norm {
                    Some(Norm::Rms { eps, gain: g }) => {
                        let mut buffers = vec![start.clone(), vec![HOLE; n * pitch(channels)]];
                        if g {
                            buffers.insert(1, data::vector(&gain));
                        }
                        unfused(&norm::rms_norm(channels, eps, g), &buffers, &[n]).pop().expect("y is last")
                    }
                    _ => start.clone(),
                };
                let layout = cut(format, channels);
                let made = normed.chunks(pitch(channels)).map(|row| values(&row[..lines(channels) * LANES]));
                let want: Vec<Want> = made.flat_map(|row| quantized(&row, layout).want()).collect();
                let strip = 5;
                check_exact(&Case {
                    name: format!("{n} rows of {channels} after {norm:?} as {format:?}"),
                    kernel: &|_| {
                        let to = format.rows(channels).expect("a quantized format");
                        columns::quantize_rows(norm, &to, Rows::UpTo(n), strip)
                    },
                    buffers: vec![
                        ("x", Buffer::Read(start.clone())),
                        ("gain", Buffer::Read(data::vector(&gain))),
                        ("q", Buffer::Write(want)),
                        ("scratch", scratch(strip * pitch(channels))),
                    ],
                    sizes: vec![("rows", n)],
                    units: Some(n.div_ceil(UNIT)),
                    tolerance: 0.0,
                });
            }
        }
    }
}
