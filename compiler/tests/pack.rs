//! Packed weights against a naive layout: every kind, lines that are not full, gaps, pieces, and what is said of each.

use ir::{MemorySource, SourceError, Weights};
use kernels::LANES;
use kernels::library::lines;
use kernels::library::matrix::Format;
use tvlmc::pack::Packs;
use tvlmc::quant::{self, Entry, Sums, int4, int4_words, int8, int8_words};

/// Values that repeat nowhere.
fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) as f32 * 0.137).sin() * (1.0 + (i % 13) as f32)).collect()
}

/// `[outputs, depth]` values with planes of `gap` columns spread to whole lines, as rows of `physical`.
fn spread(values: &[f32], depth: usize, gap: Option<usize>) -> (Vec<f32>, usize) {
    let plane = gap.unwrap_or(depth);
    let wide = if gap.is_some() { plane.next_multiple_of(LANES) } else { plane };
    let physical = depth.div_ceil(plane) * wide;
    let mut out = Vec::new();
    for row in values.chunks(depth) {
        let mut to = vec![0.0; physical];
        for (c, v) in row.iter().enumerate() {
            to[c / plane * wide + c % plane] = *v;
        }
        out.extend(to);
    }
    (out, physical)
}

/// What a matrix is in the file: its words, and what is said of it.
fn matrix(values: &[f32], depth: usize, gap: Option<usize>, format: Format) -> (Vec<u32>, Sums) {
    let (rows, physical) = spread(values, depth, gap);
    let (mut words, mut scales, mut sums) = (Vec::new(), Vec::new(), Sums::default());
    for rows in rows.chunks(physical * LANES) {
        if format == Format::F32 {
            for c in 0..physical {
                let column = |lane: usize| rows.get(lane * physical + c).copied().unwrap_or(0.0).to_bits();
                words.extend((0..LANES).map(column));
            }
            continue;
        }
        let n = match format {
            Format::Nibbles => int4_words(physical),
            _ => int8_words(physical.next_multiple_of(LANES)),
        };
        let mut line = vec![0; n];
        let quantize = if format == Format::Nibbles { int4 } else { int8 };
        let scaled = quantize(rows, physical, None, &mut line).expect("finite");
        words.extend(line);
        scales.extend(scaled.scales.map(f32::to_bits));
        sums += scaled.sums;
    }
    words.extend(scales);
    (words, sums)
}

/// All packs in one sequence, as the file has them.
fn written(packs: &Packs, weights: &Weights, source: &MemorySource) -> (Vec<u32>, Vec<Entry>) {
    let mut words = Vec::new();
    let mut keep = |piece: &[u32]| {
        words.extend_from_slice(piece);
        Ok::<(), SourceError>(())
    };
    let entries = packs.write(weights, source, &mut keep, &|_| {}).expect("in memory");
    (words, entries)
}

#[test]
fn matrices_lie_as_they_are_read() {
    let formats = [
        (Format::F32, quant::Format::F32),
        (Format::Bytes { block: 112 }, quant::Format::Int8),
        (Format::Nibbles, quant::Format::Int4),
    ];
    // Lines that are not full, depths that are no whole lines or blocks, planes that leave a gap and one that does not.
    let shapes =
        [(1, 1, None), (16, 128, None), (33, 100, None), (20, 60, Some(20)), (7, 272, Some(16)), (48, 35, Some(7))];
    let (mut packs, mut weights, mut source) = (Packs::default(), Weights::new(), MemorySource::default());
    let (mut words, mut entries, mut seed) = (Vec::new(), Vec::new(), 0);
    for (outputs, depth, gap) in shapes {
        for (format, told) in formats {
            seed += 1;
            let name = format!("m{seed}.weight");
            let data = values(outputs * depth, seed);
            source.insert(&name, vec![outputs, depth], data.clone());
            let weight = weights.tensor(&name, &[outputs, depth]);
            let id = packs.matrix(&name, weight, (outputs, depth), gap, format);
            assert_eq!(packs.offset(id), 4 * words.len(), "{name}");
            // Of the same weight in the same layout there is one.
            assert_eq!(packs.matrix("again", weight, (outputs, depth), gap, format), id);
            let (expected, sums) = matrix(&data, depth, gap, format);
            assert_eq!(packs.floats(id), expected.len(), "{outputs} x {depth}, {gap:?}, {format:?}");
            let scales = if format == Format::F32 { 0 } else { lines(outputs) * LANES };
            assert_eq!(packs.scales_at(id), expected.len() - scales);
            entries.push(Entry::new(&name, told, outputs * depth, 4 * expected.len(), sums));
            words.extend(expected);
        }
    }
    let (found, said) = written(&packs, &weights, &source);
    assert_eq!(packs.total(), words.len());
    let differs = found.iter().zip(&words).position(|(a, b)| a != b);
    assert_eq!((found.len(), differs), (words.len(), None));
    // With the sums of each, which its signal to noise is made of.
    assert_eq!(said, entries);
}

