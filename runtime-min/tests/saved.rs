//! Conversations as files: what goes on in another session or process is what would have gone on, and bad files are errors.

mod common;

use common::*;
use runtime_min::{Cx, template};
use runtime_min::{
    Error, Image, Info, Level, Model, OpenOptions, Options, Program, Rgb8, SamplerOptions, Session, Turn,
};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the process that goes on: the file.
const SAVED: &str = "TVLM_TEST_SAVED";

fn sampled(seed: u64) -> SamplerOptions {
    SamplerOptions { temperature: 3.0, top_k: 50, top_p: 0.97, repetition_penalty: 1.1, seed }
}

fn options(sampler: SamplerOptions, n: usize) -> Options {
    Options { sampler, max_new_tokens: n, ignore_eos: true, threads: Some(2), ..Options::default() }
}

fn picture(chat: &mut Session<'_, Fake>, value: u8) -> Image {
    let bytes = [value; SIDE * SIDE * 3];
    chat.image(&Rgb8::new(SIDE, SIDE, &bytes).expect("square")).expect("encodes")
}

/// The conversation that all tests save: pictures, two turns, and the second answer given up after `n` tokens.
fn begun(chat: &mut Session<'_, Fake>, n: usize) -> Vec<u32> {
    let (red, blue) = (picture(chat, 7), picture(chat, 9));
    chat.set_max_new_tokens(6);
    chat.ask(&[&red, &blue, &red], "Which?").expect("fits").text().expect("runs");
    chat.set_max_new_tokens(n);
    let mut answer = chat.ask(&[], "And?").expect("fits");
    answer.text().expect("runs");
    let tokens = answer.token_ids().to_vec();
    assert_eq!(tokens.len(), n);
    tokens
}

/// The rest of it: of the answer, and one more turn.
fn rest(chat: &mut Session<'_, Fake>) -> Vec<u32> {
    chat.set_max_new_tokens(9);
    let mut answer = chat.go_on().expect("an answer was given up");
    answer.text().expect("runs");
    let mut tokens = answer.token_ids().to_vec();
    let blue = picture(chat, 9);
    let mut answer = chat.ask(&[&blue], "Why?").expect("fits");
    answer.text().expect("runs");
    tokens.extend(answer.token_ids());
    assert_eq!(tokens.len(), 18);
    tokens
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tvlm-saved-{}-{name}", std::process::id()))
}

#[test]
fn an_answer_goes_on_where_it_was_given_up() {
    let model = model();
    for sampler in [SamplerOptions::default(), sampled(5)] {
        let whole = {
            let mut chat = model.session(options(sampler.clone(), 20)).expect("a session");
            let mut answer = chat.ask(&[], "What?").expect("fits");
            answer.text().expect("runs");
            answer.token_ids().to_vec()
        };
        for cut in 1..20 {
            let mut chat = model.session(options(sampler.clone(), cut)).expect("a session");
            assert_eq!(
                chat.go_on().map(|_| ()).map_err(|e| e.code()),
                Err("argument"),
                "nothing was asked, so nothing goes on"
            );
            let mut answer = chat.ask(&[], "What?").expect("fits");
            answer.text().expect("runs");
            let mut tokens = answer.token_ids().to_vec();
            chat.set_max_new_tokens(20 - cut);
            let mut answer = chat.go_on().expect("it was cut off");
            answer.text().expect("runs");
            tokens.extend(answer.token_ids());
            assert_eq!(tokens, whole, "cut after {cut}");
        }
    }
}

#[test]
fn a_restored_conversation_is_the_one_that_was_saved() {
    let model = model();
    for (name, sampler) in [("greedy", SamplerOptions::default()), ("sampled", sampled(11))] {
        for n in [1, 2, 7, 12] {
            let mut chat = model.session(options(sampler.clone(), n)).expect("a session");
            begun(&mut chat, n);
            let mut stream = Vec::new();
            chat.save(&mut stream).expect("memory");
            let path = temporary(&format!("{name}-{n}"));
            chat.save_file(&path).expect("written");
            assert_eq!(std::fs::read(&path).expect("a file"), stream);
            // Sessions of other options, used and new; the saved sampler is what counts.
            let mut used = model.session(options(sampled(99), 4)).expect("a session");
            used.ask(&[], "Something else?").expect("fits").text().expect("runs");
            used.restore(&mut &stream[..]).expect("intact");
            let mut new = model.session(options(SamplerOptions::default(), 4)).expect("a session");
            new.restore_file(&path).expect("intact");
            assert_eq!(new.position(), chat.position());
            // Saved again, it is the same.
            let mut again = Vec::new();
            new.save(&mut again).expect("memory");
            assert_eq!(again, stream);
            let expected = rest(&mut chat);
            assert_eq!(rest(&mut used), expected, "{name}, {n}");
            assert_eq!(rest(&mut new), expected, "{name}, {n}");
            if n == 7 {
                let child = Command::new(std::env::current_exe().expect("this test"))
                    .args(["--exact", "another_process", "--nocapture"])
                    .env(SAVED, &path)
                    .output()
                    .expect("started");
                let said = String::from_utf8_lossy(&child.stdout).into_owned();
                assert!(child.status.success() && said.contains(&format!("rest: {expected:?}")), "{said}");
            }
            std::fs::remove_file(&path).expect("removed");
        }
    }
}

