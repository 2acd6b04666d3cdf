//! Handles of models.

use crate::delegate::{self, Delegate};
use crate::given::{self, Sized0};
use crate::status::Problem;
use core::ffi::c_char;
use core::ptr::null;
use runtime_min::{Program, Residence, Verify};
use std::ffi::CString;
use std::sync::{Arc, OnceLock};

/// `tvlm_model`. Sessions keep what they need of it.
pub struct Model<P: Program> {
    pub(crate) shared: Arc<runtime_min::Model<P>>,
    level: CString,
    delegate: CString,
    /// Why a delegate did not do its work, once while it is in use and once after that: each is set when it is first asked for.
    reasons: [OnceLock<CString>; 2],
    sides: Vec<Side>,
}

/// `tvlm_side`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Side {
    /// Pixels on each side of the square that a picture becomes.
    pub side: u32,
    /// Positions that it takes.
    pub tokens: u32,
}

/// `tvlm_open_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OpenOptions {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// Threads of sessions that do not say; 0: all processors, of phones the fast ones.
    pub threads: u32,
    /// 0: the whole file if it is small; 1: its header; 2: the whole file.
    pub verify: u32,
    /// 0: private memory if the file is small; 1: mapped; 2: private memory.
    pub residence: u32,
    reserved: u32,
    /// Name of an instruction-set level; null: the best that this processor has.
    pub level: *const c_char,
    /// Who encodes pictures; null: the processor.
    pub delegate: *const Delegate,
}

// SAFETY: numbers and a pointer behind a size; zeros are the defaults.
unsafe impl Sized0 for OpenOptions {}

/// `tvlm_model_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// The largest side.
    pub image_side: u32,
    /// Positions that a picture of it takes.
    pub tokens_per_image: u32,
    /// Positions of a conversation.
    pub max_context: u32,
    /// Most tokens that are guessed and verified together.
    pub max_speculation: u32,
    /// Bytes that all threads of a session share.
    pub arena_bytes: u64,
    /// Bytes of each thread of a session.
    pub scratch_bytes_per_thread: u64,
    /// Bytes of the weight file.
    pub weights_bytes: u64,
    /// Name of the level in use; lives as long as the handle.
    pub level: *const c_char,
    /// All sides, from small to large; they live as long as the handle.
    pub sides: *const Side,
    /// How many.
    pub side_count: usize,
    /// Name of who encodes pictures, null if that is the processor; lives as long as the handle.
    pub delegate: *const c_char,
    /// Why the processor first did a delegate's work, null if it did not; lives as long as the handle.
    pub delegate_reason: *const c_char,
    /// Pictures that the delegate encoded.
    pub delegate_encoded: u64,
    /// Pictures that were offered to it and that the processor encoded.
    pub delegate_fell_back: u64,
}

// SAFETY: numbers and a pointer behind a size.
unsafe impl Sized0 for Info {}

/// # Safety
/// `path` and the text in `options` end with zeros; `options` has the size that it says, and so has its delegate; `model` is a
/// place for a handle.
pub unsafe fn open<P: Program>(
    path: *const c_char,
    options: *const OpenOptions,
    model: *mut *mut Model<P>,
) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::none(model) };
    // SAFETY: passed on.
    let (path, options) = unsafe { (given::text("path", path)?, given::options("options", options)?) };
    let mut chosen = runtime_min::OpenOptions::default();
    let mut helper = None;
    if let Some(options) = options {
        given::reserved("options.reserved", options.reserved)?;
        chosen.threads = (options.threads > 0).then_some(options.threads as usize);
        chosen.verify = match options.verify {
            0 => Verify::Auto,
            1 => Verify::Header,
            2 => Verify::Full,
            _ => return Err(Problem::argument("options.verify", "is none of TVLM_VERIFY_*")),
        };
        chosen.residence = match options.residence {
            0 => Residence::Auto,
            1 => Residence::Mapped,
            2 => Residence::Copied,
            _ => return Err(Problem::argument("options.residence", "is none of TVLM_RESIDENCE_*")),
        };
        // SAFETY: passed on.
        chosen.level = unsafe { given::optional_text("options.level", options.level)? };
        // SAFETY: passed on.
        helper = unsafe { delegate::given(options.delegate)? };
    }
    let open = || {
        let mut model = runtime_min::Model::open_with(path, &chosen)?;
        if let Some(helper) = helper {
            model.set_delegate(Box::new(helper));
        }
        let level = CString::new(model.level()).unwrap_or_default();
        let delegate = model.delegate().map_or("", |told| told.name);
        let delegate = CString::new(delegate).unwrap_or_default();
        let sides = P::info().sides.iter().map(|known| Side { side: known.side as u32, tokens: known.tokens as u32 });
        Ok(Model { shared: Arc::new(model), level, delegate, reasons: Default::default(), sides: sides.collect() })
    };
    // SAFETY: passed on.
    unsafe { given::new("model", model, open) }
}

/// # Safety
/// `model` is a handle; `info` has the size that it says.
pub unsafe fn info<P: Program>(model: *const Model<P>, info: *mut Info) -> Result<(), Problem> {
    // SAFETY: passed on.
    let model = unsafe { given::handle("model", model)? };
    if info.is_null() {
        return Err(Problem::argument("info", "is NULL"));
    }
    let own = P::info();
    let told = model.shared.delegate();
    let reason = told.and_then(|told| told.reason.map(|reason| (told.in_use, reason))).map(|(in_use, reason)| {
        let text = || CString::new(reason.replace('\0', " ")).unwrap_or_default();
        model.reasons[usize::from(in_use)].get_or_init(text).as_ptr()
    });
    let (side, tokens) = own.sides.last().map_or((0, 0), |side| (side.side, side.tokens));
    let value = Info {
        size: 0,
        image_side: side as u32,
        tokens_per_image: tokens as u32,
        max_context: own.max_context as u32,
        max_speculation: own.verify_rows.saturating_sub(1) as u32,
        arena_bytes: own.arena_bytes as u64,
        scratch_bytes_per_thread: own.scratch_bytes as u64,
        weights_bytes: model.shared.weights().len() as u64,
        level: model.level.as_ptr(),
        sides: model.sides.as_ptr(),
        side_count: model.sides.len(),
        delegate: told.filter(|told| told.in_use).map_or(null(), |_| model.delegate.as_ptr()),
        delegate_reason: reason.unwrap_or(null()),
        delegate_encoded: told.map_or(0, |told| told.encoded as u64),
        delegate_fell_back: told.map_or(0, |told| told.fell_back as u64),
    };
    // SAFETY: passed on.
    unsafe { given::give("info", &value, info) }
}

/// # Safety
/// `model` is a handle; `bytes` is null or a place for a number.
pub unsafe fn trim<P: Program>(model: *const Model<P>, bytes: *mut u64) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe {
        let freed = given::handle("model", model)?.shared.trim();
        given::put(bytes, freed as u64);
    }
    Ok(())
}

/// # Safety
/// `model` is null or a handle that nobody uses any more, other than sessions.
pub unsafe fn close<P: Program>(model: *mut Model<P>) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::end(model) };
    Ok(())
}
