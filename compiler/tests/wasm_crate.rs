//! The crate for WebAssembly (`--emit crate`): compiled by rustc at both levels and run in Node, every step has the bits of
//! the interpreter, and so do those of integer weights at both levels.

#[allow(dead_code, reason = "shared with the tests of native packages")]
mod quantized_support;

use std::path::PathBuf;
use std::process::Command;

use models::Recipe;
use models::recipe::Maps;
use quantized_support::machine::{assert_formatted, has_node, has_target};
use quantized_support::{Built, Run, nano, write};
use tvlmc::assemble::Options;
use tvlmc::machine::Machine;
use tvlmc::package::WEIGHTS_NAME;

const TARGET: &str = Machine::WasmRust.triple();
const PROBE: &str = include_str!("wasm_crate_support/probe.rs");
const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wasm_crate_support/run.mjs");

/// The levels, best first, and how rustc is asked for them.
const LEVELS: [(&str, &str); 2] =
    [("wasm32-relaxed", "-Dwarnings -Ctarget-feature=+simd128,+relaxed-simd"), ("wasm32-simd128", "-Dwarnings")];

/// Whether rustc has the target and there is a Node.
fn missing() -> bool {
    let (node, target) = (has_node(), has_target(TARGET));
    if !node || !target {
        println!("skipped: crates for {TARGET}: no {}", if node { "such target of rustc" } else { "node" });
    }
    !node || !target
}

fn build(layout: &str, recipe: &str) -> Built {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let recipe = Some(Recipe { maps: Maps::F32, ..recipe });
    let options = Options { recipe, machine: Machine::WasmRust, ..Options::default() };
    write(&nano(layout), options, ("lib.rs", PROBE), "[lib]\ncrate-type = [\"cdylib\"]\n\n")
}

/// The probe at a level.
fn compiled(built: &Built, flags: &str) -> PathBuf {
    let folder = built.folder.path();
    let out = Command::new(env!("CARGO"))
        .args(["build", "--release", "--offline", "--quiet", "--target", TARGET])
        .current_dir(folder.join("probe"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", flags)
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    folder.join("target").join(TARGET).join("release/probe.wasm")
}

fn run(built: &Built, flags: &str) -> Run {
    let out = Command::new("node")
        .args(["--experimental-wasm-relaxed-simd", RUN])
        .arg(compiled(built, flags))
        .arg(built.folder.path().join("model").join(WEIGHTS_NAME))
        .current_dir(built.folder.path())
        .output()
        .expect("node was found");
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    let run = told.strip_prefix("run ").unwrap_or_else(|| panic!("{told}"));
    Run::parse(run)
}

/// Every step at both levels, against the interpreter; integers have one result.
fn check(layout: &str, recipe: &str) {
    if missing() {
        return;
    }
    let built = build(layout, recipe);
    let prepared = &built.assembled.prepared;
    let mut runs = Vec::new();
    for (level, (name, flags)) in LEVELS.into_iter().enumerate() {
        let run = run(&built, flags);
        assert_eq!((run.level.as_str(), run.threads), (name, 1));
        run.assert_same(&built.interpreted(prepared, level, &run), &format!("the interpreter at {name}"));
        runs.push(run);
    }
    if recipe != "f32" {
        runs[0].assert_same(&runs[1].steps, "the other level");
        assert_eq!(runs[0].tokens, runs[1].tokens);
    }
    let folder = built.folder.path().join("model");
    let files = built.assembled.package.files.keys().filter(|name| name.starts_with("src/"));
    assert_formatted(&folder, &files.map(|name| folder.join(name)).collect::<Vec<PathBuf>>());
}

#[test]
fn int4_has_the_interpreters_bits() {
    check("llava", "int4");
}

#[test]
fn int8_of_odd_sizes_has_the_interpreters_bits() {
    check("odd", "int8");
}

#[test]
fn simd128_of_floats_has_the_interpreters_bits() {
    check("hf", "f32");
}

/// Built for a processor, it says what is wrong.
#[test]
fn other_targets_are_refused() {
    let built = build("hf", "int8");
    let out = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet"])
        .current_dir(built.folder.path().join("model"))
        .env("CARGO_TARGET_DIR", built.folder.path().join("target"))
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && told.contains("this crate is built with --target wasm32-unknown-unknown"),
        "{told}"
    );
}
