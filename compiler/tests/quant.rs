//! The quantizers: layout, range, error, and that no weights make them fail.

use half::f16;
use kernels::library::quantize::{BLOCK, GROUP};
use tvlmc::quant::{
    Entry, Format, NotFinite, Report, Scaled, Sums, dequantize_int4, dequantize_int8, dequantize_low, int4, int4_words,
    int8, int8_words, low, low_words,
};

const LANES: usize = 16;

/// splitmix64, and what the tests draw from it.
struct Random(u64);

impl Random {
    /// In `0..1`, never zero.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    fn gauss(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Student's t with four degrees of freedom: heavy tails.
    fn student(&mut self) -> f64 {
        let square: f64 = (0..4).map(|_| self.gauss().powi(2)).sum();
        self.gauss() / (square / 4.0).sqrt()
    }
}

type Draw = fn(&mut Random) -> f64;

/// The distributions of the tests.
const DRAWS: [(&str, Draw); 3] =
    [("gauss", Random::gauss), ("student", Random::student), ("uniform", |r| r.uniform() - 0.5)];

fn tensor(count: usize, draw: Draw) -> Vec<f32> {
    let mut random = Random(1);
    (0..count).map(|_| draw(&mut random) as f32).collect()
}

type Quantize = fn(&[f32], usize, Option<&[f32]>, &mut [u32]) -> Result<Scaled, NotFinite>;

/// One format behind the same functions as the other.
#[derive(Clone, Copy)]
struct Coder {
    words: fn(usize) -> usize,
    quantize: Quantize,
    dequantize: fn(&[u32], &[f32; LANES], usize) -> Vec<f32>,
}

const INT4: Coder = Coder { words: int4_words, quantize: int4, dequantize: dequantize_int4 };
const INT8: Coder =
    Coder { words: |depth| int8_words(depth.next_multiple_of(4)), quantize: int8, dequantize: dequantize_int8 };

/// A quantized line; what the words held before must not matter.
fn line(coder: Coder, rows: &[f32], depth: usize) -> (Vec<u32>, Scaled) {
    let mut words = vec![0xdead_beef; (coder.words)(depth)];
    let scaled = (coder.quantize)(rows, depth, None, &mut words).unwrap();
    (words, scaled)
}

/// The error of a tensor, after checking that it is that of the dequantized weights.
fn sums(coder: Coder, weights: &[f32], depth: usize) -> Sums {
    weights
        .chunks(LANES * depth)
        .map(|rows| {
            let (words, scaled) = line(coder, rows, depth);
            let back = (coder.dequantize)(&words, &scaled.scales, depth);
            assert!(back.iter().all(|w| w.is_finite()));
            assert!(back[rows.len()..].iter().all(|w| w.to_bits() == 0));
            assert!(scaled.scales.iter().all(|s| *s == 0.0 || s.is_normal() && *s > 0.0));
            let found = compare(rows, &back);
            assert!((found.weight - scaled.sums.weight).abs() <= 1e-9 * found.weight);
            // Beside the largest weights the smallest do not count.
            let near = 1e-6 * found.error + 1e-60 * found.weight;
            assert!((found.error - scaled.sums.error).abs() <= near, "{found:?} {scaled:?}");
            scaled.sums
        })
        .sum()
}

fn compare(weights: &[f32], back: &[f32]) -> Sums {
    let square = |x: f64| x * x;
    weights
        .iter()
        .zip(back)
        .map(|(&w, &b)| Sums { weight: square(f64::from(w)), error: square(f64::from(w) - f64::from(b)) })
        .sum()
}

/// llama.cpp's Q4_0 and back: per 32 weights an f16 scale, the one with the largest magnitude by -8.
fn q4_0(weights: &[f32]) -> Vec<f32> {
    weights
        .chunks(32)
        .flat_map(|block| {
            let max = block.iter().fold(0.0f32, |max, w| if w.abs() > max.abs() { *w } else { max });
            let scale = max / -8.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let stored = f16::from_f32(scale).to_f32();
            block.iter().map(move |w| ((w * inverse + 8.5) as i8).min(15) as f32 - 8.0).map(move |q| q * stored)
        })
        .collect()
}

