//! Disks that are full or broken, inputs that change, others in the same place: whatever fails, the output that was there
//! stays as it was or the new one is whole, and nothing else is left.

mod cli_support;
#[path = "cli_support/faults.rs"]
mod faults;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cli_support::{
    assert_same_tree, compile, copy, fail, finish, in_shell, names, nano, skipped, succeed, tree, tvlmc,
};
use faults::{Faults, IMPOSSIBLE, Mode};
use tempfile::TempDir;
use tvlmc::Error;
use tvlmc::assemble::{Assembled, Options, assemble};
use tvlmc::output::Staging;

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn nano_assembled() -> Assembled {
    assemble(&nano("hf"), &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// As `tvlmc compile` writes.
fn write(assembled: &Assembled, out: &Path, replace: bool) -> Result<PathBuf, Error> {
    let staging = Staging::begin(out, replace)?;
    assembled.write(&staging, &|_| Ok(()))?;
    staging.commit()
}

/// An older output, which is made anew where it was replaced.
struct Old {
    out: PathBuf,
    is: bool,
}

impl Old {
    const FILES: [(&str, &str); 3] = [("manifest.json", "old"), ("Cargo.toml", ""), ("weights.tvlm", "precious")];

    fn make(&self) {
        let _ = std::fs::remove_dir_all(&self.out);
        if self.is {
            std::fs::create_dir(&self.out).expect("created");
            for (name, text) in Self::FILES {
                std::fs::write(self.out.join(name), text).expect("written");
            }
        }
    }

    fn is_intact(&self) -> bool {
        let expected = Self::FILES.map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()));
        if self.is { tree(&self.out) == expected.into_iter().collect() } else { !self.out.exists() }
    }
}

/// Runs this binary's test once more, with the library that makes calls fail.
fn with_faults(test: &str, inside: fn()) {
    const INSIDE: &str = "TVLMC_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let Some(library) = faults::library(test) else { return };
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([test, "--exact", "--nocapture"]).env(INSIDE, "1").env("LD_PRELOAD", &library);
    let done = finish(&mut command);
    let _ = std::fs::remove_file(library);
    if done.code == IMPOSSIBLE {
        return skipped(test, done.stderr.trim());
    }
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("1 passed"), "{}", done.stdout);
    print!("{}", done.stdout);
}

/// Kinds of calls, as `faults.c` names them, and whether a write without them fails.
const KINDS: [(char, &str, bool); 7] = [
    ('w', "write", true),
    ('o', "create a file", true),
    ('d', "create a folder", true),
    ('s', "flush", true),
    ('x', "exchange or rename", true),
    ('a', "allocate", true),
    ('u', "remove", false),
];

#[test]
fn every_call_may_fail() {
    with_faults("every_call_may_fail", || {
        let (faults, assembled) = (Faults::find(), nano_assembled());
        let dir = folder();
        let whole = dir.path().join("whole");
        write(&assembled, &whole, false).expect("written");
        for (is, error, mode) in [(true, libc::ENOSPC, Mode::Sticky), (false, libc::EIO, Mode::Once)] {
            let old = Old { out: dir.path().join("out"), is };
            for (kind, name, fails) in KINDS {
                // A full disk takes part of what is written before it refuses.
                let mode = if kind == 'w' && is { Mode::Short } else { mode };
                let calls = (1..).find(|&nth| !one(&faults, &assembled, &old, (kind, nth, error, mode), &whole));
                let calls = calls.expect("an end") - 1;
                println!("{name}, error {error}: each of {calls} failed");
                assert!(calls > 0 || !fails, "{name}: no call was found");
            }
        }
    });
}

/// Fails one call; whether there was such a call.
fn one(faults: &Faults, assembled: &Assembled, old: &Old, fault: (char, i32, i32, Mode), whole: &Path) -> bool {
    let (kind, nth, error, mode) = fault;
    old.make();
    faults.arm(kind, nth, error, mode);
    let written = write(assembled, &old.out, old.is);
    let reached = faults.count(kind) >= nth + i32::from(matches!(mode, Mode::Short));
    faults.disarm();
    let dir = old.out.parent().expect("a parent");
    match written {
        Ok(_) => {
            assert_same_tree(whole, &old.out);
            // What could not be removed goes with the next run.
            if names(dir) != ["out", "whole"] {
                assert!(kind == 'u' && reached, "{fault:?}: {:?}", names(dir));
                write(assembled, &old.out, true).expect("written");
                assert_eq!(names(dir), ["out", "whole"]);
            }
        }
        Err(e) => {
            assert!(reached, "{fault:?}: {e}");
            let text = e.to_string();
            assert_eq!(e.exit_code(), 4, "{fault:?}: {text}");
            assert!(old.is_intact(), "{fault:?}: {text}");
            assert_eq!(names(dir), if old.is { &["out", "whole"][..] } else { &["whole"] }, "{fault:?}");
            assert!(text.contains("cannot ") && text.contains("out"), "{text}");
            // Before the first file is there, its size is not known.
            if error == libc::ENOSPC && !text.contains("cannot create") {
                assert!(text.contains("No space left") && text.contains(" bytes in all: free some"), "{text}");
            }
        }
    }
    reached
}

