//! The evaluator's blocked and threaded ops against direct loops, and shape rules against it.

use ir::{
    Activation, Axis, ChannelOrder, DType, Evaluator, Graph, MemorySource, Op, Shape, Value, WeightId, Weights, verify,
};
use proptest::prelude::*;

/// Sums of `n` products of numbers in -1..1, in f32.
fn tolerance(n: usize) -> f32 {
    1e-6 * (n as f32).max(8.0)
}

/// Values in -1..1 that differ from seed to seed.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n + 4).map(|_| next()).skip(4).collect()
}

/// A graph of one op under construction, with its tensors.
#[derive(Default)]
struct Bench {
    weights: Weights,
    source: MemorySource,
}

impl Bench {
    fn tensor(&mut self, shape: &[usize]) -> WeightId {
        let name = format!("t{}", self.source.names().count());
        let data = noise(shape.iter().product(), 17 + self.source.names().count() as u64);
        self.source.insert(name.clone(), shape.to_vec(), data);
        self.weights.tensor(name, shape)
    }

    fn data(&self, id: WeightId) -> Vec<f32> {
        self.weights.eval(id, &self.source).expect("a tensor")
    }

    /// The op's value; its shape must be what the shape rule says.
    fn run(&self, op: Op, x: &Value) -> Value {
        let mut graph = Graph::new("test");
        let input = graph.input("x", x.shape, DType::F32);
        let id = graph.add(&self.weights, "y", op, &[input]).expect("fits");
        verify(&graph, &self.weights).expect("verified");
        let y = Evaluator::new(&graph, &self.weights, &self.source).run(x).expect("a value");
        assert_eq!(y.shape, graph[id].shape);
        assert_eq!(y.data.len(), y.shape.elements(0));
        y
    }
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {i}: {a}, expected {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear(n in 1usize..40, depth in 1usize..70, m in 1usize..70, bias: bool) {
        let mut b = Bench::default();
        let weight = b.tensor(&[m, depth]);
        let bias = bias.then(|| b.tensor(&[m]));
        let x = Value::rows(depth, noise(n * depth, 3));
        let (w, offset) = (b.data(weight), bias.map_or(vec![0.0; m], |id| b.data(id)));
        let dot = |i: usize, o: usize| (0..depth).map(|p| x.data[i * depth + p] * w[o * depth + p]).sum::<f32>();
        let expected: Vec<f32> = (0..n * m).map(|at| dot(at / m, at % m) + offset[at % m]).collect();
        close(&b.run(Op::Linear { weight, bias }, &x).data, &expected, tolerance(depth));
    }

    #[test]
    fn conv2d(
        (h, w) in (1usize..12, 1usize..12),
        inputs in 2usize..9,
        out in 1usize..20,
        k in prop::sample::select(vec![1usize, 2, 3, 7]),
        stride in 1usize..3,
        padded: bool,
        times in prop::sample::select(vec![0usize, 1, 2, 3]),
        planar: bool,
    ) {
        // `times` 0 is dense.
        let padding = if padded { k / 2 } else { 0 };
        prop_assume!(h + 2 * padding >= k && w + 2 * padding >= k);
        let (groups, out) = if times == 0 { (1, out) } else { (inputs, times * inputs) };
        prop_assume!(times != 0 || !planar);
        let per_group = inputs / groups;
        let mut b = Bench::default();
        let weight = b.tensor(&[out, per_group, k, k]);
        let bias = b.tensor(&[out]);
        let x = Value::map(h, w, inputs, noise(h * w * inputs, 5));
        let (kernel, offset) = (b.data(weight), b.data(bias));
        let (ho, wo) = ((h + 2 * padding - k) / stride + 1, (w + 2 * padding - k) / stride + 1);
        let mut expected = Vec::new();
        for (oy, ox, o) in (0..ho * wo * out).map(|i| (i / (wo * out), i / out % wo, i % out)) {
            let mut sum = offset[o];
            for (i, ty, tx) in (0..per_group * k * k).map(|i| (i / (k * k), i / k % k, i % k)) {
                let channel = match (groups, planar) {
                    (1, _) => i,
                    (_, false) => o / times,
                    (_, true) => o % inputs,
                };
                let (y, z) = ((oy * stride + ty) as isize - padding as isize, (ox * stride + tx) as isize - padding as isize);
                if (0..h as isize).contains(&y) && (0..w as isize).contains(&z) {
                    let at = (y as usize * w + z as usize) * inputs + channel;
                    sum += x.data[at] * kernel[((o * per_group + i) * k + ty) * k + tx];
                }
            }
            expected.push(sum);
        }
        let order = if planar { ChannelOrder::Planar } else { ChannelOrder::Interleaved };
        let op = Op::Conv2d { weight, bias: Some(bias), stride, padding, groups, order };
        let found = b.run(op, &x);
        prop_assert_eq!(found.shape, Shape::Map { h: ho, w: wo, c: out });
        close(&found.data, &expected, tolerance(inputs * k * k));
    }

    #[test]
    fn attention(
        n in 1usize..12,
        kv_heads in 1usize..3,
        group in 1usize..4,
        head_dim in prop::sample::select(vec![2usize, 4, 8]),
        causal: bool,
    ) {
        let heads = kv_heads * group;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let c = q + 2 * kv;
        let x = Value::rows(c, noise(n * c, 11));
        let scale = 0.7;
        let at = |row: usize, column: usize| f64::from(x.data[row * c + column]);
        let mut expected = Vec::new();
        for (i, head, j) in (0..n * q).map(|at| (at / q, at % q / head_dim, at % head_dim)) {
            let from = head / group * head_dim;
            let seen = if causal { i + 1 } else { n };
            let score = |key: usize| {
                let dot = (0..head_dim).map(|p| at(i, head * head_dim + p) * at(key, q + from + p)).sum::<f64>();
                (scale * dot).exp()
            };
            let sum: f64 = (0..seen).map(score).sum();
            expected.push((0..seen).map(|key| score(key) / sum * at(key, q + kv + from + j)).sum::<f64>() as f32);
        }
        let op = |cache| Op::Attention { heads, kv_heads, head_dim, scale, causal, cache };
        close(&Bench::default().run(op(None), &x).data, &expected, 1e-5);
        if causal {
            // Rows in several calls see the same as in one.
            let weights = Weights::new();
            let source = MemorySource::default();
            let mut graph = Graph::new("cached");
            let input = graph.input("x", Shape::Rows { n: Axis::Positions, c }, DType::F32);
            graph.add(&weights, "y", op(Some(0)), &[input]).expect("fits");
            let mut evaluator = Evaluator::new(&graph, &weights, &source);
            let mut found = Vec::new();
            for rows in x.data.chunks(3 * c) {
                found.extend(evaluator.run(&Value::rows(c, rows.to_vec())).expect("a value").data);
            }
            prop_assert_eq!(evaluator.position(), n);
            close(&found, &expected, 1e-5);
        }
    }

    #[test]
    fn rope_keeps_lengths_and_tails(n in 1usize..6, heads in 1usize..4, extra in 0usize..3) {
        let (d, c) = (8, (heads + extra) * 8);
        let x = Value::rows(c, noise(n * c, 13));
        let y = Bench::default().run(Op::Rope { heads, head_dim: d, theta: 1e6 }, &x);
        for (i, (x, y)) in x.data.chunks(c).zip(y.data.chunks(c)).enumerate() {
            prop_assert_eq!(&x[heads * d..], &y[heads * d..]);
            for (x, y) in x[..heads * d].chunks(d).zip(y.chunks(d)) {
                for j in 0..d / 2 {
                    let angle = i as f64 * 1e6f64.powf(-2.0 * j as f64 / d as f64);
                    let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                    close(&[y[j], y[j + d / 2]], &[x[j] * cos - x[j + d / 2] * sin, x[j + d / 2] * cos + x[j] * sin], 1e-6);
                }
            }
        }
    }
}

#[test]
fn norms_and_scales() {
    let mut b = Bench::default();
    let (n, c) = (5, 48);
    let x = Value::rows(c, noise(n * c, 1));
    let v: Vec<WeightId> = (0..4).map(|_| b.tensor(&[c])).collect();
    let (gain, bias, mean) = (b.data(v[0]), b.data(v[1]), b.data(v[2]));
    let eps = 1.5;
    let each = |f: &dyn Fn(&[f32], usize) -> f32| -> Vec<f32> {
        x.data.chunks(c).flat_map(|row| (0..c).map(move |j| f(row, j))).collect()
    };
    let var = b.data(v[3]);
    let batch = each(&|row, j| (row[j] - mean[j]) * gain[j] / (var[j] + eps as f32).sqrt() + bias[j]);
    let op = Op::BatchNorm { gamma: v[0], beta: v[1], mean: v[2], var: v[3], eps };
    close(&b.run(op, &x).data, &batch, 1e-5);
    close(&b.run(Op::LayerScale { gamma: v[0] }, &x).data, &each(&|row, j| row[j] * gain[j]), 1e-6);
    let rms = |row: &[f32]| (row.iter().map(|x| x * x).sum::<f32>() / c as f32 + 1e-6).sqrt();
    let plain = each(&|row, j| row[j] / rms(row));
    close(&b.run(Op::RmsNorm { gain: None, eps: 1e-6 }, &x).data, &plain, 1e-5);
    let gained = each(&|row, j| row[j] / rms(row) * gain[j]);
    close(&b.run(Op::RmsNorm { gain: Some(v[0]), eps: 1e-6 }, &x).data, &gained, 1e-5);
    let centered = |row: &[f32], j: usize| {
        let mean = row.iter().sum::<f32>() / c as f32;
        let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / c as f32;
        (row[j] - mean) / (var + 1e-5).sqrt()
    };
    close(&b.run(Op::LayerNorm { affine: None, eps: 1e-5 }, &x).data, &each(&centered), 1e-5);
    let affine = Op::LayerNorm { affine: Some((v[0], v[1])), eps: 1e-5 };
    close(&b.run(affine, &x).data, &each(&|row, j| centered(row, j) * gain[j] + bias[j]), 1e-5);
    close(&b.run(Op::Scale { by: -0.5 }, &x).data, &each(&|row, j| row[j] * -0.5), 0.0);
}

#[test]
fn activations_at_known_points() {
    let b = Bench::default();
    let x = Value::rows(5, vec![-3.0, -1.0, 0.0, 0.5, 2.0]);
    let run = |kind| b.run(Op::Activation(kind), &x).data;
    close(&run(Activation::Gelu), &[-0.004_049_69, -0.158_655_25, 0.0, 0.345_731_23, 1.954_499_7], 1e-7);
    close(&run(Activation::Silu), &[-0.142_277_62, -0.268_941_43, 0.0, 0.311_229_67, 1.761_594_2], 2e-7);
    close(&run(Activation::Sigmoid), &[0.047_425_874, 0.268_941_43, 0.5, 0.622_459_33, 0.880_797_1], 1e-7);
    close(&run(Activation::Relu), &[0.0, 0.0, 0.0, 0.5, 2.0], 0.0);
}

#[test]
fn squeeze_and_excite() {
    let mut b = Bench::default();
    let (c, r) = (6, 3);
    let (w1, b1, w2, b2) = (b.tensor(&[r, c]), b.tensor(&[r]), b.tensor(&[c, r]), b.tensor(&[c]));
    let x = Value::map(2, 5, c, noise(10 * c, 9));
    let mean: Vec<f32> = (0..c).map(|j| x.data.iter().skip(j).step_by(c).sum::<f32>() / 10.0).collect();
    let layer = |w: Vec<f32>, b: Vec<f32>, x: &[f32]| -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        w.chunks(x.len()).map(dot).zip(b).map(|(dot, b)| dot + b).collect()
    };
    let hidden: Vec<f32> = layer(b.data(w1), b.data(b1), &mean).iter().map(|x| x.max(0.0)).collect();
    let gate = layer(b.data(w2), b.data(b2), &hidden);
    let expected: Vec<f32> = x.data.iter().enumerate().map(|(i, x)| x / (1.0 + (-gate[i % c]).exp())).collect();
    let op = Op::SqueezeExcite { reduce: (w1, b1), expand: (w2, b2) };
    close(&b.run(op, &x).data, &expected, 1e-6);
}

