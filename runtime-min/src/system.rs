//! The beginning that all conversations have in common, computed once for all: the KV cache after the system message.
//!
//! A model may carry it in its weight file, written when it was compiled; a session then starts behind it. It is what a
//! session would compute, bit for bit, so nothing else changes.

use crate::error::Error;
use crate::later::at_once;
use crate::model::Model;
use crate::program::{CacheSlot, Program};
use crate::prompt::{Held, Prompt};
use crate::room::{self, text};
use crate::session::{Options, Session};
use crate::template;
use alloc::vec::Vec;

/// Name of the weight file's section: for each slot of the cache and each of its pieces the blocks of these positions.
const SECTION: &str = "system";

/// Positions of a short question and a short answer, for which a system message leaves room.
pub const QUESTION: usize = 16;

impl<P: Program> Model<P> {
    /// The section "system" that a weight file of this model may have, computed. The compiler puts it there.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] for a system message that leaves no room for a question; those of
    /// [`session`](Self::session).
    pub fn system_cache(&self) -> Result<Vec<u8>, Error> {
        let (info, mut chat) = (P::info(), Session::blank(self, Options::default())?);
        let mut prompt = Prompt::new(self.tokenizer(), info);
        let ids = template::beginning(self.tokenizer(), info.system)?;
        prompt.tokens(&ids)?;
        prompt.check(QUESTION)?;
        at_once(chat.prefill(0, &prompt.rows))??;
        let mut bytes = room::with_room(section_bytes(info.cache, ids.len()), "the system's cache")?;
        for slot in info.cache {
            let n = slot.piece_bytes(ids.len()) / 4;
            for at in slot.pieces() {
                // In bounds: `Info::check`.
                let floats = chat.arena.floats(at, n).unwrap_or_default();
                bytes.extend(floats.iter().flat_map(|float| float.to_bits().to_le_bytes()));
            }
        }
        Ok(bytes)
    }
}

impl<P: Program> Session<'_, P> {
    /// Takes the beginning of all conversations from the weight file, if it is there.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        let info = P::info();
        if !info.baked {
            return Ok(());
        }
        let ids = template::beginning(self.model.tokenizer(), info.system)?;
        if ids.len() >= info.max_context {
            let reason = text!("a system message of {} positions in a context of {}", ids.len(), info.max_context);
            return Err(Error::Program { reason });
        }
        let mut bytes = self.model.file.section(SECTION, section_bytes(info.cache, ids.len()))?;
        for slot in info.cache {
            let n = slot.piece_bytes(ids.len());
            for at in slot.pieces() {
                // Both in bounds: `section`, and `Info::check`.
                let (piece, rest) = bytes.split_at(n.min(bytes.len()));
                let floats = self.arena.floats_mut(at, n / 4).unwrap_or_default();
                for (float, word) in floats.iter_mut().zip(piece.as_chunks().0) {
                    *float = f32::from_bits(u32::from_le_bytes(*word));
                }
                bytes = rest;
            }
        }
        self.prefilled = ids.len();
        self.cached.extend(ids.into_iter().map(Held::Token));
        Ok(())
    }
}

fn section_bytes(cache: &[CacheSlot], positions: usize) -> usize {
    cache.iter().fold(0, |sum: usize, slot| sum.saturating_add(slot.piece_bytes(positions).saturating_mul(slot.pieces)))
}
