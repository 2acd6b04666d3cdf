//! GPT-2's printable alphabet for bytes: vocabulary files spell every byte as one character.
//!
//! Printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up in order, so
//! that a blank is "Ġ" (U+0120).

/// The character of `byte`.
pub(super) fn char_of(byte: u8) -> char {
    if stands_for_itself(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&b| !stands_for_itself(b)).count();
    char::from_u32(256 + before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The bytes that `text` spells, or the first character that spells none.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, char> {
    text.chars().map(|c| BYTE_OF.get(c as usize).copied().flatten().ok_or(c)).collect()
}

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// By code point; 68 bytes do not stand for themselves.
static BYTE_OF: [Option<u8>; 256 + 68] = {
    let mut table = [None; 256 + 68];
    let (mut byte, mut other) = (0, 256);
    while byte < 256 {
        if stands_for_itself(byte as u8) {
            table[byte] = Some(byte as u8);
        } else {
            table[other] = Some(byte as u8);
            other += 1;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_go_round() {
        for byte in 0..=255 {
            assert_eq!(bytes(&char_of(byte).to_string()), Ok(vec![byte]));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(bytes("a b"), Err(' '));
        assert_eq!(bytes("日"), Err('日'));
    }
}
