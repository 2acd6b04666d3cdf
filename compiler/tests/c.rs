//! The library for C (`--emit staticlib`): its example asks, bad input is a number and a message, nothing leaks, the header is C
//! and C++, its numbers and sizes are those of the code, and nothing but the interface is exported. The same for aarch64 by
//! emulation.

mod cli_support;
#[allow(dead_code, reason = "shared with the tests of packages")]
mod cross;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cli_support::{finish, root, succeed, tvlmc};
use runtime_c::{delegate, model, picture, session, status};
use tvlmc::machine::Machine;

const TARGET: &str = cli_support::TARGET;
const FLAGS: [&str; 6] = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The library for this machine, which several tests look at.
fn own_library() -> &'static Path {
    static OWN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = OWN.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = library(folder.path(), TARGET);
        (folder, path)
    });
    path
}

/// The library of the nano model for a target.
fn library(folder: &Path, target: &str) -> PathBuf {
    let out = folder.join(target);
    let mut command = tvlmc();
    command.arg("compile").arg(root().join("models/nano/hf")).args(["--target", target, "--emit", "staticlib", "-o"]);
    assert_eq!(succeed(command.arg(&out)), "");
    out
}

/// Compiles a program in C against the static library.
fn program(compiler: &str, library: &Path, source: &Path) -> PathBuf {
    let binary = library.join(source.file_stem().expect("a name"));
    let done = finish(
        Command::new(compiler)
            .args(FLAGS)
            .arg(source)
            .arg("-I")
            .arg(library.join("include"))
            .arg(library.join("lib/libtvlm.a"))
            .args(["-lpthread", "-ldl", "-lm", "-o"])
            .arg(&binary),
    );
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    binary
}

/// A picture in the form that the example reads.
fn picture(folder: &Path) -> PathBuf {
    let path = folder.join("picture.ppm");
    let mut bytes = b"P6 50 31 255\n".to_vec();
    bytes.extend((0..50 * 31 * 3u32).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8));
    std::fs::write(&path, bytes).expect("written");
    path
}

/// Libraries of every Linux.
const SYSTEM: [&str; 4] = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux-"];

/// What the dynamic section of a shared library has under a tag.
fn dynamic(library: &Path, tag: &str) -> Vec<String> {
    let told = succeed(Command::new("readelf").args(["--dynamic", "--wide"]).arg(library));
    let lines = told.lines().filter(|line| line.contains(&format!("({tag})")));
    let names = lines.filter_map(|line| line.split_once('[')?.1.strip_suffix(']'));
    names.map(str::to_string).collect()
}

fn faults() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c_support/faults.c")
}

fn sizes() -> String {
    let all = [
        size_of::<status::Failure>(),
        size_of::<model::OpenOptions>(),
        size_of::<model::Info>(),
        size_of::<session::Options>(),
        size_of::<picture::Pixels>(),
        size_of::<session::Outcome>(),
        size_of::<i32>(),
        size_of::<delegate::Delegate>(),
        size_of::<session::Info>(),
    ];
    all.iter().fold("sizes".to_string(), |text, size| format!("{text} {size}"))
}

#[test]
fn programs_in_c_ask_and_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = own_library();
    let (picture, weights) = (picture(folder.path()), library.join("weights.tvlm"));
    let example = program("cc", library, &library.join("example.c"));
    let told = succeed(Command::new(&example).arg(&weights).arg(&picture).arg("What is this?"));
    let asked = tvlmc()
        .arg("run")
        .arg(root().join("models/nano/hf"))
        .arg("--image")
        .arg(&picture)
        .args(["--prompt", "What is this?"])
        .output();
    assert_eq!(told, String::from_utf8(asked.expect("it runs").stdout).expect("UTF-8"));

    let faults = program("cc", library, &faults());
    let told = succeed(Command::new(&faults).arg(&weights).arg(&picture));
    assert!(told.starts_with(&sizes()) && told.ends_with("done\n"), "{told}");
    if finish(Command::new("sh").args(["-c", "command -v valgrind"])).code != 0 {
        println!("skipped: what leaks or is read amiss: no valgrind here");
        return;
    }
    let strict = [
        "-q",
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite",
    ];
    let watched = finish(Command::new("valgrind").args(strict).arg(&faults).arg(&weights).arg(&picture));
    assert_eq!((watched.code, watched.stderr.as_str()), (0, ""), "{}", watched.stdout);
}

