//! The sampler's settings against their definitions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use runtime_min::SamplerOptions;
use runtime_min::sampler::{Sampler, argmax};

/// Counts the allocations of each thread.
struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn draw() -> SamplerOptions {
    SamplerOptions { temperature: 1.0, ..SamplerOptions::default() }
}

fn sampler(options: SamplerOptions, vocab: usize) -> Sampler {
    Sampler::new(options, vocab).expect("room")
}

/// How often each id is chosen in `n` choices.
fn counts(options: &SamplerOptions, logits: &[f32], n: usize) -> Vec<usize> {
    let mut sampler = sampler(options.clone(), logits.len());
    let mut counts = vec![0; logits.len()];
    for _ in 0..n {
        counts[sampler.pick(&mut logits.to_vec(), &[]) as usize] += 1;
    }
    counts
}

fn spread(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % n) as f32 / n as f32 * 20.0 - 10.0).collect()
}

#[test]
fn greedy_takes_the_first_largest() {
    let nan = f32::NAN;
    for (logits, expected) in [
        (vec![], 0),
        (vec![1.0, 3.0, 3.0], 1),
        (vec![nan, -5.0, nan, -1.0, -1.0], 3),
        (vec![nan, nan], 0),
        (vec![f32::NEG_INFINITY, f32::NEG_INFINITY], 0),
        (vec![nan, f32::NEG_INFINITY], 1),
        (vec![0.0, f32::INFINITY, nan, f32::INFINITY], 1),
    ] {
        assert_eq!(argmax(&logits), expected, "{logits:?}");
        let greedy = sampler(SamplerOptions::default(), 9).pick(&mut logits.clone(), &[]);
        assert_eq!(greedy, expected, "{logits:?}");
        if !logits.iter().any(|logit| logit.is_finite()) || logits.contains(&f32::INFINITY) {
            assert_eq!(sampler(draw(), 9).pick(&mut logits.clone(), &[]), expected, "{logits:?}");
        }
    }
    assert!(sampler(SamplerOptions::default(), 9).is_greedy());
    assert!(!sampler(draw(), 9).is_greedy());
}

#[test]
fn draws_follow_the_softmax() {
    let logits = [0.0, 1.0, 2.0, f32::NAN, -1.0, f32::NEG_INFINITY];
    let n = 50_000;
    for temperature in [0.5, 1.0, 3.0] {
        let counts = counts(&SamplerOptions { temperature, ..draw() }, &logits, n);
        let weight = |logit: f32| if logit.is_nan() { 0.0 } else { f64::from(logit / temperature).exp() };
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
        for (count, logit) in counts.iter().zip(logits) {
            let (found, expected) = (*count as f64 / n as f64, weight(logit) / total);
            assert!((found - expected).abs() < 0.01, "{logit} at {temperature}: {found} for {expected}");
        }
    }
}

#[test]
fn top_k_keeps_what_equals_the_last() {
    let logits = [1.0, 4.0, 3.0, 3.0, 0.0, 3.0];
    let kept = |top_k| -> Vec<bool> {
        counts(&SamplerOptions { top_k, ..draw() }, &logits, 5_000).iter().map(|n| *n > 0).collect()
    };
    assert_eq!(kept(1), [false, true, false, false, false, false]);
    assert_eq!(kept(2), [false, true, true, true, false, true]);
    assert_eq!(kept(5), [true, true, true, true, false, true]);
    for all in [0, 6, usize::MAX] {
        assert_eq!(kept(all), [true; 6]);
    }
}

#[test]
fn top_p_keeps_the_token_that_reaches_it() {
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let logits = [2f32, 1.0, 0.0, 0.0].map(|power| power * std::f32::consts::LN_2);
    let kept = |top_p| -> Vec<bool> {
        counts(&SamplerOptions { top_p, ..draw() }, &logits, 5_000).iter().map(|n| *n > 0).collect()
    };
    assert_eq!(kept(1e-6), [true, false, false, false]);
    assert_eq!(kept(0.49), [true, false, false, false]);
    assert_eq!(kept(0.51), [true, true, false, false]);
    assert_eq!(kept(0.76), [true, true, true, false]);
    assert_eq!(kept(0.88), [true; 4]);
    assert_eq!(kept(1.0), [true; 4]);
}

