//! A conversation as a file, so that an app which is ended in the background goes on where it was.
//!
//! ```text
//!  0  b"TVLMCHAT"        32  [u8; 32] digest of the model     96  f32 temperature    104  f32 repetition penalty
//!  8  u32 version = 1    64  u64 positions                   100  f32 top p          108  u32 pending token, or all ones
//! 12  u32 0x01020304     72  u64 of them prefilled           112  u64 top k          136  u64 bytes of the cache
//! 16  u64 bytes in all   80  u64 tokens of the history       120  u64 seed           144  u64 0
//! 24  u64 XXH64 of all   88  u64 pictures                    128  u64 state of the   152  u64 XXH64 of what is between the
//!     behind byte 32                                              random numbers          header and the cache
//!
//! 160  the history: u32 each
//!      what each position was made of: u32 token, all ones; or u32 row, u32 picture from 0 on
//!      the cache: for each slot and each of its pieces the blocks of these positions
//! ```
//!
//! All little endian. The cache is that of the model's code, bit for bit, which the digest stands for. Nothing read is
//! trusted: every number is checked before it is used, and the conversation changes only when everything but the cache, which
//! is read to its place, was found good.

use crate::error::Error;
use crate::hash::Xxh64;
use crate::picture;
use crate::program::{Info, Program};
use crate::prompt::Held;
use crate::room::{self, text};
use crate::sampler::{Sampler, SamplerOptions};
use crate::session::Session;
use alloc::string::String;
use alloc::vec::Vec;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const MAGIC: &[u8; 8] = b"TVLMCHAT";
const VERSION: u32 = 1;
const BYTE_ORDER: u32 = 0x0102_0304;
const HEADER: usize = 160;
/// What the checksum at byte 24 leaves out.
const UNCHECKED: usize = 32;
/// No token, or a token where a picture could be.
const NONE: u32 = u32::MAX;
/// Floats that are copied at a time.
const PIECE: usize = 4096;
/// Stands for the file in messages about a stream.
const STREAM: &str = "the saved conversation";
/// What memory of this module is for, in errors.
const ITEM: &str = "the saved conversation";

