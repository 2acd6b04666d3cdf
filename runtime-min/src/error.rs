//! Every way in which opening a model or asking it can fail.
//!
//! A message names the file or argument, the item in it, what was expected and found, and what to do. [`Error::code`]
//! is for programs: it never changes once published.

use alloc::string::String;
use core::fmt;

/// Why the runtime refused, with everything its message needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    File {
        /// As given by the caller.
        path: String,
        /// What was tried: "open", "read", "map".
        action: &'static str,
        /// The system's own words.
        reason: String,
    },
    /// The weight file ends early; sizes in bytes.
    Truncated {
        /// As given by the caller.
        path: String,
        /// Bytes present.
        found: u64,
        /// Bytes promised by the header (or the smallest possible size when there is no header).
        expected: u64,
    },
    /// The weight file goes on after its end; sizes in bytes.
    Overlong {
        /// As given by the caller.
        path: String,
        /// Bytes present.
        found: u64,
        /// Bytes promised by the header.
        expected: u64,
    },
    /// The file is something else than a weight file.
    NotWeights {
        /// As given by the caller.
        path: String,
        /// The first bytes, as text, escaped.
        starts: String,
    },
    /// A weight file of a format this build does not read.
    Format {
        /// As given by the caller.
        path: String,
        /// What differs: "version", "byte order".
        item: &'static str,
        /// Value in the file.
        found: u64,
        /// Value this build reads.
        expected: u64,
    },
    /// Stored bytes do not match their checksum.
    Damaged {
        /// As given by the caller.
        path: String,
        /// "header", or the section's name.
        item: String,
    },
    /// An intact weight file that was packed for other emitted code.
    WrongBuild {
        /// As given by the caller.
        path: String,
        /// Name of the model in this build.
        model: &'static str,
        /// Pairing digest in the file.
        found: [u8; 32],
        /// Pairing digest in this build.
        expected: [u8; 32],
    },
    /// A section is missing, misplaced, or holds something impossible.
    Section {
        /// As given by the caller.
        path: String,
        /// Name of the section.
        section: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer tables contradict themselves.
    Tokenizer {
        /// Which table: "offsets", "merges", "roles".
        item: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The processor lacks what the emitted code needs.
    Cpu {
        /// The level that was wanted, or the lowest one of the build.
        level: String,
        /// What that level needs, in words: "avx2, fma and f16c".
        needs: String,
        /// What this processor lacks, in words.
        lacks: String,
    },
    /// A level of that name is not part of the build.
    UnknownLevel {
        /// As given by the caller.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// Memory could not be had; sizes in bytes.
    OutOfMemory {
        /// What the memory was for.
        item: &'static str,
        /// Bytes wanted.
        need: u64,
        /// Bytes available, where the system tells.
        have: Option<u64>,
    },
    /// A picture that cannot be used.
    Image {
        /// What is wrong, with expected and found values.
        reason: String,
    },
    /// The conversation would not fit; counts in positions.
    PromptTooLong {
        /// Positions the conversation would have after this prompt.
        need: usize,
        /// Positions the model has.
        have: usize,
    },
    /// A question without text.
    EmptyPrompt,
    /// A token id outside the vocabulary.
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// An option or argument with an impossible value.
    Argument {
        /// Its name.
        name: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// The work was stopped by its cancel token.
    Cancelled,
    /// A member of the thread team panicked; the session is unusable from then on.
    Poisoned {
        /// The panic's message.
        reason: String,
    },
    /// The emitted code and the runtime disagree: a bug of the build, never of the input.
    Program {
        /// What is inconsistent.
        reason: String,
    },
    /// A saved conversation that is cut short or changed.
    SavedDamaged {
        /// As given by the caller.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else than a saved conversation of this model and build.
    SavedForeign {
        /// As given by the caller.
        path: String,
        /// What it is instead.
        reason: String,
    },
}

impl Error {
    /// A short name that stays the same between versions, for programs and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Truncated { .. } => "weights-truncated",
            Self::Overlong { .. } => "weights-overlong",
            Self::NotWeights { .. } => "not-weights",
            Self::Format { .. } => "weights-format",
            Self::Damaged { .. } => "weights-damaged",
            Self::WrongBuild { .. } => "weights-wrong-build",
            Self::Section { .. } => "weights-section",
            Self::Tokenizer { .. } => "tokenizer",
            Self::Cpu { .. } => "cpu",
            Self::UnknownLevel { .. } => "unknown-level",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Image { .. } => "image",
            Self::PromptTooLong { .. } => "prompt-too-long",
            Self::EmptyPrompt => "empty-prompt",
            Self::TokenOutOfRange { .. } => "token-out-of-range",
            Self::Argument { .. } => "argument",
            Self::Cancelled => "cancelled",
            Self::Poisoned { .. } => "poisoned",
            Self::Program { .. } => "program",
            Self::SavedDamaged { .. } => "saved-damaged",
            Self::SavedForeign { .. } => "saved-foreign",
        }
    }

    /// Exit status of a command-line program: 2 usage, 3 bad input, 4 environment.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownLevel { .. } | Self::Argument { .. } => 2,
            Self::File { .. }
            | Self::Truncated { .. }
            | Self::Overlong { .. }
            | Self::NotWeights { .. }
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::WrongBuild { .. }
            | Self::Section { .. }
            | Self::Tokenizer { .. }
            | Self::Image { .. }
            | Self::PromptTooLong { .. }
            | Self::EmptyPrompt
            | Self::TokenOutOfRange { .. }
            | Self::SavedDamaged { .. }
            | Self::SavedForeign { .. } => 3,
            Self::Cpu { .. }
            | Self::OutOfMemory { .. }
            | Self::Cancelled
            | Self::Poisoned { .. }
            | Self::Program { .. } => 4,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, action, reason } => write!(f, "{path}: cannot {action}: {reason}"),
            Self::Truncated { path, found, expected } => {
                write!(f, "{path}: {} of {} bytes: download again", Grouped(*found), Grouped(*expected))
            }
            Self::Overlong { path, found, expected } => {
                let surplus = Grouped(found.saturating_sub(*expected));
                write!(f, "{path}: {surplus} bytes follow the {} of the weights: download again", Grouped(*expected))
            }
            Self::NotWeights { path, starts } => write!(
                f,
                "{path}: not a weight file: starts with \"{starts}\", expected \"TVLMWT01\"; give the weights.tvlm that lies beside the code"
            ),
            Self::Format { path, item, found, expected } => write!(
                f,
                "{path}: {item} is {found:#x}, this build reads {expected:#x}: compile the checkpoint again with this version"
            ),
            Self::Damaged { path, item } => {
                write!(f, "{path}: {item} does not match its checksum, the file is damaged: download again")
            }
            Self::WrongBuild { path, model, found, expected } => write!(
                f,
                "{path}: these weights were packed for another build: they pair with {}, the code of {model} with {}; use the weights.tvlm that was written with this code",
                Short(found),
                Short(expected)
            ),
            Self::Section { path, section, reason } => write!(f, "{path}: section \"{section}\": {reason}"),
            Self::Tokenizer { item, reason } => write!(f, "tokenizer tables: {item}: {reason}"),
            Self::Cpu { level, needs, lacks } => {
                write!(
                    f,
                    "needs {needs} ({level}); this CPU lacks {lacks}: compile for its target, run on a newer CPU, or, where a level was \
                     named, name none, which takes the best one that is here"
                )
            }
            Self::UnknownLevel { name, known } => {
                write!(f, "level \"{name}\" is not part of this build: it has {known}")
            }
            Self::OutOfMemory { item, need, have: Some(have) } => write!(
                f,
                "out of memory: {item} needs {} bytes, {} are available: free memory, or compile with a smaller context",
                Grouped(*need),
                Grouped(*have)
            ),
            Self::OutOfMemory { item, need, have: None } => write!(
                f,
                "out of memory: {item} needs {} bytes: free memory, or compile with a smaller context",
                Grouped(*need)
            ),
            Self::Image { reason } => write!(f, "image: {reason}"),
            Self::PromptTooLong { need, have } => write!(
                f,
                "the conversation needs {need} positions with this prompt, the model has {have}: shorten the prompt, use fewer images, or start over with reset()"
            ),
            Self::EmptyPrompt => f.write_str("the prompt is empty: ask something"),
            Self::TokenOutOfRange { id, vocab } => {
                write!(f, "token id {id} is outside the vocabulary of {vocab}")
            }
            Self::Argument { name, reason } => write!(f, "{name}: {reason}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Poisoned { reason } => {
                write!(
                    f,
                    "a thread of this session panicked ({reason}): open a new session; this is a bug worth reporting"
                )
            }
            Self::Program { reason } => {
                write!(f, "the emitted code contradicts the runtime: {reason}; this is a bug worth reporting")
            }
            Self::SavedDamaged { path, reason } => {
                write!(f, "{path}: the saved conversation is damaged: {reason}; begin a new conversation")
            }
            Self::SavedForeign { path, reason } => {
                write!(f, "{path}: no saved conversation of this model: {reason}; begin a new conversation")
            }
        }
    }
}

