//! Why a file did not become a picture, and what to do about it.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

use crate::{MAX_FILE, MAX_PIXELS, MAX_SIDE};

/// A picture that could not be read.
#[derive(Debug)]
pub struct Error {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a picture.
#[derive(Debug)]
pub enum Problem {
    /// There is no such file.
    Missing,
    /// It is a folder.
    Folder,
    /// The file has more bytes than [`MAX_FILE`].
    LongFile,
    /// There are no bytes.
    Empty,
    /// Its beginning is that of no format that is read here.
    Unknown,
    /// The picture has no pixels, or more than [`MAX_PIXELS`], or a side above [`MAX_SIDE`].
    Size {
        /// Pixels in a row, as the file claims.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A JPEG in cyan, magenta, yellow and black.
    Inks,
    /// A JPEG whose end does not come.
    NoEnd,
    /// The decoder says that the file is broken.
    Damaged(String),
    /// The decoder does not know this kind of the format.
    Unsupported(String),
    /// The system refused to read it.
    Io(io::Error),
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.problem),
            None => write!(f, "the picture: {}", self.problem),
        }
    }
}

/// Without the file's name.
impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing => f.write_str("no such file: a picture is expected"),
            Problem::Folder => f.write_str("is a folder, a picture file is expected"),
            Problem::LongFile => write!(f, "more than {} bytes: scale the picture down first", grouped(MAX_FILE)),
            Problem::Empty => f.write_str("is empty, a picture is expected"),
            Problem::Unknown => f.write_str("is no picture that is known here: PNG, JPEG, GIF, WebP, BMP and PNM are"),
            Problem::Size { width, height } => {
                write!(f, "{} x {} pixels: ", grouped((*width).into()), grouped((*height).into()))?;
                if *width == 0 || *height == 0 {
                    return f.write_str("at least one each way is expected");
                }
                let (side, all) = (grouped(MAX_SIDE.into()), grouped(MAX_PIXELS));
                write!(f, "at most {side} on a side and {all} in all are taken, scale it down first")
            }
            Problem::Inks => f.write_str("is a JPEG in CMYK: convert it to RGB first"),
            Problem::NoEnd => f.write_str("is damaged or incomplete: the JPEG has no end, was it cut off?"),
            Problem::Damaged(what) => write!(f, "is damaged or incomplete: {what}"),
            Problem::Unsupported(what) => write!(f, "cannot be read: {what}"),
            Problem::Io(e) => write!(f, "cannot be read: {e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(e) => Some(e),
            _ => None,
        }
    }
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let commas = |(i, digit): (usize, char)| {
        let comma = i > 0 && (digits.len() - i).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(commas).collect()
}
