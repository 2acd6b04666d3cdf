//! Kernels modules in Node, against the kernel interpreter: after every step of every phase the whole arena has the same
//! bits, in every variant, in parts and with several threads. And the modules are valid and what they promise.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::path::{Path, PathBuf};
use std::process::Command;

use models::Recipe;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tvlmc::assemble::{Options, hex};
use tvlmc::lower::Phase;
use tvlmc::pipeline::{self, Prepared};
use tvlmc::simulate::Simulation;
use tvlmc::wasm::{self, Variant, Web};

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wasm_support/run.mjs");

fn nano(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout)
}

fn web(layout: &str, recipe: &str, sides: &[usize]) -> Web {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let options = Options { name: Some("model"), recipe: Some(recipe), ..Options::default() };
    wasm::assemble(&nano(layout), &options, sides).unwrap_or_else(|e| panic!("{e}"))
}

/// Whether this engine computes dot products in one instruction rightly, which Node 20's does not.
fn has_dots() -> bool {
    let version = Command::new("node").arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).trim().to_string();
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse::<u32>().ok());
    let right = major.is_some_and(|n| n >= 22);
    if !right {
        println!("skipped: modules with single dot products: node {version} computes them wrongly");
    }
    right
}

fn no_node() -> bool {
    let there = machine::has_node();
    if !there {
        println!("skipped: kernels modules in an engine: no node");
    }
    !there
}

/// Commands for Node, and the hash of the arena after each.
#[derive(Default)]
struct Script {
    commands: Vec<Json>,
    /// What was done, for messages.
    expected: Vec<(String, String)>,
}

impl Script {
    fn expect(&mut self, what: impl Into<String>, sim: &Simulation<'_>) {
        self.expected.push((what.into(), hash(sim)));
    }

    /// The arena as it is, from a file.
    fn load(&mut self, folder: &Path, sim: &Simulation<'_>) {
        let path = folder.join(format!("arena-{}", self.commands.len()));
        let bytes: Vec<u8> = sim.arena().iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::write(&path, bytes).expect("written");
        self.commands.push(json!({ "load": path }));
        self.expect("load", sim);
    }

    /// A phase, step by step in parts or as one run.
    fn phase(
        &mut self,
        sim: &mut Simulation<'_>,
        (number, name, phase): (usize, &str, &Phase),
        (start, rows): (usize, usize),
        stepwise: bool,
    ) {
        let mut hashes = Vec::new();
        sim.run(phase, (start, rows), 1, |step, sim| hashes.push((format!("{name} {}", step.name), hash(sim))))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        if stepwise {
            self.commands.push(json!({ "steps": [number, start, rows, phase.steps.len()] }));
            self.expected.extend(hashes);
        } else {
            self.commands.push(json!({ "run": [number, start, rows] }));
            self.expected.extend(hashes.pop());
        }
    }
}

fn hash(sim: &Simulation<'_>) -> String {
    let mut hash = Sha256::new();
    sim.arena().iter().for_each(|word| hash.update(word.to_le_bytes()));
    hex(&hash.finalize())
}

/// Pictures at each side, a prompt, two tokens, and what verifies them.
fn script(prepared: &Prepared, folder: &Path, level: usize, packed: &[u32], stepwise: bool) -> (Script, Vec<u32>) {
    let (program, description) = (&prepared.program, &prepared.description);
    let target = prepared.targets[level].as_ref();
    let mut sim = Simulation::new(program, &prepared.memory, level, target, packed);
    let phases = wasm::phases(prepared);
    let find = |name: &str| {
        let at = phases.iter().position(|(n, _)| n == name);
        at.map(|at| (at, phases[at].0.as_str(), phases[at].1))
    };
    let mut script = Script::default();
    for (number, (side, _, slot, _, phase)) in program.sides(description).into_iter().enumerate() {
        let pixels: Vec<f32> = (0..side * side * 3).map(|i| ((i * 7919 + i / 97 * 31) % 256) as f32).collect();
        sim.picture_at(slot, side, &pixels);
        script.load(folder, &sim);
        script.phase(&mut sim, (number, "vision", phase), (0, 0), stepwise);
    }
    // The picture of the model's own side is the last one.
    let (tokens, hidden) = (description.vision.tokens(), description.text.hidden);
    let pitch = kernels::library::pitch(hidden);
    for row in 0..tokens {
        let values = sim.get(program.io.image_rows, row * pitch, hidden);
        sim.set(program.io.rows, row * pitch, &values);
    }
    script.load(folder, &sim);
    for (id, row) in [(17, tokens), (5, tokens + 1)] {
        sim.embed(id, row, pitch).expect("a row");
        script.commands.push(json!({ "embed": [id, row] }));
        script.expect(format!("embed {id}"), &sim);
    }
    let n = tokens + 2;
    script.phase(&mut sim, find("prefill").expect("a phase"), (0, n), stepwise);
    for i in 0..2 {
        let token = sim.get(program.io.token, 0, 1)[0].to_bits();
        sim.embed(token, 0, pitch).expect("a row");
        script.commands.push(json!({ "embed": [token, 0] }));
        script.expect(format!("embed {token}"), &sim);
        script.phase(&mut sim, find("decode").expect("a phase"), (n + i, 1), stepwise);
        if let Some(logits) = find("logits") {
            script.phase(&mut sim, logits, (n + i, 1), stepwise);
        }
    }
    let vocab = description.text.vocab;
    let logits = sim.get(program.io.logits, 0, vocab).into_iter().map(f32::to_bits).collect();
    if let Some(verify) = find("verify") {
        script.phase(&mut sim, verify, (n, program.verify_rows), stepwise);
    }
    (script, logits)
}

