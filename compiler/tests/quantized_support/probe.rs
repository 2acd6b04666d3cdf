//! A program around an emitted crate: tells what every step makes, by hash, and what a token allocates. Built by
//! the tests beside an emitted crate whose library is `model`; it is no module of theirs.
//!
//! `probe WEIGHTS WxH:PICTURE.rgb PROMPT TOKENS LEVEL:THREADS...` writes, for each pair of the last arguments, a line
//! `run LEVEL THREADS`, one line for each step, and the ids of the prompt and of the answer; the prepared picture goes to
//! `pixels.u8`. `guess` before the pairs asks without watching the steps, with guessed tokens and without, and writes how
//! many were guessed and right. `refuse LEVEL:THREADS` as the last arguments refuses each allocation in turn instead.

mod watch;

use model::{Answer, Error, Model, OpenOptions, Options, Rgb8, SamplerOptions, Turn};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Counts the allocations of this process, and refuses one.
struct Watched;

static ASKED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: passes everything on to the system's allocator, or answers that there is no memory.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ASKED.fetch_add(1, SeqCst) == REFUSED.load(SeqCst) {
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
static WATCHED: Watched = Watched;

/// What is asked.
struct Question<'a> {
    weights: &'a str,
    picture: Rgb8<'a>,
    prompt: &'a str,
    tokens: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [weights, picture, prompt, tokens, runs @ ..] = args.as_slice() else { panic!("arguments: {args:?}") };
    let (size, path) = picture.split_once(':').expect("WxH:PATH");
    let (width, height) = size.split_once('x').expect("WxH");
    let pixels = std::fs::read(path).expect("the picture");
    let (width, height) = (width.parse().expect("a number"), height.parse().expect("a number"));
    let picture = Rgb8::new(width, height, &pixels).expect("as many pixels as it says");
    let question = Question { weights, picture, prompt, tokens: tokens.parse().expect("a number") };
    match runs {
        [word, run] if word == "refuse" => refuse(&question, run),
        [word, runs @ ..] if word == "guess" => runs.iter().for_each(|run| guess(&question, run)),
        runs => runs.iter().for_each(|run| steps(&question, run)),
    }
}

fn parse(run: &str) -> (&str, usize) {
    let (level, threads) = run.split_once(':').expect("LEVEL:THREADS");
    (level, threads.parse().expect("a number"))
}

fn options(question: &Question<'_>, threads: usize) -> Options {
    let (max_new_tokens, threads) = (question.tokens, Some(threads));
    Options { max_new_tokens, ignore_eos: true, threads, speculation: 0, ..Options::default() }
}

/// Asks twice: watched step by step, then alone to count its allocations.
fn steps(question: &Question<'_>, run: &str) {
    let (level, threads) = parse(run);
    let model = Model::open_with(question.weights, &OpenOptions { level: Some(level), ..OpenOptions::default() });
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    let mut chat = model.session(options(question, threads)).unwrap_or_else(|e| panic!("{e}"));
    println!("run {level} {threads}");
    assert_eq!((chat.level(), chat.threads()), (level, threads), "what was asked for");
    let pixels = chat.preprocess(&question.picture).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write("pixels.u8", pixels.bytes()).expect("written");
    let seen = watch::watch(&mut chat);
    let image = chat.encode(&pixels).unwrap_or_else(|e| panic!("{e}"));
    let mut answer = chat.ask(&[&image], question.prompt).unwrap_or_else(|e| panic!("{e}"));
    let prompt = words(answer.prompt_token_ids().iter().map(|id| id.to_string()));
    while let Some(piece) = answer.next_piece() {
        piece.unwrap_or_else(|e| panic!("{e}"));
    }
    let tokens = answer.token_ids().to_vec();
    assert_eq!(largest(&mut answer), tokens.last().copied(), "{level}, {threads} threads: the last token");
    drop(answer);
    chat.unobserve();
    chat.reset();
    print!("{}", seen.lock().expect("no observer"));
    println!("prompt {prompt}\ntokens {}", words(tokens.iter().map(|id| id.to_string())));

    let mut answer = chat.ask(&[&image], question.prompt).unwrap_or_else(|e| panic!("{e}"));
    let before = ASKED.load(SeqCst);
    while let Some(piece) = answer.next_piece() {
        piece.unwrap_or_else(|e| panic!("{e}"));
    }
    let asked = ASKED.load(SeqCst) - before;
    assert_eq!(asked, 0, "{level}, {threads} threads: allocations of {} tokens", question.tokens);
    assert_eq!(answer.token_ids(), tokens, "{level}, {threads} threads: the same question again");
    drop(answer);

    // Whoever looks at all logits before each token gets the same ones, and each is the largest.
    chat.reset();
    let mut answer = chat.ask(&[&image], question.prompt).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(largest(&mut answer), tokens.first().copied(), "{level}, {threads} threads: the first token");
    while answer.next_piece().is_some() {
        let last = answer.token_ids().last().copied();
        assert_eq!(largest(&mut answer), last, "{level}, {threads} threads: a token");
    }
    assert_eq!(answer.token_ids(), tokens, "{level}, {threads} threads: the same question, all logits");
}

