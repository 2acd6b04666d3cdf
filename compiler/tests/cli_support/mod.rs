//! Calling the `tvlmc` binary of this build, and looking at folders.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The binary with a cache of the test's own, which later runs find again.
pub fn tvlmc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvlmc"));
    command.env("TVLMC_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")).env("NO_COLOR", "1");
    command
}

/// `tvlmc compile MODEL --target T`, to be continued.
pub fn compile(model: &Path) -> Command {
    let mut command = tvlmc();
    command.arg("compile").arg(model).args(["--target", TARGET]);
    command
}

/// A finished call.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn finish(command: &mut Command) -> Done {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let done = Done { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    done
}

/// The call must succeed; its stdout.
pub fn succeed(command: &mut Command) -> String {
    let done = finish(command);
    assert_eq!(done.code, 0, "{command:?}\n{}{}", done.stdout, done.stderr);
    done.stdout
}

/// The call must fail with this code, print nothing on stdout, and say all of `words`.
pub fn fail(command: &mut Command, code: i32, words: &[&str]) {
    let done = finish(command);
    assert_eq!(done.code, code, "{command:?}\n{}{}", done.stdout, done.stderr);
    assert_eq!(done.stdout, "", "results of a failed call");
    for word in words {
        assert!(done.stderr.contains(word), "{}\n  should have: {word}", done.stderr);
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn nano(layout: &str) -> PathBuf {
    root().join("models/nano").join(layout)
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// All files of a folder by relative path.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                files.insert(path.strip_prefix(folder).expect("inside").to_owned(), bytes);
            }
        }
    }
    files
}

/// Same names and bytes; a message that is shorter than the files.
pub fn assert_same_tree(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    assert!(a.keys().eq(b.keys()), "{:?}\n{:?}", a.keys(), b.keys());
    for (path, bytes) in &a {
        assert!(*bytes == b[path], "{} differs", path.display());
    }
}

/// A copy of a flat folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}

/// A shell that runs `script` with `"$@"` as the call.
pub fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg("sh").arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell
}

/// Says on stderr what this machine does not allow to be tested.
pub fn skipped(test: &str, why: impl AsRef<OsStr>) {
    eprintln!("skipped: {test}: {}", why.as_ref().to_string_lossy());
}
