//! A conversation: the arena with its KV cache, the threads, and what was said.
//!
//! Several sessions may share one model. A session remembers earlier turns in its KV cache, so a further question
//! costs only its own tokens. Nothing is allocated per decoded token except the text that is handed out.

use crate::affinity::{self, Affinity, Bound, Place};
use crate::answer::{Answer, Room, StopReason, Timings};
use crate::arena::Arena;
use crate::cancel::CancelToken;
use crate::clock::Clock;
use crate::control::Control;
use crate::error::Error;
use crate::float;
use crate::image::{Rgb8, preprocess};
use crate::later::{at_once, finished};
use crate::model::Model;
use crate::picture::{Image, Pixels};
use crate::program::{Call, Cx, Info, Observer, Phase, Program, Side, StepView};
use crate::prompt::{Held, Prompt, Row};
use crate::room::{self, text};
use crate::sampler::{Sampler, SamplerOptions};
use crate::speculate::{self, Speculation};
use crate::team::{self, Team};
use crate::weights::Start;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// Choices of a session.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most tokens of an answer, the end token included; 256 unless told otherwise.
    pub max_new_tokens: usize,
    /// Goes on after end tokens, for measurements.
    pub ignore_eos: bool,
    /// How tokens are chosen; greedy unless told otherwise.
    pub sampler: SamplerOptions,
    /// Threads, the calling one included; as the model says unless told otherwise. Where neither does: all processors, and
    /// on phones (Android, iOS) the fast ones.
    pub threads: Option<usize>,
    /// Which processors the threads run on.
    pub affinity: Affinity,
    /// Most tokens that are guessed from what was said before and verified together, in one pass over the weights; 0 is
    /// off, and no model takes more than it was compiled for. Answers are the same tokens either way.
    pub speculation: usize,
}

impl Default for Options {
    fn default() -> Self {
        let (sampler, speculation) = (SamplerOptions::default(), speculate::MOST);
        Self { max_new_tokens: 256, ignore_eos: false, sampler, threads: None, affinity: Affinity::Free, speculation }
    }
}

/// A conversation with a model.
///
/// An answer holds its session, so there is one at a time:
///
/// ```compile_fail,E0499
/// fn two<P: runtime_min::Program>(chat: &mut runtime_min::Session<'_, P>) {
///     let one = chat.ask(&[], "one").unwrap();
///     let two = chat.ask(&[], "two").unwrap();
///     drop((one, two));
/// }
/// ```
///
/// And a session borrows its model:
///
/// ```compile_fail,E0505
/// fn gone<P: runtime_min::Program>(model: runtime_min::Model<P>) {
///     let chat = model.session(Default::default()).unwrap();
///     drop(model);
///     drop(chat);
/// }
/// ```
///
/// One thread at a time has it, though it may move from one to another:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// fn test<P: runtime_min::Program>() {
///     shared::<runtime_min::Session<'_, P>>();
/// }
/// ```
///
/// ```
/// fn moved<T: Send>() {}
/// fn test<P: runtime_min::Program>() {
///     moved::<runtime_min::Session<'_, P>>();
/// }
/// ```
pub struct Session<'m, P: Program> {
    pub(crate) model: &'m Model<P>,
    /// Section "weights".
    weights: Start,
    pub(crate) arena: Arena,
    team: Team,
    /// Where members are bound to, if they are.
    place: Option<Place>,
    bound: Bound,
    /// Members that do the work; another number than the team's where it is handed out.
    members: usize,
    pub(crate) options: Options,
    pub(crate) sampler: Sampler,
    /// Text token ids so far, for the repetition penalty; room for the whole context.
    pub(crate) history: Vec<u32>,
    /// Positions in the KV cache.
    pub(crate) position: usize,
    /// What the KV cache holds, from its first position on: at least `position`, and what was there before a `reset`.
    pub(crate) cached: Vec<Held>,
    /// Positions of the cache, from the first one on, that were computed by prefills.
    pub(crate) prefilled: usize,
    /// A token that was handed out but is not in the KV cache yet.
    pub(crate) pending: Option<u32>,
    /// What was computed beyond `position`.
    pub(crate) speculation: Speculation,
    pub(crate) cancel: CancelToken,
    /// Phase, start and rows of logits of the latest call, while these are unfinished.
    pub(crate) unfinished: Option<(Phase, usize, usize)>,
    observer: Option<Box<Observer<'static>>>,
}

