//! The keys of the Qwen2 decoder, the same in both layouts.

use models::{Layout, Text};

use super::Checkpoint;
use super::config::agree;
use super::keys::Keys;
use crate::error::{Error, Quoted, did_you_mean, grouped};

/// Canonical name of the embedding, whose shape says how large the decoder is.
const EMBEDDING: &str = "model.language_model.embed_tokens.weight";
/// The output matrix, in both layouts.
const HEAD: &str = "lm_head.weight";

/// The decoder's sizes; `tied` is still open.
pub(super) fn read(checkpoint: &Checkpoint, layout: Layout, top: &Keys, keys: &Keys) -> Option<Text> {
    let shape = |name: &str| checkpoint.shape(&layout.tensor_name(name)).filter(|shape| shape.len() == 2);
    let rows = |name: &str| shape(name).map(|shape| shape[0]);

    keys.only_text("hidden_act", &["silu"]);
    keys.only_flag("use_sliding_window", false);
    if let Some(types) = keys.get("layer_types") {
        let full = |list: &Vec<_>| list.iter().all(|kind| kind == "full_attention");
        if !types.as_array().is_some_and(full) {
            keys.refuse("layer_types", "only \"full_attention\" is supported in every layer");
        }
    }
    let rope_theta = rope_theta(keys);
    if keys.get("rms_norm_eps").is_none() {
        keys.refuse_missing("rms_norm_eps");
    }
    let rms_eps = keys.positive("rms_norm_eps", 1.0);
    let max_positions = keys.required_count("max_position_embeddings", 1 << 24);
    let hidden = keys.required_count("hidden_size", 1 << 16);
    let layers = keys.required_count("num_hidden_layers", 1024);
    let heads = keys.required_count("num_attention_heads", 1024);
    let kv_heads = keys.required_count("num_key_value_heads", 1024);
    let ffn = keys.required_count("intermediate_size", 1 << 20);
    // transformers writes the size once more at the top of some files; the decoder's own counts.
    let vocab = keys.required_count("vocab_size", 1 << 22);

    let embedding = layout.tensor_name(EMBEDDING);
    let Some(table) = shape(EMBEDDING) else {
        let near = did_you_mean(&embedding, checkpoint.tensors().map(|(name, _)| name));
        let problem = format!("the embedding {} is missing or not a matrix{near}", Quoted(&embedding));
        top.refuse("model_type", problem);
        return None;
    };
    agree(keys, "vocab_size", vocab, Some(table[0]), "the embedding's rows are");
    agree(keys, "hidden_size", hidden, Some(table[1]), "the embedding's columns are");
    let layer = |i: usize, name: &str| format!("model.language_model.layers.{i}.{name}.weight");
    let stored = (0..).find(|&i| rows(&layer(i, "self_attn.q_proj")).is_none());
    agree(keys, "num_hidden_layers", layers, stored, "the layers in the weight files are");
    agree(keys, "intermediate_size", ffn, rows(&layer(0, "mlp.gate_proj")), "the MLP's rows are");

    let head_dim = match (keys.count("head_dim", 1 << 12), hidden, heads) {
        (Some(head_dim), ..) => Some(head_dim),
        (None, Some(hidden), Some(heads)) if hidden.is_multiple_of(heads) => Some(hidden / heads),
        (None, Some(hidden), Some(heads)) => {
            let problem =
                format!("{} heads do not divide hidden_size {}", grouped(heads as u64), grouped(hidden as u64));
            keys.refuse("num_attention_heads", problem);
            None
        }
        _ => None,
    };
    if let Some(odd) = head_dim.filter(|n| !n.is_multiple_of(2)) {
        keys.refuse("num_attention_heads", format!("a head is {odd} wide, rotary positions need an even width"));
    }
    let times = |count: Option<usize>| Some(count? * head_dim?);
    agree(
        keys,
        "num_attention_heads",
        times(heads),
        rows(&layer(0, "self_attn.q_proj")),
        "(times the head's width) the query rows are",
    );
    agree(
        keys,
        "num_key_value_heads",
        times(kv_heads),
        rows(&layer(0, "self_attn.k_proj")),
        "(times the head's width) the key rows are",
    );
    if let (Some(heads), Some(kv_heads)) = (heads, kv_heads)
        && !heads.is_multiple_of(kv_heads)
    {
        let problem = format!("{kv_heads} key heads do not divide {heads} query heads");
        keys.refuse("num_key_value_heads", problem);
    }
    Some(Text {
        hidden: hidden?,
        layers: layers?,
        heads: heads?,
        kv_heads: kv_heads?,
        head_dim: head_dim?,
        ffn: ffn?,
        vocab: vocab?,
        rms_eps: rms_eps?,
        rope_theta: rope_theta?,
        max_positions: max_positions?,
        tied: false,
    })
}

/// transformers 5 writes `rope_parameters`, version 4 `rope_theta` and `rope_scaling`.
fn rope_theta(keys: &Keys) -> Option<f64> {
    for object in ["rope_parameters", "rope_scaling"] {
        if let Some(rope) = keys.object(object) {
            rope.only_text("rope_type", &["default"]);
            rope.only_text("type", &["default"]);
            if rope.positive("partial_rotary_factor", 1.0).is_some_and(|factor| factor != 1.0) {
                rope.refuse("partial_rotary_factor", "only 1 is supported");
            }
        }
    }
    let newer = keys.object("rope_parameters").filter(|rope| rope.get("rope_theta").is_some());
    let keys = newer.as_ref().unwrap_or(keys);
    if keys.get("rope_theta").is_none() {
        keys.refuse_missing("rope_theta");
    }
    keys.positive("rope_theta", 1e12)
}

/// Whether head and embedding are one matrix. The stored bits decide: the flag is wrong in some published
/// checkpoints, and Apple's store a copy of the embedding as the head of tied models.
pub(super) fn tied(
    checkpoint: &Checkpoint,
    layout: Layout,
    top: &Keys,
    text: Option<&Keys>,
    notes: &mut Vec<String>,
) -> Result<bool, Error> {
    const KEY: &str = "tie_word_embeddings";
    let flag = top.flag(KEY).or(text.and_then(|text| text.flag(KEY)));
    let embedding = layout.tensor_name(EMBEDDING);
    if checkpoint.tensor(HEAD).is_none() {
        if flag == Some(false) {
            notes.push(format!("{KEY} is false, but there is no {HEAD}: the head reads the embedding"));
        }
        return Ok(true);
    }
    if checkpoint.tensor(&embedding).is_none() {
        return Ok(false);
    }
    let same = checkpoint.same_values(HEAD, &embedding)?;
    match (same, flag) {
        (true, Some(false)) => {
            notes.push(format!("{HEAD} equals the embedding bit for bit, although {KEY} is false: one copy is kept"));
        }
        (true, _) => notes.push(format!("{HEAD} is a copy of the embedding: one copy is kept")),
        (false, Some(true)) => {
            notes.push(format!("{HEAD} differs from the embedding, although {KEY} is true: both are kept"));
        }
        (false, _) => {}
    }
    Ok(same)
}
