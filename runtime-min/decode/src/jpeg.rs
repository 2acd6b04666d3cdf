//! Two questions to a JPEG's markers that its decoder does not answer.

/// Components of the frame: 4 are inks.
pub(crate) fn channels(bytes: &[u8]) -> Option<u8> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low] = *bytes.get(at..at + 4)?.first_chunk::<4>()? else { return None };
        match marker {
            // Fill bytes before a marker.
            0xff => at += 1,
            // Start of frame, all kinds; not tables, arithmetic conditioning, reserved.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return bytes.get(at + 9).copied(),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

/// Whether the end marker comes, thumbnails inside of segments apart. Bytes after it do not matter.
pub(crate) fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[mark, marker]) = bytes.get(at..at + 2).and_then(<[u8]>::first_chunk::<2>) {
        match (mark, marker) {
            (0xff, 0xd9) => return true,
            // Coded data and what may stand in it: a stuffed zero, restarts, fill bytes.
            (0..=0xfe, _) | (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, _) => match bytes.get(at + 2..at + 4).and_then(<[u8]>::first_chunk::<2>) {
                Some(&length) => at += 2 + usize::from(u16::from_be_bytes(length)),
                None => return false,
            },
        }
    }
    false
}
