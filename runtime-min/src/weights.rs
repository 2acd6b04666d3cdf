//! The weight file: one header of at least 4096 bytes, then sections that start on pages.
//!
//! ```text
//!  0  b"TVLMWT01"            32  [u8; 32] pairing digest         80  sections, 64 bytes each:
//!  8  u32 version = 1        64  u32 number of sections               [u8; 32] name, zero padded
//! 12  u32 0x01020304         68  u32 0                                u64 offset, a multiple of 4096
//! 16  u64 length of the file 72  u64 XXH64 of the header,             u64 length
//! 24  u64 length of the          this field taken as zero             u64 XXH64 of the section
//!         header                                                      u64 0
//! ```
//!
//! All little endian; the rest of the header is zero. Opening always checks the file's length and every byte of the
//! header; the sections are checked on demand ([`Verify`]), because reading gigabytes takes longer than a user waits.
//! Nothing read from the file is trusted: an offset is used only after it was found inside.

use crate::arena::{ALIGN, Arena};
use crate::error::Error;
use crate::hash::{Xxh64, xxh64};
#[cfg(feature = "std")]
use crate::map;
use crate::room::{self, text};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

const MAGIC: &[u8; 8] = b"TVLMWT01";
const VERSION: u32 = 1;
/// Reads as 0x04030201 in a file of the other byte order.
const BYTE_ORDER: u32 = 0x0102_0304;
const FIXED: usize = 80;
const ENTRY: usize = 64;
const PAGE: u64 = 4096;
/// More than any writer makes; bounds what is hashed before the header is known to be good.
const MAX_HEADER: u64 = 1 << 20;

/// Files below this are read into memory and verified when opened; 256 MB.
pub const SMALL: u64 = 256 << 20;

/// How much of the file is compared with its checksums when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// `Full` below [`SMALL`], `Header` from there on.
    #[default]
    Auto,
    /// Length, every byte of the header, and the pairing digest.
    Header,
    /// Every byte of the file.
    Full,
}

/// Where the weights live while the model is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residence {
    /// `Copied` below [`SMALL`], `Mapped` from there on.
    #[default]
    Auto,
    /// In the page cache: opens in milliseconds and is shared between processes. Rewriting the file in place while it
    /// is mapped is undefined; replacing it by rename is harmless, and that is how `tvlmc` writes.
    Mapped,
    /// In private memory, on huge pages where possible: slower to open, faster to stream.
    Copied,
}

/// An open weight file that was packed for this build.
#[derive(Debug)]
pub struct WeightFile {
    path: String,
    bytes: Bytes,
    sections: Vec<Section>,
    header_len: usize,
}

/// Aligned memory for a weight file that a program reads by itself, in pieces that arrive from wherever: a model takes it
/// over without a copy.
#[derive(Debug)]
pub struct WeightBuffer(Arena);

impl WeightBuffer {
    /// Zeroed memory for a file of `len` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(len: usize) -> Result<Self, Error> {
        Arena::new("the weights", len).map(Self)
    }

    /// All of it, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

#[derive(Debug)]
enum Bytes {
    #[cfg(feature = "std")]
    Mapped(map::Pages),
    Copied(Arena),
    /// Of somebody else, who may still be filling it.
    Borrowed {
        base: NonNull<u8>,
        len: usize,
        /// First bytes that are there.
        arrived: AtomicUsize,
    },
}

// SAFETY: pages, arena and borrowed memory may be read by any thread; what is borrowed and has not arrived is not read.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

/// The first byte of a section, for emitted code: also where the section has yet to arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start(*const u8);

impl Start {
    pub(crate) fn get(self) -> *const u8 {
        self.0
    }
}

// SAFETY: an address; who reads there answers for it.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

#[derive(Debug)]
struct Section {
    /// Zero padded.
    name: [u8; 32],
    range: Range<usize>,
    hash: u64,
}

/// What the file has to pair with.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Name of the model, for messages.
    pub model: &'static str,
    /// Pairing digest of the emitted code.
    pub digest: [u8; 32],
}

