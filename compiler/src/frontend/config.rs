//! From a checkpoint to the description of its model.
//!
//! `config.json` and the tensors' shapes say the same things twice, and both are used: the configuration
//! says what was meant, the shapes prove it before it becomes a size. Nothing is defaulted silently
//! that changes what the model computes.

use models::{Description, Layout, Text, Vision, VisionForm};

use super::keys::{Findings, Keys};
use super::{CONFIG, Checkpoint, expected, json, llava, preprocessor, text, tokens, transformers};
use crate::error::{Error, Quoted, did_you_mean, grouped};

/// A model and what the user should know about how it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The model.
    pub description: Description,
    /// Sentences about choices that were made: one line each, for the user.
    pub notes: Vec<String>,
    /// Tensors that take no part in inference, by their names in the checkpoint, sorted.
    pub ignored: Vec<String>,
}

/// Says which model the checkpoint holds.
///
/// # Errors
///
/// Every key that is missing, absurd or unsupported; if the keys are sound, every tensor that is missing,
/// left over or of another shape than the model has.
pub fn describe(checkpoint: &Checkpoint) -> Result<Described, Error> {
    described(checkpoint).map_err(|e| checkpoint.locate(e))
}

fn described(checkpoint: &Checkpoint) -> Result<Described, Error> {
    let Some(bytes) = checkpoint.text(CONFIG) else {
        let folder = checkpoint.folder().display().to_string();
        return Err(Error::input(folder, CONFIG, "is missing: a whole checkpoint folder is expected"));
    };
    let config = json::parse_object(CONFIG, bytes)?;
    let findings = Findings::default();
    let mut notes = Vec::new();
    let keys = Keys::new(CONFIG, &config, &findings);
    let Some(layout) = layout(&keys) else {
        findings.into_result()?;
        return Err(Error::Bug("a layout was refused without a reason".into()));
    };
    let description = read(checkpoint, layout, &keys, &mut notes)?;
    findings.into_result()?;
    let Some(description) = description else {
        return Err(Error::Bug("a description was refused without a reason".into()));
    };
    let ignored = expected::check(checkpoint, &description)?;
    Ok(Described { description, notes, ignored })
}

/// The value of `model_type` for each layout.
const MODEL_TYPES: [(&str, Layout); 2] =
    [(transformers::MODEL_TYPE, Layout::FastVlm), (llava::MODEL_TYPE, Layout::LlavaQwen2)];

fn layout(keys: &Keys) -> Option<Layout> {
    if keys.get("model_type").is_none() {
        keys.refuse_missing("model_type");
    }
    let name = keys.text("model_type")?;
    keys.only_text("model_type", &MODEL_TYPES.map(|(name, _)| name));
    MODEL_TYPES.iter().find(|(known, _)| *known == name).map(|(_, layout)| *layout)
}

/// `None` if there are findings.
fn read(
    checkpoint: &Checkpoint,
    layout: Layout,
    keys: &Keys,
    notes: &mut Vec<String>,
) -> Result<Option<Description>, Error> {
    let text_keys = match layout {
        Layout::FastVlm => {
            if keys.get("text_config").is_none() {
                keys.refuse_missing("text_config");
            }
            keys.object("text_config")
        }
        Layout::LlavaQwen2 => Some(keys.clone()),
    };
    for unsupported in ["quantization_config", "quantization"] {
        if keys.get(unsupported).is_some() {
            keys.refuse(unsupported, "quantized checkpoints are not supported: use the original one");
        }
    }
    let tower = Tower::measure(checkpoint, layout, keys);
    let side = match layout {
        Layout::FastVlm => transformers::vision(keys, tower.as_ref(), checkpoint, notes)?,
        Layout::LlavaQwen2 => llava::vision(keys, tower.as_ref()),
    };
    let image = preprocessor::image(checkpoint, layout, keys, side, notes)?;
    let text = text_keys.as_ref().and_then(|text_keys| text::read(checkpoint, layout, keys, text_keys));
    let tied = text::tied(checkpoint, layout, keys, text_keys.as_ref(), notes)?;
    let tokens = match &text {
        Some(text) => tokens::read(checkpoint, layout, keys, text_keys.as_ref(), text.vocab, notes)?,
        None => None,
    };
    let (Some(tower), Some((side, image)), Some(text), Some(tokens)) = (tower, image, text, tokens) else {
        return Ok(None);
    };
    let vision = Vision { side, dims: tower.dims, depths: tower.depths, form: tower.form };
    Ok(Some(Description { layout, vision, text: Text { tied, ..text }, image, tokens }))
}

/// Canonical names of the tower's first convolution, whose name tells the form.
const FOLDED_STEM: &str = "model.vision_tower.timm_model.stem.0.reparam_conv.weight";
const TRAIN_STEM: &str = "model.vision_tower.timm_model.stem.0.conv_kxk.0.conv.weight";

/// The tower's sizes, measured on the tensors.
pub(super) struct Tower {
    pub dims: [usize; 5],
    pub depths: [usize; 5],
    pub form: VisionForm,
}

impl Tower {
    fn measure(checkpoint: &Checkpoint, layout: Layout, keys: &Keys) -> Option<Tower> {
        let shape = |name: &str| checkpoint.shape(&layout.tensor_name(name));
        let refuse = |name: &str, problem: &str| {
            let name = layout.tensor_name(name);
            let near = match checkpoint.shape(&name) {
                Some(_) => String::new(),
                None => did_you_mean(&name, checkpoint.tensors().map(|(name, _)| name)),
            };
            keys.refuse("model_type", format!("{problem}: tensor {}{near}", Quoted(&name)));
        };
        let form = if shape(FOLDED_STEM).is_some() {
            VisionForm::Folded
        } else if shape(TRAIN_STEM).is_some() {
            VisionForm::Train
        } else {
            refuse(FOLDED_STEM, "the checkpoint has no FastViTHD tower of this layout, it would have");
            return None;
        };
        let (mut dims, mut depths) = ([0; 5], [0; 5]);
        for stage in 0..5 {
            let block = |i: usize| format!("model.vision_tower.timm_model.stages.{stage}.blocks.{i}.mlp.fc1.weight");
            match shape(&block(0)) {
                // [4C, C, 1, 1]
                Some(&[_, width, _, _]) => dims[stage] = width,
                Some(other) => {
                    refuse(&block(0), &format!("[4C, C, 1, 1] is expected, not {other:?}"));
                    return None;
                }
                None => {
                    refuse(&block(0), &format!("stage {stage} of the five has no block, it would have"));
                    return None;
                }
            }
            depths[stage] = (1..).find(|&i| shape(&block(i)).is_none()).unwrap_or(1);
        }
        Some(Tower { dims, depths, form })
    }

    /// Width of the tower's result.
    pub fn features(&self) -> usize {
        2 * self.dims[4]
    }
}

/// Refuses if `key` and the tensor that shows the same size do not agree.
pub(super) fn agree(keys: &Keys, key: &str, value: Option<usize>, tensors: Option<usize>, what: &str) {
    if let (Some(value), Some(tensors)) = (value, tensors)
        && value != tensors
    {
        keys.refuse(key, format!("is {}, but {what} {}", grouped(value as u64), grouped(tensors as u64)));
    }
}
