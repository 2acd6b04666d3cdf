//! A team of threads that is created once and runs one closure at a time on all its members.
//!
//! Between two kernels of a token lie microseconds, so members spin before they park; between two answers lie seconds,
//! so they do park. Work is divided by [`Member::part`], statically, which makes results independent of timing. The
//! calling thread is member 0: a team of one has no threads and no synchronization at all, and that is also what
//! builds without `std` get. A closure may be run by fewer members than there are: the others stay parked, and wake only
//! to see that a closure is not theirs.

use crate::error::Error;
use core::ops::Range;

/// Most members of a team.
pub const MAX_MEMBERS: usize = 1024;

/// One of the threads that run a closure together.
#[derive(Debug)]
pub struct Member<'t> {
    id: usize,
    count: usize,
    #[cfg(feature = "std")]
    shared: Option<&'t threads::Shared>,
    #[cfg(not(feature = "std"))]
    shared: core::marker::PhantomData<&'t ()>,
}

impl Member<'_> {
    /// 0 is the calling thread.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Members that run this closure.
    pub fn count(&self) -> usize {
        self.count
    }

    /// This member's share of `units` pieces of work: contiguous, in order of ids, larger shares first.
    pub fn part(&self, units: usize) -> Range<usize> {
        part(units, self.id, self.count)
    }

    /// Waits until every member has called it; all their writes are visible afterwards.
    ///
    /// Unwinds (without a message) when another member has panicked, as that one will never come.
    pub fn barrier(&self) {
        self.barrier_with(|| ());
    }

    /// A barrier at which the last member to arrive runs `last` before anybody goes on.
    pub(crate) fn barrier_with(&self, last: impl FnOnce()) {
        #[cfg(feature = "std")]
        if let Some(shared) = self.shared {
            shared.barrier(self.count, last);
            return;
        }
        last();
    }
}

/// Share `id` of `units` pieces divided among `count`.
pub fn part(units: usize, id: usize, count: usize) -> Range<usize> {
    let (each, more) = (units / count, units % count);
    let first = id * each + id.min(more);
    first..first + each + usize::from(id < more)
}

/// The threads.
#[derive(Debug)]
pub struct Team {
    #[cfg(feature = "std")]
    threads: threads::Threads,
}

impl Team {
    /// A team of `members`, or of fewer where the system does not give that many threads.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `members` is in `1..=MAX_MEMBERS`, [`Error::OutOfMemory`].
    pub fn new(members: usize) -> Result<Self, Error> {
        check(members)?;
        Ok(Self {
            #[cfg(feature = "std")]
            threads: threads::Threads::new(members)?,
        })
    }

    /// Members, including the calling thread.
    pub fn count(&self) -> usize {
        #[cfg(feature = "std")]
        return self.threads.count();
        #[cfg(not(feature = "std"))]
        return 1;
    }

