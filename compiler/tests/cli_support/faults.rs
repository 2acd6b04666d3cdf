//! System calls that fail when they are told to; see `faults.c` beside this file.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::skipped;

/// How a call fails.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Once = 0,
    /// And all later ones of its kind.
    Sticky = 1,
    /// Half of a write is done before it becomes [`Mode::Sticky`].
    Short = 2,
}

/// Builds the library to be preloaded; says why `test` is skipped if there is no C compiler.
pub fn library(test: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli_support/faults.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}-{test}.so", std::process::id()));
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(&cc).args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).output();
    match built {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => {
            skipped(test, String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("cc failed"));
            None
        }
        Err(e) => {
            skipped(test, format!("no C compiler {}: {e}", cc.display()));
            None
        }
    }
}

/// The exit code of a process that cannot make its calls fail.
pub const IMPOSSIBLE: i32 = 77;

/// The functions of the library in this process, which was started with it.
pub struct Faults {
    arm: extern "C" fn(i32, i32, i32, i32),
    count: extern "C" fn(i32) -> i32,
    plain_renames: extern "C" fn(i32),
}

impl Faults {
    pub fn find() -> Faults {
        let symbol = |name: &std::ffi::CStr| {
            // SAFETY: the name ends in a zero.
            let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            assert!(!at.is_null(), "{name:?} is not preloaded");
            at
        };
        // SAFETY: these are the types of the functions in `faults.c`.
        unsafe {
            Faults {
                arm: std::mem::transmute::<*mut libc::c_void, extern "C" fn(i32, i32, i32, i32)>(symbol(c"faults_arm")),
                count: std::mem::transmute::<*mut libc::c_void, extern "C" fn(i32) -> i32>(symbol(c"faults_count")),
                plain_renames: std::mem::transmute::<*mut libc::c_void, extern "C" fn(i32)>(symbol(
                    c"faults_plain_renames",
                )),
            }
        }
    }

    /// From now on the `nth` call of a kind fails.
    pub fn arm(&self, kind: char, nth: i32, error: i32, mode: Mode) {
        (self.arm)(kind as i32, nth, error, mode as i32);
    }

    /// Nothing fails; counts start again.
    pub fn disarm(&self) {
        (self.arm)(0, 0, 0, 0);
    }

    /// Calls of a kind since it was armed.
    pub fn count(&self, kind: char) -> i32 {
        (self.count)(kind as i32)
    }

    /// Whether the file system knows only plain renames.
    pub fn plain_renames(&self, yes: bool) {
        (self.plain_renames)(i32::from(yes));
    }
}
