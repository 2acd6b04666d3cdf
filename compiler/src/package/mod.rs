//! The emitted crate: code, manifest and readme of one model for one target.
//!
//! Everything here is text made from the lowered program; the same program gives the same bytes.
//! Names that come from a checkpoint do not reach the code: steps and weights carry the names of
//! the graph's nodes, which the builders make.

mod c;
mod kernels;
mod library;
mod manifest;
mod names;
mod plan;
mod readme;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::pipeline::Prepared;

/// The runtime's sources by name.
const RUNTIME: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/runtime.rs"));

/// The decoder's sources by name.
const DECODE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/decode.rs"));

/// The C interface's sources by name.
const INTERFACE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/interface.rs"));

pub(crate) use c::{HEADER, MODULE_MAP, library_files};
pub(crate) use kernels::family;
pub(crate) use library::LICENSES;
pub(crate) use readme::{license, listed};

/// Name of the weight file.
pub const WEIGHTS_NAME: &str = "weights.tvlm";

/// The tool's version, which is part of the digest.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is written beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// File contents by path, with `/` between folders.
    pub files: BTreeMap<String, String>,
    /// Bytes all threads share while running.
    pub arena_bytes: usize,
    /// Bytes of each thread.
    pub scratch_bytes: usize,
    /// Bytes of the weights section.
    pub weights_bytes: usize,
    /// Multiply-adds of the vision tower, and of one decoded token without attention.
    pub macs: (u64, u64),
}

/// What an emitted crate is told.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Name of the crate.
    pub name: &'a str,
    /// Target triple.
    pub target: &'a str,
    /// Pairs code and weights.
    pub digest: [u8; 32],
    /// Of the checkpoint, for the manifest.
    pub checkpoint: [u8; 32],
    /// What the system message of all conversations says.
    pub system: &'a str,
    /// Whether the weight file carries the cache after it.
    pub baked: bool,
}

/// What the reference's system message says.
pub const SYSTEM: &str = "You are a helpful assistant.";

/// Whether a name can be a crate's: `[a-z][a-z0-9_-]{0,63}`, and not a keyword or `test`.
///
/// # Errors
/// The name and the rule.
pub fn check_name(name: &str) -> Result<(), Error> {
    let head = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    let keyword = syn_keyword(&name.replace('-', "_"));
    if head && rest && name.len() <= 64 && !keyword {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the name {name:?} cannot name a crate: a lower-case letter, then up to 63 of a-z, 0-9, _ and -, and no word of Rust"
    )))
}

fn syn_keyword(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "abstract",
        "as",
        "async",
        "await",
        "become",
        "box",
        "break",
        "const",
        "continue",
        "crate",
        "do",
        "dyn",
        "else",
        "enum",
        "extern",
        "false",
        "final",
        "fn",
        "for",
        "gen",
        "if",
        "impl",
        "in",
        "let",
        "loop",
        "macro",
        "match",
        "mod",
        "move",
        "mut",
        "override",
        "priv",
        "pub",
        "ref",
        "return",
        "self",
        "static",
        "struct",
        "super",
        "trait",
        "true",
        "try",
        "type",
        "typeof",
        "unsafe",
        "unsized",
        "use",
        "virtual",
        "where",
        "while",
        "yield",
        "test",
        "core",
        "std",
        "alloc",
        "proc_macro",
        "runtime_min",
    ];
    WORDS.contains(&name)
}

/// The digest that pairs code and weights: of the checkpoint, the tool and all emitted code, whatever digest `id` has.
///
/// # Errors
/// As [`emit`].
pub fn digest(prepared: &Prepared, id: &Identity<'_>) -> Result<[u8; 32], Error> {
    let blank = emit(prepared, &Identity { digest: [0; 32], ..*id })?;
    let mut hash = Sha256::new();
    hash.update(id.checkpoint);
    hash.update(TOOL_VERSION);
    for (path, text) in &blank.files {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(hash.finalize().into())
}

/// Emits the crate.
///
/// # Errors
/// [`Error::Usage`] for a name that cannot name a crate; [`Error::Bug`] if two kernels share a
/// name.
pub fn emit(prepared: &Prepared, id: &Identity<'_>) -> Result<Package, Error> {
    check_name(id.name)?;
    let mut files = BTreeMap::new();
    let names = names::Names::new(prepared);
    kernels::emit(prepared, &mut files)?;
    plan::emit(prepared, id, &names, &mut files);
    library::emit(prepared, id, &mut files);
    if prepared.machine.has_std() {
        c::emit(prepared.machine, id, &mut files);
    }
    for (name, text) in RUNTIME {
        files.insert(format!("runtime/src/{name}"), text.to_string());
    }
    for (name, text) in DECODE {
        files.insert(format!("decode/src/{name}"), text.to_string());
    }
    let package = Package {
        arena_bytes: prepared.memory.total,
        scratch_bytes: prepared.program.scratch_bytes,
        weights_bytes: prepared.program.packs.total() * 4,
        macs: (prepared.program.vision.macs(), prepared.program.decode.macs()),
        files,
    };
    let mut package = package;
    package.files.insert("manifest.json".to_string(), manifest(prepared, id));
    Ok(package)
}

/// `manifest.json`.
pub(crate) fn manifest(prepared: &Prepared, id: &Identity<'_>) -> String {
    manifest::manifest(prepared, id)
}
