//! The tokenizer tables as they lie in a weight file, checked once.
//!
//! All numbers are u32, little endian: magic "TOK1", n_vocab, n_merges, n_special, bytes_len, hash_slots; then
//! offsets[n_vocab + 1] into bytes; hash_slots x (left, right, rank, result); byte_ids[256]; special[n_special];
//! roles[4]; n_eos; eos[n_eos]; n_added; n_added x (id, start, end) into bytes; then the bytes. A file may be hostile: after [`Section::read`] no id and no offset leads
//! outside a table, no look-up runs longer than [`LONGEST_RUN`], and no text leads to a special id.

use super::Roles;
use super::added::Added;
use crate::Error;
use crate::room::{self, text};
use alloc::string::String;
use alloc::vec::Vec;

/// Left id of an unused hash slot, and the id of a role that the vocabulary lacks.
const NONE: u32 = u32::MAX;

/// Longest accepted run of used hash slots. Tables that are at most half full stay below 30 (the 151,387 merges of Qwen2
/// have 19); far longer runs would make encoding slow.
const LONGEST_RUN: usize = 256;

/// What joining two neighbors gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Merges of lower rank come first.
    pub rank: u32,
    /// Id of the joined token.
    pub result: u32,
}

/// Checked view of a tokenizer section.
pub struct Section<'a> {
    offsets: &'a [[u8; 4]],
    slots: &'a [[[u8; 4]; 4]],
    bytes: &'a [u8],
    byte_ids: [u32; 256],
    /// One bit per id.
    special: Vec<u64>,
    /// Longest run of used hash slots: how far a look-up has to go at most.
    longest_run: usize,
    /// Bytes.
    longest_token: usize,
    pub added: Added<'a>,
    pub roles: Roles,
    pub eos: Vec<u32>,
}

impl<'a> Section<'a> {
    /// Checks everything that later code relies on.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut rest = bytes;
        let magic = take(&mut rest, "magic", 1)?[0];
        if &magic != b"TOK1" {
            return Err(fault("magic", text!("is \"{}\", expected \"TOK1\"", magic.escape_ascii())));
        }
        let [n_vocab, n_merges, n_special, bytes_len, hash_slots] = words(take(&mut rest, "header", 5)?);
        if n_vocab == 0 || n_vocab == NONE {
            return Err(fault("header", text!("a vocabulary of {n_vocab} entries")));
        }
        if !hash_slots.is_power_of_two() || n_merges > hash_slots / 2 {
            let reason =
                text!("{n_merges} merges in {hash_slots} slots, expected a power of two of at least twice as many");
            return Err(fault("merges", reason));
        }
        let offsets = take(&mut rest, "offsets", (n_vocab as usize).saturating_add(1))?;
        let slots = take(&mut rest, "merges", (hash_slots as usize).saturating_mul(4))?.as_chunks::<4>().0;
        let byte_ids: [u32; 256] = words(take(&mut rest, "byte_ids", 256)?);
        let special_ids = take(&mut rest, "special", n_special as usize)?;
        let [end_of_text, im_start, im_end, image] = words(take(&mut rest, "roles", 4)?);
        let [n_eos] = words(take(&mut rest, "eos", 1)?);
        let ids = take(&mut rest, "eos", n_eos as usize)?;
        let mut eos = room::with_room(ids.len(), "the tokenizer")?;
        eos.extend(ids.iter().map(|id| u32::from_le_bytes(*id)));
        let [n_added] = words(take(&mut rest, "added", 1)?);
        let added = take(&mut rest, "added", (n_added as usize).saturating_mul(3))?.as_chunks::<3>().0;
        if rest.len() != bytes_len as usize {
            return Err(fault("bytes", text!("{} bytes are left for them, expected {bytes_len}", rest.len())));
        }

