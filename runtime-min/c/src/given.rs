//! What callers hand over: texts, structs that say their size, handles.

use crate::status::Problem;
use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

/// A text of the caller.
///
/// # Safety
/// Null, or the address of bytes that end with a zero and stay as they are for `'a`.
pub unsafe fn text<'a>(name: &'static str, from: *const c_char) -> Result<&'a str, Problem> {
    // SAFETY: passed on.
    unsafe { optional_text(name, from)? }.ok_or_else(|| Problem::argument(name, "is NULL"))
}

/// As [`text`], where null says nothing.
///
/// # Safety
/// As [`text`].
pub unsafe fn optional_text<'a>(name: &'static str, from: *const c_char) -> Result<Option<&'a str>, Problem> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, so it is what the caller promises.
    let bytes = unsafe { CStr::from_ptr(from) };
    bytes.to_str().map(Some).map_err(|_| Problem::argument(name, "is not UTF-8"))
}

/// Plain data in which all bytes zero are a value, and which begins with a `size_t`: its bytes as the caller was compiled.
///
/// # Safety
/// Just that, in C's layout.
pub unsafe trait Sized0: Copy {}

/// The default of every field, and the size.
pub fn blank<T: Sized0>() -> T {
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: zeros are a `T`, and so are zeros behind a size, which lies at its beginning.
    unsafe {
        whole.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        whole.assume_init()
    }
}

/// A struct of options: what the caller's is shorter than ours is zero, which is the default of every field.
///
/// # Safety
/// `from` is null or points to the beginning of a `T` of the size that it says.
pub unsafe fn options<T: Sized0>(name: &'static str, from: *const T) -> Result<Option<T>, Problem> {
    if from.is_null() {
        return Ok(None);
    }
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: not null, so a size is there, and so are as many bytes. Any part of a `T` before zeros is a `T`.
    unsafe {
        let size = from.cast::<usize>().read();
        if size < size_of::<usize>() {
            return Err(Problem::argument(
                name,
                "its field size is not set: use the macro of its name that ends with _INIT",
            ));
        }
        let (bytes, known) = (from.cast::<u8>(), size.min(size_of::<T>()));
        if (known..size).any(|i| bytes.add(i).read() != 0) {
            return Err(Problem::argument(
                name,
                "a field is set that this library does not know: it is older than the header",
            ));
        }
        core::ptr::copy_nonoverlapping(bytes, whole.as_mut_ptr().cast(), known);
        Ok(Some(whole.assume_init()))
    }
}

/// Refuses what has no meaning yet.
pub fn reserved(name: &'static str, value: u32) -> Result<(), Problem> {
    if value == 0 { Ok(()) } else { Err(Problem::argument(name, "is not 0")) }
}

/// Gives as much of a struct as the caller has room for; nothing if that is nowhere.
///
/// # Safety
/// `to` is null or points to the beginning of a `T` of the size that it says.
pub unsafe fn give<T: Sized0>(name: &'static str, value: &T, to: *mut T) -> Result<(), Problem> {
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so a size is there, and room for as many bytes.
    unsafe {
        let size = to.cast::<usize>().read();
        if size < size_of::<usize>() {
            return Err(Problem::argument(
                name,
                "its field size is not set: use the macro of its name that ends with _INIT",
            ));
        }
        // The size stays the caller's.
        let (from, head) = ((value as *const T).cast::<u8>(), size_of::<usize>());
        let bytes = size.min(size_of::<T>()) - head;
        core::ptr::copy_nonoverlapping(from.add(head), to.cast::<u8>().add(head), bytes);
    }
    Ok(())
}

/// Gives a number; nothing if that is nowhere.
///
/// # Safety
/// Null, or a place for one.
pub unsafe fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: a place, whatever is in it.
        unsafe { to.write(value) };
    }
}

/// Says that there is no new handle, before anything else can fail.
///
/// # Safety
/// Null, or a place for one.
pub unsafe fn none<T>(to: *mut *mut T) {
    // SAFETY: passed on.
    unsafe { put(to, core::ptr::null_mut()) };
}

/// What a handle stands for.
///
/// # Safety
/// Null, or a handle that lives for `'a`.
pub unsafe fn handle<'a, T>(name: &'static str, from: *const T) -> Result<&'a T, Problem> {
    // SAFETY: passed on.
    unsafe { from.as_ref() }.ok_or_else(|| Problem::argument(name, "is NULL"))
}

/// Gives a new handle.
///
/// # Safety
/// `to` is null or a place for one.
pub unsafe fn new<T>(
    name: &'static str,
    to: *mut *mut T,
    make: impl FnOnce() -> Result<T, Problem>,
) -> Result<(), Problem> {
    if to.is_null() {
        return Err(Problem::argument(name, "is NULL: there is no place for the new handle"));
    }
    // SAFETY: a place, whatever is in it.
    unsafe { to.write(core::ptr::null_mut()) };
    let made = Box::into_raw(Box::new(make()?));
    // SAFETY: as above.
    unsafe { to.write(made) };
    Ok(())
}

/// Ends a handle; null is none.
///
/// # Safety
/// Null, or a handle of [`new`] that nobody uses and that was not ended.
pub unsafe fn end<T>(from: *mut T) {
    if !from.is_null() {
        // SAFETY: made by `Box::into_raw`, and ended once.
        drop(unsafe { Box::from_raw(from) });
    }
}