/// Sorting only as far as needed keeps the same tokens as sorting all.
#[test]
fn top_p_of_many_tokens_equals_its_definition() {
    let logits = spread(5000);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    for top_p in [0.1f32, 0.3, 0.9] {
        let mut before = 0.0;
        let kept: Vec<usize> = order
            .iter()
            .copied()
            .take_while(|id| {
                let keep = before < f64::from(top_p);
                before += f64::from(logits[*id]).exp() / total;
                keep
            })
            .collect();
        let found = counts(&SamplerOptions { top_p, ..draw() }, &logits, 2_000);
        assert!(found.iter().enumerate().all(|(id, n)| *n == 0 || kept.contains(&id)), "{top_p}");
        assert!(found.iter().filter(|n| **n > 0).count() * 3 > kept.len().min(300), "{top_p}");
    }
}

#[test]
fn the_penalty_counts_a_token_once() {
    let options = SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() };
    let mut sampler = sampler(options, 4);
    assert!(!sampler.is_greedy());
    let mut logits = [4.0, 3.0, -1.0, 1.5];
    assert_eq!(sampler.pick(&mut logits, &[0, 2, 0, 0, 99]), 1);
    assert_eq!(logits, [2.0, 3.0, -2.0, 1.5]);
    assert_eq!(sampler.pick(&mut logits, &[1, 1]), 0);
    assert_eq!(logits, [2.0, 1.5, -2.0, 1.5]);
    // Ids and logits beyond the vocabulary do not exist.
    assert_eq!(sampler.pick(&mut [0.0, 1.0, 0.0, 0.0, 9.0], &[4]), 1);
}

#[test]
fn a_seed_always_gives_the_same_tokens() {
    let logits = spread(1000);
    let options = SamplerOptions { temperature: 2.0, top_k: 200, top_p: 0.9, repetition_penalty: 1.1, seed: 42 };
    let tokens = |seed| -> Vec<u32> {
        let mut sampler = sampler(SamplerOptions { seed, ..options.clone() }, 1000);
        let mut history = Vec::new();
        for _ in 0..12 {
            history.push(sampler.pick(&mut logits.clone(), &history));
        }
        sampler.restart();
        assert_eq!(sampler.pick(&mut logits.clone(), &[]), history[0]);
        history
    };
    assert_eq!(tokens(42), [927, 494, 346, 914, 963, 915, 741, 100, 556, 346, 420, 976]);
    assert_ne!(tokens(42), tokens(43));
}

#[test]
fn choices_do_not_allocate() {
    let options = SamplerOptions { temperature: 1.0, top_k: 4000, top_p: 0.95, repetition_penalty: 1.1, seed: 1 };
    let (logits, mut working) = (spread(5000), spread(5000));
    let mut sampler = sampler(options, 5000);
    let mut pick = || {
        working.copy_from_slice(&logits);
        sampler.pick(&mut working, &[1, 2, 3])
    };
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        pick();
    }
    assert_eq!(ALLOCATIONS.get(), before);
}

#[test]
fn absurd_settings_are_refused() {
    let check = |options: SamplerOptions, part: &str| {
        let error = options.check().expect_err("a refusal");
        assert!(error.to_string().contains(part) && error.code() == "argument", "{error}");
        // And none of them leads to a panic.
        sampler(options, 2).pick(&mut [1.0, 2.0], &[0]);
    };
    for bad in [f32::NAN, -0.1, f32::INFINITY, 101.0] {
        check(SamplerOptions { temperature: bad, ..draw() }, "temperature");
        check(SamplerOptions { top_p: bad, ..draw() }, "top-p");
        check(SamplerOptions { repetition_penalty: bad, ..draw() }, "repetition-penalty");
    }
    check(SamplerOptions { top_p: 0.0, ..draw() }, "0 is outside of what is allowed: above 0");
    check(SamplerOptions { repetition_penalty: 0.0, ..draw() }, "repetition-penalty");
    assert_eq!(draw().check(), Ok(()));
    assert_eq!(SamplerOptions::default().check(), Ok(()));
    // The smallest temperature there is still draws without overflow.
    let mut sampler = sampler(SamplerOptions { temperature: f32::from_bits(1), ..draw() }, 3);
    assert_eq!(sampler.pick(&mut [1.0, 2.0, f32::MIN], &[]), 1);
}
