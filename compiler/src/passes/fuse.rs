//! Groups of ops to regions, each of which a target computes as one step.
//!
//! A region is a run of consecutive nodes whose ops match a pattern, that reads one value from
//! outside (also more than once, as a residual does) and of which only the last is read outside.
//! Its name is what its nodes' names have in common.

use ir::{Activation, Graph, NodeId, Op, RegionKind, Weights};

use super::PassError;
use super::rewriter::Rewriter;

pub(super) fn run(graph: &Graph, weights: &mut Weights) -> Result<Graph, PassError> {
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    let mut r = Rewriter::new(graph, weights);
    let mut next = 0;
    while next < nodes.len() {
        let found = PATTERNS.iter().find_map(|p| matches(graph, &nodes[next..], p).map(|source| (p, source)));
        match found {
            Some((pattern, source)) => {
                region(&mut r, pattern.kind, &nodes[next..next + pattern.ops.len()], source)?;
                next += pattern.ops.len();
            }
            None => {
                r.copy(nodes[next])?;
                next += 1;
            }
        }
    }
    Ok(r.new)
}

/// Kinds of ops, as patterns tell them apart.
#[derive(Clone, Copy)]
enum Is {
    /// Dense with a larger kernel.
    Conv,
    /// Depthwise of size `k` with `times` outputs for each input, or any number.
    Depthwise {
        k: usize,
        stride: usize,
        times: Option<usize>,
    },
    /// Dense 1x1.
    Point,
    Gelu,
    SqueezeExcite,
    LayerNorm,
    RmsNorm,
    Linear,
    Rope,
    /// With a cache or without.
    Attention {
        cached: bool,
    },
    SwiGlu,
    LastRow,
    Add,
}

struct Pattern {
    kind: RegionKind,
    ops: &'static [Is],
}

const DW_7: Is = Is::Depthwise { k: 7, stride: 1, times: Some(1) };

const PATTERNS: &[Pattern] = &[
    Pattern {
        kind: RegionKind::Stem,
        ops: &[Is::Conv, Is::Gelu, Is::Depthwise { k: 3, stride: 2, times: Some(1) }, Is::Gelu, Is::Point, Is::Gelu],
    },
    Pattern {
        kind: RegionKind::PatchEmbed,
        ops: &[Is::Depthwise { k: 7, stride: 2, times: None }, Is::Gelu, Is::Point, Is::Gelu],
    },
    Pattern { kind: RegionKind::ConvFfn, ops: &[DW_7, Is::Point, Is::Gelu, Is::Point, Is::Add] },
    Pattern {
        kind: RegionKind::Attention,
        ops: &[Is::LayerNorm, Is::Linear, Is::Attention { cached: false }, Is::Linear, Is::Add],
    },
    Pattern {
        kind: RegionKind::FinalConv,
        ops: &[Is::Depthwise { k: 3, stride: 1, times: Some(2) }, Is::SqueezeExcite, Is::Gelu],
    },
    Pattern { kind: RegionKind::Projector, ops: &[Is::Linear, Is::Gelu, Is::Linear] },
    Pattern {
        kind: RegionKind::DecoderAttention,
        ops: &[Is::RmsNorm, Is::Linear, Is::Rope, Is::Attention { cached: true }, Is::Linear, Is::Add],
    },
    Pattern { kind: RegionKind::Mlp, ops: &[Is::RmsNorm, Is::Linear, Is::SwiGlu, Is::Linear, Is::Add] },
    Pattern { kind: RegionKind::Head, ops: &[Is::LastRow, Is::RmsNorm, Is::Linear] },
];

impl Is {
    fn fits(self, graph: &Graph, id: NodeId) -> bool {
        let op = &graph[id].op;
        let c = graph.inputs(id).first().map_or(0, |&x| graph[x].shape.channels());
        match self {
            Is::Conv => matches!(op, Op::Conv2d { groups: 1, padding: 1.., .. }),
            Is::Depthwise { k, stride, times } => {
                let size = |s: usize, padding: usize| (s, padding) == (stride, k / 2);
                matches!(op, Op::Conv2d { stride, padding, groups, .. } if *groups == c && size(*stride, *padding))
                    && times.is_none_or(|times| graph[id].shape.channels() == times * c)
            }
            Is::Point => matches!(op, Op::Conv2d { groups: 1, padding: 0, stride: 1, .. }),
            Is::Gelu => *op == Op::Activation(Activation::Gelu),
            Is::SqueezeExcite => matches!(op, Op::SqueezeExcite { .. }),
            Is::LayerNorm => matches!(op, Op::LayerNorm { affine: None, .. }),
            Is::RmsNorm => matches!(op, Op::RmsNorm { .. }),
            Is::Linear => matches!(op, Op::Linear { .. }),
            Is::Rope => matches!(op, Op::Rope { .. }),
            Is::Attention { cached } => matches!(op, Op::Attention { cache, .. } if cache.is_some() == cached),
            Is::SwiGlu => *op == Op::SwiGlu,
            Is::LastRow => *op == Op::LastRow,
            Is::Add => *op == Op::Add,
        }
    }
}

/// The value that the region reads, if the pattern matches at the first of `nodes`.
fn matches(graph: &Graph, nodes: &[NodeId], pattern: &Pattern) -> Option<NodeId> {
    let run = nodes.get(..pattern.ops.len())?;
    let source = *graph.inputs(run[0]).first()?;
    let fits = |(&id, is): (&NodeId, &Is)| is.fits(graph, id);
    let closed = |(i, &id): (usize, &NodeId)| {
        let reads = graph.inputs(id).iter().all(|x| *x == source || run[..i].contains(x));
        let last = i + 1 == run.len();
        reads && (last || graph.users(id).iter().all(|user| run.contains(user)))
    };
    (run.iter().zip(pattern.ops).all(fits) && run.iter().enumerate().all(closed)).then_some(source)
}

fn region(r: &mut Rewriter<'_>, kind: RegionKind, run: &[NodeId], source: NodeId) -> Result<(), PassError> {
    let graph = r.old;
    let name = common(run.iter().map(|&id| graph[id].name.as_str()));
    let mut body = Graph::new(name.clone());
    let from = &graph[source];
    let mut places = vec![(source, body.input(format!("{name}.in"), from.shape, from.dtype))];
    for &id in run {
        let inputs: Vec<NodeId> =
            graph.inputs(id).iter().filter_map(|x| Some(places.iter().find(|(old, _)| old == x)?.1)).collect();
        let new = body.add(r.weights, graph[id].name.clone(), graph[id].op.clone(), &inputs)?;
        places.push((id, new));
    }
    let place = r.place(source)?;
    let new = r.add(name, Op::Region { kind, body: Box::new(body) }, &[place])?;
    if let Some(last) = run.last() {
        r.set(*last, new);
    }
    Ok(())
}

/// The leading dotted parts that all names share.
fn common<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut parts: Vec<&str> = names.next().map(|n| n.split('.').collect()).unwrap_or_default();
    for name in names {
        let same = parts.iter().zip(name.split('.')).take_while(|(a, b)| *a == b).count();
        parts.truncate(same);
    }
    parts.join(".")
}
