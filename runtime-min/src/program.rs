//! The line between the runtime and emitted code: what the emitted code tells about itself, and what it is given.
//!
//! All sizes and offsets are constants of the emitted code; the runtime checks once, when a session is made, that the
//! slots it touches itself lie inside the arena. Offsets are bytes, pitches are floats.

use crate::arena::Arena;
use crate::cancel::Orders;
use crate::clock::Clock;
use crate::error::Error;
use crate::room::text;
use crate::team::Member;
use crate::weights::Start;
use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagePolicy {
    /// Centred on a square of this color, whole.
    Pad {
        /// Red, green, blue.
        color: [u8; 3],
    },
    /// The center, after the shorter side was fitted.
    Crop,
}

/// Which part of the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Image to rows.
    Vision,
    /// Many positions at once.
    Prefill,
    /// One position.
    Decode,
    /// A few positions, with logits for each.
    Verify,
}

impl Phase {
    /// All phases, in the order in which a conversation has them.
    pub const ALL: [Phase; 4] = [Phase::Vision, Phase::Prefill, Phase::Decode, Phase::Verify];

    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Verify => "verify",
        }
    }
}

/// Everything the runtime has to know about a compiled model.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Of the model, for messages.
    pub name: &'static str,
    /// Floats in a row.
    pub hidden: usize,
    /// Rows of the embedding, and logits.
    pub vocab: usize,
    /// Positions the KV cache has.
    pub max_context: usize,
    /// Most rows of one [`Program::prefill`].
    pub chunk: usize,
    /// Most rows of one [`Program::verify`], up to `chunk`; 1 where the model has none. Where it is more, a row has the same
    /// bits in every phase, alone and among others.
    pub verify_rows: usize,
    /// Bytes shared by all threads.
    pub arena_bytes: usize,
    /// Bytes of each thread, placed after the shared ones.
    pub scratch_bytes: usize,
    /// Least bytes of section "weights": one past the last byte that emitted code reads.
    pub weights_bytes: usize,
    /// The square inputs that an image can be encoded at, from small to large; one or more.
    pub sides: &'static [Side],
    /// What the system message of all conversations says.
    pub system: &'static str,
    /// Whether the weight file has a section "system": the cache after [`template::beginning`](crate::template::beginning).
    pub baked: bool,
    /// The slots of the KV cache.
    pub cache: &'static [CacheSlot],
    /// Floats from one row of an encoded image to the next.
    pub image_rows_pitch: usize,
    /// Slot of the decoder's input, f32 `[chunk, hidden]`.
    pub rows: usize,
    /// Floats from one row of `rows` to the next.
    pub rows_pitch: usize,
    /// Slot of logits, f32 `[verify_rows, vocab]`: of the last row in the first place, or of each row of a verification.
    pub logits: usize,
    /// Floats from one row of `logits` to the next.
    pub logits_pitch: usize,
    /// Slot of the u32 index of the largest logit, `[verify_rows]`.
    pub token: usize,
    /// How a picture becomes a square.
    pub policy: ImagePolicy,
    /// Pairs the code with its weight file.
    pub digest: [u8; 32],
    /// File name of the weights, for messages and defaults.
    pub weights_name: &'static str,
    /// Whether prefill, decode and verify make tokens alone, and leave the slot `logits` unfinished.
    pub late_logits: bool,
    /// The steps of prefill, decode and verify, in order.
    pub steps: [&'static [Step]; 3],
}

/// A square input, and what an image of it becomes.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Pixels in a row, and rows.
    pub side: usize,
    /// Rows an image becomes.
    pub tokens: usize,
    /// Slot of the image, f32 `[side + 2, side + 2, 3]`: values 0..=255 inside a border of zeros, one pixel wide
    /// because the first convolution is 3x3.
    pub input: usize,
    /// Slot of the encoded image, f32 `[tokens, hidden]`.
    pub rows: usize,
    /// The steps of vision.
    pub steps: &'static [Step],
}

impl Info {
    /// Private bytes of a session with `threads` members; constant, known before anything is loaded.
    pub const fn session_bytes(&self, threads: usize) -> usize {
        line(self.arena_bytes).saturating_add(line(self.scratch_bytes).saturating_mul(threads))
    }

