//! `cargo xtask setup`: installs what the tests use and this machine lacks. Running it again does nothing.
//!
//! The tests themselves need only Rust: what cannot be installed is said here and skipped there.

use crate::shell;

/// Oldest Rust the workspace builds with.
const RUST: (u32, u32) = (1, 90);

/// Targets whose printed kernels are compiled, beside the host's.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-gnu", "wasm32-wasip1"];

/// Sets up what `test` uses, or `full`.
pub fn run(full: bool) -> Result<bool, String> {
    let good = rust();
    component("rustfmt", &["fmt", "--version"]);
    component("clippy", &["clippy", "--version"]);
    targets();
    if full {
        packages(&[("qemu-x86_64", "qemu-user")]);
        miri();
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

/// Debian packages, by the program each brings: only as root, only where apt is.
fn packages(wanted: &[(&str, &str)]) {
    for (program, package) in wanted {
        if shell::ask(program, &["--version"]).is_some() {
            println!("{program}: there");
        } else if shell::ask("id", &["-u"]).is_some_and(|id| id.trim() == "0")
            && shell::ask("apt-get", &["--version"]).is_some()
        {
            let good =
                shell::run(&mut shell::command("apt-get", &["install", "-y", "--no-install-recommends", package]));
            println!(
                "{program}: {}",
                if good == Ok(true) { "installed" } else { "apt-get could not install it; its stage is skipped" }
            );
        } else {
            println!("{program}: missing; install the package {package} (this is not root on Debian)");
        }
    }
}

fn miri() {
    let there = |args: &[&str]| shell::ask("cargo", args).is_some();
    if there(&["+nightly", "miri", "--version"]) {
        println!("miri: there");
    } else if has_rustup() && ran(&["component", "add", "--toolchain", "nightly", "miri", "rust-src"]) {
        println!("miri: added");
    } else {
        println!("miri: missing; `rustup toolchain install nightly --component miri,rust-src` adds it");
    }
}

/// The environment of the reference implementation; a script, because it is Python's business.
fn python() -> Result<(), String> {
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
