//! Native packages for several sides of pictures: each has the bits of a package for that side alone, over the same
//! weights, and what the text promises holds.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use machine::{assert_formatted, emulator};
use models::Recipe;
use serde_json::Value as Json;
use tvlmc::assemble::{Assembled, Options, assemble};
use tvlmc::frontend::{Checkpoint, OpenOptions};
use tvlmc::machine::Machine;
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;
use tvlmc::pipeline::{self, Prepared, Sides, prepare};
use tvlmc::simulate::Simulation;

/// The side of the nano checkpoints is the last one.
const ALL: [usize; 3] = [64, 128, 192];

fn nano(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout)
}

fn assembled(layout: &str, recipe: &str, sides: Option<&[usize]>, machine: Machine) -> Assembled {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let sides = sides.map(<[usize]>::to_vec);
    let options = Options { name: Some("model"), recipe: Some(recipe), sides, machine, ..Options::default() };
    assemble(&nano(layout), &options).unwrap_or_else(|e| panic!("{e}"))
}

/// A package and its program.
struct Built {
    assembled: Assembled,
    folder: tempfile::TempDir,
}

/// What one run of the program made: pixels, and the bits of each step by phase and name.
struct Dumped {
    pixels: Vec<u8>,
    steps: BTreeMap<(String, String), Vec<u32>>,
}

impl Built {
    fn new(layout: &str, recipe: &str) -> Built {
        let assembled = assembled(layout, recipe, Some(&ALL), Machine::HOST);
        let folder = tempfile::tempdir().expect("a folder");
        let staging = Staging::begin(&folder.path().join("model"), false).unwrap_or_else(|e| panic!("{e}"));
        assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
        staging.commit().unwrap_or_else(|e| panic!("{e}"));
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--offline", "--locked"])
            .current_dir(folder.path().join("model"))
            .env("CARGO_TARGET_DIR", folder.path().join("target"))
            .env("RUSTFLAGS", "-Dwarnings")
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Built { assembled, folder }
    }

    /// A call of the program with one picture; by the emulator where there is one and this processor lacks the level.
    fn command(&self, emulated: bool) -> Command {
        let program = self.folder.path().join("target/release/model");
        let mut command = match emulator().filter(|_| emulated) {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let (w, h) = (150, 93);
        let rgb: Vec<u8> = (0..w * h * 3).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8).collect();
        let picture = self.folder.path().join("picture.rgb");
        std::fs::write(&picture, rgb).expect("written");
        command.arg("--weights").arg(self.folder.path().join("model").join(WEIGHTS_NAME));
        command.args(["--prompt", "What is this?", "--rgb"]).arg(format!("{w}x{h}:{}", picture.display()));
        command
    }

    /// What every step makes; nothing where neither this processor nor an emulator has the level.
    fn dump(&self, side: Option<usize>, level: &str, threads: usize) -> Option<Dumped> {
        let out = self.folder.path().join(format!("dump-{side:?}-{level}-{threads}"));
        let ask = |emulated| {
            let mut command = self.command(emulated);
            if let Some(side) = side {
                command.arg("--side").arg(side.to_string());
            }
            command.args(["--level", level, "--threads", &threads.to_string(), "--dump"]).arg(&out);
            command.output().expect("the program runs")
        };
        let mut ran = ask(false);
        if ran.status.code() == Some(4) {
            if emulator().is_none() {
                println!("skipped: level {level}, which this processor lacks (TVLMC_EMULATOR unset)");
                return None;
            }
            ran = ask(true);
        }
        assert!(ran.status.success(), "{level}: {}", String::from_utf8_lossy(&ran.stderr));
        let index = std::fs::read(out.join("index.json")).expect("an index");
        let index: Json = serde_json::from_slice(&index).expect("JSON");
        let text = |file: &Json, key: &str| file[key].as_str().unwrap_or_default().to_string();
        let mut steps = BTreeMap::new();
        for file in index["files"].as_array().expect("a list").iter().filter(|file| file["phase"] != "input") {
            let bytes = std::fs::read(out.join(text(file, "file"))).expect("a file of the index");
            let bits = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            steps.insert((text(file, "phase"), text(file, "name")), bits);
        }
        Some(Dumped { pixels: std::fs::read(out.join("pixels.u8")).expect("pixels"), steps })
    }
}

