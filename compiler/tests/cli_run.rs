//! `run`, `verify` and `demo`: emitted crates are built by cargo, and answer as the reference does.
//!
//! The first run builds five crates, about half a minute each; later ones find most of them in the cache.

mod cli_support;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cli_support::{compile, fail, finish, nano, root, succeed, tvlmc};
use image::{DynamicImage, ImageFormat};
use serde_json::Value;
use tempfile::TempDir;

const PROMPT: &str = "Describe the image.";

fn picture() -> PathBuf {
    nano("hf").join("image.png")
}

fn reference(layout: &str, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(nano(layout).join("reference/image.safetensors")).expect("a reference");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a reference");
    let data = file.tensor(name).expect("a tensor").data();
    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight"))).collect()
}

fn run(model: &Path) -> std::process::Command {
    let mut command = tvlmc();
    command.arg("run").arg(model);
    command
}

fn json(command: &mut std::process::Command) -> Value {
    let text = succeed(command);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn ids(report: &Value, key: &str) -> Vec<i64> {
    report[key].as_array().expect("a list").iter().map(|id| id.as_i64().expect("an id")).collect()
}

#[test]
fn both_layouts_make_the_reference_s_tokens() {
    for layout in ["hf", "llava"] {
        let tokens = reference(layout, "tokens");
        let ask = |threads: &str| {
            let mut command = run(&nano(layout));
            command.args(["--quant", "f32", "--prompt", PROMPT, "--ignore-eos", "--json", "--threads", threads]);
            command.arg("--image").arg(picture()).arg("--max-new-tokens").arg(tokens.len().to_string());
            json(&mut command)
        };
        let report = ask("1");
        assert_eq!(ids(&report, "token_ids"), tokens, "{layout}");
        assert_eq!(ids(&report, "prompt_token_ids"), reference(layout, "input_ids"), "{layout}");
        for key in ["load", "preprocess", "vision", "prefill", "decode_per_token"] {
            assert!(report["timings_ms"][key].is_number(), "{report}");
        }
        assert!(report["peak_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{report}");
        assert_eq!(ask("2")["token_ids"], report["token_ids"]);
        assert_eq!(ask("2")["text"], report["text"]);
    }
}

#[test]
fn text_streams_and_the_first_run_says_that_it_compiles() {
    let done = finish(run(&nano("hf")).args(["--prompt", PROMPT, "--max-new-tokens", "3", "--image"]).arg(picture()));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.ends_with('\n') && !done.stdout.contains("token_ids"), "{:?}", done.stdout);
    let cache = TempDir::new().expect("a folder");
    let mut command = run(&nano("hf"));
    command.args(["--prompt", PROMPT]).env("TVLMC_CACHE", cache.path()).env("CARGO", "/nonexistent/cargo");
    fail(&mut command, 4, &["compiling into the cache", "/nonexistent/cargo is not there", "Rust toolchain"]);
}

#[test]
fn compiled_folders_run_and_verify() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    succeed(compile(&nano("hf")).args(["--quant", "f32"]).arg("-o").arg(&out));
    let ask = |command: &mut std::process::Command| {
        succeed(command.args(["--prompt", PROMPT, "--max-new-tokens", "4", "--image"]).arg(picture()))
    };
    assert_eq!(ask(&mut run(&out)), ask(run(&nano("hf")).args(["--quant", "f32"])));
    assert!(!out.join("target").exists(), "the folder is the user's");
    fail(tvlmc().arg("verify").arg(&out), 2, &["--checkpoint"]);
    fail(tvlmc().arg("verify").arg(&out).arg("--checkpoint").arg(nano("llava")), 3, &["another checkpoint"]);
    succeed(tvlmc().arg("verify").arg(&out).arg("--checkpoint").arg(nano("hf")));
    fail(run(&out).args(["--prompt", "x", "--context", "300"]), 2, &["--context"]);
    // A wrong constant in the code is found where it stands.
    let plan = out.join("src/plan/vision.rs");
    let code = std::fs::read_to_string(&plan).expect("the plan");
    let broken = code.replace("weights::VISION_STAGE2_0_MLP_FC2_BIAS", "weights::VISION_STAGE2_0_MIXER_BIAS");
    assert_ne!(code, broken);
    std::fs::write(&plan, broken).expect("written");
    let done = finish(tvlmc().arg("verify").arg(&out).arg("--checkpoint").arg(nano("hf")).arg("--json"));
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stdout.starts_with("{\"ok\":false"), "{}", done.stdout);
    assert!(done.stderr.contains("part first at vision.stage2.0.mlp (vision)"), "{}", done.stderr);
    assert!(succeed(tvlmc().arg("inspect").arg(&out)).contains("hf for x86_64"));
    // Weights of another model are refused before anything is computed.
    let other = dir.path().join("other");
    succeed(compile(&nano("llava")).args(["--quant", "f32"]).arg("-o").arg(&other));
    std::fs::copy(other.join("weights.tvlm"), out.join("weights.tvlm")).expect("copied");
    fail(run(&out).args(["--prompt", "x"]), 3, &["weights.tvlm"]);
}

#[test]
fn every_op_agrees_with_the_evaluator() {
    for layout in ["hf", "llava"] {
        let report = json(tvlmc().arg("verify").arg(nano(layout)).args(["--quant", "f32", "--json"]));
        assert_eq!(report["ok"], true, "{report}");
        let ops = report["ops"].as_array().expect("a list");
        assert!(ops.len() > 40, "{} ops", ops.len());
        for op in ops {
            assert!(op["snr_db"].as_f64().is_some_and(|snr| snr > 90.0), "{op}");
            assert!(op["max_abs"].is_number() && op["name"].is_string(), "{op}");
        }
    }
}

