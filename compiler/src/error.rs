//! What can go wrong, and which exit code says so.
//!
//! A message names the file, the item in it, what was expected and what was found, and offers a
//! way out. Names that come from an input are shown escaped and cut, so that a hostile name can
//! neither move the cursor of a terminal nor fill it.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

use models::edit_distance;

/// Findings printed before the rest is only counted.
const SHOWN_FINDINGS: usize = 40;

/// Characters of a foreign name that are printed before it is cut.
const SHOWN_CHARS: usize = 120;

/// One thing that is wrong with one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as the user knows it.
    pub file: String,
    /// The key, tensor or entry; empty if it is the file as a whole.
    pub item: String,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Finding { file, item, problem } = self;
        if item.is_empty() { write!(f, "{file}: {problem}") } else { write!(f, "{file}: {item}: {problem}") }
    }
}

/// Every failure of the compiler.
#[derive(Debug)]
pub enum Error {
    /// A check did its work and found a difference.
    Check(String),
    /// The command line makes no sense.
    Usage(String),
    /// An input is broken or asks for something that is not supported. Never empty.
    Input(Vec<Finding>),
    /// The machine refused: a file cannot be read or written, a disk is full.
    Io {
        /// What was being done, as in "cannot {action} {path}".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, a quota or the shell's limit has no room for what is being written.
    NoRoom {
        /// What was being done, as in "cannot {action} {path}".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Bytes of all that is to be written.
        needed: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Something else in the surroundings is missing, such as a tool or memory.
    Environment(String),
    /// The compiler broke one of its own rules.
    Bug(String),
}

impl Error {
    /// An [`Error::Input`] with one finding. `item` may be empty.
    pub fn input(file: impl Into<String>, item: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Input(vec![Finding { file: file.into(), item: item.into(), problem: problem.into() }])
    }

    /// For `map_err`: the failure of `action` on `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// [`Error::io`] of something that takes `needed` bytes in all, which are named if there is no room for them.
    pub fn writing(action: &'static str, path: &Path, needed: u64) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            _ if needed == 0 => Error::Io { action, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::NoRoom { action, path, needed, source }
            }
            _ => Error::Io { action, path, source },
        }
    }

    /// The exit code of the command: 1 a check failed, 2 usage, 3 bad input, 4 environment, 101 our bug.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Check(_) => 1,
            Error::Usage(_) => 2,
            Error::Input(_) => 3,
            // A file that the user named.
            Error::Io { action, source, .. }
                if action.starts_with("read") && source.kind() == io::ErrorKind::NotFound =>
            {
                3
            }
            Error::Io { .. } | Error::NoRoom { .. } | Error::Environment(_) => 4,
            Error::Bug(_) => 101,
        }
    }

    /// The findings of an [`Error::Input`], else nothing.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Error::Input(findings) => findings,
            _ => &[],
        }
    }
}

/// The whole message, with the system's reason; [`std::error::Error::source`] is for programs.
impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Error::Check(text) | Error::Usage(text) | Error::Environment(text) => f.write_str(text),
            Error::Input(findings) => match &findings[..] {
                [one] => one.fmt(f),
                many => {
                    write!(f, "{} problems:", grouped(many.len() as u64))?;
                    for finding in many.iter().take(SHOWN_FINDINGS) {
                        write!(f, "\n  {finding}")?;
                    }
                    match many.len().saturating_sub(SHOWN_FINDINGS) {
                        0 => Ok(()),
                        more => write!(f, "\n  and {} more", grouped(more as u64)),
                    }
                }
            },
            Error::Io { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Error::NoRoom { action, path, needed, source } => {
                let remedy = match source.kind() {
                    io::ErrorKind::FileTooLarge => "raise the limit on the size of files (ulimit -f)",
                    _ => "free some, or choose another place with -o",
                };
                let needed = grouped(*needed);
                write!(f, "cannot {action} {}: {source}; it takes {needed} bytes in all: {remedy}", path.display())
            }
            Error::Bug(text) => write!(f, "internal error (please report it): {text}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::NoRoom { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A foreign string as it may be printed: in quotes, escaped, cut after 120 characters.
///
/// ```
/// # use tvlmc::error::Quoted;
/// assert_eq!(Quoted("a\u{1b}[2Jb\u{202e}").to_string(), r#""a\u{1b}[2Jb\u{202e}""#);
/// ```
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(SHOWN_CHARS) {
            match c {
                // Debug escaping leaves the apostrophe alone only inside strings.
                '\'' => f.write_str("'")?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_str("\"")?;
        if chars.next().is_some() { write!(f, "... ({} bytes)", grouped(self.0.len() as u64)) } else { Ok(()) }
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// ` (did you mean "x"?)` for the candidate that is nearest to `name`, or nothing if none is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    // A quarter of the letters may differ, but not more than four of a long name.
    let mut limit = (name.chars().count() / 4).clamp(1, 4);
    let mut best = None;
    for candidate in candidates {
        if candidate != name
            && let Some(distance) = edit_distance(name, candidate, limit)
        {
            best = Some(candidate);
            limit = match distance {
                0 | 1 => break,
                more => more - 1,
            };
        }
    }
    best.map_or(String::new(), |best| format!(" (did you mean {}?)", Quoted(best)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_escaped_cut_and_counted() {
        assert_eq!(Quoted("it's \"x\"\n").to_string(), r#""it's \"x\"\n""#);
        assert_eq!(Quoted(&"é".repeat(200)).to_string(), format!("\"{}\"... (400 bytes)", "é".repeat(120)));
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        let many = Error::Input(vec![Finding { file: "f".into(), item: String::new(), problem: "p".into() }; 43]);
        assert!(many.to_string().starts_with("43 problems:\n  f: p\n"));
        assert!(many.to_string().ends_with("\n  and 3 more"));
    }

    #[test]
    fn suggestions_are_near() {
        let known = ["silu", "gelu", "relu"];
        assert_eq!(did_you_mean("sillu", known), " (did you mean \"silu\"?)");
        assert_eq!(did_you_mean("tanh", known), "");
        assert_eq!(did_you_mean("hiden_size", ["vocab_size", "hidden_size"]), " (did you mean \"hidden_size\"?)");
    }
}
