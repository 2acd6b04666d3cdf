//! What a function says about how it went: a number, and a message where the caller has room for one.

use core::ffi::c_char;
use core::mem::offset_of;
use runtime_min::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The codes of [`Error`], in the order of the numbers 1, 2, ... of `tvlm_code`: numbers never change.
pub const CODES: [&str; 20] = [
    "file",
    "weights-truncated",
    "weights-overlong",
    "not-weights",
    "weights-format",
    "weights-damaged",
    "weights-wrong-build",
    "weights-section",
    "tokenizer",
    "cpu",
    "unknown-level",
    "out-of-memory",
    "image",
    "prompt-too-long",
    "empty-prompt",
    "token-out-of-range",
    "argument",
    "cancelled",
    "poisoned",
    "program",
];

/// The codes of [`Error`] that came later, and their numbers.
pub const LATER: [(&str, i32); 2] = [("saved-damaged", 23), ("saved-foreign", 24)];

/// `TVLM_ERROR_BUSY`.
pub const BUSY: i32 = 21;

/// `TVLM_ERROR_BUG`: also for errors that were added to the runtime and not here.
pub const BUG: i32 = 22;

/// `tvlm_error`: `size` is what the caller has room for.
#[repr(C)]
pub struct Failure {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// One of `tvlm_code`.
    pub code: i32,
    /// What is wrong and what to do; ends with a zero byte, and is cut where it would not fit.
    pub message: [c_char; 1012],
}

/// Why a function did not do what it was asked.
pub enum Problem {
    /// The runtime's reason.
    Error(Error),
    /// The session works for somebody else.
    Busy,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Problem {
    /// An argument that cannot be used.
    pub fn argument(name: &'static str, reason: &str) -> Self {
        Self::Error(Error::Argument { name, reason: reason.into() })
    }

    fn code(&self) -> i32 {
        let number = |code: &str| {
            let first = CODES.iter().position(|known| *known == code).map(|i| i as i32 + 1);
            first.or_else(|| LATER.iter().find(|(known, _)| *known == code).map(|(_, number)| *number))
        };
        match self {
            Self::Error(error) => number(error.code()).unwrap_or(BUG),
            Self::Busy => BUSY,
        }
    }
}

/// Runs `work`, tells `failure` how it went and returns the number.
///
/// # Safety
/// `failure` is null or points to a `tvlm_error`, whose `size` is what it has.
pub unsafe fn report(failure: *mut Failure, work: impl FnOnce() -> Result<(), Problem>) -> i32 {
    // What `work` holds is looked at afterwards only through handles, whose sessions are poisoned by a panic.
    let (code, message) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => (0, None),
        Ok(Err(problem)) => (problem.code(), Some(problem)),
        Err(_) => (BUG, None),
    };
    // SAFETY: passed on from the caller.
    if let Some(mut room) = unsafe { Room::of(failure, code) } {
        match &message {
            None if code == 0 => {}
            None => room.put("a panic, which is a bug worth reporting"),
            Some(Problem::Error(error)) => room.put(&error.to_string()),
            Some(Problem::Busy) => {
                room.put(
                    "session: another thread, or a callback's caller, is using it: wait until that call has returned",
                );
            }
        }
    }
    code
}

/// The message of a [`Failure`], as large as the caller says.
struct Room<'a> {
    /// Zeros, one at least.
    bytes: &'a mut [u8],
}

impl<'a> Room<'a> {
    /// Writes the code; none where there is no room for more.
    ///
    /// # Safety
    /// As of [`report`].
    unsafe fn of(failure: *mut Failure, code: i32) -> Option<Room<'a>> {
        const CODE_END: usize = offset_of!(Failure, code) + size_of::<i32>();
        const MESSAGE: usize = offset_of!(Failure, message);
        if failure.is_null() {
            return None;
        }
        // SAFETY: not null, so it has a size, and what that size says.
        unsafe {
            let size = (*failure).size;
            if size < CODE_END {
                return None;
            }
            (*failure).code = code;
            let bytes = size.min(isize::MAX as usize).checked_sub(MESSAGE).filter(|n| *n > 0)?;
            let message = failure.cast::<u8>().add(MESSAGE);
            // The caller may not have set it.
            message.write_bytes(0, bytes);
            Some(Room { bytes: core::slice::from_raw_parts_mut(message, bytes) })
        }
    }

    /// The text and a zero. Of one that is too long the middle goes: names lead, and reasons end a message.
    fn put(&mut self, text: &str) {
        const CUT: &str = " ... ";
        let room = self.bytes.len() - 1;
        let mut put = |at: usize, text: &str| self.bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        if text.len() <= room {
            return put(0, text);
        }
        let before = |end: usize| (0..=end).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        // Too little for two parts that say something.
        if room < 16 * CUT.len() {
            return put(0, &text[..before(room)]);
        }
        let kept = room - CUT.len();
        let head = before(kept / 3);
        let from = text.len() - (kept - head);
        let tail = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        put(0, &text[..head]);
        put(head, CUT);
        put(head + CUT.len(), &text[tail..]);
    }
}