        let some = |id: u32| (id != NONE).then_some(id);
        let mut section = Self {
            offsets,
            slots,
            bytes: rest,
            byte_ids,
            special: room::filled(0, (n_vocab as usize).div_ceil(64), "the tokenizer")?,
            longest_run: 0,
            longest_token: 0,
            added: Added::read(&[], rest)?,
            roles: Roles { end_of_text: some(end_of_text), im_start, im_end, image: some(image) },
            eos,
        };
        section.longest_token = section.check_offsets()?;
        let roles = [some(end_of_text), Some(im_start), Some(im_end), some(image)];
        for id in special_ids.iter().map(|id| u32::from_le_bytes(*id)).chain(roles.into_iter().flatten()) {
            section.check_id("special", id)?;
            section.special[id as usize / 64] |= 1 << (id % 64);
        }
        for &id in &section.eos {
            section.check_id("eos", id)?;
        }
        for (byte, &id) in byte_ids.iter().enumerate() {
            section.check_text_id("byte_ids", id)?;
            if section.bytes(id) != [byte as u8] {
                return Err(fault(
                    "byte_ids",
                    text!("byte {byte:#04x} leads to id {id}, which stands for something else"),
                ));
            }
        }
        section.added = Added::read(added, rest)?;
        for id in section.added.ids() {
            section.check_id("added", id)?;
        }
        section.longest_run = section.check_merges(n_merges)?;
        Ok(section)
    }

    /// Bytes of the longest token.
    pub fn longest_token(&self) -> usize {
        self.longest_token
    }

    /// Ids are below this.
    pub fn n_vocab(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of a token; empty when there is no such token.
    pub fn bytes(&self, id: u32) -> &'a [u8] {
        let Some([start, end]) = self.offsets.get(id as usize..).and_then(|rest| rest.first_chunk::<2>()) else {
            return &[];
        };
        &self.bytes[u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize]
    }

    /// Id of the token of one byte.
    pub fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    /// True for the ids that no text leads to.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// What the neighbors `left` and `right` join to, if they do.
    pub fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        let mask = self.slots.len() - 1;
        let home = (left.wrapping_mul(0x9E37_79B1) ^ right.wrapping_mul(0x85EB_CA6B)) as usize & mask;
        for slot in home..home + self.longest_run {
            let [l, r, rank, result] = words(&self.slots[slot & mask]);
            if l == left && r == right {
                return Some(Merge { rank, result });
            }
            if l == NONE {
                return None;
            }
        }
        None
    }

    /// Returns the longest distance of two.
    fn check_offsets(&self) -> Result<usize, Error> {
        let (mut last, mut longest) = (0, 0);
        for (id, offset) in self.offsets.iter().enumerate() {
            let offset = u32::from_le_bytes(*offset);
            if offset < last || offset as usize > self.bytes.len() {
                let reason = text!("entry {id} is {offset}, expected {last} to {}", self.bytes.len());
                return Err(fault("offsets", reason));
            }
            // What comes before the first belongs to no token.
            longest = if id == 0 { 0 } else { longest.max((offset - last) as usize) };
            last = offset;
        }
        Ok(longest)
    }

    fn check_id(&self, item: &'static str, id: u32) -> Result<(), Error> {
        if id as usize >= self.n_vocab() {
            return Err(fault(item, text!("id {id} is outside the vocabulary of {}", self.n_vocab())));
        }
        Ok(())
    }

    fn check_text_id(&self, item: &'static str, id: u32) -> Result<(), Error> {
        self.check_id(item, id)?;
        if self.is_special(id) {
            return Err(fault(item, text!("text would lead to the special id {id}")));
        }
        Ok(())
    }

    /// Returns the longest run of used slots, the wrap at the end included.
    fn check_merges(&self, n_merges: u32) -> Result<usize, Error> {
        let (mut used, mut run, mut longest, mut first_run) = (0u32, 0, 0, None);
        for slot in self.slots {
            let [left, right, _, result] = words(slot);
            if left == NONE {
                first_run.get_or_insert(run);
                run = 0;
                continue;
            }
            self.check_id("merges", left)?;
            self.check_id("merges", right)?;
            self.check_text_id("merges", result)?;
            used += 1;
            run += 1;
            longest = longest.max(run);
        }
        if used != n_merges {
            return Err(fault("merges", text!("{used} slots are in use, expected {n_merges}")));
        }
        let longest = longest.max(run + first_run.unwrap_or(0));
        if longest > LONGEST_RUN {
            return Err(fault("merges", text!("{longest} used slots in a row, expected {LONGEST_RUN} at most")));
        }
        // The slot after the longest run is looked at as well, to find it empty.
        Ok(longest + 1)
    }
}

/// Takes `n` words off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], item: &'static str, n: usize) -> Result<&'a [[u8; 4]], Error> {
    let len = n.checked_mul(4).filter(|len| *len <= rest.len()).ok_or_else(|| {
        fault(item, text!("{n} numbers of 4 bytes are expected, the section has {} bytes left", rest.len()))
    })?;
    let (front, back) = rest.split_at(len);
    *rest = back;
    Ok(front.as_chunks::<4>().0)
}

/// The first `N` words, zero where there are fewer.
pub(super) fn words<const N: usize>(bytes: &[[u8; 4]]) -> [u32; N] {
    core::array::from_fn(|at| bytes.get(at).map_or(0, |word| u32::from_le_bytes(*word)))
}

pub(super) fn fault(item: &'static str, reason: String) -> Error {
    Error::Tokenizer { item, reason }
}
