//! Linears of one input to one linear: q, k and v; gate and up.
//!
//! Gate and up alternate in blocks of 16 rows, so that a kernel has both halves of a product in
//! its registers. Widths that are not a multiple of 16 are padded with zero rows, and `down` with
//! zero columns.

use std::collections::BTreeMap;

use ir::{Activation, Graph, NodeId, Op, WeightError, WeightId, WeightOp, Weights};

use super::PassError;
use super::rewriter::{Rewriter, input, sibling, user};

/// Columns of gate and up that alternate.
const BLOCK: usize = 16;

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let mut merged: BTreeMap<NodeId, Merge> = BTreeMap::new();
    let mut dropped = vec![false; graph.len()];
    for (id, _) in graph.nodes() {
        if let Some((merge, parts)) = attention(graph, id).or_else(|| gated(graph, id)) {
            merged.insert(id, merge);
            parts.into_iter().for_each(|part| dropped[part.number()] = true);
        }
    }
    let mut padded: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut r = Rewriter::new(graph, weights);
    for (id, node) in r.nodes().filter(|(id, _)| !dropped[id.number()]) {
        match merged.remove(&id) {
            Some(Merge::Attention { x, linears, rope }) => {
                let op = concat(graph, r.weights, &linears)?;
                let place = r.place(x)?;
                let mut value = r.add(sibling(&node.name, "qkv"), op, &[place])?;
                if let Some(rope) = rope {
                    value = r.add(sibling(&node.name, "rope"), rope, &[value])?;
                }
                let new = r.add(node.name.clone(), node.op.clone(), &[value])?;
                r.set(id, new);
            }
            Some(Merge::Gated { x, gate, up }) => {
                let (op, width) = interleave(r.weights, gate, up)?;
                let place = r.place(x)?;
                let value = r.add(sibling(&node.name, "gate_up"), op, &[place])?;
                let new = r.add(sibling(&node.name, "swiglu"), Op::SwiGlu, &[value])?;
                r.set(id, new);
                if width != node.shape.channels() {
                    padded.insert(id, width);
                }
            }
            None => {
                let width = input(graph, id).and_then(|x| padded.get(&x));
                if let (Op::Linear { weight, bias }, Some(&cols)) = (&node.op, width) {
                    let weight = r.weights.derive(WeightOp::PadCols { a: *weight, cols })?;
                    r.copy_as(id, Op::Linear { weight, bias: *bias })?;
                } else {
                    r.copy(id)?;
                }
            }
        }
    }
    Ok(r.new)
}

/// What takes the place of a node and of the linears that feed it.
enum Merge {
    Attention { x: NodeId, linears: [NodeId; 3], rope: Option<Op> },
    Gated { x: NodeId, gate: WeightId, up: WeightId },
}

/// Attention on three linears of one value, of which q and k may be rotated.
fn attention(graph: &Graph, id: NodeId) -> Option<(Merge, Vec<NodeId>)> {
    let Op::Attention { heads, kv_heads, head_dim, .. } = graph[id].op else { return None };
    let [q, k, v] = graph.inputs(id)[..] else { return None };
    let mut parts = vec![q, k, v];
    let mut linears = [q, k, v];
    let mut rope = None;
    if let (Op::Rope { theta, .. }, Op::Rope { .. }) = (&graph[q].op, &graph[k].op) {
        let each = |heads| Op::Rope { heads, head_dim, theta: *theta };
        if graph[q].op != each(heads) || graph[k].op != each(kv_heads) {
            return None;
        }
        linears = [input(graph, q)?, input(graph, k)?, v];
        parts.extend(&linears[..2]);
        rope = Some(each(heads + kv_heads));
    }
    let x = input(graph, linears[0])?;
    let fits = |&id: &NodeId| matches!(graph[id].op, Op::Linear { .. }) && input(graph, id) == Some(x);
    let once = parts.iter().all(|&part| user(graph, part).is_some());
    (linears.iter().all(fits) && once).then_some((Merge::Attention { x, linears, rope }, parts))
}

/// `silu(gate(x)) * up(x)` without biases, read by linears only.
fn gated(graph: &Graph, id: NodeId) -> Option<(Merge, Vec<NodeId>)> {
    if graph[id].op != Op::Mul {
        return None;
    }
    let [silu, up] = graph.inputs(id)[..] else { return None };
    if graph[silu].op != Op::Activation(Activation::Silu) {
        return None;
    }
    let gate = input(graph, silu)?;
    let (Op::Linear { weight: g, bias: None }, Op::Linear { weight: u, bias: None }) = (&graph[gate].op, &graph[up].op)
    else {
        return None;
    };
    let x = input(graph, gate)?;
    let read = graph.users(id).iter().all(|&user| matches!(graph[user].op, Op::Linear { .. }));
    let parts = vec![silu, gate, up];
    let once = parts.iter().all(|&part| user(graph, part).is_some());
    (read && once && input(graph, up) == Some(x)).then_some((Merge::Gated { x, gate: *g, up: *u }, parts))
}

fn concat(graph: &Graph, weights: &mut Weights, linears: &[NodeId]) -> Result<Op, WeightError> {
    let (mut rows, mut biases, mut any) = (Vec::new(), Vec::new(), false);
    for &id in linears {
        if let Op::Linear { weight, bias } = graph[id].op {
            any |= bias.is_some();
            rows.push(weight);
            let n = weights.shape(weight)[0];
            biases.push(bias.unwrap_or_else(|| weights.fill(0.0, &[n])));
        }
    }
    let weight = weights.derive(WeightOp::ConcatRows(rows))?;
    let bias = if any { Some(weights.derive(WeightOp::ConcatRows(biases))?) } else { None };
    Ok(Op::Linear { weight, bias })
}

/// The merged linear and the width of its product.
fn interleave(weights: &mut Weights, gate: WeightId, up: WeightId) -> Result<(Op, usize), WeightError> {
    let width = weights.shape(gate)[0].next_multiple_of(BLOCK);
    let mut pad = |a: WeightId| {
        if weights.shape(a)[0] == width { Ok(a) } else { weights.derive(WeightOp::PadRows { a, rows: width }) }
    };
    let (a, b) = (pad(gate)?, pad(up)?);
    let weight = weights.derive(WeightOp::InterleaveRows { a, b, block: BLOCK })?;
    Ok((Op::Linear { weight, bias: None }, width))
}
