//! Added tokens, which are found in a text before it is split: `<tool_call>` is one id wherever it stands.
//!
//! The leftmost is taken, of several there the longest. Special ones take part, as they do in the `tokenizers` package,
//! but what is found of them stays text: what a user types never becomes a special id.

use super::section::{fault, words};
use crate::Error;
use crate::room::text;

/// Longest accepted text, in bytes: finding takes as many steps at each place.
const LONGEST: usize = 1024;

/// The table of added tokens: id, start and end of each text, rising by the texts.
pub struct Added<'a> {
    entries: &'a [[[u8; 4]; 3]],
    bytes: &'a [u8],
    /// Whether a text begins with the byte.
    first: [bool; 256],
}

impl<'a> Added<'a> {
    /// Checks order, ranges and lengths; ids are for the caller to check.
    pub fn read(entries: &'a [[[u8; 4]; 3]], bytes: &'a [u8]) -> Result<Self, Error> {
        let mut added = Self { entries, bytes, first: [false; 256] };
        let mut before: &[u8] = &[];
        for (at, entry) in entries.iter().enumerate() {
            let [_, start, end] = words(entry);
            let text = bytes.get(start as usize..end as usize).unwrap_or_default();
            if text.is_empty() || text.len() > LONGEST || text <= before || core::str::from_utf8(text).is_err() {
                let reason =
                    text!("entry {at} is no UTF-8 of 1 to {LONGEST} bytes above the one before: {start}..{end}");
                return Err(fault("added", reason));
            }
            added.first[usize::from(text[0])] = true;
            before = text;
        }
        Ok(added)
    }

    /// Ids, as often as they are listed.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| words::<1>(entry)[0])
    }

    /// The first added token of `text` that starts at byte `from` or later: its place, length and id.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        (from..bytes.len())
            .filter(|&at| self.first[usize::from(bytes[at])])
            .find_map(|at| self.longest(&bytes[at..]).map(|(len, id)| (at, len, id)))
    }

    /// The longest one that `text` starts with. The table is narrowed byte by byte to those that could be it.
    fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut rest = self.entries;
        let mut longest = None;
        for (depth, byte) in text.iter().enumerate() {
            let low = rest.partition_point(|entry| self.text(entry).get(depth) < Some(byte));
            let high = rest.partition_point(|entry| self.text(entry).get(depth) <= Some(byte));
            rest = &rest[low..high];
            let Some(first) = rest.first() else { break };
            if self.text(first).len() == depth + 1 {
                longest = Some((depth + 1, words::<1>(first)[0]));
            }
        }
        longest
    }

    fn text(&self, entry: &[[u8; 4]; 3]) -> &'a [u8] {
        let [_, start, end] = words(entry);
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }
}
