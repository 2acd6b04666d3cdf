//! Recipes from the command line to the weights: what can be compiled, what is refused, and how far
//! each recipe's values are from floats.
//!
//! The first run builds two crates, about half a minute each.

mod cli_support;

use std::path::{Path, PathBuf};

use cli_support::{compile, fail, finish, names, nano, succeed, tvlmc};
use ir::{Evaluator, Value};
use models::Recipe;
use models::recipe::{Block, Cache, Linears, Weights};
use serde_json::Value as Json;
use tempfile::TempDir;
use tvlmc::frontend::{Checkpoint, OpenOptions};
use tvlmc::lower::Formats;
use tvlmc::pack::Kind;
use tvlmc::pipeline::{Options, Prepared, prepare};
use tvlmc::quant::limit_db;
use tvlmc::simulate::Simulation;

const F32: Linears = Linears { weights: Weights::F32, activation_block: Block::Row };
const INT4: Linears = Linears { weights: Weights::Int4, activation_block: Block::Channels(128) };

const SPLIT: Linears = Linears { weights: Weights::Int8Split, ..INT4 };

fn int8(activation_block: Block) -> Linears {
    Linears { weights: Weights::Int8, activation_block }
}

fn named(name: &str) -> Recipe {
    Recipe::named(name).unwrap_or_else(|e| panic!("{e}"))
}

fn prepared(checkpoint: &Checkpoint, recipe: &Recipe) -> Prepared {
    let options = Options { recipe: Some(recipe), ..Options::default() };
    prepare(checkpoint, &options).unwrap_or_else(|e| panic!("{}: {e}", recipe.name))
}