/// A question and its answer, of a conversation that is [told anew](Session::ask_after).
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// What the question is about; none, one or more, in order.
    pub images: &'a [&'a Image],
    /// The question.
    pub question: &'a str,
    /// The answer.
    pub answer: &'a str,
}

impl<'m, P: Program> Session<'m, P> {
    pub(crate) fn new(model: &'m Model<P>, options: Options) -> Result<Self, Error> {
        let mut this = Self::blank(model, options)?;
        this.begin()?;
        Ok(this)
    }

    /// A session whose cache holds nothing.
    pub(crate) fn blank(model: &'m Model<P>, options: Options) -> Result<Self, Error> {
        options.sampler.check()?;
        let info = P::info();
        let weights = model.file.start("weights", info.weights_bytes)?;
        let threads = options.threads.or(model.threads).unwrap_or_else(|| default_threads(options.affinity));
        let (mut team, members) = if P::HANDS_OUT {
            team::check(threads)?;
            (Team::new(1)?, threads)
        } else {
            let team = Team::new(threads)?;
            let members = team.count();
            (team, members)
        };
        let (place, bound) = bind(&mut team, if P::HANDS_OUT { Affinity::Free } else { options.affinity })?;
        let arena = Arena::new("the session's arena", info.session_bytes(members))?;
        let history = room::with_room(info.max_context.saturating_add(1), "the session's history")?;
        let cached = room::with_room(info.max_context, "the session's record of its cache")?;
        let sampler = Sampler::new(options.sampler.clone(), info.vocab)?;
        Ok(Self {
            model,
            weights,
            arena,
            team,
            place,
            bound,
            members,
            options,
            sampler,
            history,
            position: 0,
            cached,
            prefilled: 0,
            pending: None,
            speculation: Speculation::default(),
            cancel: CancelToken::new(!P::HANDS_OUT)?,
            unfinished: None,
            observer: None,
        })
    }

    /// Preprocesses and encodes a picture, once for any number of questions; at the [side](Self::side) that is the default.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::Cancelled`], [`Error::OutOfMemory`], [`Error::Poisoned`].
    pub fn image(&mut self, rgb: &Rgb8<'_>) -> Result<Image, Error> {
        let pixels = self.preprocess(rgb)?;
        self.encode(&pixels)
    }

    /// The first half of [`image`](Self::image): exactly the pixels the reference implementation would use.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::OutOfMemory`].
    pub fn preprocess(&self, rgb: &Rgb8<'_>) -> Result<Pixels, Error> {
        self.preprocess_at(rgb, self.side())
    }

