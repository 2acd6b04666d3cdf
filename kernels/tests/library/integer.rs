//! Products of quantized rows, bit for bit: on rows, on one row, by columns, with what is around them.

use kernels::library::columns::{Columns, columns, gated};
use kernels::library::gemm::Init;
use kernels::library::head::embed;
use kernels::library::integer::{BLOCK_WORDS, expand};
use kernels::library::linear::{
    Linear, Norm, Rows, UNIT, gated_vectors, gated_vectors_scratch, linear, vector, vectors,
};
use kernels::library::matrix::Format;
use kernels::library::{elementwise, lines, norm, pitch};
use kernels::{Elem, LANES};

use crate::case::{Buffer, Case, Want, check_exact, has_multiply_add, scratch, unfused};
use crate::data::{self, HOLE, noise};
use crate::packed::{Quant, Row, cut, quantized, want_exact, whole_rows};

const BYTES: [Format; 3] = [Format::Bytes { block: 16 }, Format::Bytes { block: 128 }, Format::Bytes { block: 384 }];

const INPUTS: [usize; 7] = [16, 48, 112, 128, 144, 256, 400];

/// Up to five lines, whole and not.
const OUTPUTS: [usize; 9] = [1, 16, 17, 32, 33, 48, 64, 75, 80];

/// Rows on both sides of tiles of 1 to 5.
const ROWS: [usize; 7] = [1, 2, 3, 4, 5, 6, 13];

const INITS: [Init; 4] = [Init::Zero, Init::Bias, Init::BiasResidual, Init::Residual];

/// Weights that meet no input: the largest there are.
const FILL: u8 = 0x7f;

/// What a product is tried with.
struct Data {
    w: Quant,
    /// `[n, inputs]`
    x: Vec<f32>,
    bias: Vec<f32>,
    /// `[n, outputs]`
    residual: Vec<f32>,
}

fn data(format: Format, n: usize, inputs: usize, outputs: usize) -> Data {
    Data {
        w: Quant::noise(format, inputs, outputs, 91),
        x: noise(93, n * inputs),
        bias: noise(94, outputs),
        residual: noise(95, n * outputs),
    }
}

/// Extremes: every byte and nibble at an end of its range.
fn corners(format: Format, n: usize, inputs: usize, outputs: usize) -> Vec<Data> {
    let ends = |i: usize, o: usize| match format {
        Format::Nibbles => [7, -8][(i + o) % 2],
        _ => [63, -63][(i + o) % 2],
    };
    let all = |q: i32, factor: i32| Quant::new(format, (inputs, outputs), move |_, _| q, move |_, _| factor);
    let (most, least) = if format == Format::Nibbles { (7, -8) } else { (63, -63) };
    let matrices = [
        all(most, 7),
        all(least, 7),
        all(least, -7),
        all(most, -7),
        Quant::new(format, (inputs, outputs), ends, |g, o| [7, -7][(g + o) % 2]),
    ];
    let x = |i: usize| [1.0, -1.0, if i.is_multiple_of(2) { 1.0 } else { -1.0 }];
    let rows = |j: usize| (0..n * inputs).map(|i| x(i)[(i / inputs + j) % 3]).collect();
    let (bias, residual) = (noise(94, outputs), noise(95, n * outputs));
    let made = matrices.into_iter().enumerate();
    made.map(|(j, w)| Data { w, x: rows(j), bias: bias.clone(), residual: residual.clone() }).collect()
}

/// Rows after a norm, as the norm's own kernel makes them.
pub fn normed(norm: Option<Norm>, x: &[f32], channels: usize) -> Vec<Vec<f32>> {
    let start = data::rows(x, channels);
    let n = x.len() / channels;
    let y = match norm {
        None => start,
        Some(norm) => {
            let kernel = match norm {
                Norm::Layer { eps } => norm::layer_norm(channels, eps, Elem::F32),
                Norm::Rms { eps, gain } => norm::rms_norm(channels, eps, gain),
            };
            let mut buffers = vec![start, vec![HOLE; n * pitch(channels)]];
            if kernel.pointers().count() == 3 {
                buffers.insert(1, data::vector(&noise(96, channels)));
            }
            unfused(&kernel, &buffers, &[n]).pop().expect("y is last")
        }
    };
    y.chunks(pitch(channels)).map(|row| row[..channels].iter().map(|w| f32::from_bits(*w)).collect()).collect()
}

