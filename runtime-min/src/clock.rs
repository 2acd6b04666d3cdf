//! Elapsed time. Without the `std` feature it is zero unless the host lends its clock.

use core::time::Duration;

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    #[cfg(feature = "std")]
    start: std::time::Instant,
    #[cfg(not(feature = "std"))]
    start: Duration,
}

#[cfg(not(feature = "std"))]
pub use lent::set_clock;

#[cfg(not(feature = "std"))]
mod lent {
    use core::ptr::null_mut;
    use core::sync::atomic::{AtomicPtr, Ordering};
    use core::time::Duration;

    /// A `fn() -> Duration`, or null.
    static NOW: AtomicPtr<()> = AtomicPtr::new(null_mut());

    /// Makes `now`, the time since whenever, the clock of all timings.
    pub fn set_clock(now: fn() -> Duration) {
        NOW.store(now as *mut (), Ordering::Relaxed);
    }

    pub(super) fn now() -> Duration {
        let now = NOW.load(Ordering::Relaxed);
        if now.is_null() {
            return Duration::ZERO;
        }
        // SAFETY: only `set_clock` puts something other than null there: a function of this type.
        let now = unsafe { core::mem::transmute::<*mut (), fn() -> Duration>(now) };
        now()
    }
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "std")]
            start: std::time::Instant::now(),
            #[cfg(not(feature = "std"))]
            start: lent::now(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        #[cfg(feature = "std")]
        return self.start.elapsed();
        #[cfg(not(feature = "std"))]
        return lent::now().saturating_sub(self.start);
    }
}
