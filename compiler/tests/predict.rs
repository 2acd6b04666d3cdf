//! Predictions: device files, their faults, and what has to hold of times whatever the numbers are.

mod cli_support;

use std::path::{Path, PathBuf};

use cli_support::{fail, nano, root, succeed, tvlmc};
use kernels::{Counter, ParamKind, legalize};
use models::Recipe;
use serde_json::Value as Json;
use tempfile::TempDir;
use tvlmc::frontend::{Checkpoint, OpenOptions};
use tvlmc::machine::Machine;
use tvlmc::pipeline::{Options, Prepared, prepare};
use tvlmc::predict::{Bound, Cluster, Device, Kind, PhaseTime, Prediction, Predictor, Products};

/// Rows of a prompt that every model here has room for.
const ROWS: usize = 100;

fn demo() -> PathBuf {
    root().join("models/demo")
}

fn named(name: &str) -> Device {
    Device::named(name).unwrap_or_else(|e| panic!("{e}"))
}

fn prepared(folder: &Path, recipe: &str, device: &Device) -> Prepared {
    let checkpoint = Checkpoint::open(folder, &OpenOptions::default()).expect("a checkpoint");
    let recipe = Recipe::named(recipe).expect("built in");
    let machine = Machine::of_triple(&device.target).expect("checked");
    let options = Options { recipe: Some(&recipe), machine, ..Options::default() };
    prepare(&checkpoint, &options).unwrap_or_else(|e| panic!("{e}"))
}

fn predict(prepared: &Prepared, device: &Device, threads: usize) -> Prediction {
    let mut predictor = Predictor::new(prepared, device).unwrap_or_else(|e| panic!("{e}"));
    predictor.predict(threads, ROWS).unwrap_or_else(|e| panic!("{e}"))
}

/// Without what more threads cost by themselves.
fn work(phase: &PhaseTime) -> f64 {
    phase.ms() - phase.kinds()[Kind::Barrier as usize]
}

/// Eight equal cores of a phone without a cache: all weights come from memory.
fn equal() -> Device {
    let level = |whole| Products { whole, halves: whole };
    let products = [("aarch64-dotprod", 32.0), ("aarch64-neon", 8.0)];
    let cluster = Cluster {
        name: "core".into(),
        cores: 8,
        ghz: 2.0,
        products: products.into_iter().map(|(name, whole)| (name.into(), level(whole))).collect(),
        f32_fused: 8.0,
        f32_apart: 4.0,
        read_gbs: 6.0,
    };
    Device { clusters: vec![cluster], read_gbs: 15.0, cache_mb: 0.001, ..named("raspberry-pi-5") }
}

#[test]
fn every_device_says_where_its_numbers_are_from() {
    let folder = root().join("models/devices");
    let mut files: Vec<String> = cli_support::names(&folder);
    let mut known: Vec<String> = Device::list().map(|name| format!("{name}.ron")).collect();
    files.sort();
    known.sort();
    assert_eq!(files, known, "files and built-in devices");
    for name in Device::list() {
        let device = named(name);
        assert_eq!(device.name, name);
        assert!(device.sources.len() > 100 && !device.sources.contains('\n'), "{name}: {}", device.sources);
        assert!(device.sources.contains("estimate") || device.sources.contains("measures"), "{name}");
        for recipe in ["int4", "f32"] {
            let prepared = prepared(&nano("hf"), recipe, &device);
            let mut predictor = Predictor::new(&prepared, &device).unwrap_or_else(|e| panic!("{e}"));
            let best = predictor.best(ROWS).unwrap_or_else(|e| panic!("{e}"));
            assert!(best.first_token_ms() > 0.0 && best.first_token_ms().is_finite(), "{name}, {recipe}");
            assert!((1..=device.cores()).contains(&best.threads()), "{name}, {recipe}");
        }
    }
}

#[test]
fn counted_multiply_adds_are_those_of_the_plan() {
    let device = equal();
    for recipe in ["int4", "int8", "f32"] {
        let prepared = prepared(&demo(), recipe, &device);
        let target = prepared.targets[0].as_ref();
        let mut counter = Counter::default();
        let mut compared = 0;
        for step in prepared.program.decode.steps.iter().filter(|step| step.macs > 0) {
            let kernel = legalize(&step.kernels[0], target);
            let sizes = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Size(_)));
            let last = step.units.count(1) as i64;
            let sizes: Vec<i64> = sizes.map(|p| if p.name == "last" { last } else { 0 }).collect();
            let work = counter.count(&kernel, &sizes);
            let counted: u64 = work.kernels.values().map(|c| 4 * (c.dots + c.half_dots) + c.fused).sum();
            // A norm before a product of floats fuses some more.
            let most = step.macs + step.macs / 8;
            assert!(
                (step.macs..=most).contains(&counted),
                "{recipe}, {}: {} in the plan, {counted}",
                step.name,
                step.macs
            );
            compared += 1;
        }
        assert!(compared >= 4, "{recipe}: {compared} products");
    }
}