    /// Runs `work` on every member, and returns when all are done.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when a member panicked, now or in an earlier call.
    pub fn run(&mut self, work: &(impl Fn(&Member<'_>) + Sync)) -> Result<(), Error> {
        self.run_on(MAX_MEMBERS, work)
    }

    /// As [`run`](Self::run), on the first `members` of them: at least one, at most all.
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    pub fn run_on(&mut self, members: usize, work: &(impl Fn(&Member<'_>) + Sync)) -> Result<(), Error> {
        #[cfg(feature = "std")]
        return self.threads.run(members, work);
        #[cfg(not(feature = "std"))]
        {
            let _ = members;
            work(&Member { id: 0, count: 1, shared: core::marker::PhantomData });
            Ok(())
        }
    }
}

/// Refuses numbers that no team has.
pub(crate) fn check(members: usize) -> Result<(), Error> {
    if (1..=MAX_MEMBERS).contains(&members) {
        return Ok(());
    }
    let reason = crate::room::text!("{members} is out of range: give 1 to {MAX_MEMBERS}");
    Err(Error::Argument { name: "threads", reason })
}

/// Threads this machine runs at once; 1 where nobody knows.
pub fn available() -> usize {
    crate::processors::available().min(MAX_MEMBERS)
}

#[cfg(feature = "std")]
mod threads {
    use super::Member;
    use crate::error::Error;
    use crate::room;
    use crate::sync::{self, AtomicBool, AtomicUsize, Cell, Condvar, Mutex, Ordering::*, Thread};
    use alloc::boxed::Box;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::any::Any;
    use core::ptr::NonNull;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::PoisonError;

    #[derive(Debug)]
    pub(super) struct Threads {
        /// From a `Box`, which would claim to be the only way to what the threads use as well.
        shared: NonNull<Shared>,
        handles: Vec<Thread>,
    }

    // SAFETY: `shared` is owned, and `Shared` may be used and dropped by any thread.
    unsafe impl Send for Threads {}
    // SAFETY: a shared `Threads` only counts its handles.
    unsafe impl Sync for Threads {}

    /// An atomic on a cache line of its own (two, as lines are fetched in pairs), so that spinning does not slow others.
    #[derive(Debug)]
    #[repr(align(128))]
    struct Padded<T>(T);

    #[derive(Debug)]
    pub(super) struct Shared {
        /// Counts closures, in steps of `EPOCH`; a change is the signal to run `job`. Below that, how many members run it:
        /// who is not among them must learn that from the same word, as nobody waits until it has looked.
        epoch: Padded<AtomicUsize>,
        /// Threads that still run the closure.
        running: Padded<AtomicUsize>,
        /// Members that stand at the barrier, and how often it has opened.
        arrived: Padded<AtomicUsize>,
        opened: Padded<AtomicUsize>,
        poisoned: AtomicBool,
        quit: AtomicBool,
        job: Cell<Option<Job>>,
        /// Ids given out; a thread takes the next one when it starts.
        ids: AtomicUsize,
        spins: usize,
        /// Where members wait for a closure.
        idle: Gate,
        /// Where they wait for each other inside of one, and the caller for its end.
        inside: Gate,
        reason: Mutex<String>,
    }

    /// Where members park: two of them, so that who has no part in a closure sleeps through its barriers.
    #[derive(Debug)]
    struct Gate {
        /// Members inside `lock`, about to wait or waiting for `wake`.
        parked: AtomicUsize,
        lock: Mutex<()>,
        wake: Condvar,
    }

    /// From one closure to the next; more than any number of members.
    const EPOCH: usize = 2 * super::MAX_MEMBERS;

    // SAFETY: `job` is written by the calling thread while no other member runs (`running` is 0), and read by the others
    // after the epoch that publishes it; everything else synchronizes itself.
    unsafe impl Sync for Shared {}
    // SAFETY: a `Job` is only called between `run`'s start and end, whose caller keeps the closure alive.
    unsafe impl Send for Shared {}

    /// A closure with its type erased.
    #[derive(Clone, Copy, Debug)]
    struct Job {
        data: *const (),
        call: unsafe fn(*const (), &Member<'_>),
    }

    /// # Safety
    /// `data` points to a live `F`.
    unsafe fn call<F: Fn(&Member<'_>) + Sync>(data: *const (), member: &Member<'_>) {
        // SAFETY: promised by the caller; `F: Sync` lets several threads share it.
        let work = unsafe { &*data.cast::<F>() };
        work(member);
    }

    /// Carried by members that leave a barrier because another one panicked.
    struct Follower;

    impl Threads {
        pub(super) fn new(members: usize) -> Result<Self, Error> {
            const ITEM: &str = "the thread team";
            let handles = room::with_room(members - 1, ITEM)?;
            let crowded = members > super::available();
            let shared = Shared {
                epoch: Padded(AtomicUsize::new(0)),
                running: Padded(AtomicUsize::new(0)),
                arrived: Padded(AtomicUsize::new(0)),
                opened: Padded(AtomicUsize::new(0)),
                poisoned: AtomicBool::new(false),
                quit: AtomicBool::new(false),
                job: Cell::new(None),
                ids: AtomicUsize::new(1),
                spins: if crowded { sync::SPINS_CROWDED } else { sync::SPINS },
                idle: Gate::new(),
                inside: Gate::new(),
                reason: Mutex::new(String::new()),
            };
            let shared = NonNull::from(Box::leak(room::boxed(shared, ITEM)?));
            let mut this = Self { shared, handles };
            for _ in 1..members {
                // SAFETY: `drop` joins all threads before it frees `shared`.
                // A system short of threads gets a smaller team.
                let Some(handle) = (unsafe { sync::spawn(shared) }) else { break };
                this.handles.push(handle);
            }
            Ok(this)
        }

        pub(super) fn count(&self) -> usize {
            1 + self.handles.len()
        }

        pub(super) fn run<F: Fn(&Member<'_>) + Sync>(&mut self, members: usize, work: &F) -> Result<(), Error> {
            // SAFETY: valid until `drop`, and never borrowed exclusively.
            let shared = unsafe { self.shared.as_ref() };
            if shared.poisoned.load(Acquire) {
                return Err(shared.poisoned());
            }
            let count = members.clamp(1, self.count());
            if count == 1 {
                let member = Member { id: 0, count, shared: None };
                shared.guard(|| work(&member));
            } else {
                let job = Job { data: core::ptr::from_ref(work).cast(), call: call::<F> };
                // SAFETY: `&mut self`, and the previous `run` waited for `running` to be 0, so nobody reads `job` now.
                shared.job.with_mut(|to| unsafe { *to = Some(job) });
                shared.running.0.store(count - 1, Relaxed);
                let epoch = shared.epoch.0.load(Relaxed);
                // Publishes the two above; only this thread changes it.
                shared.epoch.0.store((epoch - epoch % EPOCH).wrapping_add(EPOCH) + count, Release);
                shared.idle.notify();

                let member = Member { id: 0, count, shared: Some(shared) };
                shared.guard(|| work(&member));
                // Also after a panic: the others still use the closure.
                shared.inside.wait(shared.spins, || shared.running.0.load(Acquire) == 0);
            }
            if shared.poisoned.load(Acquire) { Err(shared.poisoned()) } else { Ok(()) }
        }
    }

    impl Drop for Threads {
        fn drop(&mut self) {
            // SAFETY: valid until the end of this function.
            let shared = unsafe { self.shared.as_ref() };
            shared.quit.store(true, Release);
            shared.idle.notify();
            for handle in self.handles.drain(..) {
                handle.join();
            }
            // SAFETY: leaked from a `Box` in `new`, freed only here, and the threads that used it have ended.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }

    impl sync::Body for Shared {
        /// What a thread does all its life.
        fn live(&self) {
            let id = self.ids.fetch_add(1, Relaxed);
            let (mut seen, mut spins) = (0, self.spins);
            loop {
                self.idle.wait(spins, || self.epoch.0.load(Acquire) != seen || self.quit.load(Acquire));
                if self.quit.load(Acquire) {
                    return;
                }
                seen = self.epoch.0.load(Acquire);
                let count = seen % EPOCH;
                // Nobody waits for who has no part: `job` and the rest may change already.
                if id >= count {
                    spins = 0;
                    continue;
                }
                spins = self.spins;
                let member = Member { id, count, shared: Some(self) };
                // SAFETY: written before the epoch that was just read, and not again before `running` is 0.
                if let Some(job) = self.job.with(|job| unsafe { *job }) {
                    // SAFETY: `run` keeps the closure alive until `running` is 0, which this thread counts down below.
                    self.guard(|| unsafe { (job.call)(job.data, &member) });
                }
                // Hands over what this thread wrote to the caller, who waits for the last one.
                if self.running.0.fetch_sub(1, Release) == 1 {
                    self.inside.notify();
                }
            }
        }
    }

    impl Shared {
        fn poisoned(&self) -> Error {
            let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
            Error::Poisoned { reason: room::text!("{}", *reason) }
        }

        /// Runs `work`; a panic poisons the team and releases everybody who waits.
        fn guard(&self, work: impl FnOnce()) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                if !payload.is::<Follower>() {
                    let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
                    if reason.is_empty() {
                        reason.push_str(message(&*payload));
                    }
                }
                self.poisoned.store(true, Release);
                self.inside.notify();
            }
        }

        pub(super) fn barrier(&self, count: usize, last: impl FnOnce()) {
            // Never an old number: this member was at every barrier of this closure and left it after it had opened, and the
            // epoch that began the closure came after those of the ones before.
            let opened = self.opened.0.load(Relaxed);
            // Hands over what this member wrote, and takes what those before it did.
            if self.arrived.0.fetch_add(1, AcqRel) + 1 == count {
                last();
                self.arrived.0.store(0, Relaxed);
                // Publishes all of it, the zero above included.
                self.opened.0.store(opened.wrapping_add(1), Release);
                self.inside.notify();
            } else {
                self.inside.wait(self.spins, || self.opened.0.load(Acquire) != opened || self.poisoned.load(Acquire));
            }
            if self.poisoned.load(Acquire) {
                resume_unwind(Box::new(Follower));
            }
        }
    }

    impl Gate {
        fn new() -> Self {
            Self { parked: AtomicUsize::new(0), lock: Mutex::new(()), wake: Condvar::new() }
        }

        /// Spins, then parks, until `ready`.
        fn wait(&self, spins: usize, ready: impl Fn() -> bool) {
            for _ in 0..spins {
                if ready() {
                    return;
                }
                sync::spin_loop();
            }
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.parked.fetch_add(1, Relaxed);
            // Together with the fence of `notify`: either we see the store that makes `ready` true, or its author sees us
            // here and takes the lock, which we hold until we wait.
            sync::fence(SeqCst);
            while !ready() {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.parked.fetch_sub(1, Relaxed);
        }

        /// To be called after any store that may make somebody's `ready` true.
        fn notify(&self) {
            sync::fence(SeqCst);
            if self.parked.load(Relaxed) > 0 {
                drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
                self.wake.notify_all();
            }
        }
    }

    fn message(payload: &(dyn Any + Send)) -> &str {
        let text = payload.downcast_ref::<&str>().copied();
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_contiguous_complete_and_larger_first() {
        for count in 1..9 {
            for units in 0..40 {
                let parts: alloc::vec::Vec<_> = (0..count).map(|id| part(units, id, count)).collect();
                assert_eq!((parts[0].start, parts[count - 1].end), (0, units));
                for pair in parts.windows(2) {
                    assert_eq!(pair[0].end, pair[1].start);
                    assert!(pair[0].len() >= pair[1].len() && pair[0].len() <= pair[1].len() + 1);
                }
            }
        }
    }
}
