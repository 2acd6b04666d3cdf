//! Token ids to text, as they come.
//!
//! A character may be spread over several tokens, so the bytes of an unfinished one are held back. Bytes that can be no
//! UTF-8 become U+FFFD, one for each longest stretch that begins like a character: the whole text is what decoding all
//! ids at once gives.

use super::Tokenizer;
use alloc::string::String;
use alloc::vec::Vec;

/// Decodes one answer.
#[derive(Clone, Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer<'t>,
    /// Start of a character that is not complete yet; three bytes at most between calls.
    held: Vec<u8>,
    text: String,
}

impl<'t> DecodeStream<'t> {
    /// A stream at its beginning.
    pub fn new(tokenizer: &'t Tokenizer<'t>) -> Self {
        Self { tokenizer, held: Vec::new(), text: String::new() }
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
