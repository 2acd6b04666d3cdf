//! Attention among the pixels of a map: LayerNorm and queries, keys and values, packing, attending, projection.

use ir::{Graph, Node, Op};
use kernels::library::attention::{self, Attention};
use kernels::library::cache;
use kernels::library::gemm::Init;
use kernels::library::linear::{self, Linear, Norm, Rows, UNIT};

use super::{LINEAR_STRIP, pointwise};
use crate::lower::context::{Context, Draft, Value};
use crate::lower::pattern::{body, mismatch, whole_lines};
use crate::lower::{LowerError, Phase, Place, Units};

/// Four steps over rows of whole lines.
pub(super) fn lower(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let found = body(graph);
    let nodes: Vec<&Node> = found.iter().copied().filter(|n| n.op != Op::Flatten).collect();
    let [norm, qkv, att, proj, add] = nodes[..] else {
        return Err(mismatch(node, "LayerNorm, Linear, Attention, Linear, Add", &found));
    };
    let (
        Op::LayerNorm { affine: None, eps },
        Op::Attention { heads, kv_heads, head_dim, causal: false, cache: None, .. },
        Op::Add,
    ) = (&norm.op, &att.op, &add.op)
    else {
        return Err(mismatch(node, "LayerNorm, Linear, Attention, Linear, Add", &found));
    };
    let c = whole_lines(&node.name, "the width", x.channels)?;
    whole_lines(&node.name, "the head dimension", *head_dim)?;
    let a = Attention {
        heads: *heads,
        kv_heads: *kv_heads,
        head_dim: *head_dim,
        capacity: x.rows,
        causal: false,
        cache: cx.formats.vision_cache(),
    };
    let format = cx.formats.vision;
    let (w1, w2) = (pointwise(cx, qkv, None, format)?, pointwise(cx, proj, None, format)?);
    let wide = w1.outputs;
    let merged = cx.value(&qkv.name, x.rows, wide);
    let keys = cx.slot(format!("{}.keys", node.name), a.cache_floats(), false);
    let values = cx.slot(format!("{}.values", node.name), a.cache_floats(), false);
    let mixed = cx.value(&att.name, x.rows, a.heads * a.head_dim);
    let y = cx.map(&node.name, x.rows, c);
    let n = x.rows;
    let block = a.unit().min(n);
    let rows = Units::Fixed(n.div_ceil(UNIT));

    let norm = Some(Norm::Layer { eps: *eps as f32 });
    let first = Linear { norm, strip: LINEAR_STRIP, from: x.elem, ..Linear::new(c, wide, format, Rows::Fixed(n)) };
    let draft = Draft {
        name: qkv.name.clone(),
        shapes: format!("[{n}, {c}] x [{c}, {wide}] after LayerNorm"),
        units: rows,
        bind: [
            vec![("x", x.place()), ("y", merged.place()), ("scratch", Place::Scratch)],
            w1.arguments(["w", "w_scale", "bias"]),
        ]
        .concat(),
        result: merged.tap(),
        macs: (n * c * wide) as u64,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| linear::linear(s, &first), |_| first.scratch(LINEAR_STRIP))?);

    let draft = Draft {
        name: format!("{}.pack", node.name),
        shapes: format!("{} heads of [{n}, {}]", a.kv_heads, a.head_dim),
        units: Units::Fixed(a.kv_heads),
        bind: vec![
            ("qkv", merged.place()),
            ("keys", Place::Slot(keys, 0)),
            ("values", Place::Slot(values, 0)),
            ("scratch", Place::Scratch),
        ],
        result: merged.tap(),
        macs: 0,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |_| cache::pack(&a, n), |_| a.cache.scratch(a.head_dim))?);

    let draft = Draft {
        name: att.name.clone(),
        shapes: format!("{} heads of [{n}, {}] x [{}, {n}]", a.heads, a.head_dim, a.head_dim),
        units: Units::Fixed(a.kv_heads * n.div_ceil(block)),
        bind: vec![
            ("qkv", merged.place()),
            ("keys", Place::Slot(keys, 0)),
            ("values", Place::Slot(values, 0)),
            ("y", mixed.place()),
            ("scratch", Place::Scratch),
        ],
        result: mixed.tap(),
        macs: (2 * a.heads * n * n * a.head_dim) as u64,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| attention::attend(s, &a, Rows::Fixed(n), block), |_| a.scratch(block))?);

    let last = Linear {
        init: Init::BiasResidual,
        strip: LINEAR_STRIP,
        to: y.elem,
        ..Linear::new(a.heads * a.head_dim, c, format, Rows::Fixed(n))
    };
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!("[{n}, {}] x [{}, {c}] + residual", last.inputs, last.inputs),
        units: rows,
        bind: [
            vec![("x", mixed.place()), ("residual", x.place()), ("y", y.place()), ("scratch", Place::Scratch)],
            w2.arguments(["w", "w_scale", "bias"]),
        ]
        .concat(),
        result: y.tap(),
        macs: (n * c * last.inputs) as u64,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| linear::linear(s, &last), |_| last.scratch(LINEAR_STRIP))?);
    Ok(y)
}
