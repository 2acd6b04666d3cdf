//! `vocab.json` and `merges.txt`, the older form, whose rules are those of the tokenizer's class.

use serde_json::Value;

use super::super::keys::{Findings, Keys};
use super::super::{ADDED_TOKENS, Checkpoint, MERGES, TOKENIZER_CONFIG, VOCAB, json};
use super::{Added, Files, fast};
use crate::error::{Error, Quoted, grouped};

/// Reads the files; the added tokens may stand in `added_tokens.json`, in `tokenizer_config.json`, or in both. Only the
/// latter has flags, so it comes last.
pub(super) fn read(checkpoint: &Checkpoint, vocab: &[u8], merges: &[u8]) -> Result<Files, Error> {
    let vocab = fast::vocab(VOCAB, "", Some(json::parse(VOCAB, vocab)?))?;
    let merges = lines(json::utf8(MERGES, merges)?)?;
    let mut added = Vec::new();
    if let Some(bytes) = checkpoint.text(ADDED_TOKENS) {
        let tokens = fast::vocab(ADDED_TOKENS, "", Some(json::parse(ADDED_TOKENS, bytes)?))?;
        added.extend(tokens.into_iter().map(|(text, id)| Added { file: ADDED_TOKENS, text, id, special: true }));
    }
    if let Some(bytes) = checkpoint.text(TOKENIZER_CONFIG) {
        config(bytes, &mut added)?;
    }
    Ok(Files { vocab_file: VOCAB, vocab, merges_file: MERGES, merges, added })
}

/// One merge in each line, by rank; the number of an entry is its line.
fn lines(text: &str) -> Result<Vec<(usize, String, String)>, Error> {
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        let (left, right) = fast::split(line).ok_or_else(|| {
            let problem = format!("two tokens with a blank between are expected, found {}", Quoted(line));
            Error::input(MERGES, format!("line {}", grouped(i as u64 + 1)), problem)
        })?;
        merges.push((i + 1, left, right));
    }
    Ok(merges)
}

fn config(bytes: &[u8], added: &mut Vec<Added>) -> Result<(), Error> {
    let map = json::parse_object(TOKENIZER_CONFIG, bytes)?;
    let findings = Findings::default();
    let keys = Keys::new(TOKENIZER_CONFIG, &map, &findings);
    keys.only_text("tokenizer_class", &["Qwen2Tokenizer", "Qwen2TokenizerFast"]);
    keys.only_flag("add_prefix_space", false);
    keys.only_flag("add_bos_token", false);
    if let Some(tokens) = keys.object("added_tokens_decoder") {
        for name in tokens.names() {
            let Some(token) = tokens.object(name) else { continue };
            fast::MATCHING_FLAGS.iter().for_each(|flag| token.only_flag(flag, false));
            match (name.parse(), token.get("content").and_then(Value::as_str)) {
                (Ok(id), Some(text)) => {
                    let special = token.flag("special").unwrap_or(true);
                    added.push(Added { file: TOKENIZER_CONFIG, text: text.to_owned(), id, special });
                }
                (Err(_), _) => tokens.refuse(&Quoted(name).to_string(), "the key has to be a token id"),
                (_, None) => token.refuse("content", "a string is expected"),
            }
        }
    }
    findings.into_result()
}