#[test]
fn random_weights_keep_the_signal_of_the_design() {
    let check = |name: &str, coder: Coder, least: [f64; 3]| {
        for ((draw_name, draw), least) in DRAWS.into_iter().zip(least) {
            let weights = tensor(32 * 896, draw);
            let snr = sums(coder, &weights, 896).snr_db().unwrap();
            assert!(snr >= least, "{name}, {draw_name}: {snr} dB, at least {least} expected");
        }
    };
    check("int4", INT4, [22.1, 19.7, 24.4]);
    check("int8", INT8, [36.1, 28.6, 42.1]);
}

/// Both halves of a line: the weights they stand for, the error that is told, and the lengths of the second half's rows.
#[test]
fn two_halves_keep_more_than_7_bits() {
    for (((name, draw), least), depth) in DRAWS.into_iter().zip([41.0, 37.9, 43.0]).zip([896, 900, 128]) {
        let count = 13 * depth;
        let mut weights = tensor(2 * count, draw);
        // A row of zeros, and one that is 4 bits exactly.
        weights[depth..2 * depth].fill(0.0);
        (0..depth).for_each(|k| weights[3 * depth + k] = (k as i32 % 16 - 8) as f32);
        let (mut all, mut sevens) = (Sums::default(), Sums::default());
        for (part, rows) in weights.chunks(count).enumerate() {
            let (mut words, (high, first)) = (vec![0xdead_beef; low_words(depth)], line(INT4, rows, depth));
            let second = low(rows, depth, &mut words).unwrap();
            let added = dequantize_low(&words, &second.scaled.scales, depth);
            let back = dequantize_int4(&high, &first.scales, depth);
            let sum: Vec<f32> = back.iter().zip(&added).map(|(high, low)| high + low).collect();
            let found = compare(rows, &sum);
            assert!((found.error - second.scaled.sums.error).abs() <= 1e-4 * found.error, "{found:?} {second:?}");
            assert_eq!(second.scaled.sums.weight, first.sums.weight);
            for (channel, row) in added.chunks_exact(depth).enumerate() {
                let length = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                let reach = f64::from(second.reach[channel]);
                assert!(length <= reach && reach <= 1.001 * length + 1e-30, "{name}: {length} is told as {reach}");
            }
            // The row of zeros is in the first part.
            assert_eq!(second.scaled.scales[1] == 0.0, part == 0);
            all += second.scaled.sums;
            sevens += line(INT8, rows, depth).1.sums;
        }
        let [all, sevens] = [all, sevens].map(|s| s.snr_db().unwrap());
        println!("{name}, {depth} inputs: {all} dB, 7 bits {sevens} dB");
        assert!(all >= least && all > sevens, "{name}: {all} dB, at least {least} expected, 7 bits have {sevens}");
    }
    let mut words = vec![0; low_words(32)];
    let wrong = low(&[f32::NAN; 32], 32, &mut words).unwrap_err();
    assert!(wrong.to_string().contains("a weight of column 0 is NaN (row 0 of its 16)"), "{wrong}");
}

#[test]
fn int4_is_never_worse_than_q4_0() {
    let depth = 896;
    let count = 32 * depth;
    let mut cases: Vec<(String, Vec<f32>)> =
        DRAWS.iter().map(|(name, draw)| (name.to_string(), tensor(count, *draw))).collect();
    let gauss = &cases[0].1.clone();
    let mut case = |name: &str, weight: &dyn Fn(usize) -> f32| {
        cases.push((name.to_string(), (0..count).map(weight).collect()));
    };
    case("rows 100 times as large", &|i| gauss[i] * if i / depth % 5 == 1 { 100.0 } else { 1.0 });
    case("columns 4 times as large", &|i| gauss[i] * if i % 224 == 100 { 4.0 } else { 1.0 });
    case("columns 10 times as large", &|i| gauss[i] * if i % 224 == 100 { 10.0 } else { 1.0 });
    case("constant", &|_| 0.5);
    case("negative constant", &|_| -0.3);
    case("two values", &|i| if i % 3 == 0 { 0.7 } else { -0.7 });
    case("zeros", &|_| 0.0);
    case("one nonzero", &|i| if i == 1000 { -3.0 } else { 0.0 });
    case("one nonzero per row", &|i| if i % depth == 77 { gauss[i] } else { 0.0 });
    case("subnormal", &|i| gauss[i] * 1e-40);
    case("smallest", &|i| if i % 2 == 0 { f32::from_bits(1) } else { -f32::from_bits(1) });
    case("huge", &|i| gauss[i] * 5e37);
    case("largest", &|i| if i % 2 == 0 { f32::MAX } else { f32::MIN });
    case("largest among small", &|i| if i % depth == 3 { f32::MAX } else { gauss[i] });
    for (name, weights) in cases {
        let ours = sums(INT4, &weights, depth).error;
        let theirs = compare(&weights, &q4_0(&weights)).error;
        // Not finite is what Q4_0 makes of weights whose scale is too large for f16.
        assert!(ours <= theirs || !theirs.is_finite(), "{name}: error {ours}, Q4_0 {theirs}");
        println!("{name}: {ours:.3e}, Q4_0 {theirs:.3e}, {:.2} dB", 10.0 * (theirs / ours).log10());
    }
}