#[test]
fn phases_are_the_sums_of_their_steps() {
    for (folder, recipe) in [(nano("hf"), "int4"), (nano("llava"), "f32"), (demo(), "int4"), (demo(), "int8")] {
        let device = named("pixel-8");
        let prepared = prepared(&folder, recipe, &device);
        let prediction = predict(&prepared, &device, 5);
        assert_eq!(prediction.cores, [("Cortex-X3".to_string(), 1), ("Cortex-A715".to_string(), 4)]);
        assert_eq!(prediction.phases.len(), 3);
        for phase in &prediction.phases {
            let steps: f64 = phase.steps.iter().map(|step| step.ms()).sum();
            let kinds: f64 = phase.kinds().iter().sum();
            assert!((steps - phase.ms()).abs() <= 1e-9 * steps && (kinds - steps).abs() <= 1e-9 * steps);
            assert!(phase.steps.iter().all(|step| step.kinds.iter().all(|ms| ms.is_finite() && *ms >= 0.0)));
        }
        let first = prediction.phases[0].ms() + prediction.phases[1].ms();
        assert!((prediction.first_token_ms() - first).abs() < 1e-9);
        assert_eq!(prediction.phases[0].steps.len(), prepared.program.vision.steps.len());
    }
}

#[test]
fn more_of_anything_is_not_slower() {
    for folder in [nano("hf"), demo()] {
        for recipe in ["int4", "f32"] {
            let device = equal();
            let prepared = prepared(&folder, recipe, &device);
            let times = |device: &Device, threads| predict(&prepared, device, threads).phases;
            let check = |slow: &[PhaseTime], fast: &[PhaseTime], what: &str| {
                for (slow, fast) in slow.iter().zip(fast) {
                    let (slow_ms, fast_ms) = (work(slow), work(fast));
                    assert!(fast_ms <= slow_ms * (1.0 + 1e-9), "{recipe}, {}: {what}: {slow_ms} {fast_ms}", slow.name);
                }
            };
            for threads in 1..8 {
                check(&times(&device, threads), &times(&device, threads + 1), "a thread more");
            }
            let mut wide = device.clone();
            wide.read_gbs *= 2.0;
            wide.clusters[0].read_gbs *= 2.0;
            let (narrow, wide) = (times(&device, 2), times(&wide, 2));
            check(&narrow, &wide, "twice the bandwidth");
            assert!(work(&narrow[2]) > work(&wide[2]), "{recipe}: a token reads weights");
            let mut quick = device.clone();
            quick.clusters[0].ghz *= 2.0;
            check(&times(&device, 2), &times(&quick, 2), "twice the clock");
        }
    }
}

#[test]
fn float_weights_decode_slower_than_nibbles_and_are_bound_by_memory() {
    let device = equal();
    for folder in [nano("hf"), demo()] {
        let [f32, int4] = ["f32", "int4"].map(|recipe| predict(&prepared(&folder, recipe, &device), &device, 4));
        assert!(f32.phases[2].ms() > int4.phases[2].ms(), "{} {}", f32.phases[2].ms(), int4.phases[2].ms());
        assert!(f32.phases[2].bytes() > 4 * int4.phases[2].bytes());
        assert_eq!(f32.phases[2].bound(), Bound::Memory);
        assert_eq!((f32.level.as_str(), int4.level.as_str()), ("aarch64-neon", "aarch64-dotprod"));
        let of = |p: &Prediction, kind: Kind| p.phases.iter().map(|phase| phase.kinds()[kind as usize]).sum::<f64>();
        assert_eq!(of(&f32, Kind::Integers), 0.0, "no product of a float model is of integers");
        assert!(
            of(&int4, Kind::Integers) > 0.0 && of(&int4, Kind::Depthwise) > 0.0 && of(&int4, Kind::Attention) > 0.0
        );
    }
}

