//! The ops. Their shape rules are in `infer`, their meaning in `eval`.

use serde::{Deserialize, Serialize};

use crate::{Graph, WeightId};

/// What a node computes from its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The graph's only input: an image of u8 values as f32 (0..=255), or decoder rows.
    Input,
    /// Cross-correlation with zero padding.
    Conv2d {
        /// `[out, in / groups, k, k]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
        /// Distance of neighboring outputs, in input pixels.
        stride: usize,
        /// Rows and columns of zeros on every side.
        padding: usize,
        /// 1 (dense) or the number of input channels (depthwise).
        groups: usize,
        /// Which input an output channel reads, where a depthwise convolution has more outputs.
        order: ChannelOrder,
    },
    /// `(x - mean) * gamma / sqrt(var + eps) + beta` per channel; all `[c]`.
    BatchNorm {
        /// Factor.
        gamma: WeightId,
        /// Offset.
        beta: WeightId,
        /// Running mean.
        mean: WeightId,
        /// Running variance.
        var: WeightId,
        /// Added to the variance.
        eps: f64,
    },
    /// `x * gamma` per channel; gamma is `[c]`.
    LayerScale {
        /// Factor.
        gamma: WeightId,
    },
    /// Every row to mean 0 and variance 1 (biased), then optionally `* gain + bias`, both `[c]`.
    LayerNorm {
        /// Gain and bias.
        affine: Option<(WeightId, WeightId)>,
        /// Added to the variance.
        eps: f64,
    },
    /// Every row divided by `sqrt(mean(x^2) + eps)`, then optionally times gain `[c]`.
    RmsNorm {
        /// Factor per channel.
        gain: Option<WeightId>,
        /// Added to the mean square.
        eps: f64,
    },
    /// `x W^T + b` on every row; weight `[out, in]`, bias `[out]`.
    Linear {
        /// `[out, in]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
    },
    /// A function of each element.
    Activation(Activation),
    /// Every element times a constant.
    Scale {
        /// The constant.
        by: f64,
    },
    /// Sum of two values of one shape.
    Add,
    /// Product of two values of one shape, element by element.
    Mul,
    /// `[n, 2f] -> [n, f]`, `f` a multiple of 16. Blocks of 16 columns alternate gate and up:
    /// `out[16j + l] = silu(x[32j + l]) * x[32j + 16 + l]`.
    SwiGlu,
    /// `x * sigmoid(expand(relu(reduce(mean of x over all pixels))))` per channel.
    SqueezeExcite {
        /// Weight `[r, c]` and bias `[r]`.
        reduce: (WeightId, WeightId),
        /// Weight `[c, r]` and bias `[c]`.
        expand: (WeightId, WeightId),
    },
    /// `[h, w, c] -> [h * w, c]`, row-major.
    Flatten,
    /// `[n, c] -> [1, c]`: the last row.
    LastRow,
    /// Token ids `[n, 1]` to rows of a table `[vocab, c]`.
    Embed {
        /// `[vocab, c]`.
        table: WeightId,
    },
    /// Index of the largest value of each row, the first among equals: `[n, c] -> [n, 1]`.
    ArgMax,
    /// Rotary positions, half split: channel `i` of a head pairs with `i + head_dim / 2`, and the
    /// angle is `position * theta^(-2i / head_dim)`. Columns past `heads * head_dim` pass through.
    Rope {
        /// Leading heads that are rotated.
        heads: usize,
        /// Channels of a head; even.
        head_dim: usize,
        /// Base of the frequencies.
        theta: f64,
    },
    /// `softmax(scale * q k^T) v` per head, heads concatenated. Inputs are q, k and v, or one
    /// value that holds `[q | k | v]` in its columns. Query head `i` reads key/value head
    /// `i / (heads / kv_heads)`.
    Attention {
        /// Query heads.
        heads: usize,
        /// Key and value heads; divides `heads`.
        kv_heads: usize,
        /// Channels of a head.
        head_dim: usize,
        /// Factor of the scores.
        scale: f64,
        /// A row sees only rows at its own position and before.
        causal: bool,
        /// Keys and values are appended to this cache and read from it.
        cache: Option<usize>,
    },
    /// A group of ops that a target computes as one step. The body has one input.
    Region {
        /// Which group this is.
        kind: RegionKind,
        /// The ops; the last node is the result.
        body: Box<Graph>,
    },
}

/// Functions of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x * (1 + erf(x / sqrt(2))) / 2`, exact.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// Order of the outputs of a depthwise convolution with `m` outputs for each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelOrder {
    /// Output `o` reads input `o / m`. The checkpoint's order.
    Interleaved,
    /// Output `o` reads input `o % inputs`, so that neighbors read neighbors. It is the
    /// interleaved output `m * (o % inputs) + o / inputs`.
    Planar,
}

