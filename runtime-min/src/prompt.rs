//! What is read before an answer is made: the positions of a prompt, and what each is made of.

use crate::error::Error;
use crate::picture::Image;
use crate::program::Info;
use crate::room::{self, text};
use crate::template::{self, Part};
use crate::tokenizer::Tokenizer;
use alloc::vec::Vec;

/// Stands for an image among token ids where the vocabulary has no id for it.
const IMAGE_ID: i64 = -200;

/// What memory of this module is for, in errors.
const ITEM: &str = "the prompt";

/// What a position of the KV cache was computed from; with all before it, it says what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A token.
    Token(u32),
    /// A row of an image.
    Image {
        /// Which image.
        id: usize,
        /// Which row.
        row: usize,
    },
}

/// What goes into one position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'i> {
    pub(crate) held: Held,
    /// Of an image's row, else none.
    pub(crate) floats: &'i [f32],
}

/// A prompt under construction.
pub(crate) struct Prompt<'i, 't> {
    tokenizer: &'t Tokenizer<'t>,
    info: &'t Info,
    pub(crate) rows: Vec<Row<'i>>,
    /// As a user sees them.
    pub(crate) ids: Vec<i64>,
    /// Whether the first row is a token of the answer before.
    pub(crate) pending: bool,
}

impl<'i, 't> Prompt<'i, 't> {
    pub(crate) fn new(tokenizer: &'t Tokenizer<'t>, info: &'t Info) -> Self {
        Self { tokenizer, info, rows: Vec::new(), ids: Vec::new(), pending: false }
    }

    /// Begins with a token that was handed out but not read.
    pub(crate) fn pending(&mut self, id: Option<u32>) -> Result<(), Error> {
        let Some(id) = id else { return Ok(()) };
        self.pending = true;
        room::push(&mut self.rows, Row { held: Held::Token(id), floats: &[] }, ITEM)
    }

    /// Adds a question, the `first` one of its conversation or a further one.
    pub(crate) fn question(&mut self, first: bool, images: &[&'i Image], text: &str) -> Result<(), Error> {
        let info = self.info;
        if text.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        for image in images {
            if image.digest != info.digest || image.hidden != info.hidden {
                let reason = text!("encoded by another model, not by {}", info.name);
                return Err(Error::Argument { name: "images", reason });
            }
        }
        let parts = if first {
            template::first_turn(self.tokenizer, info.system, images.len(), text)?
        } else {
            template::next_turn(self.tokenizer, images.len(), text)?
        };
        for part in parts {
            match part {
                Part::Tokens(ids) => self.tokens(&ids)?,
                Part::Image(index) => {
                    let Some(image) = images.get(index) else { continue };
                    self.image(image)?;
                }
            }
        }
        Ok(())
    }

    /// Adds an answer that was made before. Its text is encoded by itself, as its tokens were chosen after the opening's.
    pub(crate) fn answer(&mut self, text: &str) -> Result<(), Error> {
        let mut ids = Vec::new();
        self.tokenizer.encode(text, &mut ids)?;
        self.tokens(&ids)
    }

    /// Where it ends, from position `start` on.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`].
    pub(crate) fn check(&self, start: usize) -> Result<usize, Error> {
        let (need, have) = (start + self.rows.len(), self.info.max_context);
        if need > have { Err(Error::PromptTooLong { need, have }) } else { Ok(need) }
    }

    /// Adds tokens.
    pub(crate) fn tokens(&mut self, ids: &[u32]) -> Result<(), Error> {
        let vocab = self.info.vocab;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::TokenOutOfRange { id, vocab });
        }
        room::reserve(&mut self.rows, ids.len(), ITEM)?;
        room::reserve(&mut self.ids, ids.len(), ITEM)?;
        self.rows.extend(ids.iter().map(|&id| Row { held: Held::Token(id), floats: &[] }));
        self.ids.extend(ids.iter().copied().map(i64::from));
        Ok(())
    }

    fn image(&mut self, image: &'i Image) -> Result<(), Error> {
        room::reserve(&mut self.rows, image.tokens(), ITEM)?;
        room::reserve(&mut self.ids, image.tokens(), ITEM)?;
        let rows = image.rows().chunks_exact(image.hidden).enumerate();
        self.rows.extend(rows.map(|(row, floats)| Row { held: Held::Image { id: image.id, row }, floats }));
        match self.tokenizer.image() {
            Some(id) => self.ids.extend(core::iter::repeat_n(i64::from(id), image.tokens())),
            None => self.ids.push(IMAGE_ID),
        }
        Ok(())
    }
}
