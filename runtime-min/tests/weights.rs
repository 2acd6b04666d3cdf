//! Weight files: one that is not exactly the right one is refused, and says why.

mod common;

use common::*;
use runtime_min::weights::{Expect, WeightFile};
use runtime_min::{Error, Model, OpenOptions, Options, Residence, Verify};

const EXPECT: Expect = Expect { model: "fake", digest: DIGEST };

fn read(bytes: &[u8]) -> Result<WeightFile, Error> {
    WeightFile::from_bytes("weights.tvlm", bytes, &EXPECT)
}

fn open(file: &TempFile, verify: Verify, residence: Residence) -> Result<WeightFile, Error> {
    WeightFile::open(&file.0, &EXPECT, verify, residence)
}

#[test]
fn sections_are_found_and_aligned() {
    let file = read(&fake_file()).expect("intact");
    assert_eq!(file.section("weights", 100).expect("there"), [3; 100]);
    assert_eq!(file.section("weights", 0).expect("there").as_ptr() as usize % 64, 0);
    for (name, least) in [("weights", 101), ("nothing", 0)] {
        assert_eq!(file.section(name, least).expect_err("refused").code(), "weights-section");
    }
}

#[test]
fn all_ways_of_opening_see_the_same_bytes() {
    let bytes = fake_file();
    let file = TempFile::new("same.tvlm", &bytes);
    for verify in [Verify::Auto, Verify::Header, Verify::Full] {
        for residence in [Residence::Auto, Residence::Mapped, Residence::Copied] {
            let opened = open(&file, verify, residence).expect("intact");
            assert_eq!((opened.len(), opened.section("weights", 0).expect("there")), (bytes.len(), &[3; 100][..]));
            let private = if opened.private_bytes() == 0 { Residence::Mapped } else { Residence::Copied };
            assert!(residence == private || residence == Residence::Auto || cfg!(miri));
            opened.verify().expect("intact");
        }
    }
}

#[test]
fn every_flipped_bit_of_the_header_is_found() {
    let intact = fake_file();
    let mut bytes = intact.clone();
    let step = if cfg!(miri) { 997 } else { 1 };
    for bit in (0..4096 * 8).step_by(step) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = read(&bytes).expect_err("damaged");
        assert_eq!(error.exit_code(), 3, "bit {bit}: {error}");
        bytes[bit / 8] = intact[bit / 8];
    }
    read(&bytes).expect("intact again");
}

#[test]
fn every_flipped_bit_of_the_sections_is_found() {
    let intact = fake_file();
    let mut bytes = intact.clone();
    let step = if cfg!(miri) { 9973 } else { 3 };
    for bit in (4096 * 8..intact.len() * 8).step_by(step) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&bytes).expect_err("damaged").code(), "weights-damaged", "bit {bit}");
        bytes[bit / 8] = intact[bit / 8];
    }
    // The header alone says nothing about the sections: that is what `Verify::Header` is for.
    *bytes.last_mut().expect("not empty") ^= 1;
    let file = TempFile::new("flipped.tvlm", &bytes);
    open(&file, Verify::Header, Residence::Mapped).expect("the header is intact");
    for residence in [Residence::Mapped, Residence::Copied] {
        let error = open(&file, Verify::Full, residence).expect_err("damaged");
        assert!(
            error
                .to_string()
                .ends_with("section \"weights\" does not match its checksum, the file is damaged: download again")
        );
    }
}

#[test]
fn truncated_and_overlong_files_tell_both_sizes() {
    let bytes = fake_file();
    let mut edges = vec![0, 1, 7, 8, 63, 79, 80, 81, 4095, 4096, 4097, bytes.len() - 1];
    for entry in 0..2 {
        let at = 80 + entry * 64;
        let offset = u64::from_le_bytes(bytes[at + 32..at + 40].try_into().expect("8 bytes")) as usize;
        let len = u64::from_le_bytes(bytes[at + 40..at + 48].try_into().expect("8 bytes")) as usize;
        edges.extend([offset - 1, offset, offset + 1, offset + len - 1]);
    }
    for len in edges {
        let file = TempFile::new("cut.tvlm", &bytes[..len]);
        for error in [
            read(&bytes[..len]).expect_err("truncated"),
            open(&file, Verify::Header, Residence::Mapped).expect_err("truncated"),
            open(&file, Verify::Auto, Residence::Auto).expect_err("truncated"),
        ] {
            let Error::Truncated { found, expected, .. } = error else { panic!("{len} bytes: {error}") };
            assert_eq!(found, len as u64);
            assert!(expected > found);
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(Error::Overlong { .. })));
}

