//! The thread team under a model checker, which tries every order in which its threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p runtime-min --test team_loom --release
//! ```
//!
//! The team is compiled here a second time, against atomics, locks and threads of loom in place of `src/sync.rs`. Loom
//! knows what each ordering allows: a weaker one that would matter shows as a dead-lock or as a race on a cell.

#![allow(unexpected_cfgs, reason = "the flag that chooses the model checker")]
#![cfg(loom)]
#![allow(dead_code, missing_docs, reason = "parts of the runtime, whose other parts are not here")]

extern crate alloc;

#[path = "../src/error.rs"]
mod error;
#[path = "../src/room.rs"]
mod room;
#[path = "../src/team.rs"]
mod team;

mod map {
    pub(crate) fn available() -> Option<u64> {
        None
    }
}

mod processors {
    pub(crate) fn available() -> usize {
        2
    }
}

/// What `src/sync.rs` gives, of loom's types.
mod sync {
    use core::ptr::NonNull;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Condvar, Mutex};

    /// One look before parking: the model is about the order of events, not their number.
    pub(crate) const SPINS: usize = 1;
    pub(crate) const SPINS_CROWDED: usize = 0;

    #[derive(Debug)]
    pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            self.0.with(f)
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }

    pub(crate) trait Body: Sync {
        fn live(&self);
    }

    #[derive(Debug)]
    pub(crate) struct Thread(loom::thread::JoinHandle<()>);

    struct Sent<B>(NonNull<B>);

    // SAFETY: what is sent is a shared reference to a `Sync` value.
    unsafe impl<B: Body> Send for Sent<B> {}

    pub(crate) unsafe fn spawn<B: Body + 'static>(body: NonNull<B>) -> Option<Thread> {
        let body = Sent(body);
        Some(Thread(loom::thread::spawn(move || {
            let body = body;
            // SAFETY: the caller keeps it valid.
            unsafe { body.0.as_ref() }.live();
        })))
    }

    impl Thread {
        pub(crate) fn join(self) {
            self.0.join().expect("bodies do not unwind");
        }
    }
}

use error::Error;
use loom::cell::UnsafeCell;
use team::Team;

/// One number for each member, written and read without synchronization of its own.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: loom ends the test when two threads use a cell at once.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(n: usize) -> Self {
        Self((0..n).map(|_| UnsafeCell::new(0)).collect())
    }

    fn set(&self, id: usize, value: usize) {
        // SAFETY: as above.
        self.0[id].with_mut(|cell| unsafe { *cell = value });
    }

    fn all_are(&self, value: usize) -> bool {
        // SAFETY: as above.
        self.0.iter().all(|cell| cell.with(|cell| unsafe { *cell } == value))
    }
}

/// Tries all orders with at most `switches` switches from a thread that could go on.
fn explore(switches: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.max_branches = 100_000;
    model.check(test);
}

#[test]
fn what_is_written_before_a_barrier_is_read_after_it() {
    for (n, switches) in [(2, 3), (3, 2)] {
        explore(switches, move || {
            let mut team = Team::new(n).expect("in range");
            let cells = Cells::new(n);
            team.run(&|member| {
                for round in 1..=2 {
                    cells.set(member.id(), round);
                    member.barrier();
                    assert!(cells.all_are(round));
                    member.barrier();
                }
            })
            .expect("no panic");
        });
    }
}

#[test]
fn runs_follow_one_another_and_are_seen_by_the_caller() {
    for (n, switches) in [(2, 3), (3, 2)] {
        explore(switches, move || {
            let mut team = Team::new(n).expect("in range");
            for round in 1..=2 {
                // A closure that is gone when `run` returns.
                let cells = Cells::new(n);
                team.run(&|member| cells.set(member.id(), round)).expect("no panic");
                assert!(cells.all_are(round));
            }
        });
    }
}

/// Who has no part in a closure looks whenever it likes: after a later closure has begun, in which it has one, too.
#[test]
fn fewer_members_run_when_fewer_are_asked_for() {
    explore(2, || {
        let mut team = Team::new(3).expect("in range");
        for (round, count) in [2, 3, 1].into_iter().enumerate() {
            let cells = Cells::new(count);
            team.run_on(count, &|member| {
                assert_eq!(member.count(), count);
                cells.set(member.id(), round);
                member.barrier();
                assert!(cells.all_are(round));
            })
            .expect("no panic");
            assert!(cells.all_are(round));
        }
    });
}

#[test]
fn the_last_to_arrive_decides_for_all() {
    explore(3, || {
        let mut team = Team::new(2).expect("in range");
        let (cells, decision) = (Cells::new(2), Cells::new(1));
        team.run(&|member| {
            cells.set(member.id(), 7);
            member.barrier_with(|| {
                assert!(cells.all_are(7), "everybody is there");
                decision.set(0, 1);
            });
            assert!(decision.all_are(1));
        })
        .expect("no panic");
    });
}

#[test]
fn a_panic_before_a_barrier_releases_those_who_wait_there() {
    // Loom's threads may unwind; what the hook would print for each order is not wanted.
    std::panic::set_hook(Box::new(|_| ()));
    for (n, victim, switches) in [(2, 0, 3), (2, 1, 3), (3, 1, 2)] {
        explore(switches, move || {
            let mut team = Team::new(n).expect("in range");
            let result = team.run(&|member| {
                if member.id() == victim {
                    std::panic::panic_any("fell");
                }
                member.barrier();
                unreachable!("the barrier never opens");
            });
            let poisoned = Err(Error::Poisoned { reason: "fell".into() });
            assert_eq!(result, poisoned);
            assert_eq!(team.run(&|_| ()), poisoned);
        });
    }
}

#[test]
fn an_unused_team_ends() {
    explore(4, || drop(Team::new(3).expect("in range")));
}