/// The index of the largest logit, the first among equals.
fn largest(answer: &mut Answer<'_, '_>) -> Option<u32> {
    let logits = answer.logits().unwrap_or_else(|e| panic!("{e}"));
    let (mut best, mut at) = (f32::NEG_INFINITY, None);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best {
            (best, at) = (logit, Some(id));
        }
    }
    at
}

/// Greedy and drawn, with guesses and without: the same tokens and logits, and no allocation either way. Then a second
/// question, asked and told anew.
fn guess(question: &Question<'_>, run: &str) {
    let (level, threads) = parse(run);
    let model = Model::open_with(question.weights, &OpenOptions { level: Some(level), ..OpenOptions::default() });
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    let drawn = SamplerOptions { temperature: 0.3, top_p: 0.9, repetition_penalty: 1.02, seed: 7, ..Default::default() };
    println!("run {level} {threads}");
    for (name, sampler) in [("greedy", SamplerOptions::default()), ("drawn", drawn)] {
        let mut all: Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> = Vec::new();
        for speculation in [0, 1, 3] {
            let options = Options { sampler: sampler.clone(), speculation, ..options(question, threads) };
            let mut chat = model.session(options).unwrap_or_else(|e| panic!("{e}"));
            let image = chat.image(&question.picture).unwrap_or_else(|e| panic!("{e}"));
            let mut answer = chat.ask(&[&image], question.prompt).unwrap_or_else(|e| panic!("{e}"));
            let before = ASKED.load(SeqCst);
            while let Some(piece) = answer.next_piece() {
                piece.unwrap_or_else(|e| panic!("{e}"));
            }
            assert_eq!(ASKED.load(SeqCst) - before, 0, "{name}, {speculation} guessed: allocations");
            let tokens = answer.token_ids().to_vec();
            let logits = answer.logits().unwrap_or_else(|e| panic!("{e}")).iter().map(|x| x.to_bits()).collect();
            println!("{name} {speculation} {} {}", answer.timings().drafted, answer.timings().accepted);
            drop(answer);
            let mut answer = chat.ask(&[], "And then?").unwrap_or_else(|e| panic!("{e}"));
            let text = answer.text().unwrap_or_else(|e| panic!("{e}"));
            let more = answer.token_ids().to_vec();
            drop(answer);
            all.push((tokens, logits, more.clone()));
            let told = [Turn { images: &[&image], question: question.prompt, answer: "yes" }];
            let mut read = 0;
            for _ in 0..2 {
                let answer = chat.ask_after(&told, &[], "And then?").unwrap_or_else(|e| panic!("{e}"));
                read = answer.timings().prefill_rows;
            }
            assert_eq!(read, 1, "{name}, {speculation} guessed: rows of a conversation that is there ({text:?})");
        }
        assert!(all.iter().all(|one| *one == all[0]), "{level}, {threads} threads, {name}: other tokens or bits");
        println!("{name} {}", words(all[0].0.iter().chain(&all[0].2).map(|id| id.to_string())));
    }
}

fn words(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<String>>().join(" ")
}

/// Each allocation from opening to the answer is refused in turn: an error, or the same tokens, never an abort.
fn refuse(question: &Question<'_>, run: &str) {
    let (level, threads) = parse(run);
    let talk = |made: &mut Vec<u32>| -> Result<(), Error> {
        let model = Model::open_with(question.weights, &OpenOptions { level: Some(level), ..OpenOptions::default() })?;
        let mut chat = model.session(options(question, threads))?;
        let image = chat.image(&question.picture)?;
        let mut answer = chat.ask(&[&image], question.prompt)?;
        while let Some(piece) = answer.next_piece() {
            piece?;
        }
        made.extend_from_slice(answer.token_ids());
        Ok(())
    };
    let mut expected = Vec::with_capacity(question.tokens);
    talk(&mut expected).unwrap_or_else(|e| panic!("{e}"));
    let mut errors = 0;
    for refused in 0.. {
        // An abort ends the process with this as its last words.
        println!("allocation {refused}");
        let mut made = Vec::with_capacity(question.tokens);
        ASKED.store(0, SeqCst);
        REFUSED.store(refused, SeqCst);
        let result = talk(&mut made);
        REFUSED.store(usize::MAX, SeqCst);
        match result {
            Ok(()) => assert_eq!(made, expected, "allocation {refused} refused"),
            Err(e) => {
                assert_eq!(e.code(), "out-of-memory", "allocation {refused} refused: {e}");
                errors += 1;
            }
        }
        if ASKED.load(SeqCst) <= refused {
            assert!(errors > 0, "the allocator was not asked");
            println!("errors {errors}");
            return;
        }
    }
}
