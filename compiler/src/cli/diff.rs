//! `tvlmc compile --check`: whether a folder is what would be emitted now.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use similar::TextDiff;

use super::ui::Ui;
use crate::assemble::{Assembled, hex};
use crate::coreml;
use crate::error::Error;
use crate::package::WEIGHTS_NAME;
use crate::quant::QUANTIZATION_NAME;
use crate::xxh64::Xxh64;

/// Where the pairing digest stands in a weight file.
const DIGEST_AT: usize = 32;

/// Bytes of a weight file's header, and where in it the count and the checksum stand.
const HEADER: usize = 4096;
const COUNT_AT: usize = 64;
const CHECKSUM_AT: usize = 72;

/// Where the sections are listed, bytes of an entry, and of the name in it.
const SECTIONS_AT: usize = 80;
const SECTION: usize = 64;
const SECTION_NAME: usize = 32;

/// Lines of a diff before it is cut.
const SHOWN_LINES: usize = 400;

/// Prints what differs; 1 if anything does. Weights are compared by their size and pairing digest, which stands for
/// the checkpoint and all that was decided, and by the file's own checksums. Of a delegate's model the program is compared, which
/// names the checkpoint's digest, and the size of its weights.
pub fn check(assembled: &Assembled, model: Option<&coreml::Model>, out: &Path, ui: &Ui) -> Result<u8, Error> {
    if !out.is_dir() {
        return Err(Error::input(
            out.display().to_string(),
            "",
            "is no folder: --check compares an output that exists",
        ));
    }
    let mut text = String::new();
    let mut n_files = 0;
    let readme = model.map(|_| (coreml::README.to_string(), coreml::readme(assembled)));
    let texts = assembled.package.files.iter().chain(readme.iter().map(|(path, text)| (path, text)));
    for (path, expected) in texts.clone() {
        let found = match fs::read(out.join(path)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                n_files += 1;
                let _ = writeln!(text, "{path}: is missing");
                continue;
            }
            Err(e) => return Err(Error::io("read", &out.join(path))(e)),
        };
        if found != *expected {
            n_files += 1;
            let diff = TextDiff::from_lines(found.as_str(), expected.as_str());
            let (old, new) = (format!("{}/{path}", out.display()), format!("emitted/{path}"));
            let _ = write!(text, "{}", diff.unified_diff().context_radius(3).header(&old, &new));
        }
    }
    // What it says is known after quantizing only; that it is there is known now.
    let untold = (!assembled.prepared.recipe.is_float()).then_some(QUANTIZATION_NAME);
    if let Some(path) = untold.filter(|path| !out.join(path).is_file()) {
        n_files += 1;
        let _ = writeln!(text, "{path}: is missing");
    }
    let delegated =
        model.map(|model| model.check(&coreml::folder(&assembled.name), out)).transpose()?.unwrap_or_default();
    for (path, difference) in delegated.iter().filter_map(|(path, difference)| Some((path, difference.as_ref()?))) {
        n_files += 1;
        let _ = writeln!(text, "{path}: {difference}");
    }
    let written = texts.map(|(path, _)| path).chain(delegated.keys()).map(String::as_str);
    let expected: BTreeSet<&str> = written.chain([WEIGHTS_NAME]).chain(untold).collect();
    for path in files(out)?.iter().filter(|path| !expected.contains(path.as_str())) {
        n_files += 1;
        let _ = writeln!(text, "{path}: would not be emitted");
    }
    if let Some(difference) = weights(assembled, &out.join(WEIGHTS_NAME))? {
        n_files += 1;
        let _ = writeln!(text, "{WEIGHTS_NAME}: {difference}");
    }
    if n_files == 0 {
        ui.note(&format!("{}: is what would be emitted now", out.display()));
        return Ok(0);
    }
    let n_lines = text.lines().count();
    if n_lines > SHOWN_LINES {
        text = text.lines().take(SHOWN_LINES).flat_map(|line| [line, "\n"]).collect();
        let _ = writeln!(text, "... and {} lines more", n_lines - SHOWN_LINES);
    }
    super::print(&text)?;
    let files = if n_files == 1 { "1 file is".into() } else { format!("{n_files} files are") };
    Err(Error::Check(format!("{}: {files} not what would be emitted now", out.display())))
}

fn weights(assembled: &Assembled, path: &Path) -> Result<Option<String>, Error> {
    let mut start = [0; DIGEST_AT + 32];
    let read = |start: &mut [u8]| -> io::Result<u64> {
        let mut file = fs::File::open(path)?;
        file.read_exact(start)?;
        Ok(file.metadata()?.len())
    };
    let bytes = match read(&mut start) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some("is missing".into())),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some("is no weight file".into())),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let digest = &start[DIGEST_AT..];
    if digest != assembled.digest {
        return Ok(Some(format!("pairing digest {}, emitted now {}", hex(digest), hex(&assembled.digest))));
    }
    let expected = assembled.weight_file_bytes();
    if bytes != expected {
        return Ok(Some(format!("{bytes} bytes, emitted now {expected}")));
    }
    let damaged = fs::File::open(path).and_then(damaged).map_err(Error::io("read", path))?;
    Ok(damaged.map(|item| format!("{item} does not match its checksum")))
}

/// The first part of a weight file that does not match its checksum; the table in [`crate::weightfile`] says where
/// they stand.
fn damaged(mut file: fs::File) -> io::Result<Option<String>> {
    let mut header = vec![0; HEADER];
    file.read_exact(&mut header)?;
    let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let stored = number(CHECKSUM_AT);
    let sections = header[SECTIONS_AT..].chunks_exact(SECTION).take(number(COUNT_AT) as u32 as usize);
    let sections: Vec<(String, [u64; 3])> = sections
        .enumerate()
        .map(|(i, entry)| {
            let name = String::from_utf8_lossy(&entry[..SECTION_NAME]).trim_end_matches('\0').to_owned();
            let at = SECTIONS_AT + i * SECTION + SECTION_NAME;
            (name, [number(at), number(at + 8), number(at + 16)])
        })
        .collect();
    header[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
    if hash(&mut &header[..])? != stored {
        return Ok(Some("the header".into()));
    }
    for (name, [offset, bytes, stored]) in sections {
        file.seek(SeekFrom::Start(offset))?;
        if hash(&mut Read::by_ref(&mut file).take(bytes))? != stored {
            return Ok(Some(format!("section {name}")));
        }
    }
    Ok(None)
}

fn hash(from: &mut dyn Read) -> io::Result<u64> {
    let (mut all, mut buffer) = (Xxh64::new(), vec![0; 1 << 20]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(all.finish()),
            Ok(n) => all.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Paths of all files in an output, with `/`; what cargo makes beside them does not count.
fn files(out: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = out.join(&folder);
        for entry in fs::read_dir(&path).map_err(Error::io("read", &path))? {
            let entry = entry.map_err(Error::io("read", &path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let relative = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match entry.file_type().map_err(Error::io("read", &path))?.is_dir() {
                true if relative == "target" => {}
                true => folders.push(relative),
                false => found.push(relative),
            }
        }
    }
    found.sort();
    Ok(found)
}