/// What the process does that another test starts; says nothing of use by itself.
#[test]
fn another_process() {
    let Some(path) = std::env::var_os(SAVED) else { return };
    let model = model();
    let mut chat = model.session(options(SamplerOptions::default(), 4)).expect("a session");
    chat.restore_file(path).expect("intact");
    println!("rest: {:?}", rest(&mut chat));
}

#[test]
fn a_conversation_that_is_told_anew_is_found_in_the_restored_cache() {
    let model = model();
    let mut chat = model.session(options(SamplerOptions::default(), 5)).expect("a session");
    let said = chat.ask(&[], "What?").expect("fits").text().expect("runs");
    let mut saved = Vec::new();
    chat.save(&mut saved).expect("memory");
    let told = [Turn { images: &[], question: "What?", answer: &said }];
    let ask = |chat: &mut Session<'_, Fake>| {
        let mut answer = chat.ask_after(&told, &[], "And?").expect("fits");
        answer.text().expect("runs");
        (answer.token_ids().to_vec(), answer.timings().prefill_rows)
    };
    let mut restored = model.session(options(SamplerOptions::default(), 5)).expect("a session");
    restored.restore(&mut &saved[..]).expect("intact");
    let (expected, found) = (ask(&mut chat), ask(&mut restored));
    assert_eq!(found, expected);
    let mut fresh = model.session(options(SamplerOptions::default(), 5)).expect("a session");
    assert!(ask(&mut fresh).1 > found.1, "the beginning was not read again");
}

#[test]
fn every_damage_is_an_error_and_the_conversation_stays() {
    let model = model();
    let mut chat = model.session(options(sampled(3), 4)).expect("a session");
    begun(&mut chat, 4);
    let mut good = Vec::new();
    chat.save(&mut good).expect("memory");
    let mut other = model.session(options(SamplerOptions::default(), 4)).expect("a session");
    other.ask(&[], "Mine?").expect("fits").text().expect("runs");
    let mine = {
        let mut bytes = Vec::new();
        other.save(&mut bytes).expect("memory");
        bytes
    };
    let path = temporary("damaged");
    let mut check = |bytes: &[u8], what: String| {
        std::fs::write(&path, bytes).expect("written");
        let code = other.restore_file(&path).expect_err(&what).code();
        assert!(["saved-damaged", "saved-foreign"].contains(&code), "{what}: {code}");
        let mut after = Vec::new();
        other.save(&mut after).expect("memory");
        assert!(after == mine, "{what}: the conversation changed");
        // A stream says the same, and the session is usable.
        let mut new = model.session(options(SamplerOptions::default(), 2)).expect("a session");
        assert_eq!(new.restore(&mut &*bytes).expect_err(&what).code(), code, "{what}");
        assert_eq!(new.position(), 0);
        new.ask(&[], "Well?").expect("fits").text().expect("runs");
    };
    for len in 0..good.len() {
        // All of the header, and some of the rest.
        if len < 200 || len % 37 == 0 || len + 5 > good.len() {
            check(&good[..len], format!("{len} bytes"));
        }
    }
    for at in 0..good.len() {
        if at < 200 || at % 13 == 0 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            check(&bytes, format!("byte {at} changed"));
        }
    }
    check(&[&good[..], b"x"].concat(), "a byte more".into());
    check(b"TVLMWT01 and more that is no conversation", "another file".into());
    check(b"", "an empty file".into());
    std::fs::remove_file(&path).expect("removed");

    let message = |bytes: &[u8]| {
        let mut new = model.session(options(SamplerOptions::default(), 2)).expect("a session");
        new.restore(&mut &*bytes).expect_err("bad").to_string()
    };
    let said = message(b"weights.tvlm is no conversation, however long it is");
    assert!(said.contains("starts with \"weights.\", expected \"TVLMCHAT\""), "{said}");
    assert!(message(&good[..100]).contains("damaged: it ends after 100 bytes; begin a new conversation"));
}

