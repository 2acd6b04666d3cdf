//! What compiled kernels tell about themselves: the custom section `tvlmc.info` of a kernels module.
//!
//! ```text
//! little endian, without padding; n stands for a u32, text for n and as many bytes of UTF-8
//!
//! b"TVLMINF1"
//! text name, system, weights_name             [u8; 32] digest
//! n hidden, vocab, max_context, chunk, verify_rows, arena_bytes, scratch_bytes, weights_bytes
//! n image_rows_pitch, rows, rows_pitch, logits, logits_pitch, token
//! n baked, late_logits: 0 or 1
//! n policy: 0 pads, 1 crops                   [u8; 4] red, green, blue, 0 of the padding; zeros where it crops
//! n slots of the cache, and of each:          n slot, pieces, pitch, block, block_bytes
//! n sides, from small to large, and of each:  n side, tokens, input, rows
//! ```
//!
//! The fields are those of [`Info`], which says what they are. Steps are left out: whoever runs them knows them. What the
//! numbers mean together is checked where a model is opened.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use runtime_min::{CacheSlot, Error, ImagePolicy, Info, Side};

const MAGIC: &[u8; 8] = b"TVLMINF1";

/// Most rows of a prefill: what is queued for one takes four bytes a row.
const MOST_ROWS: usize = 1 << 16;

/// Reads the section; what it names lives as long as the module.
pub fn read(bytes: &[u8]) -> Result<&'static Info, Error> {
    let mut reader = Reader { rest: bytes, len: bytes.len() };
    if reader.bytes(MAGIC.len())? != MAGIC {
        return Err(wrong(String::from("it does not begin with TVLMINF1: compile the checkpoint again")));
    }
    let [name, system, weights_name] = [reader.text()?, reader.text()?, reader.text()?];
    let mut digest = [0; 32];
    digest.copy_from_slice(reader.bytes(32)?);
    let [hidden, vocab, max_context, chunk, verify_rows, arena_bytes, scratch_bytes, weights_bytes] =
        reader.numbers()?;
    let [image_rows_pitch, rows, rows_pitch, logits, logits_pitch, token] = reader.numbers()?;
    let [baked, late_logits] = [reader.flag()?, reader.flag()?];
    let [crops] = reader.numbers()?;
    let policy = match (crops, reader.bytes(4)?) {
        (0, &[red, green, blue, 0]) => ImagePolicy::Pad { color: [red, green, blue] },
        (1, [0, 0, 0, 0]) => ImagePolicy::Crop,
        _ => return Err(wrong(format!("there is no policy {crops}, or not with this color"))),
    };
    let cache = reader.list(|[slot, pieces, pitch, block, block_bytes]| CacheSlot {
        slot,
        pieces,
        pitch,
        block,
        block_bytes,
    })?;
    let sides = reader.list(|[side, tokens, input, rows]| Side { side, tokens, input, rows, steps: &[] })?;
    if !reader.rest.is_empty() {
        return Err(wrong(format!("{} of its {} bytes follow its end", reader.rest.len(), reader.len)));
    }
    if chunk > MOST_ROWS {
        return Err(wrong(format!("{chunk} rows at once, {MOST_ROWS} are the most")));
    }
    Ok(Box::leak(Box::new(Info {
        name: leaked(name),
        hidden,
        vocab,
        max_context,
        chunk,
        verify_rows,
        arena_bytes,
        scratch_bytes,
        weights_bytes,
        sides,
        system: leaked(system),
        baked,
        cache,
        image_rows_pitch,
        rows,
        rows_pitch,
        logits,
        logits_pitch,
        token,
        policy,
        digest,
        weights_name: leaked(weights_name),
        late_logits,
        steps: [&[]; 3],
    })))
}

struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((bytes, rest)) = self.rest.split_at_checked(n) else {
            let at = self.len - self.rest.len();
            return Err(wrong(format!("{n} bytes at {at} are beyond its {}", self.len)));
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Result<[usize; N], Error> {
        let bytes = self.bytes(4 * N)?;
        let mut numbers = [0; N];
        for (number, word) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = u32::from_le_bytes(*word) as usize;
        }
        Ok(numbers)
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.numbers()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [n] => Err(wrong(format!("{n} is neither 0 nor 1"))),
        }
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let [n] = self.numbers()?;
        core::str::from_utf8(self.bytes(n)?).map_err(|_| wrong(String::from("a name is no UTF-8")))
    }

    fn list<T, const N: usize>(&mut self, item: impl Fn([usize; N]) -> T) -> Result<&'static [T], Error> {
        let [n] = self.numbers()?;
        // Before memory is taken for it.
        let bytes = self.bytes(n.saturating_mul(4 * N))?;
        let mut rows = Reader { rest: bytes, len: bytes.len() };
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(item(rows.numbers()?));
        }
        Ok(items.leak())
    }
}

fn leaked(text: &str) -> &'static str {
    String::from(text).leak()
}

#[cold]
fn wrong(reason: String) -> Error {
    Error::Program { reason: format!("tvlmc.info: {reason}") }
}
