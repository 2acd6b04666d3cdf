//! The tokenizer: byte-level BPE as in Qwen2, from either set of files.
//!
//! `tokenizer.json` has everything and says which rules it wants, so these are checked. Apple's
//! repositories only have `vocab.json`, `merges.txt` and `added_tokens.json`, whose rules are implied
//! by the tokenizer's class. Both become a [`Vocabulary`] of raw bytes, and that the baked section.

mod alphabet;
mod fast;
mod section;
mod slow;

use std::collections::{BTreeMap, HashMap};

use models::Description;

use super::keys::Findings;
use super::{Checkpoint, MERGES, TOKENIZER, VOCAB};
use crate::error::{Error, Quoted, did_you_mean, grouped};

/// Ends a document; Qwen2's base models end answers with it.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a turn.
pub(super) const IM_START: &str = "<|im_start|>";
/// Ends a turn.
pub(super) const IM_END: &str = "<|im_end|>";
/// Stands for an image, where the vocabulary has a token for it.
pub(super) const IMAGE: &str = "<image>";

/// Most merges; Qwen2 has 151,387.
const MAX_MERGES: usize = 1 << 20;
/// Most tokens that are found before the text is split; Qwen2.5 has 22.
const MAX_ADDED: usize = 1024;
/// Bytes of the longest of them; the runtime takes no longer one.
const MAX_ADDED_BYTES: usize = 1024;

/// Findings after which a file is not read on: a wrong file has one in each line.
const ENOUGH: usize = 20;

/// What the files say, before any check.
struct Files {
    vocab_file: &'static str,
    /// Token in the GPT-2 alphabet, id.
    vocab: Vec<(String, u64)>,
    merges_file: &'static str,
    /// Left and right in the GPT-2 alphabet, by rank, with the entry number for messages.
    merges: Vec<(usize, String, String)>,
    added: Vec<Added>,
}

/// A token that is found in the text before it is split.
struct Added {
    file: &'static str,
    text: String,
    id: u64,
    /// Whether it is a mark, which answers leave out, or text such as `<tool_call>`.
    special: bool,
}

/// One merge of two neighbors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Merge {
    left: u32,
    right: u32,
    result: u32,
}

/// A checked tokenizer.
pub(super) struct Vocabulary {
    /// Raw bytes by id, one entry per row of the embedding; a row without a token has none.
    tokens: Vec<Vec<u8>>,
    /// By rank.
    merges: Vec<Merge>,
    /// Where the merges were, for messages.
    merges_file: &'static str,
    byte_ids: [u32; 256],
    added: BTreeMap<String, AddedId>,
}

/// An added token's place.
#[derive(Clone, Copy)]
struct AddedId {
    id: u32,
    special: bool,
}

impl Vocabulary {
    /// The id of an added token.
    pub fn added(&self, text: &str) -> Option<u32> {
        self.added.get(text).map(|added| added.id)
    }