/// The groups that pass `fuse` makes; see there for their bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionKind {
    /// 3x3 stride 2, depthwise 3x3 stride 2 and 1x1 convolution, each with GELU.
    Stem,
    /// Depthwise 7x7 stride 2 that doubles the channels, 1x1, each with GELU.
    PatchEmbed,
    /// Depthwise 7x7, 1x1, GELU, 1x1, plus the input.
    ConvFfn,
    /// LayerNorm, qkv, attention, projection, plus the input.
    Attention,
    /// Depthwise 3x3 that doubles the channels, squeeze and excite, GELU.
    FinalConv,
    /// Linear, GELU, linear.
    Projector,
    /// RMSNorm, qkv, rotary positions, causal attention, projection, plus the input.
    DecoderAttention,
    /// RMSNorm, gate and up, SwiGLU, down, plus the input.
    Mlp,
    /// The last row's RMSNorm and logits.
    Head,
}

/// What a weight is to its op; names the weight in messages and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kernel or matrix.
    Weight,
    /// Offset of the outputs.
    Bias,
    /// Factor of a norm or a layer scale.
    Gain,
    /// Running mean.
    Mean,
    /// Running variance.
    Var,
    /// Squeeze-and-excite's first matrix.
    ReduceWeight,
    /// Squeeze-and-excite's first bias.
    ReduceBias,
    /// Squeeze-and-excite's second matrix.
    ExpandWeight,
    /// Squeeze-and-excite's second bias.
    ExpandBias,
    /// Embedding table.
    Table,
}

impl Op {
    /// The op's name as in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "Input",
            Op::Conv2d { .. } => "Conv2d",
            Op::BatchNorm { .. } => "BatchNorm",
            Op::LayerScale { .. } => "LayerScale",
            Op::LayerNorm { .. } => "LayerNorm",
            Op::RmsNorm { .. } => "RmsNorm",
            Op::Linear { .. } => "Linear",
            Op::Activation(_) => "Activation",
            Op::Scale { .. } => "Scale",
            Op::Add => "Add",
            Op::Mul => "Mul",
            Op::SwiGlu => "SwiGlu",
            Op::SqueezeExcite { .. } => "SqueezeExcite",
            Op::Flatten => "Flatten",
            Op::LastRow => "LastRow",
            Op::Embed { .. } => "Embed",
            Op::ArgMax => "ArgMax",
            Op::Rope { .. } => "Rope",
            Op::Attention { .. } => "Attention",
            Op::Region { .. } => "Region",
        }
    }

    /// The op's own weights with their roles; a region's are those of its body's nodes.
    pub fn weights(&self) -> Vec<(Role, WeightId)> {
        let with_bias = |weight: &WeightId, bias: &Option<WeightId>| {
            let bias = bias.map(|b| (Role::Bias, b));
            std::iter::once((Role::Weight, *weight)).chain(bias).collect()
        };
        match self {
            Op::Conv2d { weight, bias, .. } | Op::Linear { weight, bias } => with_bias(weight, bias),
            Op::BatchNorm { gamma, beta, mean, var, .. } => {
                vec![(Role::Gain, *gamma), (Role::Bias, *beta), (Role::Mean, *mean), (Role::Var, *var)]
            }
            Op::LayerScale { gamma } => vec![(Role::Gain, *gamma)],
            Op::LayerNorm { affine: Some((gain, bias)), .. } => vec![(Role::Gain, *gain), (Role::Bias, *bias)],
            Op::RmsNorm { gain: Some(gain), .. } => vec![(Role::Gain, *gain)],
            Op::SqueezeExcite { reduce, expand } => vec![
                (Role::ReduceWeight, reduce.0),
                (Role::ReduceBias, reduce.1),
                (Role::ExpandWeight, expand.0),
                (Role::ExpandBias, expand.1),
            ],
            Op::Embed { table } => vec![(Role::Table, *table)],
            Op::LayerNorm { affine: None, .. }
            | Op::RmsNorm { gain: None, .. }
            | Op::Input
            | Op::Activation(_)
            | Op::Scale { .. }
            | Op::Add
            | Op::Mul
            | Op::SwiGlu
            | Op::Flatten
            | Op::LastRow
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::Region { .. } => Vec::new(),
        }
    }
}

impl Role {
    /// The role's word, as in `vision.stem.0: weight is ...`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Weight => "weight",
            Role::Bias => "bias",
            Role::Gain => "gain",
            Role::Mean => "mean",
            Role::Var => "var",
            Role::ReduceWeight => "reduce.weight",
            Role::ReduceBias => "reduce.bias",
            Role::ExpandWeight => "expand.weight",
            Role::ExpandBias => "expand.bias",
            Role::Table => "table",
        }
    }
}
