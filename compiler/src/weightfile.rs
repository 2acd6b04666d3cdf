//! Writing `weights.tvlm`, the packed file that an emitted crate loads.
//!
//! Numbers are little endian. The header is a multiple of 4096 bytes, and so is every section's offset,
//! so that a section can be mapped alone and its first line is aligned.
//!
//! | offset | what |
//! |---|---|
//! | 0 | `TVLMWT01` |
//! | 8 | u32 version, u32 `0x01020304` (shows a wrong byte order) |
//! | 16 | u64 bytes of the file, u64 bytes of the header |
//! | 32 | the digest that the emitted code holds as well |
//! | 64 | u32 count of sections, u32 zero |
//! | 72 | xxh64 of the header with this field zero |
//! | 80 | per section: name (32 bytes, zero padded), u64 offset, u64 bytes, xxh64, u64 zero |
//!
//! Hashes have seed 0. The header is written last: a file that was not finished has no magic.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::xxh64::Xxh64;

/// Format version.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"TVLMWT01";
const ENDIANNESS: u32 = 0x0102_0304;
const PAGE: u64 = 4096;
/// Bytes of the header; room for 62 sections.
const HEADER: u64 = PAGE;
const TABLE: usize = 80;
const ENTRY: usize = 64;

/// Bytes collected before they go to the file; larger pieces go directly.
const BUFFER: usize = 1 << 20;

/// A weight file under construction: sections one after the other, then [`WeightFileWriter::finish`].
pub struct WeightFileWriter {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    digest: [u8; 32],
    /// Bytes from the start of the file, buffered ones included.
    end: u64,
    /// Bytes that were reserved, for messages; 0 while unknown.
    needed: u64,
    sections: Vec<Section>,
    open: Option<Xxh64>,
}

struct Section {
    name: String,
    offset: u64,
    bytes: u64,
    hash: u64,
}

impl WeightFileWriter {
    /// Creates `path`, which must not exist. `digest` pairs the file with the emitted code.
    pub fn create(path: &Path, digest: [u8; 32]) -> Result<WeightFileWriter, Error> {
        let options = File::options().write(true).create_new(true).open(path);
        let mut file = options.map_err(Error::io("create", path))?;
        file.seek(SeekFrom::Start(HEADER)).map_err(Error::io("write", path))?;
        Ok(WeightFileWriter {
            path: path.to_owned(),
            file,
            buffer: Vec::with_capacity(BUFFER),
            digest,
            end: HEADER,
            needed: 0,
            sections: Vec::new(),
            open: None,
        })
    }

    /// Asks the file system for room, so that a full disk shows before the work and not after it. `bytes` is the
    /// expected size of the file.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        self.needed = bytes;
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let no_room =
                |code| Error::writing("reserve room for", &self.path, bytes)(io::Error::from_raw_os_error(code));
            let Ok(len) = libc::off_t::try_from(bytes) else { return Err(no_room(libc::EFBIG)) };
            // SAFETY: the descriptor belongs to `self.file`, which is open for the whole call.
            let failed = unsafe { libc::posix_fallocate(self.file.as_raw_fd(), 0, len) };
            // Other errors mean that the file system has no such call, or that the size is not known yet.
            if [libc::ENOSPC, libc::EDQUOT, libc::EFBIG].contains(&failed) {
                return Err(no_room(failed));
            }
        }
        Ok(())
    }

    /// Writes a whole section.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.begin(name)?;
        self.write(bytes)?;
        self.end_section();
        Ok(())
    }

    /// Begins a section that [`WeightFileWriter::write`] fills; ends the one before.
    pub fn begin(&mut self, name: &str) -> Result<(), Error> {
        self.end_section();
        let names_fit = !name.is_empty() && name.len() <= 32 && self.sections.iter().all(|s| s.name != name);
        if !names_fit || TABLE + (self.sections.len() + 1) * ENTRY > HEADER as usize {
            return Err(Error::Bug(format!("a weight file cannot have the section {name:?}")));
        }
        let padding = (self.end.next_multiple_of(PAGE) - self.end) as usize;
        self.put(&[0; PAGE as usize][..padding])?;
        self.sections.push(Section { name: name.to_owned(), offset: self.end, bytes: 0, hash: 0 });
        self.open = Some(Xxh64::new());
        Ok(())
    }

    /// Appends to the open section.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.open {
            Some(hash) => hash.update(bytes),
            None => return Err(Error::Bug("a weight file is written outside of a section".into())),
        }
        self.put(bytes)
    }

    /// [`WeightFileWriter::write`] of numbers.
    pub fn write_u32(&mut self, values: &[u32]) -> Result<(), Error> {
        let mut bytes = [0; 16 << 10];
        for chunk in values.chunks(bytes.len() / 4) {
            let bytes = &mut bytes[..4 * chunk.len()];
            for (to, from) in bytes.chunks_exact_mut(4).zip(chunk) {
                to.copy_from_slice(&from.to_le_bytes());
            }
            self.write(bytes)?;
        }
        Ok(())
    }

    /// Appends zeros until [`WeightFileWriter::position`] is a multiple of `unit`, which divides 4096; returns it.
    pub fn align(&mut self, unit: usize) -> Result<u64, Error> {
        let position = self.position();
        let padding = position.next_multiple_of(unit as u64) - position;
        match [0; PAGE as usize].get(..padding as usize) {
            Some(zeros) => self.write(zeros)?,
            None => return Err(Error::Bug(format!("a weight file cannot be aligned to {unit} bytes"))),
        }
        Ok(self.position())
    }

    /// Bytes written to the open section so far.
    pub fn position(&self) -> u64 {
        self.sections.last().map_or(0, |section| self.end - section.offset)
    }

    /// Ends the last section, writes the header, and returns when everything is on the disk.
    /// The result is the file's size in bytes.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.end_section();
        self.flush()?;
        let header = self.header();
        let write = |file: &mut File| -> io::Result<()> {
            // A reservation may have been too large.
            file.set_len(self.end)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.sync_all()
        };
        write(&mut self.file).map_err(Error::writing("write", &self.path, self.needed))?;
        Ok(self.end)
    }

    fn end_section(&mut self) {
        let bytes = self.position();
        if let (Some(hash), Some(section)) = (self.open.take(), self.sections.last_mut()) {
            section.bytes = bytes;
            section.hash = hash.finish();
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; HEADER as usize];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &ENDIANNESS.to_le_bytes());
        put(16, &self.end.to_le_bytes());
        put(24, &HEADER.to_le_bytes());
        put(32, &self.digest);
        put(64, &(self.sections.len() as u32).to_le_bytes());
        for (i, section) in self.sections.iter().enumerate() {
            let at = TABLE + i * ENTRY;
            put(at, section.name.as_bytes());
            put(at + 32, &section.offset.to_le_bytes());
            put(at + 40, &section.bytes.to_le_bytes());
            put(at + 48, &section.hash.to_le_bytes());
        }
        let mut hash = Xxh64::new();
        hash.update(&header);
        header[72..80].copy_from_slice(&hash.finish().to_le_bytes());
        header
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            self.file.write_all(bytes).map_err(Error::writing("write", &self.path, self.needed))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write_all(&self.buffer).map_err(Error::writing("write", &self.path, self.needed))?;
        self.buffer.clear();
        Ok(())
    }
}
