//! The vision tower and the projector.
//!
//! The regions of convolutions are here: each has a depthwise one, and all work on strips of a map.

mod attention;
mod projector;

use ir::{Activation, ChannelOrder, Graph, Node, Op, RegionKind, WeightError, WeightId, WeightOp};
use kernels::Elem;
use kernels::library::conv::{self, Map, Stem};
use kernels::library::linear::UNIT;
use kernels::library::matrix::Format;
use kernels::library::two_layer::{self, TwoLayer};
use kernels::library::{depthwise, lines, pitch, squeeze_excite};
use models::Description;

use super::context::{Context, Draft, Packed, SlotId, Value};
use super::pattern::{body, map, mismatch, whole_lines};
use super::{LowerError, Phase, Place, Units};

/// Pixels of a strip: enough rows to reuse each weight, few enough for L2.
const STRIP_PIXELS: usize = 128;

/// Least strips of a map, so that several threads have work.
const LEAST_STRIPS: usize = 4;

/// Rows of a strip of a linear layer.
pub(super) const LINEAR_STRIP: usize = 128;

/// Lowers the vision graph: image slot, slot of the rows, steps.
pub(super) fn lower(
    cx: &mut Context<'_>,
    description: &Description,
    graph: &Graph,
) -> Result<(SlotId, SlotId, Phase), LowerError> {
    let side = description.vision.side;
    let image = cx.slot("image", (side + 2) * (side + 2) * 3, false);
    let mut value = Value { slot: image, rows: side * side, channels: 3, elem: Elem::F32 };
    let mut phase = Phase::default();
    for (_, node) in graph.nodes() {
        match &node.op {
            Op::Input => {}
            // Rows of pixels lie as the map does.
            Op::Flatten => value.channels = node.shape.channels(),
            Op::Conv2d { .. } => value = depthwise_node(cx, &mut phase, node, graph, value)?,
            Op::Region { kind, body } => value = region(cx, &mut phase, node, *kind, body, value)?,
            other => {
                let reason = format!("no kernel for {} outside a region", other.name());
                return Err(LowerError::unsupported(&node.name, reason));
            }
        }
    }
    Ok((image, value.slot, phase))
}

fn region(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    kind: RegionKind,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    match kind {
        RegionKind::Stem => stem(cx, phase, node, graph, x),
        RegionKind::PatchEmbed => patch_embed(cx, phase, node, graph, x),
        RegionKind::ConvFfn => conv_ffn(cx, phase, node, graph, x),
        RegionKind::Attention => attention::lower(cx, phase, node, graph, x),
        RegionKind::FinalConv => final_conv(cx, phase, node, graph, x),
        RegionKind::Projector => projector::lower(cx, phase, node, graph, x),
        RegionKind::DecoderAttention | RegionKind::Mlp | RegionKind::Head => {
            Err(LowerError::unsupported(&node.name, "a decoder region in the vision graph"))
        }
    }
}

/// Largest divisor of `height` whose strip of `width` stays within the pixels and leaves strips for
/// several threads.
fn strip_of(height: usize, width: usize, pixels: usize) -> usize {
    let fits = |r: &usize| {
        height.is_multiple_of(*r) && r * width <= pixels.max(width) && height / r >= LEAST_STRIPS.min(height)
    };
    (1..=height).rev().find(fits).unwrap_or(1)
}

/// A depthwise convolution: its map and packed weights.
struct Depthwise {
    map: Map,
    weight: Place,
    bias: Place,
}

impl Depthwise {
    /// The arguments of a region from `x` to `y` that begins with it, without those of its matrices.
    fn arguments(&self, x: Value, y: Value) -> Vec<(&'static str, Place)> {
        vec![("x", x.place()), ("w0", self.weight), ("b0", self.bias), ("y", y.place()), ("scratch", Place::Scratch)]
    }
}

