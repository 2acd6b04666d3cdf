//! The split of text into pieces that merging stays inside of: Qwen2's pattern as a scanner.
//!
//! The pattern is, tried in this order at every position:
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//!
//! Every character belongs to exactly one of letters, numbers, spaces and others, so that some alternative always
//! matches, and each one is decided by a scan that its piece pays for: the whole split is linear.

use super::part;
use super::tables::CLASSES;

/// The pieces of `text`, in order; together they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let len = piece_len(rest, first);
        let (piece, after) = (part(rest, 0..len), part(rest, len..rest.len()));
        rest = after;
        Some(piece)
    })
}

/// Bytes of the piece at the start of `text`, which starts with `first`.
fn piece_len(text: &str, first: char) -> usize {
    let after = part(text, first.len_utf8()..text.len());
    if first == '\''
        && let Some(len) = contraction(after)
    {
        return 1 + len;
    }
    let class = class(first);
    if class == Class::Letter {
        return run(text, Class::Letter);
    }
    if class == Class::Number {
        return first.len_utf8();
    }
    if !matches!(first, '\r' | '\n') {
        let letters = run(after, Class::Letter);
        if letters > 0 {
            return first.len_utf8() + letters;
        }
    }
    let blank = if first == ' ' { 1 } else { 0 };
    let others = run(part(text, blank..text.len()), Class::Other);
    if others > 0 {
        let end = blank + others;
        return end + part(text, end..text.len()).bytes().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    }
    space_len(text)
}

/// Bytes of the piece at the start of `text`, where no alternative before `\s*[\r\n]+` matches.
fn space_len(text: &str) -> usize {
    let spaces = part(text, 0..run(text, Class::Space));
    if let Some(at) = spaces.rfind(['\r', '\n']) {
        return at + 1;
    }
    // A run before a word leaves its last blank to the word, unless it is the only one.
    let last = spaces.chars().next_back().map_or(0, char::len_utf8);
    if spaces.len() == text.len() || spaces.len() == last { spaces.len() } else { spaces.len() - last }
}

/// Bytes of a contraction's letters, after its apostrophe. Among the letters that equal another without regard to case,
/// the long s is the only one that is not ASCII.
fn contraction(after: &str) -> Option<usize> {
    let mut chars = after.chars();
    let first = chars.next()?;
    match first.to_ascii_lowercase() {
        's' | 't' | 'm' | 'd' | 'ſ' => Some(first.len_utf8()),
        lower @ ('r' | 'v' | 'l') => {
            let expected = if lower == 'l' { 'l' } else { 'e' };
            (chars.next()?.to_ascii_lowercase() == expected).then_some(2)
        }
        _ => None,
    }
}

/// What the pattern tells apart; the order is that of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Other,
    Letter,
    Number,
    Space,
}

/// Bytes at the start of `text` whose characters are all of one class.
fn run(text: &str, wanted: Class) -> usize {
    text.char_indices().find(|(_, c)| class(*c) != wanted).map_or(text.len(), |(at, _)| at)
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => return Class::Letter,
        ' ' | '\t'..='\r' => return Class::Space,
        '0'..='9' => return Class::Number,
        '\0'..='\x7f' => return Class::Other,
        // The two blocks that most text outside of Latin, Greek and Cyrillic consists of.
        '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' => return Class::Letter,
        _ => {}
    }
    // The first run starts at zero, so that there is one before every character.
    let run = CLASSES[CLASSES.partition_point(|run| run >> 2 <= c as u32) - 1];
    match run & 3 {
        0 => Class::Other,
        1 => Class::Letter,
        2 => Class::Number,
        _ => Class::Space,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn alternatives_are_tried_in_order() {
        check("", &[]);
        check("it's HERE", &["it", "'s", " HERE"]);
        check("''s 'Lla 'ſo 'rx", &["''", "s", " '", "Lla", " '", "ſo", " '", "rx"]);
        check("'Lla'ſo'rx", &["'Ll", "a", "'ſ", "o", "'rx"]);
        check("a1 23", &["a", "1", " ", "2", "3"]);
        check("a  b", &["a", " ", " b"]);
        check("a \u{a0}!", &["a", " ", "\u{a0}", "!"]);
        check("x  ", &["x", "  "]);
        check("x \n \n  y", &["x", " \n \n", " ", " y"]);
        check("!?\r\n\n z", &["!?\r\n\n", " z"]);
        check("\tword\nword", &["\tword", "\n", "word"]);
        check("e\u{301}e", &["e", "\u{301}e"]);
        check(" \u{301}", &[" \u{301}"]);
    }

    #[test]
    fn the_fast_paths_agree_with_the_table() {
        for c in '\0'..=char::MAX {
            let run = CLASSES[CLASSES.partition_point(|run| run >> 2 <= c as u32) - 1];
            assert_eq!(class(c) as u32, run & 3, "{c:?}");
        }
    }
}