/// A file system that can only rename plainly: the old output steps aside for a moment.
#[test]
fn plain_renames_may_fail() {
    with_faults("plain_renames_may_fail", || {
        let (faults, assembled) = (Faults::find(), nano_assembled());
        let dir = folder();
        let whole = dir.path().join("whole");
        faults.plain_renames(true);
        write(&assembled, &whole, false).expect("written");
        let old = Old { out: dir.path().join("out"), is: true };
        let calls = (1..).find(|&nth| !one(&faults, &assembled, &old, ('r', nth, libc::EIO, Mode::Once), &whole));
        assert_eq!(calls, Some(3), "aside, and into place");
        // Killed between the two, or unable to step back: the next run gives the old output its name again.
        old.make();
        faults.arm('r', 2, libc::EIO, Mode::Sticky);
        write(&assembled, &old.out, true).expect_err("a failed rename");
        faults.disarm();
        assert!(!old.out.exists());
        assert_eq!(write(&assembled, &old.out, false).expect_err("it exists").exit_code(), 2);
        assert!(old.is_intact());
        assert_eq!(names(dir.path()), ["out", "whole"]);
    });
}

/// The same through the command line: exit code and message.
#[test]
fn the_command_says_what_failed() {
    let test = "the_command_says_what_failed";
    let Some(library) = faults::library(test) else { return };
    let dir = folder();
    let out = dir.path().join("out");
    succeed(compile(&nano("llava")).arg("-o").arg(&out));
    let before = tree(&out);
    let room = ["No space left on device", "bytes in all", "-o"];
    for (fault, words) in [
        ("d:1:28", &["cannot create the output folder", "No space left on device"][..]),
        ("w:9:28:2", &room),
        ("o:20:28:1", &room),
        ("s:5:28", &room),
        ("a:1:28", &room),
        ("x:1:28", &room),
        ("w:20:5", &["cannot write", "out", "Input/output error"]),
        ("x:1:5", &["cannot name the finished output", "Input/output error"]),
    ] {
        let mut command = compile(&nano("hf"));
        command.arg("--force").arg("-o").arg(&out).env("TVLMC_FAULT", fault).env("LD_PRELOAD", &library);
        let done = finish(&mut command);
        if done.code == IMPOSSIBLE {
            return skipped(test, done.stderr.trim());
        }
        assert_eq!(done.code, 4, "{fault}: {}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "{fault}: {}\n  should have: {word}", done.stderr);
        }
        assert!(tree(&out) == before, "{fault}: the older output has changed");
        assert_eq!(names(dir.path()), ["out"], "{fault}");
    }
    let _ = std::fs::remove_file(library);
}

#[test]
fn limits_on_the_size_of_files() {
    let dir = folder();
    let out = dir.path().join("out");
    // Blocks of 512 bytes: in a small text, in a large one, in the weights.
    for blocks in [1, 16, 200, 5000] {
        let script = format!("ulimit -f {blocks}; exec \"$@\"");
        let mut limited = in_shell(&script, compile(&nano("hf")).args(["--quant", "f32"]).arg("-o").arg(&out));
        fail(&mut limited, 4, &["out", "File too large", "bytes in all: raise the limit"]);
        assert_eq!(names(dir.path()), [""; 0], "{blocks}");
    }
}

/// One process and no thread beside it: slower, but the same.
#[test]
fn limits_on_the_number_of_threads() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return skipped("`ulimit -u`", "it takes a user without other processes, and only root can become one");
    }
    let (dir, whole) = (folder(), folder());
    succeed(compile(&nano("hf")).args(["--name", "hf", "-o"]).arg(whole.path().join("out")));
    // Where everybody can reach it.
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("changed");
    };
    open(dir.path());
    let (binary, model, out) = (dir.path().join("tvlmc"), dir.path().join("model"), dir.path().join("out"));
    std::fs::copy(env!("CARGO_BIN_EXE_tvlmc"), &binary).expect("copied");
    copy(&nano("hf"), &model);
    open(&binary);
    open(&model);
    let mut command = Command::new(&binary);
    command.arg("compile").arg(&model).args(["--target", cli_support::TARGET, "--name", "hf", "-o"]).arg(&out);
    for given in [1, 2] {
        // dash has another letter for it.
        let limit = format!("ulimit -u {given} 2>/dev/null || ulimit -p {given} || exit 9");
        let mut limited = in_shell(&format!("{limit}; exec \"$@\""), &command);
        // Not nobody, who may have processes of others.
        let done = finish(limited.uid(64_124).gid(64_124).current_dir("/"));
        assert_eq!(done.code, 0, "{given} processes: {}", done.stderr);
        assert_same_tree(&whole.path().join("out"), &out);
        std::fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn disks_that_are_too_small() {
    let dir = folder();
    let whole = dir.path().join("whole");
    succeed(compile(&nano("hf")).arg("-o").arg(&whole));
    let bytes: usize = tree(&whole).values().map(Vec::len).sum();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).expect("created");
    // Half the room, and room for twenty names only.
    for options in [format!("size={}", bytes / 2), "size=64m,nr_inodes=20".into()] {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            return skipped("disks_that_are_too_small", "a small file system cannot be mounted here");
        }
        let done = finish(compile(&nano("hf")).arg("-o").arg(disk.join("out")));
        let left = names(&disk);
        let unmounted = Command::new("umount").arg(&disk).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        assert_eq!(done.code, 4, "{options}: {}", done.stderr);
        assert!(done.stderr.contains("bytes") && done.stderr.contains("free some"), "{options}: {}", done.stderr);
        assert_eq!(left, [""; 0], "{options}");
    }
}

