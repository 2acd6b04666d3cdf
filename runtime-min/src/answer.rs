//! An answer, made token by token while it is iterated.

use crate::clock::Clock;
use crate::error::Error;
use crate::program::Program;
use crate::session::Session;
use crate::tokenizer::DecodeStream;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter::FusedIterator;
use core::time::Duration;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended it.
    EndOfText,
    /// [`Options::max_new_tokens`](crate::Options::max_new_tokens) were made.
    MaxTokens,
    /// The conversation fills the context.
    ContextFull,
    /// The cancel token was used.
    Cancelled,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Reading the question.
    pub prefill: Duration,
    /// All decoding steps together.
    pub decode: Duration,
    /// How many those were; the first token needs none.
    pub decode_steps: usize,
}

impl Timings {
    /// Mean time of a decoding step; zero where there was none.
    pub fn decode_per_token(&self) -> Duration {
        let steps = u32::try_from(self.decode_steps).unwrap_or(u32::MAX);
        self.decode.checked_div(steps).unwrap_or_default()
    }
}

/// An answer in the making: iterate it for its text, piece by piece.
///
/// It may be dropped at any time; the conversation then goes on from what was made so far.
pub struct Answer<'s, 'm, P: Program> {
    session: &'s mut Session<'m, P>,
    stream: DecodeStream<'m>,
    prompt: Vec<i64>,
    tokens: Vec<u32>,
    timings: Timings,
    stop: Option<StopReason>,
    /// Nothing follows: the held-back text was handed out, or an error was.
    done: bool,
}

impl<'s, 'm, P: Program> Answer<'s, 'm, P> {
    pub(crate) fn new(
        session: &'s mut Session<'m, P>,
        prompt: Vec<i64>,
        prefill: Duration,
        stop: Option<StopReason>,
    ) -> Result<Self, Error> {
        let stream = DecodeStream::new(session.model.tokenizer());
        // No more tokens than the context has room for, plus one that needs none.
        let room = P::INFO.max_context - session.position + 1;
        let mut tokens = Vec::new();
        crate::session::reserve(&mut tokens, session.options.max_new_tokens.min(room), "the answer")?;
        let timings = Timings { prefill, ..Timings::default() };
        Ok(Self { session, stream, prompt, tokens, timings, stop, done: false })
    }

    /// Ids made so far, the end token included.
    pub fn token_ids(&self) -> &[u32] {
        &self.tokens
    }

    /// Ids of this turn's prompt. An image is its id once per row, or a single -200 where the vocabulary has no id for it.
    pub fn prompt_token_ids(&self) -> &[i64] {
        &self.prompt
    }

    /// Why it ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Where the time went so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Logits from which the next token will be taken, or the latest was if the answer has ended.
    pub fn logits(&self) -> &[f32] {
        self.session.logits()
    }

    /// All the text that is still to come.
    ///
    /// # Errors
    /// Those of the iterator.
    pub fn text(&mut self) -> Result<String, Error> {
        self.collect()
    }

    /// Makes one token; `None` when the answer has ended.
    fn step(&mut self) -> Result<Option<u32>, Error> {
        if self.stop.is_some() {
            return Ok(None);
        }
        if self.tokens.len() >= self.session.options.max_new_tokens {
            return Ok(self.end(StopReason::MaxTokens));
        }
        if let Some(id) = self.session.pending {
            if self.session.position >= P::INFO.max_context {
                return Ok(self.end(StopReason::ContextFull));
            }
            // Also between two tokens of a model whose code does not ask.
            if self.session.cancel.is_cancelled() {
                return Ok(self.end(StopReason::Cancelled));
            }
            let clock = Clock::start();
            match self.session.decode(id) {
                Ok(()) => self.session.pending = None,
                Err(Error::Cancelled) => return Ok(self.end(StopReason::Cancelled)),
                Err(error) => return Err(error),
            }
            self.timings.decode += clock.elapsed();
            self.timings.decode_steps += 1;
        }
        let id = self.session.pick()?;
        self.tokens.push(id);
        if !self.session.options.ignore_eos && self.session.model.tokenizer().eos().contains(&id) {
            // The template of the next turn brings its own end token.
            return Ok(self.end(StopReason::EndOfText));
        }
        self.session.history.push(id);
        self.session.pending = Some(id);
        Ok(Some(id))
    }

    fn end(&mut self, reason: StopReason) -> Option<u32> {
        self.stop = Some(reason);
        None
    }
}

impl<P: Program> Iterator for Answer<'_, '_, P> {
    type Item = Result<String, Error>;

    /// The next piece of text, never empty; waits for as many tokens as it takes to complete a character.
    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let piece = match self.step() {
                Ok(Some(id)) => self.stream.push(id),
                Ok(None) => {
                    self.done = true;
                    self.stream.finish()
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            if !piece.is_empty() {
                return Some(Ok(piece.into()));
            }
        }
        None
    }
}

impl<P: Program> FusedIterator for Answer<'_, '_, P> {}

impl<P: Program> core::fmt::Debug for Answer<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Answer({} tokens, {:?})", self.tokens.len(), self.stop)
    }
}
