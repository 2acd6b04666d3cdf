//! What `compile` leaves behind: a whole folder with the same bytes each time, or nothing.

mod cli_support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cli_support::{
    assert_same_tree, compile, copy, fail, finish, in_shell, names, nano, skipped, succeed, tree, tvlmc,
};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

#[test]
fn two_compiles_give_identical_bytes_and_leave_the_checkpoint_alone() {
    let dir = folder();
    // Two copies, so that neither path nor time can matter; the folder's name becomes the crate's.
    let models = ["one/nano", "two/nano"].map(|name| dir.path().join(name));
    for model in &models {
        copy(&nano("hf"), model);
    }
    let before = tree(&models[0]);
    let outs = ["a", "b"].map(|name| dir.path().join(name));
    succeed(compile(&models[0]).arg("-o").arg(&outs[0]));
    // Other threads, language, time zone and working folder.
    let mut second = compile(Path::new("nano"));
    second.arg("-o").arg(&outs[1]).current_dir(dir.path().join("two"));
    succeed(second.env("RAYON_NUM_THREADS", "1").env("TZ", "Asia/Tokyo").env("LANG", "tr_TR.UTF-8"));
    assert_same_tree(&outs[0], &outs[1]);
    assert!(tree(&models[0]) == before, "the checkpoint was written to");
    assert_eq!(names(dir.path()), ["a", "b", "one", "two"]);
    // A file in the folder stands for the folder.
    let file = dir.path().join("file");
    succeed(compile(&models[0].join("model.safetensors")).arg("-o").arg(&file));
    assert_same_tree(&outs[0], &file);
}

#[test]
fn the_default_output_is_named_after_the_model() {
    let dir = folder();
    succeed(compile(&nano("hf")).current_dir(dir.path()));
    assert_eq!(names(dir.path()), ["hf-x86_64-unknown-linux-gnu"]);
    let dump = dir.path().join("ir");
    succeed(compile(&nano("hf")).args(["--name", "other", "--force", "--dump-ir"]).arg(&dump).current_dir(dir.path()));
    assert_eq!(names(dir.path()), ["hf-x86_64-unknown-linux-gnu", "ir", "other-x86_64-unknown-linux-gnu"]);
    assert!(tree(&dump).len() >= 10, "{:?}", tree(&dump).keys());
}

#[test]
fn an_existing_folder_is_refused_or_replaced_whole() {
    let dir = folder();
    let out = dir.path().join("out");
    succeed(compile(&nano("hf")).arg("-o").arg(&out));
    std::fs::write(out.join("mine.txt"), "precious").expect("written");
    fail(compile(&nano("llava")).arg("-o").arg(&out), 2, &["out exists already", "--force"]);
    assert!(out.join("mine.txt").exists());
    succeed(compile(&nano("llava")).arg("--force").arg("-o").arg(&out));
    assert!(!out.join("mine.txt").exists());
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("created");
    std::fs::write(foreign.join("letter"), "dear").expect("written");
    fail(compile(&nano("hf")).arg("--force").arg("-o").arg(&foreign), 2, &["not an output of tvlmc"]);
    fail(compile(&nano("hf")).arg("-o").arg(&foreign), 2, &["not an output of tvlmc: -o chooses"]);
    assert_eq!(names(dir.path()), ["foreign", "out"]);
}

/// What `--emit staticlib` has written is ours, too.
#[test]
fn a_library_is_replaced() {
    let dir = folder();
    let out = dir.path().join("out");
    std::fs::create_dir_all(out.join("include")).expect("created");
    for file in ["manifest.json", "include/tvlm.h"] {
        std::fs::write(out.join(file), "").expect("written");
    }
    succeed(compile(&nano("hf")).arg("--force").arg("-o").arg(&out));
    assert!(out.join("Cargo.toml").exists() && !out.join("include").exists());
}

#[test]
fn check_finds_every_difference() {
    let dir = folder();
    let out = dir.path().join("out");
    succeed(compile(&nano("hf")).arg("-o").arg(&out));
    let check = || finish(compile(&nano("hf")).arg("--check").arg(&out));
    assert_eq!(check().code, 0, "{}", check().stdout);
    // What cargo makes does not count.
    std::fs::create_dir(out.join("target")).expect("created");
    std::fs::write(out.join("target/x"), "").expect("written");
    assert_eq!(check().code, 0);
    let lib = out.join("src/lib.rs");
    let text = std::fs::read_to_string(&lib).expect("read");
    std::fs::write(&lib, text.replace("mod plan;", "mod plan ;")).expect("written");
    std::fs::write(out.join("src/new.rs"), "").expect("written");
    std::fs::remove_file(out.join("README.md")).expect("removed");
    let done = check();
    assert_eq!(done.code, 1);
    for line in ["-mod plan ;", "+mod plan;", "src/new.rs: would not be emitted", "README.md: is missing"] {
        assert!(done.stdout.lines().any(|l| l == line), "{}\n  should have: {line}", done.stdout);
    }
    assert!(done.stderr.contains("3 files"), "{}", done.stderr);
    let weights = out.join("weights.tvlm");
    let mut bytes = std::fs::read(&weights).expect("read");
    bytes[40] ^= 1;
    std::fs::write(&weights, bytes).expect("written");
    assert!(check().stdout.contains("weights.tvlm: pairing digest"));
}

