//! A small Rust source tree and its printer.
//!
//! `quote!` makes expressions and types; the tree makes what `quote!` loses: statements one per
//! line, comments, blank lines and documentation. The printed text is a fixed point of rustfmt
//! under the `rustfmt.toml` in [`RUSTFMT_TOML`], so that printing needs no rustfmt and formatter
//! versions do not decide what a diff looks like.

mod print;
mod spacing;
mod tree;

pub use print::print;
pub use spacing::tokens_to_string;
pub use tree::{Block, File, Function, Item, Stmt};

/// The formatter settings under which the output is a fixed point: whatever fits a line stays on
/// one line.
pub const RUSTFMT_TOML: &str = "edition = \"2024\"\nuse_small_heuristics = \"Max\"\n";

/// Columns of a line, rustfmt's default.
pub const MAX_WIDTH: usize = 100;
