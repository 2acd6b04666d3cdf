//! The evaluator: what every op means, in f32.
//!
//! It is written to be read. It is also blocked, threaded and frugal, because a real tower has
//! 243 G multiply-adds and a real decoder does not fit into memory as f32: weights are evaluated
//! in slices while they are used, and a value is dropped after its last reader. Sums of products
//! are f32 in a fixed order, so the bits do not depend on the machine or the number of threads.

mod attention;
mod conv;
mod elementwise;
mod matmul;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Axis, Graph, Node, NodeId, Op, Shape, SourceError, TensorSource, WeightId, Weights};

/// A value: a shape without open axes and its elements, last axis contiguous. Indices are held
/// as f32, which is exact below 2^24.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The shape; no axis is [`Axis::Positions`].
    pub shape: Shape,
    /// The elements.
    pub data: Vec<f32>,
}

/// Why a graph cannot be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum EvalError {
    /// The given value is not what the graph reads.
    Input {
        /// The graph.
        graph: String,
        /// What it reads.
        expected: Shape,
        /// What it was given.
        found: Shape,
    },
    /// There is no node of this name.
    NoSuchNode {
        /// The name.
        name: String,
    },
    /// A token id beyond the embedding table.
    Token {
        /// The node.
        node: String,
        /// The id.
        id: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// A weight cannot be read.
    Source(SourceError),
}

/// Evaluates a verified graph. Holds the keys and values of the positions seen so far, so that
/// calls continue one another.
pub struct Evaluator<'a> {
    graph: &'a Graph,
    constants: Constants<'a>,
    caches: BTreeMap<usize, attention::Cache>,
    position: usize,
}

/// Evaluated weights.
pub(crate) struct Constants<'a> {
    weights: &'a Weights,
    source: &'a dyn TensorSource,
    kept: BTreeMap<WeightId, Arc<Vec<f32>>>,
    room: usize,
}

/// Default of [`Evaluator::keep_weights`].
const KEEP_BYTES: usize = 256 << 20;

