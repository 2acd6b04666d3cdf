//! The checkpoint's tensors against those that the model reads.

use std::collections::{BTreeMap, BTreeSet};

use models::{BuildError, Description, Layout};

use super::safetensors::is_counter;
use super::{CONFIG, Checkpoint};
use crate::error::{Error, did_you_mean};

/// Suggestions are only searched for the first differences: the others are not printed anyway.
const SUGGESTIONS: usize = 40;

/// Compares names and shapes; returns the tensors that are there and take no part, sorted.
///
/// # Errors
///
/// All differences at once: tensors that are missing, of another shape, or left over.
pub(super) fn check(checkpoint: &Checkpoint, description: &Description) -> Result<Vec<String>, Error> {
    let expected = models::expected_tensors(description).map_err(|e| match e {
        BuildError::Description { field, expected, found } => {
            Error::input(CONFIG, field, format!("{found} is not supported, only {expected}"))
        }
        other => Error::Bug(other.to_string()),
    })?;
    let expected: BTreeMap<String, Vec<usize>> = expected.into_iter().collect();
    let (mut ignored, mut extra) = (Vec::new(), BTreeSet::new());
    for (name, _) in checkpoint.tensors().filter(|(name, _)| !expected.contains_key(*name)) {
        if is_unused(name, description) {
            ignored.push(name.to_owned());
        } else {
            extra.insert(name);
        }
    }
    let mut findings = Vec::new();
    for (name, shape) in &expected {
        match checkpoint.shape(name) {
            None => {
                let candidates = extra.iter().copied().take(if findings.len() < SUGGESTIONS { usize::MAX } else { 0 });
                let near = did_you_mean(name, candidates);
                findings.push(checkpoint.finding(name, format!("is missing{near}; {shape:?} is expected")));
            }
            Some(found) if found != shape => {
                let reversed = found.iter().rev().eq(shape) && found.len() > 1;
                let hint = if reversed { ": is it transposed?" } else { "" };
                findings.push(checkpoint.finding(name, format!("is {found:?}, {shape:?} is expected{hint}")));
            }
            Some(_) => {}
        }
    }
    for name in extra {
        findings.push(checkpoint.finding(name, "is not part of a FastVLM model".into()));
    }
    if findings.is_empty() { Ok(ignored) } else { Err(Error::Input(findings)) }
}

/// Whether a tensor is known and takes no part in inference.
fn is_unused(name: &str, description: &Description) -> bool {
    let clip_head = description.layout.tensor_name("model.vision_tower.timm_model.head.proj");
    let copied_head = description.text.tied && name == "lm_head.weight";
    let old_rotary = name.ends_with(".self_attn.rotary_emb.inv_freq");
    is_counter(name) || copied_head || old_rotary || (description.layout == Layout::LlavaQwen2 && name == clip_head)
}