/// The convolution of a map `[height, width, channels]` that is stored as `from`, to one that is stored as `to`.
fn depthwise_of(
    cx: &mut Context<'_>,
    node: &Node,
    (height, width, channels): (usize, usize, usize),
    (from, to): (Elem, Elem),
) -> Result<Depthwise, LowerError> {
    let Op::Conv2d { weight, bias, stride, padding, groups, order } = &node.op else {
        return Err(LowerError::unsupported(&node.name, format!("expected Conv2d, found {}", node.op.name())));
    };
    let shape = cx.weights.shape(*weight).to_vec();
    let (out, kernel) = (shape[0], shape[2]);
    let fits = *groups == channels
        && *padding == kernel / 2
        && kernel % 2 == 1
        && shape[3] == kernel
        && matches!(stride, 1 | 2);
    let multiplier = out / channels;
    // Of one channel's multiples, both orders are the same.
    let ordered = multiplier == 1 || channels == 1 || *order == ChannelOrder::Planar;
    if !fits || !ordered {
        let reason = format!(
            "no kernel for a convolution of {channels} to {out} channels in {groups} groups with kernel {kernel}, stride {stride} and padding {padding}"
        );
        return Err(LowerError::unsupported(&node.name, reason));
    }
    let map = Map { row: depthwise::Shape { channels, multiplier, kernel, stride: *stride, width, from, to }, height };
    let weight = cx.packs.depthwise(&format!("{}.weight", node.name), *weight, channels, multiplier, kernel);
    let bias = bias.unwrap_or_else(|| cx.weights.fill(0.0, &[out]));
    let bias = cx.packs.planes(&format!("{}.bias", node.name), bias, channels, multiplier);
    Ok(Depthwise { map, weight: Place::Weight(weight), bias: Place::Weight(bias) })
}

fn depthwise_macs(map: &Map) -> u64 {
    let row = &map.row;
    (map.out_height() * row.out_width() * row.multiplier * row.channels * row.kernel * row.kernel) as u64
}

fn shape_text(h: usize, w: usize, c: usize) -> String {
    format!("[{h}, {w}, {c}]")
}

fn depthwise_node(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let input = graph.nodes().find(|(_, n)| n.name == node.name).and_then(|(id, _)| graph.inputs(id).first().copied());
    let Some(input) = input else { return Err(LowerError::unsupported(&node.name, "no input")) };
    let (h, w, c) = map(&graph[input])?;
    let (ho, wo, co) = map(node)?;
    let y = cx.map(&node.name, ho * wo, co);
    let d = depthwise_of(cx, node, (h, w, c), (x.elem, y.elem))?;
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!("{} conv {}x{} depthwise", shape_text(h, w, c), d.map.row.kernel, d.map.row.kernel),
        units: Units::Fixed(ho),
        bind: vec![("x", x.place()), ("w", d.weight), ("bias", d.bias), ("y", y.place())],
        result: y.tap(),
        macs: depthwise_macs(&d.map),
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| conv::depthwise_map(s, &d.map), |_| 0)?);
    Ok(y)
}

/// The weight of a 1x1 convolution or linear, and its bias.
fn pointwise_weights(cx: &Context<'_>, node: &Node) -> Result<(WeightId, Option<WeightId>), LowerError> {
    let (weight, bias) = match &node.op {
        Op::Conv2d { weight, bias, stride: 1, padding: 0, groups: 1, .. } | Op::Linear { weight, bias } => {
            (*weight, *bias)
        }
        other => {
            return Err(LowerError::unsupported(
                &node.name,
                format!("expected a 1x1 Conv2d or Linear, found {}", other.name()),
            ));
        }
    };
    let shape = cx.weights.shape(weight);
    if shape[2..].iter().any(|&n| n != 1) {
        return Err(LowerError::unsupported(&node.name, format!("expected a kernel of 1x1, found {shape:?}")));
    }
    Ok((weight, bias))
}

fn pointwise(cx: &mut Context<'_>, node: &Node, gap: Option<usize>, format: Format) -> Result<Packed, LowerError> {
    let (weight, bias) = pointwise_weights(cx, node)?;
    Ok(packed(cx, node, (weight, bias), gap, format))
}

