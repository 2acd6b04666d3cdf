//! Without memory there is a typed error, never an abort: every single allocation from a file to an answer is refused in
//! turn, and then every one from some point on.

mod common;

use common::*;
use runtime_min::{Error, Image, Model, OpenOptions, Options, Residence, Rgb8, SamplerOptions, Session};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Counts the allocations of this process, and refuses some.
struct Refusing;

static ASKED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// The first one to refuse.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Whether those after it are refused as well.
static LASTING: AtomicBool = AtomicBool::new(false);

// SAFETY: passes everything on to the system's allocator, or answers that there is no memory.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (n, first) = (ASKED.fetch_add(1, SeqCst), FIRST.load(SeqCst));
        if n == first || (n > first && LASTING.load(SeqCst)) {
            REFUSED.fetch_add(1, SeqCst);
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static REFUSING: Refusing = Refusing;

/// Runs `work` with allocation `first` refused; the result, and how many were refused.
fn refusing<T>(first: usize, lasting: bool, work: impl FnOnce() -> T) -> (T, usize) {
    LASTING.store(lasting, SeqCst);
    REFUSED.store(0, SeqCst);
    ASKED.store(0, SeqCst);
    FIRST.store(first, SeqCst);
    let result = work();
    FIRST.store(usize::MAX, SeqCst);
    (result, REFUSED.load(SeqCst))
}

/// Refuses each allocation of `work` in turn. It must give `expected`, or say that there is no memory.
fn check(what: &str, expected: &Result<u64, &str>, work: impl Fn() -> Result<u64, Error>) {
    for lasting in [false, true] {
        let mut errors = 0;
        for first in 0.. {
            // An abort ends the process with this as its last words.
            println!("{what}: allocation {first} refused, and those after it: {lasting}");
            let (result, refused) = refusing(first, lasting, &work);
            let result = result.as_ref().map(|&sum| sum).map_err(Error::code);
            if refused == 0 {
                assert_eq!(&result, expected, "{what}, nothing refused");
                println!("{what}: {first} allocations, {errors} errors");
                assert!(first > 0, "{what}: the allocator was not asked");
                break;
            }
            errors += usize::from(result == Err("out-of-memory"));
            assert!(result == Err("out-of-memory") || &result == expected, "{what}, {first}: {result:?}");
        }
    }
}

/// Questions with all that costs memory: long words, marks to be put in order, two turns, pictures.
fn talk(model: &Model<Fake>, picture: &Rgb8<'_>) -> Result<u64, Error> {
    let sampler = SamplerOptions { temperature: 0.5, repetition_penalty: 1.1, ..SamplerOptions::default() };
    let options = Options { max_new_tokens: 9, ignore_eos: true, sampler, threads: Some(3), ..Options::default() };
    let mut chat = model.session(options)?;
    let image = chat.image(picture)?;
    let mut sum =
        ask(&mut chat, &[&image], "a\u{323}\u{301}\u{327} Donaudampfschifffahrtsgesellschaft \u{3b1}\u{345}\u{300}")?;
    sum ^= ask(&mut chat, &[], "and now?")?.rotate_left(1);
    Ok(sum)
}

/// A number made of all that was answered.
fn ask(chat: &mut Session<'_, Fake>, images: &[&Image], text: &str) -> Result<u64, Error> {
    let mut answer = chat.ask(images, text)?;
    let mut sum = 7u64;
    let mut add = |byte: u64| sum = (sum ^ byte).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Both ways to read an answer.
    if let Some(piece) = answer.next_piece() {
        piece?.bytes().for_each(|byte| add(byte.into()));
    }
    if let Some(piece) = answer.next() {
        piece?.bytes().for_each(|byte| add(byte.into()));
    }
    answer.text()?.bytes().for_each(|byte| add(byte.into()));
    answer.token_ids().iter().for_each(|&id| add(id.into()));
    Ok(sum)
}

/// One test in one function: tests run side by side would take each other's allocations.
#[test]
fn every_refused_allocation_is_a_typed_error() {
    let bytes = fake_file();
    let file = TempFile::new("no-memory.tvlm", &bytes);
    let pixels: Vec<u8> = (0..13 * 9 * 3).map(|i| i as u8).collect();
    let picture = Rgb8::new(13, 9, &pixels).expect("13 x 9");
    let open = |residence| {
        let options = OpenOptions { residence, ..OpenOptions::default() };
        Model::<Fake>::open_with(&file.0, &options)
    };
    let expected = Ok(talk(&model(), &picture).expect("there is memory"));
    check("from bytes", &expected, || {
        talk(&Model::<Fake>::from_bytes("fake", &bytes, &OpenOptions::default())?, &picture)
    });
    check("copied", &expected, || talk(&open(Residence::Copied)?, &picture));
    check("mapped", &expected, || talk(&open(Residence::Mapped)?, &picture));

    // Errors have messages, which get shorter.
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        bytes
    };
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 7] = [
        ("weights-truncated", |b| b.truncate(5000)),
        ("not-weights", |b| b[0] = 0),
        ("weights-format", |b| b[8] = 9),
        ("weights-damaged", |b| b[100] ^= 1),
        ("weights-damaged", |b| *b.last_mut().expect("not empty") ^= 1),
        ("weights-wrong-build", |b| {
            b[40] ^= 1;
            seal(b);
        }),
        ("weights-section", |b| {
            b[80] = b'x';
            seal(b);
        }),
    ];
    for (code, change) in cases {
        let bytes = damaged(change);
        check(code, &Err(code), || Model::<Fake>::from_bytes("fake", &bytes, &OpenOptions::default()).map(|_| 0));
    }
    let section = tokenizer_section(true);
    let bytes = weight_file(DIGEST, &[("tokenizer", &section[..section.len() - 1]), ("weights", &[3; 100])]);
    check("tokenizer", &Err("tokenizer"), || {
        Model::<Fake>::from_bytes("fake", &bytes, &OpenOptions::default()).map(|_| 0)
    });
    for (code, level) in [("cpu", "best"), ("unknown-level", "none")] {
        let bytes = fake_file();
        let options = OpenOptions { level: Some(level), ..OpenOptions::default() };
        let open = || Model::<Fake>::from_bytes("fake", &bytes, &options).map(|_| 0);
        // The level comes first, so all that is allocated is the message.
        for lasting in [false, true] {
            assert_eq!(refusing(0, lasting, open).0.expect_err("no such level").code(), code);
        }
    }
    let (model, long) = (model(), "x".repeat(CONTEXT));
    check("prompt-too-long", &Err("prompt-too-long"), || model.session(Options::default())?.ask(&[], &long).map(|_| 0));
}
