//! Conversations: what reaches the decoder, turn by turn, and how answers end.

mod common;

use common::*;
use runtime_min::{Error, Model, OpenOptions, Options, Rgb8, SamplerOptions, StopReason};

fn options(n: usize) -> Options {
    Options { max_new_tokens: n, ..Options::default() }
}

fn pixels(value: u8) -> Vec<u8> {
    vec![value; SIDE * SIDE * 3]
}

#[test]
fn an_answer_is_the_function_of_its_prompt() {
    let model = model();
    for threads in [1, 2, 3, 8] {
        let mut chat = model.session(Options { threads: Some(threads), ..options(30) }).expect("a session");
        for question in ["a", "What is on the table?", "ünïcode 猫"] {
            chat.reset();
            let mut answer = chat.ask(&[], question).expect("fits");
            let text = answer.text().expect("runs");
            let prompt = prompt_values(answer.prompt_token_ids(), &[]);
            let tokens = expected(&prompt, 30, false);
            assert_eq!(answer.token_ids(), tokens, "{question:?} on {threads} threads");
            assert_eq!(text, common::text(&tokens));
            let ended = tokens.last() == Some(&IM_END);
            let reason = if ended { StopReason::EndOfText } else { StopReason::MaxTokens };
            assert_eq!(answer.stop_reason(), Some(reason));
            assert!(answer.next().is_none(), "an answer ends once");
        }
    }
}

#[test]
fn images_are_encoded_once_and_placed_in_order() {
    let model = model();
    let mut chat = model.session(options(12)).expect("a session");
    let (red, blue) = (pixels(7), pixels(9));
    let red = chat.image(&Rgb8::new(SIDE, SIDE, &red).expect("square")).expect("encodes");
    let blue = chat.image(&Rgb8::new(SIDE, SIDE, &blue).expect("square")).expect("encodes");
    assert_eq!(red.tokens(), TOKENS);
    for images in [vec![&red], vec![&red, &blue], vec![&blue, &red], vec![&red, &red]] {
        chat.reset();
        let mut answer = chat.ask(&images, "Which?").expect("fits");
        answer.text().expect("runs");
        let values: Vec<_> =
            images.iter().map(|image| image_values(if std::ptr::eq(*image, &red) { 7 } else { 9 })).collect();
        let ids = answer.prompt_token_ids();
        assert_eq!(ids.iter().filter(|&&id| id == i64::from(IMAGE)).count(), images.len() * TOKENS);
        assert_eq!(answer.token_ids(), expected(&prompt_values(ids, &values), 12, false));
    }
}

#[test]
fn without_an_image_token_the_prompt_shows_one_placeholder() {
    let file = weight_file(DIGEST, &[("tokenizer", &tokenizer_section(false)), ("weights", &[3; 100])]);
    let model = Model::<Fake>::from_bytes("fake", &file, &OpenOptions::default()).expect("intact");
    let mut chat = model.session(options(1)).expect("a session");
    let gray = pixels(1);
    let image = chat.image(&Rgb8::new(SIDE, SIDE, &gray).expect("square")).expect("encodes");
    let answer = chat.ask(&[&image], "Which?").expect("fits");
    assert_eq!(answer.prompt_token_ids().iter().filter(|&&id| id == -200).count(), 1);
}

/// Whatever ended the earlier answers, the decoder has seen what a single long prompt would have shown it.
#[test]
fn turns_equal_one_long_prompt() {
    let model = model();
    for (n, ignore_eos) in [(1, false), (4, false), (40, false), (5, true)] {
        let mut chat = model.session(Options { ignore_eos, ..options(n) }).expect("a session");
        let mut seen: Vec<u32> = Vec::new();
        for (turn, question) in ["one", "two", "three"].into_iter().enumerate() {
            if seen.len() > CONTEXT / 2 {
                break;
            }
            let mut answer = chat.ask(&[], question).expect("fits");
            answer.text().expect("runs");
            let ids = answer.prompt_token_ids();
            assert_eq!(ids.first() == Some(&i64::from(IM_END)), turn > 0, "a further turn closes the answer before it");
            seen.extend(prompt_values(ids, &[]));
            let tokens = expected(&seen, n, ignore_eos);
            assert_eq!(answer.token_ids(), tokens, "turn {turn}, {n} tokens, ignore {ignore_eos}");
            // The end token of an answer is part of the next turn's template.
            let ended = answer.stop_reason() == Some(StopReason::EndOfText);
            seen.extend(&tokens[..tokens.len() - usize::from(ended)]);
            assert_eq!(chat.position(), seen.len());
        }
    }
}

