//! Qwen2 as a graph: rows of one call to the logits of the last row and the token they name.

use ir::{Activation, Axis, DType, Graph, NodeId, Op, Shape, WeightId, Weights};

use crate::builder::{BuildError, Builder, check};
use crate::names::DECODER;
use crate::{Description, Text};

/// The graph `decoder`: rows `[positions, hidden]` to the next token `[1, 1]`.
///
/// Nodes are `decoder.{layer}.attn.*`, `decoder.{layer}.mlp.*`, `head.*` and `argmax`. A tied
/// head reads the embedding, which is pinned: the passes leave it as it is.
pub fn decoder(description: &Description, weights: &mut Weights) -> Result<Graph, BuildError> {
    check(description)?;
    let text = &description.text;
    let mut b = Builder::new("decoder", description, weights);
    let shape = Shape::Rows { n: Axis::Positions, c: text.hidden };
    let mut x = b.graph.input("rows", shape, DType::F32);
    for layer in 0..text.layers {
        x = attention(&mut b, text, layer, x)?;
        x = mlp(&mut b, text, layer, x)?;
    }
    let last = b.node("head.last", Op::LastRow, &[x])?;
    let norm = norm(&mut b, text, "head.norm", &format!("{DECODER}norm.weight"), last)?;
    let weight = if text.tied {
        embedding(description, b.weights)
    } else {
        b.tensor("lm_head.weight", &[text.vocab, text.hidden])
    };
    let logits = b.node("head.logits", Op::Linear { weight, bias: None }, &[norm])?;
    b.node("argmax", Op::ArgMax, &[logits])?;
    Ok(b.graph)
}

/// The embedding table, `[vocab, hidden]`; pinned, because the runtime reads its rows as they are.
pub fn embedding(description: &Description, weights: &mut Weights) -> WeightId {
    let name = description.layout.tensor_name(&format!("{DECODER}embed_tokens.weight"));
    let table = weights.tensor(name, &[description.text.vocab, description.text.hidden]);
    weights.pin(table);
    table
}

/// The graph `embed`: token ids `[positions, 1]` to rows `[positions, hidden]`.
pub fn embed(description: &Description, weights: &mut Weights) -> Result<Graph, BuildError> {
    check(description)?;
    let table = embedding(description, weights);
    let mut b = Builder::new("embed", description, weights);
    let ids = b.graph.input("ids", Shape::Rows { n: Axis::Positions, c: 1 }, DType::U32);
    b.node("embed", Op::Embed { table }, &[ids])?;
    Ok(b.graph)
}

fn norm(b: &mut Builder<'_>, text: &Text, name: &str, tensor: &str, x: NodeId) -> Result<NodeId, BuildError> {
    let gain = b.tensor(tensor, &[text.hidden]);
    b.node(name, Op::RmsNorm { gain: Some(gain), eps: text.rms_eps }, &[x])
}

fn attention(b: &mut Builder<'_>, text: &Text, layer: usize, x: NodeId) -> Result<NodeId, BuildError> {
    let (name, tensor) = (format!("decoder.{layer}.attn"), format!("{DECODER}layers.{layer}"));
    let &Text { hidden, heads, kv_heads, head_dim, rope_theta: theta, .. } = text;
    let n = norm(b, text, &format!("{name}.norm"), &format!("{tensor}.input_layernorm.weight"), x)?;
    let mut part = |part: &str, out: usize| {
        b.linear(format!("{name}.{part}"), &format!("{tensor}.self_attn.{part}_proj"), (out, hidden), true, n)
    };
    let q = part("q", heads * head_dim)?;
    let k = part("k", kv_heads * head_dim)?;
    let v = part("v", kv_heads * head_dim)?;
    let q = b.node(format!("{name}.q_rope"), Op::Rope { heads, head_dim, theta }, &[q])?;
    let k = b.node(format!("{name}.k_rope"), Op::Rope { heads: kv_heads, head_dim, theta }, &[k])?;
    let scale = (head_dim as f64).powf(-0.5);
    let op = Op::Attention { heads, kv_heads, head_dim, scale, causal: true, cache: Some(layer) };
    let mixed = b.node(format!("{name}.attention"), op, &[q, k, v])?;
    let tensor = format!("{tensor}.self_attn.o_proj");
    let out = b.linear(format!("{name}.o"), &tensor, (hidden, heads * head_dim), false, mixed)?;
    b.node(format!("{name}.add"), Op::Add, &[x, out])
}

fn mlp(b: &mut Builder<'_>, text: &Text, layer: usize, x: NodeId) -> Result<NodeId, BuildError> {
    let (name, tensor) = (format!("decoder.{layer}.mlp"), format!("{DECODER}layers.{layer}"));
    let &Text { hidden, ffn, .. } = text;
    let n = norm(b, text, &format!("{name}.norm"), &format!("{tensor}.post_attention_layernorm.weight"), x)?;
    let gate = b.linear(format!("{name}.gate"), &format!("{tensor}.mlp.gate_proj"), (ffn, hidden), false, n)?;
    let up = b.linear(format!("{name}.up"), &format!("{tensor}.mlp.up_proj"), (ffn, hidden), false, n)?;
    let silu = b.node(format!("{name}.silu"), Op::Activation(Activation::Silu), &[gate])?;
    let gated = b.node(format!("{name}.mul"), Op::Mul, &[silu, up])?;
    let down = b.linear(format!("{name}.down"), &format!("{tensor}.mlp.down_proj"), (hidden, ffn), false, gated)?;
    b.node(format!("{name}.add"), Op::Add, &[x, down])
}
