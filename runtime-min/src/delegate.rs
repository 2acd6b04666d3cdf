//! Somebody else who encodes pictures: a neural engine, a GPU, whatever an app can reach that the compiler cannot.
//!
//! The border is the one between regions where little crosses it: pixels in, rows of the decoder's width out, once for a
//! picture. The decoder has no such hook: each token would cross the border with a cache that lives in this process's arena,
//! and what a delegate gains in arithmetic a token, which is bound by memory, does not need.
//!
//! A delegate is asked first whether it can, and the processor does what it does not. Its rows are checked, not believed.
//! Their bits are its own: answers about its pictures may differ from those about the processor's.

use crate::program::{Info, Side};
use crate::room::{self, text};
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Encodes pictures in place of the processor.
///
/// Sessions of one model may call it from several threads at once. It is called on the thread that encodes, never by the
/// members of a team.
pub trait Delegate: Send + Sync {
    /// In a few letters, for people: "coreml".
    fn name(&self) -> &str;

    /// Whether it can work for this model at all; asked once, when it is given to the model. The reason is shown to people.
    ///
    /// # Errors
    /// Why it cannot.
    fn supports(&self, info: &Info) -> Result<(), String>;

    /// Encodes `rgb`, `[side, side, 3]`: red, green, blue, 0 to 255, the upper row first, for one of [`Info::sides`]. Fills
    /// `rows`, `[side.tokens, hidden]`: what the projector makes.
    ///
    /// # Errors
    /// Why it did not: the processor encodes this picture then, and the next one is offered again.
    fn vision(&self, rgb: &[u8], side: &Side, rows: &mut [f32]) -> Result<(), String>;
}

/// What a model's delegate is and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegation<'m> {
    /// Of the delegate.
    pub name: &'m str,
    /// Whether the next picture is offered to it.
    pub in_use: bool,
    /// Pictures that it encoded.
    pub encoded: usize,
    /// Pictures that were offered to it and that the processor encoded.
    pub fell_back: usize,
    /// Why it is asked no more; while it is, why the processor first did its work. None if it never did.
    pub reason: Option<&'m str>,
}

/// A delegate at work.
pub(crate) struct Delegated {
    delegate: Box<dyn Delegate>,
    in_use: AtomicBool,
    encoded: AtomicUsize,
    fell_back: AtomicUsize,
    /// Why the processor first did its work.
    first: Reason,
    /// Why it is asked no more, told before `in_use` says so.
    last: Reason,
}

impl Delegated {
    /// Asks it whether it can.
    pub(crate) fn new(delegate: Box<dyn Delegate>, info: &Info) -> Self {
        let can = delegate.supports(info);
        let this = Self {
            delegate,
            in_use: AtomicBool::new(can.is_ok()),
            encoded: AtomicUsize::new(0),
            fell_back: AtomicUsize::new(0),
            first: Reason::default(),
            last: Reason::default(),
        };
        if let Err(reason) = can {
            this.last.set(reason);
        }
        this
    }

    pub(crate) fn told(&self) -> Delegation<'_> {
        let in_use = self.in_use.load(Ordering::Acquire);
        let last = if in_use { None } else { self.last.get() };
        Delegation {
            name: self.delegate.name(),
            in_use,
            encoded: self.encoded.load(Ordering::Relaxed),
            fell_back: self.fell_back.load(Ordering::Relaxed),
            reason: last.or_else(|| self.first.get()),
        }
    }

    /// Rows of a picture, in room for them; none where the processor has to make them.
    pub(crate) fn rows(&self, rgb: &[u8], side: &Side, rows: &mut [f32]) -> bool {
        if !self.in_use.load(Ordering::Relaxed) {
            return false;
        }
        // What is not written is found.
        rows.fill(f32::NAN);
        match self.delegate.vision(rgb, side, rows) {
            Ok(()) => match rows.iter().position(|value| !value.is_finite()) {
                None => {
                    self.encoded.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Some(at) => {
                    let (hidden, tokens) = (rows.len() / side.tokens.max(1), side.tokens);
                    self.last.set(text!(
                        "its rows are no numbers or were not all made: {} at [{}, {}] of [{tokens}, {hidden}]; it is not asked \
                         again",
                        if rows[at].is_nan() { "NaN" } else { "an infinity" },
                        at / hidden.max(1),
                        at % hidden.max(1),
                    ));
                    // Wrong once, it would be wrong again.
                    self.in_use.store(false, Ordering::Release);
                }
            },
            Err(reason) => self.first.set(reason),
        }
        self.fell_back.fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// A text that is set once, so that it can be lent: null, or a leaked box.
#[derive(Default)]
struct Reason(AtomicPtr<String>);

impl Reason {
    fn get(&self) -> Option<&str> {
        // SAFETY: null or a box of `set`, which lives until this is dropped and is never changed.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }.map(String::as_str)
    }

    /// Keeps the first text. Without memory for it there is none, which changes nothing else.
    fn set(&self, reason: String) {
        let Ok(reason) = room::boxed(reason, "a delegate's reason") else { return };
        let reason = Box::into_raw(reason);
        if self.0.compare_exchange(null_mut(), reason, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: made above, and nobody else has it.
            drop(unsafe { Box::from_raw(reason) });
        }
    }
}

impl Drop for Reason {
    fn drop(&mut self) {
        let reason = *self.0.get_mut();
        if !reason.is_null() {
            // SAFETY: a box of `set`, and whoever was lent its text is gone.
            drop(unsafe { Box::from_raw(reason) });
        }
    }
}

impl fmt::Debug for Delegated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(f)
    }
}