fn left(norm: Option<Norm>, format: Format, x: &[f32], channels: usize) -> Vec<Row> {
    normed(norm, x, channels).iter().map(|row| quantized(row, cut(format, channels))).collect()
}

fn naive(l: &Linear, d: &Data) -> Vec<Want> {
    let y = d.w.product(&left(l.norm, l.format, &d.x, l.inputs), l.init, &d.bias, &d.residual);
    if !l.gelu {
        return want_exact(&y, l.outputs);
    }
    let n = d.x.len() / l.inputs;
    let y = unfused(&elementwise::gelu(l.outputs), &[whole_rows(&y, l.outputs)], &[n]).remove(0);
    y.into_iter().map(|bits| if bits == HOLE { Want::Same } else { Want::Bits(bits) }).collect()
}

fn buffers(l: &Linear, d: &Data, y: Vec<Want>, floats: usize) -> Vec<(&'static str, Buffer)> {
    vec![
        ("x", Buffer::Read(data::rows(&d.x, l.inputs))),
        ("gain", Buffer::Read(data::vector(&noise(96, l.inputs)))),
        ("w", Buffer::Read(d.w.words(FILL))),
        ("w_scale", Buffer::Read(data::vector(&d.w.scale))),
        ("bias", Buffer::Read(data::vector(&d.bias))),
        ("residual", Buffer::Read(data::rows(&d.residual, l.outputs))),
        ("y", Buffer::Write(y)),
        ("scratch", scratch(floats)),
    ]
}

fn check_rows(l: Linear, d: &Data) -> Vec<Vec<u32>> {
    let n = l.rows.most();
    check_exact(&Case {
        name: format!("{l:?}"),
        kernel: &|s| linear(s, &l),
        buffers: buffers(&l, d, naive(&l, d), l.scratch(l.strip)),
        sizes: vec![("rows", n)],
        units: Some(n.div_ceil(UNIT)),
        tolerance: 0.0,
    })
}

fn check_vector(l: Linear, d: &Data, row: Option<usize>) {
    let from = row.unwrap_or(0) * pitch(l.outputs);
    let y = naive(&l, d)[from..from + lines(l.outputs) * LANES].to_vec();
    check_exact(&Case {
        name: format!("{l:?} as a vector, row {row:?}"),
        kernel: &|s| vector(s, &l, row.is_some()),
        buffers: buffers(&l, d, y, l.scratch(1)),
        sizes: vec![("row", row.unwrap_or(0))],
        units: Some(lines(l.outputs)),
        tolerance: 0.0,
    });
}

fn check_columns(c: Columns, d: &Data) {
    let n = c.rows.most();
    let rows = left(None, c.format, &d.x, c.inputs);
    let want = want_exact(&d.w.product(&rows, c.init, &d.bias, &d.residual), c.outputs);
    check_exact(&Case {
        name: format!("{c:?}"),
        kernel: &|s| columns(s, &c),
        buffers: vec![
            ("q", Buffer::Read(rows.iter().flat_map(Row::words).collect())),
            ("w", Buffer::Read(d.w.words(FILL))),
            ("w_scale", Buffer::Read(data::vector(&d.w.scale))),
            ("bias", Buffer::Read(data::vector(&d.bias))),
            ("residual", Buffer::Read(data::rows(&d.residual, c.outputs))),
            ("y", Buffer::Write(want)),
            ("scratch", scratch(c.scratch())),
        ],
        sizes: vec![("rows", n)],
        units: Some(c.units()),
        tolerance: 0.0,
    });
}

fn plain(format: Format, n: usize, inputs: usize, outputs: usize, init: Init) -> Linear {
    Linear {
        norm: None,
        inputs,
        outputs,
        format,
        init,
        gelu: false,
        rows: Rows::Fixed(n),
        strip: 8,
        from: Elem::F32,
        to: Elem::F32,
    }
}

