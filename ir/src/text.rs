//! The text form: RON, one node or weight expression on a line, regions indented.
//!
//! The layout is ours because RON's own pretty printer puts every number on a line; what is
//! printed is plain RON, and reading is serde's. Same graph, same text.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::graph::Node;
use crate::{DType, Graph, NodeId, Op, RegionKind, Shape, WeightId, WeightNode, Weights};

/// A graph with the weights it refers to: the unit of dumps and bug reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The graph.
    pub graph: Graph,
    /// Its constants.
    pub weights: Weights,
}

/// A text that is not a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextError {
    /// Not RON, or not of the right form; says where.
    Syntax(String),
    /// A node reads a name that no node before it has.
    NoSuchNode {
        /// The reader.
        node: String,
        /// The name.
        input: String,
    },
    /// More inputs than any op takes.
    TooManyInputs {
        /// The reader.
        node: String,
    },
    /// Weight expressions that do not fit together.
    Weights(String),
}

impl Graph {
    /// The text form of the graph alone.
    pub fn to_ron(&self) -> String {
        let mut out = String::new();
        write_graph(&mut out, self, 0);
        out.push('\n');
        out
    }

    /// Reads the text form. The verifier has to judge the result.
    pub fn from_ron(text: &str) -> Result<Graph, TextError> {
        ron::from_str::<GraphText>(text).map_err(syntax)?.graph()
    }
}

impl Weights {
    /// The text form: a list of expressions, numbered by their comments.
    pub fn to_ron(&self) -> String {
        let mut out = String::new();
        write_weights(&mut out, self, 0);
        out.push('\n');
        out
    }

    /// Reads and checks the text form.
    pub fn from_ron(text: &str) -> Result<Weights, TextError> {
        let weights: Weights = ron::from_str(text).map_err(syntax)?;
        weights.check().map_err(|e| TextError::Weights(e.to_string()))?;
        Ok(weights)
    }
}

impl Module {
    /// The text form.
    pub fn to_ron(&self) -> String {
        let mut out = String::from("(\n    graph: ");
        write_graph(&mut out, &self.graph, 1);
        out.push_str(",\n    weights: ");
        write_weights(&mut out, &self.weights, 1);
        out.push_str(",\n)\n");
        out
    }

    /// Reads the text form and checks the weights. The verifier has to judge the graph.
    pub fn from_ron(text: &str) -> Result<Module, TextError> {
        let ModuleText { graph, weights } = ron::from_str(text).map_err(syntax)?;
        weights.check().map_err(|e| TextError::Weights(e.to_string()))?;
        Ok(Module { graph: graph.graph()?, weights })
    }
}

/// A graph as serde sees it: edges are the makers' names.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "Graph")]
struct GraphText {
    name: String,
    nodes: Vec<NodeText>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "Node")]
struct NodeText {
    name: String,
    inputs: Vec<String>,
    shape: Shape,
    dtype: DType,
    op: Op,
}

#[derive(Deserialize)]
struct ModuleText {
    graph: GraphText,
    weights: Weights,
}

impl GraphText {
    fn graph(self) -> Result<Graph, TextError> {
        let mut graph = Graph::new(self.name);
        let mut known: BTreeMap<String, NodeId> = BTreeMap::new();
        for NodeText { name, inputs, shape, dtype, op } in self.nodes {
            if inputs.len() > 3 {
                return Err(TextError::TooManyInputs { node: name });
            }
            let ids = inputs
                .into_iter()
                .map(|input| match known.get(&input) {
                    Some(id) => Ok(*id),
                    None => Err(TextError::NoSuchNode { node: name.clone(), input }),
                })
                .collect::<Result<Vec<_>, _>>()?;
            let id = graph.push(Node { name: name.clone(), op, shape, dtype }, &ids);
            known.insert(name, id);
        }
        Ok(graph)
    }
}

impl Serialize for Graph {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = self.nodes().map(|(id, _)| node_text(self, id)).collect();
        GraphText { name: self.name.clone(), nodes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Graph, D::Error> {
        GraphText::deserialize(deserializer)?.graph().map_err(serde::de::Error::custom)
    }
}

fn node_text(graph: &Graph, id: NodeId) -> NodeText {
    let Node { name, op, shape, dtype } = graph[id].clone();
    let inputs = graph.inputs(id).iter().map(|&i| graph[i].name.clone()).collect();
    NodeText { name, inputs, shape, dtype, op }
}

fn write_graph(out: &mut String, graph: &Graph, depth: usize) {
    let (outer, inner) = (indent(depth), indent(depth + 1));
    let _ = write!(out, "(\n{inner}name: {},\n{inner}nodes: [\n", line(&graph.name));
    for (id, node) in graph.nodes() {
        let place = indent(depth + 2);
        if let Op::Region { kind, body } = &node.op {
            let NodeText { name, inputs, shape, dtype, .. } = node_text(graph, id);
            let (name, inputs, shape) = (line(&name), line(&inputs), line(&shape));
            let _ = write!(out, "{place}(name:{name},inputs:{inputs},shape:{shape},dtype:{},", line(&dtype));
            let _ = write!(out, "op:Region(kind:{},body:", line::<RegionKind>(kind));
            write_graph(out, body, depth + 2);
            out.push_str(")),\n");
        } else {
            let _ = writeln!(out, "{place}{},", line(&node_text(graph, id)));
        }
    }
    let _ = write!(out, "{inner}],\n{outer})");
}

fn write_weights(out: &mut String, weights: &Weights, depth: usize) {
    let (outer, inner) = (indent(depth), indent(depth + 1));
    let _ = write!(out, "(\n{inner}nodes: [\n");
    let mut pinned: Vec<WeightId> = Vec::new();
    for (id, node) in weights.nodes() {
        let _ = writeln!(out, "{inner}    /* {id} */ {},", line::<WeightNode>(node));
        if weights.is_pinned(id) {
            pinned.push(id);
        }
    }
    let _ = write!(out, "{inner}],\n{inner}pinned: {},\n{outer})", line(&pinned));
}

fn indent(depth: usize) -> String {
    "    ".repeat(depth)
}

/// RON on one line.
fn line<T: Serialize>(value: &T) -> String {
    // RON fails for types that it cannot name; none of ours is one.
    ron::to_string(value).unwrap_or_else(|e| format!("/* {e} */"))
}

fn syntax(e: ron::error::SpannedError) -> TextError {
    TextError::Syntax(e.to_string())
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::Syntax(reason) => write!(f, "not the text form of a graph: {reason}"),
            TextError::NoSuchNode { node, input } => {
                write!(f, "{node}: reads {input:?}, but no node before it has this name")
            }
            TextError::TooManyInputs { node } => write!(f, "{node}: has more than 3 inputs"),
            TextError::Weights(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for TextError {}
