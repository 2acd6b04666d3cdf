//! The section `tokenizer` of the weight file: tables that the runtime reads in place.
//!
//! There is an entry for every row of the embedding, since the model may answer with any of them; the
//! rows behind the tokenizer's last token have no text. All numbers are u32, little endian:
//!
//! | what | count |
//! |---|---|
//! | `"TOK1"`, tokens (rows of the embedding), merges, special tokens, bytes of text, hash slots | 6 |
//! | start of each token's text, and the end of the last | tokens + 1 |
//! | hash slots: left, right, rank, result; an empty slot's left is `0xffff_ffff` | 4 each |
//! | id of each single byte | 256 |
//! | ids of the special tokens, rising: added ones that answers leave out | special tokens |
//! | roles: end of text, begin of turn, end of turn, image; `0xffff_ffff` if there is none | 4 |
//! | count of ending ids, then the ids | 1 + count |
//! | count of added tokens that are found in text, then id, start and end of each text, rising by the texts | 1 + 3 each |
//! | texts: raw bytes, special tokens in UTF-8 | bytes of text |

use models::Tokens;

use super::{END_OF_TEXT, IM_END, IM_START, Merge, Vocabulary};
use crate::error::{Error, grouped};

/// An id that no token has.
const NONE: u32 = u32::MAX;

/// Longest search in the hash table; 19 in a vocabulary of Qwen2's size. The runtime refuses 4096.
const LONGEST_SEARCH: usize = 1024;

/// Sizes were checked while reading, so every count fits 32 bits.
pub(super) fn build(vocabulary: &Vocabulary, tokens: &Tokens) -> Result<Vec<u8>, Error> {
    let specials = vocabulary.specials();
    let slots = hash(&vocabulary.merges).map_err(|rank| {
        let problem = "collides with too many others: no vocabulary made of text does that";
        Error::input(vocabulary.merges_file, format!("the merge of rank {}", grouped(rank as u64)), problem)
    })?;
    let (added, spelled) = added(vocabulary);
    let text_bytes = vocabulary.tokens.iter().map(Vec::len).sum::<usize>() + spelled.len();

    let mut out = Vec::with_capacity(64 + 4 * (vocabulary.tokens.len() + 4 * slots.len() + 512) + text_bytes);
    out.extend_from_slice(b"TOK1");
    let mut put = |n: u32| out.extend_from_slice(&n.to_le_bytes());
    for count in [vocabulary.tokens.len(), vocabulary.merges.len(), specials.len(), text_bytes, slots.len()] {
        put(count as u32);
    }
    let mut start = 0;
    put(start);
    for text in &vocabulary.tokens {
        start += text.len() as u32;
        put(start);
    }
    slots.iter().flatten().copied().for_each(&mut put);
    vocabulary.byte_ids.iter().chain(&specials).copied().for_each(&mut put);
    for role in [END_OF_TEXT, IM_START, IM_END] {
        put(vocabulary.added(role).unwrap_or(NONE));
    }
    put(tokens.image.unwrap_or(NONE));
    put(tokens.eos.len() as u32);
    tokens.eos.iter().copied().for_each(&mut put);
    put(added.len() as u32);
    added.iter().flatten().copied().for_each(&mut put);
    vocabulary.tokens.iter().for_each(|text| out.extend_from_slice(text));
    out.extend_from_slice(&spelled);
    Ok(out)
}

/// Id, start and end of each added token's text, and the texts that are not those of their ids: answers may spell a
/// token in another way than prompts do.
fn added(vocabulary: &Vocabulary) -> (Vec<[u32; 3]>, Vec<u8>) {
    let mut starts = vec![0];
    starts.extend(vocabulary.tokens.iter().scan(0, |end, text| {
        *end += text.len() as u32;
        Some(*end)
    }));
    let all = starts[vocabulary.tokens.len()];
    let mut spelled = Vec::new();
    let mut entry = |(text, id): (&str, usize)| {
        if vocabulary.tokens[id] == text.as_bytes() {
            return [id as u32, starts[id], starts[id + 1]];
        }
        let start = all + spelled.len() as u32;
        spelled.extend_from_slice(text.as_bytes());
        [id as u32, start, start + text.len() as u32]
    };
    let entries = vocabulary.added.iter().map(|(text, added)| entry((text, added.id as usize))).collect();
    (entries, spelled)
}

/// Open addressing with linear probing, at most half full, filled by rank. Fails with the rank of a merge that
/// would be found too slowly: ids can be chosen so that their slots collide.
fn hash(merges: &[Merge]) -> Result<Vec<[u32; 4]>, usize> {
    let mask = (2 * merges.len()).next_power_of_two().max(2) - 1;
    let mut slots = vec![[NONE; 4]; mask + 1];
    for (rank, &Merge { left, right, result }) in merges.iter().enumerate() {
        let first = slot(left, right) as usize;
        let free = (0..LONGEST_SEARCH).map(|step| (first + step) & mask).find(|&slot| slots[slot][0] == NONE);
        slots[free.ok_or(rank)?] = [left, right, rank as u32, result];
    }
    Ok(slots)
}

fn slot(left: u32, right: u32) -> u32 {
    left.wrapping_mul(0x9e37_79b1) ^ right.wrapping_mul(0x85eb_ca6b)
}
