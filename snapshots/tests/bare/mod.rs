//! Programs for Linux on aarch64 without a C library, so that no cross compiler is needed, and qemu, which runs them.

use std::path::Path;
use std::process::Command;

use snapshots::{has_program, lacking};

pub const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// Levels of aarch64 by the folder of their snapshots, and a processor that has nothing better.
pub const LEVELS: [(&str, &str, &str); 4] = [
    ("neon", "neon", "cortex-a53"),
    ("neon_exact", "neon", "cortex-a53"),
    ("dotprod", "dotprod", "neoverse-n1"),
    ("i8mm", "i8mm", "max"),
];

/// The beginning of a program: system calls 63 (read), 64 (write), 94 (exit).
pub const HEAD: &str = "
#![no_std]
#![no_main]

use core::arch::asm;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result;
    unsafe { asm!(\"svc 0\", in(\"x8\") number, inlateout(\"x0\") a as isize => result, in(\"x1\") b, in(\"x2\") c) };
    result
}
";

/// Compiles a program; a failure is rustc's message.
pub fn compile(source: &Path, binary: &Path) -> Result<(), String> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-Awarnings", "--target", TRIPLE, "-o"]).arg(binary).arg(source);
    rustc.args(["-Cpanic=abort", "-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Crelocation-model=static"]);
    let out = rustc.output().map_err(|e| format!("rustc: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

/// Why no program can be run here.
pub fn missing() -> Option<String> {
    lacking(TRIPLE).or_else(|| (!has_program("qemu-aarch64")).then(|| "no qemu-aarch64".to_string()))
}

/// qemu as this processor.
pub fn emulated(processor: &str) -> Vec<String> {
    ["qemu-aarch64", "-cpu", processor].map(str::to_string).to_vec()
}
