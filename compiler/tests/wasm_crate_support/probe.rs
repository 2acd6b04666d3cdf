//! A module around an emitted crate for WebAssembly: tells what every step makes, by hash. Built by the tests beside an
//! emitted crate whose library is `model`; it is no module of theirs.
//!
//! The host asks for room for the weight file (`room`), fills it, and calls `ask`; `told` and `told_len` are the text, in the
//! format of the native probe.

mod watch;

use model::{Error, Model, OpenOptions, Options, Rgb8, WeightBuffer};
use std::cell::RefCell;

thread_local! {
    static WEIGHTS: RefCell<Option<WeightBuffer>> = const { RefCell::new(None) };
    static TOLD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the weight file goes.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    let mut buffer = WeightBuffer::new(bytes).expect("memory");
    let at = buffer.bytes_mut().as_mut_ptr();
    WEIGHTS.set(Some(buffer));
    at
}

/// Asks about a picture of noise; 0 if all went well.
#[unsafe(no_mangle)]
pub extern "C" fn ask() -> u32 {
    let buffer = WEIGHTS.take().expect("room was asked for");
    let (text, code) = match answer(buffer) {
        Ok(text) => (text, 0),
        Err(error) => (error.to_string(), 1),
    };
    TOLD.set(text.into_bytes());
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn told() -> *const u8 {
    TOLD.with_borrow(|text| text.as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn told_len() -> usize {
    TOLD.with_borrow(|text| text.len())
}


fn answer(buffer: WeightBuffer) -> Result<String, Error> {
    let model = Model::from_buffer("weights.tvlm", buffer, &OpenOptions::default())?;
    let options = Options { max_new_tokens: 5, ignore_eos: true, speculation: 0, ..Options::default() };
    let mut chat = model.session(options)?;
    let noise: Vec<u8> = (0..50 * 31 * 3).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8).collect();
    let pixels = chat.preprocess(&Rgb8::new(50, 31, &noise)?)?;
    let seen = watch::watch(&mut chat);
    let image = chat.encode(&pixels)?;
    let mut answer = chat.ask(&[&image], "What is this?")?;
    let prompt: Vec<String> = answer.prompt_token_ids().iter().map(|id| id.to_string()).collect();
    while let Some(piece) = answer.next_piece() {
        piece?;
    }
    let tokens: Vec<String> = answer.token_ids().iter().map(|id| id.to_string()).collect();
    // The logits that the last token was chosen from.
    answer.logits()?;
    drop(answer);
    let (level, threads) = (chat.level(), chat.threads());
    let steps = seen.lock().expect("no observer").clone();
    let hex: String = pixels.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{hex}\nrun {level} {threads}\n{steps}prompt {}\ntokens {}\n", prompt.join(" "), tokens.join(" ")))
}
