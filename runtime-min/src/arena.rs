//! One zeroed, aligned block of memory that lives as long as its owner.
//!
//! Emitted code addresses it by constant byte offsets. It comes straight from the kernel where possible: untouched
//! pages cost nothing, and huge pages halve the time of memory-bound kernels (one thread of the reference machine reads
//! 15-19 GB/s through 4 KB pages, 27-30 GB/s through 2 MB pages).

use crate::error::Error;
use crate::map;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;

/// Alignment of the block: one line of the kernels, 64 bytes.
pub const ALIGN: usize = 64;

/// Above this, pages come from the kernel; below, the allocator is as good. 2 MB: one huge page.
const FROM_KERNEL: usize = 2 << 20;

/// Zeroed memory, aligned to [`ALIGN`].
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Nothing to free: `len` is 0.
    Empty,
    /// Freed by dropping.
    Kernel(map::Pages),
    Heap(Layout),
}

// SAFETY: the arena owns its bytes exclusively; nothing in it is tied to a thread.
unsafe impl Send for Arena {}
// SAFETY: shared access only hands out the address; dereferencing it is the caller's promise.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates `len` zeroed bytes for `item`, which is named in the error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the system refuses, or says beforehand that it has less.
    pub fn new(item: &'static str, len: usize) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self { base: NonNull::<Line>::dangling().cast(), len, source: Source::Empty });
        }
        if len >= FROM_KERNEL {
            // Kernels promise more than they have; asking first gives an error instead of a killed process.
            if let Some(have) = map::available().filter(|&have| have < len as u64) {
                return Err(Error::OutOfMemory { item, need: len as u64, have: Some(have) });
            }
            // Room to begin on a huge page.
            if let Some(pages) = len.checked_add(FROM_KERNEL).and_then(map::zeroed) {
                map::huge(&pages);
                let skip = pages.base().as_ptr().align_offset(FROM_KERNEL);
                // SAFETY: `skip` is below FROM_KERNEL, the surplus that was mapped; so `len` bytes follow.
                let base = unsafe { pages.base().add(skip.min(FROM_KERNEL)) };
                return Ok(Self { base, len, source: Source::Kernel(pages) });
            }
        }
        let refused = || Error::OutOfMemory { item, need: len as u64, have: map::available() };
        let layout = Layout::from_size_align(len, ALIGN).map_err(|_| refused())?;
        // SAFETY: `len` is not zero.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Self { base, len, source: Source::Heap(layout) })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for an arena of zero bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First byte, aligned to [`ALIGN`]; valid for [`len`](Self::len) bytes while the arena lives.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `base` are owned and initialized (zeroed when allocated); writers through `base`
        // need the arena mutably or are the emitted code, which does not run while this borrow is used.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// All bytes, exclusively.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// `n` floats from byte `offset`, or `None` where they would leave the arena or are not aligned.
    pub fn floats(&self, offset: usize, n: usize) -> Option<&[f32]> {
        let at = self.checked(offset, n)?;
        // SAFETY: `checked` proved bounds and alignment; every bit pattern is an f32.
        Some(unsafe { core::slice::from_raw_parts(at, n) })
    }

    /// As [`floats`](Self::floats), exclusively.
    pub fn floats_mut(&mut self, offset: usize, n: usize) -> Option<&mut [f32]> {
        let at = self.checked(offset, n)?;
        // SAFETY: `checked` proved bounds and alignment; `&mut self` makes the access exclusive.
        Some(unsafe { core::slice::from_raw_parts_mut(at, n) })
    }

    /// Gives memory of a range back to the system, which holds zeros or what it did afterwards: bytes that were in memory and
    /// are given back. Memory of the allocator stays.
    pub(crate) fn discard(&mut self, range: Range<usize>) -> usize {
        let Source::Kernel(pages) = &self.source else { return 0 };
        let skip = self.base.as_ptr() as usize - pages.base().as_ptr() as usize;
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        // What was mapped behind the end, to begin on a huge page, was never touched.
        map::discard(pages, start.saturating_add(skip)..end.saturating_add(skip))
    }

    fn checked(&self, offset: usize, n: usize) -> Option<*mut f32> {
        let end = n.checked_mul(4)?.checked_add(offset)?;
        if end > self.len || !offset.is_multiple_of(4) {
            return None;
        }
        Some(self.base.as_ptr().wrapping_add(offset).cast())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Source::Heap(layout) = self.source {
            // SAFETY: allocated in `new` with this layout, freed only here.
            unsafe { alloc::alloc::dealloc(self.base.as_ptr(), layout) };
        }
    }
}

/// Gives an empty arena an aligned address.
#[repr(align(64))]
struct Line;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_aligned_and_bounded() {
        for len in [0, 1, 63, 64, 4096, FROM_KERNEL - 1, FROM_KERNEL, 3 * FROM_KERNEL + 5] {
            let mut arena = Arena::new("test", len).expect("small");
            assert_eq!(arena.base() as usize % ALIGN, 0);
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            arena.bytes_mut().fill(1);
            assert!(arena.floats(0, len / 4).is_some());
            assert!(arena.floats(0, len / 4 + 1).is_none());
            assert!(arena.floats(1, 0).is_none());
            assert!(arena.floats(usize::MAX - 3, 1).is_none());
            assert!(arena.floats(0, usize::MAX).is_none());
        }
    }

    #[test]
    fn too_much_is_a_typed_error() {
        for len in [usize::MAX, usize::MAX / 2, 1 << 46] {
            let Err(Error::OutOfMemory { item, need, .. }) = Arena::new("the arena", len) else {
                panic!("{len} bytes were granted");
            };
            assert_eq!((item, need), ("the arena", len as u64));
        }
    }
}