#[test]
fn an_abandoned_answer_counts_as_far_as_it_went() {
    let model = model();
    let mut chat = model.session(options(50)).expect("a session");
    let mut answer = chat.ask(&[], "abandon").expect("fits");
    let mut seen = prompt_values(answer.prompt_token_ids(), &[]);
    answer.next();
    seen.extend(answer.token_ids().iter().filter(|&&id| id != IM_END));
    drop(answer);
    let mut answer = chat.ask(&[], "again").expect("fits");
    answer.text().expect("runs");
    seen.extend(prompt_values(answer.prompt_token_ids(), &[]));
    assert_eq!(answer.token_ids(), expected(&seen, 50, false));
}

#[test]
fn reset_and_a_new_session_are_the_same() {
    let model = model();
    let mut used = model.session(options(9)).expect("a session");
    used.ask(&[], "something else").expect("fits").text().expect("runs");
    used.reset();
    let mut fresh = model.session(options(9)).expect("a session");
    // Interleaved: sessions do not share state.
    let mut a = used.ask(&[], "same").expect("fits");
    let mut b = fresh.ask(&[], "same").expect("fits");
    loop {
        let (x, y) = (a.next(), b.next());
        assert_eq!(x, y);
        if x.is_none() {
            break;
        }
    }
    assert_eq!(a.token_ids(), b.token_ids());
}

#[test]
fn sessions_on_many_threads_agree() {
    let model = model();
    let mut alone = model.session(options(20)).expect("a session");
    let mut answer = alone.ask(&[], "many").expect("fits");
    answer.text().expect("runs");
    let tokens = answer.token_ids();
    watched(120, || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let mut chat = model.session(options(20)).expect("a session");
                        let mut answer = chat.ask(&[], "many").expect("fits");
                        answer.text().expect("runs");
                        assert_eq!(answer.token_ids(), tokens);
                    }
                });
            }
        });
    });
}

#[test]
fn the_context_ends_exactly() {
    let model = model();
    let mut chat = model.session(Options { ignore_eos: true, ..options(1000) }).expect("a session");
    let around = chat.ask(&[], "x").expect("fits").prompt_token_ids().len() - 1;
    for left in [1, 0] {
        chat.reset();
        let question = "x".repeat(CONTEXT - around - left);
        let mut answer = chat.ask(&[], &question).expect("fits");
        answer.text().expect("runs");
        assert_eq!(answer.stop_reason(), Some(StopReason::ContextFull));
        // The last token needs no position: nobody reads what follows it.
        assert_eq!(answer.token_ids().len(), left + 1);
        drop(answer);
        assert_eq!(chat.position(), CONTEXT);
        let error = chat.go_on().map(|_| ()).expect_err("full");
        assert!(error.to_string().contains("positions are taken: begin another one"), "{error}");
    }
    chat.reset();
    let error = chat.ask(&[], &"x".repeat(CONTEXT - around + 1)).expect_err("one too many");
    assert_eq!(error, Error::PromptTooLong { need: CONTEXT + 1, have: CONTEXT });
    assert_eq!(chat.position(), 0, "refused before any work");

    // A second turn counts the first, and its token that is not in the cache yet; what is told is never more than there are.
    chat.reset();
    chat.ask(&[], &"x".repeat(CONTEXT - around - 30)).expect("fits").text().expect("runs");
    assert_eq!(chat.position(), CONTEXT);
    assert!(matches!(chat.ask(&[], "y"), Err(Error::PromptTooLong { need, have: CONTEXT }) if need > CONTEXT));
}

