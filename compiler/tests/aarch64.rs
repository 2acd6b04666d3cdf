//! The crate for aarch64, run on emulated processors: every step of a picture, a prompt and an answer has the bits of the
//! package for x86-64 where weights are integers, and of the interpreter where they are floats. Processors choose their
//! level, and one that lacks it refuses it by name.

#[allow(dead_code, reason = "shared with the tests of native packages")]
mod quantized_support;

use std::path::Path;

use models::Recipe;
use quantized_support::machine::drawn;
use quantized_support::{Built, Question, Run, build_with, cross, nano, tiny};
use tvlmc::assemble::Options;
use tvlmc::machine::{Machine, System};

/// Processors, and the best level of each.
const PROCESSORS: [(&str, &str); 3] =
    [("max", "aarch64-i8mm"), ("neoverse-n1", "aarch64-dotprod"), ("cortex-a53", "aarch64-neon")];

const QUESTION: Question = Question { prompt: "What is this?", picture: (50, 31), tokens: 5 };

fn build(checkpoint: &Path, recipe: &str, machine: Machine) -> Built {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    build_with(checkpoint, Options { recipe: Some(recipe), machine, ..Options::default() })
}

/// Runs a level with each number of threads.
fn runs(built: &Built, processor: &str, level: &str, threads: &[usize]) -> Vec<Run> {
    let pairs: Vec<String> = threads.iter().map(|n| format!("{level}:{n}")).collect();
    built.probe_on(processor, &QUESTION, &pairs).split("run ").skip(1).map(Run::parse).collect()
}

/// Every processor at its best level, and the best one at the levels below.
fn integers(checkpoint: &Path, recipe: &str, threads: &[usize]) {
    let best = PROCESSORS.map(|(processor, level)| (processor, level, threads));
    let forced = ["aarch64-dotprod", "aarch64-neon"].map(|level| ("max", level, &[1][..]));
    compare(checkpoint, recipe, &[&best[..], &forced].concat());
}

/// Each processor with each level and number of threads beside this machine's lowest level with one.
fn compare(checkpoint: &Path, recipe: &str, all: &[(&str, &str, &[usize])]) {
    if cross::missing("packages for aarch64") {
        return;
    }
    let host = build(checkpoint, recipe, Machine::X86_64(System::Linux));
    let told = host.probe(&QUESTION, &["x86-64-v3:1".to_string()]);
    let want = Run::parse(told.strip_prefix("run ").expect("a run"));
    let arm = build(checkpoint, recipe, Machine::Aarch64(System::Linux));
    let mut compared = 0;
    for (processor, level, threads) in all {
        for run in runs(&arm, processor, level, threads) {
            run.assert_same(&want.steps, &format!("x86-64-v3 ({processor}, {level})"));
            assert_eq!((&run.tokens, &run.prompt), (&want.tokens, &want.prompt));
            compared += 1;
        }
    }
    assert_eq!(compared, all.iter().map(|(_, _, threads)| threads.len()).sum::<usize>());
}

#[test]
fn int8_of_hf_has_the_bits_of_x86_64() {
    integers(&nano("hf"), "int8", &[1, 2]);
}

#[test]
fn int4_of_odd_sizes_has_the_bits_of_x86_64() {
    integers(&nano("odd"), "int4", &[1, 3]);
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn demo_has_the_bits_of_x86_64() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    integers(&demo, "int8", &[1]);
    integers(&demo, "int4", &[1, 2]);
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn tiny_has_the_bits_of_x86_64() {
    if let Some(tiny) = tiny() {
        integers(&tiny, "int4", &[1]);
    }
}

/// A picture of 1024 x 1024 pixels and an answer, each step of them.
#[test]
#[ignore = "the 0.5B model under QEMU, many minutes; cargo xtask full"]
fn half_billion_has_the_bits_of_x86_64() {
    if let Some(half) = drawn("0.5b-hf-bf16-s0") {
        compare(&half, "int4", &[("max", "aarch64-i8mm", &[2])]);
    }
}

#[test]
fn floats_have_the_bits_of_the_interpreter() {
    if cross::missing("packages for aarch64") {
        return;
    }
    let arm = build(&nano("llava"), "f32", Machine::Aarch64(System::Linux));
    let all = runs(&arm, "cortex-a53", "aarch64-neon", &[1, 2]);
    assert_eq!(all.len(), 2);
    for run in &all {
        run.assert_same(&arm.interpreted(&arm.assembled.prepared, 0, &all[0]), "the interpreter");
    }
}
