//! Stopping a session's work from elsewhere.

use crate::error::Error;
use crate::room;
use alloc::boxed::Box;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Stops a session's running work from another thread, or from between two pieces.
///
/// It concerns the work that runs: `ask` and `image` begin with a cleared token.
pub struct CancelToken(NonNull<Flag>);

/// What all copies of a token share. An `Arc` would abort without memory.
struct Flag {
    cancelled: AtomicBool,
    owners: AtomicUsize,
}

// SAFETY: a token gives shared access to atomics, which its share in `owners` keeps alive.
unsafe impl Send for CancelToken {}
// SAFETY: as above.
unsafe impl Sync for CancelToken {}

impl CancelToken {
    pub(crate) fn new() -> Result<Self, Error> {
        let flag = Flag { cancelled: AtomicBool::new(false), owners: AtomicUsize::new(1) };
        Ok(Self(NonNull::from(Box::leak(room::boxed(flag, "the cancel token")?))))
    }

    /// Asks the work to stop after its current step.
    pub fn cancel(&self) {
        self.cancelled().store(true, Ordering::Relaxed);
    }

    /// True from [`cancel`](Self::cancel) until the next work begins.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled().load(Ordering::Relaxed)
    }

    pub(crate) fn clear(&self) {
        self.cancelled().store(false, Ordering::Relaxed);
    }

    pub(crate) fn cancelled(&self) -> &AtomicBool {
        &self.flag().cancelled
    }

    fn flag(&self) -> &Flag {
        // SAFETY: alive while this token, one of its owners, is.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for CancelToken {
    fn clone(&self) -> Self {
        let more = |owners: usize| owners.checked_add(1);
        let counted = self.flag().owners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        assert!(counted.is_ok(), "more cancel tokens than there are addresses");
        Self(self.0)
    }
}

impl Drop for CancelToken {
    fn drop(&mut self) {
        if self.flag().owners.fetch_sub(1, Ordering::Release) == 1 {
            // All uses by other owners come before their release, and so before this.
            fence(Ordering::Acquire);
            // SAFETY: leaked from a `Box` in `new`; this was the last owner.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken({})", self.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_one_flag_until_the_last_is_gone() {
        let token = CancelToken::new().expect("16 bytes");
        let copy = token.clone();
        drop(token);
        let other = copy.clone();
        other.cancel();
        assert!(copy.is_cancelled());
        copy.clear();
        assert!(!other.is_cancelled());
    }

    #[test]
    #[cfg(feature = "std")]
    fn threads_may_drop_it_in_any_order() {
        let token = CancelToken::new().expect("16 bytes");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let token = token.clone();
                scope.spawn(move || token.cancel());
            }
        });
        assert!(token.is_cancelled());
    }
}
