//! The size of what an app takes in: the library of the 0.5B model for every processor and system, in int4, and the packages it comes in.
//!
//! Libraries for Apple's systems are linked as an app would link them, without what it does not use, since an archive of objects is
//! several times what is left of it. Neither Apple's SDK nor Android's NDK is here: what they add, a few stubs and the unwinder, is
//! not counted.

#[allow(dead_code, reason = "shared with other tests")]
mod cross;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use models::Recipe;
use tvlmc::assemble::{Assembled, Options, assemble_for};
use tvlmc::bundle::{About, Slice, android, apple};
use tvlmc::machine::{Machine, System};
use tvlmc::output::Staging;

/// Bytes of a library that are too many.
const MOST: u64 = 1_500_000;

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Why a library for this machine cannot be linked here.
fn lacking(machine: Machine) -> Option<String> {
    let triple = machine.triple();
    if !machine::has_target(triple) {
        return Some(format!("rustc has no standard library for it; `rustup target add {triple}` installs it"));
    }
    let is_cross = machine == Machine::Aarch64(System::Linux) && machine != Machine::HOST;
    (is_cross && !machine::has_program(cross::LINKER)).then(|| format!("no {}", cross::LINKER))
}

/// Builds the library as `tvlmc` does, and returns the file that cargo made: an archive for Apple's systems.
fn build(root: &Path, assembled: &Assembled) -> PathBuf {
    let machine = assembled.prepared.machine;
    let triple = machine.triple();
    for (path, text) in &assembled.package.files {
        let path = root.join(triple).join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
    }
    let stubs = root.join("stubs");
    fs::create_dir_all(&stubs).expect("made");
    for name in ["c", "dl", "log", "m", "unwind"] {
        fs::write(stubs.join(format!("lib{name}.a")), "!<arch>\n").expect("written");
    }
    let (kind, file) = match machine.system().expect("a system") {
        System::Linux | System::Android => ("cdylib", "libtvlm.so"),
        System::Ios | System::IosSimulator | System::MacOs => ("staticlib", "libtvlm.a"),
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--lib", "--release", "--offline", "--quiet", "--target", triple, "--crate-type", kind]);
    cargo.current_dir(root.join(triple).join("c")).env("CARGO_TARGET_DIR", root.join("target"));
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", cross::LINKER).env_remove("RUSTFLAGS");
    if machine.system() == Some(System::Android) {
        let place = format!("-Clink-arg=-L{}", stubs.display());
        cargo.args(["--", "-Clinker=rust-lld", "-Clinker-flavor=ld.lld", &place, "-Clink-arg=-zmax-page-size=16384"]);
        cargo.arg("-Clink-arg=-soname=libtvlm.so");
    }
    run(&mut cargo);
    root.join("target").join(triple).join("release").join(file)
}

/// Links an archive as an app that uses all of the interface does, stripped.
fn linked(archive: &Path, machine: Machine) -> PathBuf {
    let (system, least) = match machine.system().expect("a system") {
        System::MacOs => ("macos", "11.0"),
        System::IosSimulator => ("ios-simulator", "15.0"),
        System::Ios | System::Linux | System::Android => ("ios", "15.0"),
    };
    let processor = if matches!(machine, Machine::Aarch64(_)) { "arm64" } else { "x86_64" };
    let rustc = run(Command::new("rustc").args(["--print", "sysroot"]));
    let linker = format!("lib/rustlib/{}/bin/gcc-ld/ld64.lld", Machine::HOST.triple());
    let out = archive.with_file_name("libtvlm.dylib");
    run(Command::new(Path::new(rustc.trim()).join(linker))
        .args(["-dylib", "-dead_strip", "-S", "-x", "-arch", processor, "-platform_version", system, least, least])
        .args(["-undefined", "dynamic_lookup", "-exported_symbol", "_tvlm_*", "-force_load"])
        .arg(archive)
        .arg("-o")
        .arg(&out));
    out
}

fn bytes(path: &Path) -> u64 {
    if !path.is_dir() {
        return fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).len();
    }
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| bytes(&path)).sum()
}

#[test]
#[ignore = "the 0.5B model built for every target, many minutes; cargo xtask full"]
fn libraries_of_the_half_billion_model_are_small() {
    let Some(folder) = machine::drawn("0.5b-hf-bf16-s0") else { return };
    let mut machines = Vec::new();
    for machine in Machine::ALL.into_iter().filter(|machine| machine.has_std()) {
        match lacking(machine) {
            Some(why) => println!("skipped: the size of the library for {}: {why}", machine.triple()),
            None => machines.push(machine),
        }
    }
    let recipe = Recipe::named("int4").unwrap_or_else(|e| panic!("{e}"));
    let options = Options { name: Some("fastvlm"), recipe: Some(recipe), ..Options::default() };
    let all = assemble_for(&machines, &folder, &options);
    let all = all.unwrap_or_else(|e| panic!("{e}"));
    let root = tempfile::tempdir().expect("a folder");
    let (mut swift, mut maven, mut large) = (Vec::new(), Vec::new(), Vec::new());
    println!("| library | bytes |\n|---|---|");
    for assembled in &all {
        let machine = assembled.prepared.machine;
        let library = build(root.path(), assembled);
        let size = match machine.system() {
            Some(System::Ios | System::IosSimulator | System::MacOs) => {
                let size = bytes(&linked(&library, machine));
                println!("| {}, as linked into an app | {size} |", machine.triple());
                println!("| {}, libtvlm.a | {} |", machine.triple(), bytes(&library));
                swift.push((machine, library));
                size
            }
            _ => {
                let size = bytes(&library);
                println!("| {}, libtvlm.so | {size} |", machine.triple());
                if machine.system() == Some(System::Android) {
                    maven.push((machine, library));
                }
                size
            }
        };
        if size >= MOST {
            large.push(format!("{}: {size} bytes, at most {MOST} are wanted", machine.triple()));
        }
    }
    let first = &all[0];
    let about = About { name: "fastvlm", version: "1.0.0", manifest: "{}\n", licenses: &first.prepared.licenses };
    let none = |path: &Path| fs::write(path, "").map_err(|e| panic!("{}: {e}", path.display()));
    for (what, libraries) in [("swift", &swift), ("maven", &maven)] {
        if libraries.is_empty() || (what == "maven" && !machine::has_program("javac")) {
            println!("skipped: the size of the package ({what}): no library for it, or no javac");
            continue;
        }
        let slices: Vec<Slice<'_>> =
            libraries.iter().map(|(machine, library)| Slice { machine: *machine, library }).collect();
        let staging = Staging::begin(&root.path().join(what), false).unwrap_or_else(|e| panic!("{e}"));
        let written = match what {
            "swift" => apple::write(&staging, &about, &slices, &none, None),
            _ => android::write(&staging, &about, android::GROUP, &slices, &none),
        };
        written.unwrap_or_else(|e| panic!("{e}"));
        let out = staging.commit().unwrap_or_else(|e| panic!("{e}"));
        let part = match what {
            "swift" => "CTvlm.xcframework",
            _ => "maven/dev/tvlmc/fastvlm/1.0.0/fastvlm-1.0.0.aar",
        };
        println!("| {part} of {} libraries, without weights | {} |", slices.len(), bytes(&out.join(part)));
    }
    assert!(large.is_empty(), "{}", large.join("\n"));
}
