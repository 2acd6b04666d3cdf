//! The keys of Apple's `llava_qwen2` configuration: flat, with the tower's sizes only in the tensors.

use super::config::{Tower, agree};
use super::keys::{Keys, short, unsupported};
use super::tokenizer::{IMAGE, Vocabulary};
use crate::error::{Quoted, grouped};

pub(super) const MODEL_TYPE: &str = "llava_qwen2";

/// The name of the tower; the input side stands behind its last underscore.
const TOWER: &str = "mobileclip_l";

/// The id that stands for an image in LLaVA's own prompts: outside the vocabulary, never embedded.
const PLACEHOLDER: i64 = -200;

/// Checks everything about the tower and the projector; returns the input side.
pub(super) fn vision(top: &Keys, tower: Option<&Tower>) -> Option<usize> {
    if top.get("mm_projector_type").is_none() {
        top.refuse_missing("mm_projector_type");
    }
    top.only_text("mm_projector_type", &["mlp2x_gelu"]);
    top.only_text("mm_patch_merge_type", &["flat"]);
    top.only_flag("mm_use_im_start_end", false);
    top.only_flag("mm_use_im_patch_token", false);
    top.only_flag("use_mm_proj", true);
    let width = top.count("mm_hidden_size", 1 << 20);
    agree(top, "mm_hidden_size", width, tower.map(Tower::features), "the tower's result is as wide as");
    side(top)
}

fn side(top: &Keys) -> Option<usize> {
    const KEY: &str = "mm_vision_tower";
    if top.get(KEY).is_none() {
        top.refuse_missing(KEY);
    }
    let name = top.text(KEY)?;
    // Training configurations have a path in front.
    let (tower, side) = name.rsplit('/').next().unwrap_or(name).rsplit_once('_').unwrap_or((name, ""));
    if tower != TOWER {
        top.refuse(KEY, unsupported(name, &["mobileclip_l_1024"]));
        return None;
    }
    let side = side.parse().ok().filter(|side| super::preprocessor::SIDES.contains(side));
    if side.is_none() {
        let (least, most) = (super::preprocessor::SIDES.start(), super::preprocessor::SIDES.end());
        top.refuse(KEY, format!("{} does not end in an input side from {least} to {most}", Quoted(name)));
    }
    side
}

/// The id in the vocabulary, if there is one: LLaVA itself splits the text at `<image>` and needs none.
pub(super) fn image_id(top: &Keys, vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Option<u32> {
    const KEY: &str = "image_token_index";
    let known = vocabulary.added(IMAGE);
    let Some(value) = top.get(KEY).filter(|value| value.as_i64() != Some(PLACEHOLDER)) else {
        if known.is_none() {
            notes.push(format!("the vocabulary has no {IMAGE}: prompts are split at images, as LLaVA does"));
        }
        return known;
    };
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < vocabulary.rows());
    match (id, known) {
        (None, _) => {
            let rows = grouped(vocabulary.rows() as u64);
            top.refuse(KEY, format!("{PLACEHOLDER} or an id below {rows} is expected, found {}", short(value)));
        }
        (Some(id), Some(known)) if id != known => {
            top.refuse(KEY, format!("is {id}, but the tokenizer's {IMAGE} is {known}"));
        }
        _ => {}
    }
    id
}
