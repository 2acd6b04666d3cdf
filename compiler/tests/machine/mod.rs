//! What the tests of emitted code ask of the machine, and of the text.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether there is a program of this name.
pub fn has_program(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Whether there is a Node.
pub fn has_node() -> bool {
    has_program("node")
}

/// Whether rustc has the standard library of a target.
pub fn has_target(triple: &str) -> bool {
    tvlmc::machine::has_target(triple).unwrap_or(false)
}

/// Where checkpoints are that `xtask/oracle/draw.sh` draws: `TVLMC_ORACLE`, or the cache.
pub fn checkpoints() -> PathBuf {
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache/tvlmc/oracle"));
    std::env::var_os("TVLMC_ORACLE").map(PathBuf::from).or_else(home).unwrap_or_default()
}

/// The folder of a drawn checkpoint; told where it is missing.
pub fn drawn(name: &str) -> Option<PathBuf> {
    let folder = checkpoints().join(name);
    let there = folder.join("config.json").is_file();
    if !there {
        println!("skipped: what needs {}, which is not there: xtask/oracle/draw.sh draws it", folder.display());
    }
    there.then_some(folder)
}

/// Runs a program on an emulated processor with all levels: `xtask/emulator/run.sh`.
pub fn emulator() -> Option<OsString> {
    std::env::var_os("TVLMC_EMULATOR").filter(|path| !path.is_empty())
}

/// rustfmt changes nothing in the files of a crate in `folder`, under its own settings.
pub fn assert_formatted(folder: &Path, files: &[PathBuf]) {
    let settings = folder.join("rustfmt.toml");
    let command = &mut Command::new("rustfmt");
    command.args(["--check", "--edition", "2024", "--config-path"]).arg(settings).args(files);
    match command.output() {
        Ok(out) => assert!(out.status.success(), "rustfmt would change:\n{}", String::from_utf8_lossy(&out.stdout)),
        Err(e) => println!("skipped: the fixed point of rustfmt, which cannot be run ({e})"),
    }
}
