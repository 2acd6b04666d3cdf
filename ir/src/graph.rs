//! The graph: an append-only DAG whose creation order is an execution order.

use std::fmt;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::infer::{Mismatch, infer};
use crate::{DType, Op, Shape, Weights};

/// Ops and the values that flow between them.
///
/// A node can only read nodes made before it, so the graph has no cycles and needs no sorting.
/// The last node is the result.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What the graph computes; the name of its dumps.
    pub name: String,
    /// An edge goes from a value's maker to its reader and holds the reader's input index.
    dag: DiGraph<Node, u8>,
}

/// One op and the value that it makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Dotted and unique, such as `vision.stage2.3.mlp.fc1`.
    pub name: String,
    /// What makes the value.
    pub op: Op,
    /// The value's shape.
    pub shape: Shape,
    /// The value's element type.
    pub dtype: DType,
}

/// A node of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// An op that does not fit its inputs or weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeError {
    /// Name of the node.
    pub node: String,
    /// Name of the op.
    pub op: &'static str,
    /// What does not fit.
    pub mismatch: Mismatch,
}

impl Graph {
    /// A graph without nodes.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), dag: DiGraph::new() }
    }

    /// Adds the input node.
    pub fn input(&mut self, name: impl Into<String>, shape: Shape, dtype: DType) -> NodeId {
        self.push(Node { name: name.into(), op: Op::Input, shape, dtype }, &[])
    }

    /// Adds a node; its shape follows from the op, the inputs and the weights.
    pub fn add(
        &mut self,
        weights: &Weights,
        name: impl Into<String>,
        op: Op,
        inputs: &[NodeId],
    ) -> Result<NodeId, ShapeError> {
        let name = name.into();
        let values: Option<Vec<_>> = inputs.iter().map(|&id| self.get(id).map(|n| (n.shape, n.dtype))).collect();
        let inferred = match values {
            Some(values) => infer(&op, &values, weights),
            None => Err(Mismatch::NoSuchInput),
        };
        match inferred {
            Ok((shape, dtype)) => Ok(self.push(Node { name, op, shape, dtype }, inputs)),
            Err(mismatch) => Err(ShapeError { node: name, op: op.name(), mismatch }),
        }
    }

    /// Adds a node as it is; the verifier judges it.
    pub(crate) fn push(&mut self, node: Node, inputs: &[NodeId]) -> NodeId {
        let id = self.dag.add_node(node);
        for (i, &input) in inputs.iter().enumerate() {
            // `infer` and the text form bound the number of inputs to 3.
            self.dag.add_edge(input.index(), id, i as u8);
        }
        NodeId(id.index() as u32)
    }

    /// All nodes in creation order, which is an execution order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> + ExactSizeIterator {
        self.dag.node_indices().map(|i| (NodeId(i.index() as u32), &self.dag[i]))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node, if `id` is one of this graph.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.dag.node_weight(id.index())
    }

    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|(_, n)| n.name == name).map(|(id, _)| id)
    }

    /// The values that a node reads, in order.
    pub fn inputs(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(u8, NodeId)> = self
            .dag
            .edges_directed(id.index(), Direction::Incoming)
            .map(|e| (*e.weight(), NodeId(e.source().index() as u32)))
            .collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, id)| id).collect()
    }

    /// The readers of a node's value in creation order, once for each input that reads it.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> =
            self.dag.neighbors_directed(id.index(), Direction::Outgoing).map(|i| NodeId(i.index() as u32)).collect();
        users.sort_unstable();
        users
    }

    /// The result: the last node.
    ///
    /// # Panics
    /// If the graph has no nodes.
    pub fn output(&self) -> NodeId {
        assert!(!self.is_empty(), "graph {} has no nodes", self.name);
        NodeId(self.len() as u32 - 1)
    }

    /// The first input node, if there is one.
    pub fn entry(&self) -> Option<NodeId> {
        self.nodes().find(|(_, n)| n.op == Op::Input).map(|(id, _)| id)
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.dag[id.index()]
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        self.name == other.name
            && self.len() == other.len()
            && self.nodes().zip(other.nodes()).all(|((id, a), (_, b))| a == b && self.inputs(id) == other.inputs(id))
    }
}

impl NodeId {
    fn index(self) -> NodeIndex {
        NodeIndex::new(self.0 as usize)
    }

    /// The node's number in creation order.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.node, self.op, self.mismatch)
    }
}

impl std::error::Error for ShapeError {}
