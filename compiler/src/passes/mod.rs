//! The passes: pure functions from graph to graph, in one declared order.
//!
//! Each makes the graph smaller and computes the same values. After the last one a graph is a
//! list of steps without branches, which is what lowering reads:
//!
//! - `vision`: the stem, mixers, ConvFFNs, downsamplers, attention blocks, the final convolution
//!   and the projector, each one region, with single convolutions and a `Flatten` between them;
//! - `decoder`: an attention and an MLP region for each layer, the head region, `ArgMax`.
//!
//! [`run_all`] verifies after each pass and can write every graph on the way.

mod fold;
mod fuse;
mod layout;
mod merge;
mod pad;
mod reparameterize;
mod rewriter;

use std::fmt;
use std::path::{Path, PathBuf};

use ir::{Graph, Module, ShapeError, VerifyError, WeightError, Weights, verify};

/// One pass.
pub struct Pass {
    /// Its name in dumps and messages.
    pub name: &'static str,
    /// The rewrite. It may add expressions to the arena and never changes existing ones.
    pub run: fn(&Graph, &mut Weights) -> Result<Graph, PassError>,
}

/// All passes in order.
pub const PASSES: &[Pass] = &[
    Pass { name: "reparameterize", run: reparameterize::run },
    Pass { name: "fold", run: fold::run },
    Pass { name: "merge", run: merge::run },
    Pass { name: "fuse", run: fuse::run },
    Pass { name: "layout", run: layout::run },
];

/// A pass that cannot go on.
#[derive(Debug)]
pub enum PassError {
    /// The pass made an op that does not fit.
    Shape(ShapeError),
    /// The pass made a weight expression that does not fit.
    Weight(WeightError),
    /// The graph has a form that the pass does not know.
    Refused {
        /// The node.
        node: String,
        /// What the pass wants.
        reason: String,
    },
    /// The graph after a pass breaks a rule.
    Verify {
        /// The pass.
        pass: &'static str,
        /// The rule.
        error: VerifyError,
    },
    /// A dump cannot be written.
    Dump {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Runs all passes, verifying before the first and after each.
///
/// With `dump`, writes `{dump}/{graph}/00-import.ron`, `01-reparameterize.ron` and so on: the
/// graph and all weights, in the text form of [`ir::Module`].
pub fn run_all(graph: Graph, weights: &mut Weights, dump: Option<&Path>) -> Result<Graph, PassError> {
    let mut graph = graph;
    check("import", 0, &graph, weights, dump)?;
    for (i, pass) in PASSES.iter().enumerate() {
        graph = (pass.run)(&graph, weights)?;
        check(pass.name, i + 1, &graph, weights, dump)?;
    }
    Ok(graph)
}

fn check(
    pass: &'static str,
    number: usize,
    graph: &Graph,
    weights: &Weights,
    dump: Option<&Path>,
) -> Result<(), PassError> {
    if let Some(dir) = dump {
        let dir = dir.join(&graph.name);
        let path = dir.join(format!("{number:02}-{pass}.ron"));
        let text = Module { graph: graph.clone(), weights: weights.clone() }.to_ron();
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| PassError::Dump { path, error })?;
    }
    verify(graph, weights).map_err(|error| PassError::Verify { pass, error })
}

impl From<ShapeError> for PassError {
    fn from(e: ShapeError) -> PassError {
        PassError::Shape(e)
    }
}

impl From<WeightError> for PassError {
    fn from(e: WeightError) -> PassError {
        PassError::Weight(e)
    }
}

impl fmt::Display for PassError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassError::Shape(e) => e.fmt(f),
            PassError::Weight(e) => e.fmt(f),
            PassError::Refused { node, reason } => write!(f, "{node}: {reason}"),
            PassError::Verify { pass, error } => write!(f, "after pass {pass}: {error}"),
            PassError::Dump { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for PassError {}