/// Runs a script on a variant with some threads.
fn run(web: &Web, folder: &Path, variant: Variant, threads: usize, script: &Script) {
    let (_, module) = web.modules.iter().find(|(v, _)| *v == variant).expect("a variant");
    let path = |name: &str| folder.join(name);
    std::fs::write(path("kernels.wasm"), module).expect("written");
    let plan = json!({
        "module": path("kernels.wasm"), "weights": path("weights"), "shared": variant.shared, "threads": threads,
        "arena": web.prepared.memory.total, "scratch": web.prepared.program.scratch_bytes, "commands": script.commands,
    });
    std::fs::write(path("plan.json"), plan.to_string()).expect("written");
    let out = Command::new("node")
        .args(["--experimental-wasm-relaxed-simd", RUN])
        .arg(path("plan.json"))
        .output()
        .expect("node was found above");
    let told = String::from_utf8_lossy(&out.stdout);
    let who = format!("{} with {threads} threads", variant.name);
    for ((what, want), found) in script.expected.iter().zip(told.lines()) {
        assert_eq!(found, want, "{who}: after {what} the arena is another");
    }
    assert!(out.status.success(), "{who}: {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(told.lines().count(), script.expected.len(), "{who}");
}

/// Everything a checkpoint is tried with.
fn check(layout: &str, recipe: &str, sides: &[usize]) {
    let web = web(layout, recipe, sides);
    for (variant, bytes) in &web.modules {
        valid(*variant, bytes);
        println!("{layout} as {recipe}: {} bytes of kernels-{}", bytes.len(), variant.name);
    }
    if no_node() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let packed = web.prepared.packed(&web.checkpoint).expect("weights");
    let bytes: Vec<u8> = packed.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(folder.path().join("weights"), bytes).expect("written");
    let (mut logits, dots) = (Vec::new(), has_dots());
    for level in 0..web.prepared.targets.len() {
        let runs = |v: &Variant| v.index(&web.prepared) == level && (dots || !v.name.ends_with("-dot"));
        let variants = || Variant::of(&web.prepared).into_iter().filter(runs);
        let (steps, made) = script(&web.prepared, folder.path(), level, &packed, true);
        for variant in variants() {
            run(&web, folder.path(), variant, 1, &steps);
            run(&web, folder.path(), variant, 3, &steps);
        }
        let (whole, _) = script(&web.prepared, folder.path(), level, &packed, false);
        for variant in variants() {
            for threads in if variant.shared { &[1, 2, 4][..] } else { &[1] } {
                run(&web, folder.path(), variant, *threads, &whole);
            }
        }
        logits.push(made);
    }
    if recipe != "f32" {
        assert!(logits.iter().all(|each| *each == logits[0]), "{layout} as {recipe}: levels differ");
        assert_eq!(logits[0], on_x86(&web, recipe, sides, folder.path()), "{layout} as {recipe}: x86-64 differs");
    }
}

/// The logits of the same by the interpreter at a level of x86-64.
fn on_x86(web: &Web, recipe: &str, sides: &[usize], folder: &Path) -> Vec<u32> {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let sides = pipeline::Sides::Below(sides);
    let options = pipeline::Options { recipe: Some(&recipe), sides, ..pipeline::Options::default() };
    let prepared = pipeline::prepare(&web.checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
    let packed = prepared.packed(&web.checkpoint).expect("weights");
    script(&prepared, folder, 0, &packed, false).1
}

/// The module is valid with the proposals of its variant and no others, and exports what it should.
fn valid(variant: Variant, bytes: &[u8]) {
    use wasmparser::{Parser, Payload, Validator, WasmFeatures};
    let mut features = WasmFeatures::WASM2 | WasmFeatures::SIMD;
    features.set(WasmFeatures::RELAXED_SIMD, variant.name != "simd128");
    features.set(WasmFeatures::THREADS, variant.shared);
    let checked = Validator::new_with_features(features).validate_all(bytes);
    checked.unwrap_or_else(|e| panic!("{}: {e}", variant.name));
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::ExportSection(section) = payload.expect("valid") {
            exports.extend(section.into_iter().map(|export| export.expect("valid").name.to_string()));
        }
    }
    let all = ["step", "units", "embed", "run", "work", "begin", "stop"];
    assert_eq!(exports, all[..if variant.shared { 7 } else { 4 }], "{}", variant.name);
}

#[test]
fn floats_have_the_interpreters_bits() {
    check("hf", "f32", &[]);
}

#[test]
fn int8_has_one_result() {
    check("hf", "int8", &[]);
}

#[test]
fn int4_has_one_result_at_every_side() {
    check("llava", "int4", &[96]);
}

#[test]
fn odd_sizes_have_one_result() {
    check("odd", "int4", &[]);
}

/// A side more costs code and no weights.
#[test]
fn sides_share_their_weights() {
    let (one, two) = (web("hf", "int4", &[]), web("hf", "int4", &[96]));
    let sides = |web: &Web| web.prepared.program.sides(&web.prepared.description).len();
    assert_eq!((sides(&one), sides(&two)), (1, 2));
    let words = |web: &Web| web.prepared.program.packs.total();
    assert!(words(&two) <= words(&one), "{} words of weights, {} with a second side", words(&one), words(&two));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (a, b) = (web("hf", "int8", &[96]), web("hf", "int8", &[96]));
    assert_eq!(a.digest, b.digest);
    assert!(a.modules == b.modules);
}
