//! Libraries for Apple's systems: what is in an archive, and several of them in one file.
//!
//! A universal file is a table in front of whole files for one processor each, in the order of bytes that no processor here
//! has. Xcode's `lipo` makes them, which exists on macOS only; the format is a page of `mach-o/fat.h`.

use std::ops::Range;

/// Bytes of the header of an archive's member, all of them text, and where its size is.
const MEMBER_BYTES: usize = 60;
const SIZE: Range<usize> = 48..58;

/// Begins the name of a member whose name lies behind the header and counts to its size: a number of bytes follows.
const LONG_NAME: &[u8] = b"#1/";
const LONG_NAME_BYTES: Range<usize> = 3..16;

const ARCHIVE: &[u8] = b"!<arch>\n";

/// `MH_MAGIC_64` in little endian.
const OBJECT: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];

/// Bytes of an object's header, before its load commands.
const HEADER_BYTES: usize = 32;

/// `LC_BUILD_VERSION`.
const BUILD_VERSION: u32 = 0x32;

/// `FAT_MAGIC`.
const UNIVERSAL: u32 = 0xcafe_babe;

/// What `lipo` aligns archives for 64-bit processors to: linkers read their structures in place.
const ALIGN_BITS: u32 = 3;

/// A processor in the words of this format, and as Apple's tools call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Processor {
    pub name: &'static str,
    /// `cputype` and `cpusubtype`.
    pub numbers: [u32; 2],
}

pub(super) const ARM64: Processor = Processor { name: "arm64", numbers: [0x0100_000c, 0] };
pub(super) const X86_64: Processor = Processor { name: "x86_64", numbers: [0x0100_0007, 3] };

/// What an object says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub cputype: u32,
    /// `PLATFORM_*` of `mach-o/loader.h`, which objects need not say.
    pub platform: Option<u32>,
}

/// What the first object of an archive says; none if this is no archive with one.
pub(super) fn made_for(archive: &[u8]) -> Option<Made> {
    let mut rest = archive.strip_prefix(ARCHIVE)?;
    loop {
        let (header, behind) = rest.split_at_checked(MEMBER_BYTES)?;
        let number = |at: Range<usize>| std::str::from_utf8(&header[at]).ok()?.trim().parse::<usize>().ok();
        let size = number(SIZE)?;
        let name = if header.starts_with(LONG_NAME) { number(LONG_NAME_BYTES)? } else { 0 };
        let object = behind.get(..size)?.get(name..)?;
        if object.starts_with(&OBJECT) {
            return Some(Made { cputype: word(object, 4)?, platform: platform(object) });
        }
        // Members begin at even places.
        rest = behind.get(size.checked_next_multiple_of(2)?..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn platform(object: &[u8]) -> Option<u32> {
    let mut at = HEADER_BYTES;
    for _ in 0..word(object, 16)? {
        if word(object, at)? == BUILD_VERSION {
            return word(object, at + 8);
        }
        at = at.checked_add(word(object, at + 4)? as usize)?;
    }
    None
}

/// One file of several, which are of different processors; none if it would be too large for its 32-bit offsets.
pub(super) fn universal(files: &[(Processor, &[u8])]) -> Option<Vec<u8>> {
    let mut files = files.to_vec();
    files.sort_by_key(|(processor, _)| processor.numbers);
    let align = 1_usize << ALIGN_BITS;
    let mut table = vec![UNIVERSAL, files.len() as u32];
    let mut at = (2 + 5 * files.len()) * 4;
    for (Processor { numbers: [kind, variant], .. }, file) in &files {
        at = at.next_multiple_of(align);
        table.extend([*kind, *variant, u32::try_from(at).ok()?, u32::try_from(file.len()).ok()?, ALIGN_BITS]);
        at += file.len();
    }
    u32::try_from(at).ok()?;
    let mut whole: Vec<u8> = table.into_iter().flat_map(u32::to_be_bytes).collect();
    for (_, file) in files {
        whole.resize(whole.len().next_multiple_of(align), 0);
        whole.extend_from_slice(file);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member in the BSD way, with its name behind the header.
    fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
        let size = name.len() + bytes.len();
        let mut member = format!("{:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", format!("#1/{}", name.len()), 0, 0, 0, 0);
        member += name;
        let mut member = member.into_bytes();
        member.extend(bytes);
        member.resize(member.len().next_multiple_of(2), b'\n');
        member
    }

    fn object(cputype: u32, commands: &[&[u32]]) -> Vec<u8> {
        let bytes = commands.iter().map(|command| command.len() as u32 * 4).sum();
        let head = [0xfeed_facf, cputype, 0, 1, commands.len() as u32, bytes, 0, 0];
        head.iter().chain(commands.iter().copied().flatten()).flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_first_object_says_what_an_archive_is_for() {
        let odd = member("__.SYMDEF\0\0\0", &[1, 2, 3]);
        let one = object(ARM64.numbers[0], &[&[0x19, 8], &[BUILD_VERSION, 24, 7, 0, 0, 0]]);
        let archive = [ARCHIVE, &odd, &member("a.o\0", &one), &member("b.o\0", &object(1, &[]))].concat();
        assert_eq!(made_for(&archive), Some(Made { cputype: ARM64.numbers[0], platform: Some(7) }));
        let silent = [ARCHIVE, &member("b.o\0", &object(X86_64.numbers[0], &[]))].concat();
        assert_eq!(made_for(&silent), Some(Made { cputype: X86_64.numbers[0], platform: None }));
        // Cut anywhere, it is no archive with an object, or one that says less.
        let whole = silent.len();
        assert!((0..whole).all(|cut| made_for(&silent[..cut]).is_none()));
        assert_eq!(made_for(&[ARCHIVE, &member("a.o\0", b"\x7fELF")].concat()), None);
    }

    #[test]
    fn a_universal_file_has_its_files_where_its_table_says() {
        let (arm, intel) = (vec![1; 11], vec![2; 5]);
        let whole = universal(&[(ARM64, &arm), (X86_64, &intel)]).expect("small");
        let words: Vec<u32> = whole[..48].as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        assert_eq!(words[..2], [UNIVERSAL, 2]);
        assert_eq!(words[2..7], [0x0100_0007, 3, 48, 5, 3]);
        assert_eq!(words[7..], [0x0100_000c, 0, 56, 11, 3]);
        assert_eq!((&whole[48..53], &whole[53..56], &whole[56..]), (&intel[..], &[0; 3][..], &arm[..]));
    }
}
