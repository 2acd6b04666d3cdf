//! `tokenizer.json`, whose rules have to be Qwen2's: the runtime has no others.

use serde_json::{Map, Value};

use super::super::keys::{Findings, Keys};
use super::super::{TOKENIZER, json};
use super::{Added, Files};
use crate::error::{Error, Quoted};

/// The pieces that Qwen2 splits a text into before merging.
const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads the file and checks its rules, not yet its tokens.
pub(super) fn read(bytes: &[u8]) -> Result<Files, Error> {
    let mut object = json::parse_object(TOKENIZER, bytes)?;
    let findings = Findings::default();
    let keys = Keys::new(TOKENIZER, &object, &findings);
    check_rules(&keys);
    let added = added(&keys);
    findings.into_result()?;

    let mut model = match object.remove("model") {
        Some(Value::Object(model)) => model,
        _ => Map::new(),
    };
    let vocab = vocab(TOKENIZER, "model.vocab", model.remove("vocab"))?;
    let merges = merges(model.remove("merges"))?;
    Ok(Files { vocab_file: TOKENIZER, vocab, merges_file: TOKENIZER, merges, added })
}

fn check_rules(keys: &Keys) {
    if keys.get("model").is_none() {
        keys.refuse_missing("model");
    }
    if let Some(model) = keys.object("model") {
        model.required_text("type", &["BPE"]);
        for absent in ["unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
            model.no_text(absent);
        }
        for off in ["fuse_unk", "byte_fallback", "ignore_merges"] {
            model.only_flag(off, false);
        }
        if model.get("dropout").is_some_and(|rate| rate.as_f64() != Some(0.0)) {
            model.refuse("dropout", "is not supported: one text would have several tokenizations");
        }
    }
    check_normalizer(keys);
    check_pre_tokenizer(keys);
    for key in ["post_processor", "decoder"] {
        if let Some(object) = keys.object(key) {
            object.required_text("type", &["ByteLevel"]);
        }
    }
}

fn check_normalizer(keys: &Keys) {
    if keys.get("normalizer").is_none() {
        keys.refuse("normalizer", "is missing, \"NFC\" is expected, as Qwen2 has it");
    }
    let Some(normalizer) = keys.object("normalizer") else { return };
    match &normalizer.objects("normalizers")[..] {
        [] => normalizer.required_text("type", &["NFC"]),
        [only] => only.required_text("type", &["NFC"]),
        _ => normalizer.refuse("normalizers", "only \"NFC\" alone is supported"),
    }
}

fn check_pre_tokenizer(keys: &Keys) {
    if keys.get("pre_tokenizer").is_none() {
        keys.refuse("pre_tokenizer", "is missing; Qwen2's is expected");
    }
    let Some(sequence) = keys.object("pre_tokenizer") else { return };
    sequence.required_text("type", &["Sequence"]);
    let steps = sequence.objects("pretokenizers");
    let [split, byte_level] = &steps[..] else {
        sequence.refuse("pretokenizers", "\"Split\" by Qwen2's pattern, then \"ByteLevel\" is expected");
        return;
    };
    split.required_text("type", &["Split"]);
    split.required_text("behavior", &["Isolated"]);
    split.only_flag("invert", false);
    let pattern = split.object("pattern");
    if pattern.as_ref().and_then(|pattern| pattern.text("Regex")) != Some(PATTERN) {
        split.refuse("pattern", format!("is not Qwen2's, which is {PATTERN}"));
    }
    byte_level.required_text("type", &["ByteLevel"]);
    byte_level.only_flag("add_prefix_space", false);
    if byte_level.flag("use_regex") != Some(false) {
        byte_level.refuse("use_regex", "has to be false: the text is split by Qwen2's pattern already");
    }
}

/// Flags that would change where a token is found.
pub(super) const MATCHING_FLAGS: [&str; 4] = ["single_word", "lstrip", "rstrip", "normalized"];

fn added(keys: &Keys) -> Vec<Added> {
    let mut added = Vec::new();
    for token in keys.objects("added_tokens") {
        MATCHING_FLAGS.iter().for_each(|flag| token.only_flag(flag, false));
        match (token.text("content"), token.get("id").and_then(Value::as_u64)) {
            (Some(text), Some(id)) => {
                // Whoever leaves the flag out means a mark, as files without flags do.
                let special = token.flag("special").unwrap_or(true);
                added.push(Added { file: TOKENIZER, text: text.to_owned(), id, special });
            }
            (None, _) => token.refuse("content", "a string is expected"),
            (_, None) => token.refuse("id", "a token id is expected"),
        }
    }
    added
}

/// An object of token: id.
pub(super) fn vocab(file: &'static str, item: &str, value: Option<Value>) -> Result<Vec<(String, u64)>, Error> {
    let map = match value {
        Some(Value::Object(map)) => map,
        Some(other) => {
            return Err(Error::input(
                file,
                item,
                format!("an object of token: id is expected, not {}", json::kind(&other)),
            ));
        }
        None => return Err(Error::input(file, item, "is missing")),
    };
    let entry = |(text, id): (String, Value)| match id.as_u64() {
        Some(id) => Ok((text, id)),
        None => {
            let item = format!("token {}", Quoted(&text));
            Err(Error::input(file, item, format!("a token id is expected, not {}", json::kind(&id))))
        }
    };
    map.into_iter().map(entry).collect()
}

/// A list of `"a b"` in older files, of `["a", "b"]` in newer ones.
fn merges(value: Option<Value>) -> Result<Vec<(usize, String, String)>, Error> {
    let list = match value {
        Some(Value::Array(list)) => list,
        Some(other) => {
            let problem = format!("a list is expected, not {}", json::kind(&other));
            return Err(Error::input(TOKENIZER, "model.merges", problem));
        }
        None => return Err(Error::input(TOKENIZER, "model.merges", "is missing")),
    };
    let pair = |(rank, merge): (usize, Value)| {
        let pair = match &merge {
            Value::String(text) => split(text),
            Value::Array(pair) => match &pair[..] {
                [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
                _ => None,
            },
            _ => None,
        };
        let (left, right) = pair.ok_or_else(|| {
            let problem = format!("two tokens are expected, found {}", json::kind(&merge));
            Error::input(TOKENIZER, format!("model.merges: merge {rank}"), problem)
        })?;
        Ok((rank, left, right))
    };
    list.into_iter().enumerate().map(pair).collect()
}

/// `a b` as its two tokens; no token has a blank in it, as blanks are spelled "Ġ".
pub(super) fn split(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    let whole = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    whole.then(|| (left.to_owned(), right.to_owned()))
}
