//! Token ids to text, as they come.
//!
//! A character may be spread over several tokens, so the bytes of an unfinished one are held back. Bytes that can be no
//! UTF-8 become U+FFFD, one for each longest stretch that begins like a character: the whole text is what decoding all
//! ids at once gives.

use super::Tokenizer;
use crate::Error;
use crate::room;
use alloc::string::String;
use alloc::vec::Vec;

/// Decodes one answer. Allocates when it is made, and then no more.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer<'t>,
    /// Start of a character that is not complete yet; three bytes at most between calls.
    held: Vec<u8>,
    text: String,
}

impl<'t> DecodeStream<'t> {
    /// A stream at its beginning, with room for the longest token. Fails with [`Error::OutOfMemory`].
    pub fn new(tokenizer: &'t Tokenizer<'t>) -> Result<Self, Error> {
        const ITEM: &str = "decoding text";
        let longest = tokenizer.section.longest_token().saturating_add(3);
        let held = room::with_room(longest, ITEM)?;
        // Every byte may become a U+FFFD of three.
        let (mut text, most) = (String::new(), longest.saturating_mul(3));
        text.try_reserve_exact(most).map_err(|_| room::refused(ITEM, most))?;
        Ok(Self { tokenizer, held, text })
    }

    /// The text that became complete with `id`, often none. Special ids and ids outside the vocabulary have no text.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        if !self.tokenizer.is_special(id) {
            self.held.extend_from_slice(self.tokenizer.bytes(id));
            self.release();
        }
        &self.text
    }

    /// What is left at the end: nothing, or one U+FFFD for an unfinished character. The stream is then at its beginning.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.held.is_empty() {
            self.held.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// What the latest `push` or `finish` gave.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Moves all but an unfinished character from `held` to `text`.
    fn release(&mut self) {
        let mut done = 0;
        while done < self.held.len() {
            let rest = &self.held[done..];
            let (valid, invalid) = match core::str::from_utf8(rest) {
                Ok(all) => (all, Some(0)),
                Err(error) => {
                    // Valid up to there, so nothing is lost by the default.
                    let valid = core::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default();
                    (valid, error.error_len())
                }
            };
            self.text.push_str(valid);
            done += valid.len();
            match invalid {
                Some(0) => {}
                Some(n) => {
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    done += n;
                }
                None => break,
            }
        }
        self.held.drain(..done);
    }
}
