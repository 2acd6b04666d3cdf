//! The module `runtime-wasm/runtime.wasm`, which the compiler embeds: how it is built.
//!
//! Equal sources and an equal compiler give equal bytes, wherever they lie. The compiler's version stands beside the module.

use std::path::Path;
use std::process::Command;

pub const TARGET: &str = "wasm32-unknown-unknown";
pub const MODULE: &str = "runtime-wasm/runtime.wasm";
pub const VERSION: &str = "runtime-wasm/runtime.wasm.rustc";

/// The version of the compiler in use, as it is written beside the module.
pub fn rustc() -> Result<String, String> {
    ask(&["--version"])
}

fn ask(args: &[&str]) -> Result<String, String> {
    let done = Command::new("rustc").args(args).output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Where sources of the standard library would be.
fn library_sources() -> Result<String, String> {
    Ok(format!("{}/lib/rustlib/src/rust", ask(&["--print", "sysroot"])?.trim()))
}

/// What messages call that place without them.
fn library_name() -> Result<String, String> {
    let told = ask(&["-vV"])?;
    let hash = told.lines().find_map(|line| line.strip_prefix("commit-hash: ")).ok_or("rustc names no commit")?;
    Ok(format!("/rustc/{hash}"))
}

/// The module, built from the sources of the workspace at `root`.
pub fn build(root: &Path, target_dir: &Path) -> Result<Vec<u8>, String> {
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    // All engines with the kernels' instructions have these.
    let mut flags = format!("-Ctarget-feature=+simd128\u{1f}--remap-path-prefix={}=tvlmc", root.display());
    // Where the sources of the standard library are installed, messages would name their place.
    flags += &format!("\u{1f}--remap-path-prefix={}={}", library_sources()?, library_name()?);
    let done = Command::new("cargo")
        .args(["build", "--quiet", "--package", "runtime-wasm", "--lib", "--profile", "wasm", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(&root)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let file = target_dir.join(TARGET).join("wasm/runtime_wasm.wasm");
    std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))
}