impl core::error::Error for Error {}

/// A byte count with thousands separated, as people read sizes.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The longest u64 has 20 digits and 6 commas.
        let mut text = [0u8; 26];
        let mut at = text.len();
        let mut rest = self.0;
        for digit in 0.. {
            if digit > 0 && digit % 3 == 0 {
                at -= 1;
                text[at] = b',';
            }
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        f.write_str(core::str::from_utf8(&text[at..]).unwrap_or("?"))
    }
}

/// The first four bytes of a digest, enough to tell two builds apart.
struct Short<'a>(&'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn messages_name_file_sizes_and_remedy() {
        let path = String::from("weights.tvlm");
        let error = Error::Truncated { path, found: 12_288, expected: 48_201_728 };
        assert_eq!(error.to_string(), "weights.tvlm: 12,288 of 48,201,728 bytes: download again");
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (u64::MAX, "18,446,744,073,709,551,615")] {
            assert_eq!(Grouped(n).to_string(), text);
        }
    }

    #[test]
    fn a_foreign_digest_says_another_build() {
        let error = Error::WrongBuild { path: "w".into(), model: "nano", found: [0xab; 32], expected: [1; 32] };
        assert!(
            error.to_string().starts_with("w: these weights were packed for another build: they pair with abababab")
        );
        assert_eq!((error.code(), error.exit_code()), ("weights-wrong-build", 3));
    }
}
