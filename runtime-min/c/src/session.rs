//! Handles of sessions.

use crate::given::{self, Sized0};
use crate::model::Model;
use crate::picture::{self, Image, Pixels};
use crate::status::Problem;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use runtime_min::{Affinity, Answer, Bound, Control, Pressure, Program, Rgb8, SamplerOptions, StopReason};
use std::sync::Arc;

/// `tvlm_session`.
pub struct Session<P: Program> {
    /// Borrows from `model`, which is dropped after it.
    inner: UnsafeCell<runtime_min::Session<'static, P>>,
    /// Whether somebody has `inner`.
    busy: AtomicBool,
    control: Control,
    _model: Arc<runtime_min::Model<P>>,
}

// SAFETY: what is inside is reached through `Turn` alone, of which there is one at a time; a session may move between threads.
unsafe impl<P: Program> Sync for Session<P> where runtime_min::Session<'static, P>: Send {}

/// `tvlm_session_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// Threads, the calling one included; 0: as the model says. Later changes have no effect.
    pub threads: u32,
    /// Most tokens of an answer; 0: 256.
    pub max_new_tokens: u32,
    /// 0: the likeliest token each time; else logits are divided by it.
    pub temperature: f32,
    /// Tokens that can be drawn; 0: all.
    pub top_k: u32,
    /// Probability that these reach together; 0: 1.
    pub top_p: f32,
    /// Divides the logits of what was said before; 0: 1.
    pub repetition_penalty: f32,
    /// Where the random numbers start.
    pub seed: u64,
    /// Tokens that are guessed and verified together; 0: what suits the model; -1: none.
    pub speculation: i32,
    /// 0: threads run anywhere; 1: on the fast processors. Later changes have no effect.
    pub affinity: u32,
}

// SAFETY: numbers behind a size; zeros are the defaults.
unsafe impl Sized0 for Options {}

/// `tvlm_result`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// Why the answer ended: `tvlm_stop`.
    pub stop: u32,
    /// Tokens that were made, the end token included.
    pub tokens: u32,
    /// Positions that were computed for the question.
    pub prefill_rows: u32,
    /// Positions of the conversation.
    pub position: u32,
    /// Milliseconds of reading the question.
    pub prefill_ms: f64,
    /// Milliseconds of all tokens after the first one.
    pub decode_ms: f64,
    /// Milliseconds of rests between them, which those leave out.
    pub rested_ms: f64,
}

// SAFETY: numbers behind a size.
unsafe impl Sized0 for Outcome {}

/// `tvlm_session_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// Threads that there are, the calling one included.
    pub threads: u32,
    /// Threads that work under the present pressure.
    pub active_threads: u32,
    /// Pixels on each side of the square that the next picture becomes.
    pub image_side: u32,
    /// Positions of the conversation.
    pub position: u32,
    /// What came of the affinity that was asked for: `TVLM_BOUND_*`.
    pub bound: u32,
    /// Processors that threads are bound to, if they are.
    pub processors: u32,
}

// SAFETY: numbers behind a size.
unsafe impl Sized0 for Info {}

/// `tvlm_on_text`: a piece of an answer, UTF-8 with a zero behind its bytes, whole characters. Not 0: no more.
pub type OnText = unsafe extern "C" fn(context: *mut c_void, text: *const c_char, bytes: usize) -> i32;

/// `TVLM_STOP_*` of an answer that the callback ended.
const STOPPED_BY_CALLER: u32 = 5;

/// The one use of a session's inside that there may be.
struct Turn<'a, P: Program>(&'a Session<P>);

impl<'a, P: Program> Turn<'a, P> {
    /// # Safety
    /// Null, or a handle that lives for `'a`.
    unsafe fn take(session: *const Session<P>) -> Result<Self, Problem> {
        // SAFETY: passed on.
        let session = unsafe { given::handle("session", session)? };
        if session.busy.swap(true, Ordering::Acquire) { Err(Problem::Busy) } else { Ok(Turn(session)) }
    }

    fn inner(&mut self) -> &mut runtime_min::Session<'static, P> {
        // SAFETY: `busy` was unset when this turn began and is set until it ends; it lends what it has one at a time.
        unsafe { &mut *self.0.inner.get() }
    }
}

impl<P: Program> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

fn chosen(options: Option<Options>) -> Result<runtime_min::Options, Problem> {
    let mut chosen = runtime_min::Options::default();
    let Some(options) = options else { return Ok(chosen) };
    chosen.affinity = match options.affinity {
        0 => Affinity::Free,
        1 => Affinity::Performance,
        _ => return Err(Problem::argument("options.affinity", "is none of TVLM_AFFINITY_*")),
    };
    chosen.threads = (options.threads > 0).then_some(options.threads as usize);
    if options.max_new_tokens > 0 {
        chosen.max_new_tokens = options.max_new_tokens as usize;
    }
    let or_one = |value: f32| if value == 0.0 { 1.0 } else { value };
    chosen.sampler = SamplerOptions {
        temperature: options.temperature,
        top_k: options.top_k as usize,
        top_p: or_one(options.top_p),
        repetition_penalty: or_one(options.repetition_penalty),
        seed: options.seed,
    };
    match options.speculation {
        0 => {}
        -1 => chosen.speculation = 0,
        most => {
            let refused = |_| Problem::argument("options.speculation", "is less than -1");
            chosen.speculation = usize::try_from(most).map_err(refused)?;
        }
    }
    Ok(chosen)
}

