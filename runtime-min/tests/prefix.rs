//! What a session holds of a conversation is not read again by the next one that begins alike, and answers are the same.

mod common;

use common::*;
use runtime_min::{Image, Model, OpenOptions, Options, Program, Rgb8, Session, Turn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn open<P: Program>() -> Model<P> {
    Model::from_bytes("model", &fake_file(), &OpenOptions { level: Some("plain"), ..Default::default() })
        .expect("intact")
}

fn session<P: Program>(model: &Model<P>) -> Session<'_, P> {
    let options = Options { max_new_tokens: 6, ignore_eos: true, threads: Some(2), ..Options::default() };
    model.session(options).expect("a session")
}

fn image<P: Program>(chat: &mut Session<'_, P>, value: u8) -> Image {
    let pixels = vec![value; SIDE * SIDE * 3];
    chat.image(&Rgb8::new(SIDE, SIDE, &pixels).expect("square")).expect("encodes")
}

/// Rows that were computed, text and ids of an answer to what was told and asked.
fn asked<P: Program>(
    chat: &mut Session<'_, P>,
    told: &[Turn<'_>],
    images: &[&Image],
    text: &str,
) -> (usize, String, Vec<i64>) {
    let mut answer = chat.ask_after(told, images, text).expect("fits");
    let text = answer.text().expect("runs");
    (answer.timings().prefill_rows, text, answer.prompt_token_ids().to_vec())
}

/// The same by a session that holds nothing: it reads all of it.
fn alone<P: Program>(model: &Model<P>, told: &[Turn<'_>], images: &[&Image], text: &str) -> (usize, String, Vec<i64>) {
    let found = asked(&mut session(model), told, images, text);
    assert_eq!(found.0, found.2.len());
    found
}

#[test]
fn a_conversation_that_begins_alike() {
    let model = open::<Fake>();
    let mut chat = session(&model);
    let (one, two) = (image(&mut chat, 1), image(&mut chat, 1));
    // The beginning of all conversations: the system's part, and the opening of the question.
    let (first, _, ids) = asked(&mut chat, &[], &[&one], "what?");
    assert_eq!(first, ids.len());
    let before_image = ids.iter().position(|&id| id == i64::from(IMAGE)).expect("an image");
    for (what, images, text, new) in [
        ("the same: its last position has the logits", &[&one][..], "what?", 1),
        ("another question", &[&one], "whale?", ids.len() - before_image - TOKENS - "\nwha".len() + 1),
        ("a clone is the same image", &[&one.clone()], "whale?", 1),
        ("another image with the same pixels", &[&two], "whale?", ids.len() + 1 - before_image),
        ("no image", &[], "two", 6 + "two".len() + "\nassistant\n".len()),
    ] {
        let (_, text_alone, ids_alone) = alone(&model, &[], images, text);
        let (computed, found, ids) = asked(&mut chat, &[], images, text);
        assert_eq!((found, ids), (text_alone, ids_alone), "{what}");
        if images.is_empty() {
            assert!(computed < 30, "{what}: {computed}");
        } else {
            assert_eq!(computed, new, "{what}");
        }
    }
}

#[test]
fn a_conversation_that_is_told_anew() {
    let model = open::<Parrot>();
    let (mut chat, mut other) = (session(&model), session(&model));
    let picture = image(&mut other, 3);
    let images = [&picture];
    let (_, one, _) = asked(&mut chat, &[], &images, "ab");
    let told = [Turn { images: &images, question: "ab", answer: &one }];
    // The last token was handed out and not read: it is computed with the next question.
    let (computed, two, ids) = asked(&mut chat, &told, &[], "cd");
    let expected = alone(&model, &told, &[], "cd");
    assert_eq!((&two, &ids), (&expected.1, &expected.2));
    let turn = 1 + "\n".len() + 1 + "user\ncd".len() + 1 + "\n".len() + 1 + "assistant\n".len();
    assert_eq!(computed, turn + 1);
    // And goes on as if it had been asked.
    let mut asked_on = session(&model);
    asked_on.ask(&images, "ab").expect("fits").text().expect("runs");
    let more = asked_on.ask(&[], "cd").expect("fits").text().expect("runs");
    assert_eq!((more, asked_on.position()), (two.clone(), chat.position()));
    // A turn in the middle that differs is read with all after it.
    let other = [Turn { question: "aX", ..told[0] }];
    let (computed, three, ids) = asked(&mut chat, &other, &[], "cd");
    let expected = alone(&model, &other, &[], "cd");
    assert_eq!((three, &ids), (expected.1, &expected.2));
    assert_eq!(computed, turn + "X".len() + 1 + "\n".len() + 1 + "assistant\n".len() + one.len());
}

/// The observer sees as many rows as are counted.
#[test]
fn rows_are_counted_as_they_are_computed() {
    let model = open::<Fake>();
    let mut chat = session(&model);
    chat.set_max_new_tokens(0);
    let rows = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&rows);
    chat.observe(move |view| {
        if view.step.name == "decoder.0.cache" {
            theirs.fetch_add(view.rows, Relaxed);
        }
    });
    for (reset, text) in [(false, "hello"), (true, "hello"), (false, "and more"), (true, "help"), (true, "hello")] {
        if reset {
            chat.reset();
        }
        let before = rows.load(Relaxed);
        let computed = chat.ask(&[], text).expect("fits").timings().prefill_rows;
        assert_eq!(rows.load(Relaxed) - before, computed, "{text}");
    }
    chat.forget();
    let answer = chat.ask(&[], "hello").expect("fits");
    assert_eq!(answer.timings().prefill_rows, answer.prompt_token_ids().len());
}

/// Where rows have other bits alone than among others, what was decoded is computed anew.
#[test]
fn decoded_rows_are_read_again_where_bits_differ() {
    let model = open::<Plain>();
    let mut chat = session(&model);
    let (_, one, ids) = asked(&mut chat, &[], &[], "ab");
    let told = [Turn { images: &[], question: "ab", answer: &one }];
    let (computed, two, all) = asked(&mut chat, &told, &[], "cd");
    assert_eq!(computed, all.len() - ids.len());
    assert_eq!(alone(&model, &told, &[], "cd").1, two);
    // All of that was prefilled.
    assert_eq!(asked(&mut chat, &told, &[], "cd").0, 1);
}

/// What a cancelled or failed question has written is not taken for something else.
#[test]
fn after_cancelling() {
    let model = open::<Fake>();
    let mut chat = session(&model);
    let first = chat.ask(&[], "first").expect("fits").text().expect("runs");
    let cancel = chat.cancel_token();
    chat.observe(move |_| cancel.cancel());
    let long = "long ".repeat(12);
    assert!(chat.ask(&[], &long).expect("fits").stop_reason().is_some(), "cancelled");
    chat.unobserve();
    let told = [Turn { images: &[], question: "first", answer: &first }];
    let found = asked(&mut chat, &told, &[], &long);
    assert_eq!((found.1, found.2.len()), (alone(&model, &told, &[], &long).1, found.2.len()));
}
