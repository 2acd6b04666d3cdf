//! Text to token ids and back: byte-level BPE exactly as the `tokenizers` package does it for Qwen2.
//!
//! Encoding is five steps, one module each: finding added tokens (`added`), NFC of what is between them (`normalize`), the
//! split into pieces (`split`), merging inside a piece (`bpe`), all over the tables of a weight file (`section`). [`DecodeStream`] goes the other way. [`Tokenizer::encode`]
//! takes its text as text: it never yields a special id, so what a user types cannot end a turn or open another.

mod added;
mod bpe;
mod normalize;
mod section;
mod split;
mod stream;
mod tables;

use crate::Error;
use crate::room;
use alloc::vec::Vec;
use core::ops::Range;
use section::Section;

/// What memory of this module is for, in errors.
const ITEM: &str = "encoding text";

pub use stream::DecodeStream;

/// Special token ids by their use in the chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// `<|endoftext|>`, where the vocabulary has one.
    pub end_of_text: Option<u32>,
    /// `<|im_start|>`.
    pub im_start: u32,
    /// `<|im_end|>`.
    pub im_end: u32,
    /// `<image>`, where the vocabulary has one.
    pub image: Option<u32>,
}

/// The tokenizer of one model; borrows its tables from the weight file.
pub struct Tokenizer<'a> {
    section: Section<'a>,
}

impl<'a> Tokenizer<'a> {
    /// Reads section "tokenizer" of a weight file, whatever its alignment.
    ///
    /// Everything is checked here, once: sizes, every id, every offset, and how far a look-up can go. Fails with
    /// [`Error::Tokenizer`] and [`Error::OutOfMemory`]. Allocates a bit per token, nothing else that grows with the tables.
    pub fn from_section(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self { section: Section::read(bytes)? })
    }

    /// Appends the ids of `text`, never special ones. Takes time proportional to `n log n` for `n` bytes. Fails with
    /// [`Error::OutOfMemory`].
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), Error> {
        let mut merger = bpe::Merger::new(&self.section);
        let (mut begin, mut from) = (0, 0);
        while let Some((at, len, id)) = self.section.added.find(text, from) {
            from = at + len;
            if !self.is_special(id) {
                between(&mut merger, part(text, begin..at), out)?;
                room::push(out, id, ITEM)?;
                begin = from;
            }
        }
        between(&mut merger, part(text, begin..text.len()), out)
    }

    /// Special ids by their use.
    pub fn roles(&self) -> Roles {
        self.section.roles
    }

    /// Id of `<|endoftext|>`, where the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.section.roles.end_of_text
    }

    /// Id of `<|im_start|>`.
    pub fn im_start(&self) -> u32 {
        self.section.roles.im_start
    }

    /// Id of `<|im_end|>`.
    pub fn im_end(&self) -> u32 {
        self.section.roles.im_end
    }

    /// Id of `<image>`, where the vocabulary has one.
    pub fn image(&self) -> Option<u32> {
        self.section.roles.image
    }

    /// Ids that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.section.eos
    }

    /// Ids are below this.
    pub fn n_vocab(&self) -> usize {
        self.section.n_vocab()
    }

    /// True for ids that stand for no text: the special ones.
    pub fn is_special(&self, id: u32) -> bool {
        self.section.is_special(id)
    }

    /// The bytes that `id` stands for, for special ids their names; empty for ids that are not in the vocabulary.
    pub fn bytes(&self, id: u32) -> &'a [u8] {
        self.section.bytes(id)
    }
}

/// A part of a text that begins and ends between characters. Indexing would bring along the message for others, with all that
/// it takes to escape text.
fn part(text: &str, range: Range<usize>) -> &str {
    debug_assert!(text.is_char_boundary(range.start) && text.is_char_boundary(range.end));
    text.get(range).unwrap_or_default()
}

/// Appends the ids of text without added tokens.
fn between(merger: &mut bpe::Merger<'_, '_>, text: &str, out: &mut Vec<u32>) -> Result<(), Error> {
    let text = normalize::nfc(text)?;
    split::pieces(&text).try_for_each(|piece| merger.encode(piece.as_bytes(), out))
}

impl core::fmt::Debug for Tokenizer<'_> {
    /// The sizes; the tables themselves would fill a book.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("n_vocab", &self.n_vocab())
            .field("roles", &self.roles())
            .finish_non_exhaustive()
    }
}