impl WeightFile {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Truncated`], [`Error::Overlong`], [`Error::NotWeights`], [`Error::Format`],
    /// [`Error::Damaged`], [`Error::Section`], [`Error::WrongBuild`], [`Error::OutOfMemory`].
    #[cfg(feature = "std")]
    pub fn open(path: &std::path::Path, expect: &Expect, verify: Verify, residence: Residence) -> Result<Self, Error> {
        use std::io::Read;
        let shown = room::copied(format_args!("{}", path.display()), "the path")?;
        let failed = |action: &'static str| {
            let path = &shown;
            move |e: std::io::Error| Error::File { path: text!("{path}"), action, reason: text!("{e}") }
        };
        let mut file = std::fs::File::open(path).map_err(failed("open"))?;
        let meta = file.metadata().map_err(failed("read its size"))?;
        if !meta.is_file() {
            let reason = text!("not a regular file: give the path of weights.tvlm");
            return Err(Error::File { path: shown, action: "open", reason });
        }
        let found = meta.len();
        // The fixed fields first: a truncated download must not cost a full read.
        let mut fixed = [0; FIXED];
        if found >= FIXED as u64 {
            file.read_exact(&mut fixed).map_err(failed("read"))?;
        }
        fixed_fields(&shown, &fixed, found)?;

        let len = usize::try_from(found).map_err(|_| too_large(found))?;
        let mapped = match residence {
            Residence::Auto => found >= SMALL,
            Residence::Mapped => true,
            Residence::Copied => false,
        };
        let pages = if mapped { map::file(&file, len) } else { None };
        let bytes = match pages {
            Some(pages) => {
                map::huge(&pages);
                Bytes::Mapped(pages)
            }
            None => {
                use std::io::Seek;
                let mut copy = Arena::new("the weights", len)?;
                file.rewind().map_err(failed("read"))?;
                file.read_exact(copy.bytes_mut()).map_err(failed("read"))?;
                Bytes::Copied(copy)
            }
        };
        let opened = Self::parse(shown, bytes, expect)?;
        if verify == Verify::Full || (verify == Verify::Auto && found < SMALL) {
            opened.verify()?;
        } else if let Bytes::Mapped(pages) = &opened.bytes {
            map::will_need(pages);
        }
        Ok(opened)
    }

    /// Checks a file that is already in memory and copies it to aligned memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the file operations; everything is verified.
    pub fn from_bytes(name: &str, bytes: &[u8], expect: &Expect) -> Result<Self, Error> {
        let fixed = bytes.first_chunk::<FIXED>().unwrap_or(&[0; FIXED]);
        fixed_fields(name, fixed, bytes.len() as u64)?;
        let mut copy = WeightBuffer::new(bytes.len())?;
        copy.bytes_mut().copy_from_slice(bytes);
        Self::from_buffer(name, copy, expect)
    }

    /// Checks a file that was read into a buffer, and keeps that; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn from_buffer(name: &str, buffer: WeightBuffer, expect: &Expect) -> Result<Self, Error> {
        let WeightBuffer(buffer) = buffer;
        let fixed = buffer.bytes().first_chunk::<FIXED>().unwrap_or(&[0; FIXED]);
        fixed_fields(name, fixed, buffer.bytes().len() as u64)?;
        let name = room::copied(format_args!("{name}"), "the name")?;
        let opened = Self::parse(name, Bytes::Copied(buffer), expect)?;
        opened.verify()?;
        Ok(opened)
    }

    /// Checks a file that lies in memory of somebody else, of which the first `arrived` bytes are there; `name` stands for the
    /// path in messages. Only the header is compared with its checksum: whoever brings the file answers for the rest.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the file operations.
    ///
    /// # Safety
    /// `bytes` begin on a multiple of 64 and stay valid while this value lives. What has arrived is initialized and does not
    /// change any more.
    pub unsafe fn borrowed(name: &str, bytes: NonNull<[u8]>, arrived: usize, expect: &Expect) -> Result<Self, Error> {
        let (base, len) = (bytes.cast(), bytes.len());
        let arrived = arrived.min(len);
        // SAFETY: this much has arrived, the caller promises.
        let seen = unsafe { core::slice::from_raw_parts(bytes.cast::<u8>().as_ptr(), arrived) };
        let fixed = seen.first_chunk::<FIXED>().unwrap_or(&[0; FIXED]);
        // Shorter than the fixed fields is truncated; else the length of the whole file counts.
        let header_len = fixed_fields(name, fixed, if arrived < FIXED { arrived } else { len } as u64)?;
        if header_len > arrived {
            let (path, found, expected) = (text!("{name}"), arrived as u64, header_len as u64);
            return Err(Error::Truncated { path, found, expected });
        }
        let name = room::copied(format_args!("{name}"), "the name")?;
        Self::parse(name, Bytes::Borrowed { base, len, arrived: AtomicUsize::new(arrived) }, expect)
    }

    /// Of borrowed memory, that many first bytes are there now, and do not change any more.
    pub fn arrived(&self, bytes: usize) {
        if let Bytes::Borrowed { len, arrived, .. } = &self.bytes {
            arrived.fetch_max(bytes.min(*len), Ordering::Release);
        }
    }

    fn parse(path: String, bytes: Bytes, expect: &Expect) -> Result<Self, Error> {
        let mut this = Self { path, bytes, sections: Vec::new(), header_len: 0 };
        let all = this.all();
        // Again, from the bytes that will be used.
        let fixed = all.first_chunk::<FIXED>().unwrap_or(&[0; FIXED]);
        let len = this.len();
        let header_len = fixed_fields(&this.path, fixed, len as u64)?;
        let header = &all[..header_len];
        let mut hash = Xxh64::new(0);
        hash.update(&header[..72]);
        hash.update(&[0; 8]);
        hash.update(&header[80..]);
        if hash.finish() != u64_at(header, 72) {
            return Err(Error::Damaged { path: this.path, item: text!("the header") });
        }
        let sections = sections(&this.path, header, len)?;
        let digest = header.get(32..64).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).unwrap_or_default();
        if digest != expect.digest {
            let (model, expected) = (expect.model, expect.digest);
            return Err(Error::WrongBuild { path: this.path, model, found: digest, expected });
        }
        (this.sections, this.header_len) = (sections, header_len);
        Ok(this)
    }

    /// As given when opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Borrowed { len, .. } => *len,
            _ => self.all().len(),
        }
    }

    /// Never: a file has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of private memory that hold the file: its length, or 0 when it is mapped.
    pub fn private_bytes(&self) -> usize {
        match &self.bytes {
            #[cfg(feature = "std")]
            Bytes::Mapped(_) => 0,
            Bytes::Copied(copy) => copy.len(),
            Bytes::Borrowed { len, .. } => *len,
        }
    }

    /// Gives the pages of a mapped file back to the system, which reads them again when they are needed: bytes of them that
    /// were in memory. A file in private memory stays.
    pub fn trim(&self) -> usize {
        match &self.bytes {
            #[cfg(feature = "std")]
            Bytes::Mapped(pages) => map::evict(pages),
            _ => 0,
        }
    }

    /// The bytes of a section; they begin on a line.
    ///
    /// # Errors
    /// [`Error::Section`] when there is none of that name, it is shorter than `least` bytes, or it has not arrived yet.
    pub fn section(&self, name: &str, least: usize) -> Result<&[u8], Error> {
        let range = self.range(name, least)?;
        let (all, end) = (self.all(), range.end);
        let Some(bytes) = all.get(range) else {
            let reason = text!("it ends at {end}, {} bytes of the file have arrived: wait for more", all.len());
            return Err(self.wrong(name, reason));
        };
        Ok(bytes)
    }

    /// Where a section begins; as [`section`](Self::section), but it need not have arrived.
    pub(crate) fn start(&self, name: &str, least: usize) -> Result<Start, Error> {
        let range = self.range(name, least)?;
        Ok(Start(match &self.bytes {
            Bytes::Borrowed { base, .. } => base.as_ptr().wrapping_add(range.start),
            _ => self.all()[range].as_ptr(),
        }))
    }

    fn range(&self, name: &str, least: usize) -> Result<Range<usize>, Error> {
        let Some(section) = self.sections.iter().find(|section| unpadded(&section.name) == name.as_bytes()) else {
            return Err(self.wrong(name, text!("missing: compile the checkpoint again")));
        };
        let found = section.range.len();
        if found < least {
            let reason = text!("{found} bytes, the code reads {least}: compile the checkpoint again");
            return Err(self.wrong(name, reason));
        }
        Ok(section.range.clone())
    }

    fn wrong(&self, section: &str, reason: String) -> Error {
        Error::Section { path: text!("{}", self.path), section: text!("{section}"), reason }
    }

    /// Compares every section with its checksum, and the gaps between them with zero.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the section; [`Error::Truncated`] where not all of it has arrived.
    pub fn verify(&self) -> Result<(), Error> {
        let damaged = |item: String| Error::Damaged { path: text!("{}", self.path), item };
        let all = self.all();
        if all.len() < self.len() {
            let (found, expected) = (all.len() as u64, self.len() as u64);
            return Err(Error::Truncated { path: text!("{}", self.path), found, expected });
        }
        let mut end = self.header_len;
        for section in &self.sections {
            let name = || text!("section \"{}\"", unpadded(&section.name).escape_ascii());
            if all[end..section.range.start].iter().any(|&byte| byte != 0) {
                return Err(damaged(text!("the padding before {}", name())));
            }
            if xxh64(&all[section.range.clone()], 0) != section.hash {
                return Err(damaged(name()));
            }
            end = section.range.end;
        }
        if all[end..].iter().any(|&byte| byte != 0) {
            return Err(damaged(text!("the padding at the end")));
        }
        Ok(())
    }

    /// All bytes that are there.
    fn all(&self) -> &[u8] {
        match &self.bytes {
            // SAFETY: this much has arrived, and stays as it is (`borrowed`).
            Bytes::Borrowed { base, arrived, .. } => unsafe {
                core::slice::from_raw_parts(base.as_ptr(), arrived.load(Ordering::Acquire))
            },
            // SAFETY: the pages are mapped for their whole length until drop; see `Residence::Mapped` on rewriting.
            #[cfg(feature = "std")]
            Bytes::Mapped(pages) => unsafe { core::slice::from_raw_parts(pages.base().as_ptr(), pages.len()) },
            Bytes::Copied(copy) => copy.bytes(),
        }
    }
}

/// Checks the fields that must be right before anything else is looked at; returns the header's length.
fn fixed_fields(path: &str, fixed: &[u8; FIXED], found: u64) -> Result<usize, Error> {
    let path = || text!("{path}");
    if found < FIXED as u64 {
        return Err(Error::Truncated { path: path(), found, expected: PAGE });
    }
    if fixed[..8] != *MAGIC {
        let starts = text!("{}", fixed[..8].escape_ascii());
        return Err(Error::NotWeights { path: path(), starts });
    }
    // Before the version, which cannot be read without it.
    for (item, at, expected) in [("byte order", 12, BYTE_ORDER), ("version", 8, VERSION)] {
        let value = u32_at(fixed, at);
        if value != expected {
            return Err(Error::Format { path: path(), item, found: value.into(), expected: expected.into() });
        }
    }
    let expected = u64_at(fixed, 16);
    if found < expected {
        return Err(Error::Truncated { path: path(), found, expected });
    }
    if found > expected {
        return Err(Error::Overlong { path: path(), found, expected });
    }
    let header_len = u64_at(fixed, 24);
    if header_len == 0 || !header_len.is_multiple_of(PAGE) || header_len > MAX_HEADER.min(found) {
        return Err(Error::Damaged { path: path(), item: text!("the header's length, {header_len},") });
    }
    usize::try_from(header_len).map_err(|_| too_large(header_len))
}

/// Reads the table of sections; the header's checksum is right, so a contradiction is the writer's.
fn sections(path: &str, header: &[u8], file_len: usize) -> Result<Vec<Section>, Error> {
    let wrong = |name: &[u8], reason: String| {
        let (path, section) = (text!("{path}"), text!("{}", name.escape_ascii()));
        Error::Section { path, section, reason }
    };
    let count = u32_at(header, 64) as usize;
    let table_end = count.checked_mul(ENTRY).and_then(|len| len.checked_add(FIXED)).filter(|&end| end <= header.len());
    let Some(table_end) = table_end else {
        return Err(wrong(b"*", text!("{count} entries do not fit the header of {} bytes", header.len())));
    };
    if u32_at(header, 68) != 0 || header[table_end..].iter().any(|&byte| byte != 0) {
        return Err(wrong(b"*", text!("reserved bytes of the header are not zero")));
    }
    let mut sections: Vec<Section> = room::with_room(count, "the weights")?;
    let mut end = header.len();
    for entry in header[FIXED..table_end].chunks_exact(ENTRY) {
        let padded = entry.first_chunk::<32>().copied().unwrap_or_default();
        let name = unpadded(&padded);
        let (offset, len) = (u64_at(entry, 32), u64_at(entry, 40));
        if name.is_empty() || padded[name.len()..].iter().any(|&byte| byte != 0) || u64_at(entry, 56) != 0 {
            return Err(wrong(name, text!("its entry is malformed")));
        }
        if sections.iter().any(|section| section.name == padded) {
            return Err(wrong(name, text!("listed twice")));
        }
        let start = usize::try_from(offset).ok().filter(|&start| start >= end && offset.is_multiple_of(PAGE));
        let range = start.and_then(|start| Some(start..start.checked_add(usize::try_from(len).ok()?)?));
        let Some(range) = range.filter(|range| range.end <= file_len) else {
            let reason = text!("{len} bytes at {offset} overlap another section or leave the {file_len} of the file");
            return Err(wrong(name, reason));
        };
        end = range.end;
        sections.push(Section { name: padded, range, hash: u64_at(entry, 48) });
    }
    Ok(sections)
}

/// A name without its padding.
fn unpadded(name: &[u8; 32]) -> &[u8] {
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(32);
    &name[..len]
}

fn too_large(bytes: u64) -> Error {
    Error::OutOfMemory { item: "the weights", need: bytes, have: Some(usize::MAX as u64) }
}

/// Reads past the end count as zero: callers have checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes)
}

const _: () = assert!((PAGE as usize).is_multiple_of(ALIGN), "sections must begin on a line");
