//! Ops of MIL as its documents define them, each written down once more, independently of the compiler's own evaluator.

use std::collections::BTreeMap;

use super::{Data, Tensor};

type Inputs<'a> = BTreeMap<&'a str, &'a Tensor>;

/// The results of an operation.
pub fn evaluate(kind: &str, inputs: &Inputs<'_>) -> Vec<Tensor> {
    let x = inputs["x"];
    let one = |shape: Vec<usize>, data: Vec<f32>| vec![Tensor { shape, data: Data::Floats(data) }];
    let each = |f: fn(f64) -> f64| one(x.shape.clone(), x.floats().iter().map(|&x| f(f64::from(x)) as f32).collect());
    match kind {
        "cast" => {
            assert!(["fp16", "fp32"].contains(&inputs["dtype"].word()));
            each(|x| x)
        }
        "gelu" => {
            assert_eq!(inputs["mode"].word(), "EXACT");
            each(|x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)))
        }
        "relu" => each(|x| x.max(0.0)),
        "sigmoid" => each(|x| 1.0 / (1.0 + (-x).exp())),
        "silu" => each(|x| x / (1.0 + (-x).exp())),
        "add" => vec![pairs(x, inputs["y"], |a, b| a + b)],
        "mul" => vec![pairs(x, inputs["y"], |a, b| a * b)],
        "conv" => vec![conv(inputs)],
        "linear" => vec![linear(inputs)],
        "matmul" => vec![matmul(inputs)],
        "layer_norm" => vec![layer_norm(inputs)],
        "softmax" => vec![softmax(x, inputs["axis"].ints()[0])],
        "reduce_mean" => vec![reduce_mean(inputs)],
        "split" => split(inputs),
        "reshape" => one(sizes(inputs["shape"]), x.floats().to_vec()),
        "transpose" => vec![transpose(x, &sizes(inputs["perm"]))],
        other => panic!("no op {other}"),
    }
}

/// erf to 1.2e-7, Abramowitz and Stegun 7.1.26.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let poly =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    (1.0 - poly * (-x * x).exp()).copysign(x)
}

fn sizes(of: &Tensor) -> Vec<usize> {
    of.ints().iter().map(|&n| usize::try_from(n).expect("a size")).collect()
}

/// Distances of neighbors along each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// Sizes of one are repeated; a shape that is shorter is one of ones in front.
fn pairs(x: &Tensor, y: &Tensor, f: fn(f32, f32) -> f32) -> Tensor {
    let rank = x.shape.len().max(y.shape.len());
    let wide = |shape: &[usize]| [&vec![1; rank - shape.len()][..], shape].concat();
    let (a, b) = (wide(&x.shape), wide(&y.shape));
    let size = |(&a, &b): (&usize, &usize)| {
        assert!(a == b || a == 1 || b == 1, "{:?} and {:?}", x.shape, y.shape);
        a.max(b)
    };
    let shape: Vec<usize> = a.iter().zip(&b).map(size).collect();
    let (out, sa, sb) = (strides(&shape), strides(&a), strides(&b));
    let at = |i: usize, sizes: &[usize], strides: &[usize]| -> usize {
        (0..rank).map(|axis| if sizes[axis] == 1 { 0 } else { i / out[axis] % shape[axis] * strides[axis] }).sum()
    };
    let n: usize = shape.iter().product();
    let data = (0..n).map(|i| f(x.floats()[at(i, &a, &sa)], y.floats()[at(i, &b, &sb)])).collect();
    Tensor { shape, data: Data::Floats(data) }
}

fn conv(inputs: &Inputs<'_>) -> Tensor {
    let (x, weight) = (inputs["x"], inputs["weight"]);
    assert_eq!(inputs["pad_type"].word(), "custom");
    assert_eq!(inputs["dilations"].ints(), [1, 1]);
    let (stride, pad) = (sizes(inputs["strides"]), sizes(inputs["pad"]));
    let groups = inputs["groups"].ints()[0] as usize;
    let (&[1, c, h, w], &[out, per, kh, kw]) = (&x.shape[..], &weight.shape[..]) else {
        panic!("{:?} by {:?}", x.shape, weight.shape)
    };
    assert_eq!((c, out % groups), (per * groups, 0));
    let oh = (h + pad[0] + pad[1] - kh) / stride[0] + 1;
    let ow = (w + pad[2] + pad[3] - kw) / stride[1] + 1;
    let (from, kernel) = (x.floats(), weight.floats());
    let mut data = vec![0.0f32; out * oh * ow];
    for (o, plane) in data.chunks_exact_mut(oh * ow).enumerate() {
        plane.fill(inputs.get("bias").map_or(0.0, |bias| bias.floats()[o]));
        let first = o / (out / groups) * per;
        for i in 0..per {
            let input = &from[(first + i) * h * w..][..h * w];
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let tap = kernel[((o * per + i) * kh + ky) * kw + kx];
                for y in 0..oh {
                    let Some(line) = (y * stride[0] + ky).checked_sub(pad[0]).filter(|y| *y < h) else { continue };
                    for (x, to) in plane[y * ow..][..ow].iter_mut().enumerate() {
                        if let Some(column) = (x * stride[1] + kx).checked_sub(pad[2]).filter(|x| *x < w) {
                            *to += tap * input[line * w + column];
                        }
                    }
                }
            }
        }
    }
    Tensor { shape: vec![1, out, oh, ow], data: Data::Floats(data) }
}

