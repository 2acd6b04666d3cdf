//! The emitted crate, compiled natively, against the kernel interpreter: every step of every phase,
//! bit for bit, at both levels and with one, two and three threads. Also what the text promises:
//! the same bytes each time, a fixed point of rustfmt, no warnings, unsafe only inside.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use machine::{assert_formatted, emulator};
use serde_json::Value as Json;
use tvlmc::frontend::{Checkpoint, OpenOptions, tokenizer_section};
use tvlmc::lower::Phase;
use tvlmc::package::{self, Identity, Package, WEIGHTS_NAME};
use tvlmc::pipeline::{Options, Prepared, prepare};
use tvlmc::simulate::Simulation;
use tvlmc::weightfile::WeightFileWriter;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROMPT: &str = "What is this?";

struct Emitted {
    checkpoint: Checkpoint,
    prepared: Prepared,
    package: Package,
    folder: tempfile::TempDir,
    runner: PathBuf,
}

fn nano(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout)
}

fn emit(layout: &str) -> (Checkpoint, Prepared, Package, [u8; 32]) {
    let checkpoint = Checkpoint::open(&nano(layout), &OpenOptions::default()).expect("a checkpoint");
    let prepared = prepare(&checkpoint, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let digest = checkpoint.digest().expect("a digest");
    let (system, baked) = (package::SYSTEM, false);
    let id = Identity { name: "nano", target: TARGET, digest: [0; 32], checkpoint: digest, system, baked };
    let pairing = package::digest(&prepared, &id).unwrap_or_else(|e| panic!("{e}"));
    let package = package::emit(&prepared, &Identity { digest: pairing, ..id }).unwrap_or_else(|e| panic!("{e}"));
    (checkpoint, prepared, package, pairing)
}

/// Emits, writes and builds a nano model. Warnings are errors.
fn build(layout: &str) -> Emitted {
    let (checkpoint, prepared, package, pairing) = emit(layout);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in &package.files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    let mut file = WeightFileWriter::create(&folder.path().join(WEIGHTS_NAME), pairing).expect("a file");
    file.section("tokenizer", &tokenizer_section(&checkpoint, &prepared.description).expect("a tokenizer"))
        .expect("written");
    file.begin("weights").expect("written");
    file.write_u32(&prepared.packed(&checkpoint).expect("weights")).expect("written");
    file.finish().expect("written");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--offline", "--locked"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let runner = folder.path().join("target/release/nano");
    Emitted { checkpoint, prepared, package, folder, runner }
}

/// Whether this processor has a level of float models.
fn has_level(name: &str) -> bool {
    name != "x86-64-v4" || std::is_x86_feature_detected!("avx512f")
}

/// Steps by phase and name, in order, from one run of the runner with `--dump`.
struct Dumped {
    prompt: Vec<i64>,
    tokens: Vec<u32>,
    pixels: Vec<u8>,
    steps: BTreeMap<(String, String), Vec<u32>>,
}

fn dump(e: &Emitted, level: &str, threads: usize) -> Dumped {
    let out = e.folder.path().join(format!("dump-{level}-{threads}"));
    let (w, h) = (50, 31);
    let rgb: Vec<u8> = (0..w * h * 3).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8).collect();
    let picture = e.folder.path().join("picture.rgb");
    std::fs::write(&picture, rgb).expect("written");
    let mut command = match emulator().filter(|_| !has_level(level)) {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.arg(&e.runner);
            command
        }
        None => Command::new(&e.runner),
    };
    let ran = command
        .current_dir(e.folder.path())
        .arg("--weights")
        .arg(e.folder.path().join(WEIGHTS_NAME))
        .arg("--rgb")
        .arg(format!("{w}x{h}:{}", picture.display()))
        .args(["--prompt", PROMPT, "--level", level, "--threads", &threads.to_string(), "--dump"])
        .arg(&out)
        .output()
        .expect("the runner runs");
    assert!(ran.status.success(), "{level}: {}", String::from_utf8_lossy(&ran.stderr));
    let index: Json = serde_json::from_slice(&std::fs::read(out.join("index.json")).expect("an index")).expect("JSON");
    let text = |file: &Json, key: &str| file[key].as_str().unwrap_or_default().to_string();
    let mut steps = BTreeMap::new();
    for file in index["files"].as_array().expect("a list") {
        if file["phase"] == "input" {
            continue;
        }
        let bytes = std::fs::read(out.join(text(file, "file"))).expect("a file of the index");
        let bits = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        steps.insert((text(file, "phase"), text(file, "name")), bits);
    }
    let numbers = |key: &str| index[key].as_array().expect("a list").iter().map(|n| n.as_i64().expect("a number"));
    Dumped {
        prompt: numbers("prompt_token_ids").collect(),
        tokens: numbers("token_ids").map(|n| n as u32).collect(),
        pixels: std::fs::read(out.join("pixels.u8")).expect("pixels"),
        steps,
    }
}

