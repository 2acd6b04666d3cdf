//! Core ML models: what is written is read back and computes what the graph computes.

mod cli_support;
mod coreml_support;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::{assert_same_tree, fail, nano, skipped, succeed, tree, tvlmc};
use coreml_support::{Package, read};
use half::f16;
use ir::{Evaluator, Shape, TensorSource, Value, Weights};
use models::Description;
use prost::Message;
use tvlmc::Error;
use tvlmc::coreml::proto::{ArrayDataType, FeatureDescription, Model as Spec};
use tvlmc::coreml::{Model, OPSET, Texts};
use tvlmc::frontend::{Checkpoint, OpenOptions, describe};
use tvlmc::output::Staging;

const IOS: &str = "aarch64-apple-ios";

/// Signal to noise that arithmetic of 32 bits on weights of 16 has to reach, and with every result rounded to 16 bits: a few dB
/// below what the models here have. An op that is wrong somewhere is at 20 dB or less.
const WEIGHTS_DB: f64 = 50.0;
const HALVES_DB: f64 = 43.0;

fn open(folder: &Path) -> (Checkpoint, Description) {
    let checkpoint = Checkpoint::open(folder, &OpenOptions::default()).expect("a checkpoint");
    let description = describe(&checkpoint).expect("a model").description;
    (checkpoint, description)
}

/// Writes the model of a checkpoint into a new folder, as `out/m.mlpackage`.
fn write(checkpoint: &Checkpoint, description: &Description) -> Result<tempfile::TempDir, Error> {
    let root = tempfile::tempdir().expect("a folder");
    let texts = Texts { name: "m", license: "none".to_string(), more: Vec::new() };
    let model = Model::of(description, &texts, checkpoint)?;
    let staging = Staging::begin(&root.path().join("out"), false)?;
    model.write(&staging, "m.mlpackage", checkpoint, &|_| Ok(()))?;
    staging.commit()?;
    let bytes: usize = tree(root.path()).values().map(Vec::len).sum();
    let manifest = fs::metadata(package_of(&root).join("Manifest.json")).expect("a manifest").len();
    assert_eq!(model.bytes(), bytes as u64 - manifest, "as was told before");
    Ok(root)
}

fn package_of(root: &tempfile::TempDir) -> PathBuf {
    root.path().join("out/m.mlpackage")
}

fn array(feature: &FeatureDescription) -> (&str, Vec<i64>) {
    let array = feature.r#type.as_ref().and_then(|t| t.multi_array_type.as_ref()).expect("an array");
    assert_eq!(array.data_type(), ArrayDataType::Float32);
    (&feature.name, array.shape.clone())
}

/// Noise as pixels, `[side, side, 3]`.
fn pixels(side: usize) -> Vec<f32> {
    let hash = |i: usize| {
        (i as u32).wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15).rotate_left(13).wrapping_mul(0x85EB_CA6B)
    };
    (0..side * side * 3).map(|i| (hash(i) >> 24) as f32).collect()
}

/// `[1, c, h, w]` of a map `[h, w, c]`.
fn planes(map: &[f32], c: usize) -> Vec<f32> {
    (0..c).flat_map(|i| map.iter().skip(i).step_by(c).copied()).collect()
}

fn snr_db(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let signal = power(&mut expected.iter().map(|&x| f64::from(x)));
    let noise = power(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    10.0 * (signal / noise).log10()
}

/// The evaluator's values for the graph as it comes from the checkpoint, before any pass, by the names that a program gives
/// them and in the order of its elements.
fn expected(checkpoint: &Checkpoint, description: &Description, image: &[f32]) -> BTreeMap<String, Vec<f32>> {
    let side = description.vision.side;
    let mut weights = Weights::new();
    let graph = models::vision(description, &mut weights).expect("a graph");
    let source: &dyn TensorSource = checkpoint;
    let value = Value::map(side, side, 3, image.to_vec());
    let mut values = BTreeMap::new();
    let mut keep = |node: &ir::Node, value: &Value| {
        let data = match value.shape {
            Shape::Map { c, .. } => planes(&value.data, c),
            Shape::Rows { .. } => value.data.clone(),
        };
        values.insert(node.name.replace('.', "_"), data);
    };
    let rows = Evaluator::new(&graph, &weights, source).watch(&value, &mut keep).expect("rows").data;
    values.insert("rows".to_string(), rows);
    values
}

/// Runs a package and compares each value that the graph has too; of the rows, and of what is worst.
fn difference(package: &Package, image: &[f32], expected: &BTreeMap<String, Vec<f32>>, halves: bool) -> (f64, String) {
    let (mut worst, mut largest) = ((f64::INFINITY, String::new()), (0.0f32, String::new()));
    let rows = package.run(&planes(image, 3), halves, &mut |op, value| {
        let name = &op.outputs[0].name;
        if op.r#type == "const" || op.outputs.len() > 1 {
            return;
        }
        if op.r#type != "cast" {
            largest = value
                .floats()
                .iter()
                .fold(largest.clone(), |m, x| if x.abs() > m.0 { (x.abs(), name.clone()) } else { m });
        }
        if let Some(expected) = expected.get(name) {
            let snr = snr_db(value.floats(), expected);
            if snr < worst.0 {
                worst = (snr, name.clone());
            }
            if std::env::var_os("TVLMC_ALL_VALUES").is_some() {
                println!("    {snr:6.1} dB {name}");
            }
        }
    });
    let snr = snr_db(rows.floats(), &expected["rows"]);
    let told =
        format!("{snr:.1} dB (worst {:.1} of {}; largest value {:.1} of {})", worst.0, worst.1, largest.0, largest.1);
    assert!(largest.0 < f16::MAX.to_f32() / 4.0, "{largest:?}");
    (snr, told)
}

