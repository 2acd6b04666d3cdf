//! What the host calls, and the parts of a module that there is one of: the state, the allocator, the way to panic.
//!
//! One thread calls these, and none while another one runs. Addresses that come from the host point to what [`take`] gave.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt::Write;
use core::ptr::{NonNull, null_mut};
use core::time::Duration;

use crate::heap::{Heap, Source};
use crate::host::{Host, Mailbox, Status};

/// For what there is one of.
struct Only<T>(UnsafeCell<T>);

// SAFETY: one thread calls this module.
unsafe impl<T> Sync for Only<T> {}

static HOST: Only<Option<Host>> = Only(UnsafeCell::new(None));

/// The state, made by the first call.
fn host() -> &'static mut Host {
    // SAFETY: one thread calls this module, none of its functions calls another one, and none keeps this.
    unsafe { &mut *HOST.0.get() }.get_or_insert_with(Host::default)
}

/// Bytes at an address of the host's.
///
/// # Safety
/// They came from [`take`], and nothing else uses them during the call.
unsafe fn bytes<'a>(at: *mut u8, len: usize) -> &'a mut [u8] {
    if at.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: promised.
    unsafe { core::slice::from_raw_parts_mut(at, len) }
}

/// `len` bytes that begin on a line of 64 bytes, to be filled by the host; 0 where there is no memory.
#[unsafe(no_mangle)]
extern "C" fn take(len: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(len, 64) else { return null_mut() };
    // SAFETY: the allocator takes empty layouts as well.
    unsafe { HEAP.alloc(layout) }
}

/// Gives back what [`take`] gave for `len`.
///
/// # Safety
/// It is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn give(at: *mut u8, len: usize) {
    if let Ok(layout) = Layout::from_size_align(len, 64) {
        // SAFETY: promised.
        unsafe { HEAP.dealloc(at, layout) };
    }
}

/// Where statuses are explained.
#[unsafe(no_mangle)]
extern "C" fn mailbox() -> *const Mailbox {
    &raw const host().mailbox
}

/// The control block of the kernels: its first word asks them to stop.
#[unsafe(no_mangle)]
extern "C" fn control() -> *mut u8 {
    CONTROL.0.get().cast()
}

#[repr(C, align(64))]
struct Block([u32; 64]);

static CONTROL: Only<Block> = Only(UnsafeCell::new(Block([0; 64])));

#[unsafe(no_mangle)]
unsafe extern "C" fn info(at: *mut u8, len: usize) -> Status {
    // SAFETY: the host's promise.
    host().info(unsafe { bytes(at, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(file: *mut u8, len: usize, arrived: usize, threads: usize) -> Status {
    let file = NonNull::new(file).unwrap_or(NonNull::dangling());
    // SAFETY: the host's promise; it fills the rest of the file, and changes nothing of what has arrived.
    unsafe { host().open(NonNull::slice_from_raw_parts(file, len), arrived, threads) }
}

#[unsafe(no_mangle)]
extern "C" fn arrived(bytes: usize) {
    host().arrived(bytes);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn image(
    at: *mut u8,
    len: usize,
    width: usize,
    height: usize,
    channels: usize,
    side: usize,
) -> Status {
    // SAFETY: the host's promise.
    host().image(unsafe { bytes(at, len) }, width, height, channels, side)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ask(at: *mut u8, len: usize) -> Status {
    // SAFETY: the host's promise.
    host().ask(unsafe { bytes(at, len) })
}

#[unsafe(no_mangle)]
extern "C" fn poll() -> Status {
    host().poll()
}

#[unsafe(no_mangle)]
extern "C" fn cancel() {
    host().cancel();
}

#[unsafe(no_mangle)]
extern "C" fn stop() {
    host().stop();
}

#[unsafe(no_mangle)]
extern "C" fn reset() -> Status {
    host().reset()
}

#[unsafe(no_mangle)]
extern "C" fn release(image: u32) {
    host().release(image);
}

#[unsafe(no_mangle)]
extern "C" fn position() -> Status {
    host().position()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn tokenize(at: *mut u8, len: usize) -> Status {
    // SAFETY: the host's promise.
    host().tokenize(unsafe { bytes(at, len) })
}

/// Makes the host's clock that of the session's timings. Called first of all.
#[unsafe(no_mangle)]
extern "C" fn start() {
    runtime_min::set_clock(now);
}

mod env {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        /// Milliseconds since whenever.
        pub safe fn now() -> f64;
    }
}

fn now() -> Duration {
    Duration::from_micros((env::now() * 1e3) as u64)
}

/// Memory that grows by pages.
struct Pages;

impl Source for Pages {
    fn extend(&mut self, end: usize) -> Option<usize> {
        const PAGE: usize = 1 << 16;
        let have = core::arch::wasm32::memory_size(0);
        let more = end.div_ceil(PAGE).saturating_sub(have);
        if more > 0 && core::arch::wasm32::memory_grow(0, more) == usize::MAX {
            return None;
        }
        // 4 GB are one byte too many for an address.
        Some((have + more).saturating_mul(PAGE))
    }
}

unsafe extern "C" {
    /// Where the linker's own data ends.
    static __heap_base: u8;
}

struct Shared(UnsafeCell<Option<Heap<Pages>>>);

// SAFETY: one thread calls this module.
unsafe impl Sync for Shared {}

#[global_allocator]
static HEAP: Shared = Shared(UnsafeCell::new(None));

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Heap<Pages>) -> T) -> T {
        // SAFETY: one thread calls this module, and the allocator calls nothing that allocates.
        let heap = unsafe { &mut *self.0.get() };
        // SAFETY: only the allocator hands out what lies above the linker's data, and new pages are zero.
        work(heap.get_or_insert_with(|| unsafe { Heap::new((&raw const __heap_base).addr(), Pages) }))
    }
}

// SAFETY: blocks are apart, aligned, and as long as asked for (`heap`).
unsafe impl GlobalAlloc for Shared {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| heap.take(layout.size(), layout.align(), false)).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| heap.take(layout.size(), layout.align(), true)).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(at) = NonNull::new(at) {
            // SAFETY: promised by the caller.
            self.with(|heap| unsafe { heap.give(at, layout.size()) });
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if NonNull::new(at).is_some_and(|at| self.with(|heap| heap.lengthen(at, layout.size(), size))) {
            return at;
        }
        // SAFETY: alignments are those of a valid layout; sizes come from `Vec`, which keeps them below `isize::MAX`.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both have as many bytes, and are apart.
            unsafe {
                core::ptr::copy_nonoverlapping(at, new, layout.size().min(size));
                self.dealloc(at, layout);
            }
        }
        new
    }
}

/// The last words of a module that panicked: how many bytes, and the bytes.
#[repr(C)]
struct Words {
    len: usize,
    bytes: [u8; 400],
}

static LAST: Only<Words> = Only(UnsafeCell::new(Words { len: 0, bytes: [0; 400] }));

/// Where the last words are, for after a trap.
#[unsafe(no_mangle)]
extern "C" fn last_words() -> *const u8 {
    LAST.0.get().cast()
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text.as_bytes()) {
            *to = *from;
            self.len += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the only use inside of the module, which ends with it.
    let words = unsafe { &mut *LAST.0.get() };
    let _ = write!(words, "{info}");
    core::arch::wasm32::unreachable()
}
