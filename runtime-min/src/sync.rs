//! What the thread team synchronizes with, in one place, so that a model checker can stand in for it.
//!
//! `tests/team_loom.rs` compiles the team against a `sync` of loom's types. A thread comes straight from the C library
//! where there is one: the standard library's way to start one allocates, and aborts where it cannot.

pub(crate) use core::hint::spin_loop;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Condvar, Mutex};

use core::ptr::NonNull;

/// Spins before parking: some tens of microseconds, longer than the pauses inside a token.
pub(crate) const SPINS: usize = 4000;
/// Spins when members outnumber processors: the one we wait for may need this very core.
pub(crate) const SPINS_CROWDED: usize = 50;

/// A cell whose accesses are pointers, so that a model checker can watch them.
#[derive(Debug)]
pub(crate) struct Cell<T>(core::cell::UnsafeCell<T>);

impl<T> Cell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Gives `f` the address for reading.
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Gives `f` the address for writing.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// What a thread does.
pub(crate) trait Body: Sync {
    /// All its life; must not unwind.
    fn live(&self);
}

#[cfg(all(unix, target_pointer_width = "64", not(miri)))]
mod thread {
    use super::{Body, NonNull};
    use core::ffi::{c_int, c_void};
    use core::mem::MaybeUninit;
    use core::ptr::null_mut;

    /// `pthread_t`: an integer or a pointer, of the machine's width on all 64-bit systems.
    #[derive(Debug)]
    pub(crate) struct Thread(usize);

    /// Room for a `pthread_attr_t`, which has 64 bytes at most.
    #[repr(C, align(16))]
    struct Attributes([u8; 256]);

    unsafe extern "C" {
        fn pthread_attr_init(attributes: *mut Attributes) -> c_int;
        fn pthread_attr_setstacksize(attributes: *mut Attributes, bytes: usize) -> c_int;
        fn pthread_attr_destroy(attributes: *mut Attributes) -> c_int;
        fn pthread_create(
            thread: *mut usize,
            attributes: *const Attributes,
            start: extern "C" fn(*mut c_void) -> *mut c_void,
            data: *mut c_void,
        ) -> c_int;
        fn pthread_join(thread: usize, result: *mut *mut c_void) -> c_int;
    }

    /// Bytes; what the standard library gives. Some C libraries would give 128 KB.
    const STACK: usize = 2 << 20;

    extern "C" fn start<B: Body>(body: *mut c_void) -> *mut c_void {
        // SAFETY: `spawn` was given the address of a `B` that outlives the thread.
        unsafe { &*body.cast::<B>() }.live();
        null_mut()
    }

    /// Starts a thread, if the system gives one.
    ///
    /// # Safety
    /// `body` stays valid until the thread was joined.
    pub(crate) unsafe fn spawn<B: Body>(body: NonNull<B>) -> Option<Thread> {
        let (mut attributes, mut thread) = (MaybeUninit::<Attributes>::uninit(), 0);
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialized before they are used and destroyed after, in room that is large enough;
        // `start::<B>` takes what it is given here, and the caller keeps `body` valid.
        unsafe {
            if pthread_attr_init(attributes) != 0 {
                return None;
            }
            // Where the size is not to a system's taste, its own stands.
            pthread_attr_setstacksize(attributes, STACK);
            let refused = pthread_create(&raw mut thread, attributes, start::<B>, body.as_ptr().cast());
            pthread_attr_destroy(attributes);
            (refused == 0).then_some(Thread(thread))
        }
    }

    impl Thread {
        /// Waits for its end.
        pub(crate) fn join(self) {
            // SAFETY: made by `pthread_create` and joined once, as this takes it.
            unsafe { pthread_join(self.0, null_mut()) };
        }
    }
}

#[cfg(not(all(unix, target_pointer_width = "64", not(miri))))]
mod thread {
    use super::{Body, NonNull};

    #[derive(Debug)]
    pub(crate) struct Thread(std::thread::JoinHandle<()>);

    struct Sent<B>(NonNull<B>);

    // SAFETY: what is sent is a shared reference to a `Sync` value.
    unsafe impl<B: Body> Send for Sent<B> {}

    /// Starts a thread, if the system gives one.
    ///
    /// # Safety
    /// `body` stays valid until the thread was joined.
    pub(crate) unsafe fn spawn<B: Body + 'static>(body: NonNull<B>) -> Option<Thread> {
        let body = Sent(body);
        let live = move || {
            let body = body;
            // SAFETY: the caller keeps it valid.
            unsafe { body.0.as_ref() }.live();
        };
        std::thread::Builder::new().spawn(live).ok().map(Thread)
    }

    impl Thread {
        /// Waits for its end.
        pub(crate) fn join(self) {
            // Bodies do not unwind.
            let _ = self.0.join();
        }
    }
}

pub(crate) use thread::{Thread, spawn};
