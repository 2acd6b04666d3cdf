//! `tvlmc compile --target wasm32-unknown-unknown`: the folder is whole, the same each time, and told apart from others.

mod cli_support;

use std::path::Path;
use std::process::Command;

use cli_support::{assert_same_tree, fail, nano, succeed, tvlmc};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tvlmc::assemble::hex;

fn compile(model: &Path) -> Command {
    let mut command = tvlmc();
    command.arg("compile").arg(model).args(["--target", "wasm32-unknown-unknown"]);
    command
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_folder_is_whole_and_the_same_each_time() {
    let dir = TempDir::new().expect("a folder");
    let outs = ["a", "b"].map(|name| dir.path().join(name));
    for out in &outs {
        succeed(compile(&nano("hf")).arg("-o").arg(out));
    }
    assert_same_tree(&outs[0], &outs[1]);
    let model: Json = serde_json::from_slice(&read(&outs[0].join("model.json"))).expect("JSON");
    let number = |value: &Json| value.as_u64().expect("a number");
    let (mut whole, mut largest) = (Vec::new(), 0);
    for piece in model["shards"].as_array().expect("a list") {
        let bytes = read(&outs[0].join(piece["name"].as_str().expect("a name")));
        assert_eq!(number(&piece["bytes"]), bytes.len() as u64);
        assert_eq!(piece["sha256"], hex(&Sha256::digest(&bytes)));
        largest = largest.max(bytes.len());
        whole.extend(bytes);
    }
    assert!(largest <= 32 << 20);
    assert_eq!(model["file"]["sha256"], hex(&Sha256::digest(&whole)));
    assert_eq!(number(&model["file"]["bytes"]), whole.len() as u64);
    assert_eq!(hex(&whole[32..64]), model["digest"].as_str().expect("a digest"));
    // Weights arrive in the order of the steps, and no step waits for more than there is.
    let header = number(&model["file"]["header_end"]);
    for phase in model["phases"].as_array().expect("a list") {
        for step in phase["steps"].as_array().expect("a list") {
            let end = number(&step["weights_end"]);
            assert!(end == 0 || (header..=whole.len() as u64).contains(&end), "{step}");
        }
    }
    for module in ["simd128", "relaxed", "threads"] {
        for part in ["kernels", "runtime"] {
            let path = model["modules"][module][part].as_str().expect("a path");
            assert!(read(&outs[0].join(path)).starts_with(b"\0asm"), "{path}");
        }
    }
    let page = String::from_utf8(read(&outs[0].join("js/assets.js"))).expect("text");
    assert!(page.contains("new URL(\"../weights/weights-00000.bin\", import.meta.url)"), "{page}");
}

#[test]
fn a_folder_is_compared_with_what_would_be_emitted() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    succeed(compile(&nano("hf")).arg("-o").arg(&out));
    succeed(compile(&nano("hf")).arg("--check").arg(&out));
    let check = |word: &str| {
        let done = cli_support::finish(compile(&nano("hf")).arg("--check").arg(&out));
        assert_eq!(done.code, 1, "{}", done.stderr);
        assert!(done.stdout.contains(word), "{}", done.stdout);
    };
    let piece = out.join("weights/weights-00000.bin");
    let mut bytes = read(&piece);
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&piece, bytes).expect("written");
    check("model.json: is not what would be emitted now");
    std::fs::remove_file(out.join("wasm/kernels-relaxed.wasm")).expect("removed");
    check("wasm/kernels-relaxed.wasm: is missing");
    std::fs::write(out.join("extra"), "").expect("written");
    check("extra: would not be emitted");
}

#[test]
fn what_the_target_does_not_have_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    fail(compile(&nano("hf")).args(["--tuned", "-o"]).arg(&out), 2, &["--tuned", "not for wasm32-unknown-unknown"]);
    assert!(!out.exists());
    succeed(compile(&nano("hf")).arg("-o").arg(&out));
    fail(compile(&nano("hf")).arg("-o").arg(&out), 2, &["exists already"]);
    succeed(compile(&nano("hf")).arg("--force").arg("-o").arg(&out));
    let run = ["--prompt", "What is this?"];
    fail(tvlmc().arg("run").arg(&out).args(run), 3, &["was compiled for wasm32-unknown-unknown"]);
}