impl<P: Program> Session<'_, P> {
    /// Writes the conversation: what was said, what the cache holds of it, where the sampler is. An answer that was given up
    /// before its end is part of it, and [`go_on`](Self::go_on) finishes it.
    ///
    /// # Errors
    /// [`Error::File`] where the writer refuses, [`Error::OutOfMemory`].
    pub fn save(&self, writer: &mut impl Write) -> Result<(), Error> {
        self.write_to(writer).map_err(|fault| fault.named(STREAM, "write"))
    }

    /// As [`save`](Self::save), to a file, which is complete or as it was before.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let temporary = beside(path);
        let written = private(&temporary).map_err(Fault::from).and_then(|mut file| {
            self.write_to(&mut file)?;
            file.sync_all()?;
            Ok(fs::rename(&temporary, path)?)
        });
        written.map_err(|fault| {
            // What is left of a failure is of no use, and may not be there.
            let _ = fs::remove_file(&temporary);
            fault.named(&text!("{}", path.display()), "write")
        })
    }

    /// Takes up a conversation that a session of the same model saved, in this process or another: it goes on with the same
    /// tokens as if nothing had been. The sampler's options are those that were saved; threads, speculation and the length of
    /// answers stay this session's. Pictures that it was about are no longer those of any [`Image`](crate::Image).
    ///
    /// # Errors
    /// [`Error::SavedForeign`] for something else, [`Error::SavedDamaged`], [`Error::File`], [`Error::OutOfMemory`]. The
    /// conversation is then what it was; after damage that only the cache's checksum shows it is empty, as after
    /// [`forget`](Self::forget).
    pub fn restore(&mut self, reader: &mut impl Read) -> Result<(), Error> {
        self.read_from(reader).map_err(|fault| fault.named(STREAM, "read"))
    }

    /// As [`restore`](Self::restore), from a file, which is read once before to be sure of its checksum.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); the conversation is what it was, unless the file changes meanwhile.
    pub fn restore_file(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let restored = File::open(path).map_err(Fault::from).and_then(|mut file| {
            verify(&mut file, P::info())?;
            io::Seek::rewind(&mut file)?;
            self.read_from(&mut file)
        });
        restored.map_err(|fault| fault.named(&text!("{}", path.display()), "read"))
    }

    fn write_to(&self, writer: &mut impl Write) -> Result<(), Fault> {
        let (info, positions) = (P::info(), self.position);
        let cached = self.cached.get(..positions).ok_or_else(|| program("it holds less than the conversation"))?;
        // Pictures by the order in which they appear.
        let mut pictures: Vec<usize> = Vec::new();
        let mut facts: Vec<u8> = room::with_room(4 * self.history.len() + 8 * positions, ITEM)?;
        self.history.iter().for_each(|id| facts.extend(id.to_le_bytes()));
        for held in cached {
            let [first, second] = match *held {
                Held::Token(id) => [id, NONE],
                Held::Image { id, row } => {
                    let known = pictures.iter().position(|&picture| picture == id);
                    let at = known.unwrap_or(pictures.len());
                    if known.is_none() {
                        room::push(&mut pictures, id, ITEM)?;
                    }
                    [row as u32, at as u32]
                }
            };
            facts.extend(first.to_le_bytes());
            facts.extend(second.to_le_bytes());
        }
        let cache = cache_bytes(info, positions);
        let sampler = &self.options.sampler;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        put(&mut header, 8, VERSION.to_le_bytes());
        put(&mut header, 12, BYTE_ORDER.to_le_bytes());
        put(&mut header, 16, ((HEADER + facts.len()) as u64 + cache).to_le_bytes());
        put(&mut header, 32, info.digest);
        let prefilled = self.prefilled.min(positions);
        for (at, n) in [(64, positions), (72, prefilled), (80, self.history.len()), (88, pictures.len())] {
            put(&mut header, at, (n as u64).to_le_bytes());
        }
        for (at, value) in [(96, sampler.temperature), (100, sampler.top_p), (104, sampler.repetition_penalty)] {
            put(&mut header, at, value.to_bits().to_le_bytes());
        }
        put(&mut header, 108, self.pending.unwrap_or(NONE).to_le_bytes());
        put(&mut header, 112, (sampler.top_k as u64).to_le_bytes());
        put(&mut header, 120, sampler.seed.to_le_bytes());
        put(&mut header, 128, self.sampler.state().to_le_bytes());
        put(&mut header, 136, cache.to_le_bytes());
        put(&mut header, 152, crate::hash::xxh64(&facts, 0).to_le_bytes());
        // The checksum stands before what it is made of, so the cache is gone through twice.
        let mut hash = Xxh64::new(0);
        hash.update(&header[UNCHECKED..]);
        hash.update(&facts);
        self.each_piece(|bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        put(&mut header, 24, hash.finish().to_le_bytes());
        writer.write_all(&header)?;
        writer.write_all(&facts)?;
        self.each_piece(|bytes| Ok(writer.write_all(bytes)?))?;
        Ok(writer.flush()?)
    }

    /// The cache of the conversation's positions, in pieces.
    fn each_piece(&self, mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut bytes = [0; 4 * PIECE];
        for slot in P::info().cache {
            for at in slot.pieces() {
                // In bounds: `Info::check`.
                let floats = self.arena.floats(at, slot.piece_bytes(self.position) / 4).unwrap_or_default();
                for floats in floats.chunks(PIECE) {
                    for (to, float) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(floats) {
                        *to = float.to_bits().to_le_bytes();
                    }
                    each(&bytes[..4 * floats.len()])?;
                }
            }
        }
        Ok(())
    }

    fn read_from(&mut self, reader: &mut impl Read) -> Result<(), Fault> {
        let info = P::info();
        let (header, facts) = begin(reader, info)?;
        let Header { positions, prefilled, history, pictures, pending, ref sampler, state, .. } = header;
        let mut words = facts.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let token = |id: u32| {
            let known = (id as usize) < info.vocab;
            if known { Ok(id) } else { Err(damaged(format_args!("token {id} is none of {}", info.vocab))) }
        };
        let mut said = room::with_room(history, ITEM)?;
        for id in words.by_ref().take(history) {
            said.push(token(id)?);
        }
        let mut cached = room::with_room(positions, ITEM)?;
        // New numbers: pictures of this process have others.
        let first = picture::numbers(pictures);
        while let (Some(one), Some(other)) = (words.next(), words.next()) {
            let image = other as usize;
            cached.push(match other {
                NONE => Held::Token(token(one)?),
                _ if image < pictures => Held::Image { id: first.wrapping_add(image), row: one as usize },
                _ => return Err(damaged(format_args!("picture {image} of {pictures}"))),
            });
        }
        let pending = if pending == NONE { None } else { Some(token(pending)?) };
        let (options, mut sampler) = (sampler.clone(), Sampler::new(sampler.clone(), info.vocab)?);
        sampler.set_state(state);
        // From here on the old conversation is gone.
        self.forget();
        self.speculation.settle();
        let mut hash = header.hash(&facts);
        let read = self.read_cache(reader, positions, &mut hash);
        read.and_then(|()| header.ends(reader, &hash)).inspect_err(|_| self.forget())?;
        self.history.extend(said);
        self.cached.extend(cached);
        (self.position, self.prefilled, self.pending) = (positions, prefilled, pending);
        (self.options.sampler, self.sampler) = (options, sampler);
        Ok(())
    }

    fn read_cache(&mut self, reader: &mut impl Read, positions: usize, hash: &mut Xxh64) -> Result<(), Fault> {
        let mut bytes = [0; 4 * PIECE];
        for slot in P::info().cache {
            for at in slot.pieces() {
                // In bounds: `Info::check`, as the positions are.
                let floats = self.arena.floats_mut(at, slot.piece_bytes(positions) / 4).unwrap_or_default();
                for floats in floats.chunks_mut(PIECE) {
                    let bytes = &mut bytes[..4 * floats.len()];
                    reader.read_exact(bytes)?;
                    hash.update(bytes);
                    for (float, word) in floats.iter_mut().zip(bytes.as_chunks::<4>().0) {
                        *float = f32::from_bits(u32::from_le_bytes(*word));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a saved conversation says of itself, checked.
struct Header {
    bytes: [u8; HEADER],
    positions: usize,
    prefilled: usize,
    history: usize,
    pictures: usize,
    pending: u32,
    sampler: SamplerOptions,
    state: u64,
}

impl Header {
    /// The checksum of all that comes before the cache.
    fn hash(&self, facts: &[u8]) -> Xxh64 {
        let mut hash = Xxh64::new(0);
        hash.update(&self.bytes[UNCHECKED..]);
        hash.update(facts);
        hash
    }

    /// The checksum is right, and nothing follows.
    fn ends(&self, reader: &mut impl Read, hash: &Xxh64) -> Result<(), Fault> {
        if hash.finish() != u64_at(&self.bytes, 24) {
            return Err(damaged(format_args!("it does not match its checksum")));
        }
        match reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(damaged(format_args!("more follows after its end"))),
        }
    }
}

/// Reads and checks everything before the cache.
fn begin(reader: &mut impl Read, info: &Info) -> Result<(Header, Vec<u8>), Fault> {
    let mut bytes = [0; HEADER];
    // A short file that begins otherwise is no damaged one.
    let mut have = 0;
    while have < HEADER {
        match reader.read(&mut bytes[have..])? {
            0 => break,
            n => have += n,
        }
    }
    if !bytes.starts_with(MAGIC) {
        let starts = bytes[..have.min(8)].escape_ascii();
        return Err(foreign(format_args!("starts with \"{starts}\", expected \"TVLMCHAT\"")));
    }
    if have < HEADER {
        return Err(damaged(format_args!("it ends after {have} bytes")));
    }
    for (item, at, expected) in [("byte order", 12, BYTE_ORDER), ("version", 8, VERSION)] {
        let found = u32_at(&bytes, at);
        if found != expected {
            return Err(foreign(format_args!("{item} is {found:#x}, this build reads {expected:#x}")));
        }
    }
    if bytes[32..64] != info.digest {
        return Err(foreign(format_args!("saved by another model or build, not by this one of {}", info.name)));
    }
    let bounded = |item: &str, at: usize, most: usize| {
        let found = u64_at(&bytes, at);
        let n = usize::try_from(found).ok().filter(|&n| n <= most);
        n.ok_or_else(|| damaged(format_args!("{item}: {found}, at most {most} can be")))
    };
    let positions = bounded("positions", 64, info.max_context)?;
    let prefilled = bounded("prefilled positions", 72, positions)?;
    let history = bounded("tokens", 80, info.max_context.saturating_add(1))?;
    let pictures = bounded("pictures", 88, positions)?;
    let cache = cache_bytes(info, positions);
    let n = 4 * history + 8 * positions;
    let whole = (HEADER + n) as u64 + cache;
    for (item, at, expected) in [("bytes of the cache", 136, cache), ("bytes", 16, whole), ("reserved", 144, 0)] {
        let found = u64_at(&bytes, at);
        if found != expected {
            return Err(damaged(format_args!("{item}: {found}, expected {expected}")));
        }
    }
    let float = |at: usize| f32::from_bits(u32_at(&bytes, at));
    let sampler = SamplerOptions {
        temperature: float(96),
        top_p: float(100),
        repetition_penalty: float(104),
        top_k: bounded("top k", 112, usize::MAX)?,
        seed: u64_at(&bytes, 120),
    };
    sampler.check().map_err(|error| damaged(format_args!("{error}")))?;
    let mut facts = room::filled(0, n, ITEM)?;
    reader.read_exact(&mut facts)?;
    if crate::hash::xxh64(&facts, 0) != u64_at(&bytes, 152) {
        return Err(damaged(format_args!("what was said does not match its checksum")));
    }
    let (pending, state) = (u32_at(&bytes, 108), u64_at(&bytes, 128));
    Ok((Header { bytes, positions, prefilled, history, pictures, pending, sampler, state }, facts))
}

/// Reads all of it, and changes nothing.
fn verify(reader: &mut impl Read, info: &Info) -> Result<(), Fault> {
    let (header, facts) = begin(reader, info)?;
    let mut hash = header.hash(&facts);
    let mut left = cache_bytes(info, header.positions);
    let mut bytes = [0; 4 * PIECE];
    while left > 0 {
        let n = left.min(bytes.len() as u64) as usize;
        reader.read_exact(&mut bytes[..n])?;
        hash.update(&bytes[..n]);
        left -= n as u64;
    }
    header.ends(reader, &hash)
}

/// Bytes of the blocks of so many positions.
fn cache_bytes(info: &Info, positions: usize) -> u64 {
    let all = info.cache.iter().map(|slot| slot.piece_bytes(positions) as u64 * slot.pieces as u64);
    all.fold(0, u64::saturating_add)
}

/// A new file for its owner alone: it holds what was said.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A name in the same folder that nobody else writes to.
fn beside(path: &Path) -> PathBuf {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(std::format!(".{}-{}.tmp", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

/// Why it did not work, before it is known of what.
enum Fault {
    Io(io::Error),
    Damaged(String),
    Foreign(String),
    Error(Error),
}

impl Fault {
    fn named(self, path: &str, action: &'static str) -> Error {
        let path = text!("{path}");
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::SavedDamaged { path, reason: text!("it ends early") }
            }
            Self::Io(error) => Error::File { path, action, reason: text!("{error}") },
            Self::Damaged(reason) => Error::SavedDamaged { path, reason },
            Self::Foreign(reason) => Error::SavedForeign { path, reason },
            Self::Error(error) => error,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn damaged(reason: core::fmt::Arguments<'_>) -> Fault {
    Fault::Damaged(text!("{reason}"))
}

fn foreign(reason: core::fmt::Arguments<'_>) -> Fault {
    Fault::Foreign(text!("{reason}"))
}

fn program(reason: &str) -> Fault {
    Fault::Error(Error::Program { reason: text!("the cache: {reason}") })
}

fn put<const N: usize>(header: &mut [u8; HEADER], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes)
}
