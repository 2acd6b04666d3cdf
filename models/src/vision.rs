//! FastViTHD and the projector as a graph, in the folded and in the train form.
//!
//! The last node of a module has the module's name, so that both forms, and the graphs after
//! re-parameterization, have the same names where they compute the same values.

use ir::{Activation, ChannelOrder, DType, Graph, NodeId, Op, Shape, Weights};

use crate::builder::{BuildError, Builder, check};
use crate::names::{PROJECTOR, TOWER};
use crate::{Description, VisionForm};

/// Channels of an attention head.
pub(crate) const HEAD_DIM: usize = 32;
/// Epsilon of every BatchNorm and LayerNorm of the tower.
const EPS: f64 = 1e-5;
/// Channels of a row of the final convolution for each one of its squeeze-and-excite.
const SQUEEZE: usize = 16;

/// The graph `vision`: an image `[side, side, 3]` of u8 values (as f32, 0..=255) to rows
/// `[tokens, hidden]` in the decoder's space.
pub fn vision(description: &Description, weights: &mut Weights) -> Result<Graph, BuildError> {
    check(description)?;
    let (v, image) = (&description.vision, &description.image);
    let builder = Builder::new("vision", description, weights);
    let mut t = Tower { b: builder, form: v.form };
    let shape = Shape::Map { h: v.side, w: v.side, c: 3 };
    let mut x = t.b.graph.input("image", shape, DType::F32);
    x = t.b.node("vision.rescale", Op::Scale { by: image.rescale }, &[x])?;
    if image.std != [1.0; 3] {
        let gamma = t.b.weights.values(image.std.iter().map(|s| 1.0 / s).collect());
        x = t.b.node("vision.normalize", Op::LayerScale { gamma }, &[x])?;
    }
    x = t.stem(v.dims[0], x)?;
    for (stage, (&c, &depth)) in v.dims.iter().zip(&v.depths).enumerate() {
        if stage > 0 {
            x = t.downsample(stage, (v.dims[stage - 1], c), x)?;
        }
        if stage >= 3 {
            x = t.position_encoding(stage, c, x)?;
        }
        for block in 0..depth {
            let name = format!("vision.stage{stage}.{block}");
            let tensor = format!("{TOWER}stages.{stage}.blocks.{block}");
            x = if stage < 3 {
                let mixed = t.mixer(&name, &format!("{tensor}.token_mixer"), c, x)?;
                t.mlp(&name, &tensor, "layer_scale", c, mixed)?
            } else {
                let mixed = t.attention(&name, &tensor, c, x)?;
                t.mlp(&name, &tensor, "layer_scale_2", c, mixed)?
            };
        }
    }
    x = t.final_conv(v.dims[4], x)?;
    x = t.b.node("vision.flatten", Op::Flatten, &[x])?;
    t.projector(v.features(), description.text.hidden, x)?;
    Ok(t.b.graph)
}

/// Geometry of a convolution from `inputs` to `out` channels.
#[derive(Clone, Copy)]
struct Conv {
    inputs: usize,
    out: usize,
    k: usize,
    stride: usize,
    depthwise: bool,
}

/// Which branches a MobileOne module has beside its convolution.
#[derive(Clone, Copy)]
struct Branches {
    scale: bool,
    identity: bool,
}

struct Tower<'a> {
    b: Builder<'a>,
    form: VisionForm,
}

