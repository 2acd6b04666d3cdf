//! Equal input gives equal bits: for any number of threads, for sessions side by side, and whatever the host has set its
//! floating-point unit to.

mod common;

use common::*;
use runtime_min::{Cx, Info, Level, Model, OpenOptions, Options, Program, Rgb8, SamplerOptions};
use std::hint::black_box;

/// The test program with logits that show how its arithmetic is done: each is a rounded quotient, mixed with a number too
/// small for a processor that flushes such ones to zero.
struct Fussy;

impl Program for Fussy {
    fn info() -> &'static Info {
        Fake::info()
    }
    const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];

    fn with_level(_: usize) -> Self {
        Self
    }

    fn vision(&self, cx: &Cx<'_>, side: usize) {
        Fake.vision(cx, side);
    }

    fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        Fake.prefill(cx, start, rows);
        for i in cx.part(Self::info().vocab) {
            let quotient = black_box(1.0 + (start + i) as f32) / black_box(3.0);
            let tiny = black_box(f32::from_bits(1 + i as u32)) * black_box(1.0);
            // SAFETY: inside of the slot, one member each, and nobody reads it before all are done.
            unsafe { *cx.slot(Self::info().logits).add(i) = f32::from_bits(quotient.to_bits() ^ tiny.to_bits()) };
        }
    }

    fn decode(&self, cx: &Cx<'_>, start: usize) {
        self.prefill(cx, start, 1);
    }

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        Fake.embed(cx, id, row);
    }
}

fn fussy() -> Model<Fussy> {
    Model::from_bytes("fussy", &fake_file(), &OpenOptions::default()).expect("intact")
}

/// Everything that a conversation shows, as bits.
fn talk(model: &Model<Fussy>, threads: usize) -> Vec<u32> {
    let sampler = SamplerOptions { temperature: 1.5, top_k: 200, top_p: 0.95, repetition_penalty: 1.1, seed: 3 };
    let options =
        Options { max_new_tokens: 20, ignore_eos: true, sampler, threads: Some(threads), ..Options::default() };
    let mut chat = model.session(options).expect("a session");
    let pixels: Vec<u8> = (0..17 * 11 * 3).map(|i| (i * 37) as u8).collect();
    let picture = Rgb8::new(17, 11, &pixels).expect("17 x 11");
    let input = chat.preprocess(&picture).expect("a picture");
    let mut bits: Vec<u32> = input.bytes().iter().map(|&byte| byte.into()).collect();
    let image = chat.encode(&input).expect("encodes");
    bits.extend(image.rows().iter().map(|float| float.to_bits()));
    for question in ["What is it?", "And now?"] {
        let mut answer = chat.ask(&[&image], question).expect("fits");
        while let Some(piece) = answer.next_piece() {
            piece.expect("runs");
        }
        bits.extend(answer.token_ids());
        bits.extend(answer.logits().expect("made").iter().map(|logit| logit.to_bits()));
    }
    bits
}

#[test]
fn for_any_number_of_threads() {
    let model = fussy();
    let expected = talk(&model, 1);
    watched(300, || {
        for threads in [2, 3, 4, 7, 8] {
            for _ in 0..20 {
                assert!(talk(&model, threads) == expected, "{threads} threads");
            }
        }
    });
}

#[test]
fn for_sessions_side_by_side() {
    let model = fussy();
    let expected = talk(&model, 1);
    watched(300, || {
        std::thread::scope(|scope| {
            for i in 0..8 {
                let (model, expected) = (&model, &expected);
                scope.spawn(move || {
                    for _ in 0..20 {
                        assert!(talk(model, 1 + i % 3) == *expected, "session {i}");
                    }
                });
            }
        });
    });
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[test]
fn for_any_setting_of_the_floating_point_unit() {
    use std::arch::asm;

    /// MXCSR without its sticky flags.
    fn setting() -> u32 {
        let mut all = 0u32;
        // SAFETY: stores the register to a place of its size.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut all) };
        all & !0x3f
    }

    /// Runs `work` on a thread of its own, whose register it sets: tests on other threads do not see it.
    fn with_setting<T: Send>(setting: u32, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: no reserved bit is set, and the thread does nothing of its own with floats.
                unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const setting) };
                work()
            });
            thread.join().expect("no panic")
        })
    }

    let model = fussy();
    let expected = talk(&model, 1);
    let plain = black_box(1.0f32) / black_box(3.0);
    let settings = [
        ("flush to zero, denormals are zero", 0x9fc0),
        ("round up", 0x5f80),
        ("round down", 0x3f80),
        ("round towards zero", 0x7f80),
        ("round up and flush to zero", 0xdfc0),
        ("trap divisions by zero, overflows and invalid operations", 0x1900),
        ("trap inexact results", 0x0f80),
    ];
    for (what, value) in settings {
        for threads in [1, 3] {
            let (found, after) = with_setting(value, || (talk(&model, threads), setting()));
            assert!(found == expected, "{what}, {threads} threads");
            assert_eq!(after, value, "{what}: the host's setting is back");
        }
    }
    // The settings do what they are for, so that the above is no empty promise.
    let down = with_setting(0x3f80, || black_box(1.0f32) / black_box(3.0));
    assert_ne!(down, plain);
    assert_eq!(with_setting(0x9fc0, || (black_box(f32::from_bits(9)) * black_box(1.0)).to_bits()), 0);
}
