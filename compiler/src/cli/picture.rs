//! Picture files of the command line: [`runtime_decode`] reads them.

use std::io;
use std::path::Path;

use runtime_decode::{Options, Picture, Problem};

use crate::error::Error;

/// Reads a picture file, or stdin if `path` is `-`.
///
/// # Errors
/// [`Error::Input`] for what is no picture or one that is too large, else [`Error::Io`].
pub fn read(path: &Path, options: Options) -> Result<Picture, Error> {
    let (name, read) = match path.to_str() {
        Some("-") => ("standard input".to_owned(), runtime_decode::read(io::stdin().lock(), options)),
        _ => (path.display().to_string(), runtime_decode::open(path, options)),
    };
    read.map_err(|e| match e.problem {
        // Not the file's fault.
        Problem::Io(source) => Error::Io { action: "read", path: path.to_owned(), source },
        problem => Error::input(name, "", problem.to_string()),
    })
}
