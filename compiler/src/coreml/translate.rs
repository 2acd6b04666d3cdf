//! The graph of the vision tower as a MIL program, op by op.
//!
//! Maps `[h, w, c]` become tensors `[1, c, h, w]` and rows `[n, c]` become `[1, n, c]`, all of 16-bit floats; the input and the
//! result are 32-bit ones. A linear on a map is a 1x1 convolution and attention works on channels first, so that nothing is
//! transposed before the rows of the result are.
//!
//! The graph is the one after `reparameterize`. Later passes move layer scales and the scales of image and attention into
//! weights, which costs nothing in 32 bits; in 16 bits it would push weights towards numbers that have few digits left.

use ir::{Activation, Axis, ChannelOrder, Graph, Node, Op, Shape, WeightId, Weights};

use super::blob::Blobs;
use super::mil::{Builder, Var};
use super::proto::{DataType, Program};

/// Name of the model's input.
pub const INPUT: &str = "image";
/// Name of the model's output.
pub const OUTPUT: &str = "rows";

/// A node that has no translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untranslated {
    /// The node.
    pub node: String,
    /// What it is, and what is known instead.
    pub reason: String,
}

/// The program of a graph from an image to rows, and the weights that it refers to.
///
/// # Errors
/// An op that no vision tower has, or a constant that is no 16-bit float.
pub fn translate(graph: &Graph, weights: &Weights) -> Result<(Program, Blobs), Untranslated> {
    let mut t = Translation { b: Builder::default(), weights, values: Vec::new() };
    let mut image = None;
    for (id, node) in graph.nodes() {
        let inputs: Vec<Var> = graph.inputs(id).iter().map(|input| t.values[input.number()].clone()).collect();
        let value = match (&node.op, &inputs[..]) {
            (Op::Input, _) => {
                let given = t.b.input(INPUT, &shape(node)?);
                let value = t.cast(&node.name, &given, DataType::Float16);
                image = Some(given);
                value
            }
            (_, inputs) => t.node(node, inputs)?,
        };
        t.values.push(value);
    }
    let (Some(image), Some(last)) = (image, t.values.last().cloned()) else {
        return Err(Untranslated { node: graph.name.clone(), reason: "a graph without an input".to_string() });
    };
    let rows = t.cast(OUTPUT, &last, DataType::Float32);
    Ok(t.b.finish(&image, &rows))
}

struct Translation<'a> {
    b: Builder,
    weights: &'a Weights,
    /// Of each node.
    values: Vec<Var>,
}