#[test]
fn the_shared_library_exports_the_interface_alone() {
    let library = own_library();
    let header = std::fs::read_to_string(library.join("include/tvlm.h")).expect("a header");
    let mut declared: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("TVLM_API int32_t ").or(line.strip_prefix("TVLM_API const char *")))
        .filter_map(|line| line.split('(').next())
        .collect();
    declared.sort_unstable();
    let names = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(library.join("lib/libtvlm.so")));
    let mut exported: Vec<&str> = names.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    exported.sort_unstable();
    assert_eq!(exported, declared);
    assert_eq!(dynamic(&library.join("lib/libtvlm.so"), "SONAME"), ["libtvlm.so"]);
    let needed = dynamic(&library.join("lib/libtvlm.so"), "NEEDED");
    assert!(needed.iter().all(|name| SYSTEM.iter().any(|known| name.starts_with(known))), "{needed:?}");
    let shared = std::fs::metadata(library.join("lib/libtvlm.so")).expect("a library").len();
    assert!(shared < 1_500_000, "{shared} bytes");
    // The header stands alone, in C++ too.
    let header = library.join("include/tvlm.h");
    for language in [["-xc", "-std=c99"], ["-xc++", "-std=c++11"]] {
        let checked = finish(
            Command::new("cc")
                .args(language)
                .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
                .arg(&header),
        );
        // What compilers say of any header that is compiled by itself.
        let said: Vec<&str> =
            checked.stderr.lines().filter(|line| line.contains("error") && !line.contains("pragma once")).collect();
        assert_eq!((checked.code, said.len()), (0, 0), "{}", checked.stderr);
    }
}

#[test]
fn numbers_are_those_of_the_header() {
    let header = std::fs::read_to_string(root().join("runtime-min/c/include/tvlm.h")).expect("a header");
    let number = |name: &str| -> i32 {
        let name = format!("  {name} = ");
        let line = header.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name}"));
        line.split([',', ' ']).next().and_then(|n| n.parse().ok()).expect("a number")
    };
    for (i, code) in status::CODES.iter().enumerate() {
        assert_eq!(number(&format!("TVLM_ERROR_{}", code.replace('-', "_").to_uppercase())), i as i32 + 1);
    }
    for (code, expected) in status::LATER {
        assert_eq!(number(&format!("TVLM_ERROR_{}", code.replace('-', "_").to_uppercase())), expected);
    }
    assert_eq!((number("TVLM_ERROR_BUSY"), number("TVLM_ERROR_BUG")), (status::BUSY, status::BUG));
}

/// Every machine whose standard library is here has a static library, of its own kind of object files.
#[test]
#[ignore = "minutes; cargo xtask full"]
fn every_target_has_a_library() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut built = 0;
    for triple in Machine::ALL.into_iter().filter(|machine| machine.has_std()).map(Machine::triple) {
        if !machine::has_target(triple) {
            println!("skipped: the library for {triple}: rustc has no standard library for it");
            continue;
        }
        let bytes = std::fs::read(library(folder.path(), triple).join("lib/libtvlm.a")).expect("a library");
        assert!(bytes.starts_with(b"!<arch>\n"), "{triple}");
        let object: &[u8] = if triple.contains("apple") { &[0xcf, 0xfa, 0xed, 0xfe] } else { b"\x7fELF" };
        assert!(bytes.windows(4).any(|word| word == object), "{triple}");
        built += 1;
    }
    assert!(built > 0);
    println!("libraries for {built} targets");
}

#[test]
fn aarch64_does_the_same() {
    if cross::missing("the library for C on aarch64") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let library = library(folder.path(), cross::TRIPLE);
    let (picture, weights) = (picture(folder.path()), library.join("weights.tvlm"));
    assert_eq!(dynamic(&library.join("lib/libtvlm.so"), "SONAME"), ["libtvlm.so"]);
    let faults = program(cross::LINKER, &library, &faults());
    for processor in ["cortex-a53", "max"] {
        let told = succeed(cross::emulated(processor).arg(&faults).arg(&weights).arg(&picture));
        assert!(told.starts_with(&sizes()) && told.ends_with("done\n"), "{told}");
    }
}
