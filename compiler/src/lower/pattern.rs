//! Reading fused regions.

use ir::{Graph, Node, Op, Shape};

use super::LowerError;

/// The nodes of a region's body without its input, in order.
pub(super) fn body(graph: &Graph) -> Vec<&Node> {
    graph.nodes().map(|(_, n)| n).filter(|n| n.op != Op::Input).collect()
}

/// The error for a body of another form: what was wanted and what is there.
pub(super) fn mismatch(node: &Node, wanted: &str, found: &[&Node]) -> LowerError {
    let found: Vec<&str> = found.iter().map(|n| n.op.name()).collect();
    LowerError::unsupported(&node.name, format!("expected {wanted}, found {}", found.join(", ")))
}

/// Height, width and channels of a map.
pub(super) fn map(node: &Node) -> Result<(usize, usize, usize), LowerError> {
    match node.shape {
        Shape::Map { h, w, c } => Ok((h, w, c)),
        Shape::Rows { .. } => Err(LowerError::unsupported(&node.name, "expected a map, found rows")),
    }
}

/// Channels, which must fill lines.
pub(super) fn whole_lines(node: &str, what: &str, channels: usize) -> Result<usize, LowerError> {
    if channels.is_multiple_of(kernels::LANES) {
        Ok(channels)
    } else {
        Err(LowerError::unsupported(node, format!("{what} is {channels}, must be a multiple of {}", kernels::LANES)))
    }
}
