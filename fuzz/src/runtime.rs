//! Targets of the runtime, around the test program of `runtime-min/tests/common`.

use crate::bytes::Bytes;
use crate::common;
use common::{CONTEXT, Fake};
use runtime_min::image::{Rgb8, preprocess};
use runtime_min::tokenizer::{DecodeStream, Tokenizer};
use runtime_min::{Error, Image, ImagePolicy, Model, OpenOptions, Options, SamplerOptions, Session};
use std::sync::LazyLock;

/// What no input may cause: a panic of a member, or a contradiction between code and runtime.
fn allowed(error: &Error) {
    assert!(!matches!(error.code(), "poisoned" | "program"), "{error}");
    assert!(!error.to_string().is_empty());
}

/// A weight file with changed words, whose checksums may be right all the same: then a question is asked.
///
/// Bytes: flags; number of changes; place and value of each; what the tokenizer's section begins with.
pub fn weights_load(data: &[u8]) {
    let mut data = Bytes(data);
    let flags = data.byte();
    let mut file = common::fake_file();
    let tokenizer_at = u64_at(&file, 80 + 32) as usize;
    for _ in 0..data.byte() % 16 {
        let (place, value) = (data.below(file.len()), data.long());
        // Words of the header, single bytes of the sections.
        if place < 4096 {
            let at = place % 224 / 8 * 8;
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        } else {
            file[place] = value as u8;
        }
    }
    if flags & 1 != 0 {
        let n = data.0.len().min(file.len() - tokenizer_at);
        file[tokenizer_at..tokenizer_at + n].copy_from_slice(&data.0[..n]);
    }
    match flags >> 1 & 3 {
        0 => {}
        1 => file.truncate(data.below(file.len())),
        2 => file.extend_from_slice(data.0),
        _ => {
            let len = file.len() as u64;
            file[16..24].copy_from_slice(&len.to_le_bytes());
        }
    }
    if flags & 8 != 0 && file.len() >= 4096 {
        for entry in (80..224).step_by(64) {
            let (offset, len) = (u64_at(&file, entry + 32) as usize, u64_at(&file, entry + 40) as usize);
            if let Some(section) = offset.checked_add(len).and_then(|end| file.get(offset..end)) {
                let sum = runtime_min::hash::xxh64(section, 0);
                file[entry + 48..entry + 56].copy_from_slice(&sum.to_le_bytes());
            }
        }
        common::seal(&mut file);
    }
    let model = match Model::<Fake>::from_bytes("fuzzed", &file, &OpenOptions::default()) {
        Ok(model) => model,
        Err(error) => return allowed(&error),
    };
    let options = Options { max_new_tokens: 9, threads: Some(1 + usize::from(flags >> 6 & 1)), ..Options::default() };
    let mut chat = model.session(options).expect("there is memory");
    let result = chat.ask(&[], "What is it? \u{e9}e\u{301}").and_then(|mut answer| answer.text());
    if let Err(error) = result {
        allowed(&error);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Tokenizer tables made from bytes, honest or with changed words; then text to ids and back.
///
/// Bytes: flags; number of merges; the ids of each; number of changes; place and value of each; the text.
pub fn tokenizer(data: &[u8]) {
    let mut data = Bytes(data);
    let flags = data.byte();
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"];
    tokens.extend(special.map(|name| name.as_bytes().to_vec()));
    let mut merges: Vec<[u32; 4]> = Vec::new();
    for rank in 0..u32::from(data.byte() % 64) {
        // New tokens and bytes; the special ones between them merge with nothing.
        let pick = |data: &mut Bytes<'_>| match data.below(tokens.len()) {
            id @ 256..260 => id - 256,
            id => id,
        };
        let (left, right) = (pick(&mut data), pick(&mut data));
        let pair = [left as u32, right as u32];
        let whole = [&tokens[left][..], &tokens[right]].concat();
        if merges.iter().all(|merge| merge[..2] != pair) && whole.len() < 1000 {
            merges.push([pair[0], pair[1], rank, tokens.len() as u32]);
            tokens.push(whole);
        }
    }
    let mut section = section(&tokens, &merges);
    let changes = if flags & 1 == 0 { 0 } else { data.byte() % 8 };
    for _ in 0..changes {
        let (at, value) = (data.below(section.len() / 4) * 4, data.word());
        section[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    match flags >> 1 & 3 {
        1 => section.truncate(data.below(section.len())),
        2 => section.extend_from_slice(&[0; 3]),
        _ => {}
    }
    let honest = changes == 0 && !matches!(flags >> 1 & 3, 1 | 2);
    let tokenizer = match Tokenizer::from_section(&section) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(!honest, "{error}");
            return allowed(&error);
        }
    };
    let text = String::from_utf8_lossy(data.0);
    let ids = encoded(&tokenizer, &text);
    let decoded = decoded(&tokenizer, &ids);
    if honest {
        // Decoding gives the text in NFC, of which that is the same.
        assert_eq!(encoded(&tokenizer, &decoded), ids);
        assert!(!text.is_ascii() || text == decoded);
    }
}

fn encoded(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).expect("there is memory");
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab() && !tokenizer.is_special(id)));
    ids
}

