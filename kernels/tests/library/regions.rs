//! The regions with quantized matrices: the same bits everywhere, and near the region in floats.

use codegen_avx2::Level;
use kernels::library::Schedule;
use kernels::library::conv::{
    Map, Stem, conv_ffn, conv_ffn_scratch, has_diagonal, patch_embed, patch_embed_scratch, stem,
};
use kernels::library::depthwise::Shape;
use kernels::library::linear::{Norm, UNIT};
use kernels::library::matrix::Format;
use kernels::library::two_layer::{Activation, TwoLayer, mlp};
use kernels::library::{lines, pitch};
use kernels::{Elem, LANES};

use crate::case::{Buffer, Case, Want, check_exact, scratch};
use crate::conv::{bordered, first_conv, gelus, layer};
use crate::data::{self, add_bias, noise, panels, product, wide};
use crate::depthwise::{Weights, naive};
use crate::functions::sigmoid;
use crate::packed::{Quant, quality};
use crate::rows::rms_norm;

/// Least signal to noise, dB, against f64 and the same weights: bytes of even noise have 46 dB.
const QUALITY: f64 = 30.0;

const FORMATS: [Format; 3] = [Format::Bytes { block: 16 }, Format::Bytes { block: 128 }, Format::Bytes { block: 384 }];

/// `n` rows that a kernel writes, zeros where channels fill up a line.
fn written(n: usize, channels: usize) -> Buffer {
    let row = (0..pitch(channels)).map(|c| match c {
        c if c < channels => Want::Any,
        c if c < lines(channels) * LANES => Want::Near(0.0),
        _ => Want::Same,
    });
    Buffer::Write(row.collect::<Vec<_>>().repeat(n))
}

/// The same bits everywhere, and near `y`.
fn check(case: &Case, y: &[f64], channels: usize) -> Vec<u32> {
    let made = check_exact(case).remove(0);
    let found = quality(&made, y, channels);
    assert!(found > QUALITY, "{}: {found:.1} dB", case.name);
    made
}

