//! The keys of transformers' `fast_vlm` configuration: nested, with timm's tower.

use models::VisionForm;

use super::config::{Tower, agree};
use super::keys::{Keys, short};
use super::tokenizer::{IMAGE, Vocabulary};
use super::{Checkpoint, PROCESSOR_CONFIG, json};
use crate::error::{Error, did_you_mean, grouped};

pub(super) const MODEL_TYPE: &str = "fast_vlm";

/// timm's `fastvit_mci3` without overrides.
const DEPTHS: [usize; 5] = [2, 12, 24, 4, 2];
const WIDTHS: [usize; 5] = [96, 192, 384, 768, 1536];

/// Arguments of the tower that change nothing when it only infers.
const HARMLESS_ARGS: [&str; 8] = [
    "inference_mode",
    "num_classes",
    "global_pool",
    "pretrained",
    "drop_rate",
    "proj_drop_rate",
    "drop_path_rate",
    "img_size",
];

/// Checks everything about the tower and the projector. The input side is not in this configuration.
pub(super) fn vision(
    top: &Keys,
    tower: Option<&Tower>,
    checkpoint: &Checkpoint,
    notes: &mut Vec<String>,
) -> Result<Option<usize>, Error> {
    top.only_text("projector_hidden_act", &["gelu"]);
    top.only_flag("multimodal_projector_bias", true);
    top.only_text("vision_feature_select_strategy", &["full"]);
    if let Some(layer) = top.get("vision_feature_layer").filter(|layer| layer.as_i64() != Some(-1)) {
        top.refuse("vision_feature_layer", format!("{} is not supported, only -1", short(layer)));
    }
    if let Some(text) = top.object("text_config") {
        text.only_text("model_type", &["qwen2"]);
    }
    let Some(vision) = top.object("vision_config") else {
        if top.get("vision_config").is_none() {
            top.refuse_missing("vision_config");
        }
        return Ok(None);
    };
    vision.only_text("model_type", &["timm_wrapper"]);
    if vision.get("architecture").is_none() {
        vision.refuse_missing("architecture");
    }
    vision.only_text("architecture", &["fastvit_mci3"]);
    let width = vision.count("hidden_size", 1 << 20);
    agree(&vision, "hidden_size", width, tower.map(Tower::features), "the tower's result is as wide as");
    tower_args(&vision, tower, notes);
    processor(top, checkpoint)?;
    Ok(None)
}

fn tower_args(vision: &Keys, tower: Option<&Tower>, notes: &mut Vec<String>) {
    let args = vision.object("model_args");
    let stages = |key: &str, most: usize| args.as_ref().and_then(|args| args.stages(key, most));
    let refuse = |key: &str, problem: String| match &args {
        Some(args) if args.get(key).is_some() => args.refuse(key, problem),
        _ => vision.refuse("model_args", format!("{key} is not given, so {problem}")),
    };
    let depths = stages("layers", 1024).or(args.as_ref().is_none_or(|a| a.get("layers").is_none()).then_some(DEPTHS));
    let widths = stages("embed_dims", 1 << 16);
    let widths = widths.or(args.as_ref().is_none_or(|a| a.get("embed_dims").is_none()).then_some(WIDTHS));
    if let Some(tower) = tower {
        if let Some(depths) = depths.filter(|depths| *depths != tower.depths) {
            refuse("layers", format!("the stages have {depths:?} blocks, but the tensors have {:?}", tower.depths));
        }
        if let Some(widths) = widths.filter(|widths| *widths != tower.dims) {
            refuse("embed_dims", format!("the stages are {widths:?} wide, but the tensors are {:?}", tower.dims));
        }
    }
    let Some(args) = args else { return };
    if let (Some(folded), Some(tower)) = (args.flag("inference_mode"), tower)
        && folded != (tower.form == VisionForm::Folded)
    {
        let stored = if folded { "branches apart" } else { "folded convolutions" };
        notes.push(format!(
            "vision_config.model_args.inference_mode is {folded}, but the tower is stored with {stored}"
        ));
    }
    if let Some(other) = args.get("in_chans").filter(|n| n.as_u64() != Some(3)) {
        args.refuse("in_chans", format!("{} is not supported, only 3", short(other)));
    }
    if let Some(ratios) = args.get("mlp_ratios") {
        let four = |list: &Vec<serde_json::Value>| list.len() == 5 && list.iter().all(|r| r.as_f64() == Some(4.0));
        if !ratios.as_array().is_some_and(four) {
            args.refuse("mlp_ratios", format!("{} is not supported, only 4 in five stages", short(ratios)));
        }
    }
    const KNOWN: [&str; 4] = ["layers", "embed_dims", "in_chans", "mlp_ratios"];
    for name in args.names() {
        if args.get(name).is_some() && !KNOWN.contains(&name) && !HARMLESS_ARGS.contains(&name) {
            let near = did_you_mean(name, KNOWN.into_iter().chain(HARMLESS_ARGS));
            args.refuse(
                name,
                format!("is not supported: the tower may only be overridden by {}{near}", KNOWN.join(", ")),
            );
        }
    }
}

/// The processor computes how many image ids a prompt has; ours are as many as the tower has rows.
fn processor(top: &Keys, checkpoint: &Checkpoint) -> Result<(), Error> {
    let parsed = checkpoint.text(PROCESSOR_CONFIG).map(|bytes| json::parse_object(PROCESSOR_CONFIG, bytes));
    let Some(Some(map)) = parsed.map(|parsed| top.findings().take(parsed)).transpose()? else { return Ok(()) };
    let keys = Keys::new(PROCESSOR_CONFIG, &map, top.findings());
    if keys.count("patch_size", 1 << 16).is_some_and(|size| size != 64) {
        keys.refuse("patch_size", "only 64 is supported: the tower halves the side six times");
    }
    if let Some(extra) = keys.get("num_additional_image_tokens").filter(|n| n.as_u64() != Some(0)) {
        keys.refuse("num_additional_image_tokens", format!("{} is not supported, only 0", short(extra)));
    }
    Ok(())
}

/// The configuration names the id; a tokenizer that disagrees would make other prompts than the model's own.
pub(super) fn image_id(top: &Keys, vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Option<u32> {
    let key = ["image_token_index", "image_token_id"].into_iter().find(|key| top.get(key).is_some());
    let known = vocabulary.added(IMAGE);
    let Some(key) = key else {
        match known {
            Some(id) => {
                notes.push(format!("config.json names no image token: {IMAGE} of the tokenizer is used, id {id}"))
            }
            None => top.refuse("image_token_index", format!("is missing, and the tokenizer has no {IMAGE}")),
        }
        return known;
    };
    let id = match top.ids(key)[..] {
        [id] => id,
        [] => return None,
        _ => {
            top.refuse(key, "one token id is expected, not a list");
            return None;
        }
    };
    let rows = vocabulary.rows();
    if id as usize >= rows {
        top.refuse(key, format!("{id} is outside the vocabulary ({} rows)", grouped(rows as u64)));
    }
    if let Some(known) = known.filter(|known| *known != id) {
        top.refuse(key, format!("is {id}, but the tokenizer's {IMAGE} is {known}"));
    }
    Some(id)
}