impl<'a> Evaluator<'a> {
    /// An evaluator at position 0.
    pub fn new(graph: &'a Graph, weights: &'a Weights, source: &'a dyn TensorSource) -> Evaluator<'a> {
        let constants = Constants { weights, source, kept: BTreeMap::new(), room: KEEP_BYTES };
        Evaluator { graph, constants, caches: BTreeMap::new(), position: 0 }
    }

    /// Keeps up to `bytes` of evaluated weights from call to call (256 MiB unless told).
    pub fn keep_weights(mut self, bytes: usize) -> Self {
        self.constants.room = bytes;
        self
    }

    /// Positions in the caches: where the next call's first row stands.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Forgets all positions.
    pub fn reset(&mut self) {
        self.caches.clear();
        self.position = 0;
    }

    /// The graph's result.
    pub fn run(&mut self, input: &Value) -> Result<Value, EvalError> {
        self.watch(input, &mut |_, _| {})
    }

    /// The value of one node. The caches are left as they were.
    pub fn run_to(&mut self, input: &Value, name: &str) -> Result<Value, EvalError> {
        let before = (self.caches.clone(), self.position);
        let mut values = self.values(input, &[name])?;
        (self.caches, self.position) = before;
        values.remove(name).ok_or_else(|| EvalError::NoSuchNode { name: name.into() })
    }

    /// The values of some nodes, by name; names inside regions count.
    pub fn values(&mut self, input: &Value, names: &[&str]) -> Result<BTreeMap<String, Value>, EvalError> {
        let mut found = BTreeMap::new();
        self.watch(input, &mut |node, value| {
            if names.contains(&node.name.as_str()) {
                found.insert(node.name.clone(), value.clone());
            }
        })?;
        match names.iter().find(|n| !found.contains_key(**n)) {
            Some(name) => Err(EvalError::NoSuchNode { name: name.to_string() }),
            None => Ok(found),
        }
    }

    /// The result, showing every node and its value on the way; a region's nodes come before it.
    pub fn watch(&mut self, input: &Value, seen: &mut dyn FnMut(&Node, &Value)) -> Result<Value, EvalError> {
        let graph = self.graph;
        let entry = graph.entry().map(|id| graph[id].shape);
        let fits = entry.is_some_and(|s| {
            let n = input.shape.rows().length(0);
            let shape = match s {
                Shape::Rows { n: Axis::Positions, c } if n > 0 => Shape::Rows { n: Axis::Fixed(n), c },
                shape => shape,
            };
            input.shape == shape && input.data.len() == input.shape.elements(0)
        });
        if !fits {
            let expected = entry.unwrap_or(Shape::Rows { n: Axis::Fixed(0), c: 0 });
            return Err(EvalError::Input { graph: graph.name.clone(), expected, found: input.shape });
        }
        let result = self.graph_value(graph, Arc::new(input.clone()), seen)?;
        if entry.is_some_and(|s| s.rows() == Axis::Positions) {
            self.position += input.shape.rows().length(0);
        }
        Ok(Arc::unwrap_or_clone(result))
    }

    fn graph_value(
        &mut self,
        graph: &Graph,
        input: Arc<Value>,
        seen: &mut dyn FnMut(&Node, &Value),
    ) -> Result<Arc<Value>, EvalError> {
        let mut values: Vec<Option<Arc<Value>>> = vec![None; graph.len()];
        let mut readers: Vec<usize> = graph.nodes().map(|(id, _)| graph.users(id).len()).collect();
        for (id, node) in graph.nodes() {
            let inputs = graph.inputs(id);
            let args: Vec<Arc<Value>> = inputs.iter().filter_map(|i| values[i.number()].clone()).collect();
            let value = match &node.op {
                Op::Input => input.clone(),
                Op::Region { body, .. } => self.graph_value(body, args[0].clone(), seen)?,
                Op::Conv2d { .. }
                | Op::BatchNorm { .. }
                | Op::LayerScale { .. }
                | Op::LayerNorm { .. }
                | Op::RmsNorm { .. }
                | Op::Linear { .. }
                | Op::Activation(_)
                | Op::Scale { .. }
                | Op::Add
                | Op::Mul
                | Op::SwiGlu
                | Op::SqueezeExcite { .. }
                | Op::Flatten
                | Op::LastRow
                | Op::Embed { .. }
                | Op::ArgMax
                | Op::Rope { .. }
                | Op::Attention { .. } => Arc::new(self.value(node, &args)?),
            };
            seen(node, &value);
            values[id.number()] = Some(value);
            for i in inputs {
                readers[i.number()] -= 1;
                if readers[i.number()] == 0 {
                    values[i.number()] = None;
                }
            }
        }
        let output: NodeId = graph.output();
        Ok(values[output.number()].take().expect("the last node was evaluated last"))
    }

    /// The value of one node that is neither an input nor a region.
    fn value(&mut self, node: &Node, args: &[Arc<Value>]) -> Result<Value, EvalError> {
        let x: &Value = &args[0];
        let n = x.shape.rows().length(0);
        let c = x.shape.channels();
        let constants = &mut self.constants;
        let data = match &node.op {
            Op::Conv2d { .. } => conv::conv2d(&node.op, x, constants)?,
            Op::BatchNorm { gamma, beta, mean, var, eps } => {
                let (gamma, beta) = (constants.all(*gamma)?, constants.all(*beta)?);
                let (mean, var) = (constants.all(*mean)?, constants.all(*var)?);
                let scale: Vec<f32> = gamma
                    .iter()
                    .zip(var.iter())
                    .map(|(g, v)| (f64::from(*g) / (f64::from(*v) + eps).sqrt()) as f32)
                    .collect();
                elementwise::columns(&x.data, c, |j, x| (x - mean[j]) * scale[j] + beta[j])
            }
            Op::LayerScale { gamma } => {
                let gamma = constants.all(*gamma)?;
                elementwise::columns(&x.data, c, |j, x| x * gamma[j])
            }
            Op::LayerNorm { affine, eps } => {
                let rows = elementwise::layer_norm(&x.data, c, *eps);
                match affine {
                    Some((gain, bias)) => {
                        let (gain, bias) = (constants.all(*gain)?, constants.all(*bias)?);
                        elementwise::columns(&rows, c, |j, x| x * gain[j] + bias[j])
                    }
                    None => rows,
                }
            }
            Op::RmsNorm { gain, eps } => {
                let rows = elementwise::rms_norm(&x.data, c, *eps);
                match gain {
                    Some(gain) => {
                        let gain = constants.all(*gain)?;
                        elementwise::columns(&rows, c, |j, x| x * gain[j])
                    }
                    None => rows,
                }
            }
            Op::Linear { weight, bias } => matmul::linear(&x.data, c, *weight, *bias, constants)?,
            Op::Activation(kind) => elementwise::activation(&x.data, *kind),
            Op::Scale { by } => elementwise::each(&x.data, |x| x * *by as f32),
            Op::Add => elementwise::pairs(&x.data, &args[1].data, |a, b| a + b),
            Op::Mul => elementwise::pairs(&x.data, &args[1].data, |a, b| a * b),
            Op::SwiGlu => elementwise::swiglu(&x.data),
            Op::SqueezeExcite { reduce, expand } => {
                elementwise::squeeze_excite(&x.data, c, *reduce, *expand, constants)?
            }
            Op::Flatten => x.data.clone(),
            Op::LastRow => x.data[(n - 1) * c..].to_vec(),
            Op::Embed { table } => {
                let rows = constants.weights.shape(*table)[0];
                let mut out = Vec::new();
                for &id in &x.data {
                    let id = id as usize;
                    if id >= rows {
                        return Err(EvalError::Token { node: node.name.clone(), id, rows });
                    }
                    out.extend(constants.rows(*table, id..id + 1)?);
                }
                out
            }
            Op::ArgMax => x.data.chunks_exact(c).map(elementwise::arg_max).collect(),
            Op::Rope { heads, head_dim, theta } => {
                attention::rope(&x.data, c, *heads, *head_dim, *theta, self.position)
            }
            Op::Attention { .. } => attention::attention(&node.op, args, self.position, &mut self.caches),
            Op::Input | Op::Region { .. } => unreachable!("evaluated by graph_value"),
        };
        let shape = match node.shape {
            Shape::Rows { n: Axis::Positions, c } => Shape::Rows { n: Axis::Fixed(n), c },
            shape => shape,
        };
        debug_assert_eq!(data.len(), shape.elements(0), "{}: elements", node.name);
        Ok(Value { shape, data })
    }
}

impl Value {
    /// Rows `[data.len() / c, c]`.
    pub fn rows(c: usize, data: Vec<f32>) -> Value {
        Value { shape: Shape::Rows { n: Axis::Fixed(data.len() / c.max(1)), c }, data }
    }

