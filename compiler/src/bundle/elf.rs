//! Libraries for Android: what a shared object is for, and whether it loads on systems with large pages.

const MAGIC: &[u8] = b"\x7fELF\x02\x01";

/// `ET_DYN`.
const SHARED: u16 = 3;

/// `PT_LOAD`.
const LOAD: u32 = 1;

/// `EM_AARCH64` and `EM_X86_64`.
pub(super) const AARCH64: u16 = 183;
pub(super) const X86_64: u16 = 62;

/// Bytes of a page on Android 15 devices, which refuse to map what is aligned to less. Google Play asks for it too.
pub(super) const PAGE: u64 = 16384;

/// What a shared object says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub machine: u16,
    /// The least of the alignments of what is mapped, in bytes.
    pub align: u64,
}

/// Reads a little-endian 64-bit shared object; none if this is something else.
pub(super) fn made_for(library: &[u8]) -> Option<Made> {
    let half = |at: usize| library.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
    let word = |at: usize| library.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let long = |at: usize| library.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if !library.starts_with(MAGIC) || half(16)? != SHARED {
        return None;
    }
    let (table, bytes, count) = (usize::try_from(long(32)?).ok()?, half(54)? as usize, half(56)? as usize);
    let mut align = None;
    for i in 0..count {
        let at = table.checked_add(i * bytes)?;
        if word(at)? == LOAD {
            let own = long(at.checked_add(48)?)?;
            align = Some(align.map_or(own, |least: u64| least.min(own)));
        }
    }
    Some(Made { machine: half(18)?, align: align? })
}
