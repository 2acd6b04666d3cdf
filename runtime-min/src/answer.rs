//! An answer, made token by token while it is iterated.

use crate::clock::Clock;
#[cfg(feature = "std")]
use crate::control::Pressure;
use crate::error::Error;
use crate::later::at_once;
use crate::program::Program;
use crate::room;
use crate::session::Session;
use crate::tokenizer::{DecodeStream, Tokenizer};
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
    /// Positions that were computed for it; fewer than it has where the session held its beginning already.
    pub prefill_rows: usize,
    /// All decoding steps together.
    pub decode: Duration,
    /// How many tokens those made; the first one needs none.
    pub decode_steps: usize,
    /// Tokens that were [guessed](crate::Options::speculation).
    pub drafted: usize,
    /// Those among them that were right, each of which saved a step.
    pub accepted: usize,
    /// Rests between tokens under critical [`Pressure`](crate::Pressure), which `decode` leaves out.
    pub rested: Duration,
}

/// Most time between two tokens of a device that is too hot: longer would look like an end.
#[cfg(feature = "std")]
const LONGEST_REST: Duration = Duration::from_millis(250);

impl Timings {
    /// Mean time of a decoded token; zero where there was none.
    pub fn decode_per_token(&self) -> Duration {
        let steps = u32::try_from(self.decode_steps).unwrap_or(u32::MAX);
        self.decode.checked_div(steps).unwrap_or_default()
    }
}

/// All the memory that an answer uses, had before the question is read.
pub(crate) struct Room<'m> {
    stream: DecodeStream<'m>,
    tokens: Vec<u32>,
}

impl<'m> Room<'m> {
    /// An answer has at most `wanted` tokens, and at most `fitting`: as many as there are positions left, plus one that
    /// needs none.
    pub(crate) fn new(wanted: usize, fitting: usize, tokenizer: &'m Tokenizer<'m>) -> Result<Self, Error> {
        let tokens = room::with_room(wanted.min(fitting), "the answer")?;
        Ok(Self { stream: DecodeStream::new(tokenizer)?, tokens })
    }

    /// The text goes on after these tokens: perhaps in the middle of a character, whose first bytes the last few hold.
    pub(crate) fn after(&mut self, history: &[u32]) {
        let start = history.len().saturating_sub(4);
        for &id in history.get(start..).unwrap_or_default() {
            self.stream.push(id);
        }
    }
}

/// An answer in the making: iterate it for its text, piece by piece.
///
/// It may be dropped at any time; the conversation then goes on from what was made so far. While it goes on nothing is
/// allocated but the pieces that the iterator hands out; [`next_piece`](Self::next_piece) lends them instead.
///
/// While it lives nothing else happens in its session:
///
/// ```compile_fail,E0499
/// fn between<P: runtime_min::Program>(chat: &mut runtime_min::Session<'_, P>) {
///     let mut answer = chat.ask(&[], "one").unwrap();
///     chat.reset();
///     answer.next();
/// }
/// ```
///
/// And a piece that was lent is gone with the next one:
///
/// ```compile_fail,E0499
/// fn kept<P: runtime_min::Program>(mut answer: runtime_min::Answer<'_, '_, P>) {
///     let one = answer.next_piece();
///     let two = answer.next_piece();
///     drop((one, two));
/// }
/// ```
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
        Room { stream, tokens }: Room<'m>,
        prompt: Vec<i64>,
        timings: Timings,
        stop: Option<StopReason>,
    ) -> Self {
        Self { session, stream, prompt, tokens, timings, stop, done: false }
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
    ///
    /// # Errors
    /// Those of [`Session::logits`].
    pub fn logits(&mut self) -> Result<&[f32], Error> {
        self.session.logits()
    }

    /// All the text that is still to come.
    ///
    /// # Errors
    /// Those of the iterator.
    pub fn text(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        while let Some(piece) = self.next_piece() {
            room::append(&mut text, piece?, "the answer's text")?;
        }
        Ok(text)
    }

    /// As the iterator's `next`, but lends the piece until the next call, and so allocates nothing.
    pub fn next_piece(&mut self) -> Option<Result<&str, Error>> {
        at_once(self.next_piece_async()).unwrap_or_else(|error| Some(Err(error)))
    }

    /// As [`next_piece`](Self::next_piece), for a program that hands its work out.
    pub async fn next_piece_async(&mut self) -> Option<Result<&str, Error>> {
        while !self.done {
            let any = match self.step().await {
                Ok(Some(id)) => !self.stream.push(id).is_empty(),
                Ok(None) => {
                    self.done = true;
                    !self.stream.finish().is_empty()
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            if any {
                return Some(Ok(self.stream.text()));
            }
        }
        None
    }

    /// Makes one token; `None` when the answer has ended.
    async fn step(&mut self) -> Result<Option<u32>, Error> {
        if self.stop.is_some() {
            return Ok(None);
        }
        if self.tokens.len() >= self.session.options.max_new_tokens {
            return Ok(self.end(StopReason::MaxTokens));
        }
        if let Some(id) = self.session.pending {
            if self.session.position >= P::info().max_context {
                return Ok(self.end(StopReason::ContextFull));
            }
            // Also between two tokens of a model whose code does not ask.
            if self.session.cancel.orders().stops() {
                return Ok(self.end(StopReason::Cancelled));
            }
            let clock = Clock::start();
            // This call makes one token; guesses are for those after it.
            let left = self.session.options.max_new_tokens - self.tokens.len() - 1;
            match self.session.decode(id, left).await {
                Ok(Some(drafted)) => self.timings.drafted += drafted,
                Ok(None) => self.timings.accepted += 1,
                Err(Error::Cancelled) => return Ok(self.end(StopReason::Cancelled)),
                Err(error) => return Err(error),
            }
            self.session.pending = None;
            let took = clock.elapsed();
            self.timings.decode += took;
            self.timings.decode_steps += 1;
            #[cfg(feature = "std")]
            if self.session.cancel.orders().pressure() == Pressure::Critical {
                self.timings.rested += self.session.cancel.orders().rest(took.min(LONGEST_REST));
            }
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
        let mut piece = String::new();
        let copied = match self.next_piece()? {
            Ok(lent) => room::append(&mut piece, lent, "a piece of text"),
            Err(error) => Err(error),
        };
        // Nothing follows a lost piece.
        self.done |= copied.is_err();
        Some(copied.map(|()| piece))
    }
}

impl<P: Program> FusedIterator for Answer<'_, '_, P> {}

impl<P: Program> core::fmt::Debug for Answer<'_, '_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Answer({} tokens, {:?})", self.tokens.len(), self.stop)
    }
}
