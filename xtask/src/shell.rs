//! Running other programs, and finding out whether they are there.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder of fresh checkpoints and Python environments, found as `tvlmc` and the scripts find it.
pub fn cache() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TVLMC_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("tvlmc")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/tvlmc")))
        .ok_or_else(|| "no folder for checkpoints and environments: set TVLMC_CACHE, or HOME".to_string())
}

/// The folder cargo builds in.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A command in the workspace's folder, without input.
pub fn command(program: impl AsRef<OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` of the toolchain that runs this.
pub fn cargo(args: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Shows and runs a command; whether it succeeded.
pub fn run(command: &mut Command) -> Result<bool, String> {
    show(command);
    let status = command.status().map_err(|e| unable(command, &e))?;
    Ok(status.success())
}

/// Shows and runs a command, giving every line of its stdout to `line`; whether it succeeded.
pub fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool, String> {
    show(command);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| unable(command, &e))?;
    if let Some(out) = child.stdout.take() {
        // Tests may print bytes that are not text.
        for bytes in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            line(&String::from_utf8_lossy(&bytes));
        }
    }
    let status = child.wait().map_err(|e| unable(command, &e))?;
    Ok(status.success())
}

/// Shows and runs a command; its stdout, or an error if it fails.
pub fn output(command: &mut Command) -> Result<String, String> {
    show(command);
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| unable(command, &e))?;
    if !out.status.success() {
        return Err(format!("`{}` failed: {}", text(command), out.status));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The stdout of a question to a tool; `None` if the tool is missing or says no.
pub fn ask(program: &str, args: &[&str]) -> Option<String> {
    let out = command(program, args).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Shows a command before it runs.
pub fn show(command: &Command) {
    eprintln!("$ {}", text(command));
}

/// A command in words, without folders.
pub fn text(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let args = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}

/// Why a command could not be started.
pub fn unable(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run `{}`: {error}", text(command))
}