#[test]
fn rows_of_every_depth_and_width() {
    let mut turn = 0;
    for format in BYTES {
        for inputs in INPUTS {
            for outputs in OUTPUTS {
                turn += 1;
                let n = ROWS[turn % ROWS.len()];
                let rows = if turn % 2 == 0 { Rows::Fixed(n) } else { Rows::UpTo(n) };
                let l = Linear { rows, gelu: turn % 5 == 0, ..plain(format, n, inputs, outputs, INITS[turn % 4]) };
                check_rows(l, &data(format, n, inputs, outputs));
            }
        }
    }
}

#[test]
fn rows_around_the_tiles() {
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17] {
        for rows in [Rows::Fixed(n), Rows::UpTo(n)] {
            let l = Linear { rows, ..plain(BYTES[1], n, 144, 80, Init::BiasResidual) };
            check_rows(l, &data(BYTES[1], n, 144, 80));
        }
    }
}

#[test]
fn strips_and_norms() {
    for norm in [Norm::Layer { eps: 1e-5 }, Norm::Rms { eps: 1e-6, gain: false }, Norm::Rms { eps: 1e-6, gain: true }] {
        let l = Linear { norm: Some(norm), rows: Rows::UpTo(19), ..plain(BYTES[1], 19, 144, 33, Init::Bias) };
        let d = data(BYTES[1], 19, 144, 33);
        let one = check_rows(Linear { strip: 1, ..l }, &d);
        for strip in [5, 8, 64] {
            assert_eq!(check_rows(Linear { strip, ..l }, &d), one, "strips of {strip}");
        }
        for format in [BYTES[0], Format::Nibbles] {
            let l = Linear { norm: Some(norm), format, strip: 1, ..l };
            check_vector(l, &data(format, 4, 144, 33), None);
            check_vector(Linear { init: Init::BiasResidual, ..l }, &data(format, 4, 144, 33), Some(2));
        }
    }
}

#[test]
fn vectors_of_every_depth_and_width() {
    let mut turn = 0;
    for format in [BYTES[0], BYTES[1], BYTES[2], Format::Nibbles] {
        for inputs in INPUTS {
            for outputs in OUTPUTS {
                turn += 1;
                let l = plain(format, 1, inputs, outputs, INITS[turn % 4]);
                check_vector(l, &data(format, 1, inputs, outputs), None);
            }
        }
    }
    for format in [BYTES[1], Format::Nibbles] {
        check_vector(plain(format, 1, 128, 16 * 23 - 5, Init::Bias), &data(format, 1, 128, 16 * 23 - 5), None);
    }
}

fn check_vectors(l: Linear, d: &Data) {
    let n = l.rows.most();
    check_exact(&Case {
        name: format!("{l:?} as {n} vectors"),
        kernel: &|s| vectors(s, &l, n),
        buffers: buffers(&l, d, naive(&l, d), l.scratch(n)),
        sizes: vec![],
        units: Some(lines(l.outputs)),
        tolerance: 0.0,
    });
}

#[test]
fn a_few_rows_have_the_bits_of_one() {
    let mut turn = 0;
    for format in [BYTES[0], BYTES[1], BYTES[2], Format::Nibbles] {
        for inputs in INPUTS {
            for outputs in [1, 16, 33, 80] {
                turn += 1;
                let n = [2, 3, 4, 5][turn % 4];
                let norm = (turn % 3 == 0).then_some(Norm::Rms { eps: 1e-6, gain: turn % 2 == 0 });
                let l = Linear { norm, ..plain(format, n, inputs, outputs, INITS[turn / 4 % 4]) };
                check_vectors(l, &data(format, n, inputs, outputs));
                for d in corners(format, n, inputs, outputs).iter().filter(|_| turn % 9 == 0) {
                    check_vectors(Linear { norm: None, ..l }, d);
                }
            }
        }
    }
}

