//! Graph IR: what a model computes, before any target is known.
//!
//! A [`Graph`] is a DAG of typed [`Op`]s on typed values; its constants are expressions over the
//! checkpoint's tensors in a [`Weights`] arena, evaluated lazily and by slices of rows, because
//! a checkpoint is larger than the memory that a compiler may use. [`Evaluator`] is the plain
//! implementation that defines every op: each pass and every emitted kernel is checked against
//! it, and it is checked against PyTorch.
//!
//! Matches over [`Op`] have no `_` arm, here or elsewhere: a new op makes the build list the
//! places that have to know it.

mod eval;
mod graph;
mod infer;
mod op;
mod shape;
mod source;
mod text;
mod verify;
mod weight_eval;
mod weights;

pub use eval::{EvalError, Evaluator, Value};
pub use graph::{Graph, Node, NodeId, ShapeError};
pub use infer::Mismatch;
pub use op::{Activation, ChannelOrder, Op, RegionKind, Role};
pub use shape::{Axis, DType, Shape};
pub use source::{MemorySource, SourceError, TensorSource};
pub use text::{Module, TextError};
pub use verify::{VerifyError, verify};
pub use weights::{ColumnOrder, WeightError, WeightId, WeightNode, WeightOp, Weights};