impl Translation<'_> {
    fn node(&mut self, node: &Node, inputs: &[Var]) -> Result<Var, Untranslated> {
        let [x, rest @ ..] = inputs else { return refuse(node, "reads nothing") };
        match &node.op {
            Op::Conv2d { .. } => self.conv2d(node, x),
            Op::LayerScale { gamma } => self.layer_scale(node, x, *gamma),
            Op::LayerNorm { affine, eps } => self.layer_norm(node, x, *affine, *eps),
            Op::Linear { weight, bias } => self.linear(node, x, *weight, *bias),
            Op::Activation(kind) => self.activation(node, x, *kind),
            Op::Scale { by } => self.scale(node, x, *by),
            Op::Add => self.pair("add", node, x, rest),
            Op::Mul => self.pair("mul", node, x, rest),
            Op::SqueezeExcite { reduce, expand } => self.squeeze_excite(node, x, *reduce, *expand),
            Op::Flatten => self.flatten(node, x),
            Op::Attention { .. } => self.attention(node, x),
            Op::Input
            | Op::BatchNorm { .. }
            | Op::RmsNorm { .. }
            | Op::SwiGlu
            | Op::LastRow
            | Op::Embed { .. }
            | Op::ArgMax
            | Op::Rope { .. }
            | Op::Region { .. } => refuse(node, "no op of a vision tower in its folded form"),
        }
    }

    fn conv2d(&mut self, node: &Node, x: &Var) -> Result<Var, Untranslated> {
        let Op::Conv2d { weight, bias, stride, padding, groups, order } = &node.op else {
            return refuse(node, "is no convolution");
        };
        if *order != ChannelOrder::Interleaved {
            return refuse(node, "has its channels in planar order, which Core ML does not have");
        }
        let out = shape(node)?;
        Ok(self.conv(&node.name, x, (*weight, *bias), (*stride, *padding, *groups), &out))
    }

    /// A convolution of a map; a matrix is a kernel of 1x1.
    fn conv(
        &mut self,
        name: &str,
        x: &Var,
        (weight, bias): (WeightId, Option<WeightId>),
        (stride, padding, groups): (usize, usize, usize),
        out: &[usize],
    ) -> Var {
        let mut kernel = self.weights.shape(weight).to_vec();
        kernel.resize(4, 1);
        let weight = self.b.weight(&format!("{name}.weight"), &format!("{name}.weight"), weight, &kernel);
        let bias = bias.map(|bias| self.b.weight(&format!("{name}.bias"), &format!("{name}.bias"), bias, &kernel[..1]));
        let strides = self.b.ints(&format!("{name}.strides"), &[stride; 2]);
        let pad_type = self.b.word(&format!("{name}.pad_type"), "custom");
        let pad = self.b.ints(&format!("{name}.pad"), &[padding; 4]);
        let dilations = self.b.ints(&format!("{name}.dilations"), &[1; 2]);
        let groups = self.b.int(&format!("{name}.groups"), groups as i32);
        let mut inputs = vec![
            ("x", x),
            ("weight", &weight),
            ("strides", &strides),
            ("pad_type", &pad_type),
            ("pad", &pad),
            ("dilations", &dilations),
            ("groups", &groups),
        ];
        inputs.extend(bias.as_ref().map(|bias| ("bias", bias)));
        self.b.op("conv", name, &inputs, DataType::Float16, out)
    }

    fn layer_scale(&mut self, node: &Node, x: &Var, gamma: WeightId) -> Result<Var, Untranslated> {
        let out = shape(node)?;
        // Of the same rank, with one element for each channel.
        let along = channel_axis(&out);
        let wide: Vec<usize> = out.iter().enumerate().map(|(i, &n)| if i == along { n } else { 1 }).collect();
        let whose = format!("{}.gamma", node.name);
        let gamma = self.b.weight(&whose, &whose, gamma, &wide);
        Ok(self.b.op("mul", &node.name, &[("x", x), ("y", &gamma)], DataType::Float16, &out))
    }

    fn layer_norm(
        &mut self,
        node: &Node,
        x: &Var,
        affine: Option<(WeightId, WeightId)>,
        eps: f64,
    ) -> Result<Var, Untranslated> {
        let (name, out) = (&node.name, shape(node)?);
        let along = channel_axis(&out);
        let axes = self.b.ints(&format!("{name}.axes"), &[along]);
        let epsilon = self.half(node, "epsilon", eps)?;
        let affine = affine.map(|(gain, bias)| {
            let mut part = |part: &str, id| {
                let whose = format!("{name}.{part}");
                self.b.weight(&whose, &whose, id, &out[along..=along])
            };
            [part("gamma", gain), part("beta", bias)]
        });
        let mut inputs = vec![("x", x), ("axes", &axes), ("epsilon", &epsilon)];
        if let Some([gamma, beta]) = &affine {
            inputs.extend([("gamma", gamma), ("beta", beta)]);
        }
        Ok(self.b.op("layer_norm", name, &inputs, DataType::Float16, &out))
    }

    fn linear(&mut self, node: &Node, x: &Var, weight: WeightId, bias: Option<WeightId>) -> Result<Var, Untranslated> {
        let (name, out) = (&node.name, shape(node)?);
        if out.len() == 4 {
            return Ok(self.conv(name, x, (weight, bias), (1, 0, 1), &out));
        }
        let matrix = self.weights.shape(weight).to_vec();
        let weight = self.b.weight(&format!("{name}.weight"), &format!("{name}.weight"), weight, &matrix);
        let bias = bias.map(|bias| self.b.weight(&format!("{name}.bias"), &format!("{name}.bias"), bias, &matrix[..1]));
        let mut inputs = vec![("x", x), ("weight", &weight)];
        inputs.extend(bias.as_ref().map(|bias| ("bias", bias)));
        Ok(self.b.op("linear", name, &inputs, DataType::Float16, &out))
    }

    fn activation(&mut self, node: &Node, x: &Var, kind: Activation) -> Result<Var, Untranslated> {
        let (name, out) = (&node.name, shape(node)?);
        let kind = match kind {
            Activation::Gelu => {
                let mode = self.b.word(&format!("{name}.mode"), "EXACT");
                return Ok(self.b.op("gelu", name, &[("x", x), ("mode", &mode)], DataType::Float16, &out));
            }
            Activation::Silu => "silu",
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
        };
        Ok(self.b.op(kind, name, &[("x", x)], DataType::Float16, &out))
    }

    fn scale(&mut self, node: &Node, x: &Var, by: f64) -> Result<Var, Untranslated> {
        let by = self.half(node, "by", by)?;
        Ok(self.b.op("mul", &node.name, &[("x", x), ("y", &by)], DataType::Float16, &shape(node)?))
    }

    /// `add` or `mul` of two values of one shape.
    fn pair(&mut self, kind: &str, node: &Node, x: &Var, rest: &[Var]) -> Result<Var, Untranslated> {
        let [y] = rest else { return refuse(node, "reads one value, two were expected") };
        Ok(self.b.op(kind, &node.name, &[("x", x), ("y", y)], DataType::Float16, &shape(node)?))
    }

    fn squeeze_excite(
        &mut self,
        node: &Node,
        x: &Var,
        reduce: (WeightId, WeightId),
        expand: (WeightId, WeightId),
    ) -> Result<Var, Untranslated> {
        let (name, out) = (&node.name, shape(node)?);
        if out.len() != 4 {
            return refuse(node, "is of rows, a map was expected");
        }
        let (c, r) = (out[1], self.weights.shape(reduce.0)[0]);
        let axes = self.b.ints(&format!("{name}.axes"), &[2, 3]);
        let keep = self.b.bool(&format!("{name}.keep_dims"), true);
        let inputs = [("x", x), ("axes", &axes), ("keep_dims", &keep)];
        let mean = self.b.op("reduce_mean", &format!("{name}.mean"), &inputs, DataType::Float16, &[1, c, 1, 1]);
        let pointwise = (1, 0, 1);
        let few = self.conv(&format!("{name}.reduce"), &mean, (reduce.0, Some(reduce.1)), pointwise, &[1, r, 1, 1]);
        let few = self.b.op("relu", &format!("{name}.relu"), &[("x", &few)], DataType::Float16, &[1, r, 1, 1]);
        let all = self.conv(&format!("{name}.expand"), &few, (expand.0, Some(expand.1)), pointwise, &[1, c, 1, 1]);
        let gate = self.b.op("sigmoid", &format!("{name}.gate"), &[("x", &all)], DataType::Float16, &[1, c, 1, 1]);
        Ok(self.b.op("mul", name, &[("x", x), ("y", &gate)], DataType::Float16, &out))
    }

    fn flatten(&mut self, node: &Node, x: &Var) -> Result<Var, Untranslated> {
        let (name, out) = (&node.name, shape(node)?);
        let channels_first = [1, out[2], out[1]];
        let columns = self.reshape(&format!("{name}.columns"), x, &channels_first);
        let perm = self.b.ints(&format!("{name}.perm"), &[0, 2, 1]);
        Ok(self.b.op("transpose", name, &[("x", &columns), ("perm", &perm)], DataType::Float16, &out))
    }

    /// Attention without a mask on `[q | k | v]` in the channels of a map: scores `[1, heads, queries, keys]`.
    fn attention(&mut self, node: &Node, x: &Var) -> Result<Var, Untranslated> {
        let Op::Attention { heads, kv_heads, head_dim, scale, causal, cache } = &node.op else {
            return refuse(node, "is no attention");
        };
        let (name, out) = (&node.name, shape(node)?);
        let width = heads * head_dim;
        let known = kv_heads == heads && !causal && cache.is_none();
        let &[1, c, h, w] = &out[..] else { return refuse(node, "is of rows, a map was expected") };
        if !known || c != width || x.shape[1] != 3 * width {
            return refuse(node, "is not that of a vision tower: all heads see all rows of one map with q, k and v");
        }
        let sizes = self.b.ints(&format!("{name}.split_sizes"), &[width; 3]);
        let axis = self.b.int(&format!("{name}.channels"), 1);
        let names = ["q", "k", "v"].map(|part| format!("{name}.{part}"));
        let inputs = [("x", x), ("split_sizes", &sizes), ("axis", &axis)];
        let parts = self.b.ops("split", &names, &inputs, &[1, width, h, w]);
        let by_head = [1, *heads, *head_dim, h * w];
        let mut heads_of = |i: usize| self.reshape(&format!("{}.heads", names[i]), &parts[i], &by_head);
        let [mut q, k, v] = [heads_of(0), heads_of(1), heads_of(2)];
        if *scale != 1.0 {
            // Before the product, whose sums would be larger otherwise.
            let by = self.half(node, "scale", *scale)?;
            q = self.b.op("mul", &format!("{name}.scaled"), &[("x", &q), ("y", &by)], DataType::Float16, &by_head);
        }
        let square = [1, *heads, h * w, h * w];
        let scores = self.matmul(&format!("{name}.scores"), (&q, true), (&k, false), &square);
        let last = self.b.int(&format!("{name}.keys"), -1);
        let inputs = [("x", &scores), ("axis", &last)];
        let shares = self.b.op("softmax", &format!("{name}.softmax"), &inputs, DataType::Float16, &square);
        let seen = self.matmul(&format!("{name}.seen"), (&v, false), (&shares, true), &by_head);
        Ok(self.reshape(name, &seen, &out))
    }

    /// The product of the last two axes, each transposed before or not.
    fn matmul(&mut self, name: &str, (x, turn_x): (&Var, bool), (y, turn_y): (&Var, bool), out: &[usize]) -> Var {
        let turn_x = self.b.bool(&format!("{name}.transpose_x"), turn_x);
        let turn_y = self.b.bool(&format!("{name}.transpose_y"), turn_y);
        let inputs = [("x", x), ("y", y), ("transpose_x", &turn_x), ("transpose_y", &turn_y)];
        self.b.op("matmul", name, &inputs, DataType::Float16, out)
    }

    fn reshape(&mut self, name: &str, x: &Var, out: &[usize]) -> Var {
        let to = self.b.ints(&format!("{name}.shape"), out);
        self.b.op("reshape", name, &[("x", x), ("shape", &to)], DataType::Float16, out)
    }

    fn cast(&mut self, name: &str, x: &Var, dtype: DataType) -> Var {
        let to = if dtype == DataType::Float16 { "fp16" } else { "fp32" };
        let to = self.b.word(&format!("{name}.dtype"), to);
        let shape = x.shape.clone();
        self.b.op("cast", name, &[("x", x), ("dtype", &to)], dtype, &shape)
    }

    fn half(&mut self, node: &Node, part: &str, value: f64) -> Result<Var, Untranslated> {
        let var = self.b.half(&format!("{}.{part}", node.name), value);
        var.map_or_else(|| refuse(node, &format!("{part} is {value:e}, which is no 16-bit float")), Ok)
    }
}

/// The shape of a node's value as a tensor.
fn shape(node: &Node) -> Result<Vec<usize>, Untranslated> {
    match node.shape {
        Shape::Map { h, w, c } => Ok(vec![1, c, h, w]),
        Shape::Rows { n: Axis::Fixed(n), c } => Ok(vec![1, n, c]),
        Shape::Rows { n: Axis::Positions, .. } => refuse(node, "has as many rows as there are positions"),
    }
}

/// Which axis of a tensor has the channels.
fn channel_axis(shape: &[usize]) -> usize {
    if shape.len() == 4 { 1 } else { shape.len() - 1 }
}

fn refuse<T>(node: &Node, reason: &str) -> Result<T, Untranslated> {
    Err(Untranslated { node: node.name.clone(), reason: format!("{}: {reason}", node.op.name()) })
}