#[test]
fn the_command_prints_a_table_and_json() {
    let call = |more: &[&str]| {
        let mut command = tvlmc();
        command.arg("predict").arg(nano("hf")).args(["--device", "raspberry-pi-5"]).args(more);
        succeed(&mut command)
    };
    let text = call(&["--steps"]);
    for words in [
        "Raspberry Pi 5",
        "vision",
        "prefill",
        "decode",
        "bound by",
        "first token",
        "Sources: ",
        "level aarch64-dotprod",
        "activations, norms, quantizing",
        "a session that is not told takes one for each fast core of a phone",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let asked = ["--json", "--threads", "3", "--prompt-rows", "40", "--quant", "f32"];
    let short = call(&asked);
    assert!(short.len() < 6000, "{} bytes: {short}", short.len());
    let mut short: Json = serde_json::from_str(&short).expect("JSON");
    let json: Json = serde_json::from_str(&call(&[&asked[..], &["--steps"]].concat())).expect("JSON");
    assert_eq!((&json["threads"], &json["level"]), (&3.into(), &"aarch64-neon".into()));
    // The short form lacks the steps and nothing else.
    for (short, whole) in
        short["phases"].as_array_mut().expect("phases").iter_mut().zip(json["phases"].as_array().expect("phases"))
    {
        assert!(short.get("steps").is_none());
        short["steps"] = whole["steps"].clone();
    }
    assert_eq!(short, json);
    let phases = json["phases"].as_array().expect("phases");
    for phase in phases {
        let steps = phase["steps"].as_array().expect("steps");
        let sum: f64 = steps.iter().map(|step| step["ms"].as_f64().expect("a number")).sum();
        assert!((sum - phase["ms"].as_f64().expect("a number")).abs() < 1e-9);
    }
    let x86 = call(&["--target", "aarch64-linux-android", "--json"]);
    assert_eq!(serde_json::from_str::<Json>(&x86).expect("JSON")["target"], "aarch64-linux-android");
}

#[test]
fn faults_are_named() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("mine.ron");
    let call = |device: &Path, more: &[&str]| {
        let mut command = tvlmc();
        command.arg("predict").arg(nano("hf")).arg("--device").arg(device).args(more);
        command
    };
    let refuse = |device: &str, more: &[&str], code: i32, words: &[&str]| {
        fail(&mut call(Path::new(device), more), code, words);
    };
    refuse("pixel8", &[], 2, &["unknown device", "did you mean \"pixel-8\"?", "iphone-17", "no file of this name"]);
    refuse("pixel9", &[], 2, &["unknown device", "the nearest is \"pixel-8\"", "galaxy-a15"]);
    refuse("iPhone 16 Pro", &[], 2, &["unknown device", "the nearest is \"iphone-17\""]);
    refuse("nokia", &[], 2, &["unknown device \"nokia\"; the built-in ones are iphone-17"]);
    refuse("pixel-8", &["--threads", "0"], 2, &["--threads 0", "1 to 9 cores"]);
    refuse("pixel-8", &["--prompt-rows", "4"], 2, &["--prompt-rows 4", "positions, and its question more"]);
    refuse("pixel-8", &["--prompt-rows", "100000"], 2, &["--prompt-rows 100000", "--context makes it larger"]);
    refuse("pixel-8", &["--target", "x86_64-unknown-linux-gnu"], 2, &["none of the levels", "x86-64-v3", "--target"]);
    refuse("pixel-8", &["--target", "aarch64"], 2, &["--target", "unknown"]);
    fail(&mut call(&dir.path().join("none.ron"), &[]), 3, &["cannot read the device", "none.ron"]);
    let text = std::fs::read_to_string(root().join("models/devices/pixel-8.ron")).expect("a file");
    let broken = |from: &str, to: &str, words: &[&str]| {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
        fail(&mut call(&path, &[]), 3, words);
    };
    broken("ghz: 2.91", "gzh: 2.91", &["mine.ron:", "gzh", "ghz"]);
    broken("ghz: 2.91", "ghz: 0.0", &["mine.ron: clusters.Cortex-X3.ghz", "a number from 0.001"]);
    broken("aarch64-linux-android", "aarch64-linux-androd", &["mine.ron: target", "did you mean"]);
    broken(
        "\"aarch64-i8mm\"",
        "\"aarch64-i8m\"",
        &["products.aarch64-i8m: there is no such level (did you mean \"aarch64-i8mm\"?)"],
    );
    broken("cores: 1,", "cores: 0,", &["mine.ron: clusters", "at least 1"]);
    std::fs::write(&path, text).expect("written");
    assert!(succeed(&mut call(&path, &["--threads", "1"])).contains("Pixel 8"));
}