/// Signal to noise in dB.
fn snr(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let signal: f64 = expected.iter().map(|&e| square(f64::from(e))).sum();
    let noise: f64 = found.iter().zip(expected).map(|(&f, &e)| square(f64::from(f) - f64::from(e))).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// Rows of the embedding as the checkpoint has them.
fn rows(prepared: &Prepared, checkpoint: &Checkpoint, ids: std::ops::Range<usize>) -> Vec<f32> {
    let pack = prepared.program.packs.iter().nth(prepared.program.embed_table.0).expect("a pack");
    let Kind::Matrix { weight, .. } = pack.kind else { panic!("{} is no matrix", pack.name) };
    prepared.weights.eval_rows(weight, ids, checkpoint).expect("rows")
}

/// The logits after a prompt and one more token, of one level by the interpreter; and the evaluator's.
fn logits(checkpoint: &Checkpoint, recipe: &Recipe, level: usize) -> [Vec<f32>; 2] {
    let prepared = prepared(checkpoint, recipe);
    let program = &prepared.program;
    let packed = prepared.packed(checkpoint).expect("weights");
    let mut sim = Simulation::new(program, &prepared.memory, level, prepared.targets[level].as_ref(), &packed);
    let (hidden, vocab) = (prepared.description.text.hidden, prepared.description.text.vocab);
    let pitch = kernels::library::pitch(hidden);
    let n = 9;
    (0..n).for_each(|id| sim.embed(id as u32, id, pitch).expect("a row"));
    sim.run(&program.prefill, (0, n), 2, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    sim.embed(n as u32, 0, pitch).expect("a row");
    sim.run(&program.decode, (n, 1), 3, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    let mut evaluator = Evaluator::new(&prepared.decoder, &prepared.weights, checkpoint);
    let mut expected = Vec::new();
    for ids in [0..n, n..n + 1] {
        let input = Value::rows(hidden, rows(&prepared, checkpoint, ids));
        let mut watch = |node: &ir::Node, value: &Value| {
            if node.name == "head" {
                expected.clone_from(&value.data);
            }
        };
        evaluator.watch(&input, &mut watch).expect("the evaluator runs");
    }
    sim.run(&program.logits, (n, 1), 3, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    let logits = sim.get(program.io.logits, 0, vocab);
    let token = sim.get(program.io.token, 0, 1)[0].to_bits() as usize;
    let first = (0..vocab).find(|&id| logits.iter().all(|l| *l <= logits[id])).expect("numbers");
    assert_eq!(token, first, "{}: the token has the largest of all logits", recipe.name);
    [logits, expected]
}

#[test]
fn every_mixture_of_text_formats_computes_the_logits() {
    let checkpoint = Checkpoint::open(&nano("hf"), &OpenOptions::default()).expect("a checkpoint");
    let bytes = int8(Block::Channels(128));
    let decoders = [F32, bytes, int8(Block::Channels(16)), int8(Block::Row), INT4];
    let heads = [F32, bytes, int8(Block::Row), INT4, SPLIT];
    let matrices = decoders.into_iter().flat_map(|decoder| heads.map(|head| (decoder, head, Cache::F32)));
    let halves = [(F32, F32), (bytes, bytes), (INT4, bytes)].map(|(decoder, head)| (decoder, head, Cache::F16));
    let caches = [(F32, F32), (bytes, bytes), (INT4, bytes)].map(|(decoder, head)| (decoder, head, Cache::Int8));
    for (decoder, head, cache) in matrices.chain(halves).chain(caches) {
        let recipe = Recipe { decoder, head, cache, ..named("f32") };
        // The first level is the best; one of floats has two, one with integers three.
        let floats = Formats::of(&recipe, "mixed").expect("supported").is_float();
        let levels = if floats { 2 } else { 3 };
        let made: Vec<[Vec<f32>; 2]> = (0..levels).map(|level| logits(&checkpoint, &recipe, level)).collect();
        let (snr, limit) = (snr(&made[0][0], &made[0][1]), limit_db(&recipe, "head"));
        println!("decoder {decoder:?}, head {head:?}, cache {cache}: {snr:.1} dB");
        assert!(snr >= limit, "{decoder:?}, {head:?}, {cache}: {snr} dB, at least {limit} is expected");
        // Floats differ between levels in rounding only where they have other instructions.
        if !floats {
            assert!(made.iter().all(|m| m[0] == made[0][0]), "levels differ: {decoder:?}, {head:?}, {cache}");
        }
    }
}

#[test]
fn every_mixture_of_image_formats_computes_the_rows() {
    let checkpoint = Checkpoint::open(&nano("hf"), &OpenOptions::default()).expect("a checkpoint");
    let wide = int8(Block::Channels(384));
    for (vision, projector) in [
        (F32, wide),
        (wide, F32),
        (wide, wide),
        (int8(Block::Row), int8(Block::Channels(32))),
        (int8(Block::Channels(64)), int8(Block::Row)),
    ] {
        let recipe = Recipe { vision, projector, ..named("f32") };
        let prepared = prepared(&checkpoint, &recipe);
        let (program, side) = (&prepared.program, prepared.description.vision.side);
        let packed = prepared.packed(&checkpoint).expect("weights");
        let mut sim = Simulation::new(program, &prepared.memory, 0, prepared.targets[0].as_ref(), &packed);
        let image: Vec<f32> = (0..side * side * 3).map(|i| (i * 7 % 256) as f32).collect();
        sim.picture(side, &image);
        sim.run(&program.vision, (0, 0), 3, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        let (tokens, hidden) = (prepared.description.vision.tokens(), prepared.description.text.hidden);
        let found = sim.rows(program.io.image_rows, tokens, hidden);
        let mut evaluator = Evaluator::new(&prepared.vision, &prepared.weights, &checkpoint);
        let expected = evaluator.watch(&Value::map(side, side, 3, image), &mut |_, _| {}).expect("the evaluator runs");
        let (snr, limit) = (snr(&found, &expected.data), limit_db(&recipe, "projector"));
        println!("vision {vision:?}, projector {projector:?}: {snr:.1} dB");
        assert!(snr >= limit, "vision {vision:?}, projector {projector:?}: {snr} dB, at least {limit} is expected");
    }
}

#[test]
fn what_cannot_be_lowered_is_named() {
    let check = |recipe: Recipe, message: &str| {
        assert_eq!(Formats::of(&recipe, "my.ron").expect_err("unsupported").to_string(), message);
    };
    let only = "is not supported here; this version has";
    let f32 = || named("f32");
    check(Recipe { vision: INT4, ..f32() }, &format!("my.ron: vision.weights: Int4 {only} F32 and Int8"));
    check(Recipe { vision: SPLIT, ..f32() }, &format!("my.ron: vision.weights: Int8Split {only} F32 and Int8"));
    check(Recipe { decoder: SPLIT, ..f32() }, &format!("my.ron: decoder.weights: Int8Split {only} F32, Int8 and Int4"));
    check(Recipe { projector: INT4, ..f32() }, &format!("my.ron: projector.weights: Int4 {only} F32 and Int8"));
    for name in Recipe::list() {
        for cache in [Cache::F32, Cache::F16, Cache::Int8] {
            assert!(Formats::of(&Recipe { cache, ..named(name) }, name).is_ok(), "{name}, {cache}");
        }
    }
}

/// A recipe file in `dir`: the built-in `base` with one piece replaced.
fn file(dir: &TempDir, base: &str, from: &str, to: &str) -> PathBuf {
    let text = named(base).to_ron();
    assert!(text.contains(from), "{from} is not in {text}");
    let path = dir.path().join("my.ron");
    std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
    path
}

#[test]
fn command_lines_name_what_is_wrong() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    let refuse = |flag: &str, value: &Path, code: i32, words: &[&str]| {
        fail(compile(&nano("hf")).arg(flag).arg(value).arg("-o").arg(&out), code, words);
        assert!(!out.exists());
    };
    refuse("--quant", Path::new("int3"), 2, &["--quant", "did you mean `int4`?", "--recipe takes a file"]);
    refuse("--recipe", Path::new("intt8"), 2, &["did you mean `int8`?", "no file of this name"]);
    refuse("--recipe", &dir.path().join("none.ron"), 3, &["cannot read the recipe", "none.ron"]);
    refuse("--recipe", dir.path(), 4, &["cannot read the recipe"]);
    refuse("--recipe", &file(&dir, "int4", "decoder:", "decodr:"), 3, &["my.ron:", "did you mean `decoder`?"]);
    let unclosed = file(&dir, "int4", "Channels(384),\n    ),\n    projector", "Channels(384),\n    projector");
    refuse("--recipe", &unclosed, 3, &["my.ron:", "unknown key `projector`", "is a `)` missing before `projector`"]);
    refuse("--recipe", &file(&dir, "int4", "Int8", "Int4"), 3, &["my.ron: vision.activation_block", "Channels(384)"]);
    refuse("--recipe", &file(&dir, "int4", "cache: Int8", "cache: Int7"), 3, &["my.ron:", "did you mean `Int8`?"]);
    let int4 = "weights: Int4,\n        activation_block: Channels(128)";
    let int8 = "weights: Int8,\n        activation_block: Channels(384)";
    refuse("--recipe", &file(&dir, "int4", int8, int4), 3, &["my.ron: vision.weights: Int4", "has F32 and Int8"]);
    std::fs::write(dir.path().join("my.ron"), vec![b' '; 1 << 17]).expect("written");
    refuse("--recipe", &dir.path().join("my.ron"), 3, &["my.ron: more than 65536 bytes"]);
    std::fs::write(dir.path().join("my.ron"), [0xff]).expect("written");
    refuse("--recipe", &dir.path().join("my.ron"), 3, &["my.ron: is not UTF-8"]);
    fail(compile(&nano("hf")).args(["--quant", "int8", "--recipe", "int8"]), 2, &["cannot be used with"]);
    for command in ["run", "verify", "inspect"] {
        let mut call = tvlmc();
        call.arg(command).arg(nano("hf")).args(["--quant", "int5"]);
        if command == "run" {
            call.args(["--prompt", "x"]);
        }
        fail(&mut call, 2, &["did you mean `int4`?"]);
    }
    fail(tvlmc().args(["demo", "--quant", "int5"]), 2, &["did you mean `int4`?"]);
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn compiled_folders_say_what_quantization_cost() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    succeed(compile(&nano("hf")).args(["--quant", "f32"]).arg("-o").arg(&out));
    assert!(!names(&out).contains(&"quantization.json".to_string()));
    // What is made when nothing is said.
    succeed(compile(&nano("hf")).arg("--force").arg("-o").arg(&out));
    let report = json(&std::fs::read_to_string(out.join("quantization.json")).expect("a report"));
    let tensors = report["tensors"].as_array().expect("a list");
    let format = |t: &Json| t["format"].as_str().expect("a word").to_string();
    for tensor in tensors {
        let name = tensor["name"].as_str().expect("a word");
        // What stands beside the linears stays as it is.
        let expected = match name.split('.').next() {
            Some("decoder") => "int4",
            Some("head") | Some("embedding") => "int8split",
            _ if format(tensor) == "f32" => "f32",
            _ => "int8",
        };
        assert_eq!(format(tensor), expected, "{name}");
        let snr = tensor["snr_db"].as_f64();
        match expected {
            "f32" => assert_eq!(snr, None, "{name}"),
            "int8split" => assert!(snr.is_some_and(|db| db > 38.0), "{name}: {snr:?} dB"),
            "int8" => assert!(snr.is_some_and(|db| db > 30.0), "{name}: {snr:?} dB"),
            _ => assert!(snr.is_some_and(|db| db > 15.0), "{name}: {snr:?} dB"),
        }
    }
    for format_name in ["f32", "int8", "int4", "int8split"] {
        assert!(tensors.iter().any(|t| format(t) == format_name), "no {format_name}");
    }
    let sum = |key: &str| tensors.iter().map(|t| t[key].as_u64().expect("a number")).sum::<u64>();
    let all = report["parts"].as_array().and_then(|parts| parts.last()).expect("the total").clone();
    assert_eq!((all["name"].as_str(), all["weights"].as_u64()), (Some("all"), Some(sum("weights"))));
    assert_eq!(all["bytes"].as_u64(), Some(sum("bytes")));
    // The same is shown, and nothing else is needed to compare the folder.
    let shown = succeed(tvlmc().arg("inspect").arg(&out));
    assert!(shown.contains("recipe int4"), "{shown}");
    for tensor in tensors {
        let name = tensor["name"].as_str().expect("a word");
        assert!(shown.lines().any(|l| l.starts_with(&format!("{name} "))), "{name} is not in {shown}");
    }
    let told = json(&succeed(tvlmc().arg("inspect").arg(&out).arg("--json")));
    assert_eq!(told["quantization"], report);
    assert_eq!(told["compiled"]["recipe"]["name"], "int4");
    // As `--level` takes them.
    let levels = ["x86-64-v4-vnni", "x86-64-v3-vnni", "x86-64-v3"];
    assert_eq!(told["compiled"]["levels"], serde_json::json!(levels));
    let check = |quant: &str| finish(compile(&nano("hf")).args(["--quant", quant, "--check"]).arg(&out));
    assert_eq!(check("int4").code, 0, "{}", check("int4").stdout);
    assert_eq!(check("int8").code, 1);
    std::fs::remove_file(out.join("quantization.json")).expect("removed");
    let missing = check("int4");
    assert_eq!((missing.code, missing.stdout.as_str()), (1, "quantization.json: is missing\n"));
    fail(tvlmc().arg("inspect").arg(&out), 3, &["quantization.json"]);
    std::fs::write(out.join("quantization.json"), "{\"parts\": 7").expect("written");
    fail(tvlmc().arg("inspect").arg(&out), 3, &["quantization.json"]);
    // Recipes of a compiled folder come from it, and are not to be trusted.
    fail(tvlmc().arg("inspect").arg(&out).args(["--quant", "int4"]), 2, &["--quant", "compile it again"]);
    let manifest = std::fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let bent = manifest.replacen("\"Channels\": 384", "\"Channels\": 7", 1);
    assert_ne!(manifest, bent);
    std::fs::write(out.join("manifest.json"), bent).expect("written");
    fail(tvlmc().arg("inspect").arg(&out), 3, &["manifest.json: vision.activation_block", "Channels(7)"]);
}

#[test]
fn quantized_folders_verify_by_their_own_recipe_and_faults_show() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    // All formats in one model, from a file.
    let recipe = Recipe { name: "mixed".into(), head: INT4, projector: F32, ..named("int4") };
    let path = dir.path().join("mixed.ron");
    std::fs::write(&path, recipe.to_ron()).expect("written");
    succeed(compile(&nano("hf")).arg("--recipe").arg(&path).arg("-o").arg(&out));
    std::fs::remove_file(&path).expect("removed");
    let verify = || finish(tvlmc().arg("verify").arg(&out).arg("--checkpoint").arg(nano("hf")).arg("--json"));
    let good = verify();
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    for op in json(&good.stdout)["ops"].as_array().expect("a list") {
        let limit = limit_db(&recipe, op["name"].as_str().expect("a word"));
        assert_eq!(op["limit_db"].as_f64(), Some(limit));
    }
    // Scales of another matrix: the error is as large as the signal.
    let plan = out.join("src/plan/vision.rs");
    let code = std::fs::read_to_string(&plan).expect("the plan");
    let broken = code.replace("VISION_STAGE3_DOWNSAMPLE_1_WEIGHT + 4096", "VISION_STAGE2_DOWNSAMPLE_1_WEIGHT + 1024");
    assert_ne!(code, broken);
    std::fs::write(&plan, broken).expect("written");
    let bad = verify();
    assert_eq!(bad.code, 1, "{}{}", bad.stdout, bad.stderr);
    assert!(bad.stderr.contains("they part first at vision.stage3.downsample"), "{}", bad.stderr);
}