/// Numbers that fit their checksums and nothing else.
#[test]
fn what_a_liar_writes_is_an_error() {
    use runtime_min::hash::xxh64;
    let model = model();
    let mut chat = model.session(options(sampled(3), 4)).expect("a session");
    begun(&mut chat, 4);
    let mut good = Vec::new();
    chat.save(&mut good).expect("memory");
    let u64_at = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().expect("8 bytes")) as usize;
    let facts = 4 * u64_at(80) + 8 * u64_at(64);
    let lies: [(usize, &[u8]); 14] = [
        (64, &u64::MAX.to_le_bytes()),
        (64, &0u64.to_le_bytes()),
        (64, &201u64.to_le_bytes()),
        (72, &200u64.to_le_bytes()),
        (80, &(1u64 << 61).to_le_bytes()),
        (88, &0u64.to_le_bytes()),
        (88, &u64::MAX.to_le_bytes()),
        (96, &f32::NAN.to_le_bytes()),
        (100, &0f32.to_le_bytes()),
        (108, &262u32.to_le_bytes()),
        (136, &1u64.to_le_bytes()),
        (144, &1u64.to_le_bytes()),
        // The first token of the history, and of the positions.
        (160, &262u32.to_le_bytes()),
        (160 + 4 * u64_at(80), &(u32::MAX - 1).to_le_bytes()),
    ];
    for (at, bytes) in lies {
        let mut lie = good.clone();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        let hash = xxh64(&lie[160..160 + facts], 0);
        lie[152..160].copy_from_slice(&hash.to_le_bytes());
        let hash = xxh64(&lie[32..], 0);
        lie[24..32].copy_from_slice(&hash.to_le_bytes());
        let mut new = model.session(options(SamplerOptions::default(), 2)).expect("a session");
        let error = new.restore(&mut &lie[..]).expect_err("a lie");
        assert_eq!(error.code(), "saved-damaged", "{at}: {error}");
        new.ask(&[], "Well?").expect("fits").text().expect("runs");
    }
}

/// The same code under another digest.
struct Other;

fake_with!(Other, Info { digest: [0x77; 32], ..FAKE });

#[test]
fn conversations_of_other_models_are_refused() {
    let model = model();
    let mut chat = model.session(options(sampled(3), 4)).expect("a session");
    begun(&mut chat, 4);
    let mut saved = Vec::new();
    chat.save(&mut saved).expect("memory");
    let file = weight_file([0x77; 32], &[("tokenizer", &tokenizer_section(true)), ("weights", &[3; 100])]);
    let other = Model::<Other>::from_bytes("other", &file, &OpenOptions::default()).expect("intact");
    let mut chat = other.session(Options::default()).expect("a session");
    let error = chat.restore(&mut &saved[..]).expect_err("of another model");
    assert_eq!((error.code(), error.exit_code()), ("saved-foreign", 3));
    assert!(error.to_string().contains("another model or build"), "{error}");
}

#[test]
fn a_file_is_whole_or_as_it_was() {
    let model = model();
    let mut chat = model.session(options(SamplerOptions::default(), 3)).expect("a session");
    let folder = temporary("folder");
    std::fs::create_dir_all(&folder).expect("made");
    let path = folder.join("chat");
    chat.save_file(&path).expect("written");
    let empty = std::fs::read(&path).expect("a file");
    begun(&mut chat, 3);
    chat.save_file(&path).expect("replaced");
    assert_ne!(std::fs::read(&path).expect("a file"), empty);
    let names = |folder: &Path| std::fs::read_dir(folder).expect("a folder").count();
    assert_eq!(names(&folder), 1, "nothing else is left");
    let error = chat.save_file(folder.join("none/chat")).expect_err("no folder");
    assert!(matches!(&error, Error::File { action: "write", path, .. } if path.ends_with("none/chat")), "{error}");
    let error = chat.save_file(&folder).expect_err("a folder");
    assert_eq!((error.code(), names(&folder), names(folder.parent().expect("one")) > 0), ("file", 1, true));
    assert_eq!(chat.restore_file(folder.join("gone")).expect_err("no file").code(), "file");
    // An empty conversation is one.
    std::fs::write(&path, empty).expect("written");
    chat.restore_file(&path).expect("intact");
    assert_eq!(chat.position(), 0);
    let mut fresh = model.session(options(SamplerOptions::default(), 3)).expect("a session");
    let ask = |chat: &mut Session<'_, Fake>| {
        chat.set_max_new_tokens(9);
        chat.ask(&[], template::SYSTEM).expect("fits").text().expect("runs")
    };
    assert_eq!(ask(&mut chat), ask(&mut fresh));
    std::fs::remove_dir_all(&folder).expect("removed");
}
