//! Tensor names of the two checkpoint layouts.
//!
//! Canonical names are those of transformers, with timm's inside the tower. Apple numbers
//! downsamplers, position encodings and stages in one list.

use crate::Layout;

/// Prefix of the tower's canonical names.
pub(crate) const TOWER: &str = "model.vision_tower.timm_model.";
/// Prefix of the projector's canonical names.
pub(crate) const PROJECTOR: &str = "model.multi_modal_projector.";
/// Prefix of the decoder's canonical names.
pub(crate) const DECODER: &str = "model.language_model.";

/// Canonical beginnings inside the tower and Apple's.
const TOWER_PARTS: [(&str, &str); 13] = [
    ("stem.", "patch_embed."),
    ("stages.0.blocks.", "network.0."),
    ("stages.1.downsample.", "network.1."),
    ("stages.1.blocks.", "network.2."),
    ("stages.2.downsample.", "network.3."),
    ("stages.2.blocks.", "network.4."),
    ("stages.3.downsample.", "network.5."),
    ("stages.3.pos_emb.", "network.6."),
    ("stages.3.blocks.", "network.7."),
    ("stages.4.downsample.", "network.8."),
    ("stages.4.pos_emb.", "network.9."),
    ("stages.4.blocks.", "network.10."),
    ("final_conv.", "conv_exp."),
];

/// Canonical pieces in the middle or at the end of a tower name and Apple's.
const TOWER_PIECES: [(&str, &str); 4] = [
    (".proj.0.reparam_conv.", ".proj.0.lkb_reparam."),
    (".mlp.", ".convffn."),
    (".se.fc1.", ".se.reduce."),
    (".se.fc2.", ".se.expand."),
];

impl Layout {
    /// The checkpoint's name of a tensor with this transformers name.
    pub fn tensor_name(self, canonical: &str) -> String {
        match self {
            Layout::FastVlm => canonical.to_string(),
            Layout::LlavaQwen2 => llava(canonical),
        }
    }
}

fn llava(canonical: &str) -> String {
    if let Some(rest) = canonical.strip_prefix(TOWER) {
        return format!("model.vision_tower.vision_tower.model.{}", llava_tower(rest));
    }
    if let Some(rest) = canonical.strip_prefix(PROJECTOR) {
        let rest = rest.replace("linear_1.", "0.").replace("linear_2.", "2.");
        return format!("model.mm_projector.{rest}");
    }
    match canonical.strip_prefix(DECODER) {
        Some(rest) => format!("model.{rest}"),
        None => canonical.to_string(),
    }
}

fn llava_tower(name: &str) -> String {
    let part = TOWER_PARTS.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    let mut name = part.unwrap_or_else(|| name.to_string());
    for (from, to) in TOWER_PIECES {
        name = name.replace(from, to);
    }
    match name.strip_suffix(".gamma") {
        Some(scale) if scale.contains(".layer_scale") => scale.to_string(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apple_names() {
        for (canonical, apple) in [
            ("model.vision_tower.timm_model.stem.1.reparam_conv.bias", "patch_embed.1.reparam_conv.bias"),
            ("model.vision_tower.timm_model.stages.2.blocks.23.layer_scale.gamma", "network.4.23.layer_scale"),
            ("model.vision_tower.timm_model.stages.4.blocks.0.layer_scale_2.gamma", "network.10.0.layer_scale_2"),
            (
                "model.vision_tower.timm_model.stages.3.downsample.proj.0.reparam_conv.weight",
                "network.5.proj.0.lkb_reparam.weight",
            ),
            ("model.vision_tower.timm_model.stages.3.pos_emb.reparam_conv.weight", "network.6.reparam_conv.weight"),
            (
                "model.vision_tower.timm_model.stages.0.blocks.1.mlp.conv.bn.weight",
                "network.0.1.convffn.conv.bn.weight",
            ),
            ("model.vision_tower.timm_model.final_conv.se.fc2.bias", "conv_exp.se.expand.bias"),
        ] {
            let apple = format!("model.vision_tower.vision_tower.model.{apple}");
            assert_eq!(Layout::LlavaQwen2.tensor_name(canonical), apple);
            assert_eq!(Layout::FastVlm.tensor_name(canonical), canonical);
        }
        for (canonical, apple) in [
            ("model.multi_modal_projector.linear_2.bias", "model.mm_projector.2.bias"),
            ("model.language_model.layers.7.mlp.up_proj.weight", "model.layers.7.mlp.up_proj.weight"),
            ("model.language_model.norm.weight", "model.norm.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(Layout::LlavaQwen2.tensor_name(canonical), apple);
        }
    }
}
