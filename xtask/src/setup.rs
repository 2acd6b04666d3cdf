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

/// The environment of the reference implementation; a script, because it is Python's business.
fn python() -> Result<(), String> {
    // As in setup.sh, which says so when there is none.
    const USABLE: &str = "import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))";
    let chosen = std::env::var("PYTHON").is_ok_and(|python| !python.is_empty());
    let usable = || {
        ["python3.11", "python3", "python3.12", "python3.13"].iter().any(|p| shell::ask(p, &["-c", USABLE]).is_some())
    };
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
