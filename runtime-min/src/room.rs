//! Memory that may be refused: whatever opening and asking allocate comes from here.
//!
//! The standard collections abort the process when there is no memory. A library that answers questions inside somebody
//! else's program must not, so everything on the way from a file to an answer asks first, and gives
//! [`Error::OutOfMemory`] where it is refused. Messages of errors are texts as well: they get shorter instead.

use crate::error::Error;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt::{self, Write};

/// The error for `need` bytes that were refused for `item`.
#[cold]
pub(crate) fn refused(item: &'static str, need: usize) -> Error {
    Error::OutOfMemory { item, need: need as u64, have: crate::map::available() }
}

/// Makes room for exactly `n` more elements.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, n: usize, item: &'static str) -> Result<(), Error> {
    vec.try_reserve_exact(n).map_err(|_| refused(item, n.saturating_mul(size_of::<T>())))
}

/// An empty vector with room for `n` elements.
pub(crate) fn with_room<T>(n: usize, item: &'static str) -> Result<Vec<T>, Error> {
    let mut vec = Vec::new();
    reserve(&mut vec, n, item)?;
    Ok(vec)
}

/// `n` times `value`.
pub(crate) fn filled<T: Clone>(value: T, n: usize, item: &'static str) -> Result<Vec<T>, Error> {
    let mut vec = with_room(n, item)?;
    vec.resize(n, value);
    Ok(vec)
}

/// Appends one element; the room grows by doubling.
pub(crate) fn push<T>(vec: &mut Vec<T>, value: T, item: &'static str) -> Result<(), Error> {
    vec.try_reserve(1).map_err(|_| refused(item, vec.len().saturating_add(1).saturating_mul(size_of::<T>())))?;
    vec.push(value);
    Ok(())
}

/// Appends a copy of `more`; the room grows by doubling.
pub(crate) fn extend<T: Copy>(vec: &mut Vec<T>, more: &[T], item: &'static str) -> Result<(), Error> {
    let need = vec.len().saturating_add(more.len()).saturating_mul(size_of::<T>());
    vec.try_reserve(more.len()).map_err(|_| refused(item, need))?;
    vec.extend_from_slice(more);
    Ok(())
}

/// Appends text; the room grows by doubling.
pub(crate) fn append(text: &mut String, more: &str, item: &'static str) -> Result<(), Error> {
    text.try_reserve(more.len()).map_err(|_| refused(item, text.len().saturating_add(more.len())))?;
    text.push_str(more);
    Ok(())
}

/// A value at an address of its own.
pub(crate) fn boxed<T>(value: T, item: &'static str) -> Result<Box<T>, Error> {
    const { assert!(size_of::<T>() > 0, "a value without size needs no room") };
    let layout = Layout::new::<T>();
    // SAFETY: the layout is not empty.
    let at = unsafe { alloc::alloc::alloc(layout) }.cast::<T>();
    if at.is_null() {
        return Err(refused(item, layout.size()));
    }
    // SAFETY: `at` is valid and aligned for a `T`, and came from the allocator and layout that `Box` frees with.
    unsafe {
        at.write(value);
        Ok(Box::from_raw(at))
    }
}

/// A text that is kept, such as the path of an open file.
pub(crate) fn copied(args: fmt::Arguments<'_>, item: &'static str) -> Result<String, Error> {
    let mut text = Bounded(String::new());
    text.write_fmt(args).map_err(|_| refused(item, text.0.len()))?;
    Ok(text.0)
}

/// A message, cut short where there is no memory for it; called by [`text!`].
pub(crate) fn message(args: fmt::Arguments<'_>) -> String {
    let mut text = Bounded(String::new());
    // What did not fit is what is missing.
    let _ = text.write_fmt(args);
    text.0
}

/// A text that refuses to grow where there is no memory.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.0.try_reserve(more.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(more);
        Ok(())
    }
}

/// As `format!`, for the messages of errors: without memory the message is cut short, and the error stays what it is.
macro_rules! text {
    ($($arg:tt)*) => { $crate::room::message(format_args!($($arg)*)) };
}
pub(crate) use text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_by_name() {
        let mut bytes: Vec<u64> = Vec::new();
        let Err(Error::OutOfMemory { item, need, .. }) = reserve(&mut bytes, usize::MAX / 2, "a test") else {
            panic!("granted");
        };
        assert_eq!((item, need), ("a test", u64::MAX));
        reserve(&mut bytes, 3, "a test").expect("24 bytes");
        push(&mut bytes, 7, "a test").expect("8 bytes");
        extend(&mut bytes, &[8, 9], "a test").expect("16 bytes");
        assert_eq!((&bytes[..], bytes.capacity()), (&[7, 8, 9][..], 3));
    }

    #[test]
    fn values_and_messages_arrive() {
        assert_eq!(*boxed([1u64, 2, 3], "a test").expect("24 bytes"), [1, 2, 3]);
        assert_eq!(text!("{} of {:?}", 1, "two"), "1 of \"two\"");
    }
}