#[test]
fn cancelled_between_pieces() {
    let model = model();
    let mut chat = model.session(Options { ignore_eos: true, ..options(50) }).expect("a session");
    let cancel = chat.cancel_token();
    let mut answer = chat.ask(&[], "stop").expect("fits");
    let mut seen = prompt_values(answer.prompt_token_ids(), &[]);
    answer.next();
    let made = answer.token_ids().len();
    cancel.cancel();
    assert!(answer.next().is_none());
    assert_eq!(answer.stop_reason(), Some(StopReason::Cancelled));
    assert_eq!(answer.token_ids().len(), made);
    seen.extend(answer.token_ids());
    // The next question works, and the conversation is what was handed out.
    let mut answer = chat.ask(&[], "go on").expect("fits");
    answer.text().expect("runs");
    seen.extend(prompt_values(answer.prompt_token_ids(), &[]));
    assert_eq!(answer.token_ids(), expected(&seen, 50, true));
}

#[test]
fn cancelled_inside_a_step() {
    let model = model();
    for phase in ["prefill", "decode", "vision"] {
        let mut chat = model.session(Options { threads: Some(3), ..options(50) }).expect("a session");
        chat.set_ignore_eos(true);
        let cancel = chat.cancel_token();
        let mut views = 0;
        chat.observe(move |view| {
            views += 1;
            if view.phase.name() == phase && views > 2 {
                cancel.cancel();
            }
        });
        let gray = pixels(1);
        let rgb = Rgb8::new(SIDE, SIDE, &gray).expect("square");
        if phase == "vision" {
            watched(60, || {
                chat.image(&rgb).expect("two views");
                assert_eq!(chat.image(&rgb).expect_err("the third cancels"), Error::Cancelled);
            });
            continue;
        }
        let mut answer = watched(60, || chat.ask(&[], "stop").expect("fits"));
        let text = watched(60, || answer.text().expect("cancelling is no error"));
        assert_eq!(answer.stop_reason(), Some(StopReason::Cancelled));
        if phase == "prefill" {
            assert_eq!(text, "");
            drop(answer);
            assert_eq!(chat.position(), 0, "as before the question");
        }
        chat.unobserve();
        chat.reset();
        let mut answer = chat.ask(&[], "go on").expect("fits");
        answer.text().expect("runs");
        let prompt = prompt_values(answer.prompt_token_ids(), &[]);
        assert_eq!(answer.token_ids(), expected(&prompt, 50, true));
    }
}

#[test]
fn an_observer_sees_every_step_with_its_rows() {
    let model = model();
    let mut chat = model.session(options(2)).expect("a session");
    let (send, receive) = std::sync::mpsc::channel();
    chat.observe(move |view| {
        let rows: Vec<Vec<f32>> = view.iter().map(Iterator::collect).collect();
        assert_eq!(rows.len(), view.rows);
        assert!(rows.iter().all(|row| row.len() == view.step.channels));
        let _ = send.send((view.phase.name(), view.step.name, view.start, view.rows, rows[0][0]));
    });
    let gray = pixels(1);
    let image = chat.image(&Rgb8::new(SIDE, SIDE, &gray).expect("square")).expect("encodes");
    let seen: Vec<_> = receive.try_iter().collect();
    let first = (SIDE * SIDE * 3) as f32;
    let steps = ["vision.rows", "vision.number"];
    assert_eq!(seen, steps.map(|name| ("vision", name, 0, TOKENS, first)));
    let mut answer = chat.ask(&[&image], "see").expect("fits");
    answer.text().expect("runs");
    let n = answer.prompt_token_ids().len();
    let seen: Vec<_> = receive.try_iter().collect();
    let rows: usize =
        seen.iter().filter(|step| step.0 == "prefill" && step.1 == "decoder.0.cache").map(|step| step.3).sum();
    assert_eq!(rows, n);
    assert!(seen.iter().all(|step| step.1 != "decoder.head" || step.3 == 1));
}

