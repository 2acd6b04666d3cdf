//! What fuzzing found, replayed: the corpora of the runtime's targets, without a fuzzer. See `fuzz/src/lib.rs`.

mod common;

#[path = "../../fuzz/src/bytes.rs"]
mod bytes;
#[path = "../../fuzz/src/runtime.rs"]
mod runtime;

use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    for file in &files {
        // A crash ends the test with this as its last words.
        println!("{}", file.display());
        target(&std::fs::read(file).expect("readable"));
    }
    assert!(files.len() > 5, "{}: {} inputs", folder.display(), files.len());
}

#[test]
fn weights_load() {
    replay("weights_load", runtime::weights_load);
}

#[test]
fn tokenizer() {
    replay("tokenizer", runtime::tokenizer);
}

#[test]
fn api_calls() {
    replay("api_calls", runtime::api_calls);
}

#[test]
fn image() {
    replay("image", runtime::image);
}

#[test]
fn saved() {
    replay("saved", runtime::saved);
}
