//! Token ids with a meaning of their own: the image's, and those that end an answer.

use models::{Layout, Tokens};

use super::keys::Keys;
use super::{CHAT_TEMPLATE, Checkpoint, GENERATION_CONFIG, TOKENIZER_CONFIG, json, llava, tokenizer, transformers};
use crate::error::{Error, grouped};

/// The image's id and the ids that end an answer.
pub(super) fn read(
    checkpoint: &Checkpoint,
    layout: Layout,
    top: &Keys,
    text: Option<&Keys>,
    vocab: usize,
    notes: &mut Vec<String>,
) -> Result<Option<Tokens>, Error> {
    let Some(vocabulary) = top.findings().take(tokenizer::read(checkpoint, vocab))? else { return Ok(None) };
    let image = match layout {
        Layout::FastVlm => transformers::image_id(top, &vocabulary, notes),
        Layout::LlavaQwen2 => llava::image_id(top, &vocabulary, notes),
    };
    let mut eos = Vec::new();
    let mut add = |keys: &Keys| {
        for id in keys.ids("eos_token_id") {
            if id as usize >= vocab {
                keys.refuse("eos_token_id", format!("{id} is outside the vocabulary ({} rows)", grouped(vocab as u64)));
            } else if !eos.contains(&id) {
                eos.push(id);
            }
        }
    };
    add(top);
    text.into_iter().for_each(&mut add);
    let generation = checkpoint.text(GENERATION_CONFIG).map(|bytes| json::parse_object(GENERATION_CONFIG, bytes));
    if let Some(Some(map)) = generation.map(|parsed| top.findings().take(parsed)).transpose()? {
        add(&Keys::new(GENERATION_CONFIG, &map, top.findings()));
    }
    // The turn ends with <|im_end|> in the prompt format, and Qwen2's own configurations name
    // <|endoftext|>: whatever a file names, both end an answer.
    for ending in [tokenizer::IM_END, tokenizer::END_OF_TEXT] {
        eos.extend(vocabulary.added(ending).filter(|id| !eos.contains(id)));
    }
    checkpoint.keep_vocabulary(vocabulary);
    note_template(checkpoint, notes);
    Ok(Some(Tokens { image, eos }))
}

/// A chat template is a program, and is not run: prompts are ChatML, as all FastVLM models have it. A
/// template without ChatML's marks was made for something else, and the user should know.
fn note_template(checkpoint: &Checkpoint, notes: &mut Vec<String>) {
    let config = checkpoint.text(TOKENIZER_CONFIG).and_then(|bytes| json::parse_object(TOKENIZER_CONFIG, bytes).ok());
    let inside = config.as_ref().and_then(|map| map.get("chat_template")?.as_str());
    let alone = checkpoint.text(CHAT_TEMPLATE).map(String::from_utf8_lossy);
    let template = alone.as_deref().or(inside);
    if template
        .is_some_and(|template| [tokenizer::IM_START, tokenizer::IM_END].iter().any(|mark| !template.contains(mark)))
    {
        notes.push("the chat template is not ChatML: it is not used, prompts are built as ChatML".into());
    }
}