/// The model lowered for one side alone.
fn alone(built: &Built, side: usize) -> Prepared {
    let recipe = Some(&built.assembled.prepared.recipe);
    let options = pipeline::Options { recipe, sides: Sides::These(&[side]), ..pipeline::Options::default() };
    prepare(&built.assembled.checkpoint, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// The bits of every step of the tower, by the interpreter.
fn interpreted(prepared: &Prepared, checkpoint: &Checkpoint, level: usize, pixels: &[u8]) -> Vec<(String, Vec<u32>)> {
    let packed = prepared.packed(checkpoint).expect("weights");
    let target = prepared.targets[level].as_ref();
    let mut sim = Simulation::new(&prepared.program, &prepared.memory, level, target, &packed);
    let pixels: Vec<f32> = pixels.iter().map(|&b| f32::from(b)).collect();
    sim.picture(prepared.description.vision.side, &pixels);
    let mut steps = Vec::new();
    let mut keep = |step: &tvlmc::lower::Step, sim: &Simulation<'_>| {
        let bits = sim.result(&step.result, 1).into_iter().map(f32::to_bits).collect();
        steps.push((step.name.clone(), bits));
    };
    sim.run(&prepared.program.vision, (0, 0), 1, &mut keep).unwrap_or_else(|e| panic!("{e}"));
    steps
}

fn check(layout: &str, recipe: &str) {
    let built = Built::new(layout, recipe);
    let (prepared, checkpoint) = (&built.assembled.prepared, &built.assembled.checkpoint);
    let alone: Vec<Prepared> = ALL.iter().map(|side| alone(&built, *side)).collect();
    let mut compared = 0;
    for (level, target) in prepared.targets.iter().enumerate() {
        let name = prepared.machine.level_name(target.level());
        for (side, alone) in ALL.into_iter().zip(&alone) {
            let Some(seen) = built.dump(Some(side), &name, 1) else { continue };
            assert_eq!(seen.pixels.len(), side * side * 3, "a square of that side");
            let many = built.dump(Some(side), &name, 3).expect("the level was there");
            assert!(seen.steps == many.steps, "{name} at {side}: 3 threads give other bits");
            let steps = interpreted(alone, checkpoint, level, &seen.pixels);
            let found = seen.steps.keys().filter(|(phase, _)| phase == "vision").count();
            assert_eq!(steps.len(), found, "{name} at {side}: steps");
            for (step, bits) in steps {
                let theirs = &seen.steps[&("vision".to_string(), step.clone())];
                assert!(*theirs == bits, "{name} at {side}: {step} has other bits than alone");
            }
            compared += 1;
        }
        let Some(largest) = built.dump(None, &name, 1) else { continue };
        assert_eq!(largest.pixels.len(), 192 * 192 * 3, "the largest unless told otherwise");
    }
    assert!(compared >= ALL.len(), "no level could be run");
    refusals(&built);
}

/// The program's own words for sides that it does not have.
fn refusals(built: &Built) {
    let said = |more: &[&str]| {
        let ran = built.command(false).args(more).output().expect("the program runs");
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    assert_eq!(
        said(&["--side", "96"]),
        (Some(2), "error: --side: 96 is not of model, which has 64, 128, 192\n".into())
    );
    let (code, text) = said(&["--side", "64,128"]);
    assert!(code == Some(2) && text.contains("2 sides for 1 pictures"), "{text}");
    let (code, text) = said(&["--side", "64,"]);
    assert!(code == Some(2) && text.contains("expected a number"), "{text}");
}

#[test]
fn int4_has_the_bits_of_each_side_alone() {
    check("hf", "int4");
}

#[test]
#[ignore = "builds a crate; cargo xtask full"]
fn int8_has_the_bits_of_each_side_alone() {
    check("llava", "int8");
}

#[test]
#[ignore = "builds a crate; cargo xtask full"]
fn floats_have_the_bits_of_each_side_alone() {
    check("hf", "f32");
}

/// A side more costs code and no weights, and the arena is planned over all of them.
#[test]
fn sides_share_weights_kernels_and_memory() {
    for (layout, recipe) in [("hf", "int4"), ("llava", "int8"), ("hf", "f32")] {
        let one = assembled(layout, recipe, None, Machine::HOST);
        let all = assembled(layout, recipe, Some(&ALL), Machine::HOST);
        let who = format!("{layout} as {recipe}");
        let [one_bytes, all_bytes] = [&one, &all].map(Assembled::weight_file_bytes);
        assert!(all_bytes <= one_bytes, "{who}: {one_bytes} bytes of weights, {all_bytes} with three sides");
        assert_eq!(one.package.arena_bytes, all.package.arena_bytes, "{who}: the largest side needs the most");
        let code = |a: &Assembled, of: &str| -> usize {
            a.package.files.iter().filter(|(path, _)| path.starts_with(of)).map(|(_, text)| text.len()).sum()
        };
        let [[k1, k3], [p1, p3]] = ["src/kernels/", "src/plan/"].map(|of| [code(&one, of), code(&all, of)]);
        println!("{who}: {k1} bytes of kernels, {k3} with three sides; {p1} of plans, {p3}");
        assert!(k3 < 2 * k1, "{who}: kernels that do not depend on the side are there once");
    }
    // The order of the sides does not matter, and the model's own alone is what is made without being asked.
    let made = |sides: Option<&[usize]>| assembled("hf", "int4", sides, Machine::HOST).package;
    assert!(made(Some(&[192, 64])) == made(Some(&[64, 192])), "another order");
    assert!(made(Some(&[192])) == made(None), "its own side");
}

/// A smaller side alone takes less memory, and its package knows no other.
#[test]
fn a_model_can_leave_its_own_side_out() {
    let (own, small) =
        (assembled("hf", "int4", None, Machine::HOST), assembled("hf", "int4", Some(&[64]), Machine::HOST));
    assert!(small.package.arena_bytes < own.package.arena_bytes);
    assert_eq!(small.weight_file_bytes(), own.weight_file_bytes());
    let manifest: Json = serde_json::from_str(&small.package.files["manifest.json"]).expect("JSON");
    assert_eq!((&manifest["image_side"], &manifest["sides"][0]["side"]), (&64.into(), &64.into()));
    assert!(small.package.files["src/lib.rs"].contains("pub const IMAGE_SIDES: [usize; 1] = [64];"));
}

#[test]
fn the_package_tells_its_sides() {
    let aarch64 = Machine::of_triple("aarch64-unknown-linux-gnu").expect("known");
    for machine in [Machine::HOST, Machine::WasmRust, aarch64] {
        let all = assembled("hf", "f32", Some(&ALL), machine);
        let files = &all.package.files;
        let manifest: Json = serde_json::from_str(&files["manifest.json"]).expect("JSON");
        let sides = manifest["sides"].as_array().expect("a list");
        let told = |key: &str| sides.iter().map(|side| side[key].as_u64().expect("a number")).collect::<Vec<u64>>();
        assert_eq!((told("side"), told("tokens")), (vec![64, 128, 192], vec![1, 4, 9]));
        assert!(told("macs").is_sorted() && told("macs")[0] > 0);
        assert!(files["src/lib.rs"].contains("pub const IMAGE_SIDES: [usize; 3] = [64, 128, 192];"));
        let readme = &files["README.md"];
        for word in
            ["| picture | 64 x 64 pixels, 1 positions |", "chat.preprocess_at(&rgb, 64)?;", "`64`, `128` or `192`"]
        {
            assert!(readme.contains(word), "no {word} in\n{readme}");
        }
        for name in ["vision", "vision_64", "vision_128"] {
            assert!(files.contains_key(&format!("src/plan/{name}.rs")), "{name}");
        }
        assert!(!files.contains_key("src/plan/vision_192.rs"));
        // The list of levels of aarch64 in floats is one that the printer breaks in another place.
        if machine != aarch64 {
            formatted(&all);
        }
    }
}

/// rustfmt changes nothing in the plan.
fn formatted(assembled: &Assembled) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut written = Vec::new();
    let files = assembled.package.files.iter();
    for (path, text) in files.filter(|(path, _)| path.starts_with("src/plan/") || *path == "rustfmt.toml") {
        let to = folder.path().join(path);
        std::fs::create_dir_all(to.parent().expect("inside")).expect("a folder");
        std::fs::write(&to, text).expect("written");
        if path.ends_with(".rs") {
            written.push(to);
        }
    }
    assert!(written.len() > 7, "{} files of the plan", written.len());
    assert_formatted(folder.path(), &written);
}

#[test]
fn sides_that_a_model_does_not_take_are_refused() {
    let checkpoint = Checkpoint::open(&nano("hf"), &OpenOptions::default()).expect("a checkpoint");
    let refused = |sides: &[usize]| {
        let options = pipeline::Options { sides: Sides::These(sides), ..pipeline::Options::default() };
        prepare(&checkpoint, &options).err().map(|e| e.to_string()).unwrap_or_else(|| panic!("{sides:?} is taken"))
    };
    for (sides, words) in [
        (&[100][..], "side of pictures: 100: this model takes 192, its own, and smaller multiples of 64"),
        (&[64, 256], "side of pictures: 256: this model takes 192"),
        (&[0, 64], "side of pictures: 0: "),
        (&[64, 128, 64], "side of pictures: 64 is named twice"),
        (&[usize::MAX], "this model takes 192"),
        (&[], "side of pictures: none is named"),
    ] {
        let message = refused(sides);
        assert!(message.contains(words), "{message}\n  should have: {words}");
    }
}
