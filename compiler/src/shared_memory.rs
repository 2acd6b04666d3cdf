//! A WebAssembly module for a memory that threads share, made of one for a memory of its own.
//!
//! Whether an imported memory is shared is one bit of its import; no instruction differs. So the runtime's module is kept once,
//! and gets that bit where it is put beside kernels with threads. It must have been linked with `--import-memory`.

/// Pages of 64 KB that a shared memory may have; a host gives less as it likes.
const MOST_PAGES: u64 = 65536;

const IMPORTS: u8 = 2;

/// The module with its imported memory declared as shared, and everything else as it was.
///
/// # Errors
/// In words, for bytes that are no module with an imported memory of 32 bits.
pub fn share(module: &[u8]) -> Result<Vec<u8>, String> {
    let Some(mut rest) = module.strip_prefix(b"\0asm\x01\0\0\0") else {
        return Err("it is no WebAssembly module of version 1".to_string());
    };
    let mut out = module[..8].to_vec();
    let mut shared = false;
    while let Some((&id, after)) = rest.split_first() {
        let mut reader = Reader(after);
        let len = reader.number()?;
        let body = reader.bytes(len)?;
        rest = reader.0;
        out.push(id);
        let body = if id == IMPORTS { imports(body, &mut shared)? } else { body.to_vec() };
        number(body.len() as u64, &mut out);
        out.extend(body);
    }
    if shared { Ok(out) } else { Err("it imports no memory".to_string()) }
}

/// The section of imports, with its memory shared.
fn imports(body: &[u8], shared: &mut bool) -> Result<Vec<u8>, String> {
    let mut reader = Reader(body);
    let n = reader.number()?;
    let mut out = Vec::with_capacity(body.len() + 4);
    number(n, &mut out);
    for _ in 0..n {
        for _ in 0..2 {
            let len = reader.number()?;
            number(len, &mut out);
            out.extend(reader.bytes(len)?);
        }
        let kind = reader.byte()?;
        out.push(kind);
        match kind {
            // A function's type.
            0 => number(reader.number()?, &mut out),
            // A table's element and limits.
            1 => {
                out.push(reader.byte()?);
                let flags = reader.byte()?;
                out.push(flags);
                for _ in 0..=(flags & 1) {
                    number(reader.number()?, &mut out);
                }
            }
            2 => {
                let flags = reader.byte()?;
                if flags > 3 {
                    return Err(format!("the limits of its memory have the flags {flags:#x}"));
                }
                let least = reader.number()?;
                if flags & 1 == 1 {
                    reader.number()?;
                }
                out.push(3);
                number(least, &mut out);
                number(MOST_PAGES, &mut out);
                *shared = true;
            }
            // A global's type, and whether it changes.
            3 => out.extend(reader.bytes(2)?),
            other => return Err(format!("it imports something of kind {other}")),
        }
    }
    if reader.0.is_empty() { Ok(out) } else { Err("its imports go on after their end".to_string()) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn bytes(&mut self, n: u64) -> Result<&'a [u8], String> {
        let split = usize::try_from(n).ok().and_then(|n| self.0.split_at_checked(n));
        let (bytes, rest) = split.ok_or("it ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A number in groups of seven bits, the lowest first; at most 32 bits, as all of a module are.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for group in 0..5 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number of it is too long".to_string())
    }
}

fn number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIME: &[u8] = include_bytes!("../../runtime-wasm/runtime.wasm");

    /// A module whose one section holds these imports.
    fn module(imports: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0\x02".to_vec();
        number(imports.len() as u64, &mut bytes);
        bytes.extend(imports);
        bytes
    }

    #[test]
    fn only_the_memorys_import_changes() {
        // Of "e" "m": a memory of 17 pages, and one with an end; before and after it a function and a global.
        let around = |limits: &[u8]| {
            [&b"\x03\x01e\x01f\x00\x85\x01\x01e\x01m\x02"[..], limits, b"\x01e\x01g\x03\x7f\x00"].concat()
        };
        let shared = module(&around(b"\x03\x11\x80\x80\x04"));
        for limits in [&b"\x00\x11"[..], b"\x01\x11\x20", b"\x03\x11\x80\x80\x04"] {
            assert_eq!(share(&module(&around(limits))), Ok(shared.clone()));
        }
        let runtime = share(RUNTIME).expect("the runtime imports its memory");
        assert_eq!(share(&runtime), Ok(runtime.clone()));
        assert!((1..=4).contains(&(runtime.len() - RUNTIME.len())));
        // What follows the imports is as it was.
        assert_eq!(runtime[runtime.len() - 100_000..], RUNTIME[RUNTIME.len() - 100_000..]);
    }

    #[test]
    fn what_is_no_such_module_is_refused() {
        for (bytes, reason) in [
            (b"\0asm\x02\0\0\0".to_vec(), "no WebAssembly module"),
            (b"\0asm\x01\0\0\0".to_vec(), "imports no memory"),
            (module(b"\x01\x01e\x01f\x00\x05"), "imports no memory"),
            (module(b"\x01\x01e\x01m\x02\x04\x11"), "flags 0x4"),
            (module(b"\x01\x01e\x01m\x02\x00\x11\x00"), "after their end"),
            (module(b"\x01\x01e\x01m\x07\x00"), "of kind 7"),
            (module(b"\x01\xff\xff\xff\xff\xff\x01"), "too long"),
        ] {
            let error = share(&bytes).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
        // What ends early is refused, unless it ends between two sections.
        let whole = share(RUNTIME).expect("the runtime imports its memory");
        let refused = (0..2000).filter(|&len| match share(&RUNTIME[..len]) {
            Ok(part) => !whole.starts_with(&part),
            Err(_) => true,
        });
        assert!(refused.count() > 1990);
    }
}