/// Runs a package with and without results of 16 bits and compares both with the evaluator.
fn compare(name: &str, package: &Package, checkpoint: &Checkpoint, description: &Description) {
    let image = pixels(description.vision.side);
    let expected = expected(checkpoint, description, &image);
    let [plain, halves] = [false, true].map(|halves| difference(package, &image, &expected, halves));
    println!("{name}: {}, with results of 16 bits {}", plain.1, halves.1);
    assert!(plain.0 > WEIGHTS_DB && halves.0 > HALVES_DB, "{name}: {} and {} dB", plain.0, halves.0);
}

#[test]
fn models_compute_what_the_graph_computes() {
    for name in ["hf", "llava", "odd"] {
        let (checkpoint, description) = open(&nano(name));
        let root = write(&checkpoint, &description).expect("written");
        compare(name, &read(&package_of(&root)), &checkpoint, &description);
    }
}

#[test]
fn a_trained_model_computes_what_its_graph_computes() {
    let (checkpoint, description) = open(&cli_support::root().join("models/demo"));
    let root = write(&checkpoint, &description).expect("written");
    compare("demo", &read(&package_of(&root)), &checkpoint, &description);
}

/// A checkpoint in train form is drawn on demand, outside the repository.
#[test]
fn a_tower_in_train_form_is_folded() {
    let Some(folder) = machine::drawn("nano-hf-train-bf16-s3") else { return };
    let (checkpoint, description) = open(&folder);
    let root = write(&checkpoint, &description).expect("written");
    let package = read(&package_of(&root));
    assert_eq!(counts(&package), nano_counts());
    compare("train form", &package, &checkpoint, &description);
}

fn counts(package: &Package) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for kind in package.kinds() {
        *counts.entry(kind.to_string()).or_default() += 1;
    }
    counts
}

/// Of the nano tower: a stem of 3 convolutions, blocks of 1, 1, 2, 1 and 1 of which the last two are attention, 4 steps down of
/// 2 convolutions, 2 position encodings, the final convolution, the projector.
fn nano_counts() -> BTreeMap<String, usize> {
    let counts = [
        ("add", 4 + 2 * 2),
        ("cast", 2),
        // Qkv and projection of attention are 1x1 convolutions, and so are the two of squeeze and excite.
        ("conv", 3 + 4 * 4 + 2 * (2 + 3) + 4 * 2 + 2 + 1 + 2),
        ("gelu", 3 + 6 + 4 * 2 + 1 + 1),
        ("layer_norm", 2),
        ("linear", 2),
        ("matmul", 2 * 2),
        // Layer scales, the image's, those of attention, squeeze and excite.
        ("mul", 4 + 2 * 2 + 1 + 2 + 1),
        ("reduce_mean", 1),
        ("relu", 1),
        // Three to heads and one back, and rows.
        ("reshape", 2 * 4 + 1),
        ("sigmoid", 1),
        ("softmax", 2),
        ("split", 2),
        ("transpose", 1),
    ];
    counts.into_iter().map(|(kind, n)| (kind.to_string(), n)).collect()
}

