//! NFC: canonical decomposition, canonical ordering, composition.
//!
//! Nearly all text is in NFC already, so most characters are only looked up in one table and copied. The ones that may
//! change are gathered, with the character they build on, into short stretches that are normalized on their own.

use super::tables::{COMBINING, COMPOSING, PAIRS, SINGLE_TARGETS, SINGLES};
use super::{ITEM, part};
use crate::Error;
use crate::order;
use crate::room;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// Below this nothing changes and nothing combines with what stands before it.
const FIRST_MARK: char = '\u{300}';

/// Hangul syllables are computed: `S_BASE + (lead * 21 + vowel) * 28 + tail`, where tail 0 is none.
const S_BASE: u32 = 0xac00;
const L_BASE: u32 = 0x1100;
const V_BASE: u32 = 0x1161;
const T_BASE: u32 = 0x11a7;
const LEADS: u32 = 19;
const VOWELS: u32 = 21;
const TAILS: u32 = 28;

/// `text` in NFC; borrowed if that changes nothing that could be seen at a glance.
pub fn nfc(text: &str) -> Result<Cow<'_, str>, Error> {
    let Some(mut stirring) = text.find(is_stirring) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = String::new();
    out.try_reserve_exact(text.len()).map_err(|_| room::refused(ITEM, text.len()))?;
    let mut stretch = Stretch::default();
    let mut rest = text;
    loop {
        // The character before takes part: what follows may compose with it.
        let base = part(rest, 0..stirring).chars().next_back().map_or(0, char::len_utf8);
        let (calm, after) = (part(rest, 0..stirring - base), part(rest, stirring - base..rest.len()));
        room::append(&mut out, calm, ITEM)?;
        let len = base + part(after, base..after.len()).find(|c| !is_stirring(c)).unwrap_or(after.len() - base);
        stretch.normalize(part(after, 0..len), &mut out)?;
        rest = part(after, len..after.len());
        match rest.find(is_stirring) {
            Some(at) => stirring = at,
            None => break,
        }
    }
    room::append(&mut out, rest, ITEM)?;
    Ok(Cow::Owned(out))
}

/// False where the character stays what it is, whatever stands before it.
fn is_stirring(c: char) -> bool {
    c >= FIRST_MARK && combining(c) != 0
}

/// Canonical combining class, and 255 for starters that NFC may touch.
fn combining(c: char) -> u8 {
    // The first run starts at zero, so that there is one before every character.
    COMBINING[COMBINING.partition_point(|run| run >> 8 <= c as u32) - 1] as u8
}

/// Working space for one stretch after another.
#[derive(Default)]
struct Stretch {
    /// Marks since the last starter: class, place, character. Marks of one class keep their order, and sorting by the
    /// place as well is what needs no memory for that.
    marks: Vec<(u8, usize, char)>,
    composer: Composer,
}

impl Stretch {
    /// Appends `text` in NFC.
    fn normalize(&mut self, text: &str, out: &mut String) -> Result<(), Error> {
        for c in text.chars() {
            let (parts, n) = decompose(c);
            for &part in &parts[..n] {
                match combining(part) {
                    0 | 255 => {
                        self.flush_marks(out)?;
                        self.composer.push(part, 0, out)?;
                    }
                    class => {
                        let place = self.marks.len();
                        room::push(&mut self.marks, (class, place, part), ITEM)?;
                    }
                }
            }
        }
        self.flush_marks(out)?;
        self.composer.finish(out)
    }

    fn flush_marks(&mut self, out: &mut String) -> Result<(), Error> {
        order::sort(&mut self.marks, Ord::cmp);
        self.marks.drain(..).try_for_each(|(class, _, mark)| self.composer.push(mark, class, out))
    }
}

/// Takes decomposed characters in canonical order and puts the composed ones out.
#[derive(Default)]
struct Composer {
    /// The last starter, with all that composed into it.
    starter: Option<char>,
    /// What followed the starter and did not compose with it.
    rest: String,
    /// Class of the last character of `rest`; it hides the starter from characters of its class and below.
    last: Option<u8>,
}

