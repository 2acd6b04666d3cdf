//! A program whose code runs elsewhere: what a session wants done is put out, one task after the other.
//!
//! Sessions call it like emitted code. Nothing has happened when a call returns; a session then asks whether its work has
//! been done, which it has when every task was fetched and the next one asked for.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::task::Poll;

use alloc::vec::Vec;
use runtime_min::{Cx, ImagePolicy, Info, Level, Program};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// All steps of a phase.
    Phase {
        /// As the kernels number them: vision of each side, prefill, decode, then verify and logits where there are such.
        phase: u32,
        /// Position of the first row.
        start: u32,
        /// Rows.
        rows: u32,
    },
    /// The embedding of a token, to a row of the decoder's input.
    Embed {
        /// Which token.
        id: u32,
        /// Which row.
        row: u32,
    },
}

/// Nothing in this place.
const NONE: u32 = u32::MAX;

/// The tasks of one call.
pub struct Remote {
    /// Tokens to embed, by their rows.
    ids: Vec<AtomicU32>,
    /// Rows of `ids` that were fetched, and that may hold something.
    fetched: AtomicUsize,
    filled: AtomicUsize,
    /// Phase, start and rows of what follows them.
    phase: AtomicU32,
    start: AtomicUsize,
    rows: AtomicUsize,
}

static INFO: AtomicPtr<Info> = AtomicPtr::new(null_mut());

/// Before a model is known: refused where one is opened.
static NOTHING: Info = Info {
    name: "no model",
    hidden: 0,
    vocab: 0,
    max_context: 0,
    chunk: 0,
    verify_rows: 1,
    arena_bytes: 0,
    scratch_bytes: 0,
    weights_bytes: 0,
    sides: &[],
    system: "",
    baked: false,
    cache: &[],
    image_rows_pitch: 0,
    rows: 0,
    rows_pitch: 0,
    logits: 0,
    logits_pitch: 0,
    token: 0,
    policy: ImagePolicy::Crop,
    digest: [0; 32],
    weights_name: "",
    late_logits: false,
    steps: [&[]; 3],
};

/// Makes `info` that of all models opened from now on.
pub fn set_info(info: &'static Info) {
    INFO.store(core::ptr::from_ref(info).cast_mut(), Relaxed);
}

impl Remote {
    /// The next task; the one before it has been done.
    pub fn next(&self) -> Option<Task> {
        while self.fetched.load(Relaxed) < self.filled.load(Relaxed) {
            let row = self.fetched.fetch_add(1, Relaxed);
            let id = self.ids.get(row).map_or(NONE, |id| id.swap(NONE, Relaxed));
            if id != NONE {
                return Some(Task::Embed { id, row: row as u32 });
            }
        }
        self.fetched.store(0, Relaxed);
        self.filled.store(0, Relaxed);
        let phase = self.phase.swap(NONE, Relaxed);
        let (start, rows) = (self.start.load(Relaxed) as u32, self.rows.load(Relaxed) as u32);
        (phase != NONE).then_some(Task::Phase { phase, start, rows })
    }

    fn put(&self, phase: usize, start: usize, rows: usize) {
        self.phase.store(phase as u32, Relaxed);
        self.start.store(start, Relaxed);
        self.rows.store(rows, Relaxed);
    }

    /// The first phase that is no vision.
    fn decoder() -> usize {
        Self::info().sides.len()
    }
}

impl Program for Remote {
    const LEVELS: &'static [Level] = &[Level { name: "wasm", available: || true }];
    const HANDS_OUT: bool = true;

    fn info() -> &'static Info {
        // SAFETY: null, or from a `&'static Info`.
        unsafe { INFO.load(Relaxed).as_ref() }.unwrap_or(&NOTHING)
    }

    fn with_level(_: usize) -> Self {
        Self {
            ids: (0..Self::info().chunk).map(|_| AtomicU32::new(NONE)).collect(),
            fetched: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            phase: AtomicU32::new(NONE),
            start: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
        }
    }

    fn vision(&self, _: &Cx<'_>, side: usize) {
        self.put(side, 0, 0);
    }

    fn prefill(&self, _: &Cx<'_>, start: usize, rows: usize) {
        self.put(Self::decoder(), start, rows);
    }

    fn decode(&self, _: &Cx<'_>, start: usize) {
        self.put(Self::decoder() + 1, start, 1);
    }

    fn verify(&self, _: &Cx<'_>, start: usize, rows: usize) {
        self.put(Self::decoder() + 2, start, rows);
    }

    fn logits(&self, _: &Cx<'_>, rows: usize) {
        self.put(Self::decoder() + 2 + usize::from(Self::info().verify_rows > 1), 0, rows);
    }

    fn embed(&self, _: &Cx<'_>, id: u32, row: usize) {
        if let Some(place) = self.ids.get(row) {
            place.store(id, Relaxed);
            self.filled.fetch_max(row + 1, Relaxed);
        }
    }

    fn finished(&self) -> Poll<()> {
        if self.filled.load(Relaxed) == 0 && self.phase.load(Relaxed) == NONE { Poll::Ready(()) } else { Poll::Pending }
    }
}
