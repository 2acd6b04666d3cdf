//! A model: its weights, tokenizer and code. Shared by any number of sessions.

use crate::cpu;
use crate::delegate::{Delegate, Delegated, Delegation};
use crate::error::Error;
use crate::program::{Level, Program};
use crate::room::text;
use crate::session::{Options, Session};
use crate::team;
use crate::tokenizer::Tokenizer;
use crate::weights::{Expect, Residence, Verify, WeightBuffer, WeightFile};
use alloc::boxed::Box;
use core::ptr::NonNull;
use core::time::Duration;

/// Choices made when a model is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions<'a> {
    /// How much of the file is compared with its checksums; all of it below 256 MB unless told otherwise.
    pub verify: Verify,
    /// Where the weights live; in private memory below 256 MB, mapped from there on, unless told otherwise.
    pub residence: Residence,
    /// Threads of sessions that do not say; all processors unless told otherwise, of phones the fast ones.
    pub threads: Option<usize>,
    /// Name of the level to use; the best that this processor has unless told otherwise.
    pub level: Option<&'a str>,
}

/// An open model.
pub struct Model<P> {
    pub(crate) program: P,
    /// Borrows from `file`; the lifetime is a stand-in and leaves this type only as that of `&self`.
    tokenizer: Tokenizer<'static>,
    pub(crate) file: WeightFile,
    pub(crate) threads: Option<usize>,
    pub(crate) delegate: Option<Delegated>,
    level: usize,
    load: Duration,
}

impl<P: Program> Model<P> {
    /// Maps the weights, checks that they belong to this code, and chooses the level. Takes milliseconds.
    ///
    /// # Errors
    /// Everything [`WeightFile::open`] refuses, [`Error::Tokenizer`], and [`Error::Cpu`] on a processor below the lowest level.
    #[cfg(feature = "std")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// As [`open`](Self::open), with choices.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::UnknownLevel`].
    #[cfg(feature = "std")]
    pub fn open_with(path: impl AsRef<std::path::Path>, options: &OpenOptions<'_>) -> Result<Self, Error> {
        let clock = crate::clock::Clock::start();
        let level = choose_level::<P>(options.level)?;
        let file = WeightFile::open(path.as_ref(), &Self::expect(), options.verify, options.residence)?;
        let mut model = Self::with_file(file, level, options)?;
        model.load = clock.elapsed();
        Ok(model)
    }

    /// As [`open_with`](Self::open_with), from a file that is in memory (and is copied); `name` appears in messages.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn from_bytes(name: &str, bytes: &[u8], options: &OpenOptions<'_>) -> Result<Self, Error> {
        let level = choose_level::<P>(options.level)?;
        Self::with_file(WeightFile::from_bytes(name, bytes, &Self::expect())?, level, options)
    }

    /// As [`from_bytes`](Self::from_bytes), from a file that was read into a buffer, which is not copied.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn from_buffer(name: &str, buffer: WeightBuffer, options: &OpenOptions<'_>) -> Result<Self, Error> {
        let level = choose_level::<P>(options.level)?;
        Self::with_file(WeightFile::from_buffer(name, buffer, &Self::expect())?, level, options)
    }

    /// As [`from_bytes`](Self::from_bytes), from a file that lies in memory of somebody else and may still be arriving; see
    /// [`WeightFile::borrowed`]. What a session needs first has to be there: everything but section "weights".
    ///
    /// # Errors
    /// As [`open`](Self::open), without the file operations; only the header is compared with its checksum.
    ///
    /// # Safety
    /// Those of [`WeightFile::borrowed`].
    pub unsafe fn borrowed(name: &str, bytes: NonNull<[u8]>, arrived: usize) -> Result<Self, Error> {
        let level = choose_level::<P>(None)?;
        // SAFETY: promised by the caller.
        let file = unsafe { WeightFile::borrowed(name, bytes, arrived, &Self::expect())? };
        Self::with_file(file, level, &OpenOptions::default())
    }

    fn with_file(file: WeightFile, level: usize, options: &OpenOptions<'_>) -> Result<Self, Error> {
        P::info().check()?;
        options.threads.map_or(Ok(()), team::check)?;
        file.start("weights", P::info().weights_bytes)?;
        let section = file.section("tokenizer", 0)?;
        // SAFETY: the section lies in pages or heap memory that `file` owns and never moves, changes or frees before it
        // is dropped; the model keeps both together, and `Model::tokenizer` shortens the lifetime again.
        let section: &'static [u8] = unsafe { core::slice::from_raw_parts(section.as_ptr(), section.len()) };
        let tokenizer = Tokenizer::from_section(section)?;
        let program = P::with_level(level);
        Ok(Self { program, tokenizer, file, threads: options.threads, delegate: None, level, load: Duration::ZERO })
    }

    fn expect() -> Expect {
        Expect { model: P::info().name, digest: P::info().digest }
    }

    /// Has pictures encoded by somebody else, who is asked now whether that is possible; [`delegate`](Self::delegate) tells.
    /// The processor does what a delegate does not.
    pub fn set_delegate(&mut self, delegate: Box<dyn Delegate>) {
        self.delegate = Some(Delegated::new(delegate, P::info()));
    }

    /// Who encodes pictures besides the processor, and why it does not if it does not.
    pub fn delegate(&self) -> Option<Delegation<'_>> {
        self.delegate.as_ref().map(Delegated::told)
    }

    /// A conversation of its own: allocates the arena and starts the threads.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or [`Error::Argument`] for options out of range.
    pub fn session(&self, options: Options) -> Result<Session<'_, P>, Error> {
        Session::new(self, options)
    }

    /// Gives back what memory of the weights can be read again, in an emergency: bytes that were in memory. Sessions may work
    /// meanwhile; they get slower until the pages are there again.
    pub fn trim(&self) -> usize {
        self.file.trim()
    }

    /// The code.
    pub fn program(&self) -> &P {
        &self.program
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer<'_> {
        &self.tokenizer
    }

    /// Name of the level in use.
    pub fn level(&self) -> &'static str {
        P::LEVELS.get(self.level).map_or("", |level| level.name)
    }

    /// The open weight file.
    pub fn weights(&self) -> &WeightFile {
        &self.file
    }

    /// Time that opening took.
    pub fn load_time(&self) -> Duration {
        self.load
    }
}

impl<P: Program> core::fmt::Debug for Model<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Model({}, {}, {})", P::info().name, self.level(), self.file.path())
    }
}

/// Levels by name, separated by commas.
struct Names(&'static [Level]);

impl core::fmt::Display for Names {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, level) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, level.name)?;
        }
        Ok(())
    }
}

/// Index of the level to use. Runs before any emitted kernel.
fn choose_level<P: Program>(name: Option<&str>) -> Result<usize, Error> {
    let refused = |level: &str| {
        let (needs, lacks) = cpu::describe(level);
        Error::Cpu { level: text!("{level}"), needs, lacks }
    };
    let Some(name) = name else {
        let best = P::LEVELS.iter().position(|level| (level.available)());
        return best.ok_or_else(|| refused(P::LEVELS.last().map_or("none", |level| level.name)));
    };
    let Some(index) = P::LEVELS.iter().position(|level| level.name == name) else {
        return Err(Error::UnknownLevel { name: text!("{name}"), known: text!("{}", Names(P::LEVELS)) });
    };
    if (P::LEVELS[index].available)() { Ok(index) } else { Err(refused(name)) }
}
