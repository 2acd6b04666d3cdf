//! The verifier: what every later stage may rely on.

use std::collections::BTreeSet;
use std::fmt;

use crate::graph::ShapeError;
use crate::infer::infer;
use crate::{DType, Graph, Op, Shape, Weights};

/// A graph that breaks a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum VerifyError {
    /// A graph or body without nodes.
    Empty {
        /// The graph.
        graph: String,
    },
    /// Not exactly one input node, and that the first.
    Entry {
        /// The graph.
        graph: String,
        /// How many input nodes there are.
        found: usize,
    },
    /// Two nodes, in bodies or outside, have the same name.
    Name {
        /// The name.
        node: String,
    },
    /// The value is never read and is not the result.
    Dangling {
        /// The node.
        node: String,
    },
    /// Something reads the result.
    OutputIsRead {
        /// The node.
        node: String,
    },
    /// The op does not fit its inputs or weights.
    Op(ShapeError),
    /// The node says another shape or type than follows from its op.
    Stated {
        /// The node.
        node: String,
        /// What follows.
        expected: (Shape, DType),
        /// What it says.
        found: (Shape, DType),
    },
}

/// Checks that names are unique, every value is used, and every op fits its inputs and weights.
///
/// The arena's own consistency is [`Weights::check`]'s, which arenas from text need as well.
pub fn verify(graph: &Graph, weights: &Weights) -> Result<(), VerifyError> {
    check(graph, weights, &mut BTreeSet::new())
}

fn check<'a>(graph: &'a Graph, weights: &Weights, names: &mut BTreeSet<&'a str>) -> Result<(), VerifyError> {
    if graph.is_empty() {
        return Err(VerifyError::Empty { graph: graph.name.clone() });
    }
    let entries = graph.nodes().filter(|(_, n)| n.op == Op::Input).count();
    if entries != 1 || graph.nodes().next().is_none_or(|(_, n)| n.op != Op::Input) {
        return Err(VerifyError::Entry { graph: graph.name.clone(), found: entries });
    }
    for (id, node) in graph.nodes() {
        let name = || node.name.clone();
        if !names.insert(&node.name) {
            return Err(VerifyError::Name { node: name() });
        }
        match (id == graph.output(), graph.users(id).is_empty()) {
            (false, true) => return Err(VerifyError::Dangling { node: name() }),
            (true, false) => return Err(VerifyError::OutputIsRead { node: name() }),
            (true, true) | (false, false) => {}
        }
        if let Op::Region { body, .. } = &node.op {
            check(body, weights, names)?;
        }
        if node.op == Op::Input {
            continue;
        }
        let inputs: Vec<_> = graph.inputs(id).iter().map(|&i| (graph[i].shape, graph[i].dtype)).collect();
        let expected = infer(&node.op, &inputs, weights)
            .map_err(|mismatch| VerifyError::Op(ShapeError { node: name(), op: node.op.name(), mismatch }))?;
        let found = (node.shape, node.dtype);
        if expected != found {
            return Err(VerifyError::Stated { node: name(), expected, found });
        }
    }
    Ok(())
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyError::Empty { graph } => write!(f, "graph {graph:?} has no nodes"),
            VerifyError::Entry { graph, found } => {
                write!(f, "graph {graph:?} has {found} input nodes; expected one, in the first place")
            }
            VerifyError::Name { node } => write!(f, "{node}: two nodes have this name"),
            VerifyError::Dangling { node } => write!(f, "{node}: nothing reads this value and it is not the result"),
            VerifyError::OutputIsRead { node } => write!(f, "{node}: the last node is the result, yet it is read"),
            VerifyError::Op(e) => e.fmt(f),
            VerifyError::Stated { node, expected, found } => {
                write!(f, "{node}: says {:?} {}, its op makes {:?} {}", found.1, found.0, expected.1, expected.0)
            }
        }
    }
}

impl std::error::Error for VerifyError {}