/// A matrix that is written in several pieces: its scales still come behind all of its lines.
#[test]
fn pieces_are_joined() {
    let (outputs, depth) = (16 * 9 + 3, 32_768);
    for format in [Format::F32, Format::Bytes { block: 256 }] {
        let (mut packs, mut weights, mut source) = (Packs::default(), Weights::new(), MemorySource::default());
        let data = values(outputs * depth, 5);
        source.insert("w", vec![outputs, depth], data.clone());
        source.insert("b", vec![outputs], values(outputs, 6));
        let (weight, bias) = (weights.tensor("w", &[outputs, depth]), weights.tensor("b", &[outputs]));
        packs.matrix("w", weight, (outputs, depth), None, format);
        let behind = packs.vector("b", bias, outputs);
        let (mut words, _) = matrix(&data, depth, None, format);
        assert_eq!(packs.offset(behind), 4 * words.len());
        words.extend(values(outputs, 6).into_iter().map(f32::to_bits));
        words.resize(words.len().next_multiple_of(LANES), 0);
        let (found, _) = written(&packs, &weights, &source);
        assert!(found == words, "{format:?}: {:?}", found.iter().zip(&words).position(|(a, b)| a != b));
    }
}

#[test]
fn stems_windows_and_vectors_lie_as_they_are_read() {
    let (mut packs, mut weights, mut source) = (Packs::default(), Weights::new(), MemorySource::default());
    let mut add = |name: &str, shape: &[usize]| {
        let data = values(shape.iter().product(), name.len());
        source.insert(name, shape.to_vec(), data.clone());
        (weights.tensor(name, shape), data)
    };
    let (stem, stem_data) = add("stem", &[20, 3, 3, 3]);
    let (window, window_data) = add("window", &[2 * 24, 1, 3, 3]);
    let (vector, vector_data) = add("vectors", &[3 * 20]);
    packs.stem("stem", stem, 20);
    packs.depthwise("window", window, 24, 2, 3);
    packs.planes("vectors", vector, 20, 3);
    packs.table("table", vec![1.0, 2.0, 3.0]);
    let mut words = Vec::new();
    for line in 0..2 {
        for (row, column, channel) in (0..27).map(|i| (i / 9, i / 3 % 3, i % 3)) {
            words.extend((0..LANES).map(|lane| {
                let output = line * LANES + lane;
                if output < 20 { stem_data[output * 27 + channel * 9 + row * 3 + column] } else { 0.0 }
            }));
        }
    }
    for (plane, line, tap) in (0..2 * 2 * 9).map(|i| (i / 18, i / 9 % 2, i % 9)) {
        words.extend((0..LANES).map(|lane| {
            let channel = line * LANES + lane;
            if channel < 24 { window_data[(plane * 24 + channel) * 9 + tap] } else { 0.0 }
        }));
    }
    for (plane, channel) in (0..3 * 32).map(|i| (i / 32, i % 32)) {
        words.push(if channel < 20 { vector_data[plane * 20 + channel] } else { 0.0 });
    }
    words.extend([1.0, 2.0, 3.0]);
    words.resize(words.len().next_multiple_of(LANES), 0.0);
    let (found, said) = written(&packs, &weights, &source);
    let found: Vec<f32> = found.into_iter().map(f32::from_bits).collect();
    assert_eq!(found, words);
    // Vectors and tables are no weights of a product.
    assert_eq!(said.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), ["stem", "window"]);
}
