//! An app's own code that encodes pictures.

use crate::given::{self, Sized0};
use crate::status::Problem;
use core::ffi::{c_char, c_void};
use runtime_min::{Info, Side};

/// `tvlm_delegate`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Delegate {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// In a few letters, for people.
    pub name: *const c_char,
    /// Given to `vision`.
    pub context: *mut c_void,
    /// Encodes a picture.
    pub vision: Option<Vision>,
}

// SAFETY: pointers behind a size; zeros are no name and no function, which are refused.
unsafe impl Sized0 for Delegate {}

/// `rgb`, `[side, side, 3]`, becomes `rows`, `[tokens, hidden]`. Not 0: the processor does it.
pub type Vision = unsafe extern "C" fn(
    context: *mut c_void,
    rgb: *const u8,
    side: u32,
    rows: *mut f32,
    tokens: u32,
    hidden: u32,
) -> i32;

/// What an app gave, for as long as a model lives.
pub(crate) struct Helper {
    name: String,
    context: *mut c_void,
    vision: Vision,
}

// SAFETY: the header asks of the function that any thread may call it with its context, several at once.
unsafe impl Send for Helper {}
// SAFETY: as above.
unsafe impl Sync for Helper {}

impl runtime_min::Delegate for Helper {
    fn name(&self) -> &str {
        &self.name
    }

    fn supports(&self, _: &Info) -> Result<(), String> {
        // The app chose it for this model; what it cannot do, it says of each picture.
        Ok(())
    }

    fn vision(&self, rgb: &[u8], side: &Side, rows: &mut [f32]) -> Result<(), String> {
        let (pixels, tokens) = (side.side as u32, side.tokens as u32);
        let hidden = (rows.len() / side.tokens.max(1)) as u32;
        // SAFETY: as many bytes and floats are there as the numbers say; the app promises the rest.
        let code = unsafe { (self.vision)(self.context, rgb.as_ptr(), pixels, rows.as_mut_ptr(), tokens, hidden) };
        if code == 0 { Ok(()) } else { Err(format!("it returned {code} for a picture of {pixels} x {pixels}")) }
    }
}

/// The delegate of a caller.
///
/// # Safety
/// Null, or a struct of the size that it says, whose name ends with a zero and whose function may be called as its type says
/// until all models and sessions that it is given to are closed.
pub(crate) unsafe fn given(delegate: *const Delegate) -> Result<Option<Helper>, Problem> {
    // SAFETY: passed on.
    let Some(delegate) = (unsafe { given::options("options.delegate", delegate)? }) else { return Ok(None) };
    // SAFETY: passed on.
    let name = unsafe { given::text("options.delegate.name", delegate.name)? }.to_string();
    let vision = delegate.vision.ok_or_else(|| Problem::argument("options.delegate.vision", "is NULL"))?;
    Ok(Some(Helper { name, context: delegate.context, vision }))
}
