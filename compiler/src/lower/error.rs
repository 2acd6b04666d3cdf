//! Why a graph cannot be lowered.

use std::fmt;

use kernels::ExtentError;

/// A graph that this compiler has no kernels for, or a broken promise between its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowerError {
    /// No kernel computes this node.
    Unsupported {
        /// Name of the node.
        node: String,
        /// What is wanted, and what was found.
        reason: String,
    },
    /// A kernel would leave its operand; a bug of the compiler.
    Extent {
        /// The step.
        step: String,
        /// The parameter.
        parameter: String,
        /// Last element that is touched, and the elements there are.
        touched: (i64, i64),
    },
    /// Extents cannot be found; a bug of the compiler.
    Analysis(ExtentError),
    /// A kernel is malformed; a bug of the compiler.
    Kernel(kernels::Invalid),
}

impl LowerError {
    pub(super) fn unsupported(node: &str, reason: impl Into<String>) -> LowerError {
        LowerError::Unsupported { node: node.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for LowerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LowerError::Unsupported { node, reason } => write!(f, "{node}: {reason}"),
            LowerError::Extent { step, parameter, touched: (end, len) } => {
                write!(f, "{step}: the kernel touches {parameter} up to element {end} of {len}")
            }
            LowerError::Analysis(e) => e.fmt(f),
            LowerError::Kernel(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LowerError {}
