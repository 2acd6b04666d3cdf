//! `--sides` and `--side`: what a native package is compiled for, what it tells, and which of them a picture gets.

mod cli_support;

use std::path::Path;

use cli_support::{compile, fail, nano, succeed, tvlmc};
use serde_json::Value as Json;
use tempfile::TempDir;

fn json(command: &mut std::process::Command) -> Json {
    serde_json::from_str(&succeed(command.arg("--json"))).expect("JSON")
}

fn several(folder: &Path) -> std::path::PathBuf {
    let out = folder.join("out");
    succeed(compile(&nano("hf")).args(["--quant", "int4", "--sides", "192,64", "-o"]).arg(&out));
    out
}

#[test]
fn folders_tell_their_sides() {
    let dir = TempDir::new().expect("a folder");
    let out = several(dir.path());
    let told = |report: &Json| -> Vec<(u64, u64)> {
        let number = |side: &Json, key: &str| side[key].as_u64().expect("a number");
        let sides = report["sides"].as_array().expect("a list");
        sides.iter().map(|side| (number(side, "side"), number(side, "tokens"))).collect()
    };
    assert_eq!(told(&json(tvlmc().arg("inspect").arg(&out))), [(64, 1), (192, 9)]);
    let text = succeed(tvlmc().arg("inspect").arg(&out));
    assert!(text.contains("192 x 192 pixels, 9 tokens") && text.contains("64 x 64 pixels, 1 tokens, "), "{text}");
    let mut would = tvlmc();
    would.arg("inspect").arg(nano("hf")).args(["--quant", "int4", "--sides", "64,128"]);
    assert_eq!(told(&json(&mut would)), [(64, 1), (128, 4)]);
    assert_eq!(told(&json(tvlmc().arg("inspect").arg(nano("hf")))), [(192, 9)]);
    // The same folder comes out again, whatever the order.
    succeed(compile(&nano("hf")).args(["--quant", "int4", "--sides=64,192", "--check"]).arg(&out));
    fail(tvlmc().arg("inspect").arg(&out).args(["--sides", "64"]), 2, &["--sides: the folder was compiled already"]);
}

#[test]
fn sides_that_are_not_there_are_refused() {
    let dir = TempDir::new().expect("a folder");
    let out = several(dir.path());
    let new = dir.path().join("new");
    for (sides, words) in [
        ("100", "100: this model takes 192, its own, and smaller multiples of 64"),
        ("64,256", "256: this model takes 192"),
        ("64,64", "64 is named twice"),
    ] {
        fail(compile(&nano("hf")).args(["--sides", sides, "-o"]).arg(&new), 2, &["side of pictures: ", words]);
        assert!(!new.exists());
    }
    let ask = |side: &str| {
        let mut command = tvlmc();
        command
            .arg("run")
            .arg(&out)
            .args(["--prompt", "x", "--side", side, "--image"])
            .arg(nano("hf").join("image.png"));
        command
    };
    fail(&mut ask("128"), 2, &["--side 128: ", "was compiled for 64 and 192", "--sides"]);
    fail(&mut ask("64,192"), 2, &["--side: 2 sides for 1 pictures: give one for all, or one for each"]);
    let device = ["--device", "raspberry-pi-5"];
    fail(tvlmc().arg("predict").arg(nano("hf")).args(device).args(["--side", "100"]), 2, &["this model takes 192"]);
}

#[test]
fn a_smaller_side_is_predicted_to_take_less() {
    let predict = |more: &[&str]| {
        let mut command = tvlmc();
        json(command.arg("predict").arg(nano("hf")).args(["--device", "raspberry-pi-5", "--quant", "int4"]).args(more))
    };
    let (own, small) = (predict(&[]), predict(&["--side", "64"]));
    assert_eq!((&own["side"], &small["side"]), (&192.into(), &64.into()));
    for phase in 0..2 {
        let ms = |report: &Json| report["phases"][phase]["ms"].as_f64().expect("a number");
        assert!(ms(&small) < ms(&own), "phase {phase}: {} ms at 64, {} ms at 192", ms(&small), ms(&own));
    }
}

#[test]
#[ignore = "builds three crates; cargo xtask full"]
fn pictures_of_two_sides_are_asked_about_together() {
    let dir = TempDir::new().expect("a folder");
    let out = several(dir.path());
    let picture = nano("hf").join("image.png");
    let ask = |model: &Path, side: &str| {
        let mut command = tvlmc();
        command.arg("run").arg(model).args(["--quant", "int4"]).args(["--prompt", "What is this?", "--side", side]);
        command.arg("--image").arg(&picture).arg("--image").arg(&picture);
        command
    };
    let compiled = |side: &str| {
        let mut command = tvlmc();
        command.arg("run").arg(&out).args(["--prompt", "What is this?", "--side", side]);
        json(command.arg("--image").arg(&picture).arg("--image").arg(&picture))
    };
    // A checkpoint is compiled for what is asked.
    let both = json(&mut ask(&nano("hf"), "64,192"));
    assert_eq!(both["token_ids"], compiled("64,192")["token_ids"]);
    assert_eq!(both["prompt_token_ids"], compiled("64,192")["prompt_token_ids"]);
    // Weights that several sides share are those of one side.
    let mut own = tvlmc();
    own.arg("run").arg(nano("hf")).args(["--quant", "int4", "--prompt", "What is this?"]);
    let own = json(own.arg("--image").arg(&picture).arg("--image").arg(&picture));
    assert_eq!(own["token_ids"], compiled("192")["token_ids"]);
    let peak = |report: &Json| report["peak_bytes"].as_u64().expect("a size");
    assert!(peak(&compiled("64")) < peak(&compiled("192")), "a smaller picture has fewer pixels and rows");
    for side in ["64", "192"] {
        let mut verify = tvlmc();
        verify.arg("verify").arg(&out).arg("--checkpoint").arg(nano("hf")).args(["--side", side]);
        assert_eq!(json(&mut verify)["ok"], true);
    }
}
