//! The runtime as its host sees it: a model, a session, images by number, and one job at a time.
//!
//! A job is a future of the session. Polling it makes the session go on until it wants something done, which is put into
//! the mailbox; the next poll says that it has been done.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll, Waker};

use runtime_min::{CancelToken, Error, Image, Model, Options, Program, Rgb8, Session, StopReason, Timings, Turn};

use crate::info;
use crate::remote::{Remote, Task, set_info};
use crate::request::{self, Request};

/// What a call comes back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// There is nothing more to do.
    Done = 0,
    /// A phase is to be run: its number, start, rows.
    Phase = 1,
    /// A piece of text: address, bytes.
    Text = 2,
    /// A token is to be embedded: id, row.
    Embed = 3,
    /// It failed. Address and bytes of the error's code, of its message.
    Error = 4,
}

/// What a status means, in words and milliseconds.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Mailbox {
    /// Numbers and addresses.
    pub words: [u32; 16],
    /// Milliseconds.
    pub times: [f64; 4],
}

/// What a job has made.
enum Made {
    Image(Image),
    Answer { stop: StopReason, tokens: Vec<u32>, prompt: Vec<i32>, timings: Timings },
}

type Job = Pin<Box<dyn Future<Output = Result<Made, Error>>>>;

/// A session that lives where it was put; a job that runs has it exclusively.
struct Seat(NonNull<Session<'static, Remote>>);

/// Everything.
#[derive(Default)]
pub struct Host {
    /// What the latest status is about.
    pub mailbox: Mailbox,
    model: Option<&'static Model<Remote>>,
    seat: Option<Seat>,
    cancel: Option<CancelToken>,
    images: Vec<Option<Rc<Image>>>,
    job: Option<Job>,
    pieces: Rc<Pieces>,
    /// What the mailbox may point into.
    error: Option<(&'static str, String)>,
    tokens: Vec<u32>,
    prompt: Vec<i32>,
}

/// Text on its way from a job to the host.
#[derive(Default)]
struct Pieces {
    text: RefCell<String>,
    full: Cell<bool>,
}

impl Pieces {
    /// Waits until the piece has been taken.
    async fn put(&self, piece: &str) -> Result<(), Error> {
        {
            let mut text = self.text.borrow_mut();
            text.clear();
            text.try_reserve(piece.len()).map_err(|_| out_of_memory("a piece of text", piece.len()))?;
            text.push_str(piece);
        }
        self.full.set(true);
        core::future::poll_fn(|_| if self.full.get() { Poll::Pending } else { Poll::Ready(()) }).await;
        Ok(())
    }
}

impl Host {
    /// Takes the custom section `tvlmc.info` of the kernels.
    pub fn info(&mut self, bytes: &[u8]) -> Status {
        let read = info::read(bytes).map(set_info);
        self.told(read)
    }

    /// Opens the model and its one session for `threads` members. The mailbox then holds the addresses of section
    /// "weights" and of the arena, the arena's bytes, and the bytes of the scratch of all members.
    ///
    /// # Safety
    /// The file lies at `file` for good, and its first `arrived` bytes are there and do not change.
    pub unsafe fn open(&mut self, file: NonNull<[u8]>, arrived: usize, threads: usize) -> Status {
        // SAFETY: promised.
        let opened = unsafe { self.opened(file, arrived, threads) };
        self.told(opened)
    }

    /// # Safety
    /// As [`open`](Self::open).
    unsafe fn opened(&mut self, file: NonNull<[u8]>, arrived: usize, threads: usize) -> Result<(), Error> {
        if self.model.is_some() {
            return Err(argument("open", "a model is open already"));
        }
        // SAFETY: promised.
        let model = unsafe { Model::<Remote>::borrowed("the weights", file, arrived)? };
        let model: &'static Model<Remote> = Box::leak(Box::new(model));
        let options = Options { threads: Some(threads), ..Options::default() };
        let session = model.session(options)?;
        let (weights, arena) = (session.weights_at(), session.arena_at());
        let bytes = Remote::info().session_bytes(threads);
        for (word, value) in self.mailbox.words.iter_mut().zip([weights.addr(), arena.addr(), bytes]) {
            *word = value as u32;
        }
        self.cancel = Some(session.cancel_token());
        self.seat = Some(Seat(NonNull::from(Box::leak(Box::new(session)))));
        self.model = Some(model);
        Ok(())
    }

    /// Begins to encode `pixels`, rows of RGB or RGBA, whose alpha is ignored, at a side of the model; 0 is its largest.
    pub fn image(&mut self, pixels: &mut [u8], width: usize, height: usize, channels: usize, side: usize) -> Status {
        let job = self.image_job(pixels, [width, height, channels], side);
        self.begin(job)
    }

    fn image_job(
        &mut self,
        pixels: &mut [u8],
        [width, height, channels]: [usize; 3],
        side: usize,
    ) -> Result<Job, Error> {
        let session = self.session()?;
        let pixels = match channels {
            3 => &*pixels,
            4 if pixels.len().is_multiple_of(4) => without_alpha(pixels),
            4 => return Err(argument("pixels", "RGBA is four bytes for each pixel")),
            _ => return Err(argument("pixels", "give 3 channels (RGB) or 4 (RGBA)")),
        };
        let picture = Rgb8::new(width, height, pixels)?;
        let sides = Remote::info().sides;
        let input = match side {
            0 => session.preprocess(&picture)?,
            side if sides.iter().any(|known| known.side == side) => session.preprocess_at(&picture, side)?,
            side => {
                let mut reason = format!("{side} is not of the model, which has");
                for known in sides {
                    reason += &format!(" {}", known.side);
                }
                return Err(Error::Argument { name: "side", reason });
            }
        };
        Ok(Box::pin(async move { session.encode_async(&input).await.map(Made::Image) }))
    }

    /// Begins to answer a question; see [`request`] for the bytes.
    pub fn ask(&mut self, bytes: &[u8]) -> Status {
        let job = self.ask_job(bytes);
        self.begin(job)
    }

    fn ask_job(&mut self, bytes: &[u8]) -> Result<Job, Error> {
        let Request { told, turn, options } = request::read(bytes)?;
        let session = self.session()?;
        let images =
            |handles: &[u32]| handles.iter().map(|&handle| self.picture(handle)).collect::<Result<Vec<_>, _>>();
        let asked = images(&turn.images)?;
        let told = match told {
            None => None,
            Some(turns) => {
                let mut with_images = Vec::new();
                for turn in turns {
                    with_images.push((images(&turn.images)?, turn));
                }
                Some(with_images)
            }
        };
        session.set_sampler(options.sampler)?;
        session.set_speculation(options.speculation);
        session.set_ignore_eos(options.ignore_eos);
        session.set_max_new_tokens(options.max_new_tokens);
        let pieces = Rc::clone(&self.pieces);
        Ok(Box::pin(async move {
            let refs: Vec<&Image> = asked.iter().map(|image| &**image).collect();
            let mut answer = match &told {
                None => session.ask_async(&refs, &turn.question).await?,
                Some(told) => {
                    let refs_of: Vec<Vec<&Image>> =
                        told.iter().map(|(images, _)| images.iter().map(|image| &**image).collect()).collect();
                    let turns: Vec<Turn<'_>> = told
                        .iter()
                        .zip(&refs_of)
                        .map(|((_, turn), images)| Turn { images, question: &turn.question, answer: &turn.answer })
                        .collect();
                    session.ask_after_async(&turns, &refs, &turn.question).await?
                }
            };
            while let Some(piece) = answer.next_piece_async().await {
                pieces.put(piece?).await?;
            }
            let prompt = answer.prompt_token_ids().iter().map(|&id| id as i32).collect();
            let stop = answer.stop_reason().unwrap_or(StopReason::MaxTokens);
            Ok(Made::Answer { stop, tokens: answer.token_ids().to_vec(), prompt, timings: answer.timings() })
        }))
    }

    /// Goes on with the job; what the latest status asked for has been done, or was given up after a
    /// [`cancel`](Self::cancel).
    pub fn poll(&mut self) -> Status {
        self.pieces.full.set(false);
        let (Some(mut job), Some(model)) = (self.job.take(), self.model) else { return Status::Done };
        loop {
            while let Some(task) = model.program().next() {
                if self.is_cancelled() {
                    continue;
                }
                self.job = Some(job);
                let (status, words) = match task {
                    Task::Phase { phase, start, rows } => (Status::Phase, [phase, start, rows]),
                    Task::Embed { id, row } => (Status::Embed, [id, row, 0]),
                };
                self.mailbox.words[..3].copy_from_slice(&words);
                return status;
            }
            match job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(made) => {
                    drop(job);
                    let made = made.map(|made| self.deliver(made));
                    return self.told(made);
                }
                Poll::Pending if self.pieces.full.get() => {
                    self.job = Some(job);
                    let text = self.pieces.text.borrow();
                    self.mailbox.words[..2].copy_from_slice(&place(text.as_bytes()));
                    return Status::Text;
                }
                Poll::Pending => {}
            }
        }
    }

    /// Stops the job: what it had put out counts for nothing, and it ends with the next polls.
    pub fn cancel(&mut self) {
        if let Some(cancel) = self.cancel.as_ref().filter(|_| self.job.is_some()) {
            cancel.cancel();
        }
    }

    /// Stops the job and ends it at once, whatever is still running of it.
    pub fn stop(&mut self) {
        while self.job.is_some() {
            self.cancel();
            self.poll();
        }
    }

    /// Begins a new conversation.
    pub fn reset(&mut self) -> Status {
        let session = self.session().map(Session::reset);
        self.told(session)
    }

    /// Forgets an image.
    pub fn release(&mut self, handle: u32) {
        if let Some(place) = self.images.get_mut(handle as usize) {
            *place = None;
        }
    }

    /// Positions the conversation takes; the mailbox holds them, and how many there are.
    pub fn position(&mut self) -> Status {
        let position = self.session().map(|session| session.position());
        let told = position.map(|position| {
            self.mailbox.words[..2].copy_from_slice(&[position as u32, Remote::info().max_context as u32]);
        });
        self.told(told)
    }

    /// Ids of a text; the mailbox holds where, and how many.
    pub fn tokenize(&mut self, text: &[u8]) -> Status {
        let ids = self.tokens_of(text);
        let told = ids.map(|ids| {
            self.tokens = ids;
            self.mailbox.words[..2].copy_from_slice(&place(&self.tokens));
        });
        self.told(told)
    }

    fn tokens_of(&self, text: &[u8]) -> Result<Vec<u32>, Error> {
        let Some(model) = self.model else { return Err(argument("tokenize", "no model is open")) };
        let text = core::str::from_utf8(text).map_err(|_| argument("text", "it is no UTF-8"))?;
        let mut ids = Vec::new();
        model.tokenizer().encode(text, &mut ids)?;
        Ok(ids)
    }

    /// That many bytes of the file are there.
    pub fn arrived(&mut self, bytes: usize) {
        if let Some(model) = self.model {
            model.weights().arrived(bytes);
        }
    }

    /// The job goes on to where it first wants something: wrong arguments are told at once.
    fn begin(&mut self, job: Result<Job, Error>) -> Status {
        match job {
            Ok(mut job) => match job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Err(error)) => self.told(Err(error)),
                Poll::Ready(Ok(made)) => {
                    // Kept for the first poll.
                    self.job = Some(Box::pin(core::future::ready(Ok(made))));
                    Status::Done
                }
                Poll::Pending => {
                    self.job = Some(job);
                    Status::Done
                }
            },
            Err(error) => self.told(Err(error)),
        }
    }

    fn deliver(&mut self, made: Made) {
        self.mailbox = Mailbox::default();
        match made {
            Made::Image(image) => {
                let handle = self.images.iter().position(Option::is_none).unwrap_or(self.images.len());
                self.mailbox.words[..2].copy_from_slice(&[handle as u32, image.tokens() as u32]);
                self.mailbox.times[..2].copy_from_slice(&[ms(image.preprocess_time()), ms(image.vision_time())]);
                let image = Some(Rc::new(image));
                match self.images.get_mut(handle) {
                    Some(place) => *place = image,
                    None => self.images.push(image),
                }
            }
            Made::Answer { stop, tokens, prompt, timings } => {
                (self.tokens, self.prompt) = (tokens, prompt);
                let stop = match stop {
                    StopReason::EndOfText => 0,
                    StopReason::MaxTokens => 1,
                    StopReason::ContextFull => 2,
                    StopReason::Cancelled => 3,
                };
                let ([tokens, n_tokens], [prompt, n_prompt]) = (place(&self.tokens), place(&self.prompt));
                let Timings { prefill, prefill_rows, decode, decode_steps, drafted, accepted, rested: _ } = timings;
                let counts = [prefill_rows, decode_steps, drafted, accepted].map(|n| n as u32);
                self.mailbox.words[..5].copy_from_slice(&[stop, tokens, n_tokens, prompt, n_prompt]);
                self.mailbox.words[5..9].copy_from_slice(&counts);
                self.mailbox.times[..2].copy_from_slice(&[ms(prefill), ms(decode)]);
            }
        }
    }

    fn session(&mut self) -> Result<&'static mut Session<'static, Remote>, Error> {
        if self.job.is_some() {
            return Err(argument("job", "another one is running: run it to its end first"));
        }
        let Some(seat) = &mut self.seat else { return Err(argument("open", "no model is open")) };
        // SAFETY: leaked, so it lives on; only jobs keep what is returned here, and none is running.
        Ok(unsafe { seat.0.as_mut() })
    }

    fn picture(&self, handle: u32) -> Result<Rc<Image>, Error> {
        let image = self.images.get(handle as usize).and_then(Option::as_ref);
        image
            .map(Rc::clone)
            .ok_or_else(|| Error::Argument { name: "images", reason: format!("there is no image {handle}") })
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    fn told(&mut self, result: Result<(), Error>) -> Status {
        let Err(error) = result else { return Status::Done };
        let (code, message) = self.error.insert((error.code(), format!("{error}")));
        let ([code, n_code], [message, n_message]) = (place(code.as_bytes()), place(message.as_bytes()));
        self.mailbox.words[..4].copy_from_slice(&[code, n_code, message, n_message]);
        Status::Error
    }
}

/// Address and length.
fn place<T>(items: &[T]) -> [u32; 2] {
    [items.as_ptr().expose_provenance() as u32, items.len() as u32]
}

fn ms(duration: core::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Moves red, green and blue of all pixels to the front.
fn without_alpha(pixels: &mut [u8]) -> &[u8] {
    let n = pixels.len() / 4;
    for pixel in 0..n {
        pixels.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    &pixels[..3 * n]
}

fn argument(name: &'static str, reason: &str) -> Error {
    Error::Argument { name, reason: String::from(reason) }
}

fn out_of_memory(item: &'static str, need: usize) -> Error {
    Error::OutOfMemory { item, need: need as u64, have: None }
}
