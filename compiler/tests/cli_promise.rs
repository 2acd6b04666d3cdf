//! What compiling a model of real size costs: memory, and time beside that of reading and writing the bytes once.

mod cli_support;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli_support::compile;

/// Most memory of the compiler.
const MOST_BYTES: u64 = 1_500_000_000;

/// Beside 1.3 times reading the checkpoint and writing the weight file.
const BESIDE: Duration = Duration::from_secs(20);

/// The checkpoint of 0.5B parameters that `xtask/oracle/draw.sh` draws.
fn checkpoint() -> Option<PathBuf> {
    let entries = std::fs::read_dir(machine::checkpoints()).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"0.5b-")))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Reads all files and writes as many bytes as `weights` has.
fn once(model: &Path, weights: u64, to: &Path) -> Duration {
    let begin = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    for entry in std::fs::read_dir(model).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let mut file = std::fs::File::open(path).expect("a file");
            while file.read(&mut buffer).expect("read") > 0 {}
        }
    }
    let mut file = std::fs::File::create(to).expect("a file");
    for _ in 0..weights >> 20 {
        file.write_all(&buffer).expect("written");
    }
    file.sync_all().expect("flushed");
    begin.elapsed()
}

#[test]
#[ignore = "writes 5 GB; cargo xtask full"]
#[expect(clippy::zombie_processes, reason = "waited for by wait4, which tells what it used")]
fn a_real_size_takes_little_memory_and_time() {
    let Some(model) = checkpoint() else {
        println!("skipped: memory and time of compiling, no checkpoint of 0.5B parameters was drawn");
        return;
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let out = dir.path().join("out");
    let begin = Instant::now();
    let child = compile(&model).arg("-o").arg(&out).stderr(Stdio::null()).spawn().expect("started");
    let (mut status, id) = (0, child.id() as libc::pid_t);
    // SAFETY: all zeros are a valid structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables that outlive the call; the child is ours and not waited for elsewhere.
    assert_eq!(unsafe { libc::wait4(id, &mut status, 0, &mut usage) }, id);
    let took = begin.elapsed();
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status}");
    let peak = usage.ru_maxrss as u64 * 1024;
    let weights = std::fs::metadata(out.join("weights.tvlm")).expect("weights").len();
    let once = once(&model, weights, &dir.path().join("copy"));
    let limit = once.mul_f64(1.3) + BESIDE;
    println!("{}: {took:.1?} of {limit:.1?}, {} MB at most", model.display(), peak / 1_000_000);
    assert!(peak < MOST_BYTES, "{peak} bytes");
    assert!(took < limit, "{took:?}, reading and writing once takes {once:?}");
}