#[test]
fn columns_of_every_depth_and_width() {
    let mut turn = 0;
    for format in [BYTES[0], BYTES[1], BYTES[2], Format::Nibbles] {
        for inputs in INPUTS {
            for outputs in OUTPUTS {
                turn += 1;
                let n = ROWS[turn % ROWS.len()];
                let rows = if turn % 2 == 0 { Rows::Fixed(n) } else { Rows::UpTo(n) };
                let c = Columns { inputs, outputs, format, init: INITS[turn % 4], rows };
                check_columns(c, &data(format, n, inputs, outputs));
            }
        }
    }
    for format in [BYTES[1], Format::Nibbles] {
        for n in ROWS {
            let c = Columns { inputs: 144, outputs: 200, format, init: Init::Residual, rows: Rows::UpTo(n) };
            check_columns(c, &data(format, n, 144, 200));
        }
    }
}

#[test]
fn corners_do_not_saturate() {
    for format in [BYTES[0], BYTES[2], Format::Nibbles] {
        for (n, inputs, outputs) in [(1, 400, 33), (5, 256, 48), (4, 112, 16)] {
            for d in corners(format, n, inputs, outputs) {
                if format != Format::Nibbles {
                    check_rows(plain(format, n, inputs, outputs, Init::Zero), &d);
                }
                check_vector(plain(format, 1, inputs, outputs, Init::Bias), &d, None);
                let rows = Rows::Fixed(n);
                check_columns(Columns { inputs, outputs, format, init: Init::BiasResidual, rows }, &d);
            }
        }
    }
}

/// `silu(gate) * up` of whole lines in turn, as the elementwise kernel makes it.
fn swiglu(y: &[f32], hidden: usize) -> Vec<Vec<f32>> {
    let whole = lines(hidden) * LANES;
    let n = y.len() / (2 * whole);
    let start: Vec<u32> = whole_rows(y, 2 * whole);
    let done = unfused(&elementwise::swiglu(whole), &[start, vec![HOLE; n * pitch(whole)]], &[n, 0, lines(hidden)]);
    done[1].chunks(pitch(whole)).map(|row| row[..whole].iter().map(|w| f32::from_bits(*w)).collect()).collect()
}

#[test]
fn gated_columns() {
    for (turn, format) in [BYTES[0], BYTES[1], BYTES[2], Format::Nibbles].into_iter().enumerate() {
        for (i, (inputs, hidden)) in
            [(16, 16), (48, 112), (128, 128), (144, 144), (112, 272), (256, 400), (16, 512)].into_iter().enumerate()
        {
            // Gates and ups are made for 24 rows at a time.
            let n = [1, 4, 29, 3, 48, 5, 25][i % 7];
            let d = data(format, n, inputs, 2 * lines(hidden) * LANES);
            let rows = left(None, format, &d.x, inputs);
            let y = d.w.product(&rows, Init::Zero, &[], &[]);
            let want = swiglu(&y, hidden).iter().flat_map(|row| quantized(row, cut(format, hidden)).want()).collect();
            // Each number of rows is known now for half of the formats.
            let count = if (i + turn) % 2 == 0 { Rows::Fixed(n) } else { Rows::UpTo(n) };
            let c = Columns { inputs, outputs: hidden, format, init: Init::Zero, rows: count };
            check_exact(&Case {
                name: format!("gated {c:?}"),
                kernel: &|s| gated(s, &c),
                buffers: vec![
                    ("q", Buffer::Read(rows.iter().flat_map(Row::words).collect())),
                    ("w", Buffer::Read(d.w.words(FILL))),
                    ("w_scale", Buffer::Read(data::vector(&d.w.scale))),
                    ("h", Buffer::Write(want)),
                    ("scratch", scratch(c.gated_scratch())),
                ],
                sizes: vec![("rows", n)],
                units: Some(c.blocks()),
                tolerance: 0.0,
            });
        }
    }
}

#[test]
fn gated_rows_of_a_few() {
    let norm = Norm::Rms { eps: 1e-6, gain: false };
    for format in [BYTES[0], BYTES[1], Format::Nibbles] {
        for (channels, hidden, n) in [(16, 16, 1), (48, 80, 3), (144, 272, 1), (144, 272, 4), (256, 512, 1)] {
            let d = data(format, n, channels, 2 * lines(hidden) * LANES);
            let y = d.w.product(&left(Some(norm), format, &d.x, channels), Init::Zero, &[], &[]);
            check_exact(&Case {
                name: format!("gated vectors, {n} of {channels} to {hidden} as {format:?}"),
                kernel: &|s| gated_vectors(s, norm, format, (channels, hidden), n),
                buffers: vec![
                    ("x", Buffer::Read(data::rows(&d.x, channels))),
                    ("w", Buffer::Read(d.w.words(FILL))),
                    ("w_scale", Buffer::Read(data::vector(&d.w.scale))),
                    ("y", Buffer::Write(want_exact(&swiglu(&y, hidden).concat(), lines(hidden) * LANES))),
                    ("scratch", scratch(gated_vectors_scratch(format, (channels, hidden), n))),
                ],
                sizes: vec![],
                units: Some(lines(hidden)),
                tolerance: 0.0,
            });
        }
    }
}