    /// Checks that every slot the runtime touches lies inside the arena.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: fmt::Arguments<'_>| Err(Error::Program { reason: text!("{}: {what}", self.name) });
        let positive = [self.hidden, self.vocab, self.max_context, self.chunk];
        if positive.contains(&0) || self.verify_rows == 0 {
            return wrong(format_args!("a size is zero"));
        }
        if self.image_rows_pitch < self.hidden || self.rows_pitch < self.hidden || self.logits_pitch < self.vocab {
            return wrong(format_args!("a pitch is smaller than the row"));
        }
        if self.verify_rows > self.chunk {
            return wrong(format_args!("{} rows to verify in a chunk of {}", self.verify_rows, self.chunk));
        }
        if self.sides.is_empty() || !self.sides.is_sorted_by(|a, b| a.side < b.side) {
            return wrong(format_args!("its image sides are no rising list"));
        }
        for side in self.sides {
            let bordered = side.side.saturating_add(2);
            if side.side == 0 || side.tokens == 0 {
                return wrong(format_args!("a size is zero"));
            }
            self.inside("an image", side.input, bordered.saturating_mul(bordered).saturating_mul(3))?;
            self.inside("an image's rows", side.rows, extent(side.tokens, self.image_rows_pitch, self.hidden))?;
        }
        let slots = [
            ("rows", self.rows, extent(self.chunk, self.rows_pitch, self.hidden)),
            ("logits", self.logits, extent(self.verify_rows, self.logits_pitch, self.vocab)),
            ("token", self.token, self.verify_rows),
        ];
        for slot in self.cache {
            if ![slot.slot, slot.pitch, slot.block_bytes].iter().all(|n| n.is_multiple_of(4)) || slot.block == 0 {
                let CacheSlot { slot, pitch, block, block_bytes, .. } = slot;
                return wrong(format_args!("a slot of the cache: at {slot}, pitch {pitch}, {block} in {block_bytes}"));
            }
            let end = slot.end(self.max_context);
            if end > self.arena_bytes {
                return wrong(format_args!("the cache ends at {end}, the arena at {}", self.arena_bytes));
            }
        }
        slots.into_iter().try_for_each(|(name, offset, floats)| self.inside(name, offset, floats))
    }

    /// Checks a slot.
    fn inside(&self, name: &str, offset: usize, floats: usize) -> Result<(), Error> {
        let end = floats.saturating_mul(4).saturating_add(offset);
        if !offset.is_multiple_of(4) || end > self.arena_bytes {
            let arena = self.arena_bytes;
            let reason = text!("{}: slot {name} ends at {end}, the arena at {arena}", self.name);
            return Err(Error::Program { reason });
        }
        Ok(())
    }

    /// The largest side, at which an image is encoded unless told otherwise.
    #[cfg(feature = "std")]
    pub(crate) fn largest(&self) -> usize {
        self.sides.last().map_or(0, |side| side.side)
    }
}

/// A slot of the KV cache: blocks of positions, one after the other, in each of a number of pieces. Where the first blocks
/// of every piece lie is where the first positions of a conversation do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSlot {
    /// Byte offset in the arena.
    pub slot: usize,
    /// Pieces, such as one for each head.
    pub pieces: usize,
    /// Bytes from one piece to the next.
    pub pitch: usize,
    /// Positions of a block.
    pub block: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
}

impl CacheSlot {
    /// Bytes that the first `positions` take of each piece.
    pub fn piece_bytes(&self, positions: usize) -> usize {
        positions.div_ceil(self.block).saturating_mul(self.block_bytes)
    }

    /// Byte offsets of the pieces in the arena.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { slot, pitch, .. } = *self;
        (0..self.pieces).map(move |piece| slot + piece * pitch)
    }

    /// Where the first `positions` end in the arena.
    fn end(&self, positions: usize) -> usize {
        let last = self.pieces.saturating_sub(1).saturating_mul(self.pitch);
        self.slot.saturating_add(last).saturating_add(self.piece_bytes(positions.max(1)))
    }
}

/// Bytes rounded up to whole lines.
const fn line(bytes: usize) -> usize {
    match bytes.checked_next_multiple_of(crate::arena::ALIGN) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

/// A 16-bit float. Exact: the exponent is moved by a product with a power of two.
fn widen(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    let value = match magnitude >> 23 {
        0x1f => f32::from_bits(magnitude | 0x7f80_0000),
        _ => f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23),
    };
    if half >> 15 == 1 { -value } else { value }
}

/// Floats from the first of the first row to the last of the last.
fn extent(rows: usize, pitch: usize, channels: usize) -> usize {
    rows.saturating_sub(1).saturating_mul(pitch).saturating_add(channels)
}

/// A set of instruction sets that the emitted code was compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// "x86-64-v3"; the names that [`crate::cpu`] knows get better messages.
    pub name: &'static str,
    /// Whether this processor has it all.
    pub available: fn() -> bool,
}