    /// Ids of the added tokens that answers leave out, rising.
    fn specials(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.added.values().filter(|added| added.special).map(|added| added.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Rows of the embedding, which may be more than there are tokens.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}

/// The section `tokenizer` of the weight file.
///
/// # Errors
///
/// Files that are missing or broken, rules that are not Qwen2's, and merges that no table can hold.
pub fn tokenizer_section(checkpoint: &Checkpoint, description: &Description) -> Result<Vec<u8>, Error> {
    baked(checkpoint, description).map_err(|e| checkpoint.locate(e))
}

fn baked(checkpoint: &Checkpoint, description: &Description) -> Result<Vec<u8>, Error> {
    let kept = checkpoint.take_vocabulary().filter(|kept| kept.rows() == description.text.vocab);
    let vocabulary = match kept {
        Some(vocabulary) => vocabulary,
        None => read(checkpoint, description.text.vocab)?,
    };
    section::build(&vocabulary, &description.tokens)
}

/// Reads and checks the tokenizer of a model whose embedding has `rows` rows.
pub(super) fn read(checkpoint: &Checkpoint, rows: usize) -> Result<Vocabulary, Error> {
    let files = match (checkpoint.text(TOKENIZER), checkpoint.text(VOCAB), checkpoint.text(MERGES)) {
        (Some(bytes), ..) => fast::read(bytes)?,
        (None, Some(vocab), Some(merges)) => slow::read(checkpoint, vocab, merges)?,
        _ => {
            let folder = checkpoint.folder().display().to_string();
            let problem = format!("has no {TOKENIZER}, nor {VOCAB} and {MERGES}: download the tokenizer's files");
            return Err(Error::input(folder, "", problem));
        }
    };
    check(files, rows)
}

/// Turns what the files say into a vocabulary. Three steps, each on what the one before has found sound.
fn check(files: Files, rows: usize) -> Result<Vocabulary, Error> {
    let Files { vocab_file, vocab, merges_file, merges, added } = files;
    for (file, what, count, limit) in
        [(merges_file, "merges", merges.len(), MAX_MERGES), (vocab_file, "added tokens", added.len(), MAX_ADDED)]
    {
        if count > limit {
            let (count, limit) = (grouped(count as u64), grouped(limit as u64));
            return Err(Error::input(file, "", format!("has {count} {what}, the limit is {limit}")));
        }
    }
    let mut tokens = Tokens { bytes: vec![Vec::new(); rows], findings: Findings::default() };
    let added = tokens.place_added(added);
    let ids = tokens.place_vocab(vocab_file, vocab, &added);
    let Tokens { bytes, findings } = tokens;
    findings.into_result()?;

    let findings = Findings::default();
    let byte_ids = byte_ids(vocab_file, &ids, &findings);
    let merges = check_merges(merges_file, &merges, &ids, &findings);
    // The prompt's format is built of these.
    for needed in [IM_START, IM_END] {
        if !added.contains_key(needed) {
            let near = did_you_mean(needed, added.keys().map(String::as_str));
            findings.add(vocab_file, "", format!("there is no added token {}{near}", Quoted(needed)));
        }
    }
    findings.into_result()?;
    Ok(Vocabulary { tokens: bytes, merges, merges_file, byte_ids, added })
}

/// Tokens by id, while they are being collected.
struct Tokens {
    /// One entry per row of the embedding: the model can answer with any of them.
    bytes: Vec<Vec<u8>>,
    findings: Findings,
}

impl Tokens {
    /// Gives the id to these bytes, if it is free and has a row; `text` is how the file spells them.
    fn place(&mut self, file: &'static str, text: &str, id: u64, bytes: Vec<u8>) -> Option<u32> {
        let rows = self.bytes.len();
        let slot = usize::try_from(id).ok().and_then(|id| self.bytes.get_mut(id));
        let problem = match slot {
            None => format!("id {id} is outside the embedding, which has {} rows", grouped(rows as u64)),
            Some(_) if bytes.is_empty() => format!("id {id} has an empty text"),
            Some(slot) if !slot.is_empty() => {
                format!("id {id} is also the id of {}", Quoted(&String::from_utf8_lossy(slot)))
            }
            Some(slot) => {
                *slot = bytes;
                return Some(id as u32);
            }
        };
        self.findings.add(file, item(text), problem);
        None
    }

    /// Places the added tokens, which may be listed in two files, and returns their ids. Of flags, the last count.
    fn place_added(&mut self, list: Vec<Added>) -> BTreeMap<String, AddedId> {
        let mut added: BTreeMap<String, AddedId> = BTreeMap::new();
        for Added { file, text, id, special } in list {
            // An added token is spelled as it is; but answers are put together by the rule of the other tokens.
            let bytes = match alphabet::bytes(&text) {
                Ok(bytes) if !special => bytes,
                _ => text.clone().into_bytes(),
            };
            match added.get_mut(&text) {
                _ if self.findings.len() >= ENOUGH => break,
                _ if text.len() > MAX_ADDED_BYTES => {
                    let found = grouped(text.len() as u64);
                    self.findings.add(file, item(&text), format!("has {found} bytes, the limit is {MAX_ADDED_BYTES}"));
                }
                Some(known) if u64::from(known.id) == id => {
                    known.special = special;
                    self.bytes[known.id as usize] = bytes;
                }
                Some(AddedId { id: known, .. }) => {
                    self.findings.add(file, item(&text), format!("has the ids {known} and {id}"));
                }
                None => {
                    if let Some(id) = self.place(file, &text, id, bytes) {
                        added.insert(text, AddedId { id, special });
                    }
                }
            }
        }
        added
    }

    /// Places the other tokens and returns their ids by how the file spells them. The vocabulary may
    /// list the added tokens as well, but no merge may lead to one.
    fn place_vocab(
        &mut self,
        file: &'static str,
        vocab: Vec<(String, u64)>,
        added: &BTreeMap<String, AddedId>,
    ) -> HashMap<String, u32> {
        let mut ids = HashMap::with_capacity(vocab.len());
        for (text, id) in vocab {
            match (added.get(&text), alphabet::bytes(&text)) {
                _ if self.findings.len() >= ENOUGH => break,
                (Some(added), _) if u64::from(added.id) == id => {}
                (Some(AddedId { id: other, .. }), _) => {
                    self.findings.add(file, item(&text), format!("has id {id} here and {other} as an added token"));
                }
                (None, Ok(bytes)) => {
                    if let Some(id) = self.place(file, &text, id, bytes) {
                        ids.insert(text, id);
                    }
                }
                (None, Err(c)) => {
                    let c = c.to_string();
                    let problem = format!("id {id} has {}, which is not in the byte-level alphabet", Quoted(&c));
                    self.findings.add(file, item(&text), problem);
                }
            }
        }
        ids
    }
}

fn item(text: &str) -> String {
    format!("token {}", Quoted(text))
}

/// The id of each byte: there is no unknown token, so every byte needs one.
fn byte_ids(file: &'static str, ids: &HashMap<String, u32>, findings: &Findings) -> [u32; 256] {
    let mut byte_ids = [0; 256];
    for (byte, byte_id) in byte_ids.iter_mut().enumerate() {
        let text = alphabet::char_of(byte as u8).to_string();
        match ids.get(&text) {
            Some(&id) => *byte_id = id,
            None if findings.len() >= ENOUGH => break,
            None => findings.add(file, item(&text), format!("is missing: byte {byte} has no token")),
        }
    }
    byte_ids
}

fn check_merges(
    file: &'static str,
    merges: &[(usize, String, String)],
    ids: &HashMap<String, u32>,
    findings: &Findings,
) -> Vec<Merge> {
    let mut entry_of = HashMap::with_capacity(merges.len());
    let mut checked = Vec::with_capacity(merges.len());
    for (entry, left, right) in merges {
        if findings.len() >= ENOUGH {
            break;
        }
        let refuse = |problem: String| findings.add(file, format!("merge {}", grouped(*entry as u64)), problem);
        let id = |text: &str| {
            let id = ids.get(text).copied();
            if id.is_none() {
                refuse(format!("{} is not in the vocabulary", Quoted(text)));
            }
            id
        };
        let (Some(left_id), Some(right_id), Some(result)) = (id(left), id(right), id(&format!("{left}{right}"))) else {
            continue;
        };
        if let Some(first) = entry_of.insert((left_id, right_id), *entry) {
            let first = grouped(first as u64);
            refuse(format!("{} and {} are merged by {first} already", Quoted(left), Quoted(right)));
        }
        checked.push(Merge { left: left_id, right: right_id, result });
    }
    checked
}
