//! Convolutions: 1x1 as a matrix product, dense ones through their patches, depthwise directly.

use rayon::prelude::*;

use super::matmul::linear;
use super::{Constants, Value};
use crate::{ChannelOrder, Op, Shape, SourceError};

/// Square kernel and its way over the picture.
#[derive(Clone, Copy)]
struct Window {
    k: usize,
    stride: usize,
    padding: usize,
}

pub(super) fn conv2d(op: &Op, x: &Value, constants: &mut Constants<'_>) -> Result<Vec<f32>, SourceError> {
    let (Op::Conv2d { weight, bias, stride, padding, groups, order }, Shape::Map { h, w, c }) = (op, x.shape) else {
        unreachable!("the shape rules admit only convolutions of maps");
    };
    let shape = constants.shape(*weight);
    let (out, window) = (shape[0], Window { k: shape[2], stride: *stride, padding: *padding });
    if *groups == 1 && (window.k, window.stride, window.padding) == (1, 1, 0) {
        return linear(&x.data, c, *weight, *bias, constants);
    }
    if *groups == 1 {
        let patches = patches(&x.data, (h, w, c), window);
        return linear(&patches, c * window.k * window.k, *weight, *bias, constants);
    }
    let kernel = constants.all(*weight)?;
    let bias = match bias {
        Some(bias) => constants.all(*bias)?.to_vec(),
        None => vec![0.0; out],
    };
    if out == c {
        return Ok(depthwise(&x.data, (h, w, c), &kernel, &bias, window));
    }
    // Several outputs for each input: the same as a convolution of an input with copies.
    let from = |o: usize| match order {
        ChannelOrder::Interleaved => o / (out / c),
        ChannelOrder::Planar => o % c,
    };
    let mut copies = vec![0.0; h * w * out];
    copies.par_chunks_exact_mut(out).zip(x.data.par_chunks_exact(c)).with_min_len(64).for_each(|(to, x)| {
        for (o, to) in to.iter_mut().enumerate() {
            *to = x[from(o)];
        }
    });
    Ok(depthwise(&copies, (h, w, out), &kernel, &bias, window))
}

impl Window {
    fn outputs(&self, n: usize) -> usize {
        (n + 2 * self.padding - self.k) / self.stride + 1
    }

    /// The input pixel under tap `t` of output `o`, if it is in the picture.
    fn pixel(&self, o: usize, t: usize, n: usize) -> Option<usize> {
        (o * self.stride + t).checked_sub(self.padding).filter(|i| *i < n)
    }
}

/// `[ho * wo, c * k * k]`, in the order of a kernel's row: channel, then y, then x.
fn patches(x: &[f32], (h, w, c): (usize, usize, usize), window: Window) -> Vec<f32> {
    let (ho, wo, k) = (window.outputs(h), window.outputs(w), window.k);
    let depth = c * k * k;
    let mut out = vec![0.0; ho * wo * depth];
    out.par_chunks_exact_mut(wo * depth).enumerate().for_each(|(oy, line)| {
        for (ox, patch) in line.chunks_exact_mut(depth).enumerate() {
            for ty in 0..k {
                let Some(iy) = window.pixel(oy, ty, h) else { continue };
                for tx in 0..k {
                    let Some(ix) = window.pixel(ox, tx, w) else { continue };
                    for ch in 0..c {
                        patch[(ch * k + ty) * k + tx] = x[(iy * w + ix) * c + ch];
                    }
                }
            }
        }
    });
    out
}

/// Kernel `[c, 1, k, k]`, one output for each input channel.
fn depthwise(x: &[f32], (h, w, c): (usize, usize, usize), kernel: &[f32], bias: &[f32], window: Window) -> Vec<f32> {
    let (ho, wo, k) = (window.outputs(h), window.outputs(w), window.k);
    // Taps first, so that the inner loop runs over neighboring channels.
    let mut taps = vec![0.0; k * k * c];
    for (ch, from) in kernel.chunks_exact(k * k).enumerate() {
        for (t, value) in from.iter().enumerate() {
            taps[t * c + ch] = *value;
        }
    }
    let mut out = vec![0.0; ho * wo * c];
    out.par_chunks_exact_mut(wo * c).enumerate().for_each(|(oy, line)| {
        for (ox, sums) in line.chunks_exact_mut(c).enumerate() {
            sums.copy_from_slice(bias);
            for ty in 0..k {
                let Some(iy) = window.pixel(oy, ty, h) else { continue };
                for tx in 0..k {
                    let Some(ix) = window.pixel(ox, tx, w) else { continue };
                    let pixel = &x[(iy * w + ix) * c..][..c];
                    let tap = &taps[(ty * k + tx) * c..][..c];
                    for ((sum, x), w) in sums.iter_mut().zip(pixel).zip(tap) {
                        *sum += x * w;
                    }
                }
            }
        }
    });
    out
}