#[test]
fn messages_say_what_to_do() {
    let mut cut = fake_file();
    let whole = cut.len();
    cut.truncate(4321);
    let say = |bytes: &[u8]| read(bytes).expect_err("refused").to_string();
    let grouped = format!("{},{:03}", whole / 1000, whole % 1000);
    assert_eq!(say(&cut), format!("weights.tvlm: 4,321 of {grouped} bytes: download again"));
    let other = weight_file([1; 32], &[("weights", &[0; 4])]);
    assert!(say(&other).starts_with("weights.tvlm: these weights were packed for another build: "), "{}", say(&other));
    let page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>nothing here, sorry</body></html>";
    assert!(say(page).contains("not a weight file: starts with \"<!DOCTYP\""), "{}", say(page));
    let mut newer = fake_file();
    newer[8] = 2;
    seal(&mut newer);
    assert!(say(&newer).contains("version is 0x2, this build reads 0x1"), "{}", say(&newer));
    let mut swapped = fake_file();
    swapped[12..16].reverse();
    seal(&mut swapped);
    assert!(say(&swapped).contains("byte order"), "{}", say(&swapped));
    let missing = Model::<Fake>::open("/nowhere/weights.tvlm").expect_err("no such file");
    assert!(missing.to_string().starts_with("/nowhere/weights.tvlm: cannot open: "), "{missing}");
    let folder = Model::<Fake>::open(std::env::temp_dir()).expect_err("a folder");
    assert!(matches!(folder, Error::File { .. }), "{folder}");
}

/// A header whose checksum is right and whose contents are not: made by somebody, not by accident.
#[test]
fn hostile_headers_are_refused() {
    let weights = 80 + 64;
    /// Spoils a file, given where the entry of "weights" begins.
    type Spoil = fn(&mut [u8], usize);
    let cases: [(&str, Spoil); 12] = [
        ("header length 0", |h, _| h[24..32].fill(0)),
        ("header length beyond the file", |h, _| h[24..32].copy_from_slice(&(1u64 << 19).to_le_bytes())),
        ("header length not whole pages", |h, _| h[24] = 1),
        ("more sections than fit", |h, _| h[64..68].fill(0xff)),
        ("sections reach into the padding", |h, _| h[64] = 3),
        ("reserved word", |h, _| h[68] = 1),
        ("padding", |h, _| h[4095] = 1),
        ("offset inside the header", |h, at| h[at + 32..at + 40].copy_from_slice(&0u64.to_le_bytes())),
        ("offset that overflows", |h, at| h[at + 32..at + 40].copy_from_slice(&(u64::MAX - 4095).to_le_bytes())),
        ("length that overflows", |h, at| h[at + 40..at + 48].fill(0xff)),
        ("offset off the page", |h, at| h[at + 32] = 64),
        ("name with a hole", |h, at| h[at + 20] = b'x'),
    ];
    for (what, change) in cases {
        let mut bytes = fake_file();
        change(&mut bytes, weights);
        seal(&mut bytes);
        let error = read(&bytes).expect_err(what);
        assert!(matches!(error.code(), "weights-section" | "weights-damaged"), "{what}: {error}");
    }
    let twice = weight_file(DIGEST, &[("weights", &[0; 4]), ("weights", &[0; 4])]);
    assert!(read(&twice).expect_err("twice").to_string().contains("listed twice"));
    let short = weight_file(DIGEST, &[("tokenizer", &tokenizer_section(true)), ("weights", &[0; 15])]);
    let error = Model::<Fake>::from_bytes("w", &short, &OpenOptions::default()).expect_err("the code reads 16 bytes");
    assert!(error.to_string().contains("15 bytes, the code reads 16"), "{error}");
}

