//! A tiny program with a memory, and weight files for it.
//!
//! The decoder's "cache" holds one number per position; the next token is a function of all of them, so any slip in
//! positions, turns or images changes the answer. [`expected`] computes the same in three lines.

#![allow(dead_code)]

use runtime_min::hash::{Xxh64, xxh64};
use runtime_min::{CacheSlot, Cx, ImagePolicy, Info, Level, Model, OpenOptions, Program, Side, Step};
use std::time::Duration;

pub const DIGEST: [u8; 32] = [0x5a; 32];
pub const END_OF_TEXT: u32 = 256;
pub const IM_START: u32 = 257;
pub const IM_END: u32 = 258;
pub const IMAGE: u32 = 259;
pub const SIDE: usize = 4;
pub const TOKENS: usize = 3;
pub const SMALL_SIDE: usize = 2;
pub const SMALL_TOKENS: usize = 2;
pub const CONTEXT: usize = 200;
pub const HIDDEN: usize = 8;
const VOCAB: usize = 262;
const CHUNK: usize = 7;

const IMAGE_ROWS: usize = 448;
const IMAGE_PITCH: usize = 16;
const ROWS: usize = IMAGE_ROWS + TOKENS * IMAGE_PITCH * 4;
const LOGITS: usize = ROWS + CHUNK * HIDDEN * 4 + 32;
const LOGITS_PITCH: usize = 272;
const VERIFY: usize = 4;
const TOKEN: usize = LOGITS + VERIFY * LOGITS_PITCH * 4;
const CACHE: usize = TOKEN + 64;
const ARENA: usize = CACHE + CONTEXT * 4;

const VISION_ROWS: Step = Step {
    name: "vision.rows",
    slot: IMAGE_ROWS,
    rows: TOKENS,
    channels: HIDDEN,
    pitch: IMAGE_PITCH,
    half: false,
    macs: 1,
};
static VISION: [Step; 2] = [VISION_ROWS, Step { name: "vision.number", macs: 0, ..VISION_ROWS }];
static SMALL_VISION: [Step; 2] = [
    Step { rows: SMALL_TOKENS, ..VISION_ROWS },
    Step { name: "vision.number", rows: SMALL_TOKENS, macs: 0, ..VISION_ROWS },
];
static DECODER: [Step; 2] = [
    Step { name: "decoder.0.cache", slot: ROWS, rows: 0, channels: HIDDEN, pitch: HIDDEN, half: false, macs: 8 },
    Step { name: "decoder.head", slot: LOGITS, rows: 1, channels: VOCAB, pitch: VOCAB, half: false, macs: 1 },
];

pub const FAKE: Info = Info {
    name: "fake",
    hidden: HIDDEN,
    vocab: VOCAB,
    max_context: CONTEXT,
    chunk: CHUNK,
    verify_rows: VERIFY,
    system: runtime_min::template::SYSTEM,
    baked: false,
    cache: &[CacheSlot { slot: CACHE, pieces: 1, pitch: 0, block: 1, block_bytes: 4 }],
    arena_bytes: ARENA,
    scratch_bytes: 64,
    weights_bytes: 16,
    sides: &[
        Side { side: SMALL_SIDE, tokens: SMALL_TOKENS, input: 0, rows: IMAGE_ROWS, steps: &SMALL_VISION },
        Side { side: SIDE, tokens: TOKENS, input: 0, rows: IMAGE_ROWS, steps: &VISION },
    ],
    image_rows_pitch: IMAGE_PITCH,
    rows: ROWS,
    rows_pitch: HIDDEN,
    logits: LOGITS,
    logits_pitch: LOGITS_PITCH,
    token: TOKEN,
    policy: ImagePolicy::Pad { color: [0; 3] },
    digest: DIGEST,
    weights_name: "weights.tvlm",
    late_logits: false,
    steps: [&DECODER, &DECODER, &DECODER],
};

/// The program. A red value of 13 in the first pixel makes the last member panic.
pub struct Fake;

/// The same, but it repeats itself most of the time.
pub struct Parrot;

/// The same without a phase for a few rows.
pub struct Plain;

/// The same with an end of its arena that the logits cross.
pub struct Crooked;

/// The same for a processor that nobody has.
pub struct Elsewhere;

