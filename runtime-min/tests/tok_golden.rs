//! Token ids against the `tokenizers` package.

mod tok_support;

use std::path::Path;

use runtime_min::tokenizer::{DecodeStream, Tokenizer};
use tok_support::{Tables, data, golden, nano, oracle};

/// Encodes and decodes every string of `path`.
fn check(tables: &Tables, path: &Path, records: &[(String, Vec<u32>)]) {
    let section = tables.section();
    let tokenizer = Tokenizer::from_section(&section).expect("a valid section");
    let mut stream = DecodeStream::new(&tokenizer).expect("room");
    let (mut wrong, mut ids, mut n_bytes) = (0, Vec::new(), 0);
    for (text, expected) in records {
        ids.clear();
        tokenizer.encode(text, &mut ids).expect("room");
        n_bytes += text.len();
        if ids != *expected {
            wrong += 1;
            if wrong <= 3 {
                println!("{text:?}\n  gives {ids:?}\n  not   {expected:?}");
            }
        }
        let mut decoded = String::new();
        let mut bytes = Vec::new();
        for &id in expected {
            decoded.push_str(stream.push(id));
            bytes.extend_from_slice(tokenizer.bytes(id));
        }
        decoded.push_str(stream.finish());
        assert_eq!(decoded, String::from_utf8_lossy(&bytes), "{text:?}");
    }
    println!("{}: {} strings, {n_bytes} bytes, {wrong} differ", path.display(), records.len());
    assert_eq!(wrong, 0, "strings of {} that differ", path.display());
}

#[test]
fn nano_strings_get_the_reference_ids() {
    let path = data("tok-nano-small.bin");
    check(&nano(), &path, &golden(&path).expect("tests/data/tok-nano-small.bin"));
}

/// Large files, made on demand: `tok-NAME.bin` in the folder of references. The tokenizer is the one of the repository, or
/// `tok-NAME.json` in that folder, or that of its checkpoint `NAME-hf-bf16-s0`.
#[test]
fn large_corpora_get_the_reference_ids() {
    let Some(folder) = oracle() else {
        println!("skipped: no HOME and no TVLMC_ORACLE, so no folder of large references");
        return;
    };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/tokenizer.json");
    for name in ["nano", "tiny", "demo", "mixed", "0.5b"] {
        let beside =
            [folder.join(format!("tok-{name}.json")), folder.join(format!("{name}-hf-bf16-s0/tokenizer.json"))];
        let known = match name {
            "nano" => Some(data("nano-tokenizer.json")),
            "demo" => Some(demo.clone()),
            _ => None,
        };
        let path = folder.join(format!("tok-{name}.bin"));
        let json = known.into_iter().chain(beside).find_map(|path| std::fs::read_to_string(path).ok());
        match (json, golden(&path)) {
            (Some(json), Some(records)) => check(&Tables::from_json(&json), &path, &records),
            _ => println!("skipped: {} or its tokenizer is missing", path.display()),
        }
    }
}