#[test]
fn two_processes_twenty_times() {
    let dir = folder();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    succeed(compile(&nano("hf")).arg("-o").arg(&whole));
    for round in 0..20 {
        // At first there is nothing, then there is something to replace.
        let force = round >= 5;
        if !force {
            let _ = std::fs::remove_dir_all(&out);
        }
        let start = |_| {
            let mut command = compile(&nano("hf"));
            command.arg("-o").arg(&out).args(force.then_some("--force")).stderr(Stdio::null());
            command.spawn().expect("started")
        };
        let codes = [0, 1].map(start).map(|mut child| child.wait().expect("ended").code());
        let n_done = codes.iter().filter(|code| **code == Some(0)).count();
        assert_eq!(n_done, if force { 2 } else { 1 }, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 2))), "{codes:?}");
        assert_eq!(names(dir.path()), ["out", "whole"]);
        assert_same_tree(&whole, &out);
    }
}

#[test]
fn weights_that_change_between_passes() {
    for (layout, name) in [("hf", "model.safetensors"), ("llava", "model-00002-of-00003.safetensors")] {
        let dir = folder();
        let (model, out) = (dir.path().join("model"), dir.path().join("out"));
        copy(&nano(layout), &model);
        let assembled = assemble(&model, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        std::thread::sleep(Duration::from_millis(20));
        // A byte of a value in the middle, which stays finite.
        let file = std::fs::File::options().read(true).write(true).open(model.join(name)).expect("a file");
        let at = file.metadata().expect("metadata").len() / 4 * 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
        let e = write(&assembled, &out, false).expect_err("a changed checkpoint");
        assert_eq!(e.exit_code(), 3, "{e}");
        assert!(e.to_string().contains(name) && e.to_string().contains("changed while it was being read"), "{e}");
        assert_eq!(names(dir.path()), ["model"]);
    }
}

/// Texts are read once: what happens to them later does not matter.
#[test]
fn texts_that_change_between_passes() {
    let dir = folder();
    let model = dir.path().join("nano");
    copy(&nano("hf"), &model);
    let [before, after] = ["before", "after"].map(|name| dir.path().join(name));
    let assembled = assemble(&model, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    write(&assembled, &before, false).expect("written");
    for name in ["config.json", "tokenizer.json", "vocab.json"] {
        std::fs::write(model.join(name), "[").expect("written");
    }
    write(&assembled, &after, false).expect("written");
    assert_same_tree(&before, &after);
}

#[test]
fn a_writer_in_the_middle_is_noticed() {
    let dir = folder();
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    copy(&nano("hf"), &model);
    let file = std::fs::File::options().read(true).write(true).open(model.join("model.safetensors")).expect("a file");
    let at = file.metadata().expect("metadata").len() - 2;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            while !stop.load(Ordering::Relaxed) {
                byte[0] ^= 1;
                file.write_all_at(&byte, at).expect("written");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let done: Vec<_> = (0..3).map(|_| finish(compile(&model).arg("-o").arg(&out))).collect();
        stop.store(true, Ordering::Relaxed);
        for done in done {
            assert_eq!(done.code, 3, "{}", done.stderr);
            assert!(done.stderr.contains("model.safetensors: changed while it was being read"), "{}", done.stderr);
        }
    });
    assert_eq!(names(dir.path()), ["model"]);
}

/// A million opening brackets, and a stack of 256 KB.
#[test]
fn deep_nesting_and_a_small_stack() {
    let dir = folder();
    let deep = "[".repeat(1_000_000);
    let length = (deep.len() as u64 + 1).to_le_bytes();
    let header = [&length[..], b"{", deep.as_bytes()].concat();
    for (name, bytes) in [
        ("model.safetensors", &header[..]),
        ("config.json", deep.as_bytes()),
        ("tokenizer.json", deep.as_bytes()),
        ("preprocessor_config.json", deep.as_bytes()),
    ] {
        let model = dir.path().join(name).with_extension("");
        copy(&nano("hf"), &model);
        std::fs::write(model.join(name), bytes).expect("written");
        let mut inspect = tvlmc();
        inspect.arg("inspect").arg(&model);
        fail(&mut in_shell("ulimit -s 256; exec \"$@\"", &inspect), 3, &[name]);
    }
}