/// One step of a phase, and where its result lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Dotted, unique in its phase: "vision.stage2.3.mlp".
    pub name: &'static str,
    /// Byte offset of the result in the arena.
    pub slot: usize,
    /// Rows of the result (pixels of a map); 0 stands for the rows of the call.
    pub rows: usize,
    /// Floats in a row.
    pub channels: usize,
    /// Floats from one row to the next.
    pub pitch: usize,
    /// Whether these are 16-bit floats.
    pub half: bool,
    /// Multiply-adds, of one row where `rows` is 0.
    pub macs: u64,
}

impl Step {
    /// A step whose result is `[rows, channels]` 32-bit floats at a pitch.
    pub const fn new(name: &'static str, slot: usize, [rows, channels, pitch]: [usize; 3], macs: u64) -> Self {
        Self { name, slot, rows, channels, pitch, half: false, macs }
    }

    /// A step whose result is `[rows, channels]` 16-bit floats at a pitch.
    pub const fn halves(name: &'static str, slot: usize, shape: [usize; 3], macs: u64) -> Self {
        Self { half: true, ..Self::new(name, slot, shape, macs) }
    }
}

/// Emitted code.
///
/// The runtime calls the phases on every member of a team at once; emitted code divides each step by
/// [`Cx::part`] and ends it with [`Cx::end`]. The KV cache lies in the arena and must not overlap any slot of any phase,
/// the vision slots included: a conversation goes on after another image was encoded.
pub trait Program: Send + Sync + 'static {
    /// Sizes and offsets; of emitted code a constant, which `#[inline]` keeps one.
    fn info() -> &'static Info;
    /// Best first.
    const LEVELS: &'static [Level];

    /// The code of `LEVELS[level]`, which is available on this processor.
    fn with_level(level: usize) -> Self;

    /// From the slot `input` to the slot `rows` of `Info::sides[side]`.
    fn vision(&self, cx: &Cx<'_>, side: usize);

    /// From rows `0..rows` of the slot `rows`, which are positions `start..start + rows`, to the KV cache, and for the
    /// last row to the slots `logits` and `token`. `1 <= rows <= chunk`, `start + rows <= max_context`.
    fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize);

    /// As [`prefill`](Self::prefill) for one row.
    fn decode(&self, cx: &Cx<'_>, start: usize);

    /// As [`prefill`](Self::prefill) for up to `verify_rows` rows, with the logits and the token of each; not called where
    /// that is 1.
    fn verify(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        let _ = (cx, start, rows);
    }

    /// Finishes the slot `logits` after a call of one of these three, once: `rows` rows of it, as many as have a token.
    /// Called only where [`Info::late_logits`] says so.
    fn logits(&self, cx: &Cx<'_>, rows: usize) {
        let _ = (cx, rows);
    }

    /// Writes the embedding of `id < vocab` to row `row < chunk` of the slot `rows`; called by one member per row.
    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize);

    /// Whether these functions only note what is to be done, for somebody else to do it between two polls of what a session
    /// does. Sessions of such a program are used by their `async` functions, and call it on one thread.
    const HANDS_OUT: bool = false;

    /// Whether everything that was noted has been done. Asked only where [`HANDS_OUT`](Self::HANDS_OUT) says so.
    fn finished(&self) -> Poll<()> {
        Poll::Ready(())
    }
}

/// What a step has made, shown to an observer.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// The phase that runs.
    pub phase: Phase,
    /// Position of the call's first row; 0 for vision.
    pub start: usize,
    /// The step that ended.
    pub step: &'a Step,
    /// Rows of the result.
    pub rows: usize,
    /// Since the step before ended, or the call began.
    pub took: Duration,
    /// The slot's memory, two values in a word where they are halves.
    words: &'a [f32],
}

impl<'a> StepView<'a> {
    /// Rows of the result, `step.channels` values each.
    pub fn iter(&self) -> impl Iterator<Item = impl Iterator<Item = f32> + use<'a>> + use<'a> {
        let Step { channels, pitch, half, .. } = *self.step;
        let words = self.words;
        let value = move |i: usize| match half {
            true => widen((words[i / 2].to_bits() >> (16 * (i % 2))) as u16),
            false => words[i],
        };
        (0..self.rows).map(move |row| (0..channels).map(move |c| value(row * pitch + c)))
    }
}

/// Called by member 0 after every step, while the others wait.
pub type Observer<'o> = dyn FnMut(StepView<'_>) + Send + 'o;

/// What all members of one call share.
pub(crate) struct Call<'a> {
    pub(crate) weights: Start,
    pub(crate) arena: &'a Arena,
    pub(crate) info: &'a Info,
    pub(crate) phase: Phase,
    pub(crate) start: usize,
    /// None: nobody stops it.
    pub(crate) orders: Option<&'a Orders>,
    /// The common decision to stop, so that no member waits for one that has left.
    stop: AtomicBool,
    watch: Option<Watch>,
}

