//! What a session is told while it works, from other threads: to wait, to go on, to stop, how hot the device is. Whatever it is
//! told, what it says stays the same.

mod common;

use common::*;
use runtime_min::{Affinity, Bound, Error, Level, Model, OpenOptions, Options, Pressure, Program, Rgb8, StopReason};
use runtime_min::{Cx, Info};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The test program, slow enough to be met at work; counts its decoder's calls and the most members of one.
struct Slow;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static MEMBERS: AtomicUsize = AtomicUsize::new(0);

impl Program for Slow {
    fn info() -> &'static Info {
        &FAKE
    }
    const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];

    fn with_level(_: usize) -> Self {
        Self
    }

    fn vision(&self, cx: &Cx<'_>, side: usize) {
        std::thread::sleep(Duration::from_millis(1));
        Fake.vision(cx, side);
    }

    fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        MEMBERS.fetch_max(cx.count(), SeqCst);
        if cx.id() == 0 {
            std::thread::sleep(Duration::from_micros(200));
            CALLS.fetch_add(1, SeqCst);
        }
        Fake.prefill(cx, start, rows);
    }

    fn decode(&self, cx: &Cx<'_>, start: usize) {
        self.prefill(cx, start, 1);
    }

    fn verify(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        Fake.verify(cx, start, rows);
    }

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        Fake.embed(cx, id, row);
    }
}

/// Tests that count share what they count with.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slow() -> Model<Slow> {
    Model::from_bytes("slow", &fake_file(), &OpenOptions::default()).expect("intact")
}

fn options(threads: usize) -> Options {
    Options { threads: Some(threads), max_new_tokens: 60, ignore_eos: true, ..Options::default() }
}

/// Tokens of an answer to "What?".
fn tokens(threads: usize) -> Vec<u32> {
    let model = slow();
    let mut chat = model.session(options(threads)).expect("a session");
    let mut answer = chat.ask(&[], "What?").expect("fits");
    answer.text().expect("runs");
    answer.token_ids().to_vec()
}

/// Nanoseconds for which the threads of this process ran.
fn busy() -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let one = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Some(tasks.filter_map(|task| one(task.ok()?.path())).sum())
}

/// Waits until `what` holds, for ten seconds at most.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: never");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Ends a pause, also where a test fails, which would otherwise wait for a thread that waits.
struct Resumes<'a>(&'a runtime_min::Control);

impl Drop for Resumes<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[test]
fn a_paused_answer_waits_without_work_and_goes_on_as_it_would_have() {
    let _alone = alone();
    let expected = tokens(1);
    for threads in 1..=7 {
        let model = slow();
        let mut chat = model.session(options(threads)).expect("a session");
        let control = chat.control();
        watched(60, || {
            let made = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let _end = Resumes(&control);
                let work = scope.spawn(|| {
                    let mut answer = chat.ask(&[], "What?").expect("fits");
                    while let Some(piece) = answer.next_piece() {
                        piece.expect("runs");
                        made.fetch_add(1, SeqCst);
                        // Slow enough for the other thread to come in time.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    answer.token_ids().to_vec()
                });
                until("tokens", || made.load(SeqCst) > 5);
                control.pause();
                assert!(control.is_paused());
                // The step at work ends and the members park, which takes a while on a busy machine; what does not wait would
                // never be quiet before its end.
                let quiet = (0..50).any(|_| {
                    let (calls, pieces, begin) = (CALLS.load(SeqCst), made.load(SeqCst), busy());
                    std::thread::sleep(Duration::from_millis(60));
                    let used = begin.zip(busy()).map(|(begin, end)| Duration::from_nanos(end.saturating_sub(begin)));
                    (CALLS.load(SeqCst), made.load(SeqCst)) == (calls, pieces)
                        && used.is_none_or(|used| used < Duration::from_millis(12))
                });
                assert!(quiet && !work.is_finished(), "{threads} threads work");
                if busy().is_none() {
                    println!("skipped: whether threads sleep: /proc/self/task/*/schedstat is not here");
                }
                control.resume();
                assert_eq!(work.join().expect("no panic"), expected);
            });
        });
    }
}

#[test]
fn what_is_paused_can_be_cancelled() {
    let _alone = alone();
    let model = slow();
    let bytes = [9; SIDE * SIDE * 3];
    let picture = Rgb8::new(SIDE, SIDE, &bytes).expect("square");
    for threads in [1, 2, 3, 7] {
        let mut chat = model.session(options(threads)).expect("a session");
        let control = chat.control();
        watched(60, || {
            // Work that begins while it is paused waits: a picture, a question.
            control.pause();
            for question in [false, true] {
                std::thread::scope(|scope| {
                    let chat = &mut chat;
                    let work = scope.spawn(move || match question {
                        false => chat.image(&picture).map(|_| None),
                        true => chat.ask(&[], "What?").map(|answer| answer.stop_reason()),
                    });
                    std::thread::sleep(Duration::from_millis(20));
                    assert!(!work.is_finished());
                    // What comes before it begins is not meant for it.
                    until("cancelled", || {
                        control.cancel();
                        work.is_finished()
                    });
                    let ended = work.join().expect("no panic");
                    let expected = if question { Ok(Some(StopReason::Cancelled)) } else { Err(Error::Cancelled) };
                    assert_eq!(ended, expected);
                });
            }
            control.resume();
            // An answer in its middle, paused by the thread that reads it.
            let mut answer = chat.ask(&[], "What?").expect("fits");
            answer.next_piece().expect("a piece").expect("runs");
            control.pause();
            std::thread::scope(|scope| {
                let work = scope.spawn(|| {
                    answer.text().expect("runs");
                    answer.stop_reason()
                });
                std::thread::sleep(Duration::from_millis(20));
                control.cancel();
                assert_eq!(work.join().expect("no panic"), Some(StopReason::Cancelled));
            });
            control.resume();
            chat.image(&picture).expect("as ever");
        });
    }
}

