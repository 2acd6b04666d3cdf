//! Memory from the operating system: read-only file maps and zeroed anonymous pages.
//!
//! Declared by hand because it is a few functions; with the `std` feature on 64-bit Unix, the C library that holds them
//! is linked anyway. Elsewhere (and under Miri, which has no file maps) [`file`] and [`zeroed`] answer `None`, and the
//! callers read into ordinary memory.

#![cfg_attr(not(feature = "std"), allow(dead_code, reason = "without std there are no pages to ask about"))]

use core::ptr::NonNull;

/// Pages of the kernel, returned to it on drop.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: `Pages` owns its range like a `Box<[u8]>` owns its bytes; nothing in it is tied to a thread.
unsafe impl Send for Pages {}
// SAFETY: a shared `Pages` only hands out its address and length.
unsafe impl Sync for Pages {}

impl Pages {
    /// First byte; aligned to 4096.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(all(feature = "std", unix, target_pointer_width = "64", not(miri)))]
mod system {
    use super::Pages;
    use core::ffi::{c_int, c_void};
    use core::ops::Range;
    use core::ptr::{NonNull, null_mut};
    use std::fs::File;
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
        fn munmap(at: *mut c_void, len: usize) -> c_int;
        fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
        fn mincore(at: *mut c_void, len: usize, pages: *mut u8) -> c_int;
        fn getpagesize() -> c_int;
    }

    const PROT_READ: c_int = 1;
    const PROT_WRITE: c_int = 2;
    const MAP_PRIVATE: c_int = 2;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const MAP_ANONYMOUS: c_int = 0x20;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const MAP_ANONYMOUS: c_int = 0x1000;
    const MADV_WILLNEED: c_int = 3;
    const MADV_DONTNEED: c_int = 4;
    /// What makes private pages free: on Linux they are zeros from then on; elsewhere what they were until the system takes them.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const MADV_DROP: c_int = MADV_DONTNEED;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const MADV_DROP: c_int = 5;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const MADV_HUGEPAGE: c_int = 14;

    /// Two megabytes: the huge page of x86-64 and of AArch64 with 4 KB pages.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const HUGE: usize = 2 << 20;

    /// Maps the first `len` bytes of `file`, read-only and private.
    pub(crate) fn file(file: &File, len: usize) -> Option<Pages> {
        // SAFETY: no address is asked for, so no existing mapping changes; the descriptor is open during the call.
        let at = unsafe { mmap(null_mut(), len, PROT_READ, MAP_PRIVATE, file.as_raw_fd(), 0) };
        pages(at, len)
    }

    /// `len` zeroed bytes, starting on a huge page where that helps.
    pub(crate) fn zeroed(len: usize) -> Option<Pages> {
        // SAFETY: no address is asked for, so no existing mapping changes; anonymous memory needs no descriptor.
        let at = unsafe { mmap(null_mut(), len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
        pages(at, len)
    }

    fn pages(at: *mut c_void, len: usize) -> Option<Pages> {
        // MAP_FAILED is -1; a mapping at 0 is impossible unless asked for.
        if at as isize == -1 {
            return None;
        }
        Some(Pages { base: NonNull::new(at.cast())?, len })
    }

    /// Asks the kernel to begin reading the range now.
    pub(crate) fn will_need(pages: &Pages) {
        // SAFETY: the range is a mapping we own; advice does not change its contents.
        unsafe { madvise(pages.base.as_ptr().cast(), pages.len, MADV_WILLNEED) };
    }

    /// Asks for huge pages; refusal is harmless.
    pub(crate) fn huge(pages: &Pages) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if pages.len >= HUGE {
            // SAFETY: the range is a mapping we own; advice does not change its contents.
            unsafe { madvise(pages.base.as_ptr().cast(), pages.len, MADV_HUGEPAGE) };
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = pages;
    }

    /// Gives back the whole pages of a range of `pages`, whose contents nobody needs: bytes of them that were in memory.
    pub(crate) fn discard(pages: &Pages, range: Range<usize>) -> usize {
        give_back(pages, range, MADV_DROP)
    }

    /// Gives back pages of a file, which are read again when they are needed: bytes of them that were in memory.
    pub(crate) fn evict(pages: &Pages) -> usize {
        give_back(pages, 0..pages.len, MADV_DONTNEED)
    }

    fn give_back(pages: &Pages, range: Range<usize>, advice: c_int) -> usize {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { getpagesize() }).unwrap_or(4096).max(4096);
        let start = range.start.next_multiple_of(page);
        // The mapping goes on to the end of its last page.
        let last = if range.end == pages.len { range.end.next_multiple_of(page) } else { range.end };
        let end = last / page * page;
        if start >= end {
            return 0;
        }
        let mut present = 0;
        let mut flags = [0u8; 1024];
        for at in (start..end).step_by(flags.len() * page) {
            let len = (end - at).min(flags.len() * page);
            // SAFETY: the range is a mapping we own, and there is a flag for each of its pages.
            let refused = unsafe { mincore(pages.base.as_ptr().add(at).cast(), len, flags.as_mut_ptr()) };
            if refused == 0 {
                present += flags[..len.div_ceil(page)].iter().filter(|&flag| flag & 1 == 1).count();
            }
        }
        // SAFETY: the range is a mapping we own, on whole pages. Of a file it reads the same afterwards; of private memory the
        // caller, who has it exclusively, needs no more of what was there.
        let refused = unsafe { madvise(pages.base.as_ptr().add(start).cast(), end - start, advice) };
        if refused == 0 { present * page } else { 0 }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the range was mapped by `file` or `zeroed` and is unmapped only here; borrowers have ended.
            unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(all(feature = "std", unix, target_pointer_width = "64", not(miri)))]
pub(crate) use system::{discard, evict, file, huge, will_need, zeroed};

#[cfg(not(all(feature = "std", unix, target_pointer_width = "64", not(miri))))]
mod system {
    use super::Pages;

    #[cfg(feature = "std")]
    pub(crate) fn file(_file: &std::fs::File, _len: usize) -> Option<Pages> {
        None
    }

    pub(crate) fn zeroed(_len: usize) -> Option<Pages> {
        None
    }

    #[cfg(feature = "std")]
    pub(crate) fn will_need(_pages: &Pages) {}

    pub(crate) fn huge(_pages: &Pages) {}

    #[cfg(feature = "std")]
    pub(crate) fn evict(_pages: &Pages) -> usize {
        0
    }

    pub(crate) fn discard(_pages: &Pages, _range: core::ops::Range<usize>) -> usize {
        0
    }
}

#[cfg(not(all(feature = "std", unix, target_pointer_width = "64", not(miri))))]
pub(crate) use system::{discard, huge, zeroed};
#[cfg(all(feature = "std", not(all(unix, target_pointer_width = "64", not(miri)))))]
pub(crate) use system::{evict, file, will_need};

/// Bytes the system could still hand out, where it tells.
pub(crate) fn available() -> Option<u64> {
    #[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
    {
        use std::io::Read;
        // Asked when memory is short, so the text goes to the stack; the lines wanted are among its first.
        let mut bytes = [0; 1024];
        let n = std::fs::File::open("/proc/meminfo").ok()?.read(&mut bytes).ok()?;
        let text = core::str::from_utf8(bytes.get(..n)?).ok()?;
        let kilobytes = |key: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(key))?;
            line[key.len()..].trim().trim_end_matches("kB").trim().parse().ok()
        };
        let bytes = kilobytes("MemAvailable:")?.saturating_add(kilobytes("SwapFree:").unwrap_or(0));
        Some(bytes.saturating_mul(1024))
    }
    #[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri))))]
    None
}
