//! Stopping a session's work from elsewhere, and what else a session is told while it works.

use crate::control::Pressure;
use crate::error::Error;
use crate::room;
use alloc::boxed::Box;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
#[cfg(feature = "std")]
use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Stops a session's running work from another thread, or from between two pieces.
///
/// It concerns the work that runs: `ask` and `image` begin with a cleared token.
pub struct CancelToken(NonNull<Orders>);

/// What all copies of a token share. An `Arc` would abort without memory.
pub(crate) struct Orders {
    cancelled: AtomicBool,
    pressure: AtomicU8,
    owners: AtomicUsize,
    #[cfg(feature = "std")]
    pause: Pause,
}

/// Where the work waits while it is paused. Without `std` nothing can wait.
#[cfg(feature = "std")]
struct Pause {
    /// Whether the work may wait at all: not that of a program that hands it out, whose thread belongs to others.
    allowed: bool,
    paused: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

// SAFETY: a token gives shared access to what synchronizes itself, which its share in `owners` keeps alive.
unsafe impl Send for CancelToken {}
// SAFETY: as above.
unsafe impl Sync for CancelToken {}

impl CancelToken {
    /// For work that `may_wait`, or may not.
    pub(crate) fn new(may_wait: bool) -> Result<Self, Error> {
        #[cfg(not(feature = "std"))]
        let _ = may_wait;
        let orders = Orders {
            cancelled: AtomicBool::new(false),
            pressure: AtomicU8::new(Pressure::Nominal as u8),
            owners: AtomicUsize::new(1),
            #[cfg(feature = "std")]
            pause: Pause {
                allowed: may_wait,
                paused: AtomicBool::new(false),
                lock: Mutex::new(()),
                changed: Condvar::new(),
            },
        };
        Ok(Self(NonNull::from(Box::leak(room::boxed(orders, "the cancel token")?))))
    }

    /// Asks the work to stop after its current step, also while it is paused.
    pub fn cancel(&self) {
        let orders = self.orders();
        orders.cancelled.store(true, Ordering::SeqCst);
        orders.tell();
    }

    /// True from [`cancel`](Self::cancel) until the next work begins.
    pub fn is_cancelled(&self) -> bool {
        self.orders().is_cancelled()
    }

    pub(crate) fn clear(&self) {
        self.orders().cancelled.store(false, Ordering::SeqCst);
    }

    pub(crate) fn orders(&self) -> &Orders {
        // SAFETY: alive while this token, one of its owners, is.
        unsafe { self.0.as_ref() }
    }
}

impl Orders {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::from_number(self.pressure.load(Ordering::Relaxed).into()).unwrap_or_default()
    }

    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Ordering::SeqCst);
        self.tell();
    }

    /// Waits while the work is paused and not cancelled; then, whether it is cancelled.
    pub(crate) fn stops(&self) -> bool {
        self.waited() || self.is_cancelled()
    }

    /// Waits while the work is paused and not cancelled; true where that ended because it was cancelled.
    pub(crate) fn waited(&self) -> bool {
        #[cfg(feature = "std")]
        if self.is_paused() && self.pause.allowed {
            let mut guard = self.pause.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while self.is_paused() && !self.is_cancelled() {
                guard = self.pause.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            return self.is_cancelled();
        }
        false
    }

    /// Wakes who waits, after a change.
    fn tell(&self) {
        #[cfg(feature = "std")]
        {
            // Who is about to wait holds the lock from its last look until it waits.
            drop(self.pause.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.pause.changed.notify_all();
        }
    }
}

#[cfg(feature = "std")]
impl Orders {
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.paused.load(Ordering::SeqCst)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.pause.paused.store(paused, Ordering::SeqCst);
        self.tell();
    }

    /// Waits for `time` where the pressure is critical: less if that changes, or if the work is cancelled. How long it was.
    pub(crate) fn rest(&self, time: Duration) -> Duration {
        let begin = Instant::now();
        let mut guard = self.pause.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.pause.allowed && self.pressure() == Pressure::Critical && !self.is_cancelled() {
            let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else { break };
            guard = self.pause.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        begin.elapsed()
    }
}

impl Clone for CancelToken {
    fn clone(&self) -> Self {
        let more = |owners: usize| owners.checked_add(1);
        let counted = self.orders().owners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        assert!(counted.is_ok(), "more cancel tokens than there are addresses");
        Self(self.0)
    }
}

impl Drop for CancelToken {
    fn drop(&mut self) {
        if self.orders().owners.fetch_sub(1, Ordering::Release) == 1 {
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
        let token = CancelToken::new(true).expect("some bytes");
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
        let token = CancelToken::new(true).expect("some bytes");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let token = token.clone();
                scope.spawn(move || token.cancel());
            }
        });
        assert!(token.is_cancelled());
    }
}
