//! The thread team: every member runs, barriers hold, and a panic neither hangs nor is lost.

mod common;

use common::{watched, without_noise};
use runtime_min::Error;
use runtime_min::team::Team;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[test]
fn every_member_runs_every_time() {
    watched(300, || {
        let sizes = if cfg!(miri) { vec![1, 2, 3] } else { (1..=64).collect() };
        for n in sizes {
            let mut team = Team::new(n).expect("in range");
            let n = team.count();
            for round in 0..3 {
                let runs: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                team.run(&|member| {
                    assert_eq!(member.count(), n);
                    runs[member.id()].fetch_add(1, Relaxed);
                })
                .expect("no panic");
                assert!(runs.iter().all(|runs| runs.load(Relaxed) == 1), "{n} members, round {round}");
            }
        }
    });
}

/// Between two barriers everybody sees all that was written before the first.
#[test]
fn barriers_order_plain_writes() {
    watched(300, || {
        let (sizes, rounds) = if cfg!(miri) { (vec![1, 3], 5) } else { (vec![1, 2, 3, 7, 16, 64], 100) };
        for n in sizes {
            let mut team = Team::new(n).expect("in range");
            let n = team.count();
            let mut cells = vec![0u64; n];
            let at = cells.as_mut_ptr() as usize;
            team.run(&|member| {
                for round in 1..=rounds {
                    // SAFETY: each member writes its own cell before a barrier, and all are only read after it.
                    unsafe { (at as *mut u64).add(member.id()).write(round) };
                    member.barrier();
                    for id in 0..n {
                        // SAFETY: as above; the next write comes after the second barrier.
                        assert_eq!(unsafe { (at as *const u64).add(id).read() }, round);
                    }
                    member.barrier();
                }
            })
            .expect("no panic");
            assert!(cells.iter().all(|&cell| cell == rounds));
        }
    });
}

/// Long enough between calls for members to park.
#[test]
fn parked_members_wake() {
    watched(120, || {
        let mut team = Team::new(4).expect("in range");
        let runs = AtomicUsize::new(0);
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            team.run(&|member| {
                if member.id() == 2 {
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
                member.barrier();
                runs.fetch_add(1, Relaxed);
            })
            .expect("no panic");
        }
        assert_eq!(runs.load(Relaxed), 10 * team.count());
    });
}

/// Each closure by as many members as it asks for, in any order, with and without time to park.
#[test]
fn fewer_members_run_when_fewer_are_asked_for() {
    watched(300, || {
        for n in 1..=7 {
            let mut team = Team::new(n).expect("in range");
            let n = team.count();
            for round in 0..if cfg!(miri) { 9 } else { 600 } {
                let asked = round * 5 % 9;
                let count = asked.clamp(1, n);
                let runs: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                team.run_on(asked, &|member| {
                    assert_eq!((member.count(), member.id() < count), (count, true));
                    runs[member.id()].fetch_add(1, Relaxed);
                    member.barrier();
                    assert_eq!(runs.iter().map(|runs| runs.load(Relaxed)).sum::<usize>(), count);
                })
                .expect("no panic");
                if round % 100 == 99 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        }
    });
}

#[test]
fn a_panic_anywhere_comes_back_as_an_error() {
    without_noise();
    watched(300, || {
        for n in [1, 2, 5, 16] {
            for victim in [0, n / 2, n - 1] {
                for barriers_before in [0, 1, 3] {
                    let mut team = Team::new(n).expect("in range");
                    let after = AtomicUsize::new(0);
                    let error = team.run(&|member| {
                        for _ in 0..barriers_before {
                            member.barrier();
                        }
                        if member.id() == victim {
                            panic!("member {} fell", member.id());
                        }
                        member.barrier();
                        after.fetch_add(1, Relaxed);
                    });
                    let reason = format!("member {victim} fell");
                    assert_eq!(error, Err(Error::Poisoned { reason: reason.clone() }));
                    assert_eq!(after.load(Relaxed), 0, "nobody passes a barrier that a member never reached");
                    assert_eq!(team.run(&|_| ()), Err(Error::Poisoned { reason }), "poisoned for good");
                }
            }
        }
    });
}

#[test]
fn sizes_out_of_range_are_refused() {
    for n in [0, runtime_min::team::MAX_MEMBERS + 1, usize::MAX] {
        assert!(matches!(Team::new(n), Err(Error::Argument { name: "threads", .. })));
    }
}
