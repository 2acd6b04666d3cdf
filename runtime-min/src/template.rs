//! The `qwen_2` chat template: a turn of the conversation as token ids and images.
//!
//! Special tokens are put in here as ids; the text between two of them is encoded in one go, as splitting it further
//! would change its ids. The user's text only ever is text.

use crate::Error;
use crate::room;
use crate::tokenizer::Tokenizer;
use alloc::string::String;
use alloc::vec::Vec;

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Token ids.
    Tokens(Vec<u32>),
    /// The rows of the image with this index among the images of the turn.
    Image(usize),
}

/// What the reference's system message says.
pub const SYSTEM: &str = "You are a helpful assistant.";

/// The first question, from the system message to where the answer begins.
///
/// `<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n` then, without images, `{text}`, else
/// `<image>\n` for each and `{text}`; then `<|im_end|>\n<|im_start|>assistant\n`. Fails with [`Error::OutOfMemory`].
pub fn first_turn(tokenizer: &Tokenizer<'_>, system: &str, images: usize, text: &str) -> Result<Vec<Part>, Error> {
    let mut writer = Writer::new(tokenizer);
    writer.system(system)?;
    writer.turn(images, text)
}

/// What all conversations begin with: [`first_turn`] up to the last token that does not depend on what is asked. Fails with
/// [`Error::OutOfMemory`].
pub fn beginning(tokenizer: &Tokenizer<'_>, system: &str) -> Result<Vec<u32>, Error> {
    let mut writer = Writer::new(tokenizer);
    writer.system(system)?;
    writer.open()?;
    Ok(writer.ids)
}

/// A further question. It starts with the `<|im_end|>` that closes the answer before it, which must not be in the cache
/// yet: a session does not feed the end token back. Fails with [`Error::OutOfMemory`].
pub fn next_turn(tokenizer: &Tokenizer<'_>, images: usize, text: &str) -> Result<Vec<Part>, Error> {
    Writer::new(tokenizer).turn(images, text)
}

/// What memory of this module is for, in errors.
const ITEM: &str = "the prompt";

struct Writer<'t> {
    tokenizer: &'t Tokenizer<'t>,
    parts: Vec<Part>,
    /// Ids since the last image.
    ids: Vec<u32>,
}

impl<'t> Writer<'t> {
    fn new(tokenizer: &'t Tokenizer<'t>) -> Self {
        Self { tokenizer, parts: Vec::new(), ids: Vec::new() }
    }

    fn system(&mut self, text: &str) -> Result<(), Error> {
        self.special(self.tokenizer.im_start())?;
        let mut message = String::new();
        room::append(&mut message, "system\n", ITEM)?;
        room::append(&mut message, text, ITEM)?;
        self.text(&message)
    }

    /// Ends what was said before, and opens a message.
    fn open(&mut self) -> Result<(), Error> {
        self.special(self.tokenizer.im_end())?;
        self.text("\n")?;
        self.special(self.tokenizer.im_start())
    }

    /// Ends what was said before, asks the question, and opens the answer.
    fn turn(mut self, images: usize, text: &str) -> Result<Vec<Part>, Error> {
        self.open()?;
        room::reserve(&mut self.parts, images.saturating_mul(2).saturating_add(1), ITEM)?;
        let mut before = "user\n";
        for image in 0..images {
            self.text(before)?;
            self.parts.push(Part::Tokens(core::mem::take(&mut self.ids)));
            self.parts.push(Part::Image(image));
            before = "\n";
        }
        let mut last = String::new();
        room::append(&mut last, before, ITEM)?;
        room::append(&mut last, text, ITEM)?;
        self.text(&last)?;
        self.open()?;
        self.text("assistant\n")?;
        self.parts.push(Part::Tokens(self.ids));
        Ok(self.parts)
    }

    fn special(&mut self, id: u32) -> Result<(), Error> {
        room::push(&mut self.ids, id, ITEM)
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        self.tokenizer.encode(text, &mut self.ids)
    }
}