/// Runs a phase in the interpreter and compares every step's bits.
fn compare(sim: &mut Simulation<'_>, phase: &Phase, name: &str, at: (usize, usize), seen: &Dumped) {
    let mut compared = 0;
    sim.run(phase, at, 1, |step, sim| {
        let mine: Vec<u32> = sim.result(&step.result, at.1).into_iter().map(f32::to_bits).collect();
        let theirs = &seen.steps[&(name.to_string(), step.name.clone())];
        assert_eq!(mine.len(), theirs.len(), "{}", step.name);
        let differ = mine.iter().zip(theirs).position(|(a, b)| a != b);
        assert_eq!(differ, None, "{name} {}: first differing element", step.name);
        compared += 1;
    })
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(compared, phase.steps.len());
}

fn check(layout: &str) {
    let e = build(layout);
    let packed = e.prepared.packed(&e.checkpoint).expect("weights");
    let (side, hidden) = (e.prepared.description.vision.side, e.prepared.description.text.hidden);
    let pitch = kernels::library::pitch(hidden);
    for (level, name) in [(0, "x86-64-v4"), (1, "x86-64-v3")] {
        if !has_level(name) && emulator().is_none() {
            println!("skipped: level {name}, this processor has no AVX-512 (TVLMC_EMULATOR unset)");
            continue;
        }
        let one = dump(&e, name, 1);
        for threads in [2, 3, 7] {
            let many = dump(&e, name, threads);
            assert!(one.steps == many.steps, "{name}: {threads} threads give other bits");
            assert_eq!(one.tokens, many.tokens);
        }
        let program = &e.prepared.program;
        let mut sim = Simulation::new(program, &e.prepared.memory, level, e.prepared.targets[level].as_ref(), &packed);
        sim.picture(side, &one.pixels.iter().map(|&b| f32::from(b)).collect::<Vec<f32>>());
        compare(&mut sim, &program.vision, "vision", (0, 0), &one);
        let n = sim.prompt(&one.prompt, &e.prepared.description).expect("rows");
        compare(&mut sim, &program.prefill, "prefill", (0, n), &one);
        sim.embed(one.tokens[0], 0, pitch).expect("a row");
        compare(&mut sim, &program.decode, "decode", (n, 1), &one);
    }
    text_is_well_formed(&e);
}

/// A program that keeps a conversation in a struct of its own, with every type of the face in its hands.
const APP: &str = r#"
use nano::{Answer, CancelToken, Error, Image, Model, OpenOptions, Options, Pixels, Residence, Rgb8, Session, Verify};

/// What a server would hold.
pub struct Chat {
    session: Session<'static>,
    pictures: Vec<Image>,
    stop: CancelToken,
}

impl Chat {
    pub fn new(weights: &str) -> Result<Chat, Error> {
        let choices = OpenOptions { verify: Verify::Full, residence: Residence::Copied, ..OpenOptions::default() };
        let model: &'static Model = Box::leak(Box::new(Model::open_with(weights, &choices)?));
        let session = model.session(Options { max_new_tokens: 3, ..Options::default() })?;
        Ok(Chat { stop: session.cancel_token(), session, pictures: Vec::new() })
    }

    pub fn see(&mut self, rgb: &Rgb8<'_>) -> Result<(), Error> {
        let pixels: Pixels = self.session.preprocess(rgb)?;
        self.pictures.push(self.session.encode(&pixels)?);
        Ok(())
    }

    pub fn ask(&mut self, text: &str) -> Result<Answer<'_, 'static>, Error> {
        let pictures: Vec<&Image> = self.pictures.iter().collect();
        self.session.ask(&pictures, text)
    }
}