#[test]
fn trained_weights_do_better_than_q4_0() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo/model.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for (name, tensor) in file.iter().filter(|(name, _)| name.contains("language_model.layers.")) {
        let &[_, depth] = tensor.shape() else { continue };
        assert_eq!(tensor.dtype(), safetensors::Dtype::BF16);
        let floats = tensor.data().as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
        let weights: Vec<f32> = floats.collect();
        let (four, eight) = (sums(INT4, &weights, depth), sums(INT8, &weights, depth));
        let theirs = compare(&weights, &q4_0(&weights));
        assert!(four.error < theirs.error, "{name}: error {}, Q4_0 {}", four.error, theirs.error);
        println!("{name}: {:?} dB, Q4_0 {:?}, int8 {:?}", four.snr_db(), theirs.snr_db(), eight.snr_db());
        seen += 1;
    }
    assert!(seen > 0, "no linear in {path}");
}

#[test]
fn any_weights_and_shapes_do() {
    let values = [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 1.0, -1e-20, 3e38, 2e-33];
    let mut random = Random(7);
    for coder in [INT4, INT8] {
        for depth in [1, 3, 4, 15, 16, 17, 127, 128, 129, 300] {
            for channels in [1, 15, 16] {
                let mut draw = |_| values[(random.uniform() * values.len() as f64) as usize];
                let mixed: Vec<f32> = (0..channels * depth).map(&mut draw).collect();
                let sums = sums(coder, &mixed, depth);
                assert!(sums.error <= sums.weight, "{sums:?}");
                for value in values {
                    self::sums(coder, &vec![value; channels * depth], depth);
                }
            }
        }
    }
}

#[test]
fn weights_that_no_normal_scale_can_carry_are_zeros() {
    for coder in [INT4, INT8] {
        let (_, scaled) = line(coder, &[f32::MIN_POSITIVE, 1e-40], 2);
        assert_eq!(scaled.scales, [0.0; LANES]);
        assert_eq!(scaled.sums.error, scaled.sums.weight);
        assert_eq!(scaled.sums.snr_db(), Some(0.0));
        let (_, scaled) = line(coder, &[1e-30, 5e-31], 2);
        assert!(scaled.scales[0].is_normal());
    }
}