/// # Safety
/// `model` is a handle; `options` has the size that it says; `session` is a place for a handle.
pub unsafe fn open<P: Program>(
    model: *const Model<P>,
    options: *const Options,
    session: *mut *mut Session<P>,
) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::none(session) };
    // SAFETY: passed on.
    let (model, options) = unsafe { (given::handle("model", model)?, given::options("options", options)?) };
    let open = || {
        let model = Arc::clone(&model.shared);
        // SAFETY: the model lies behind an `Arc` that this handle keeps until the session is dropped.
        let forever: &'static runtime_min::Model<P> = unsafe { &*Arc::as_ptr(&model) };
        let inner = forever.session(chosen(options)?)?;
        let control = inner.control();
        Ok(Session { inner: UnsafeCell::new(inner), busy: AtomicBool::new(false), control, _model: model })
    };
    // SAFETY: passed on.
    unsafe { given::new("session", session, open) }
}

/// # Safety
/// `session` is a handle; `options` has the size that it says.
pub unsafe fn configure<P: Program>(session: *const Session<P>, options: *const Options) -> Result<(), Problem> {
    // SAFETY: passed on.
    let (mut turn, options) = unsafe { (Turn::take(session)?, given::options("options", options)?) };
    let (chosen, inner) = (chosen(options)?, turn.inner());
    inner.set_sampler(chosen.sampler)?;
    inner.set_max_new_tokens(chosen.max_new_tokens);
    inner.set_speculation(chosen.speculation);
    Ok(())
}

/// # Safety
/// `session` is a handle; `pixels` has the size that it says and rows of theirs; `image` is a place for a handle.
pub unsafe fn encode<P: Program>(
    session: *const Session<P>,
    pixels: *const Pixels,
    image: *mut *mut Image,
) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::none(image) };
    // SAFETY: passed on.
    let mut turn = unsafe { Turn::take(session)? };
    let encode = || {
        // SAFETY: passed on.
        let (width, height, rgb) = unsafe { picture::packed(pixels)? };
        // SAFETY: as above.
        let side = unsafe { picture::side(pixels, P::info().sides, turn.inner().side())? };
        let input = turn.inner().preprocess_at(&Rgb8::new(width, height, &rgb)?, side)?;
        Ok(Image(turn.inner().encode(&input)?))
    };
    // SAFETY: passed on.
    unsafe { given::new("image", image, encode) }
}

/// # Safety
/// `session` and `count` handles in `images` are such; `question` ends with a zero; `on_text` takes `context`; `result` has
/// the size that it says.
pub unsafe fn ask<P: Program>(
    session: *const Session<P>,
    images: *const *const Image,
    count: usize,
    question: *const c_char,
    on_text: Option<OnText>,
    context: *mut c_void,
    result: *mut Outcome,
) -> Result<(), Problem> {
    // SAFETY: passed on.
    let (mut turn, question) = unsafe { (Turn::take(session)?, given::text("question", question)?) };
    if images.is_null() && count > 0 {
        return Err(Problem::argument("images", "is NULL, and their count is not 0"));
    }
    let mut pictures = Vec::new();
    for i in 0..count {
        // SAFETY: as many handles are there, each null or such.
        let picture = unsafe { (*images.add(i)).as_ref() };
        pictures
            .push(&picture.ok_or_else(|| Problem::argument("images", &format!("the handle at index {i} is NULL")))?.0);
    }
    let inner = turn.inner();
    let told = tell(inner.ask(&pictures, question)?, on_text, context)?;
    let value = Outcome { position: inner.position() as u32, ..told };
    // SAFETY: passed on.
    unsafe { given::give("result", &value, result) }
}

/// # Safety
/// `session` is a handle; `on_text` takes `context`; `result` has the size that it says.
pub unsafe fn go_on<P: Program>(
    session: *const Session<P>,
    on_text: Option<OnText>,
    context: *mut c_void,
    result: *mut Outcome,
) -> Result<(), Problem> {
    // SAFETY: passed on.
    let mut turn = unsafe { Turn::take(session)? };
    let inner = turn.inner();
    let told = tell(inner.go_on()?, on_text, context)?;
    let value = Outcome { position: inner.position() as u32, ..told };
    // SAFETY: passed on.
    unsafe { given::give("result", &value, result) }
}