fn packed(
    cx: &mut Context<'_>,
    node: &Node,
    (weight, bias): (WeightId, Option<WeightId>),
    gap: Option<usize>,
    format: Format,
) -> Packed {
    let (outputs, inputs) = (cx.weights.shape(weight)[0], cx.weights.shape(weight)[1]);
    let pack = cx.packs.matrix(&format!("{}.weight", node.name), weight, (outputs, inputs), gap, format);
    let bias = cx.bias(&node.name, bias, outputs);
    Packed { format, pack, bias: Some(Place::Weight(bias)), outputs, inputs }
}

/// The matrix behind a depthwise convolution, and its diagonal where the kernel takes it apart.
fn behind_depthwise(
    cx: &mut Context<'_>,
    node: &Node,
    row: &depthwise::Shape,
    format: Format,
) -> Result<(Packed, Option<Place>), LowerError> {
    let (weight, bias) = pointwise_weights(cx, node)?;
    let gap = (row.multiplier > 1).then_some(row.channels);
    if !conv::has_diagonal(row, format, cx.weights.shape(weight)[0]) {
        return Ok((packed(cx, node, (weight, bias), gap, format), None));
    }
    let failed = |e: WeightError| LowerError::unsupported(&node.name, e.to_string());
    // The diagonal is that of the checkpoint's order, in which outputs are; `layout` moved the inputs.
    let (square, order) = match cx.weights.get(weight).map(|w| &w.op) {
        Some(WeightOp::PermuteCols { a, order }) => (*a, Some(*order)),
        _ => (weight, None),
    };
    let diagonal = cx.weights.derive(WeightOp::Diagonal(square)).map_err(failed)?;
    let mut rest = cx.weights.derive(WeightOp::OffDiagonal(square)).map_err(failed)?;
    if let Some(order) = order {
        rest = cx.weights.derive(WeightOp::PermuteCols { a: rest, order }).map_err(failed)?;
    }
    let packed = packed(cx, node, (rest, bias), gap, format);
    let diagonal = cx.packs.vector(&format!("{}.diagonal", node.name), diagonal, packed.outputs);
    Ok((packed, Some(Place::Weight(diagonal))))
}

fn stem(cx: &mut Context<'_>, phase: &mut Phase, node: &Node, graph: &Graph, x: Value) -> Result<Value, LowerError> {
    let found = body(graph);
    let [c0, g0, c1, g1, c2, g2] = found[..] else {
        return Err(mismatch(node, "three convolutions, each with GELU", &found));
    };
    for g in [g0, g1, g2] {
        if g.op != Op::Activation(Activation::Gelu) {
            return Err(mismatch(node, "GELU after each convolution", &found));
        }
    }
    let Op::Conv2d { weight, bias, stride: 2, padding: 1, groups: 1, .. } = &c0.op else {
        return Err(mismatch(node, "a 3x3 convolution with stride 2", &found));
    };
    let channels = cx.weights.shape(*weight)[0];
    if cx.weights.shape(*weight) != [channels, 3, 3, 3] {
        return Err(LowerError::unsupported(
            &c0.name,
            format!("weight is {:?}, must be [n, 3, 3, 3]", cx.weights.shape(*weight)),
        ));
    }
    let w0 = cx.packs.stem(&format!("{}.weight", c0.name), *weight, channels);
    let b0 = cx.bias(&c0.name, *bias, channels);
    let (h1, w1, _) = map(c0)?;
    let side = x.rows.isqrt();
    let d = depthwise_of(cx, c1, (h1, w1, channels), (Elem::F32, Elem::F32))?;
    let (last, diagonal) = behind_depthwise(cx, c2, &d.map.row, cx.formats.vision)?;
    if d.map.row.kernel != 3 || d.map.row.stride != 2 || d.map.row.multiplier != 1 || last.outputs != channels {
        return Err(mismatch(node, "a depthwise 3x3 convolution with stride 2 and a 1x1 of the same width", &found));
    }
    let (ho, wo, _) = map(c2)?;
    let sizes = Stem { side, channels, strip: strip_of(ho, wo, 2 * wo), format: last.format, to: cx.formats.maps };
    let y = cx.map(&node.name, ho * wo, channels);
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!(
            "{} conv 3x3, depthwise 3x3, 1x1 -> {}",
            shape_text(side, side, 3),
            shape_text(ho, wo, channels)
        ),
        units: Units::Fixed(ho / sizes.strip),
        bind: [
            vec![
                ("image", x.place()),
                ("w0", Place::Weight(w0)),
                ("b0", Place::Weight(b0)),
                ("w1", d.weight),
                ("b1", d.bias),
                ("y", y.place()),
                ("scratch", Place::Scratch),
            ],
            last.arguments(["w2", "w2_scale", "b2"]),
            diagonal.map(|d| ("w2_diagonal", d)).into_iter().collect(),
        ]
        .concat(),
        result: y.tap(),
        macs: (h1 * w1 * 27 * channels + ho * wo * (9 + channels) * channels) as u64,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| conv::stem(s, &sizes), |_| sizes.scratch())?);
    Ok(y)
}