fn linear(inputs: &Inputs<'_>) -> Tensor {
    let (x, weight) = (inputs["x"], inputs["weight"]);
    let (out, depth) = (weight.shape[0], weight.shape[1]);
    assert_eq!(x.shape.last(), Some(&depth));
    let dot = |row: &[f32], o: usize| {
        let products = row.iter().zip(&weight.floats()[o * depth..]).map(|(a, b)| a * b);
        products.sum::<f32>() + inputs.get("bias").map_or(0.0, |bias| bias.floats()[o])
    };
    let data = x.floats().chunks_exact(depth).flat_map(|row| (0..out).map(move |o| dot(row, o))).collect();
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("an axis") = out;
    Tensor { shape, data: Data::Floats(data) }
}

/// The product of the last two axes.
fn matmul(inputs: &Inputs<'_>) -> Tensor {
    let turned = |key: &str, turn: &str| {
        let x = inputs[key];
        let last = x.shape.len() - 1;
        let mut order: Vec<usize> = (0..=last).collect();
        if inputs[turn].bool() {
            order.swap(last - 1, last);
        }
        transpose(x, &order)
    };
    let (x, y) = (turned("x", "transpose_x"), turned("y", "transpose_y"));
    let last = x.shape.len() - 1;
    let (m, depth, n) = (x.shape[last - 1], x.shape[last], y.shape[last]);
    assert_eq!((&x.shape[..last - 1], depth), (&y.shape[..last - 1], y.shape[last - 1]));
    let mut data = Vec::new();
    for (a, b) in x.floats().chunks_exact(m * depth).zip(y.floats().chunks_exact(depth * n)) {
        for row in a.chunks_exact(depth) {
            let mut sums = vec![0.0f32; n];
            for (a, b) in row.iter().zip(b.chunks_exact(n)) {
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
            }
            data.extend(sums);
        }
    }
    Tensor { shape: [&x.shape[..last], &[n]].concat(), data: Data::Floats(data) }
}

/// `f` on all elements along one axis, for each place of the others.
fn along(x: &Tensor, axis: usize, f: &dyn Fn(&mut [f64])) -> Tensor {
    let (n, step) = (x.shape[axis], strides(&x.shape)[axis]);
    let mut data = x.floats().to_vec();
    for block in data.chunks_exact_mut(n * step) {
        for i in 0..step {
            let mut line: Vec<f64> = (0..n).map(|j| f64::from(block[j * step + i])).collect();
            f(&mut line);
            line.iter().enumerate().for_each(|(j, x)| block[j * step + i] = *x as f32);
        }
    }
    Tensor { shape: x.shape.clone(), data: Data::Floats(data) }
}

fn layer_norm(inputs: &Inputs<'_>) -> Tensor {
    let axes = sizes(inputs["axes"]);
    let &[axis] = &axes[..] else { panic!("one axis, not {axes:?}") };
    let epsilon = f64::from(inputs["epsilon"].floats()[0]);
    let part = |key: &str| inputs.get(key).map(|part| part.floats());
    let (gamma, beta) = (part("gamma"), part("beta"));
    along(inputs["x"], axis, &|line| {
        let n = line.len() as f64;
        let mean = line.iter().sum::<f64>() / n;
        let variance = line.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        for (i, x) in line.iter_mut().enumerate() {
            *x = (*x - mean) / (variance + epsilon).sqrt();
            *x *= gamma.map_or(1.0, |gamma| f64::from(gamma[i]));
            *x += beta.map_or(0.0, |beta| f64::from(beta[i]));
        }
    })
}

fn softmax(x: &Tensor, axis: i32) -> Tensor {
    let axis = if axis < 0 { x.shape.len() as i32 + axis } else { axis };
    along(x, axis as usize, &|line| {
        let max = line.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
        line.iter_mut().for_each(|x| *x = (*x - max).exp());
        let sum: f64 = line.iter().sum();
        line.iter_mut().for_each(|x| *x /= sum);
    })
}

fn reduce_mean(inputs: &Inputs<'_>) -> Tensor {
    let x = inputs["x"];
    assert_eq!(sizes(inputs["axes"]), [2, 3]);
    assert!(inputs["keep_dims"].bool() && x.shape.len() == 4);
    let pixels = x.shape[2] * x.shape[3];
    let mean = |plane: &[f32]| (plane.iter().map(|x| f64::from(*x)).sum::<f64>() / pixels as f64) as f32;
    let data = x.floats().chunks_exact(pixels).map(mean).collect();
    Tensor { shape: vec![x.shape[0], x.shape[1], 1, 1], data: Data::Floats(data) }
}

/// Along axis 1 of one item.
fn split(inputs: &Inputs<'_>) -> Vec<Tensor> {
    let (x, parts) = (inputs["x"], sizes(inputs["split_sizes"]));
    assert_eq!((inputs["axis"].ints(), x.shape[0]), (&[1][..], 1));
    assert_eq!(parts.iter().sum::<usize>(), x.shape[1]);
    let step = strides(&x.shape)[1];
    let mut first = 0;
    let mut part = |n: &usize| {
        let data = x.floats()[first * step..(first + n) * step].to_vec();
        first += n;
        Tensor { shape: [&[1, *n], &x.shape[2..]].concat(), data: Data::Floats(data) }
    };
    parts.iter().map(&mut part).collect()
}

/// Axis `i` of the result is axis `order[i]`.
fn transpose(x: &Tensor, order: &[usize]) -> Tensor {
    let shape: Vec<usize> = order.iter().map(|&axis| x.shape[axis]).collect();
    let (out, from) = (strides(&shape), strides(&x.shape));
    let at = |i: usize| -> usize {
        order.iter().enumerate().map(|(axis, &source)| i / out[axis] % shape[axis] * from[source]).sum()
    };
    let data = (0..x.floats().len()).map(|i| x.floats()[at(i)]).collect();
    Tensor { shape, data: Data::Floats(data) }
}