/// Makes an answer, and gives its pieces to `on_text`, which takes `context`: the callers' promise.
fn tell<P: Program>(
    mut answer: Answer<'_, '_, P>,
    on_text: Option<OnText>,
    context: *mut c_void,
) -> Result<Outcome, Problem> {
    let (mut text, mut stopped) = (Vec::new(), false);
    while let Some(piece) = answer.next_piece() {
        let piece = piece?;
        let Some(on_text) = on_text else { continue };
        text.clear();
        text.extend_from_slice(piece.as_bytes());
        text.push(0);
        // SAFETY: the caller's function with its context; the text lives until the next one.
        stopped = unsafe { on_text(context, text.as_ptr().cast(), piece.len()) } != 0;
        if stopped {
            break;
        }
    }
    let (timings, tokens) = (answer.timings(), answer.token_ids().len());
    let stop = match answer.stop_reason() {
        _ if stopped => STOPPED_BY_CALLER,
        Some(StopReason::EndOfText) => 1,
        Some(StopReason::MaxTokens) => 2,
        Some(StopReason::ContextFull) => 3,
        Some(StopReason::Cancelled) => 4,
        None => 0,
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Outcome {
        size: 0,
        stop,
        tokens: tokens as u32,
        prefill_rows: timings.prefill_rows as u32,
        position: 0,
        prefill_ms: ms(timings.prefill),
        decode_ms: ms(timings.decode),
        rested_ms: ms(timings.rested),
    })
}

/// # Safety
/// `session` is a handle.
pub unsafe fn cancel<P: Program>(session: *const Session<P>) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::handle("session", session)? }.control.cancel();
    Ok(())
}

/// # Safety
/// `session` is a handle.
pub unsafe fn pause<P: Program>(session: *const Session<P>) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::handle("session", session)? }.control.pause();
    Ok(())
}

/// # Safety
/// `session` is a handle.
pub unsafe fn resume<P: Program>(session: *const Session<P>) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::handle("session", session)? }.control.resume();
    Ok(())
}

/// # Safety
/// `session` is a handle.
pub unsafe fn pressure<P: Program>(session: *const Session<P>, pressure: u32) -> Result<(), Problem> {
    // SAFETY: passed on.
    let session = unsafe { given::handle("session", session)? };
    let refused = || Problem::argument("pressure", "is none of TVLM_PRESSURE_*");
    session.control.set_pressure(Pressure::from_number(pressure).ok_or_else(refused)?);
    Ok(())
}

/// # Safety
/// `session` is a handle; `path` ends with a zero.
pub unsafe fn save<P: Program>(session: *const Session<P>, path: *const c_char) -> Result<(), Problem> {
    // SAFETY: passed on.
    let (mut turn, path) = unsafe { (Turn::take(session)?, given::text("path", path)?) };
    Ok(turn.inner().save_file(path)?)
}

/// # Safety
/// `session` is a handle; `path` ends with a zero.
pub unsafe fn restore<P: Program>(session: *const Session<P>, path: *const c_char) -> Result<(), Problem> {
    // SAFETY: passed on.
    let (mut turn, path) = unsafe { (Turn::take(session)?, given::text("path", path)?) };
    Ok(turn.inner().restore_file(path)?)
}

/// # Safety
/// `session` is a handle; `bytes` is null or a place for a number.
pub unsafe fn trim<P: Program>(session: *const Session<P>, bytes: *mut u64) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe {
        let freed = Turn::take(session)?.inner().trim();
        given::put(bytes, freed as u64);
    }
    Ok(())
}

/// # Safety
/// `session` is a handle; `info` has the size that it says.
pub unsafe fn info<P: Program>(session: *const Session<P>, info: *mut Info) -> Result<(), Problem> {
    if info.is_null() {
        return Err(Problem::argument("info", "is NULL"));
    }
    // SAFETY: passed on.
    let mut turn = unsafe { Turn::take(session)? };
    let inner = turn.inner();
    let (bound, processors) = match inner.bound() {
        Bound::Free => (0, 0),
        Bound::Processors(n) => (1, n),
        Bound::UserInitiated => (2, 0),
        Bound::Refused(_) => (3, 0),
    };
    let value = Info {
        size: 0,
        threads: inner.threads() as u32,
        active_threads: inner.active_threads() as u32,
        image_side: inner.side() as u32,
        position: inner.position() as u32,
        bound,
        processors: processors as u32,
    };
    // SAFETY: passed on.
    unsafe { given::give("info", &value, info) }
}

/// # Safety
/// `session` is a handle.
pub unsafe fn reset<P: Program>(session: *const Session<P>) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { Turn::take(session)? }.inner().reset();
    Ok(())
}

/// # Safety
/// `session` is null or a handle that nobody uses any more; one that works is refused.
pub unsafe fn close<P: Program>(session: *mut Session<P>) -> Result<(), Problem> {
    if session.is_null() {
        return Ok(());
    }
    // SAFETY: passed on. The turn ends before the handle.
    unsafe {
        drop(Turn::take(session)?);
        given::end(session);
    }
    Ok(())
}
