//! What the builders share: nodes, tensors by canonical name, and checks of the description.

use std::fmt;

use ir::{Graph, NodeId, Op, ShapeError, WeightError, WeightId, Weights};

use crate::{Description, Layout};

/// A description that no graph can be built for.
#[derive(Clone, Debug, PartialEq)]
pub enum BuildError {
    /// A number that makes no sense or is not supported.
    Description {
        /// The field, dotted.
        field: &'static str,
        /// What is supported.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Ops that do not fit together.
    Shape(ShapeError),
    /// Weight expressions that do not fit together.
    Weight(WeightError),
}

/// A graph under construction.
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph,
    pub(crate) weights: &'a mut Weights,
    layout: Layout,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(name: &str, description: &Description, weights: &'a mut Weights) -> Builder<'a> {
        Builder { graph: Graph::new(name), weights, layout: description.layout }
    }

    /// A tensor by its transformers name.
    pub(crate) fn tensor(&mut self, canonical: &str, shape: &[usize]) -> WeightId {
        self.weights.tensor(self.layout.tensor_name(canonical), shape)
    }

    pub(crate) fn node(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, BuildError> {
        Ok(self.graph.add(self.weights, name, op, inputs)?)
    }

    /// `{tensor}.weight` `[out, inputs]` and, if wanted, `{tensor}.bias`.
    pub(crate) fn linear(
        &mut self,
        name: impl Into<String>,
        tensor: &str,
        (out, inputs): (usize, usize),
        with_bias: bool,
        x: NodeId,
    ) -> Result<NodeId, BuildError> {
        let weight = self.tensor(&format!("{tensor}.weight"), &[out, inputs]);
        let bias = with_bias.then(|| self.tensor(&format!("{tensor}.bias"), &[out]));
        self.node(name, Op::Linear { weight, bias }, &[x])
    }
}

/// Most channels that a downsampler makes of one; the published tower makes 2. Kernels are unrolled over them.
const GROWTH: usize = 32;

/// Checks everything that the builders rely on.
pub(crate) fn check(d: &Description) -> Result<(), BuildError> {
    let fail = |field, expected: &str, found: String| {
        Err(BuildError::Description { field, expected: expected.to_string(), found })
    };
    if d.vision.side == 0 {
        return fail("vision.side", "at least 1", d.vision.side.to_string());
    }
    // A downsampler's depthwise convolution makes so many channels of each one it reads.
    let multiples =
        d.vision.dims.windows(2).all(|p| p[1].is_multiple_of(p[0]) && (1..=GROWTH).contains(&(p[1] / p[0].max(1))));
    let heads_fit = d.vision.dims[3].is_multiple_of(crate::vision::HEAD_DIM);
    if d.vision.dims[0] == 0 || !multiples || !heads_fit {
        let expected = format!("each 1 to {GROWTH} times the one before, the fourth a multiple of 32");
        return fail("vision.dims", &expected, format!("{:?}", d.vision.dims));
    }
    if d.vision.depths.contains(&0) {
        return fail("vision.depths", "at least 1 block in every stage", format!("{:?}", d.vision.depths));
    }
    let t = &d.text;
    for (field, n) in [
        ("text.hidden", t.hidden),
        ("text.layers", t.layers),
        ("text.heads", t.heads),
        ("text.kv_heads", t.kv_heads),
        ("text.head_dim", t.head_dim),
        ("text.ffn", t.ffn),
        ("text.vocab", t.vocab),
        ("text.max_positions", t.max_positions),
    ] {
        if n == 0 {
            return fail(field, "at least 1", n.to_string());
        }
    }
    if !t.heads.is_multiple_of(t.kv_heads) {
        return fail("text.kv_heads", &format!("a divisor of {} heads", t.heads), t.kv_heads.to_string());
    }
    if !t.head_dim.is_multiple_of(2) {
        return fail("text.head_dim", "even", t.head_dim.to_string());
    }
    for (field, x) in
        [("text.rms_eps", t.rms_eps), ("text.rope_theta", t.rope_theta), ("image.rescale", d.image.rescale)]
    {
        if !(x > 0.0 && x.is_finite()) {
            return fail(field, "a positive number", x.to_string());
        }
    }
    if d.image.mean != [0.0; 3] {
        // Folding a mean into the first convolution would change the padded border.
        return fail("image.mean", "[0, 0, 0], as all FastVLM checkpoints have", format!("{:?}", d.image.mean));
    }
    if d.image.std.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return fail("image.std", "positive numbers", format!("{:?}", d.image.std));
    }
    Ok(())
}

impl From<ShapeError> for BuildError {
    fn from(e: ShapeError) -> BuildError {
        BuildError::Shape(e)
    }
}

impl From<WeightError> for BuildError {
    fn from(e: WeightError) -> BuildError {
        BuildError::Weight(e)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Description { field, expected, found } => {
                write!(f, "{field} is {found}, supported is {expected}")
            }
            BuildError::Shape(e) => e.fmt(f),
            BuildError::Weight(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {}