#[test]
fn mistakes_are_named() {
    let mut b = Bench::default();
    let w = b.tensor(&[3072, 768]);
    let mut graph = Graph::new("test");
    let x = graph.input("x", Shape::Rows { n: Axis::Positions, c: 3072 }, DType::F32);
    let wrong = graph.add(&b.weights, "vision.7.fc1", Op::Linear { weight: w, bias: None }, &[x]).expect_err("wrong");
    assert_eq!(wrong.to_string(), "vision.7.fc1: Linear has weight [3072, 768], expected [3072, 3072]");
    let wrong = graph.add(&b.weights, "sum", Op::Add, &[x]).expect_err("wrong");
    assert_eq!(wrong.to_string(), "sum: Add takes two inputs, found 1");
    let wrong = graph.add(&b.weights, "map", Op::Flatten, &[x]).expect_err("wrong");
    assert_eq!(wrong.to_string(), "map: Flatten reads a map, found [positions, 3072]");
    graph.add(&b.weights, "dead", Op::Scale { by: 2.0 }, &[x]).expect("fits");
    graph.add(&b.weights, "live", Op::Scale { by: 2.0 }, &[x]).expect("fits");
    let wrong = verify(&graph, &b.weights).expect_err("dangling");
    assert_eq!(wrong.to_string(), "dead: nothing reads this value and it is not the result");
}