#[test]
fn sampling_is_repeatable() {
    let ask = |seed: &str| {
        let mut command = run(&nano("hf"));
        command.args(["--prompt", PROMPT, "--max-new-tokens", "20", "--ignore-eos", "--json", "--seed", seed]);
        command.args(["--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--repetition-penalty", "1.1"]);
        ids(&json(&mut command), "token_ids")
    };
    assert_eq!(ask("1"), ask("1"));
    assert_ne!(ask("1"), ask("2"));
}

#[test]
fn pictures() {
    let dir = TempDir::new().expect("a folder");
    let save = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let encode = |image: DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("an encoder");
        bytes.into_inner()
    };
    let ask = |path: &Path| {
        let mut command = run(&nano("hf"));
        command.args(["--prompt", PROMPT, "--max-new-tokens", "2", "--json", "--image"]).arg(path);
        command
    };
    // Taken: odd sizes, deep channels, gray, transparency.
    let deep = image::ImageBuffer::from_fn(31, 17, |x, y| image::Rgb([x as u16 * 2000, y as u16 * 3000, 40_000_u16]));
    let clear = image::RgbaImage::from_fn(20, 20, |x, y| image::Rgba([x as u8, y as u8, 9, (x * y) as u8]));
    for (name, image) in [
        ("one.png", DynamicImage::new_rgb8(1, 1)),
        ("long.png", DynamicImage::new_rgb8(20_000, 3)),
        ("deep.png", deep.into()),
        ("gray.png", DynamicImage::new_luma8(50, 40)),
        ("clear.png", clear.into()),
    ] {
        let report = json(&mut ask(&save(name, &encode(image, ImageFormat::Png))));
        assert_eq!(ids(&report, "token_ids").len(), 2, "{name}");
    }
    // Of an animation the first frame counts.
    let frames =
        [[200, 0, 0, 255], [0, 0, 200, 255]].map(|color| image::RgbaImage::from_pixel(8, 8, image::Rgba(color)));
    let animated = {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for frame in &frames {
            encoder.encode_frame(image::Frame::new(frame.clone())).expect("a frame");
        }
        drop(encoder);
        save("animated.gif", &bytes)
    };
    let still = save("still.png", &encode(frames[0].clone().into(), ImageFormat::Png));
    assert_eq!(json(&mut ask(&animated))["token_ids"], json(&mut ask(&still))["token_ids"]);
    // Refused, by name.
    let png = encode(DynamicImage::new_rgb8(64, 64), ImageFormat::Png);
    for (name, bytes, words) in [
        ("page.jpg", &b"<html>not found</html>"[..], &["page.jpg", "is no picture"][..]),
        ("half.png", &png[..png.len() / 2], &["half.png", "damaged or incomplete"]),
        ("empty.png", b"", &["empty.png", "is empty"]),
        ("bomb.ppm", b"P6\n65535 65535\n255\n", &["bomb.ppm", "65,535 x 65,535"]),
        ("ink.jpg", b"\xff\xd8\xff\xc0\0\x14\x08\0\x01\0\x01\x04", &["ink.jpg", "CMYK"]),
    ] {
        fail(&mut ask(&save(name, bytes)), 3, words);
    }
    fail(&mut ask(&dir.path().join("none.png")), 3, &["none.png", "no such file"]);
    fail(&mut ask(dir.path()), 3, &["is a folder"]);
    // Once more through a pipe.
    let mut child = ask(Path::new("-")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    child.stdin.take().expect("a pipe").write_all(&std::fs::read(picture()).expect("a picture")).expect("written");
    let piped = child.wait_with_output().expect("ended");
    let piped: Value = serde_json::from_slice(&piped.stdout).expect("JSON");
    assert_eq!(piped["token_ids"], json(&mut ask(&picture()))["token_ids"]);
}

#[test]
fn questions() {
    fail(run(&nano("hf")).args(["--prompt", ""]), 3, &["--prompt", "is empty"]);
    fail(run(&nano("hf")).arg("--prompt").arg("long ".repeat(60_000).get(..120_000).expect("text")), 3, &["512"]);
    fail(run(&nano("hf")).args(["--prompt", "x", "--level", "v9"]), 2, &["v9"]);
    fail(run(&nano("hf")).args(["--prompt", "x", "--threads", "0"]), 2, &["threads"]);
    fail(run(&nano("hf")).args(["--prompt", "x", "--temperature=-1"]), 2, &["temperature"]);
    fail(run(&nano("hf")).args(["--prompt", "x", "--image", "-", "--image", "-"]), 2, &["stdin"]);
    fail(&mut run(&nano("hf")), 2, &["--prompt"]);
    // Two pictures in one question.
    let mut command = run(&nano("hf"));
    command.args(["--prompt", PROMPT, "--max-new-tokens", "2", "--json"]);
    command.arg("--image").arg(picture()).arg("--image").arg(picture());
    let n_image = ids(&json(&mut command), "prompt_token_ids").iter().filter(|id| **id == 403).count();
    assert_eq!(n_image, 18);
}

#[test]
fn the_demo_gives_all_reference_answers() {
    let text = succeed(tvlmc().args(["demo", "--quant", "f32"]));
    assert!(text.ends_with("300 of 300 answers equal to the reference\n"), "{text}");
    let few = succeed(tvlmc().args(["demo", "--questions", "3"]));
    assert_eq!(few.lines().count(), 4);
    assert!(root().join("models/demo/eval/questions.jsonl").is_file());
}