    /// As [`preprocess`](Self::preprocess), for one of [`Info::sides`].
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::OutOfMemory`].
    pub fn preprocess_at(&self, rgb: &Rgb8<'_>, side: usize) -> Result<Pixels, Error> {
        let clock = Clock::start();
        let bytes = preprocess(rgb, side, &P::info().policy)?;
        if bytes.len() != side * side * 3 {
            let reason = text!("preprocessing made {} bytes for a side of {side}", bytes.len());
            return Err(Error::Program { reason });
        }
        Ok(Pixels { side, bytes, took: clock.elapsed() })
    }

    /// The second half of [`image`](Self::image): by the model's [delegate](Model::set_delegate) if there is one that can, else
    /// by the processor. A delegate works on the calling thread.
    ///
    /// # Errors
    /// [`Error::Argument`] for pixels of another side, [`Error::Cancelled`], [`Error::OutOfMemory`], [`Error::Poisoned`].
    pub fn encode(&mut self, pixels: &Pixels) -> Result<Image, Error> {
        at_once(self.encode_async(pixels))?
    }

    /// As [`encode`](Self::encode), for a program that hands its work out.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub async fn encode_async(&mut self, pixels: &Pixels) -> Result<Image, Error> {
        let clock = Clock::start();
        let info = P::info();
        let Some((index, side)) = info.sides.iter().enumerate().find(|(_, side)| side.side == pixels.side) else {
            let reason = text!("the side is {}, {} takes {}", pixels.side, info.name, Sides(info.sides));
            return Err(Error::Argument { name: "pixels", reason });
        };
        let floats = side.tokens.saturating_mul(info.hidden);
        let mut rows = room::with_room(floats, "an image's rows")?;
        self.cancel.clear();
        if let Some(delegate) = &self.model.delegate {
            if self.cancel.orders().waited() {
                return Err(Error::Cancelled);
            }
            rows.resize(floats, 0.0);
            if delegate.rows(&pixels.bytes, side, &mut rows) {
                // It has no way to stop early.
                if self.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                return Ok(Image::new(rows, info, pixels.took, clock.elapsed()));
            }
            rows.clear();
        }
        self.call(Phase::Vision, 0, |program, cx| {
            fill_image(cx, side, &pixels.bytes);
            cx.barrier();
            program.vision(cx, index);
        })
        .await?;
        for row in 0..side.tokens {
            let offset = side.rows + row * info.image_rows_pitch * 4;
            // In bounds: `Info::check`.
            rows.extend_from_slice(self.arena.floats(offset, info.hidden).unwrap_or_default());
        }
        let vision = clock.elapsed();
        Ok(Image::new(rows, info, pixels.took, vision))
    }

    /// Asks about `images` (none, one or more, in order). Reads the question before it returns; the answer is then made
    /// piece by piece, as it is iterated.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::EmptyPrompt`], [`Error::Argument`] and [`Error::OutOfMemory`] before any work;
    /// [`Error::Poisoned`].
    pub fn ask(&mut self, images: &[&Image], text: &str) -> Result<Answer<'_, 'm, P>, Error> {
        at_once(self.ask_async(images, text))?
    }

    /// As [`ask`](Self::ask), for a program that hands its work out.
    ///
    /// # Errors
    /// Those of [`ask`](Self::ask).
    pub async fn ask_async(&mut self, images: &[&Image], text: &str) -> Result<Answer<'_, 'm, P>, Error> {
        let first = self.position == 0 && self.pending.is_none();
        let mut prompt = Prompt::new(self.model.tokenizer(), P::info());
        prompt.pending(self.pending)?;
        prompt.question(first, images, text)?;
        self.read(prompt).await
    }

    /// Goes on with an answer that was given up before its end: dropped, cancelled, cut off at its longest, or saved and
    /// restored. Its tokens are those that would have come; at most [`Options::max_new_tokens`] more.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none: the model has ended it, nothing was asked, or the context is full;
    /// [`Error::OutOfMemory`].
    pub fn go_on(&mut self) -> Result<Answer<'_, 'm, P>, Error> {
        if self.pending.is_none() {
            let reason = text!("no answer was left before its end: ask a question");
            return Err(Error::Argument { name: "conversation", reason });
        }
        if self.position >= P::info().max_context {
            let reason = text!("all {} positions are taken: begin another one", P::info().max_context);
            return Err(Error::Argument { name: "conversation", reason });
        }
        let fitting = P::info().max_context.saturating_sub(self.position) + 1;
        let mut answer = Room::new(self.options.max_new_tokens, fitting, self.model.tokenizer())?;
        answer.after(&self.history);
        self.cancel.clear();
        Ok(Answer::new(self, answer, Vec::new(), Timings::default(), None))
    }

    /// Begins a new conversation, of which these turns are told rather than asked, and asks. What the session still holds of
    /// an earlier conversation that began in the same way, with the same [`Image`]s or clones of them, is not read again:
    /// a program may keep its conversations itself and tell each anew for every question.
    ///
    /// # Errors
    /// As of [`ask`](Self::ask).
    pub fn ask_after(&mut self, told: &[Turn<'_>], images: &[&Image], text: &str) -> Result<Answer<'_, 'm, P>, Error> {
        at_once(self.ask_after_async(told, images, text))?
    }

    /// As [`ask_after`](Self::ask_after), for a program that hands its work out.
    ///
    /// # Errors
    /// Those of [`ask_after`](Self::ask_after).
    pub async fn ask_after_async(
        &mut self,
        told: &[Turn<'_>],
        images: &[&Image],
        text: &str,
    ) -> Result<Answer<'_, 'm, P>, Error> {
        let mut prompt = Prompt::new(self.model.tokenizer(), P::info());
        for (i, turn) in told.iter().enumerate() {
            prompt.question(i == 0, turn.images, turn.question)?;
            prompt.answer(turn.answer)?;
        }
        prompt.question(told.is_empty(), images, text)?;
        prompt.check(0)?;
        self.reset();
        self.read(prompt).await
    }

    /// Reads a prompt from where the conversation is.
    async fn read(&mut self, prompt: Prompt<'_, '_>) -> Result<Answer<'_, 'm, P>, Error> {
        let (info, start) = (P::info(), self.position);
        let need = prompt.check(start)?;
        let Prompt { rows, ids, pending, .. } = prompt;
        let answer = Room::new(self.options.max_new_tokens, info.max_context - need + 1, self.model.tokenizer())?;
        self.cancel.clear();
        let clock = Clock::start();
        let known = self.known(&rows);
        let rest = rows.get(known..).unwrap_or_default();
        let stop = match self.prefill(start + known, rest).await {
            Ok(()) => None,
            // The conversation stays as it was before the question.
            Err(Error::Cancelled) => Some(StopReason::Cancelled),
            Err(error) => return Err(error),
        };
        if stop.is_none() {
            self.position = need;
            self.pending = None;
            // A pending token is in the history already.
            self.history.extend(rows.iter().skip(usize::from(pending)).filter_map(|row| match row.held {
                Held::Token(id) => Some(id),
                Held::Image { .. } => None,
            }));
        }
        let timings = Timings { prefill: clock.elapsed(), prefill_rows: rest.len(), ..Timings::default() };
        Ok(Answer::new(self, answer, ids, timings, stop))
    }

    /// How many of the first `rows` from the current position on the cache holds already. The last one is always computed,
    /// for its logits.
    fn known(&self, rows: &[Row<'_>]) -> usize {
        let end = match P::info().verify_rows {
            // What was decoded has other bits than what is prefilled.
            1 => self.prefilled,
            _ => self.cached.len(),
        };
        let held = self.cached.get(self.position..end).unwrap_or_default();
        let equal = held.iter().zip(rows).take_while(|(held, row)| **held == row.held).count();
        equal.min(rows.len().saturating_sub(1))
    }

    /// Forgets the conversation; images stay usable, and the sampler starts from its seed. A conversation that begins as the
    /// last one did does not read that beginning again.
    pub fn reset(&mut self) {
        self.position = 0;
        self.pending = None;
        self.history.clear();
        self.sampler.restart();
    }

    /// As [`reset`](Self::reset), and everything is read anew, for measurements.
    pub fn forget(&mut self) {
        self.reset();
        self.overwrite(0);
    }

    /// Changes [`Options::max_new_tokens`] for the answers to come.
    pub fn set_max_new_tokens(&mut self, n: usize) {
        self.options.max_new_tokens = n;
    }

    /// Changes [`Options::speculation`] for the answers to come.
    pub fn set_speculation(&mut self, most: usize) {
        self.options.speculation = most;
    }

    /// Changes [`Options::sampler`] for the answers to come, from its seed on; where nothing changes, it goes on.
    ///
    /// # Errors
    /// [`Error::Argument`] for options out of range, [`Error::OutOfMemory`].
    pub fn set_sampler(&mut self, options: SamplerOptions) -> Result<(), Error> {
        if options != self.options.sampler {
            options.check()?;
            self.sampler = Sampler::new(options.clone(), P::info().vocab)?;
            self.options.sampler = options;
        }
        Ok(())
    }

    /// Changes [`Options::ignore_eos`] for the answers to come.
    pub fn set_ignore_eos(&mut self, ignore: bool) {
        self.options.ignore_eos = ignore;
    }

    /// A handle that stops this session's work.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// A handle that tells this session, from any thread, how hot the device is, to wait, to go on and to stop.
    pub fn control(&self) -> Control {
        Control::new(self.cancel.clone())
    }

    /// Positions the conversation takes in the context. The last token of an answer that filled it has none.
    pub fn position(&self) -> usize {
        (self.position + usize::from(self.pending.is_some())).min(P::info().max_context)
    }

    /// Threads in use, the calling one included.
    pub fn threads(&self) -> usize {
        self.members
    }

    /// What the system did about [`Options::affinity`].
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Threads that work under the present [`Pressure`](crate::Pressure), from the next phase on.
    pub fn active_threads(&self) -> usize {
        self.cancel.orders().pressure().threads(self.members)
    }

    /// Which of [`Info::sides`] a picture is encoded at that asks for none: the largest one, or under
    /// [`Pressure`](crate::Pressure) a smaller one.
    pub fn side(&self) -> usize {
        let sides = P::info().sides;
        sides.get(self.cancel.orders().pressure().side(sides.len())).map_or(0, |side| side.side)
    }

    /// First byte of section "weights", for whoever does the work that is handed out.
    pub fn weights_at(&self) -> *const u8 {
        self.weights.get()
    }

    /// First byte of the arena, which [`Info::session_bytes`] follow; as [`weights_at`](Self::weights_at).
    pub fn arena_at(&self) -> *mut u8 {
        self.arena.base()
    }

    /// Name of the level in use.
    pub fn level(&self) -> &'static str {
        self.model.level()
    }

    /// Private memory: arena and scratch of all threads, and the weights unless they are mapped. Bytes.
    pub fn private_bytes(&self) -> usize {
        self.arena.len() + self.model.file.private_bytes()
    }

    /// Shows the result of every step to `observer` from now on, which costs two barriers a step.
    pub fn observe(&mut self, observer: impl FnMut(StepView<'_>) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Ends [`observe`](Self::observe).
    pub fn unobserve(&mut self) {
        self.observer = None;
    }

    /// The last position's logits, as the latest call left them (a sampler may have changed them since). Models that
    /// make no more of them than the token needs make the others now.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn logits(&mut self) -> Result<&[f32], Error> {
        at_once(self.finish_logits())??;
        Ok(self.arena.floats(self.logits_at(), P::info().vocab).unwrap_or_default())
    }

    /// Makes the logits that the latest call left out.
    async fn finish_logits(&mut self) -> Result<(), Error> {
        let active = self.active_threads();
        let Some((phase, start, rows)) = self.unfinished.take() else { return Ok(()) };
        let observer = self.observer.as_deref_mut();
        // Nothing that a user stops: it is part of a call that has ended, and takes no longer than a token.
        let call = Call::new(self.weights, &self.arena, P::info(), (phase, start), None, observer);
        let program = &self.model.program;
        let _here = self.place.as_ref().map(Place::here);
        self.team.run_on(active, &|member| float::standard(|| program.logits(&Cx::new(member, &call), rows)))?;
        finished(program).await;
        // Whoever was handed it may have left it.
        if P::HANDS_OUT && self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// After a call that made `rows` tokens: their logits are unfinished, or what a sampler needs.
    async fn made(&mut self, phase: Phase, start: usize, rows: usize) -> Result<(), Error> {
        self.unfinished = P::info().late_logits.then_some((phase, start, rows));
        if self.sampler.is_greedy() { Ok(()) } else { self.finish_logits().await }
    }

    /// Where they begin.
    fn logits_at(&self) -> usize {
        P::info().logits + self.speculation.row() * P::info().logits_pitch * 4
    }

    /// Runs rows through the decoder from position `start` on, without moving the conversation's.
    pub(crate) async fn prefill(&mut self, start: usize, rows: &[Row<'_>]) -> Result<(), Error> {
        let info = P::info();
        self.speculation.settle();
        let mut start = start;
        for chunk in rows.chunks(info.chunk) {
            self.overwrite(start);
            self.call(Phase::Prefill, start, |program, cx| {
                let part = cx.part(chunk.len());
                for (at, row) in part.clone().zip(chunk.get(part).unwrap_or_default()) {
                    match row.held {
                        Held::Token(id) => program.embed(cx, id, at),
                        Held::Image { .. } => copy_row(cx, info, row.floats, at),
                    }
                }
                cx.barrier();
                program.prefill(cx, start, chunk.len());
            })
            .await?;
            self.made(Phase::Prefill, start, 1).await?;
            if self.prefilled == start {
                self.prefilled += chunk.len();
            }
            self.cached.extend(chunk.iter().map(|row| row.held));
            start += chunk.len();
        }
        Ok(())
    }

    /// Positions from `start` on are about to change.
    pub(crate) fn overwrite(&mut self, start: usize) {
        self.cached.truncate(start);
        self.prefilled = self.prefilled.min(start);
    }

    /// Makes the logits after one more token at the current position, and moves it: from a row that was computed with the
    /// token before, or by a call, with what may follow it and is of use if it is one of `left` tokens. Returns how many
    /// were drafted, or none if the row was there.
    pub(crate) async fn decode(&mut self, id: u32, left: usize) -> Result<Option<usize>, Error> {
        if self.speculation.accept(id) {
            self.position += 1;
            self.cached.push(Held::Token(id));
            return Ok(None);
        }
        let (info, start) = (P::info(), self.position);
        self.overwrite(start);
        let fits = (info.verify_rows - 1).min(info.max_context - start - 1).min(left);
        let drafted = self.speculation.draft(&self.history, fits.min(self.options.speculation));
        // Copied: the call borrows the session.
        let (n, mut rows) = (drafted.len(), [id; speculate::MOST + 1]);
        rows.iter_mut().skip(1).zip(drafted).for_each(|(row, id)| *row = *id);
        let phase = if n > 0 { Phase::Verify } else { Phase::Decode };
        let work = |program: &P, cx: &Cx<'_>| {
            if cx.id() == 0 {
                rows.iter().take(1 + n).enumerate().for_each(|(row, id)| program.embed(cx, *id, row));
            }
            cx.barrier();
            if n > 0 { program.verify(cx, start, 1 + n) } else { program.decode(cx, start) }
        };
        let mut made = self.call(phase, start, work).await;
        if made.is_ok() {
            made = self.made(phase, start, 1 + n).await;
        }
        // Rows that were not made are nobody's.
        made.inspect_err(|_| self.speculation.settle())?;
        self.position += 1;
        self.cached.push(Held::Token(id));
        Ok(Some(n))
    }

    /// The time of a verification of as many rows as there may be, at the current position, which stays; none where there is
    /// no such phase, or no room.
    #[cfg(feature = "std")]
    pub(crate) fn time_verify(&mut self) -> Result<Option<core::time::Duration>, Error> {
        let (start, rows) = (self.position, P::info().verify_rows);
        if rows == 1 || start + rows > P::info().max_context {
            return Ok(None);
        }
        self.overwrite(start);
        let clock = Clock::start();
        at_once(self.call(Phase::Verify, start, |program, cx| {
            cx.part(rows).for_each(|row| program.embed(cx, 0, row));
            cx.barrier();
            program.verify(cx, start, rows);
        }))??;
        Ok(Some(clock.elapsed()))
    }

    /// Chooses the next token from what the latest call left in the arena.
    pub(crate) fn pick(&mut self) -> Result<u32, Error> {
        let info = P::info();
        let id = if self.sampler.is_greedy() {
            let token = self.arena.floats(info.token + 4 * self.speculation.row(), 1).and_then(|floats| floats.first());
            token.map_or(u32::MAX, |float| float.to_bits())
        } else {
            let logits = self.arena.floats_mut(self.logits_at(), info.vocab).unwrap_or_default();
            self.sampler.pick(logits, &self.history)
        };
        if id as usize >= info.vocab {
            return Err(Error::TokenOutOfRange { id, vocab: info.vocab });
        }
        Ok(id)
    }

    /// Runs `work` on all threads, and waits until what it handed out is done.
    async fn call(&mut self, phase: Phase, start: usize, work: impl Fn(&P, &Cx<'_>) + Sync) -> Result<(), Error> {
        if phase != Phase::Vision {
            self.unfinished = None;
        }
        let orders = self.cancel.orders();
        if orders.waited() {
            return Err(Error::Cancelled);
        }
        let active = self.active_threads();
        let observer = self.observer.as_deref_mut();
        let call = Call::new(self.weights, &self.arena, P::info(), (phase, start), Some(orders), observer);
        let program = &self.model.program;
        let _here = self.place.as_ref().map(Place::here);
        self.team.run_on(active, &|member| float::standard(|| work(program, &Cx::new(member, &call))))?;
        let stopped = call.stopped();
        finished(program).await;
        // Whoever was handed it may have left it.
        if stopped || (P::HANDS_OUT && self.cancel.is_cancelled()) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl<P: Program> core::fmt::Debug for Session<'_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Session({:?}, {} positions, {} threads)", self.model, self.position(), self.threads())
    }
}

/// Threads of a session that does not say.
fn default_threads(affinity: Affinity) -> usize {
    let (all, phone) = (team::available(), cfg!(any(target_os = "android", target_os = "ios")));
    let fast = if phone || affinity == Affinity::Performance { affinity::fast() } else { None };
    fast.unwrap_or(all).min(all)
}

/// Asks the system for what the members of a team are to have, and tells what came of it.
fn bind(team: &mut Team, affinity: Affinity) -> Result<(Option<Place>, Bound), Error> {
    if affinity == Affinity::Free {
        return Ok((None, Bound::Free));
    }
    let place = match Place::find() {
        Ok(place) => place,
        Err(reason) => return Ok((None, Bound::Refused(reason))),
    };
    let refused = AtomicBool::new(false);
    team.run(&|member| {
        // The caller is somebody else's thread.
        if member.id() > 0 && !place.bind() {
            refused.store(true, Ordering::Relaxed);
        }
    })?;
    if refused.into_inner() {
        return Ok((None, Bound::Refused("the system refused to bind a thread")));
    }
    let bound = place.bound();
    Ok((Some(place), bound))
}

/// The sides in words: "256", "256 or 512".
struct Sides(&'static [Side]);

impl core::fmt::Display for Sides {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, side) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " or " }, side.side)?;
        }
        Ok(())
    }
}