fn patch_embed(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let found = body(graph);
    let [c0, _, c1, _] = found[..] else { return Err(mismatch(node, "two convolutions, each with GELU", &found)) };
    let (h, w, c) = map(&graph[graph.entry().ok_or_else(|| mismatch(node, "an input", &found))?])?;
    let d = depthwise_of(cx, c0, (h, w, c), (x.elem, Elem::F32))?;
    let (last, diagonal) = behind_depthwise(cx, c1, &d.map.row, cx.formats.vision)?;
    let (out, depth) = (last.outputs, last.inputs);
    let (ho, wo, _) = map(c1)?;
    let strip = strip_of(ho, wo, STRIP_PIXELS);
    let y = cx.map(&node.name, ho * wo, out);
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!(
            "{} conv {}x{}, 1x1 -> {}",
            shape_text(h, w, c),
            d.map.row.kernel,
            d.map.row.kernel,
            shape_text(ho, wo, out)
        ),
        units: Units::Fixed(ho / strip),
        bind: [
            d.arguments(x, y),
            last.arguments(["w1", "w1_scale", "b1"]),
            diagonal.map(|d| ("w1_diagonal", d)).into_iter().collect(),
        ]
        .concat(),
        result: y.tap(),
        macs: depthwise_macs(&d.map) + (ho * wo * depth * out) as u64,
        most: vec![],
    };
    let scratch = conv::patch_embed_scratch(&d.map, last.format, out, strip);
    phase.steps.push(cx.step(draft, |s| conv::patch_embed(s, &d.map, last.format, out, strip), |_| scratch)?);
    Ok(y)
}

fn conv_ffn(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let found = body(graph);
    let [c0, c1, _, c2, add] = found[..] else {
        return Err(mismatch(node, "Conv2d, Conv2d, Activation, Conv2d, Add", &found));
    };
    if add.op != Op::Add {
        return Err(mismatch(node, "the input added at the end", &found));
    }
    let (h, w, c) = map(c0)?;
    let d = depthwise_of(cx, c0, (h, w, c), (x.elem, Elem::F32))?;
    let format = cx.formats.vision;
    let (up, down) = (pointwise(cx, c1, None, format)?, pointwise(cx, c2, None, format)?);
    let hidden = up.outputs;
    let strip = strip_of(h, w, STRIP_PIXELS);
    let two = |s: &kernels::library::Schedule| {
        TwoLayer::new((c, hidden), two_layer::Activation::Gelu, format, strip * w, s.strip_bytes)
    };
    let y = cx.map(&node.name, h * w, c);
    let k = d.map.row.kernel;
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!("{} conv {k}x{k}, {c} -> {hidden} -> {c}", shape_text(h, w, c)),
        units: Units::Fixed(h / strip),
        bind: [d.arguments(x, y), up.arguments(["w1", "w1_scale", "b1"]), down.arguments(["w2", "w2_scale", "b2"])]
            .concat(),
        result: y.tap(),
        macs: depthwise_macs(&d.map) + (h * w * 2 * c * hidden) as u64,
        most: vec![],
    };
    let step = cx.step(
        draft,
        |s| conv::conv_ffn(s, &d.map, &two(s), strip),
        |s| conv::conv_ffn_scratch(&d.map, &two(s), strip),
    )?;
    phase.steps.push(step);
    Ok(y)
}