#[test]
fn a_model_says_what_it_takes_and_gives() {
    let (checkpoint, description) = open(&nano("hf"));
    let root = write(&checkpoint, &description).expect("written");
    let package = read(&package_of(&root));
    assert_eq!(package.model.specification_version, 6);
    let told = package.model.description.as_ref().expect("a description");
    let features = |features: &[FeatureDescription]| {
        features.iter().map(array).map(|(name, shape)| (name.to_string(), shape)).collect::<Vec<_>>()
    };
    assert_eq!(features(&told.input), [("image".to_string(), vec![1, 3, 192, 192])]);
    assert_eq!(features(&told.output), [("rows".to_string(), vec![1, 9, 96])]);
    let main = &package.model.ml_program.as_ref().expect("a program").functions["main"];
    assert_eq!((main.opset.as_str(), main.inputs[0].name.as_str()), (OPSET, "image"));
    assert_eq!(main.block_specializations[OPSET].outputs, ["rows"]);
    assert_eq!(counts(&package), nano_counts());
    let kinds = package.kinds();
    assert_eq!(kinds[..4], ["cast", "mul", "conv", "gelu"]);
    assert_eq!(kinds[kinds.len() - 4..], ["linear", "gelu", "linear", "cast"]);
}

#[test]
fn names_are_identifiers_of_their_own() {
    let (checkpoint, description) = open(&nano("hf"));
    let package = read(&package_of(&write(&checkpoint, &description).expect("written")));
    let outputs = package.operations().iter().flat_map(|op| &op.outputs);
    let mut names: Vec<&str> = outputs.map(|output| output.name.as_str()).collect();
    for name in &names {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit()), "{name}");
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn weights_lie_where_operations_look_and_nowhere_else() {
    let (checkpoint, description) = open(&nano("hf"));
    let package = read(&package_of(&write(&checkpoint, &description).expect("written")));
    let blobs = package.blobs();
    let count = u32::from_le_bytes(package.weights[..4].try_into().expect("4 bytes"));
    assert_eq!(count as usize, blobs.len());
    // One behind the other, from the header to the end of the file.
    let mut at = 64;
    for (offset, elements) in &blobs {
        assert_eq!(*offset, at);
        at += 64 + (2 * *elements as u64).next_multiple_of(64);
    }
    assert_eq!(package.weights.len() as u64, at);
}

#[test]
fn equal_checkpoints_are_equal_bytes() {
    let (checkpoint, description) = open(&nano("hf"));
    let [one, two] = [0, 1].map(|_| write(&checkpoint, &description).expect("written"));
    assert_same_tree(one.path(), two.path());
    let (checkpoint, description) = open(&nano("odd"));
    let other = write(&checkpoint, &description).expect("written");
    let weights = |root: &tempfile::TempDir| read(&package_of(root)).weights;
    assert!(weights(&one) != weights(&other), "another model has other weights");
}