fn decoded(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> String {
    let mut stream = DecodeStream::new(tokenizer).expect("there is memory");
    let mut text: String = ids.iter().map(|&id| stream.push(id).to_string()).collect();
    stream.push(u32::MAX);
    text.push_str(stream.finish());
    text
}

fn section(tokens: &[Vec<u8>], merges: &[[u32; 4]]) -> Vec<u8> {
    let n_slots = (merges.len() * 2).next_power_of_two().max(2);
    let mut slots = vec![[u32::MAX; 4]; n_slots];
    for merge in merges {
        let mut at = (merge[0].wrapping_mul(0x9E37_79B1) ^ merge[1].wrapping_mul(0x85EB_CA6B)) as usize % n_slots;
        while slots[at][0] != u32::MAX {
            at = (at + 1) % n_slots;
        }
        slots[at] = *merge;
    }
    let bytes = tokens.concat();
    let mut words = vec![tokens.len() as u32, merges.len() as u32, 4, bytes.len() as u32, n_slots as u32, 0];
    words.extend(tokens.iter().scan(0, |end, token| {
        *end += token.len() as u32;
        Some(*end)
    }));
    words.extend(slots.concat());
    words.extend(0..256);
    // Special ids, roles, two that end an answer, and no added ones to be found in text.
    words.extend([256, 257, 258, 259, 256, 257, 258, 259, 2, 258, 256, 0]);
    let mut section = b"TOK1".to_vec();
    section.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    section.extend(bytes);
    section
}

static MODEL: LazyLock<Model<Fake>> = LazyLock::new(common::model);

/// Calls of the public API in any order, with any numbers: each gives a result or an error, and ids stay ids.
pub fn api_calls(data: &[u8]) {
    let mut data = Bytes(data);
    let Some(mut chat) = session(&mut data) else { return };
    let mut images: Vec<Image> = Vec::new();
    for _ in 0..64 {
        if data.is_empty() {
            break;
        }
        match data.byte() % 10 {
            0 => {
                if let Some(other) = session(&mut data) {
                    chat = other;
                }
            }
            1 => chat.reset(),
            2 => chat.set_max_new_tokens(data.count()),
            3 => chat.set_ignore_eos(data.byte() % 2 == 0),
            4 => {
                let (w, h, value) = (1 + data.below(40), 1 + data.below(40), data.byte());
                let pixels = vec![value; w * h * 3];
                let picture = Rgb8::new(w, h, &pixels).expect("as many as said");
                let input = chat.preprocess(&picture).expect("a good picture");
                // What the test program panics at on purpose.
                if input.bytes()[0] == 13 {
                    continue;
                }
                let image = chat.encode(&input).expect("a good picture");
                assert_eq!((image.tokens(), image.rows().len() % image.tokens()), (common::TOKENS, 0));
                images.truncate(3);
                images.push(image);
            }
            5 => chat.cancel_token().cancel(),
            _ => ask(&mut chat, &images, &mut data),
        }
        assert!(chat.position() <= CONTEXT + 1);
    }
}

fn session(data: &mut Bytes<'_>) -> Option<Session<'static, Fake>> {
    let flags = data.byte();
    let mut options = Options { max_new_tokens: data.count(), ..Options::default() };
    // Many threads take time and show nothing new.
    options.threads = Some(match flags & 7 {
        7 => data.count().max(1025),
        6 => 0,
        n => 1 + usize::from(n) / 2,
    });
    options.ignore_eos = flags & 8 != 0;
    if flags & 16 != 0 {
        let [temperature, top_p, repetition_penalty] = [0; 3].map(|_| data.float());
        options.sampler =
            SamplerOptions { temperature, top_k: data.count(), top_p, repetition_penalty, seed: data.long() };
    }
    let valid = options.sampler.check().is_ok() && (1..=1024).contains(&options.threads.unwrap_or(1));
    match MODEL.session(options) {
        Ok(chat) => {
            assert!(valid, "accepted");
            Some(chat)
        }
        Err(error) => {
            assert!(!valid && error.code() == "argument", "{error}");
            None
        }
    }
}

fn ask(chat: &mut Session<'_, Fake>, images: &[Image], data: &mut Bytes<'_>) {
    let (chosen, n) = (data.byte(), data.count().min(2 * CONTEXT));
    let chosen: Vec<&Image> = images.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1).map(|(_, i)| i).collect();
    let text = String::from_utf8_lossy(&data.0[..n.min(data.0.len())]).into_owned();
    data.0 = &data.0[n.min(data.0.len())..];
    let (pieces, cancelled_at) = (data.byte(), data.byte());
    let before = chat.position();
    let cancel = chat.cancel_token();
    let mut answer = match chat.ask(&chosen, &text) {
        Ok(answer) => answer,
        Err(error) => {
            allowed(&error);
            assert!(matches!(error.code(), "prompt-too-long" | "empty-prompt"), "{error}");
            return assert_eq!(chat.position(), before, "refused before any work");
        }
    };
    for i in 0..pieces {
        if i == cancelled_at {
            cancel.cancel();
        }
        // Lent and owned pieces in turn.
        let piece = if i % 2 == 0 { answer.next_piece().map(|p| p.map(String::from)) } else { answer.next() };
        match piece {
            Some(piece) => assert!(!piece.expect("the test program's ids are good").is_empty()),
            None => break,
        }
    }
    let vocab = answer.logits().expect("the test program makes them").len();
    assert!(answer.token_ids().iter().all(|&id| (id as usize) < vocab));
}

/// A saved conversation with changed words, whose checksums may be right all the same: what is restored goes on.
///
/// Bytes: flags; number of changes; place and value of each; where it ends, or what follows.
pub fn saved(data: &[u8]) {
    static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let sampler = SamplerOptions { temperature: 2.0, repetition_penalty: 1.1, ..SamplerOptions::default() };
        let options = Options { max_new_tokens: 5, ignore_eos: true, threads: Some(1), sampler, ..Options::default() };
        let mut chat = MODEL.session(options).expect("there is memory");
        let pixels = [7; 48];
        let image = chat.image(&Rgb8::new(4, 4, &pixels).expect("as many as said")).expect("a good picture");
        chat.ask(&[&image], "What?").expect("fits").text().expect("runs");
        let mut bytes = Vec::new();
        chat.save(&mut bytes).expect("there is memory");
        bytes
    });
    let mut data = Bytes(data);
    let (flags, mut file) = (data.byte(), GOOD.clone());
    let facts = 160..160 + 4 * u64_at(&file, 80) as usize + 8 * u64_at(&file, 64) as usize;
    for _ in 0..data.byte() % 16 {
        let (place, value) = (data.below(file.len()), data.long());
        // Words of the header, half words behind it.
        let (at, n) = if place < 160 { (place / 8 * 8, 8) } else { (place / 4 * 4, 4) };
        file[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
    }
    if flags & 1 != 0 {
        let sum = runtime_min::hash::xxh64(&file[facts], 0);
        file[152..160].copy_from_slice(&sum.to_le_bytes());
        let sum = runtime_min::hash::xxh64(&file[32..], 0);
        file[24..32].copy_from_slice(&sum.to_le_bytes());
    }
    match flags >> 1 & 3 {
        1 => file.truncate(data.below(file.len())),
        2 => file.extend_from_slice(data.0),
        _ => {}
    }
    let options = Options { max_new_tokens: 5, threads: Some(1), ..Options::default() };
    let mut chat = MODEL.session(options).expect("there is memory");
    match chat.restore(&mut &file[..]) {
        Ok(()) => assert!(chat.position() <= CONTEXT + 1),
        Err(error) => {
            allowed(&error);
            assert!(matches!(error.code(), "saved-damaged" | "saved-foreign"), "{error}");
            assert_eq!(chat.position(), 0, "a failure leaves a conversation");
        }
    }
    let rest = chat.go_on().and_then(|mut answer| answer.text());
    let more = chat.ask(&[], "And now?").and_then(|mut answer| answer.text());
    for error in [rest, more].into_iter().filter_map(Result::err) {
        allowed(&error);
    }
}

