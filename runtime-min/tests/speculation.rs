//! Guessed tokens change how fast an answer comes, and nothing else.

mod common;

use common::*;
use runtime_min::{Error, Model, OpenOptions, Options, Program, SamplerOptions, StopReason, Timings};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a conversation shows: for each turn its tokens, the logits' bits before each, and why it ended.
type Seen = Vec<(Vec<u32>, Vec<u32>, Option<StopReason>, usize)>;

fn open<P: Program>() -> Model<P> {
    Model::from_bytes("model", &fake_file(), &OpenOptions { level: Some("plain"), ..Default::default() })
        .expect("intact")
}

/// Three turns: one cut short by its reader, one by its length, one that goes on.
fn talk<P: Program>(model: &Model<P>, options: Options) -> (Seen, Timings) {
    let (mut chat, mut seen, mut all) = (model.session(options).expect("a session"), Seen::new(), Timings::default());
    for (question, pieces, most) in [("abcabcab", 7, 100), ("ab", 100, 21), ("dcba", 100, 100)] {
        chat.set_max_new_tokens(most);
        let mut answer = chat.ask(&[], question).expect("fits");
        let mut bits = Vec::new();
        for _ in 0..pieces {
            bits.extend(answer.logits().expect("made").iter().map(|logit| logit.to_bits()));
            let Some(piece) = answer.next_piece() else { break };
            piece.expect("runs");
        }
        bits.extend(answer.logits().expect("made").iter().map(|logit| logit.to_bits()));
        let (tokens, stop, timings) = (answer.token_ids().to_vec(), answer.stop_reason(), answer.timings());
        drop(answer);
        seen.push((tokens, bits, stop, chat.position()));
        all.drafted += timings.drafted;
        all.accepted += timings.accepted;
        all.decode_steps += timings.decode_steps;
    }
    (seen, all)
}

fn samplers() -> [SamplerOptions; 3] {
    let drawn = SamplerOptions { temperature: 1.0, top_k: 20, top_p: 0.97, repetition_penalty: 1.0, seed: 5 };
    [SamplerOptions::default(), drawn.clone(), SamplerOptions { repetition_penalty: 1.01, ..drawn }]
}

#[test]
fn answers_are_the_same_tokens() {
    let (parrot, fake) = (open::<Parrot>(), open::<Fake>());
    for sampler in samplers() {
        for threads in [1, 3] {
            let options = |speculation| Options {
                sampler: sampler.clone(),
                threads: Some(threads),
                speculation,
                ..Options::default()
            };
            let ((plain, none), (other, _)) = (talk(&parrot, options(0)), talk(&fake, options(0)));
            assert_eq!((none.drafted, none.accepted), (0, 0));
            for speculation in [1, 2, 3, usize::MAX] {
                let (seen, timings) = talk(&parrot, options(speculation));
                assert!(seen == plain, "{sampler:?}, {threads} threads, {speculation} guessed");
                assert_eq!(timings.decode_steps, none.decode_steps);
                assert!(timings.accepted > 0 && timings.accepted < timings.drafted, "{timings:?}");
                assert!(talk(&fake, options(speculation)).0 == other, "{sampler:?}, {speculation} guessed, no circles");
            }
        }
    }
}

/// Right guesses save calls: one for each.
#[test]
fn right_guesses_save_calls() {
    let model = open::<Parrot>();
    let calls = |speculation| {
        let options = Options { max_new_tokens: 100, speculation, ..Options::default() };
        let mut chat = model.session(options).expect("a session");
        let (seen, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let theirs = Arc::clone(&seen);
        let heads = Arc::clone(&all);
        chat.observe(move |view| {
            if view.step.name == "decoder.head" {
                theirs.fetch_add(1, Relaxed);
                heads.fetch_max(view.rows, Relaxed);
            }
        });
        let mut answer = chat.ask(&[], "abab").expect("fits");
        answer.text().expect("runs");
        (seen.load(Relaxed), answer.timings())
    };
    let ((plain, _), (guessed, timings)) = (calls(0), calls(3));
    assert_eq!(guessed, plain - timings.accepted);
    assert!(timings.accepted > 50, "{timings:?}");
}

/// Cancelling between two tokens that were computed together keeps the first one only.
#[test]
fn cancelled_between_guesses() {
    let model = open::<Parrot>();
    let tokens = |speculation| {
        let mut chat = model.session(Options { speculation, ..Options::default() }).expect("a session");
        let cancel = chat.cancel_token();
        let mut answer = chat.ask(&[], "abab").expect("fits");
        for _ in 0..20 {
            answer.next_piece().expect("goes on").expect("runs");
        }
        cancel.cancel();
        assert!(answer.next_piece().is_none());
        assert_eq!(answer.stop_reason(), Some(StopReason::Cancelled));
        let mut tokens = answer.token_ids().to_vec();
        drop(answer);
        tokens.push(chat.position() as u32);
        let mut more = chat.ask(&[], "and?").expect("fits");
        more.text().expect("runs");
        tokens.extend(more.token_ids());
        tokens
    };
    assert_eq!(tokens(3), tokens(0));
}

/// Up to the very last position.
#[test]
fn the_context_is_filled() {
    let model = open::<Parrot>();
    let answer = |speculation| {
        let options = Options { max_new_tokens: 500, ignore_eos: true, speculation, ..Options::default() };
        let mut chat = model.session(options).expect("a session");
        let mut answer = chat.ask(&[], "abab").expect("fits");
        answer.text().expect("runs");
        assert_eq!(answer.stop_reason(), Some(StopReason::ContextFull));
        let tokens = answer.token_ids().to_vec();
        drop(answer);
        assert!(matches!(chat.ask(&[], "more"), Err(Error::PromptTooLong { .. })));
        (tokens, chat.position())
    };
    assert_eq!(answer(3), answer(0));
}
