//! A team of threads that is created once and runs one closure at a time on all its members.
//!
//! Between two kernels of a token lie microseconds, so members spin before they park; between two answers lie seconds,
//! so they do park. Work is divided by [`Member::part`], statically, which makes results independent of timing. The
//! calling thread is member 0: a team of one has no threads and no synchronization at all, and that is also what
//! builds without `std` get.

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
pub(crate) fn part(units: usize, id: usize, count: usize) -> Range<usize> {
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
    /// [`Error::Argument`] unless `members` is in `1..=MAX_MEMBERS`.
    pub fn new(members: usize) -> Result<Self, Error> {
        if !(1..=MAX_MEMBERS).contains(&members) {
            let reason = alloc::format!("{members} is out of range: give 1 to {MAX_MEMBERS}");
            return Err(Error::Argument { name: "threads", reason });
        }
        Ok(Self {
            #[cfg(feature = "std")]
            threads: threads::Threads::new(members),
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
        #[cfg(feature = "std")]
        return self.threads.run(work);
        #[cfg(not(feature = "std"))]
        {
            work(&Member { id: 0, count: 1, shared: core::marker::PhantomData });
            Ok(())
        }
    }
}

/// Threads this machine runs at once; 1 where nobody knows.
pub fn available() -> usize {
    #[cfg(feature = "std")]
    return std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_MEMBERS);
    #[cfg(not(feature = "std"))]
    return 1;
}

#[cfg(feature = "std")]
mod threads {
    use super::Member;
    use crate::error::Error;
    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
    use std::any::Any;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::{Arc, Condvar, Mutex, PoisonError};
    use std::thread::JoinHandle;

    /// Spins before parking: some tens of microseconds, longer than the pauses inside a token.
    const SPINS: usize = 4000;
    /// Spins when members outnumber processors: the one we wait for may need this very core.
    const SPINS_CROWDED: usize = 50;

    #[derive(Debug)]
    pub(super) struct Threads {
        shared: Arc<Shared>,
        handles: Vec<JoinHandle<()>>,
    }

    /// An atomic on a cache line of its own (two, as lines are fetched in pairs), so that spinning does not slow others.
    #[derive(Debug, Default)]
    #[repr(align(128))]
    struct Padded<T>(T);

    #[derive(Debug)]
    pub(super) struct Shared {
        /// Counts closures; a change is the signal to run `job`.
        epoch: Padded<AtomicUsize>,
        /// Threads that still run the closure.
        running: Padded<AtomicUsize>,
        /// Members that stand at the barrier, and how often it has opened.
        arrived: Padded<AtomicUsize>,
        opened: Padded<AtomicUsize>,
        poisoned: AtomicBool,
        quit: AtomicBool,
        job: UnsafeCell<Option<Job>>,
        /// Members in the current closure; read by threads after they saw the epoch change.
        count: AtomicUsize,
        spins: usize,
        /// Members inside `lock`, about to wait or waiting for `wake`.
        parked: AtomicUsize,
        lock: Mutex<()>,
        wake: Condvar,
        reason: Mutex<String>,
    }

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
        pub(super) fn new(members: usize) -> Self {
            let crowded = members > super::available();
            let shared = Arc::new(Shared {
                epoch: Padded::default(),
                running: Padded::default(),
                arrived: Padded::default(),
                opened: Padded::default(),
                poisoned: AtomicBool::new(false),
                quit: AtomicBool::new(false),
                job: UnsafeCell::new(None),
                count: AtomicUsize::new(1),
                spins: if crowded { SPINS_CROWDED } else { SPINS },
                parked: AtomicUsize::new(0),
                lock: Mutex::new(()),
                wake: Condvar::new(),
                reason: Mutex::new(String::new()),
            });
            let mut handles = Vec::with_capacity(members - 1);
            for id in 1..members {
                let theirs = Arc::clone(&shared);
                let spawned = std::thread::Builder::new().name(format!("tvlm-{id}")).spawn(move || theirs.serve(id));
                // A system short of threads gets a smaller team.
                let Ok(handle) = spawned else { break };
                handles.push(handle);
            }
            Self { shared, handles }
        }

        pub(super) fn count(&self) -> usize {
            1 + self.handles.len()
        }

        pub(super) fn run<F: Fn(&Member<'_>) + Sync>(&mut self, work: &F) -> Result<(), Error> {
            let shared = &*self.shared;
            if shared.poisoned.load(SeqCst) {
                return Err(self.poisoned());
            }
            let count = self.count();
            if count == 1 {
                let member = Member { id: 0, count, shared: None };
                shared.guard(|| work(&member));
            } else {
                let job = Job { data: core::ptr::from_ref(work).cast(), call: call::<F> };
                // SAFETY: `&mut self`, and the previous `run` waited for `running` to be 0, so nobody reads `job` now.
                unsafe { *shared.job.get() = Some(job) };
                shared.count.store(count, SeqCst);
                shared.running.0.store(count - 1, SeqCst);
                shared.epoch.0.fetch_add(1, SeqCst);
                shared.notify();

                let member = Member { id: 0, count, shared: Some(shared) };
                shared.guard(|| work(&member));
                // Also after a panic: the others still use the closure.
                shared.wait(|| shared.running.0.load(SeqCst) == 0);
            }
            if shared.poisoned.load(SeqCst) { Err(self.poisoned()) } else { Ok(()) }
        }

        fn poisoned(&self) -> Error {
            let reason = self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Error::Poisoned { reason }
        }
    }

    impl Drop for Threads {
        fn drop(&mut self) {
            self.shared.quit.store(true, SeqCst);
            self.shared.notify();
            for handle in self.handles.drain(..) {
                // Members catch their panics, so joining cannot fail.
                let _ = handle.join();
            }
        }
    }

    impl Shared {
        /// What a thread does all its life.
        fn serve(&self, id: usize) {
            let mut seen = 0;
            loop {
                self.wait(|| self.epoch.0.load(SeqCst) != seen || self.quit.load(SeqCst));
                if self.quit.load(SeqCst) {
                    return;
                }
                seen = self.epoch.0.load(SeqCst);
                let member = Member { id, count: self.count.load(SeqCst), shared: Some(self) };
                // SAFETY: written before the epoch that was just read, and not again before `running` is 0.
                if let Some(job) = unsafe { *self.job.get() } {
                    // SAFETY: `run` keeps the closure alive until `running` is 0, which this thread counts down below.
                    self.guard(|| unsafe { (job.call)(job.data, &member) });
                }
                if self.running.0.fetch_sub(1, SeqCst) == 1 {
                    self.notify();
                }
            }
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
                self.poisoned.store(true, SeqCst);
                self.notify();
            }
        }

        pub(super) fn barrier(&self, count: usize, last: impl FnOnce()) {
            let opened = self.opened.0.load(SeqCst);
            if self.arrived.0.fetch_add(1, SeqCst) + 1 == count {
                last();
                self.arrived.0.store(0, SeqCst);
                self.opened.0.store(opened.wrapping_add(1), SeqCst);
                self.notify();
            } else {
                self.wait(|| self.opened.0.load(SeqCst) != opened || self.poisoned.load(SeqCst));
            }
            if self.poisoned.load(SeqCst) {
                resume_unwind(Box::new(Follower));
            }
        }

        /// Spins, then parks, until `ready`.
        fn wait(&self, ready: impl Fn() -> bool) {
            for _ in 0..self.spins {
                if ready() {
                    return;
                }
                core::hint::spin_loop();
            }
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            // Sequentially consistent with the store that makes `ready` true: either we see that store, or its author
            // sees us here and takes the lock, which we hold until we wait.
            self.parked.fetch_add(1, SeqCst);
            while !ready() {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.parked.fetch_sub(1, SeqCst);
        }

        /// To be called after any store that may make somebody's `ready` true.
        fn notify(&self) {
            if self.parked.load(SeqCst) > 0 {
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
