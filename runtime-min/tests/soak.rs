//! Long use: memory stays flat over ten thousand answers, and over sessions that come and go.
//!
//! `cargo test --release -p runtime-min --test soak -- --ignored --nocapture`

mod common;

use common::*;
use runtime_min::{Image, Model, Options, Rgb8, SamplerOptions, Session};

/// Bytes of this process that are in memory; `None` where the system does not tell.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Runs `work` a `warm_up` of times, then `n` times; the growth of memory is at most `per_thousand` bytes per thousand.
fn flat(what: &str, warm_up: usize, n: usize, per_thousand: usize, mut work: impl FnMut(usize)) {
    (0..warm_up).for_each(&mut work);
    let Some(before) = resident() else {
        println!("skipped: {what}: this system does not tell a process's memory");
        return;
    };
    for i in 0..n {
        work(warm_up + i);
        if (i + 1) % (n / 5) == 0 {
            let now = resident().expect("told before");
            println!("{what}: {} times: {} bytes, {:+}", i + 1, now, now as isize - before as isize);
        }
    }
    let growth = resident().expect("told before").saturating_sub(before);
    assert!(growth <= n * per_thousand / 1000, "{what}: {growth} bytes more after {n} times");
}

fn options(threads: usize) -> Options {
    let sampler = SamplerOptions { temperature: 1.0, repetition_penalty: 1.1, ..SamplerOptions::default() };
    Options { max_new_tokens: 12, ignore_eos: true, sampler, threads: Some(threads), ..Options::default() }
}

/// An answer as users read them: whole, in part, cancelled; the conversation goes on until it is full.
fn generation(chat: &mut Session<'_, Fake>, images: &mut Vec<Image>, i: usize) {
    if i.is_multiple_of(7) {
        let pixels = vec![20 + (i % 200) as u8; 9 * 9 * 3];
        images.clear();
        images.push(chat.image(&Rgb8::new(9, 9, &pixels).expect("9 x 9")).expect("encodes"));
    }
    let cancel = chat.cancel_token();
    let shown: Vec<&Image> = images.iter().filter(|_| i.is_multiple_of(3)).collect();
    match chat.ask(&shown, &"why? e\u{301} ".repeat(1 + i % 3)) {
        Ok(mut answer) => match i % 4 {
            0 => drop(answer.next()),
            1 => {
                answer.next();
                cancel.cancel();
                assert!(answer.text().is_ok());
            }
            _ => assert!(answer.text().is_ok()),
        },
        Err(error) => {
            assert_eq!(error.code(), "prompt-too-long");
            chat.reset();
        }
    }
}

/// One test in one function: tests run side by side would count each other's memory.
#[test]
#[ignore = "takes a minute"]
fn memory_is_flat() {
    let model = model();
    let mut chat = model.session(options(2)).expect("a session");
    let mut images = Vec::new();
    flat("answers", 2_000, 10_000, 1024, |i| generation(&mut chat, &mut images, i));
    flat("sessions", 500, 2_000, 4096, |i| {
        let mut chat = model.session(options(1 + i % 3)).expect("a session");
        generation(&mut chat, &mut images, i);
    });
    let file = fake_file();
    flat("models", 500, 2_000, 4096, |i| {
        let model = Model::<Fake>::from_bytes("fake", &file, &Default::default()).expect("intact");
        generation(&mut model.session(options(1)).expect("a session"), &mut images, i);
    });
}
