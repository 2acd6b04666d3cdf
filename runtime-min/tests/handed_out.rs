//! A program that hands its work out: its sessions say the same as others, and are only to be used by their `async` functions.

mod common;

use common::*;
use runtime_min::{Cx, Info, Level, Model, OpenOptions, Options, Program, Rgb8, SamplerOptions, StopReason};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

/// The test program, whose work takes until it is asked for the third time.
struct Later {
    asked: AtomicUsize,
}

impl Program for Later {
    const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];
    const HANDS_OUT: bool = true;

    fn info() -> &'static Info {
        &Info { late_logits: true, ..FAKE }
    }

    fn with_level(_: usize) -> Self {
        Self { asked: AtomicUsize::new(0) }
    }

    phases_of_fake!();

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        assert_eq!(cx.count(), 1);
        Fake.embed(cx, id, row);
    }

    fn finished(&self) -> Poll<()> {
        if self.asked.fetch_add(1, SeqCst) % 3 == 2 { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn later() -> Model<Later> {
    Model::from_bytes("later", &fake_file(), &OpenOptions::default()).expect("intact")
}

/// Polls to the end; the result, and how often it was not there yet. `between` runs after each of those polls.
fn driven<T>(work: impl Future<Output = T>, mut between: impl FnMut(usize)) -> (T, usize) {
    let mut work = pin!(work);
    let mut pending = 0;
    loop {
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => return (done, pending),
            Poll::Pending => pending += 1,
        }
        between(pending);
    }
}

#[test]
fn it_says_the_same() {
    let (model, plain) = (later(), model());
    for temperature in [0.0, 1.5] {
        let sampler = SamplerOptions { temperature, seed: 5, ..SamplerOptions::default() };
        let options = Options { max_new_tokens: 20, ignore_eos: true, sampler, threads: Some(3), ..Options::default() };
        let (mut here, mut there) =
            (plain.session(options.clone()).expect("a session"), model.session(options).expect("a session"));
        assert_eq!((there.threads(), there.private_bytes()), (3, here.private_bytes()));
        let pixels = [77; 4 * 4 * 3];
        let picture = Rgb8::new(4, 4, &pixels).expect("4 x 4");
        for side in [SMALL_SIDE, SIDE] {
            let input = here.preprocess_at(&picture, side).expect("a picture");
            let image = here.encode(&input).expect("encodes");
            let (image_there, pending) = driven(there.encode_async(&input), |_| ());
            let image_there = image_there.expect("encodes");
            assert_eq!((image_there.rows(), pending), (image.rows(), 2));
            let mut answer = here.ask(&[&image], "what?").expect("an answer");
            let expected = (answer.text().expect("text"), answer.token_ids().to_vec());
            let images = [&image_there];
            let mut answer = driven(there.ask_async(&images, "what?"), |_| ()).0.expect("an answer");
            let mut text = String::new();
            while let Some(piece) = driven(answer.next_piece_async(), |_| ()).0 {
                text += piece.expect("a piece");
            }
            assert_eq!((text, answer.token_ids().to_vec()), expected);
        }
    }
}

#[test]
fn a_call_that_is_cancelled_while_it_is_out_counts_for_nothing() {
    let model = later();
    for temperature in [0.0, 1.0] {
        // Every one of the calls, and of the logits that a sampler asks for, is cancelled in turn.
        for at in 1.. {
            let sampler = SamplerOptions { temperature, ..SamplerOptions::default() };
            let options =
                Options { max_new_tokens: 6, ignore_eos: true, sampler, threads: Some(1), ..Options::default() };
            let mut chat = model.session(options).expect("a session");
            let (token, mut total) = (chat.cancel_token(), 0);
            let mut cancelling = |_: usize| {
                total += 1;
                if total == at {
                    token.cancel();
                }
            };
            let mut answer = driven(chat.ask_async(&[], "hello"), &mut cancelling).0.expect("an answer");
            while let Some(piece) = driven(answer.next_piece_async(), &mut cancelling).0 {
                piece.expect("a piece");
            }
            let (stop, tokens) = (answer.stop_reason(), answer.token_ids().to_vec());
            if stop == Some(StopReason::MaxTokens) {
                assert!(at > 6, "{at} polls");
                break;
            }
            assert_eq!(stop, Some(StopReason::Cancelled));
            // What was said stays said, and the conversation goes on from there.
            let said = chat.position();
            let mut more = driven(chat.ask_async(&[], "more"), |_| ()).0.expect("an answer");
            while let Some(piece) = driven(more.next_piece_async(), |_| ()).0 {
                piece.expect("a piece");
            }
            let values = prompt_values(more.prompt_token_ids(), &[]);
            assert_eq!(more.token_ids().len(), 6);
            if temperature == 0.0 && tokens.is_empty() {
                assert_eq!((said, more.token_ids()), (0, &expected(&values, 6, true)[..]));
            }
        }
    }
}

#[test]
fn ordinary_functions_refuse() {
    let model = later();
    let mut chat = model.session(Options::default()).expect("a session");
    assert_eq!(chat.ask(&[], "hello").map(|_| ()).expect_err("nobody waits").code(), "program");
    assert_eq!(
        chat.image(&Rgb8::new(1, 1, &[1, 2, 3]).expect("1 x 1")).map(|_| ()).expect_err("nobody waits").code(),
        "program"
    );
    let options = Options { threads: Some(0), ..Options::default() };
    assert_eq!(model.session(options).map(|_| ()).expect_err("no members").code(), "argument");
}

/// Its thread belongs to others, who would wait as well.
#[test]
fn it_does_not_wait_when_it_is_paused() {
    let model = later();
    let options = Options { max_new_tokens: 5, ignore_eos: true, threads: Some(3), ..Options::default() };
    let mut chat = model.session(options).expect("a session");
    chat.control().pause();
    let ask = async {
        let mut answer = chat.ask_async(&[], "What?").await.expect("fits");
        while let Some(piece) = answer.next_piece_async().await {
            piece.expect("runs");
        }
        answer.token_ids().len()
    };
    assert_eq!(watched(60, || driven(ask, |_| ()).0), 5);
}
