//! What asking and opening cost: allocations per token, and milliseconds to open a file of gigabytes.

mod common;

use common::*;
use runtime_min::{Model, OpenOptions, Options, SamplerOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Counts what the threads of this process allocate.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One test in one function: tests run side by side would count each other's allocations.
#[test]
fn a_token_allocates_nothing() {
    let model = model();
    let drawn = SamplerOptions { temperature: 0.7, top_k: 9, top_p: 0.9, repetition_penalty: 1.1, seed: 1 };
    for sampler in [SamplerOptions::default(), drawn] {
        for threads in [1, 3] {
            let threads = Some(threads);
            let options = Options {
                max_new_tokens: 100,
                ignore_eos: true,
                sampler: sampler.clone(),
                threads,
                ..Options::default()
            };
            let mut chat = model.session(options).expect("a session");
            let mut answer = chat.ask(&[], "count").expect("fits");
            let (before, mut pieces) = (ALLOCATIONS.load(Relaxed), 0);
            while let Some(piece) = answer.next_piece() {
                piece.expect("runs");
                pieces += 1;
            }
            assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "lent pieces");
            assert!(pieces > 50);
            drop(answer);
            chat.reset();
            let answer = chat.ask(&[], "count").expect("fits");
            let (before, mut pieces) = (ALLOCATIONS.load(Relaxed), 0);
            for piece in answer {
                piece.expect("runs");
                pieces += 1;
            }
            assert_eq!(ALLOCATIONS.load(Relaxed) - before, pieces, "owned pieces");
        }
    }
}

/// `cargo test --release -p runtime-min --test cost -- --ignored --nocapture`; needs 2.5 GB of disk.
#[test]
#[ignore = "writes 2.5 GB"]
fn gigabytes_open_in_milliseconds() {
    let weights: Vec<u8> = vec![1; 2_500_000_000];
    let file = TempFile::new(
        "large.tvlm",
        &weight_file(DIGEST, &[("tokenizer", &tokenizer_section(true)), ("weights", &weights)]),
    );
    drop(weights);
    for _ in 0..3 {
        let begin = Instant::now();
        let model = Model::<Fake>::open_with(&file.0, &OpenOptions::default()).expect("intact");
        let took = begin.elapsed();
        assert_eq!(model.weights().private_bytes(), 0, "mapped");
        println!("opened {} bytes in {took:?}", model.weights().len());
        assert!(took.as_millis() < 50);
    }
}
