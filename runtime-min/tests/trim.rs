//! Memory that goes back when the system asks for it: answers stay the same.

mod common;

use common::*;
use runtime_min::{Cx, Info, Level, Model, OpenOptions, Options, Program, Residence, Session};

const MB: usize = 1 << 20;

/// The test program with an arena as large as those that come from the kernel.
struct Large;

fake_with!(Large, Info { arena_bytes: 12 * MB, ..FAKE });

fn options() -> Options {
    Options { max_new_tokens: 8, ignore_eos: true, threads: Some(2), ..Options::default() }
}

fn ask<P: Program>(chat: &mut Session<'_, P>, question: &str) -> Vec<u32> {
    let mut answer = chat.ask(&[], question).expect("fits");
    answer.text().expect("runs");
    answer.token_ids().to_vec()
}

#[test]
fn what_is_not_the_conversation_goes_back() {
    let model = Model::<Large>::from_bytes("large", &fake_file(), &OpenOptions::default()).expect("intact");
    let (mut chat, mut other) =
        (model.session(options()).expect("a session"), model.session(options()).expect("another"));
    assert_eq!(ask(&mut chat, "one"), ask(&mut other, "one"));
    // What work leaves behind: the cache's end is far before this.
    let arena = chat.arena_at();
    // SAFETY: inside of the arena, which nobody uses now.
    unsafe { arena.add(4 * MB).write_bytes(7, 6 * MB) };
    let given = chat.trim();
    if cfg!(all(unix, target_pointer_width = "64", not(miri))) {
        assert!(given >= 6 * MB, "{given} bytes");
        let again = chat.trim();
        assert!(again < given, "{again} bytes again");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: as above.
    assert!(unsafe { (4 * MB..10 * MB).all(|at| arena.add(at).read() == 0) }, "the pages are still there");
    for question in ["two", "three"] {
        assert_eq!(ask(&mut chat, question), ask(&mut other, question));
        chat.trim();
    }
    // An answer that was given up goes on.
    chat.set_max_new_tokens(3);
    let mut cut = ask(&mut chat, "four");
    chat.trim();
    chat.set_max_new_tokens(5);
    let mut answer = chat.go_on().expect("it was cut off");
    answer.text().expect("runs");
    cut.extend(answer.token_ids());
    assert_eq!(cut, ask(&mut other, "four"));
    // The beginning of a conversation that is over is read again, and is the same.
    chat.reset();
    other.reset();
    chat.trim();
    chat.set_max_new_tokens(8);
    assert_eq!(ask(&mut chat, "one"), ask(&mut other, "one"));
}

#[test]
fn small_arenas_stay() {
    let model = model();
    let mut chat = model.session(options()).expect("a session");
    let first = ask(&mut chat, "one");
    assert_eq!(chat.trim(), 0);
    chat.reset();
    assert_eq!(ask(&mut chat, "one"), first);
}

#[test]
fn mapped_weights_are_read_again() {
    let weights = vec![3; 3 * MB];
    let file = weight_file(DIGEST, &[("tokenizer", &tokenizer_section(true)), ("weights", &weights)]);
    let file = TempFile::new("trim.tvlm", &file);
    let open = |residence| {
        Model::<Fake>::open_with(&file.0, &OpenOptions { residence, ..OpenOptions::default() }).expect("intact")
    };
    let copied = open(Residence::Copied);
    assert_eq!(copied.trim(), 0);
    let mapped = open(Residence::Mapped);
    let mut chat = mapped.session(options()).expect("a session");
    let first = ask(&mut chat, "one");
    if cfg!(all(unix, target_pointer_width = "64", not(miri))) {
        let given = mapped.trim();
        assert!((3 * MB..4 * MB).contains(&given), "{given} bytes");
    }
    chat.reset();
    assert_eq!(ask(&mut chat, "one"), first);
    mapped.weights().verify().expect("the same bytes");
}