/// Random contradictions behind a right checksum: an error or an intact file, never a panic.
#[test]
fn random_headers_never_panic() {
    let edges =
        [0, 1, 63, 64, 4095, 4096, 4097, 8192, 1 << 20, u64::from(u32::MAX), u64::MAX / 2, u64::MAX - 4095, u64::MAX];
    let intact = fake_file();
    let mut random = 1u64;
    let mut next = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    for _ in 0..if cfg!(miri) { 20 } else { 5000 } {
        let mut bytes = intact.clone();
        for _ in 0..1 + next(3) {
            // Any of the 8-byte words up to the end of the table.
            let at = 8 * next(26);
            let value = if next(2) == 0 { edges[next(edges.len())] } else { next(1 << 31) as u64 };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        seal(&mut bytes);
        if let Ok(file) = read(&bytes) {
            let _ = file.section("weights", 0);
            let _ = file.section("tokenizer", 0);
        }
    }
}

#[test]
fn borrowed_bytes_may_lie_anywhere() {
    let bytes = fake_file();
    for shift in 0..64 {
        let mut room = vec![0; shift];
        room.extend_from_slice(&bytes);
        let file = read(&room[shift..]).expect("intact");
        assert_eq!(file.section("weights", 0).expect("there").as_ptr() as usize % 64, 0);
    }
}

/// What another process does to the file does not reach weights that were read, nor those mapped from a file that was
/// replaced; only rewriting a mapped file in place would (see `Residence::Mapped`).
#[test]
fn a_file_may_go_away_while_it_is_used() {
    let bytes = fake_file();
    let ask = |model: &Model<Fake>| {
        let mut chat = model.session(Options { max_new_tokens: 9, ..Options::default() }).expect("a session");
        let mut answer = chat.ask(&[], "still there?").expect("fits");
        (answer.text().expect("runs"), answer.token_ids().to_vec())
    };
    let expected = ask(&model());
    /// What somebody does to the file of this path.
    type Change = fn(&std::path::Path);
    let cases: [(&str, Residence, Change); 4] = [
        ("truncated", Residence::Copied, |path| std::fs::File::create(path).map(drop).expect("writable")),
        ("rewritten", Residence::Copied, |path| std::fs::write(path, [0xee; 20_000]).expect("writable")),
        ("removed", Residence::Copied, |path| std::fs::remove_file(path).expect("removable")),
        ("replaced", Residence::Mapped, |path| {
            let other = path.with_extension("other");
            std::fs::write(&other, [0xee; 20_000]).expect("writable");
            std::fs::rename(&other, path).expect("on one disk");
        }),
    ];
    for (what, residence, change) in cases {
        let file = TempFile::new(&format!("{what}.tvlm"), &bytes);
        let options = OpenOptions { residence, ..OpenOptions::default() };
        let model = Model::<Fake>::open_with(&file.0, &options).expect("intact");
        let mut chat = model.session(Options { max_new_tokens: 9, ..Options::default() }).expect("a session");
        let mut answer = chat.ask(&[], "still there?").expect("fits");
        answer.next();
        change(&file.0);
        answer.text().expect("runs");
        assert_eq!(answer.token_ids(), expected.1, "{what} in the middle of an answer");
        drop(answer);
        assert_eq!(ask(&model), expected, "{what}");
        assert_eq!(model.weights().section("weights", 0).expect("there"), [3; 100]);
        model.weights().verify().expect("as it was");
    }
}

#[test]
fn a_borrowed_file_may_still_be_arriving() {
    let bytes = weight_file(DIGEST, &[("tokenizer", &tokenizer_section(true)), ("weights", &[3; 100])]);
    let mut room: Vec<u128> = vec![0; bytes.len().div_ceil(16) + 4];
    let skip = room.as_ptr().align_offset(64);
    let base = room[skip..].as_mut_ptr().cast::<u8>();
    let all = std::ptr::NonNull::slice_from_raw_parts(std::ptr::NonNull::new(base).expect("not null"), bytes.len());
    // SAFETY: inside of `room`, which nothing else uses; only what has not arrived is written.
    let fill = |from: usize, to: usize| unsafe { bytes[from..to].as_ptr().copy_to(base.add(from), to - from) };
    // SAFETY: aligned as made, and what has arrived stays as it is.
    let borrowed = |arrived| unsafe { WeightFile::borrowed("w", all, arrived, &EXPECT) };
    let weights = bytes.len() - 100;
    fill(0, weights);
    for arrived in [0, 79, 80, 4095] {
        assert_eq!(borrowed(arrived).expect_err("no header").code(), "weights-truncated");
    }
    let file = borrowed(4096).expect("a header");
    assert_eq!((file.len(), file.private_bytes()), (bytes.len(), bytes.len()));
    let missing = file.section("tokenizer", 0).expect_err("on its way").to_string();
    assert!(missing.contains("4096 bytes of the file have arrived"), "{missing}");
    file.arrived(weights);
    assert_eq!(file.section("tokenizer", 0).expect("there"), tokenizer_section(true));
    assert_eq!(file.section("weights", 100).expect_err("on its way").code(), "weights-section");
    assert_eq!(file.verify().expect_err("on its way").code(), "weights-truncated");
    // A model opens on it: emitted code needs the weights only when it is called.
    // SAFETY: as above.
    let model = unsafe { Model::<Fake>::borrowed("w", all, weights) }.expect("enough to open");
    fill(weights, bytes.len());
    model.weights().arrived(usize::MAX);
    model.weights().verify().expect("all of it is intact");
    assert_eq!(model.weights().section("weights", 100).expect("there"), [3; 100]);
    let mut chat = model.session(Options { threads: Some(1), ..Options::default() }).expect("a session");
    let (text, tokens) = {
        let mut answer = chat.ask(&[], "hello").expect("an answer");
        (answer.text().expect("text"), answer.token_ids().to_vec())
    };
    assert_eq!(text, common::text(&tokens));
    // A header of other weights, or one that does not fit the room.
    let other = Expect { digest: [1; 32], ..EXPECT };
    // SAFETY: as above.
    assert_eq!(
        unsafe { WeightFile::borrowed("w", all, 4096, &other) }.expect_err("foreign").code(),
        "weights-wrong-build"
    );
    let short = std::ptr::NonNull::slice_from_raw_parts(all.cast::<u8>(), bytes.len() - 1);
    // SAFETY: as above.
    assert_eq!(
        unsafe { WeightFile::borrowed("w", short, 4096, &EXPECT) }.expect_err("cut").code(),
        "weights-truncated"
    );
}