impl Composer {
    fn push(&mut self, c: char, class: u8, out: &mut String) -> Result<(), Error> {
        let Some(starter) = self.starter else {
            if class == 0 {
                self.starter = Some(c);
                return Ok(());
            }
            return append(out, c);
        };
        if self.last.is_none_or(|last| last < class)
            && let Some(whole) = compose(starter, c)
        {
            self.starter = Some(whole);
        } else if class == 0 {
            self.finish(out)?;
            self.starter = Some(c);
        } else {
            append(&mut self.rest, c)?;
            self.last = Some(class);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Error> {
        if let Some(starter) = self.starter.take() {
            append(out, starter)?;
        }
        room::append(out, &self.rest, ITEM)?;
        self.rest.clear();
        self.last = None;
        Ok(())
    }
}

fn append(text: &mut String, c: char) -> Result<(), Error> {
    room::append(text, c.encode_utf8(&mut [0; 4]), ITEM)
}

/// The full canonical decomposition of `c`, which has four characters at most, and how many it has.
fn decompose(c: char) -> ([char; 4], usize) {
    let mut parts = ['\0'; 4];
    let syllable = (c as u32).wrapping_sub(S_BASE);
    if syllable < LEADS * VOWELS * TAILS {
        parts[0] = character(L_BASE + syllable / (VOWELS * TAILS));
        parts[1] = character(V_BASE + syllable / TAILS % VOWELS);
        parts[2] = character(T_BASE + syllable % TAILS);
        return (parts, if syllable.is_multiple_of(TAILS) { 2 } else { 3 });
    }
    // Pairs split off the last character, so the parts come in reverse.
    let mut n = 0;
    let mut code = single(c as u32);
    while let Ok(at) = PAIRS.binary_search_by_key(&code, |pair| pair.0) {
        parts[n] = character(PAIRS[at].2);
        n += 1;
        code = single(PAIRS[at].1);
    }
    parts[n] = character(code);
    parts[..=n].reverse();
    (parts, n + 1)
}

/// What `code` stands for if it is a second name of another code point, else itself.
fn single(code: u32) -> u32 {
    let n_before = SINGLES.partition_point(|run| run.0 <= code);
    match n_before.checked_sub(1).map(|at| SINGLES[at]) {
        Some((first, at, n)) if code - first < u32::from(n) => {
            SINGLE_TARGETS[usize::from(at) + (code - first) as usize]
        }
        _ => code,
    }
}

/// The character that `first` and `second` make, if they make one.
fn compose(first: char, second: char) -> Option<char> {
    let (a, b) = (first as u32, second as u32);
    let (lead, vowel, tail) = (a.wrapping_sub(L_BASE), b.wrapping_sub(V_BASE), b.wrapping_sub(T_BASE));
    if lead < LEADS && vowel < VOWELS {
        return Some(character(S_BASE + (lead * VOWELS + vowel) * TAILS));
    }
    let syllable = a.wrapping_sub(S_BASE);
    if syllable < LEADS * VOWELS * TAILS && syllable.is_multiple_of(TAILS) && (1..TAILS).contains(&tail) {
        return Some(character(a + tail));
    }
    let pair = |index: &u16| PAIRS[usize::from(*index)];
    let at = COMPOSING.binary_search_by_key(&(a, b), |index| (pair(index).1, pair(index).2)).ok()?;
    Some(character(pair(&COMPOSING[at]).0))
}

/// A code point of the tables, all of which are characters.
fn character(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(nfc(text).expect("a few bytes"), expected, "{text:?}");
        assert_eq!(nfc(expected).expect("a few bytes"), expected, "{expected:?}");
    }

    #[test]
    fn composes_orders_and_respects_blocking() {
        check("plain \u{e9}", "plain \u{e9}");
        check("e\u{301}", "\u{e9}");
        check("a\u{327}\u{301}x", "\u{e1}\u{327}x");
        check("q\u{307}\u{323}", "q\u{323}\u{307}");
        check("\u{e9}\u{323}", "\u{1eb9}\u{301}");
        check("\u{301}e\u{301}\u{301}", "\u{301}\u{e9}\u{301}");
        check("\u{212b}\u{2126}\u{f900}", "\u{c5}\u{3a9}\u{8c48}");
        check("\u{958}", "\u{915}\u{93c}");
        check("\u{1f82}", "\u{1f82}");
        check("\u{3b1}\u{345}\u{300}\u{313}", "\u{1fb2}\u{313}");
    }

    #[test]
    fn hangul_is_computed() {
        check("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "\u{d55c}\u{ae00}");
        check("\u{ac00}\u{11a7}\u{ac00}\u{11a8}", "\u{ac00}\u{11a7}\u{ac01}");
        check("\u{1100}\u{1161}\u{301}\u{11a8}", "\u{ac00}\u{301}\u{11a8}");
    }

    #[test]
    fn every_character_survives_decomposing_and_composing() {
        for c in '\0'..=char::MAX {
            let (parts, n) = decompose(c);
            let mut one = String::new();
            one.push(c);
            assert_eq!(nfc(&String::from_iter(&parts[..n])), nfc(&one), "{c:?}");
        }
    }
}