/// Pictures of any claimed size, and the model's input from those that are true.
///
/// Bytes: flags; width; height; surplus or missing bytes; side of the input; orientation; the color of padding; pixels,
/// which repeat.
pub fn image(data: &[u8]) {
    let mut data = Bytes(data);
    let flags = data.byte();
    let (width, height) = match flags & 3 {
        0 => (data.long() as usize, data.long() as usize),
        1 => (data.below(1 << 16), data.below(4)),
        2 => (data.below(4), data.below(1 << 16)),
        _ => (data.below(200), data.below(200)),
    };
    let surplus = if flags & 4 == 0 { 0 } else { data.byte() as i8 };
    let (side, orientation, color) = (data.count() % 300, data.byte(), data.array::<3>());
    // Pixels that nobody has room for are claimed, not made.
    let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3)).filter(|&n| n <= 1 << 20);
    let len = expected.unwrap_or(1000).saturating_add_signed(surplus.into());
    let flat = flags & 8 != 0;
    let bytes = if data.is_empty() || flat { &color[..] } else { data.0 };
    let pixels: Vec<u8> = bytes.iter().copied().cycle().take(len).collect();
    let picture = match Rgb8::new(width, height, &pixels) {
        Ok(picture) => picture,
        Err(error) => return allowed(&error),
    };
    assert_eq!(Some(len), expected, "accepted");
    match picture.oriented(orientation) {
        Ok(turned) => {
            let mut sizes = [turned.view().width(), turned.view().height()];
            sizes.sort();
            assert_eq!(sizes, [width.min(height), width.max(height)]);
            let sum = |pixels: &[u8]| pixels.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            assert_eq!(sum(turned.view().pixels()), sum(&pixels), "the same pixels in another order");
        }
        Err(error) => {
            assert!(!(1..=8).contains(&orientation));
            allowed(&error);
        }
    }
    for policy in [ImagePolicy::Pad { color }, ImagePolicy::Crop] {
        match preprocess(&picture, side, &policy) {
            Ok(input) => {
                assert_eq!(input.len(), side * side * 3);
                // One color stays that color, but for a rounding of the fixed-point weights.
                let near = |pixel: &[u8; 3]| pixel.iter().zip(&color).all(|(&a, &b)| a.abs_diff(b) <= 1);
                assert!(!flat || input.as_chunks::<3>().0.iter().all(near));
            }
            Err(error) => {
                assert_eq!(side, 0, "{error}");
                allowed(&error);
            }
        }
    }
}
