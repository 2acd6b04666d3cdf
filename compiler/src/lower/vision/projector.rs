//! The projector: two linears, from the tower's channels to the decoder's.

use ir::{Activation, Graph, Node, Op};
use kernels::library::linear::{self, Linear, Rows, UNIT};

use super::{LINEAR_STRIP, pointwise};
use crate::lower::context::{Context, Draft, Value};
use crate::lower::pattern::{body, mismatch};
use crate::lower::{LowerError, Phase, Place, Units};

/// One step for each linear, GELU in the first.
pub(super) fn lower(
    cx: &mut Context<'_>,
    phase: &mut Phase,
    node: &Node,
    graph: &Graph,
    x: Value,
) -> Result<Value, LowerError> {
    let found = body(graph);
    let [l1, gelu, l2] = found[..] else { return Err(mismatch(node, "Linear, GELU, Linear", &found)) };
    if gelu.op != Op::Activation(Activation::Gelu) {
        return Err(mismatch(node, "Linear, GELU, Linear", &found));
    }
    let mut x = x;
    // A step is named after the node whose value it leaves.
    for (linear_node, name, gelu) in [(l1, &gelu.name, true), (l2, &node.name, false)] {
        let w = pointwise(cx, linear_node, None, cx.formats.projector)?;
        let (out, depth) = (w.outputs, w.inputs);
        let l = Linear {
            gelu,
            strip: LINEAR_STRIP,
            from: x.elem,
            ..Linear::new(depth, out, w.format, Rows::Fixed(x.rows))
        };
        let y = cx.value(name, x.rows, out);
        let draft = Draft {
            name: name.clone(),
            shapes: format!("[{}, {depth}] x [{depth}, {out}]{}", x.rows, if gelu { ", GELU" } else { "" }),
            units: Units::Fixed(x.rows.div_ceil(UNIT)),
            bind: [
                vec![("x", x.place()), ("y", y.place()), ("scratch", Place::Scratch)],
                w.arguments(["w", "w_scale", "bias"]),
            ]
            .concat(),
            result: y.tap(),
            macs: (x.rows * depth * out) as u64,
            most: vec![],
        };
        phase.steps.push(cx.step(draft, |s| linear::linear(s, &l), |_| l.scratch(LINEAR_STRIP))?);
        x = y;
    }
    Ok(x)
}