/// The same with an arena that nobody has.
pub struct Giant;

impl Program for Fake {
    fn info() -> &'static Info {
        &FAKE
    }
    const LEVELS: &'static [Level] =
        &[Level { name: "best", available: || false }, Level { name: "plain", available: || true }];

    fn with_level(level: usize) -> Self {
        assert_eq!(level, 1);
        Self
    }

    fn vision(&self, cx: &Cx<'_>, side: usize) {
        let Side { side, tokens, steps, .. } = Self::info().sides[side];
        // SAFETY: the slot holds (side + 2)² x 3 floats, written before the barrier.
        let image = unsafe { std::slice::from_raw_parts(cx.slot(0), (side + 2) * (side + 2) * 3) };
        let first = image[(side + 2) * 3 + 3];
        if first == 13.0 && cx.id() == cx.count() - 1 {
            panic!("thirteen");
        }
        let sum: f32 = image.iter().sum();
        for row in cx.part(tokens) {
            let at = cx.slot(IMAGE_ROWS + row * IMAGE_PITCH * 4);
            // SAFETY: rows of HIDDEN floats, one member each.
            unsafe { std::slice::from_raw_parts_mut(at, HIDDEN) }.fill(sum);
        }
        if cx.end(&steps[0], 0) {
            return;
        }
        for row in cx.part(tokens) {
            let at = cx.slot(IMAGE_ROWS + row * IMAGE_PITCH * 4);
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(at, HIDDEN) }.fill(sum + row as f32);
        }
        let _ = cx.end(&steps[1], 0);
    }

    fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        decoder(cx, start, rows, rows - 1, next);
    }

    fn decode(&self, cx: &Cx<'_>, start: usize) {
        self.prefill(cx, start, 1);
    }

    fn verify(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        assert!((2..=VERIFY).contains(&rows));
        decoder(cx, start, rows, 0, next);
    }

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        // SAFETY: `row < CHUNK`, one member each.
        let row = unsafe { std::slice::from_raw_parts_mut(cx.slot(ROWS + row * HIDDEN * 4), HIDDEN) };
        row.fill(0.0);
        row[0] = id as f32;
    }
}

/// The decoder: `rows` positions from `start` on, and logits for the rows from `first` on, whose largest is what `next`
/// makes of all positions.
pub fn decoder(cx: &Cx<'_>, start: usize, rows: usize, first: usize, next: fn(&mut dyn Iterator<Item = u32>) -> u32) {
    assert!((1..=CHUNK).contains(&rows) && start + rows <= CONTEXT);
    for row in cx.part(rows) {
        // SAFETY: in bounds as asserted, one member each.
        unsafe {
            let from = std::slice::from_raw_parts(cx.slot(ROWS + row * HIDDEN * 4), HIDDEN);
            *cx.slot(CACHE + (start + row) * 4) = from.iter().sum();
            *cx.scratch() = row as f32;
        }
    }
    if cx.end(&DECODER[0], rows) {
        return;
    }
    for (place, row) in (first..rows).enumerate().filter(|_| cx.id() == 0) {
        // SAFETY: positions up to start + row are written, the others wait at the next barrier.
        unsafe {
            let cache = std::slice::from_raw_parts(cx.slot(CACHE), start + row + 1);
            let token = next(&mut cache.iter().map(|&value| value as u32));
            let logits = std::slice::from_raw_parts_mut(cx.slot(LOGITS + place * LOGITS_PITCH * 4), VOCAB);
            logits.fill(0.0);
            logits[token as usize] = 9.0;
            cx.slot(TOKEN + place * 4).cast::<u32>().write(token);
        }
    }
    let _ = cx.end(&DECODER[1], rows);
}

impl Program for Parrot {
    fn info() -> &'static Info {
        &FAKE
    }
    const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];

    fn with_level(_: usize) -> Self {
        Self
    }

    fn vision(&self, cx: &Cx<'_>, side: usize) {
        Fake.vision(cx, side);
    }

    fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        decoder(cx, start, rows, rows - 1, parrot);
    }

    fn decode(&self, cx: &Cx<'_>, start: usize) {
        self.prefill(cx, start, 1);
    }

    fn verify(&self, cx: &Cx<'_>, start: usize, rows: usize) {
        assert!((2..=VERIFY).contains(&rows));
        decoder(cx, start, rows, 0, parrot);
    }

    fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
        Fake.embed(cx, id, row);
    }
}