#[test]
fn pressure_takes_threads_away_and_changes_nothing_else() {
    let _alone = alone();
    let expected = tokens(1);
    for threads in 1..=7 {
        let model = slow();
        let mut chat = model.session(options(threads)).expect("a session");
        let control = chat.control();
        for pressure in Pressure::ALL {
            control.set_pressure(pressure);
            assert_eq!((control.pressure(), chat.active_threads()), (pressure, pressure.threads(threads)));
            MEMBERS.store(0, SeqCst);
            chat.forget();
            let mut answer = chat.ask(&[], "What?").expect("fits");
            answer.text().expect("runs");
            assert_eq!(answer.token_ids(), expected, "{threads} threads, {pressure:?}");
            let (rested, decode) = (answer.timings().rested, answer.timings().decode);
            assert_eq!(MEMBERS.load(SeqCst), pressure.threads(threads));
            if pressure == Pressure::Critical {
                assert!(rested > Duration::ZERO && rested >= decode / 2, "{rested:?} of rest, {decode:?} of work");
            } else {
                assert_eq!(rested, Duration::ZERO);
            }
        }
        // Within one answer, too.
        let mut answer = {
            chat.forget();
            chat.ask(&[], "What?").expect("fits")
        };
        for pressure in Pressure::ALL.into_iter().cycle() {
            control.set_pressure(pressure);
            if answer.next_piece().is_none() {
                break;
            }
        }
        assert_eq!(answer.token_ids(), expected, "{threads} threads");
    }
}

#[test]
fn pictures_get_smaller_under_pressure() {
    let model = model();
    let mut chat = model.session(options(2)).expect("a session");
    let bytes = [9; 12 * 12 * 3];
    let picture = Rgb8::new(12, 12, &bytes).expect("square");
    for (pressure, side, tokens) in [
        (Pressure::Nominal, SIDE, TOKENS),
        (Pressure::Fair, SIDE, TOKENS),
        (Pressure::Serious, SMALL_SIDE, SMALL_TOKENS),
        (Pressure::Critical, SMALL_SIDE, SMALL_TOKENS),
        (Pressure::Nominal, SIDE, TOKENS),
    ] {
        chat.control().set_pressure(pressure);
        assert_eq!(chat.side(), side);
        assert_eq!(chat.image(&picture).expect("encodes").tokens(), tokens, "{pressure:?}");
        // Who asks for a side gets it.
        let pixels = chat.preprocess_at(&picture, SIDE).expect("a side");
        assert_eq!(chat.encode(&pixels).expect("encodes").tokens(), TOKENS);
    }
}

/// Everything at once, from two threads: what ends by itself is right, and what was cancelled is the beginning of it.
#[test]
fn orders_from_everywhere() {
    let _alone = alone();
    let expected = tokens(1);
    for threads in [1, 2, 3, 5, 7] {
        let model = slow();
        let mut chat = model.session(options(threads)).expect("a session");
        let (control, over) = (chat.control(), AtomicBool::new(false));
        let ends = watched(100, || {
            std::thread::scope(|scope| {
                for orders in 0..2u64 {
                    let (control, over) = (control.clone(), &over);
                    scope.spawn(move || {
                        let mut n = 7 * orders + 1;
                        while !over.load(SeqCst) {
                            n = (n * 1_103_515_245 + 12_345) % 0x8000_0000;
                            match (n >> 16) % 9 {
                                0 | 1 => control.pause(),
                                2..=4 => control.resume(),
                                5 if (n >> 20) % 8 == 0 => control.cancel(),
                                other => control.set_pressure(Pressure::ALL[other as usize % 4]),
                            }
                            std::thread::sleep(Duration::from_micros(n >> 24));
                        }
                        control.resume();
                    });
                }
                let mut ends = [0; 2];
                for _ in 0..12 {
                    chat.forget();
                    let mut answer = chat.ask(&[], "What?").expect("fits");
                    answer.text().expect("runs");
                    let cancelled = answer.stop_reason() == Some(StopReason::Cancelled);
                    let made = answer.token_ids();
                    assert_eq!(made, &expected[..made.len()], "{threads} threads");
                    assert_eq!(made.len() < expected.len(), cancelled);
                    ends[usize::from(cancelled)] += 1;
                }
                over.store(true, SeqCst);
                ends
            })
        });
        println!("{threads} threads: {} answers ended, {} were cancelled", ends[0], ends[1]);
    }
}

#[test]
fn bound_threads_say_the_same_and_leave_the_caller_where_it_was() {
    let (model, allowed) = (model(), std::thread::available_parallelism().expect("known").get());
    for threads in [None, Some(1), Some(3)] {
        let ask = |affinity| {
            let options = Options { threads, affinity, max_new_tokens: 20, ignore_eos: true, ..Options::default() };
            let mut chat = model.session(options).expect("a session");
            let mut answer = chat.ask(&[], "Where?").expect("fits");
            answer.text().expect("runs");
            (answer.token_ids().to_vec(), chat.bound())
        };
        let (free, bound) = ask(Affinity::Free);
        assert_eq!(bound, Bound::Free);
        let (fast, bound) = ask(Affinity::Performance);
        println!("{threads:?} threads: {bound:?}");
        assert_eq!(fast, free);
        assert_ne!(bound, Bound::Free, "what came of it is told");
        if let Bound::Processors(n) = bound {
            assert!((1..=allowed).contains(&n));
        }
    }
    assert_eq!(std::thread::available_parallelism().expect("known").get(), allowed);
}