/// The panel of 7-bit weights is that of the same matrix in bytes.
#[test]
fn nibbles_expand_to_bytes() {
    for (inputs, outputs) in [(16, 16), (128, 33), (400, 80)] {
        let physical = cut(Format::Nibbles, inputs).physical;
        let mut matrices: Vec<Quant> = corners(Format::Nibbles, 1, inputs, outputs).into_iter().map(|d| d.w).collect();
        matrices.push(Quant::noise(Format::Nibbles, inputs, outputs, 97));
        for w in matrices {
            // A factor of 0 for what meets no input: the byte is the zero point.
            let byte = |i: usize, o: usize| if i < inputs { w.whole(i, o) } else { 0 };
            let bytes = Quant::new(Format::Bytes { block: 16 }, (physical, outputs), byte, |_, _| 1);
            let want = bytes.words(0).into_iter().map(Want::Bits).collect();
            let packed = w.words(0);
            assert_eq!(packed.len(), lines(outputs) * physical / 128 * BLOCK_WORDS);
            check_exact(&Case {
                name: format!("expansion of {inputs} x {outputs}"),
                kernel: &|_| expand(),
                buffers: vec![("w", Buffer::Read(packed)), ("panel", Buffer::Write(want))],
                sizes: vec![("lines", lines(outputs)), ("blocks", physical / 128)],
                units: None,
                tolerance: 0.0,
            });
        }
    }
}

#[test]
fn embeddings() {
    for format in [BYTES[1], Format::Nibbles] {
        for (channels, vocab) in [(16, 1), (48, 17), (112, 40), (128, 16), (400, 33)] {
            let w = Quant::noise(format, channels, vocab, 98);
            for id in [0, vocab / 2, vocab - 1] {
                let row = (0..channels).map(|c| Want::Bits(w.value(c, id).to_bits()));
                check_exact(&Case {
                    name: format!("row {id} of {vocab} x {channels} as {format:?}"),
                    kernel: &|_| embed(format, channels, vocab),
                    buffers: vec![
                        ("table", Buffer::Read(w.words(0))),
                        ("table_scale", Buffer::Read(data::vector(&w.scale))),
                        ("y", Buffer::Write(row.collect())),
                    ],
                    sizes: vec![("id", id)],
                    units: None,
                    tolerance: 0.0,
                });
            }
        }
    }
}

/// The products themselves have no multiply-add, so that NEON, which has one, gives the same bits.
#[test]
fn products_never_fuse() {
    let s = &kernels::library::Schedule::new(&codegen_avx2::Level::V4Vnni);
    for format in [BYTES[1], Format::Nibbles] {
        for init in INITS {
            let c = Columns { inputs: 144, outputs: 48, format, init, rows: Rows::UpTo(5) };
            let l = plain(format, 5, 144, 48, init);
            let mut kernels = vec![columns(s, &c), vector(s, &l, true), embed(format, 144, 48), expand()];
            if format != Format::Nibbles {
                kernels.push(linear(s, &l));
            }
            for kernel in kernels {
                assert!(!has_multiply_add(&kernel), "{}", kernel.name);
            }
            assert!(has_multiply_add(&linear(s, &Linear { format: BYTES[1], gelu: true, ..l })));
        }
    }
}

#[test]
fn lines_have_the_words_that_callers_step_by() {
    for inputs in INPUTS {
        for format in [BYTES[0], BYTES[1], BYTES[2], Format::Nibbles] {
            assert_eq!(format.line_words(inputs), Quant::noise(format, inputs, 16, 1).words(0).len());
        }
    }
}