#[test]
fn int8_words_are_quads_of_u7() {
    // The largest possible, its half, its negative; a lane without weights; padding.
    let (words, scaled) = line(INT8, &[63.0, -63.0, 31.0, 1.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 6);
    assert_eq!(words.len(), 2 * LANES);
    assert_eq!(scaled.scales[..3], [1.0, 0.0, 0.0]);
    let byte = |q: i32| (q + 64) as u8;
    assert_eq!(words[0].to_le_bytes(), [63, -63, 31, 1].map(byte));
    assert_eq!(words[LANES].to_le_bytes(), [0, -2, 0, 0].map(byte));
    assert!(words[1..LANES].iter().chain(&words[LANES + 1..]).all(|w| *w == 0x4040_4040));
}

#[test]
fn int4_words_are_multipliers_then_nibbles() {
    // Two groups: 8 is reached on the positive side, so g is negative; then twice the step on the other side.
    // Several scales are exact, and the first that is tried is a 32nd of the largest weight.
    let mut row = [0.0; 130];
    (row[0], row[5], row[12]) = (8.0, -3.0, 1.0);
    (row[16], row[31], row[129]) = (-16.0, 6.0, 8.0);
    let (words, scaled) = line(INT4, &row, 130);
    assert_eq!(words.len(), 2 * 17 * LANES);
    assert_eq!((scaled.scales[0], scaled.sums.error), (0.5, 0.0));
    // -2 and 4; the other groups are zeros.
    assert_eq!(words[0], 0x4e);
    let nibbles = |line: usize| words[line * LANES].to_le_bytes();
    assert_eq!(nibbles(1), [0x80, 0x8 | (3 + 8) << 4, 0x88, 0x88]);
    assert_eq!(nibbles(2), [0x88 - 0x10, 0x88, 0x88, 0x88]);
    assert_eq!(nibbles(3), [0x80, 0x88, 0x88, 0x88]);
    assert_eq!(nibbles(4), [0x88, 0x88, 0x88, 0x88 + (3 << 4)]);
    // Input 129 is in the second block's first group.
    assert_eq!(words[17 * LANES], 0xe);
    assert_eq!(words[18 * LANES].to_le_bytes(), [0x88, 0x80, 0x88, 0x88]);
    for (i, word) in words.iter().enumerate().filter(|(i, _)| i % LANES != 0) {
        assert_eq!(*word, if (i / LANES).is_multiple_of(17) { 0 } else { 0x8888_8888 }, "word {i}");
    }
}

#[test]
fn integers_stay_in_the_operands_range() {
    for (_, draw) in DRAWS {
        let rows = tensor(LANES * 256, draw);
        let (words, _) = line(INT8, &rows, 256);
        assert!(words.iter().flat_map(|w| w.to_le_bytes()).all(|b| (1..=127).contains(&b)));
        let (words, _) = line(INT4, &rows, 256);
        // The nibble of -8 would take g * q out of -56..=56.
        let multipliers = words.chunks(17 * LANES).flat_map(|block| &block[..LANES]);
        assert!(multipliers.flat_map(|w| (0..8).map(move |t| w >> (4 * t) & 15)).all(|g| g != 8));
    }
}

#[test]
fn no_other_multiplier_or_integer_is_better() {
    let depth = 128;
    for (name, draw) in DRAWS {
        let rows = tensor(LANES * depth, draw);
        let (words, scaled) = line(INT4, &rows, depth);
        let back = dequantize_int4(&words, &scaled.scales, depth);
        for (i, group) in rows.chunks(GROUP).enumerate() {
            let scale = scaled.scales[i * GROUP / depth];
            let error = |g: i32| -> f64 {
                let nearest =
                    |w: &f32| (-8..8).map(|q| f64::from(scale * (g * q) as f32 - w).powi(2)).fold(1e9, f64::min);
                group.iter().map(nearest).sum()
            };
            let best = (-7..8).map(error).fold(f64::INFINITY, f64::min);
            let found = compare(group, &back[i * GROUP..]).error;
            assert!(found <= best * 1.000_01, "{name}, group {i}: {found}, the best is {best}");
        }
    }
}

#[test]
fn every_machine_makes_the_same_bits() {
    // Drawn without a logarithm or a cosine, which differ from machine to machine.
    let bell = |random: &mut Random| {
        let sum: f64 = (0..6).map(|_| random.uniform() - 0.5).sum();
        sum * sum * sum
    };
    let depth = 1000;
    let rows = tensor(LANES * depth, bell);
    let check = |coder: Coder, expected: u64| {
        let (words, scaled) = line(coder, &rows, depth);
        let all = words.iter().copied().chain(scaled.scales.map(f32::to_bits));
        // FNV-1a, a word at a time.
        let found = all.fold(0xcbf2_9ce4_8422_2325u64, |h, word| (h ^ u64::from(word)).wrapping_mul(0x100_0000_01b3));
        assert_eq!(found, expected, "{found:#x}");
    };
    check(INT4, 0x9140bf09bde96687);
    check(INT8, 0xafaf3739041d9a78);
}

#[test]
fn importance_moves_the_error_elsewhere() {
    let depth = 256;
    let rows = tensor(LANES * depth, Random::student);
    let importance: Vec<f32> = (0..depth).map(|k| if k % 16 == 3 { 100.0 } else { 1.0 }).collect();
    let error = |coder: Coder, importance: Option<&[f32]>| -> f64 {
        let mut words = vec![0; (coder.words)(depth)];
        let scaled = (coder.quantize)(&rows, depth, importance, &mut words).unwrap();
        let back = (coder.dequantize)(&words, &scaled.scales, depth);
        let columns = (0..rows.len()).filter(|i| i % depth % 16 == 3);
        columns.map(|i| f64::from(rows[i] - back[i]).powi(2)).sum()
    };
    // One scale for a whole row cannot do much for some of its columns.
    for (name, coder, most) in [("int4", INT4, 0.7), ("int8", INT8, 0.99)] {
        assert!(error(coder, Some(&importance)) < most * error(coder, None), "{name}");
        assert_eq!(error(coder, Some(&vec![1.0; depth])), error(coder, None), "{name}");
        // Nothing is important: any weights do, as long as they are weights.
        assert!(error(coder, Some(&vec![0.0; depth])).is_finite(), "{name}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    for coder in [INT4, INT8] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows = tensor(3 * 20, Random::gauss);
            rows[2 * 20 + 7] = value;
            let error = (coder.quantize)(&rows, 20, None, &mut vec![0; (coder.words)(20)]).unwrap_err();
            assert_eq!((error.channel, error.k, error.value.to_bits()), (2, 7, value.to_bits()));
            assert!(
                error.to_string().starts_with(&format!("a weight of column 7 is {value} (row 2 of its 16)")),
                "{error}"
            );
        }
    }
}

#[test]
fn entries_say_size_and_error() {
    let sums = Sums { weight: 1000.0, error: 1.0 } + Sums { weight: 0.0, error: 0.0 };
    let entry = Entry::new("decoder.0.mlp.gate_up", Format::Int4, BLOCK * LANES, 4 * int4_words(BLOCK), sums);
    let text = serde_json::to_string(&entry).unwrap();
    let sizes = r#""weights":2048,"bytes":1088,"bits_per_weight":4.25,"snr_db":30.0"#;
    assert_eq!(text, format!(r#"{{"name":"decoder.0.mlp.gate_up","format":"int4",{sizes}}}"#));
    let exact = Entry::new("zeros", Format::Int8, 0, 0, Sums::default());
    assert_eq!(exact.snr_db, None);
}

#[test]
fn parts_add_up_their_tensors() {
    let entry = |name: &str, format: Format, (weights, bytes): (usize, usize), (weight, error): (f64, f64)| {
        Entry::new(name, format, weights, bytes, Sums { weight, error })
    };
    let report = Report::new(vec![
        entry("vision.stem.weight", Format::F32, (100, 400), (0.0, 0.0)),
        entry("vision.fc1.weight", Format::Int8, (300, 320), (900.0, 0.5)),
        entry("decoder.0.weight", Format::Int4, (800, 425), (100.0, 0.5)),
        entry("vision.fc2.weight", Format::Int8, (100, 80), (100.0, 0.5)),
    ]);
    let text = report.to_json();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap().to_json(), text);
    let shown: Vec<String> = report.parts.iter().map(|p| serde_json::to_string(p).unwrap()).collect();
    assert_eq!(
        shown,
        [
            r#"{"name":"vision","weights":500,"bytes":800,"bits_per_weight":12.8,"snr_db":30.0}"#,
            r#"{"name":"decoder","weights":800,"bytes":425,"bits_per_weight":4.25,"snr_db":23.01}"#,
            r#"{"name":"all","weights":1300,"bytes":1225,"bits_per_weight":7.538,"snr_db":28.65}"#,
        ]
    );
}

/// `cargo test --release --test quant -- --ignored --nocapture`
#[test]
#[ignore = "prints figures, checks nothing"]
fn speed() {
    for depth in [896, 4864] {
        for (name, draw) in DRAWS {
            let weights = tensor((1 << 20) / depth / LANES * LANES * depth, draw);
            for (format, coder) in [("int4", INT4), ("int8", INT8)] {
                let start = std::time::Instant::now();
                let mut words = vec![0; (coder.words)(depth)];
                let quantize = |rows| (coder.quantize)(rows, depth, None, &mut words).unwrap().sums;
                let sums: Sums = weights.chunks(LANES * depth).map(quantize).sum();
                let speed = weights.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
                println!("{format} {name} {depth}: {:?} dB, {speed:.0} Mweights/s", sums.snr_db());
            }
        }
    }
}