/// The phases of a program that works as [`Fake`] does and says other things of itself.
macro_rules! phases_of_fake {
    () => {
        fn vision(&self, cx: &Cx<'_>, side: usize) {
            Fake.vision(cx, side);
        }

        fn prefill(&self, cx: &Cx<'_>, start: usize, rows: usize) {
            Fake.prefill(cx, start, rows);
        }

        fn decode(&self, cx: &Cx<'_>, start: usize) {
            Fake.decode(cx, start);
        }

        fn verify(&self, cx: &Cx<'_>, start: usize, rows: usize) {
            Fake.verify(cx, start, rows);
        }
    };
}
#[allow(unused_imports)]
pub(crate) use phases_of_fake;

/// The test program with another `Info`.
#[allow(unused_macros)]
macro_rules! fake_with {
    ($name:ty, $info:expr) => {
        impl Program for $name {
            fn info() -> &'static Info {
                &$info
            }
            const LEVELS: &'static [Level] = &[Level { name: "plain", available: || true }];

            fn with_level(_: usize) -> Self {
                Self
            }

            phases_of_fake!();

            fn embed(&self, cx: &Cx<'_>, id: u32, row: usize) {
                Fake.embed(cx, id, row);
            }
        }
    };
}
#[allow(unused_imports)]
pub(crate) use fake_with;

fake_with!(Plain, Info { verify_rows: 1, ..FAKE });

/// Letters in a circle of seven, out of step at every eleventh position, and an end token at last.
fn parrot(cache: &mut dyn Iterator<Item = u32>) -> u32 {
    let (n, last) = cache.fold((0, 0), |(n, _), value| (n + 1, value));
    if n == 180 { IM_END } else { 97 + (last + 1 + 2 * u32::from(n % 11 == 0)) % 7 }
}

