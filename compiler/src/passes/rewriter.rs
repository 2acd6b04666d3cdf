//! What the passes share: a new graph made node by node from an old one.

use ir::{Graph, Node, NodeId, Op, Weights};

use super::PassError;

/// Old graph, new graph, and where old values are in the new one.
pub(super) struct Rewriter<'a> {
    pub(super) old: &'a Graph,
    pub(super) new: Graph,
    pub(super) weights: &'a mut Weights,
    places: Vec<Option<NodeId>>,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(old: &'a Graph, weights: &'a mut Weights) -> Rewriter<'a> {
        Rewriter { old, new: Graph::new(old.name.clone()), weights, places: vec![None; old.len()] }
    }

    /// The old nodes in order, apart from `self` so that the loop can change it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &'a Node)> + use<'a> {
        self.old.nodes()
    }

    /// The old node's value in the new graph.
    pub(super) fn place(&self, old: NodeId) -> Result<NodeId, PassError> {
        self.places[old.number()].ok_or_else(|| PassError::Refused {
            node: self.old[old].name.clone(),
            reason: "a rewrite dropped this value, yet something reads it".into(),
        })
    }

    /// Adds a node to the new graph; inputs are new nodes.
    pub(super) fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, PassError> {
        Ok(self.new.add(self.weights, name, op, inputs)?)
    }

    /// Lets the new node stand for the old one.
    pub(super) fn set(&mut self, old: NodeId, new: NodeId) {
        self.places[old.number()] = Some(new);
    }

    /// Copies the node with another op; inputs stay.
    pub(super) fn copy_as(&mut self, id: NodeId, op: Op) -> Result<(), PassError> {
        let node = &self.old[id];
        let new = if op == Op::Input {
            self.new.input(node.name.clone(), node.shape, node.dtype)
        } else {
            let inputs = self.old.inputs(id).iter().map(|&i| self.place(i)).collect::<Result<Vec<_>, _>>()?;
            self.add(node.name.clone(), op, &inputs)?
        };
        self.set(id, new);
        Ok(())
    }

    /// Copies the node.
    pub(super) fn copy(&mut self, id: NodeId) -> Result<(), PassError> {
        self.copy_as(id, self.old[id].op.clone())
    }

    /// Drops the node; its value is that of the other old node.
    pub(super) fn alias(&mut self, id: NodeId, other: NodeId) -> Result<(), PassError> {
        let place = self.place(other)?;
        self.set(id, place);
        Ok(())
    }
}

/// The node's only input.
pub(super) fn input(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.inputs(id)[..] {
        [x] => Some(x),
        _ => None,
    }
}

/// The only reader of the node's value.
pub(super) fn user(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.users(id)[..] {
        [user] => Some(user),
        _ => None,
    }
}

/// `a.b.c` and `d` to `a.b.d`.
pub(super) fn sibling(name: &str, last: &str) -> String {
    match name.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}.{last}"),
        None => last.to_string(),
    }
}
