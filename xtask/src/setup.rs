//! `cargo xtask setup`: installs what the tests use and this machine lacks. Running it again does nothing.
//!
//! The tests themselves need only Rust: what cannot be installed is said here and skipped there.

use crate::{shell, web};

/// Oldest Rust the workspace builds with.
const RUST: (u32, u32) = (1, 90);

/// Targets beside the host's: printed kernels are compiled for them, and the runtime of web pages is built anew.
const TARGETS: [&str; 10] = [
    "aarch64-unknown-linux-gnu",
    "aarch64-linux-android",
    "x86_64-linux-android",
    "aarch64-apple-ios",
    "aarch64-apple-ios-sim",
    "x86_64-apple-ios",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "wasm32-wasip1",
    "wasm32-unknown-unknown",
];

/// Sets up what `test` uses, or `full`.
pub fn run(full: bool) -> Result<bool, String> {
    let good = rust();
    component("rustfmt", &["fmt", "--version"]);
    component("clippy", &["clippy", "--version"]);
    targets();
    web::setup()?;
    let there = |program: &'static str| move || shell::ask(program, &["--version"]).is_some();
    package("chromium", &["chromium"], there("chromium"));
    package("qemu-aarch64", &["qemu-user"], there("qemu-aarch64"));
    package(
        "aarch64-linux-gnu-gcc",
        &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        there("aarch64-linux-gnu-gcc"),
    );
    if full {
        miri();
        emulator()?;
        python()?;
        coremltools()?;
    }
    println!("next: cargo xtask {}", if full { "full" } else { "test" });
    Ok(good)
}

fn rust() -> bool {
    let Some(version) = shell::ask("rustc", &["--version"]) else {
        println!("rust: `rustc` is not on the path; see https://rustup.rs");
        return false;
    };
    let numbers: Vec<u32> = version.split([' ', '.']).filter_map(|w| w.parse().ok()).take(2).collect();
    let good = matches!(numbers[..], [major, minor] if (major, minor) >= RUST);
    let verdict = if good { "enough" } else { "too old: `rustup update stable`" };
    println!("rust: {} ({verdict}; {}.{} is needed)", version.trim(), RUST.0, RUST.1);
    good
}

/// Adds a component of the active toolchain if cargo cannot do its part. A missing one does not stop the tests.
fn component(name: &str, args: &[&str]) {
    if shell::ask("cargo", args).is_some() {
        println!("{name}: there");
    } else if has_rustup() && ran(&["component", "add", name]) {
        println!("{name}: added");
    } else {
        println!("{name}: missing and not installable here; its stage is skipped");
    }
}

fn targets() {
    let Some(installed) = shell::ask("rustup", &["target", "list", "--installed"]) else {
        println!("targets: no rustup here; kernels printed for other instruction sets are not compiled");
        return;
    };
    for target in TARGETS {
        if installed.lines().any(|line| line == target) {
            println!("{target}: there");
        } else if ran(&["target", "add", target]) {
            println!("{target}: added");
        } else {
            println!("{target}: not installable here; kernels printed for it are not compiled");
        }
    }
}

/// A Debian package for a program that is missing: only as root, only where apt is.
fn package(name: &str, packages: &[&str], there: impl Fn() -> bool) -> bool {
    if there() {
        println!("{name}: there");
        return true;
    }
    if shell::ask("id", &["-u"]).is_none_or(|id| id.trim() != "0") || shell::ask("apt-get", &["--version"]).is_none() {
        println!("{name}: missing; install {} (this is not root on Debian or Ubuntu)", packages.join(" "));
        return false;
    }
    let apt = |args: &[&str]| {
        shell::run(shell::command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive")) == Ok(true)
    };
    let install: Vec<&str> = ["install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect();
    // A fresh machine has no package lists, an old one stale ones.
    let good = (apt(&install) || (apt(&["update"]) && apt(&install))) && there();
    println!("{name}: {}", if good { "installed" } else { "apt-get could not install it" });
    good
}

fn miri() {
    const ADD: [&str; 7] = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];
    if shell::ask("cargo", &["+nightly", "miri", "--version"]).is_some() {
        println!("miri: there");
    } else if has_rustup() && ran(&ADD) {
        println!("miri: added");
    } else {
        println!("miri: missing; `rustup {}` adds it", ADD.join(" "));
    }
}

/// A processor with every level; a script, because what it installs are Debian's packages.
fn emulator() -> Result<(), String> {
    let good = shell::run(&mut shell::command("bash", &["xtask/emulator/setup.sh"]))?;
    if !good {
        println!("emulator: not installed; levels that this processor lacks are not run");
    }
    Ok(())
}

/// Whether a Python can make environments and has a version that is tried out, as in setup.sh.
const USABLE: &str = "import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))";

fn usable_python() -> Option<String> {
    let chosen = std::env::var("PYTHON").ok().filter(|python| !python.is_empty());
    let known = ["python3.11", "python3", "python3.12", "python3.13"].map(String::from);
    let mut candidates = chosen.into_iter().chain(known);
    candidates.find(|python| shell::ask(python, &["-c", USABLE]).is_some())
}

/// What reads Core ML models where there is no Core ML, in an environment of its own.
fn coremltools() -> Result<(), String> {
    const WANTED: &str = "coremltools==9.0";
    let folder = shell::cache()?.join("coreml-venv");
    let python = folder.join("bin/python").display().to_string();
    let there = || shell::ask(&python, &["-c", "import coremltools"]).is_some();
    if !there() {
        let Some(usable) = usable_python() else {
            println!(
                "coremltools: not installed, as there is no usable Python; Core ML models are read by our own code alone"
            );
            return Ok(());
        };
        let folder = folder.display().to_string();
        let _ = shell::run(&mut shell::command(&usable, &["-m", "venv", &folder]))?
            && shell::run(&mut shell::command(&python, &["-m", "pip", "install", "--quiet", WANTED]))?;
    }
    println!(
        "coremltools: {}",
        if there() { "there" } else { "not installed; Core ML models are read by our own code alone" }
    );
    Ok(())
}

/// The environment of the reference implementation; a script, because it is Python's business.
fn python() -> Result<(), String> {
    let chosen = std::env::var("PYTHON").is_ok_and(|python| !python.is_empty());
    let usable = || usable_python().is_some();
    if !chosen && !shell::cache()?.join("oracle-venv/bin/python").is_file() {
        // The second for systems whose own Python is older.
        let _ = package("python", &["python3-venv"], usable) || package("python", &["python3.11-venv"], usable);
    }
    let good = shell::run(&mut shell::command("bash", &["xtask/oracle/setup.sh"]))?;
    println!("reference implementation: {}", if good { "there" } else { "not installed; its stages are skipped" });
    Ok(())
}

fn has_rustup() -> bool {
    shell::ask("rustup", &["--version"]).is_some()
}

fn ran(args: &[&str]) -> bool {
    shell::run(&mut shell::command("rustup", args)) == Ok(true)
}