macro_rules! like_fake {
    ($type:ty, $info:expr, $levels:expr) => {
        impl Program for $type {
            fn info() -> &'static Info {
                &$info
            }
            const LEVELS: &'static [Level] = $levels;
            fn with_level(_: usize) -> Self {
                Self
            }
            fn vision(&self, _: &Cx<'_>, _: usize) {}
            fn prefill(&self, _: &Cx<'_>, _: usize, _: usize) {}
            fn decode(&self, _: &Cx<'_>, _: usize) {}
            fn embed(&self, _: &Cx<'_>, _: u32, _: usize) {}
        }
    };
}

like_fake!(Crooked, Info { logits: ARENA - 4, ..FAKE }, &[Level { name: "plain", available: || true }]);
like_fake!(Giant, Info { arena_bytes: 1 << 46, ..FAKE }, &[Level { name: "plain", available: || true }]);
like_fake!(
    Elsewhere,
    FAKE,
    &[Level { name: "x86-64-v4", available: || false }, Level { name: "x86-64-v3", available: || false }]
);

/// The token after these positions: a letter, or an end token after one history in nine.
pub fn next(cache: &mut dyn Iterator<Item = u32>) -> u32 {
    let hash = cache.fold(7u32, |hash, value| (hash ^ value).wrapping_mul(0x9E37_79B1).rotate_left(13));
    if (hash >> 8) % 9 == 0 { IM_END } else { 97 + (hash >> 12) % 26 }
}

/// The answer to `prompt` (values of the positions): tokens up to and including the end token, or `n` of them.
pub fn expected(prompt: &[u32], n: usize, ignore_eos: bool) -> Vec<u32> {
    let mut all = prompt.to_vec();
    while all.len() < prompt.len() + n {
        all.push(next(&mut all.iter().copied()));
        if all[all.len() - 1] == IM_END && !ignore_eos {
            break;
        }
    }
    all.split_off(prompt.len())
}

/// Position values of an image whose pixels are all `value`.
pub fn image_values(value: u8) -> Vec<u32> {
    let sum = u32::from(value) * (SIDE * SIDE * 3) as u32;
    (0..TOKENS as u32).map(|row| (sum + row) * HIDDEN as u32).collect()
}

/// Position values of prompt ids: images were expanded to ids, so put `values` in their places.
pub fn prompt_values(ids: &[i64], images: &[Vec<u32>]) -> Vec<u32> {
    let mut image_values = images.iter().flatten();
    ids.iter()
        .map(|&id| if id == i64::from(IMAGE) { *image_values.next().expect("an image") } else { id as u32 })
        .collect()
}

/// Text of letters.
pub fn text(tokens: &[u32]) -> String {
    tokens.iter().filter(|&&token| token < 128).map(|&token| token as u8 as char).collect()
}

/// A tokenizer of single bytes and four special tokens; `with_image` gives one of them to images.
pub fn tokenizer_section(with_image: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    let mut offsets: Vec<u32> = (0..=256).collect();
    for name in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"] {
        bytes.extend_from_slice(name.as_bytes());
        offsets.push(bytes.len() as u32);
    }
    let image = if with_image { IMAGE } else { u32::MAX };
    let mut words: Vec<u32> = vec![260, 0, 4, bytes.len() as u32, 2];
    words.extend(&offsets);
    words.extend([u32::MAX, 0, 0, 0].repeat(2));
    words.extend(0..256);
    words.extend([END_OF_TEXT, IM_START, IM_END, IMAGE]);
    words.extend([END_OF_TEXT, IM_START, IM_END, image]);
    words.extend([2, IM_END, END_OF_TEXT]);
    // No added tokens to be found in text.
    words.push(0);
    let mut section = b"TOK1".to_vec();
    section.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    section.extend(bytes);
    section
}

/// A weight file of these sections.
pub fn weight_file(digest: [u8; 32], sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut header = vec![0u8; 4096];
    let mut body = Vec::new();
    for (i, (name, bytes)) in sections.iter().enumerate() {
        let offset = 4096 + body.len();
        let entry = &mut header[80 + i * 64..144 + i * 64];
        entry[..name.len()].copy_from_slice(name.as_bytes());
        entry[32..40].copy_from_slice(&(offset as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        entry[48..56].copy_from_slice(&xxh64(bytes, 0).to_le_bytes());
        body.extend_from_slice(bytes);
        if i + 1 < sections.len() {
            body.resize(body.len().next_multiple_of(4096), 0);
        }
    }
    header[..8].copy_from_slice(b"TVLMWT01");
    header[8..12].copy_from_slice(&1u32.to_le_bytes());
    header[12..16].copy_from_slice(&0x0102_0304u32.to_le_bytes());
    header[16..24].copy_from_slice(&(4096 + body.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&4096u64.to_le_bytes());
    header[32..64].copy_from_slice(&digest);
    header[64..68].copy_from_slice(&(sections.len() as u32).to_le_bytes());
    seal(&mut header);
    header.extend(body);
    header
}

/// Makes the header's checksum right.
pub fn seal(file: &mut [u8]) {
    let mut hash = Xxh64::new(0);
    hash.update(&file[..72]);
    hash.update(&[0; 8]);
    hash.update(&file[80..4096]);
    file[72..80].copy_from_slice(&hash.finish().to_le_bytes());
}

/// The weight file of [`Fake`].
pub fn fake_file() -> Vec<u8> {
    weight_file(DIGEST, &[("tokenizer", &tokenizer_section(true)), ("weights", &[3; 100])])
}

/// A model of [`Fake`].
pub fn model() -> Model<Fake> {
    Model::from_bytes("fake", &fake_file(), &OpenOptions { threads: Some(2), ..Default::default() }).expect("intact")
}

/// A file in the temporary folder that goes away with its value.
pub struct TempFile(pub std::path::PathBuf);

impl TempFile {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tvlm-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a writable temporary folder");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `work`; a dead-lock ends the test run instead of hanging it.
pub fn watched<T>(seconds: u64, work: impl FnOnce() -> T) -> T {
    let (done, over) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(seconds)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("no end after {seconds} s: dead-lock");
            std::process::abort();
        }
    });
    let result = work();
    drop(done);
    watch.join().expect("the watch does not panic");
    result
}

/// Keeps panics of the runtime's threads, which have no names, off the screen: tests cause them on purpose.
pub fn without_noise() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some() {
                usual(info);
            }
        }));
    });
}
