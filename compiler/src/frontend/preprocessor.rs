//! How an image becomes pixel values: `preprocessor_config.json`, or what FastVLM was trained with.

use std::ops::RangeInclusive;

use models::{Image, Layout, Policy};
use serde_json::{Map, Value};

use super::keys::{Keys, short, unsupported};
use super::{Checkpoint, PREPROCESSOR_CONFIG, PROCESSOR_CONFIG, json};
use crate::error::Error;

/// Input sides that make sense: the tower halves the side six times.
pub(super) const SIDES: RangeInclusive<usize> = 32..=8192;

/// The side of all published checkpoints.
const DEFAULT_SIDE: usize = 1024;

/// Pillow's number for the bicubic filter.
const BICUBIC: u64 = 3;

/// The input side and the preprocessing. `side` is what the configuration of the tower says, if it does.
pub(super) fn image(
    checkpoint: &Checkpoint,
    layout: Layout,
    top: &Keys,
    side: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Option<(usize, Image)>, Error> {
    let Some(file) = find(checkpoint, top)? else { return Ok(None) };
    let mut image = Image { policy: Policy::Crop, mean: [0.0; 3], std: [1.0; 3], rescale: 1.0 / 255.0 };
    let own_side = match &file {
        Some((name, map)) => read(&Keys::new(name, map, top.findings()), &mut image),
        None => {
            let side = side.unwrap_or(DEFAULT_SIDE);
            notes.push(format!("no {PREPROCESSOR_CONFIG}: FastVLM's own is used ({side} pixels, 1/255, no mean)"));
            Some(DEFAULT_SIDE)
        }
    };
    if let (Some(side), Some(own_side), Some((name, _))) = (side, own_side, &file)
        && side != own_side
    {
        notes.push(format!(
            "{name} says {own_side} pixels, the tower's name says {side}: {side} is used, as LLaVA does"
        ));
    }
    if layout == Layout::LlavaQwen2 {
        // The values of LLaVA's own switch; without it the processor crops.
        match top.text("image_aspect_ratio") {
            Some("pad") => image.policy = Policy::Pad { color: image.mean.map(|mean| (mean * 255.0) as u8) },
            None | Some("square") => {}
            Some(other) => top.refuse("image_aspect_ratio", unsupported(other, &["pad", "square"])),
        }
    }
    Ok(side.or(own_side).map(|side| (side, image)))
}

type Found<'a> = Option<(&'static str, Map<String, Value>)>;

/// The settings' file, if the checkpoint has one: transformers 5 may put them into the processor's.
/// The outer `None` is a file that was refused.
fn find(checkpoint: &Checkpoint, top: &Keys) -> Result<Option<Found<'static>>, Error> {
    if let Some(bytes) = checkpoint.text(PREPROCESSOR_CONFIG) {
        let map = top.findings().take(json::parse_object(PREPROCESSOR_CONFIG, bytes))?;
        return Ok(map.map(|map| Some((PREPROCESSOR_CONFIG, map))));
    }
    let Some(bytes) = checkpoint.text(PROCESSOR_CONFIG) else { return Ok(Some(None)) };
    let Some(mut map) = top.findings().take(json::parse_object(PROCESSOR_CONFIG, bytes))? else { return Ok(None) };
    Ok(Some(match map.remove("image_processor") {
        Some(Value::Object(map)) => Some((PROCESSOR_CONFIG, map)),
        _ => None,
    }))
}

/// Checks the file and takes over its numbers; returns the side.
fn read(keys: &Keys, image: &mut Image) -> Option<usize> {
    if let Some(kind) = keys.text("image_processor_type")
        && !kind.starts_with("CLIPImageProcessor")
    {
        keys.refuse("image_processor_type", unsupported(kind, &["CLIPImageProcessor", "CLIPImageProcessorFast"]));
    }
    keys.only_flag("do_resize", true);
    keys.only_flag("do_rescale", true);
    keys.only_flag("do_center_crop", true);
    keys.only_flag("do_pad", false);
    if let Some(filter) = keys.get("resample").filter(|filter| filter.as_u64() != Some(BICUBIC)) {
        keys.refuse("resample", format!("{} is not supported, only {BICUBIC} (bicubic)", short(filter)));
    }
    image.rescale = keys.positive("rescale_factor", 1.0).unwrap_or(image.rescale);
    if keys.flag("do_normalize") != Some(false) {
        // A mean cannot be folded into the first convolution: its zero padding comes after the mean.
        image.mean = keys.triple("image_mean", "equal to 0, as FastVLM has them,", |n| n == 0.0).unwrap_or(image.mean);
        let divisor = |n: f64| n.is_finite() && n > 1e-6 && n <= 1e6;
        image.std = keys.triple("image_std", "above 0", divisor).unwrap_or(image.std);
    }
    let (resize, crop) = (side(keys, "size"), side(keys, "crop_size"));
    match (resize, crop) {
        (Some(resize), Some(crop)) if resize != crop => {
            keys.refuse(
                "crop_size",
                format!("is {crop}, but the image is resized to {resize}: equal sides are supported"),
            );
        }
        (None, None) if keys.get("size").is_none() && keys.get("crop_size").is_none() => keys.refuse_missing("size"),
        _ => {}
    }
    resize.or(crop)
}

/// A side: a number or an object. `size` has to keep the picture's shape, so only `shortest_edge` will do.
fn side(keys: &Keys, key: &str) -> Option<usize> {
    let value = keys.get(key)?;
    let side = match value.as_object() {
        None => value.as_u64(),
        Some(object) => match (object.get("shortest_edge"), object.get("height"), object.get("width")) {
            (Some(edge), None, None) => edge.as_u64(),
            (None, Some(height), Some(width)) if height == width && key == "crop_size" => height.as_u64(),
            _ => None,
        },
    };
    let side = side.map(|side| side as usize).filter(|side| SIDES.contains(side));
    if side.is_none() {
        let form = if key == "size" { "{\"shortest_edge\": n}" } else { "a square {\"height\": n, \"width\": n}" };
        let (least, most) = (SIDES.start(), SIDES.end());
        keys.refuse(key, format!("{form} with n from {least} to {most} is expected, found {}", short(value)));
    }
    side
}
