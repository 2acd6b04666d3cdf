//! Operands: floats on huge pages, and a file in memory as a model's weights are.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::{env, process};

use core::ffi::{c_int, c_void};

const HUGE: usize = 2 << 20;

const PROT_READ: c_int = 1;
const MAP_PRIVATE: c_int = 2;
#[cfg(target_os = "linux")]
const MADV_HUGEPAGE: c_int = 14;

unsafe extern "C" {
    #[cfg(target_os = "linux")]
    fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
}

/// Floats of an operand.
pub enum Buffer {
    /// On huge pages where the system has them, from an index on.
    Own(Vec<f32>, usize),
    /// A file that is mapped and not written.
    Mapped(*mut f32, usize),
}

/// The value of float `i`: small, and no two neighbors alike.
fn value(i: usize) -> f32 {
    (i % 13) as f32 * 0.01 - 0.06
}

impl Buffer {
    /// Memory of this process.
    pub fn new(floats: usize) -> Buffer {
        // Room to start on a page of 2 MB.
        let mut room: Vec<f32> = Vec::with_capacity(floats + HUGE / 4);
        let at = room.as_ptr().align_offset(HUGE);
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the vector's own; the advice changes no contents.
        unsafe {
            madvise(room.as_mut_ptr().add(at).cast(), floats * 4, MADV_HUGEPAGE);
        }
        room.extend((0..at + floats).map(value));
        Buffer::Own(room, at)
    }

    /// A file in the folder for temporary files, mapped as weights are; it has no name any more.
    pub fn mapped(floats: usize) -> std::io::Result<Buffer> {
        let path = env::temp_dir().join(format!("tvlmc-bench-{}", process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        let mut piece = Vec::with_capacity(HUGE);
        for first in (0..floats).step_by(HUGE / 4) {
            piece.clear();
            piece.extend((first..floats.min(first + HUGE / 4)).flat_map(|i| value(i).to_le_bytes()));
            file.write_all(&piece)?;
        }
        // Or the disk would be written to while we measure.
        file.sync_data()?;
        // SAFETY: no address is asked for, so no existing mapping changes; the descriptor is open.
        let at = unsafe { mmap(std::ptr::null_mut(), 4 * floats, PROT_READ, MAP_PRIVATE, file.as_raw_fd(), 0) };
        if at as isize == -1 { Err(std::io::Error::last_os_error()) } else { Ok(Buffer::Mapped(at.cast(), floats)) }
    }

    /// The first float; those of a mapped buffer can only be read.
    pub fn pointer(&mut self) -> *mut f32 {
        match self {
            Buffer::Own(room, at) => room[*at..].as_mut_ptr(),
            Buffer::Mapped(first, _) => *first,
        }
    }

    /// All floats.
    pub fn floats(&self) -> &[f32] {
        match self {
            Buffer::Own(room, at) => &room[*at..],
            // SAFETY: the mapping has as many, and nobody writes to it.
            Buffer::Mapped(first, floats) => unsafe { std::slice::from_raw_parts(*first, *floats) },
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Buffer::Mapped(first, floats) = self {
            // SAFETY: mapped by `mapped`, unmapped only here.
            unsafe { munmap(first.cast(), 4 * *floats) };
        }
    }
}
