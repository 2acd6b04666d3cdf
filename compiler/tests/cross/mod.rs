//! Programs for aarch64 on this machine: Debian's cross linker, and QEMU's user mode.

use std::process::Command;

use super::machine::{has_program, has_target};

/// What is linked and run.
pub const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// The linker, which brings the C library.
pub const LINKER: &str = "aarch64-linux-gnu-gcc";

/// Where that C library is.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// What lacks here for programs to be built and run, which is then said.
pub fn missing(what: &str) -> bool {
    let lacks = lacking();
    if let Some(lacks) = lacks {
        println!("skipped: {what}: no {lacks} here; cargo xtask setup installs it");
    }
    lacks.is_some()
}

fn lacking() -> Option<&'static str> {
    if !has_target(TRIPLE) {
        return Some("aarch64-unknown-linux-gnu of rustc");
    }
    [LINKER, "qemu-aarch64"].into_iter().find(|program| !has_program(program))
}

/// A command line whose next argument is the program.
pub fn emulated(processor: &str) -> Command {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", processor, "-L", SYSROOT]);
    command
}