fn main() -> Result<(), Error> {
    let weights = std::env::args().nth(1).expect("a path");
    let mut chat = Chat::new(&weights)?;
    chat.see(&Rgb8::new(2, 1, &[0, 50, 100, 150, 200, 250])?)?;
    let mut answer = chat.ask("What is this?")?;
    let text = answer.text()?;
    println!("{} tokens, {} bytes", answer.token_ids().len(), text.len());
    chat.stop.cancel();
    let moved = std::thread::spawn(move || chat.session.position());
    assert!(moved.join().expect("a thread that ends") > 0);
    Ok(())
}
"#;

#[test]
fn a_program_names_every_type_it_holds() {
    let e = build("llava");
    let app = e.folder.path().join("app");
    std::fs::create_dir_all(app.join("src")).expect("a folder");
    let manifest =
        "[package]\nname = \"app\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\nnano = { path = \"..\" }\n";
    std::fs::write(app.join("Cargo.toml"), manifest).expect("written");
    std::fs::write(app.join("src/main.rs"), APP).expect("written");
    let ran = Command::new(env!("CARGO"))
        .args(["run", "--release", "--offline", "--quiet", "--"])
        .arg(e.folder.path().join(WEIGHTS_NAME))
        .current_dir(&app)
        .env("CARGO_TARGET_DIR", e.folder.path().join("target"))
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.starts_with("3 tokens, "), "{said}");
}

/// The example of the emitted README as it stands, and a photo: what a newcomer does first.
#[test]
fn the_readmes_example_runs() {
    let e = build("hf");
    let readme = &e.package.files["README.md"];
    let block = |language: &str| {
        let (_, rest) = readme.split_once(&format!("```{language}\n")).expect("a block");
        rest.split_once("```").expect("its end").0
    };
    let app = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(app.path().join(name), bytes).expect("written");
    std::fs::create_dir(app.path().join("src")).expect("a folder");
    std::os::unix::fs::symlink(e.folder.path(), app.path().join("nano")).expect("linked");
    write("Cargo.toml", format!("[package]\nname = \"app\"\nedition = \"2024\"\n\n{}", block("toml")).as_bytes());
    write("src/main.rs", block("rust").as_bytes());
    let mut photo = std::io::Cursor::new(Vec::new());
    let colors = image::RgbImage::from_fn(60, 40, |x, y| image::Rgb([x as u8 * 4, y as u8 * 6, 90]));
    colors.write_to(&mut photo, image::ImageFormat::Jpeg).expect("an encoder");
    write("photo.jpg", photo.get_ref());
    let ran = Command::new(env!("CARGO"))
        .args(["run", "--release", "--offline", "--quiet"])
        .current_dir(app.path())
        .env("CARGO_TARGET_DIR", e.folder.path().join("target"))
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).lines().count() >= 2);
    // What was added for this does not reach whoever leaves the decoder alone.
    assert!(!e.package.files["Cargo.lock"].contains("image") && !e.package.files["Cargo.toml"].contains("image"));
}

/// rustfmt changes nothing; no unsafe is public.
fn text_is_well_formed(e: &Emitted) {
    for (name, text) in e.package.files.iter().filter(|(name, _)| name.starts_with("src/") && name.ends_with(".rs")) {
        syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.lines().all(|line| line.len() <= 100 && !line.ends_with(' ')), "{name}: a long or ragged line");
    }
    let face = &e.package.files["src/lib.rs"];
    assert!(
        face.contains("#![deny(unsafe_op_in_unsafe_fn)]") && !face.contains("unsafe fn") && !face.contains("pub mod")
    );
    let mut files: Vec<PathBuf> =
        e.package.files.keys().filter(|n| n.starts_with("src/")).map(|n| e.folder.path().join(n)).collect();
    files.sort();
    assert_formatted(e.folder.path(), &files);
}

#[test]
fn hf_has_the_interpreters_bits() {
    check("hf");
}

#[test]
fn llava_has_the_interpreters_bits() {
    check("llava");
}

#[test]
fn odd_sizes_have_the_interpreters_bits() {
    check("odd");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (a, b) = (emit("hf").2, emit("hf").2);
    assert_eq!(a, b);
}

#[test]
fn names_that_cannot_name_a_crate_are_refused() {
    for name in ["", "Upper", "9x", "a b", "a\"; }}", "match", "a/../b", "test", &"x".repeat(65), "a\u{202e}b"] {
        assert!(package::check_name(name).is_err(), "{name:?}");
    }
    for name in ["a", "fast-vlm_05b", &"x".repeat(64)] {
        assert!(package::check_name(name).is_ok(), "{name:?}");
    }
}