impl Tower<'_> {
    fn stem(&mut self, c: usize, mut x: NodeId) -> Result<NodeId, BuildError> {
        let parts = [
            (Conv { inputs: 3, out: c, k: 3, stride: 2, depthwise: false }, false),
            (Conv { inputs: c, out: c, k: 3, stride: 2, depthwise: true }, false),
            (Conv { inputs: c, out: c, k: 1, stride: 1, depthwise: false }, true),
        ];
        for (i, (conv, identity)) in parts.into_iter().enumerate() {
            let (name, tensor) = (format!("vision.stem.{i}"), format!("{TOWER}stem.{i}"));
            x = self.mobile_one(&name, &tensor, conv, Branches { scale: false, identity }, x)?;
            x = self.gelu(format!("{name}.act"), x)?;
        }
        Ok(x)
    }

    fn downsample(&mut self, stage: usize, (inputs, c): (usize, usize), x: NodeId) -> Result<NodeId, BuildError> {
        let name = format!("vision.stage{stage}.downsample");
        let tensor = format!("{TOWER}stages.{stage}.downsample.proj");
        let large = Conv { inputs, out: c, k: 7, stride: 2, depthwise: true };
        let (first, tensor_0) = (format!("{name}.0"), format!("{tensor}.0"));
        let x = match self.form {
            VisionForm::Folded => self.conv(first.clone(), &format!("{tensor_0}.reparam_conv"), large, true, x)?,
            VisionForm::Train => {
                let a = self.conv_bn(&format!("{first}.large"), &format!("{tensor_0}.large_conv"), large, x)?;
                let small = Conv { k: 3, ..large };
                let b = self.conv_bn(&format!("{first}.small"), &format!("{tensor_0}.small_conv"), small, x)?;
                self.b.node(first.clone(), Op::Add, &[a, b])?
            }
        };
        let x = self.gelu(format!("{first}.act"), x)?;
        let point = Conv { inputs: c, out: c, k: 1, stride: 1, depthwise: false };
        let branches = Branches { scale: false, identity: true };
        let x = self.mobile_one(&format!("{name}.1"), &format!("{tensor}.1"), point, branches, x)?;
        self.gelu(format!("{name}.1.act"), x)
    }

    /// A depthwise convolution plus its input.
    fn position_encoding(&mut self, stage: usize, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let name = format!("vision.stage{stage}.pos_emb");
        let tensor = format!("{TOWER}stages.{stage}.pos_emb");
        let conv = Conv { inputs: c, out: c, k: 7, stride: 1, depthwise: true };
        match self.form {
            VisionForm::Folded => self.conv(name, &format!("{tensor}.reparam_conv"), conv, true, x),
            VisionForm::Train => {
                let encoding = self.conv(format!("{name}.conv"), &format!("{tensor}.pos_enc"), conv, true, x)?;
                self.b.node(name, Op::Add, &[x, encoding])
            }
        }
    }

    /// RepMixer: `x + gamma * (mixer(x) - norm(x))`.
    fn mixer(&mut self, block: &str, tensor: &str, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let name = format!("{block}.mixer");
        let conv = Conv { inputs: c, out: c, k: 3, stride: 1, depthwise: true };
        match self.form {
            VisionForm::Folded => self.conv(name, &format!("{tensor}.reparam_conv"), conv, true, x),
            VisionForm::Train => {
                let branches = Branches { scale: true, identity: true };
                let mixed = self.mobile_one(&format!("{name}.mixer"), &format!("{tensor}.mixer"), conv, branches, x)?;
                let norm = self.batch_norm(format!("{name}.norm"), &format!("{tensor}.norm.identity"), c, x)?;
                let minus = self.b.node(format!("{name}.minus"), Op::Scale { by: -1.0 }, &[norm])?;
                let difference = self.b.node(format!("{name}.difference"), Op::Add, &[mixed, minus])?;
                let scaled =
                    self.layer_scale(format!("{name}.scale"), &format!("{tensor}.layer_scale"), c, difference)?;
                self.b.node(name, Op::Add, &[x, scaled])
            }
        }
    }

    /// ConvFFN: `x + gamma * fc2(gelu(fc1(bn(dw7x7(x)))))`.
    fn mlp(&mut self, block: &str, tensor: &str, scale: &str, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let name = format!("{block}.mlp");
        let conv = Conv { inputs: c, out: c, k: 7, stride: 1, depthwise: true };
        let y = self.conv_bn(&format!("{name}.dw"), &format!("{tensor}.mlp.conv"), conv, x)?;
        let point = |inputs, out| Conv { inputs, out, k: 1, stride: 1, depthwise: false };
        let y = self.conv(format!("{name}.fc1"), &format!("{tensor}.mlp.fc1"), point(c, 4 * c), true, y)?;
        let y = self.gelu(format!("{name}.act"), y)?;
        let y = self.conv(format!("{name}.fc2"), &format!("{tensor}.mlp.fc2"), point(4 * c, c), true, y)?;
        let y = self.layer_scale(format!("{name}.scale"), &format!("{tensor}.{scale}"), c, y)?;
        self.b.node(format!("{name}.add"), Op::Add, &[x, y])
    }

    /// `x + gamma * proj(attention(qkv(layer_norm(x))))`; the rows are the pixels.
    fn attention(&mut self, block: &str, tensor: &str, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let name = format!("{block}.attn");
        let gain = self.b.tensor(&format!("{tensor}.norm.weight"), &[c]);
        let bias = self.b.tensor(&format!("{tensor}.norm.bias"), &[c]);
        let norm = Op::LayerNorm { affine: Some((gain, bias)), eps: EPS };
        let y = self.b.node(format!("{name}.norm"), norm, &[x])?;
        let mixer = format!("{tensor}.token_mixer");
        let y = self.b.linear(format!("{name}.qkv"), &format!("{mixer}.qkv"), (3 * c, c), false, y)?;
        let heads = c / HEAD_DIM;
        let scale = (HEAD_DIM as f64).powf(-0.5);
        let op = Op::Attention { heads, kv_heads: heads, head_dim: HEAD_DIM, scale, causal: false, cache: None };
        let y = self.b.node(format!("{name}.attention"), op, &[y])?;
        let y = self.b.linear(format!("{name}.proj"), &format!("{mixer}.proj"), (c, c), true, y)?;
        let y = self.layer_scale(format!("{name}.scale"), &format!("{tensor}.layer_scale_1"), c, y)?;
        self.b.node(format!("{name}.add"), Op::Add, &[x, y])
    }

    fn final_conv(&mut self, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let (name, tensor, out) = ("vision.final_conv", format!("{TOWER}final_conv"), 2 * c);
        let conv = Conv { inputs: c, out, k: 3, stride: 1, depthwise: true };
        let branches = Branches { scale: true, identity: false };
        let x = self.mobile_one(&format!("{name}.dw"), &tensor, conv, branches, x)?;
        let r = (out + SQUEEZE / 2) / SQUEEZE;
        let reduce = self.point_weights(&format!("{tensor}.se.fc1"), r, out)?;
        let expand = self.point_weights(&format!("{tensor}.se.fc2"), out, r)?;
        let x = self.b.node(format!("{name}.se"), Op::SqueezeExcite { reduce, expand }, &[x])?;
        self.gelu(format!("{name}.act"), x)
    }

    fn projector(&mut self, features: usize, hidden: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let x = self.b.linear("projector.fc1", &format!("{PROJECTOR}linear_1"), (hidden, features), true, x)?;
        let x = self.gelu("projector.act".into(), x)?;
        self.b.linear("projector.fc2", &format!("{PROJECTOR}linear_2"), (hidden, hidden), true, x)
    }

    /// A module that is one convolution when folded and parallel branches in training.
    fn mobile_one(
        &mut self,
        name: &str,
        tensor: &str,
        conv: Conv,
        branches: Branches,
        x: NodeId,
    ) -> Result<NodeId, BuildError> {
        if self.form == VisionForm::Folded {
            return self.conv(name.to_string(), &format!("{tensor}.reparam_conv"), conv, true, x);
        }
        // The last branch, or the sum of all, gets the module's name.
        let more = usize::from(branches.scale) + usize::from(branches.identity);
        let kxk = if more == 0 { name.to_string() } else { format!("{name}.kxk") };
        let mut sum = self.conv_bn(&kxk, &format!("{tensor}.conv_kxk.0"), conv, x)?;
        if branches.scale {
            let small = Conv { k: 1, ..conv };
            let scale = self.conv_bn(&format!("{name}.branch"), &format!("{tensor}.conv_scale"), small, x)?;
            let total = if branches.identity { format!("{name}.sum") } else { name.to_string() };
            sum = self.b.node(total, Op::Add, &[sum, scale])?;
        }
        if branches.identity {
            let identity = self.batch_norm(format!("{name}.identity"), &format!("{tensor}.identity"), conv.out, x)?;
            sum = self.b.node(name, Op::Add, &[sum, identity])?;
        }
        Ok(sum)
    }

    /// `{tensor}.conv` without bias, then `{tensor}.bn`.
    fn conv_bn(&mut self, name: &str, tensor: &str, conv: Conv, x: NodeId) -> Result<NodeId, BuildError> {
        let x = self.conv(format!("{name}.conv"), &format!("{tensor}.conv"), conv, false, x)?;
        self.batch_norm(name.to_string(), &format!("{tensor}.bn"), conv.out, x)
    }

    fn conv(&mut self, name: String, tensor: &str, c: Conv, with_bias: bool, x: NodeId) -> Result<NodeId, BuildError> {
        let (groups, per_group) = if c.depthwise { (c.inputs, 1) } else { (1, c.inputs) };
        let weight = self.b.tensor(&format!("{tensor}.weight"), &[c.out, per_group, c.k, c.k]);
        let bias = with_bias.then(|| self.b.tensor(&format!("{tensor}.bias"), &[c.out]));
        let (stride, padding, order) = (c.stride, c.k / 2, ChannelOrder::Interleaved);
        self.b.node(name, Op::Conv2d { weight, bias, stride, padding, groups, order }, &[x])
    }

    fn batch_norm(&mut self, name: String, tensor: &str, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let mut part = |part: &str| self.b.tensor(&format!("{tensor}.{part}"), &[c]);
        let (gamma, beta) = (part("weight"), part("bias"));
        let (mean, var) = (part("running_mean"), part("running_var"));
        self.b.node(name, Op::BatchNorm { gamma, beta, mean, var, eps: EPS }, &[x])
    }

    /// `{tensor}.gamma`, stored as `[c, 1, 1]`.
    fn layer_scale(&mut self, name: String, tensor: &str, c: usize, x: NodeId) -> Result<NodeId, BuildError> {
        let stored = self.b.tensor(&format!("{tensor}.gamma"), &[c, 1, 1]);
        let gamma = self.b.weights.reshape(stored, &[c])?;
        self.b.node(name, Op::LayerScale { gamma }, &[x])
    }

    /// A 1x1 convolution's weight as a matrix, and its bias.
    fn point_weights(
        &mut self,
        tensor: &str,
        out: usize,
        inputs: usize,
    ) -> Result<(ir::WeightId, ir::WeightId), BuildError> {
        let stored = self.b.tensor(&format!("{tensor}.weight"), &[out, inputs, 1, 1]);
        let weight = self.b.weights.reshape(stored, &[out, inputs])?;
        Ok((weight, self.b.tensor(&format!("{tensor}.bias"), &[out])))
    }

    fn gelu(&mut self, name: String, x: NodeId) -> Result<NodeId, BuildError> {
        self.b.node(name, Op::Activation(Activation::Gelu), &[x])
    }
}
