//! The library for C of every target whose standard library is here: it compiles, an app sees no names of it but the interface's, and
//! it needs nothing of the system but its C library.
//!
//! The archives are built without optimizing, in seconds. `targets_support/SYSTEM.txt` lists what they may leave undefined: names of the C
//! library and the unwinder, reviewed.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol, SymbolScope};
use tvlmc::assemble::{Options, assemble};
use tvlmc::machine::{Machine, System};

/// How names begin that are of no crate's own: of Rust's unwinding, allocating and panicking, and what compilers call and compiler-builtins
/// has, as libraries of C compilers do.
const RUNTIME: [&str; 6] =
    ["rust_", "__rust_", "__rdl_", "__isOSVersionAtLeast", "__isPlatformVersionAtLeast", "__emutls_get_address"];

/// Builds the C interface of the nano model into an archive.
fn archive(root: &Path, machine: Machine) -> PathBuf {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano/hf");
    let triple = machine.triple();
    let options = Options { name: Some("model"), machine, ..Options::default() };
    let assembled = assemble(&nano, &options).unwrap_or_else(|e| panic!("{triple}: {e}"));
    for (path, text) in &assembled.package.files {
        let path = root.join(triple).join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
    }
    let built = Command::new(env!("CARGO"))
        .args(["rustc", "--lib", "--offline", "--quiet", "--target", triple, "--crate-type", "staticlib"])
        .current_dir(root.join(triple).join("c"))
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{triple}: {}", String::from_utf8_lossy(&built.stderr));
    root.join("target").join(triple).join("debug/libtvlm.a")
}

/// What an archive of objects has and lacks.
#[derive(Default)]
struct Names {
    /// Seen by whatever is linked with it.
    seen: BTreeSet<String>,
    /// Defined, also for the archive's own use.
    defined: BTreeSet<String>,
    /// Used.
    used: BTreeSet<String>,
}

impl Names {
    fn of(archive: &Path) -> Names {
        let bytes = fs::read(archive).unwrap_or_else(|e| panic!("{}: {e}", archive.display()));
        let file = ArchiveFile::parse(&*bytes).unwrap_or_else(|e| panic!("{}: {e}", archive.display()));
        let mut names = Names::default();
        for member in file.members() {
            let data = member.expect("a member").data(&*bytes).expect("its bytes");
            // Members for rustc itself are no objects.
            let Ok(object) = object::File::parse(data) else { continue };
            // What C calls `read` is `_read` in Apple's objects.
            let before = if object.format() == object::BinaryFormat::MachO { "_" } else { "" };
            for symbol in object.symbols() {
                let name = symbol.name().expect("UTF-8");
                let name = name.strip_prefix(before).unwrap_or(name).to_string();
                if symbol.is_undefined() && !name.is_empty() {
                    names.used.insert(name);
                } else if symbol.is_definition() && symbol.is_global() {
                    if symbol.scope() == SymbolScope::Dynamic {
                        names.seen.insert(name.clone());
                    }
                    names.defined.insert(name);
                }
            }
        }
        names
    }

    /// What is used and nowhere in the archive.
    fn lacking(&self) -> BTreeSet<&str> {
        self.used.difference(&self.defined).map(String::as_str).collect()
    }
}

/// Whether Rust made the name of a path: it has the crate and a hash in it.
fn is_mangled(name: &str) -> bool {
    name.starts_with("_R") || name.starts_with("_ZN") || name.starts_with("anon.") || name.starts_with("str.")
}

/// The reviewed list of a system.
fn reviewed(system: System) -> (PathBuf, BTreeSet<String>) {
    let name = match system {
        System::Linux => "linux",
        System::Android => "android",
        System::Ios | System::IosSimulator | System::MacOs => "apple",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/targets_support/{name}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    (path, text.lines().filter(|line| !line.starts_with('#')).map(str::to_string).collect())
}

#[test]
fn every_target_has_a_library_that_needs_the_c_library_alone() {
    let root = tempfile::tempdir().expect("a folder");
    let (mut built, mut seen, mut wrong) = (0, Vec::new(), Vec::new());
    let mut lacking_by_list: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for machine in Machine::ALL.into_iter().filter(|machine| machine.has_std()) {
        let triple = machine.triple();
        if !machine::has_target(triple) {
            println!(
                "skipped: the library for {triple}: rustc has no standard library for it; `rustup target add {triple}` installs it"
            );
            continue;
        }
        let names = Names::of(&archive(root.path(), machine));
        let interface = |name: &&String| name.starts_with("tvlm_") || name.starts_with("Java_dev_tvlmc_Native_");
        assert!(names.seen.iter().filter(interface).count() >= 10, "{triple} has no interface: {:?}", names.seen);
        let others = names.seen.iter().filter(|name| !interface(name) && !is_mangled(name));
        let others = others.filter(|name| !RUNTIME.iter().any(|known| name.starts_with(known)));
        seen.extend(others.map(|name| format!("{triple}: {name} is seen by programs")));
        let (path, list) = reviewed(machine.system().expect("a system"));
        let lacking = names.lacking();
        let file = path.file_name().unwrap_or_default().display();
        let unknown = lacking.iter().filter(|name| !list.contains(**name));
        wrong.extend(
            unknown.map(|name| format!("{triple}: {name} is undefined, and not of the C library as {file} has it")),
        );
        lacking_by_list.entry(path).or_default().extend(lacking.into_iter().map(str::to_string));
        built += 1;
    }
    assert!(seen.is_empty(), "{}", seen.join("\n"));
    assert!(built > 0, "rustc has no standard library for any target");
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        for (path, names) in &lacking_by_list {
            let lines = names.iter().map(|name| format!("{name}\n")).collect::<String>();
            fs::write(path, format!("# What libraries may leave to the system, by name in C.\n{lines}"))
                .expect("written");
        }
        return;
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf they are the C library's: INSTA_UPDATE=always cargo test -p tvlmc --test targets, then review the difference",
        wrong.join("\n")
    );
    println!("libraries for {built} targets");
}