/// Writes this member's share of the image slot: bytes as floats, a border of zeros.
fn fill_image(cx: &Cx<'_>, side: &Side, bytes: &[u8]) {
    let (input, side) = (side.input, side.side);
    let pitch = (side + 2) * 3;
    for y in cx.part(side + 2) {
        let at = cx.slot(input + y * pitch * 4);
        // SAFETY: `Info::check` proved that `side + 2` rows of `pitch` floats lie in the arena; members' rows are
        // disjoint, and nothing else uses the slot before the barrier.
        let row = unsafe { core::slice::from_raw_parts_mut(at, pitch) };
        row.fill(0.0);
        let pixels = y.checked_sub(1).and_then(|y| bytes.get(y * side * 3..(y + 1) * side * 3)).unwrap_or_default();
        for (float, &byte) in row.iter_mut().skip(3).zip(pixels) {
            *float = f32::from(byte);
        }
    }
}

/// Copies a row of an image to row `at` of the decoder's input.
fn copy_row(cx: &Cx<'_>, info: &Info, floats: &[f32], at: usize) {
    let to = cx.slot(info.rows + at * info.rows_pitch * 4);
    // SAFETY: `at < chunk`, for which `Info::check` proved that `hidden` floats lie in the arena; one member writes a
    // row, and nobody reads it before the barrier.
    let row = unsafe { core::slice::from_raw_parts_mut(to, info.hidden) };
    for (to, from) in row.iter_mut().zip(floats) {
        *to = *from;
    }
}