/// The observer and when it was last called, used by member 0 only.
struct Watch {
    /// A pointer, so that `Call` stays covariant in its lifetime.
    observer: *mut Observer<'static>,
    last: Cell<Clock>,
}

// SAFETY: only member 0, which is one thread, looks inside (see `Cx::end`).
unsafe impl Sync for Watch {}

impl<'a> Call<'a> {
    pub(crate) fn new(
        weights: Start,
        arena: &'a Arena,
        info: &'a Info,
        (phase, start): (Phase, usize),
        orders: Option<&'a Orders>,
        observer: Option<&'a mut Observer<'static>>,
    ) -> Self {
        let watch = observer.map(|observer| Watch { observer, last: Cell::new(Clock::start()) });
        Self { weights, arena, info, phase, start, orders, stop: AtomicBool::new(false), watch }
    }

    /// True when the members left early.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One member's view of a call: who it is, and where weights, arena and scratch begin.
///
/// Pointers are valid for what [`Info`] says: weights for `weights_bytes`, slots for `arena_bytes`, scratch for
/// `scratch_bytes`; all begin on 64-byte lines. Only the runtime makes them, after it has checked the processor.
///
/// ```compile_fail,E0624
/// let cx = runtime_min::Cx::new(todo!(), todo!());
/// ```
pub struct Cx<'a> {
    member: &'a Member<'a>,
    call: &'a Call<'a>,
    scratch: *mut f32,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(member: &'a Member<'a>, call: &'a Call<'a>) -> Self {
        let offset = line(call.info.arena_bytes) + member.id() * line(call.info.scratch_bytes);
        Self { member, call, scratch: call.arena.base().wrapping_add(offset).cast() }
    }

    /// Of this member; 0 is the calling thread.
    #[inline]
    pub fn id(&self) -> usize {
        self.member.id()
    }

    /// Members in this call.
    #[inline]
    pub fn count(&self) -> usize {
        self.member.count()
    }

    /// This member's share of `units` pieces of work: contiguous, in order of ids, larger shares first.
    #[inline]
    pub fn part(&self, units: usize) -> Range<usize> {
        self.member.part(units)
    }

    /// Weights at byte `offset` of section "weights".
    #[inline]
    pub fn weight(&self, offset: usize) -> *const f32 {
        debug_assert!(offset <= self.call.info.weights_bytes, "weight offset {offset}");
        self.call.weights.get().wrapping_add(offset).cast()
    }

    /// The arena at byte `offset`.
    #[inline]
    pub fn slot(&self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.call.info.arena_bytes, "slot offset {offset}");
        self.call.arena.base().wrapping_add(offset).cast()
    }

    /// This member's own `scratch_bytes`.
    #[inline]
    pub fn scratch(&self) -> *mut f32 {
        self.scratch
    }

    /// Waits for all members inside a step.
    #[inline]
    pub fn barrier(&self) {
        self.member.barrier();
    }

    /// Ends a step that made `rows` rows: waits for all members, shows the result to the observer if there is one, and
    /// answers whether to stop. All members get the same answer and must return when it is true.
    #[must_use = "every member has to return when the call was cancelled"]
    pub fn end(&self, step: &Step, rows: usize) -> bool {
        let call = self.call;
        // A pause holds the last member here, and so all of them.
        let stops = || call.orders.is_some_and(Orders::stops);
        self.member.barrier_with(|| call.stop.store(stops(), Ordering::Relaxed));
        if let Some(watch) = &call.watch {
            if self.id() == 0 {
                let took = watch.last.get().elapsed();
                let rows = if step.rows == 0 { rows } else { step.rows };
                let values = extent(rows, step.pitch, step.channels);
                let words = call.arena.floats(step.slot, if step.half { values.div_ceil(2) } else { values });
                // A step that emitted code tells lies about shows nothing.
                let (words, rows) = words.map_or((&[][..], 0), |words| (words, rows));
                let view = StepView { phase: call.phase, start: call.start, step, rows, took, words };
                // SAFETY: `Call::new` borrowed the observer exclusively for longer than the call, and only member 0
                // gets here. The slot's floats are not written meanwhile: the others wait at the next barrier.
                unsafe { (*watch.observer)(view) };
                watch.last.set(Clock::start());
            }
            self.member.barrier();
        }
        call.stopped()
    }

    /// What the latest [`end`](Self::end) answered.
    #[inline]
    pub fn cancelled(&self) -> bool {
        self.call.stopped()
    }
}

impl fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cx({} of {}, {})", self.id(), self.count(), self.call.phase.name())
    }
}