fn final_conv(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let found = body(graph);
    let [conv, se, gelu] = found[..] else { return Err(mismatch(node, "Conv2d, SqueezeExcite, Activation", &found)) };
    let (Op::SqueezeExcite { reduce, expand }, Op::Activation(Activation::Gelu)) = (&se.op, &gelu.op) else {
        return Err(mismatch(node, "Conv2d, SqueezeExcite, GELU", &found));
    };
    let (h, w, c) = map(&graph[graph.entry().ok_or_else(|| mismatch(node, "an input", &found))?])?;
    whole_lines(&node.name, "the width", c)?;
    let d = depthwise_of(cx, conv, (h, w, c), (x.elem, Elem::F32))?;
    let (_, _, out) = map(conv)?;
    let z = cx.value(&conv.name, h * w, out);
    let draft = Draft {
        name: conv.name.clone(),
        shapes: format!("{} conv {}x{} depthwise -> {out}", shape_text(h, w, c), d.map.row.kernel, d.map.row.kernel),
        units: Units::Fixed(d.map.out_height()),
        bind: vec![("x", x.place()), ("w", d.weight), ("bias", d.bias), ("y", z.place())],
        result: z.tap(),
        macs: depthwise_macs(&d.map),
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |s| conv::depthwise_map(s, &d.map), |_| 0)?);

    let reduced = cx.weights.shape(reduce.0)[0];
    let sizes = squeeze_excite::Shapes { pixels: h * w, channels: out, reduced };
    let mut matrix = |what: &str, (weight, bias): (WeightId, WeightId), rows: usize, cols: usize| {
        let name = format!("{}.{what}", se.name);
        let matrix = cx.packs.matrix(&format!("{name}.weight"), weight, (rows, cols), None, Format::F32);
        (Place::Weight(matrix), Place::Weight(cx.bias(&name, Some(bias), rows)))
    };
    let (w1, b1) = matrix("reduce", *reduce, reduced, out);
    let (w2, b2) = matrix("expand", *expand, out, reduced);
    let gate = cx.value(&format!("{}.gate", se.name), 1, out);
    let draft = Draft {
        name: format!("{}.gate", se.name),
        shapes: format!("[{}, {out}] -> {reduced} -> {out}", h * w),
        units: Units::Fixed(1),
        bind: vec![
            ("x", z.place()),
            ("w1", w1),
            ("b1", b1),
            ("w2", w2),
            ("b2", b2),
            ("gate", gate.place()),
            ("scratch", Place::Scratch),
        ],
        result: gate.tap(),
        macs: (2 * out * reduced) as u64,
        most: vec![],
    };
    phase.steps.push(cx.step(
        draft,
        |s| squeeze_excite::gate(s, &sizes),
        |_| pitch(out) + lines(reduced) * kernels::LANES,
    )?);

    let y = cx.value(&node.name, h * w, out);
    let draft = Draft {
        name: node.name.clone(),
        shapes: format!("[{}, {out}] gated, GELU", h * w),
        units: Units::Fixed((h * w).div_ceil(UNIT)),
        bind: vec![("x", z.place()), ("gate", gate.place()), ("y", y.place())],
        result: y.tap(),
        macs: 0,
        most: vec![],
    };
    phase.steps.push(cx.step(draft, |_| squeeze_excite::scale_gelu(&sizes, UNIT), |_| 0)?);
    Ok(y)
}
