//! Hostile bytes for everything in tvlmc that reads some.
//!
//! ```text
//! cargo install cargo-fuzz --locked
//! cargo +nightly fuzz run --fuzz-dir fuzz --features libfuzzer weights_load -- -max_total_time=60
//! cargo test --manifest-path fuzz/Cargo.toml
//! ```
//!
//! A target is a function of bytes that must return: it panics where a promise was broken. What was found lies in
//! `corpus`, a folder for each target, and is replayed by the last command, and by ordinary tests of the crates concerned,
//! which include these modules. `cargo fuzz` adds to a corpus what is new; `cargo fuzz cmin` makes it small again. A crash
//! becomes a file with a name that says what it was.

#[path = "../../runtime-min/tests/common/mod.rs"]
mod common;

mod bytes;
mod compiler;
mod runtime;

pub use compiler::{emit_strings, st_header};
pub use runtime::{api_calls, image, saved, tokenizer, weights_load};

/// All targets by name.
pub const TARGETS: [(&str, fn(&[u8])); 7] = [
    ("api_calls", api_calls),
    ("emit_strings", emit_strings),
    ("image", image),
    ("saved", saved),
    ("st_header", st_header),
    ("tokenizer", tokenizer),
    ("weights_load", weights_load),
];