#[test]
fn a_killed_compile_leaves_nothing_that_looks_complete() {
    let dir = folder();
    let whole = dir.path().join("whole");
    let begin = Instant::now();
    succeed(compile(&nano("hf")).arg("-o").arg(&whole));
    let took = begin.elapsed();
    let out = dir.path().join("out");
    const KILLS: u32 = 12;
    let mut n_finished = 0;
    for i in 0..KILLS {
        let mut child = compile(&nano("hf")).arg("--force").arg("-o").arg(&out).spawn().expect("started");
        // More often towards the end, where files are written.
        std::thread::sleep(took.mul_f64(0.3 + 0.8 * f64::from(i) / f64::from(KILLS)));
        child.kill().expect("killed");
        n_finished += u32::from(child.wait().expect("ended").success());
        if out.exists() {
            assert_same_tree(&whole, &out);
        }
    }
    println!("{n_finished} of {KILLS} had finished before they were killed");
    // The next run removes what was left.
    succeed(compile(&nano("hf")).arg("--force").arg("-o").arg(&out));
    assert_eq!(names(dir.path()), ["out", "whole"]);
    assert_same_tree(&whole, &out);
}

#[test]
fn ctrl_c_cleans_up() {
    let dir = folder();
    let begin = Instant::now();
    succeed(compile(&nano("hf")).arg("-o").arg(dir.path().join("whole")));
    let took = begin.elapsed();
    for part in [0.2, 0.5, 0.9] {
        let mut child = compile(&nano("hf")).arg("-o").arg(dir.path().join("out")).spawn().expect("started");
        std::thread::sleep(took.mul_f64(part));
        let id = rustix::process::Pid::from_child(&child);
        // A child that has ended is waited for below, so its id is still its own.
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signalled");
        let status = child.wait().expect("ended");
        let names = names(dir.path());
        match status.code() {
            Some(0) => assert_eq!(names, ["out", "whole"]),
            // Before the handler stood, the signal's default action.
            Some(130) | None => assert!(names == ["whole"] || names == ["out", "whole"], "{names:?}"),
            other => panic!("exit code {other:?}"),
        }
        let _ = std::fs::remove_dir_all(dir.path().join("out"));
    }
}

#[test]
fn two_compiles_into_one_folder() {
    let dir = folder();
    let whole = dir.path().join("whole");
    succeed(compile(&nano("hf")).arg("-o").arg(&whole));
    for force in [false, true] {
        let out = dir.path().join("out");
        let children: Vec<_> = (0..3)
            .map(|_| {
                let mut command = compile(&nano("hf"));
                command.arg("-o").arg(&out).args(force.then_some("--force"));
                command.stderr(std::process::Stdio::null()).spawn().expect("started")
            })
            .collect();
        let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().expect("ended").code()).collect();
        let n_done = codes.iter().filter(|code| **code == Some(0)).count();
        // Without --force one wins; with it the last one does.
        assert_eq!(n_done, if force { 3 } else { 1 }, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 2))), "{codes:?}");
        assert_same_tree(&whole, &out);
        assert_eq!(names(dir.path()), ["out", "whole"]);
        std::fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn a_folder_that_cannot_be_written_to() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).expect("changed");
    let mut command = compile(&nano("hf"));
    command.arg("-o").arg(dir.path().join("out"));
    if rustix::process::geteuid().is_root() {
        // Permissions do not concern root: as somebody else, then.
        command.uid(65534).gid(65534);
        let reachable = tvlmc().arg("inspect").arg(nano("hf")).uid(65534).gid(65534).output();
        if !reachable.is_ok_and(|output| output.status.success()) {
            return skipped("read-only folder", "running as root, and nobody else can run the binary");
        }
    }
    fail(&mut command, 4, &["cannot create the output folder", "out", "Permission denied"]);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_full_disk() {
    let dir = folder();
    let out = dir.path().join("out");
    // The shell's limit on the size of files, in blocks of 512 bytes.
    let floats = ["--quant", "f32"];
    let mut limited = in_shell("ulimit -f 2000; exec \"$@\"", compile(&nano("hf")).args(floats).arg("-o").arg(&out));
    fail(&mut limited, 4, &["out", "weights.tvlm"]);
    assert_eq!(names(dir.path()), [""; 0]);

    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).expect("created");
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skipped("full disk", "a small file system cannot be mounted here");
    }
    let done = finish(compile(&nano("hf")).args(floats).arg("-o").arg(disk.join("out")));
    let left = names(&disk);
    let _ = std::process::Command::new("umount").arg(&disk).output();
    assert_eq!(done.code, 4, "{}", done.stderr);
    assert!(done.stderr.contains("bytes") && done.stderr.contains("free some"), "{}", done.stderr);
    assert_eq!(left, [""; 0]);
}

#[test]
fn nothing_takes_long() {
    let dir = folder();
    let begin = Instant::now();
    succeed(compile(&nano("hf")).arg("-o").arg(dir.path().join("out")));
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?} for a model of 1.3 MB", begin.elapsed());
}
