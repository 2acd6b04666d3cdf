//! A question as bytes.
//!
//! ```text
//! little endian, without padding; n stands for a u32, text for n and as many bytes of UTF-8
//!
//! n most new tokens, ignore end tokens (0, 1), speculation, top k
//! f32 temperature, top p, repetition penalty        u64 seed
//! n turns that are told, 0xffff_ffff where the conversation goes on
//! of each turn, and then of the question, whose answer is empty:
//!   n images, and as many n: their handles          text question, answer
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use runtime_min::{Error, SamplerOptions};

/// A question with all that belongs to it.
pub struct Request {
    /// What was said before, where it is told anew.
    pub told: Option<Vec<Turn>>,
    /// The question.
    pub turn: Turn,
    /// How it is answered.
    pub options: Choices,
}

/// A turn of a conversation.
pub struct Turn {
    /// Handles.
    pub images: Vec<u32>,
    /// What is asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
}

/// Choices of an answer; those of a session's options.
pub struct Choices {
    /// Most tokens.
    pub max_new_tokens: usize,
    /// Whether it goes on after end tokens.
    pub ignore_eos: bool,
    /// Most tokens that are guessed at once.
    pub speculation: usize,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
}

/// Reads all of `bytes`.
pub fn read(bytes: &[u8]) -> Result<Request, Error> {
    let mut reader = Reader(bytes);
    let [max_new_tokens, ignore_eos, speculation, top_k] = [(); 4].map(|()| reader.number());
    let [temperature, top_p, repetition_penalty] = [(); 3].map(|()| reader.number().map(f32::from_bits));
    let [low, high] = [reader.number()?, reader.number()?];
    let sampler = SamplerOptions {
        temperature: temperature?,
        top_k: top_k? as usize,
        top_p: top_p?,
        repetition_penalty: repetition_penalty?,
        seed: u64::from(high) << 32 | u64::from(low),
    };
    let options = Choices {
        max_new_tokens: max_new_tokens? as usize,
        ignore_eos: ignore_eos? != 0,
        speculation: speculation? as usize,
        sampler,
    };
    let told = match reader.number()? {
        u32::MAX => None,
        n => {
            let mut turns = Vec::new();
            for _ in 0..n {
                turns.push(reader.turn()?);
            }
            Some(turns)
        }
    };
    let turn = reader.turn()?;
    if reader.0.is_empty() { Ok(Request { told, turn, options }) } else { Err(wrong("it goes on after its end")) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Result<u32, Error> {
        let (word, rest) = self.0.split_first_chunk().ok_or_else(|| wrong("it ends early"))?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*word))
    }

    fn turn(&mut self) -> Result<Turn, Error> {
        let n = self.number()?;
        let mut images = Vec::new();
        for _ in 0..n {
            images.push(self.number()?);
        }
        Ok(Turn { images, question: self.text()?, answer: self.text()? })
    }

    fn text(&mut self) -> Result<String, Error> {
        let n = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(n).ok_or_else(|| wrong("it ends early"))?;
        self.0 = rest;
        let text = core::str::from_utf8(bytes).map_err(|_| wrong("a text is no UTF-8"))?;
        Ok(String::from(text))
    }
}

#[cold]
fn wrong(reason: &str) -> Error {
    Error::Argument { name: "request", reason: String::from(reason) }
}