#[test]
fn a_sampler_of_temperature_reads_the_logits() {
    let model = model();
    let sampler = SamplerOptions { temperature: 0.01, ..Default::default() };
    let mut chat = model.session(Options { sampler, ..options(10) }).expect("a session");
    let mut answer = chat.ask(&[], "warm").expect("fits");
    answer.text().expect("runs");
    // One logit is 9, the others 0: at this temperature nothing else can be drawn.
    let prompt = prompt_values(answer.prompt_token_ids(), &[]);
    assert_eq!(answer.token_ids(), expected(&prompt, 10, false));
}

#[test]
fn options_out_of_range_are_named() {
    let model = model();
    let with = |change: fn(&mut SamplerOptions)| {
        let mut options = Options::default();
        change(&mut options.sampler);
        model.session(options).map(|_| ())
    };
    for result in [
        with(|s| s.temperature = f32::NAN),
        with(|s| s.temperature = -1.0),
        with(|s| s.top_p = 0.0),
        with(|s| s.top_p = f32::NAN),
        with(|s| s.repetition_penalty = 0.0),
        model.session(Options { threads: Some(0), ..Options::default() }).map(|_| ()),
        model.session(Options { threads: Some(1 << 20), ..Options::default() }).map(|_| ()),
    ] {
        assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    }
    let mut chat = model.session(Options { max_new_tokens: 0, ..Options::default() }).expect("a session");
    assert_eq!(chat.ask(&[], "").expect_err("nothing asked"), Error::EmptyPrompt);
    let mut answer = chat.ask(&[], "nothing").expect("fits");
    assert_eq!(answer.text().expect("runs"), "");
    assert_eq!(answer.stop_reason(), Some(StopReason::MaxTokens));
}

#[test]
fn a_panic_poisons_the_session_and_nothing_else() {
    without_noise();
    let model = model();
    for threads in [1, 2, 5] {
        let mut chat = model.session(Options { threads: Some(threads), ..options(3) }).expect("a session");
        let bad = pixels(13);
        let rgb = Rgb8::new(SIDE, SIDE, &bad).expect("square");
        let poisoned = Error::Poisoned { reason: "thirteen".into() };
        watched(60, || {
            assert_eq!(chat.image(&rgb).expect_err("panics"), poisoned);
            assert_eq!(chat.ask(&[], "anyone?").expect_err("poisoned"), poisoned);
        });
        let mut other = model.session(options(3)).expect("a session");
        other.ask(&[], "fine").expect("fits").text().expect("runs");
    }
}

#[test]
fn what_the_code_claims_is_checked() {
    let file = fake_file();
    let error =
        Model::<Crooked>::from_bytes("fake", &file, &OpenOptions::default()).expect_err("logits leave the arena");
    assert_eq!(error.code(), "program");
    let error = Model::<Elsewhere>::from_bytes("fake", &file, &OpenOptions::default()).expect_err("no such CPU");
    assert!(error.to_string().starts_with("needs avx2, fma and f16c (x86-64-v3); this CPU lacks "), "{error}");
    let named =
        |level| Model::<Fake>::from_bytes("fake", &file, &OpenOptions { level: Some(level), ..Default::default() });
    assert_eq!(named("plain").expect("available").level(), "plain");
    assert_eq!(named("best").expect_err("not here").code(), "cpu");
    let unknown = Error::UnknownLevel { name: "avx9".into(), known: "best, plain".into() };
    assert_eq!(named("avx9").expect_err("unknown"), unknown);
}

#[test]
fn an_arena_that_does_not_fit_is_a_typed_error() {
    let model =
        Model::<Giant>::from_bytes("fake", &fake_file(), &OpenOptions::default()).expect("opening needs no arena");
    let error = model.session(Options::default()).expect_err("64 TB");
    let Error::OutOfMemory { item, need, .. } = error else { panic!("{error}") };
    assert_eq!(item, "the session's arena");
    assert!(need >= 1 << 46);
    assert_eq!(error.exit_code(), 4);
}

/// Models are shared between threads, sessions move between them.
#[test]
fn types_cross_threads() {
    fn shared<T: Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Model<Fake>>();
    shared::<runtime_min::Image>();
    shared::<runtime_min::CancelToken>();
    moved::<runtime_min::Session<'static, Fake>>();
    moved::<runtime_min::Answer<'static, 'static, Fake>>();
}