/// Writes a copy of the nano checkpoint in which one element of a tensor is another; its numbers are bf16.
fn with_element(name: &str, element: usize, value: half::bf16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    cli_support::copy(&nano("hf"), folder.path());
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a file");
    let (header, parsed) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    let info = parsed.info(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(info.dtype, safetensors::Dtype::BF16);
    let at = 8 + header + info.data_offsets.0 + 2 * element;
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    fs::write(path, bytes).expect("written");
    folder
}

#[test]
fn a_weight_beyond_16_bits_is_named() {
    let name = "model.multi_modal_projector.linear_1.weight";
    let folder = with_element(name, 5, half::bf16::from_f32(70000.0));
    let (checkpoint, description) = open(folder.path());
    let error = write(&checkpoint, &description).expect_err("too large");
    let message = error.to_string();
    assert_eq!(error.exit_code(), 3);
    for word in ["projector.fc1.weight: element 5 is 7.0", "at most 65504", "without --delegate coreml"] {
        assert!(message.contains(word), "{message}\n  should have: {word}");
    }
}

#[test]
fn the_command_writes_a_model_beside_the_crate() {
    let root = tempfile::tempdir().expect("a folder");
    let out = root.path().join("out");
    let mut command = tvlmc();
    command
        .arg("compile")
        .arg(nano("hf"))
        .args(["--target", IOS, "--name", "m", "--delegate", "coreml", "-o"])
        .arg(&out);
    succeed(&mut command);
    let package = read(&out.join("m.mlpackage"));
    assert_eq!(counts(&package), nano_counts());
    let told = package.model.description.and_then(|d| d.metadata).expect("metadata");
    assert!(told.license.contains("none found") && told.user_defined["dev.tvlmc.checkpoint-sha256"].len() == 64);
    let readme = fs::read_to_string(out.join("COREML.md")).expect("a readme");
    assert!(readme.contains("# m.mlpackage") && readme.contains("`[1, 3, 192, 192]`"), "{readme}");
    let text = succeed(tvlmc().arg("inspect").arg(&out));
    assert!(text.contains("Core ML            m.mlpackage, ") && text.contains(" operations of CoreML5\n"), "{text}");

    let check = |delegate: &[&str]| {
        let mut command = tvlmc();
        command.arg("compile").arg(nano("hf")).args(["--target", IOS, "--name", "m"]).args(delegate);
        command.arg("--check").arg(&out);
        command
    };
    succeed(&mut check(&["--delegate", "coreml"]));
    let done = cli_support::finish(&mut check(&[]));
    assert!(
        done.code == 1 && done.stdout.contains("m.mlpackage/Manifest.json: would not be emitted"),
        "{}",
        done.stdout
    );
    fs::write(out.join("COREML.md"), "").expect("written");
    let done = cli_support::finish(&mut check(&["--delegate", "CoreML"]));
    assert!(done.code == 1 && done.stdout.contains("+# m.mlpackage"), "{}", done.stdout);
    fs::write(out.join("COREML.md"), readme).expect("written");
    let spec = out.join("m.mlpackage/Data/com.apple.CoreML/model.mlmodel");
    let mut other = Spec::decode(&fs::read(&spec).expect("a model")[..]).expect("a model");
    other.specification_version = 7;
    fs::write(&spec, other.encode_to_vec()).expect("written");
    let done = cli_support::finish(&mut check(&["--delegate", "coreml"]));
    assert!(done.code == 1 && done.stdout.contains("model.mlmodel: is not what would be emitted"), "{}", done.stdout);
}

#[test]
fn delegates_that_do_not_exist_are_refused() {
    let asked = |target: &str, delegate: &str| {
        let mut command = tvlmc();
        command.arg("compile").arg(nano("hf")).args(["--target", target, "--delegate", delegate]);
        command
    };
    fail(&mut asked(cli_support::TARGET, "coreml"), 2, &["is for Apple's systems", "this is x86_64-unknown-linux-gnu"]);
    fail(&mut asked("wasm32-unknown-unknown", "coreml"), 2, &["is for Apple's systems"]);
    fail(&mut asked(IOS, "corml"), 2, &["--delegate \"corml\": there is no such delegate (did you mean \"coreml\"?)"]);
    fail(&mut asked("aarch64-linux-android", "nnapi"), 2, &["has deprecated NNAPI", "tvlm_open_options"]);
}

/// Python with coremltools: `TVLMC_COREMLTOOLS_PYTHON`, or what `cargo xtask setup --full` installs.
fn python() -> Option<PathBuf> {
    let set = std::env::var_os("TVLMC_COREMLTOOLS_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME").unwrap_or_default();
    let python = set.unwrap_or_else(|| Path::new(&home).join(".cache/tvlmc/coreml-venv/bin/python"));
    python.is_file().then_some(python)
}

/// Has coremltools read a package; nothing where it is not installed.
fn coremltools(test: &str, package: &Path) -> Option<serde_json::Value> {
    let Some(python) = python() else {
        skipped(test, "no coremltools; `cargo xtask setup --full` installs it");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coreml_support/check.py");
    let done = Command::new(python).arg(script).arg(package).output().expect("Python runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(serde_json::from_slice(&done.stdout).expect("JSON"))
}

fn agree(told: &serde_json::Value, package: &Package) {
    let kinds: Vec<&str> = told["kinds"].as_array().expect("kinds").iter().filter_map(|kind| kind.as_str()).collect();
    assert_eq!(kinds, package.kinds());
    assert!(told["halves"].as_u64() >= Some(package.blobs().values().sum::<usize>() as u64), "{told}");
}

#[test]
fn coremltools_reads_a_model() {
    let (checkpoint, description) = open(&nano("hf"));
    let root = write(&checkpoint, &description).expect("written");
    let Some(told) = coremltools("coremltools_reads_a_model", &package_of(&root)) else { return };
    agree(&told, &read(&package_of(&root)));
}

#[test]
#[ignore = "reads and writes the 0.5B model's tower: a minute, 1 GB of memory"]
fn coremltools_reads_the_large_model() {
    let Some(folder) = machine::drawn("0.5b-hf-bf16-s0") else { return };
    let (checkpoint, description) = open(&folder);
    let root = write(&checkpoint, &description).expect("written");
    let package = read(&package_of(&root));
    println!("{} bytes of weights, {} operations", package.weights.len(), package.kinds().len());
    let Some(told) = coremltools("coremltools_reads_the_large_model", &package_of(&root)) else { return };
    agree(&told, &package);
}
