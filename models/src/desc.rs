//! The description of one model: every number that is not in a tensor.
//!
//! A frontend makes it from a checkpoint's configuration and tensor shapes; the builders, the
//! passes and the planner read nothing else about the model. It is plain data with a RON text
//! form, so that a model can be described without its weights.

use serde::{Deserialize, Serialize};

/// One FastVLM model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// How the checkpoint names its tensors.
    pub layout: Layout,
    /// The image tower.
    pub vision: Vision,
    /// The decoder.
    pub text: Text,
    /// How an image becomes pixel values.
    pub image: Image,
    /// Token ids with a meaning of their own.
    pub tokens: Tokens,
}

/// The two published namings of the same tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// transformers' `fast_vlm`: timm's names inside the tower.
    FastVlm,
    /// Apple's `llava_qwen2`.
    LlavaQwen2,
}

/// FastViTHD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vision {
    /// Pixels on each side of the square input.
    pub side: usize,
    /// Channels of the five stages.
    pub dims: [usize; 5],
    /// Blocks of the five stages.
    pub depths: [usize; 5],
    /// Whether the training-time branches are still apart.
    pub form: VisionForm,
}

/// The two forms in which the tower's convolutions are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VisionForm {
    /// One convolution per module, as published.
    Folded,
    /// Parallel branches, each with its BatchNorm.
    Train,
}

/// The Qwen2 decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub ffn: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Epsilon of every RMSNorm.
    pub rms_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Positions the model was made for.
    pub max_positions: usize,
    /// Whether the head reads the embedding table instead of its own tensor.
    pub tied: bool,
}

/// Image preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// How a picture that is not square becomes square.
    pub policy: Policy,
    /// Subtracted per channel, after `rescale`.
    pub mean: [f64; 3],
    /// Divides each channel, after `mean`.
    pub std: [f64; 3],
    /// Factor from the u8 value to the unit range, usually 1/255.
    pub rescale: f64,
}

/// How a picture that is not square becomes square.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Center it on a square of this color, then resize.
    Pad {
        /// RGB.
        color: [u8; 3],
    },
    /// Resize the shorter side, then cut out the center.
    Crop,
}

/// Token ids with a meaning of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The id that stands for one image row in a prompt, if the vocabulary has one.
    pub image: Option<u32>,
    /// Ids that end an answer.
    pub eos: Vec<u32>,
}

impl Description {
    /// The text form; reads back with [`Description::from_ron`].
    pub fn to_ron(&self) -> String {
        // RON fails for types that it cannot name; none of ours is one.
        ron::ser::to_string_pretty(self, ron::ser::PrettyConfig::new()).unwrap_or_else(|e| format!("/* {e} */"))
    }

    /// Reads the text form. The error says where it is wrong; the builders check the numbers.
    pub fn from_ron(text: &str) -> Result<Description, ron::error::SpannedError> {
        ron::from_str(text)
    }
}

impl Vision {
    /// Width of the rows that the projector reads: the final convolution doubles the channels.
    pub fn features(&self) -> usize {
        2 * self.dims[4]
    }

    /// Side of the map behind `halvings` stride-2 convolutions, each of which rounds up.
    pub fn side_after(&self, halvings: u32) -> usize {
        (0..halvings).fold(self.side, |side, _| side.div_ceil(2))
    }

    /// Rows that one image adds to the prompt.
    pub fn tokens(&self) -> usize {
        self.side_after(6).pow(2)
    }
}