/// Parameters of a matrix; what meets no input is 127.
fn matrix(names: [&'static str; 3], w: &Quant, bias: &[f32]) -> Vec<(&'static str, Buffer)> {
    vec![
        (names[0], Buffer::Read(w.words(127))),
        (names[1], Buffer::Read(data::vector(&w.scale))),
        (names[2], Buffer::Read(data::vector(bias))),
    ]
}

fn check_conv_ffn(format: Format, row: Shape, height: usize, hidden: usize, strip: usize) -> Vec<u32> {
    let (map, channels) = (Map { row, height }, row.channels);
    let t = TwoLayer::new((channels, hidden), Activation::Gelu, format, strip * row.width, 1 << 12);
    let x = noise(40, height * row.width * channels);
    let d = Weights::new(&row);
    let (w1, b1) = (Quant::noise(format, channels, hidden, 41), noise(42, hidden));
    let (w2, b2) = (Quant::noise(format, hidden, channels, 43), noise(44, channels));
    let up = gelus(layer(&naive(&map, &wide(&x), &d), &w1.floats(), &b1, channels));
    let mut y = layer(&up, &w2.floats(), &b2, hidden);
    y.iter_mut().zip(&x).for_each(|(y, x)| *y += f64::from(*x));
    let mut buffers = vec![
        ("x", Buffer::Read(data::rows(&x, channels))),
        ("w0", Buffer::Read(d.packed(&row))),
        ("b0", Buffer::Read(d.packed_bias(&row))),
        ("y", written(height * row.width, channels)),
        ("scratch", scratch(conv_ffn_scratch(&map, &t, strip))),
    ];
    buffers.extend(matrix(["w1", "w1_scale", "b1"], &w1, &b1));
    buffers.extend(matrix(["w2", "w2_scale", "b2"], &w2, &b2));
    let case = Case {
        name: format!("{map:?} -> {hidden}, strips of {strip}, {format:?}"),
        kernel: &|s| conv_ffn(s, &map, &t, strip),
        buffers,
        sizes: vec![],
        units: Some(height / strip),
        tolerance: 0.0,
    };
    check(&case, &y, channels)
}

#[test]
fn conv_ffns() {
    let mut turn = 0;
    for (channels, hidden) in [(16, 64), (15, 60), (48, 112), (112, 144), (33, 400)] {
        for kernel in [3, 7] {
            turn += 1;
            let row = Shape { channels, multiplier: 1, kernel, stride: 1, width: 3, from: Elem::F32, to: Elem::F32 };
            check_conv_ffn(FORMATS[turn % 3], row, 4, hidden, 2);
        }
    }
    // The hidden channels are made for 24 pixels at a time.
    let row = Shape { channels: 48, multiplier: 1, kernel: 3, stride: 1, width: 5, from: Elem::F32, to: Elem::F32 };
    let one = check_conv_ffn(FORMATS[1], row, 6, 144, 1);
    for strip in [2, 3, 6] {
        assert_eq!(check_conv_ffn(FORMATS[1], row, 6, 144, strip), one, "strips of {strip}");
    }
}

/// The diagonal that a matrix behind a depthwise convolution has apart: about 1, added to what the rest gives.
fn diagonal(
    name: &'static str,
    (row, format, outputs): (&Shape, Format, usize),
    x: &[f64],
    y: &mut [f64],
) -> Vec<(&'static str, Buffer)> {
    if !has_diagonal(row, format, outputs) {
        return vec![];
    }
    let d: Vec<f32> = noise(39, outputs).into_iter().map(|v| 1.0 + v).collect();
    let m = row.multiplier;
    for (x, y) in x.chunks(row.out_channels()).zip(y.chunks_mut(outputs)) {
        for (o, y) in y.iter_mut().enumerate() {
            let at = if m == 1 { o } else { o % m * lines(row.channels) * LANES + o / m };
            *y += f64::from(d[o]) * x[at];
        }
    }
    vec![(name, Buffer::Read(data::vector(&d)))]
}

fn check_patch_embed(format: Format, row: Shape, height: usize, channels: usize, strip: usize) -> Vec<u32> {
    let map = Map { row, height };
    let middle = row.out_channels();
    let x = noise(35, height * row.width * row.channels);
    let d = Weights::new(&row);
    let (w1, b1) = (Quant::noise(format, middle, channels, 36), noise(37, channels));
    let between = gelus(naive(&map, &wide(&x), &d));
    let mut y = layer(&between, &w1.floats(), &b1, middle);
    let mut buffers = diagonal("w1_diagonal", (&row, format, channels), &between, &mut y);
    let y = gelus(y);
    buffers.extend(vec![
        ("x", Buffer::Read(data::rows(&x, row.channels))),
        ("w0", Buffer::Read(d.packed(&row))),
        ("b0", Buffer::Read(d.packed_bias(&row))),
        ("y", written(map.out_height() * row.out_width(), channels)),
        ("scratch", scratch(patch_embed_scratch(&map, format, channels, strip))),
    ]);
    buffers.extend(matrix(["w1", "w1_scale", "b1"], &w1, &b1));
    let case = Case {
        name: format!("patch embedding of {map:?} to {channels}, strips of {strip}, {format:?}"),
        kernel: &|s| patch_embed(s, &map, format, channels, strip),
        buffers,
        sizes: vec![],
        units: Some(map.out_height() / strip),
        tolerance: 0.0,
    };
    check(&case, &y, channels)
}

#[test]
fn patch_embeddings() {
    for (i, (channels, multiplier, out)) in [
        (16, 2, 32),
        (15, 2, 33),
        (48, 1, 17),
        (56, 2, 144),
        (72, 2, 48),
        (15, 2, 30),
        (33, 1, 33),
        (56, 2, 112),
        (24, 2, 48),
    ]
    .into_iter()
    .enumerate()
    {
        let row = Shape { channels, multiplier, kernel: 7, stride: 2, width: 5, from: Elem::F32, to: Elem::F32 };
        check_patch_embed(FORMATS[i % 3], row, 4, out, 2);
    }
    let row = Shape { channels: 72, multiplier: 2, kernel: 7, stride: 2, width: 3, from: Elem::F32, to: Elem::F32 };
    let one = check_patch_embed(FORMATS[1], row, 12, 31, 1);
    for strip in [2, 3, 6] {
        assert_eq!(check_patch_embed(FORMATS[1], row, 12, 31, strip), one, "strips of {strip}");
    }
}

/// Two that make the same map of different ones can be in one model.
#[test]
fn patch_embeddings_of_other_maps_have_other_names() {
    let named = |channels: usize, multiplier: usize| {
        let row = Shape { channels, multiplier, kernel: 7, stride: 2, width: 16, from: Elem::F32, to: Elem::F32 };
        patch_embed(&Schedule::new(&Level::V3), &Map { row, height: 16 }, FORMATS[1], 64, 2).name.clone()
    };
    assert_eq!(named(32, 2), "patch_embed_i8b128_8x8x64");
    assert_eq!(named(64, 1), "patch_embed_i8b128_8x8x64_of64");
}

fn check_stem(t: Stem) -> Vec<u32> {
    let Stem { side, channels, strip, format, .. } = t;
    let (middle, out) = (side.div_ceil(2), t.out());
    let image = noise(30, side * side * 3);
    let (w0, b0) = (noise(31, 27 * channels), noise(32, channels));
    let (w2, b2) = (Quant::noise(format, channels, channels, 33), noise(34, channels));
    let map = Map {
        row: Shape { channels, multiplier: 1, kernel: 3, stride: 2, width: middle, from: Elem::F32, to: Elem::F32 },
        height: middle,
    };
    let d = Weights::new(&map.row);
    let y = gelus(first_conv(&image, side, &w0, &b0));
    let between = gelus(naive(&map, &y, &d));
    let mut y = layer(&between, &w2.floats(), &b2, channels);
    let mut buffers = diagonal("w2_diagonal", (&map.row, format, channels), &between, &mut y);
    let y = gelus(y);
    buffers.extend(vec![
        ("image", Buffer::Read(bordered(&image, side))),
        ("w0", Buffer::Read(panels(&w0, 27, channels))),
        ("b0", Buffer::Read(data::vector(&b0))),
        ("w1", Buffer::Read(d.packed(&map.row))),
        ("b1", Buffer::Read(d.packed_bias(&map.row))),
        ("y", written(out * out, channels)),
        ("scratch", scratch(t.scratch())),
    ]);
    buffers.extend(matrix(["w2", "w2_scale", "b2"], &w2, &b2));
    let case = Case {
        name: format!("{t:?}"),
        kernel: &|s| stem(s, &t),
        buffers,
        sizes: vec![],
        units: Some(out / strip),
        tolerance: 0.0,
    };
    check(&case, &y, channels)
}

#[test]
fn stems() {
    for (format, side, channels) in [(FORMATS[0], 8, 17), (FORMATS[1], 7, 48), (FORMATS[2], 18, 16)] {
        check_stem(Stem { side, channels, strip: 1, format, to: Elem::F32 });
    }
    let one = check_stem(Stem { side: 23, channels: 15, strip: 1, format: FORMATS[1], to: Elem::F32 });
    for strip in [2, 3, 6] {
        let found = check_stem(Stem { side: 23, channels: 15, strip, format: FORMATS[1], to: Elem::F32 });
        assert_eq!(found, one, "strips of {strip}");
    }
}

fn check_mlp(format: Format, n: usize, channels: usize, hidden: usize, strip: usize) -> Vec<u32> {
    let norm = Norm::Rms { eps: 1e-6, gain: false };
    let whole = lines(hidden) * LANES;
    let t = TwoLayer::new((channels, hidden), Activation::SwiGlu, format, strip, 1 << 12);
    let x = noise(50, n * channels);
    let w1 = Quant::noise(format, channels, 2 * whole, 51);
    let w2 = Quant::noise(format, hidden, channels, 53);
    let wide = product(&rms_norm(&x, channels, 1e-6, None), &w1.floats(), channels, 2 * whole);
    let gate =
        |row: &[f64], c: usize| (row[c / LANES * 2 * LANES + c % LANES], row[(c / LANES * 2 + 1) * LANES + c % LANES]);
    let between: Vec<f64> = wide
        .chunks(2 * whole)
        .flat_map(|row| (0..hidden).map(move |c| gate(row, c)))
        .map(|(gate, up)| gate * sigmoid(gate) * up)
        .collect();
    let mut y = product(&between, &w2.floats(), hidden, channels);
    add_bias(&mut y, &x);
    let mut buffers = vec![
        ("x", Buffer::Read(data::rows(&x, channels))),
        ("y", written(n, channels)),
        ("scratch", scratch(strip * pitch(channels) + t.scratch(strip))),
    ];
    buffers.extend(matrix(["w1", "w1_scale", "none"], &w1, &[]));
    buffers.extend(matrix(["w2", "w2_scale", "none"], &w2, &[]));
    let case = Case {
        name: format!("MLP of {n} x {channels}, {hidden} hidden, strips of {strip}, {format:?}"),
        kernel: &|s| mlp(s, norm, &t, strip),
        buffers,
        sizes: vec![("rows", n)],
        units: Some(n.div_ceil(UNIT)),
        tolerance: 0.0,
    };
    check(&case, &y, channels)
}

#[test]
fn mlps() {
    for (i, (channels, hidden)) in [(16, 16), (48, 112), (112, 144), (144, 400)].into_iter().enumerate() {
        for n in [1, 9, 13] {
            check_mlp(FORMATS[(i + n) % 3], n, channels, hidden, 8);
        }
    }
    let one = check_mlp(FORMATS[1], 17, 48, 272, 1);
    for strip in [3, 8, 32] {
        assert_eq!(check_mlp(FORMATS[1], 17, 48, 272, strip), one, "strips of {strip}");
    }
    // Gates and ups are made for 24 rows at a time.
    let one = check_mlp(FORMATS[1], 53, 16, 144, 8);
    for strip in [24, 49, 64] {
        assert_eq!(check_mlp(FORMATS[1], 53, 16, 144, strip), one, "strips of {strip}");
    }
    // Gate and up of 512 channels are a row of 4 KB, with a gap.
    check_mlp(Format::Bytes { block: 512 }, 2, 16, 544, 2);
}
