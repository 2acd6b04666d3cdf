//! `tvlmc compile --emit staticlib`: a checkpoint to a library for C and whatever calls it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::compile::progress;
use super::delegate;
use super::runner::cargo_messages;
use super::ui::{Ui, size};
use crate::assemble::Assembled;
use crate::coreml;
use crate::error::Error;
use crate::machine::{self, Machine, System};
use crate::output::{MANIFEST, Staging};
use crate::package::{self, WEIGHTS_NAME};

/// The linker of Debian's cross compiler.
const CROSS_LINKER: &str = "aarch64-linux-gnu-gcc";

/// Libraries of one machine.
pub struct Libraries {
    /// The static one, if it was wanted.
    pub archive: Option<PathBuf>,
    /// The shared one, if it was wanted and could be linked.
    pub shared: Option<PathBuf>,
    _scratch: tempfile::TempDir,
}

/// Refuses a machine that rustc here has no standard library for, before minutes of work.
///
/// # Errors
/// There is no rustc, or no such library.
pub fn check(machine: Machine) -> Result<(), Error> {
    let triple = machine.triple();
    let there = machine::has_target(triple).map_err(|e| {
        Error::Environment(format!("rustc: {e}: a library takes a stable Rust toolchain (1.90 or later) on the PATH"))
    })?;
    if there {
        return Ok(());
    }
    Err(Error::Environment(format!(
        "rustc has no standard library for {triple}: `rustup target add {triple}` installs it; `--emit crate` does without"
    )))
}

/// Builds the C interface of a model: `kinds` of crates as cargo names them, with variables of its environment.
///
/// # Errors
/// The disk; cargo.
pub fn build(
    assembled: &Assembled,
    kinds: &str,
    variables: &[(String, OsString)],
    ui: &Ui,
) -> Result<Libraries, Error> {
    let machine = assembled.prepared.machine;
    let scratch = tempfile::Builder::new()
        .prefix("tvlmc-")
        .tempdir()
        .map_err(Error::io("create a folder in", &std::env::temp_dir()))?;
    for (path, text) in &assembled.package.files {
        let path = scratch.path().join(path);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    let work = ui.work("building the library", None);
    let args = ["rustc", "--lib", "--target", machine.triple(), "--crate-type", kinds];
    let (folder, target) = (scratch.path().join("c"), scratch.path().join("target"));
    let messages = cargo_messages(&folder, &target, &args, named(machine), variables, ui)?;
    work.done("");
    let made = |end: &str| {
        let mut files = messages.iter().flat_map(|message| &message.filenames);
        files.rfind(|file| file.extension().is_some_and(|e| e == end)).cloned()
    };
    Ok(Libraries { archive: made("a"), shared: made("so"), _scratch: scratch })
}

/// What rustc is told so that a shared library has a name, by which programs linked with it look for it: without one they keep the
/// path that they were linked with.
fn named(machine: Machine) -> &'static [&'static str] {
    match machine.system() {
        Some(System::Linux | System::Android) => &["-Clink-arg=-Wl,-soname,libtvlm.so"],
        // Only libraries that are linked into an app are made for these.
        Some(System::Ios | System::IosSimulator | System::MacOs) | None => &[],
    }
}

/// Whether a shared library can be linked, and what cargo has to be told for it.
fn linker(machine: Machine) -> Option<Vec<(String, OsString)>> {
    let cross = Machine::Aarch64(System::Linux);
    if machine == Machine::HOST {
        return Some(Vec::new());
    }
    let there = || Command::new(CROSS_LINKER).arg("--version").output().is_ok_and(|out| out.status.success());
    let variable = || ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER".to_string(), CROSS_LINKER.into());
    (machine == cross && there()).then(|| vec![variable()])
}

/// Builds the library and writes it with its header and weights into the folder `out`.
///
/// # Errors
/// As of [`build`], and those of writing.
pub fn write(
    assembled: &Assembled,
    model: Option<&coreml::Model>,
    out: &Path,
    force: bool,
    ui: &Ui,
) -> Result<u8, Error> {
    let linker = linker(assembled.prepared.machine);
    let kinds = if linker.is_some() { "staticlib,cdylib" } else { "staticlib" };
    let built = build(assembled, kinds, &linker.unwrap_or_default(), ui)?;
    let staging = Staging::begin(out, force)?;
    let total = assembled.weight_file_bytes();
    let mut libraries = Vec::new();
    for (name, path) in [("lib/libtvlm.a", &built.archive), ("lib/libtvlm.so", &built.shared)] {
        let Some(path) = path else { continue };
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        libraries.push(format!("{name} {}", size(bytes.len() as u64)));
        staging.write(name, &bytes)?;
    }
    for (path, text) in package::library_files(&assembled.package, &assembled.prepared, built.shared.is_some()) {
        staging.write(&path, text.as_bytes())?;
    }
    staging.write(MANIFEST, assembled.package.files[MANIFEST].as_bytes())?;
    if let Some(model) = model {
        delegate::write(model, assembled, &staging, "", ui)?;
    }
    progress(assembled, ui, &|progress| assembled.write_weights(&staging, &staging.path(WEIGHTS_NAME), progress))?;
    let out = staging.commit()?;
    ui.note(&format!("{}: {}, {} of weights", out.display(), libraries.join(", "), size(total)));
    ui.note(&format!("license of the weights: {}", assembled.prepared.licenses.summary()));
    Ok(0)
}