    /// A picture.
    pub fn map(h: usize, w: usize, c: usize, data: Vec<f32>) -> Value {
        Value { shape: Shape::Map { h, w, c }, data }
    }

    /// Token ids, `[n, 1]`.
    pub fn ids(ids: &[u32]) -> Value {
        Value::rows(1, ids.iter().map(|&id| id as f32).collect())
    }
}

impl Constants<'_> {
    /// All elements of a weight, kept if there is room.
    pub(crate) fn all(&mut self, id: WeightId) -> Result<Arc<Vec<f32>>, SourceError> {
        if let Some(known) = self.kept.get(&id) {
            return Ok(known.clone());
        }
        let data = Arc::new(self.weights.eval(id, self.source)?);
        if data.len() * 4 <= self.room {
            self.room -= data.len() * 4;
            self.kept.insert(id, data.clone());
        }
        Ok(data)
    }

    /// Some rows of a weight.
    pub(crate) fn rows(&self, id: WeightId, rows: std::ops::Range<usize>) -> Result<Vec<f32>, SourceError> {
        if let Some(known) = self.kept.get(&id) {
            let width = self.weights.get(id).map_or(0, |n| n.width());
            return Ok(known[rows.start * width..rows.end * width].to_vec());
        }
        self.weights.eval_rows(id, rows, self.source)
    }

    /// Whether all of the weight fits into what may be kept.
    pub(crate) fn keep(&mut self, id: WeightId) -> Result<(), SourceError> {
        if self.weights.shape(id).iter().product::<usize>() * 4 <= self.room {
            self.all(id)?;
        }
        Ok(())
    }

    pub(crate) fn shape(&self, id: WeightId) -> &[usize] {
        self.weights.shape(id)
    }
}

impl From<SourceError> for EvalError {
    fn from(e: SourceError) -> EvalError {
        EvalError::Source(e)
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvalError::Input { graph, expected, found } => write!(f, "{graph}: reads {expected}, was given {found}"),
            EvalError::NoSuchNode { name } => write!(f, "no node is called {name:?}"),
            EvalError::Token { node, id, rows } => write!(f, "{node}: token {id} of {rows}"),
            EvalError::Source(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for EvalError {}
