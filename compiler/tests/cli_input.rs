//! Bad checkpoints and bad command lines: the exit code, a message that names what is wrong, and nothing written.

mod cli_support;
mod frontend_support;

use std::path::{Path, PathBuf};

use cli_support::{compile, copy, fail, finish, names, nano, succeed, tvlmc};
use frontend_support::{Folder, Tensor};
use models::Layout;
use serde_json::json;
use tempfile::TempDir;

/// Compiles the folder; it must be refused as bad input without a trace.
fn refused(folder: &Path, words: &[&str]) {
    let dir = TempDir::new().expect("a folder");
    fail(compile(folder).arg("-o").arg(dir.path().join("out")), 3, words);
    assert_eq!(names(dir.path()), [""; 0], "{words:?}");
}

/// A small checkpoint with one change.
fn changed(change: impl FnOnce(&mut Folder)) -> TempDir {
    let mut folder = Folder::new(Layout::FastVlm);
    change(&mut folder);
    folder.write()
}

fn header(header: &str, data: usize) -> TempDir {
    let bytes = frontend_support::file(header.as_bytes(), &vec![0; data]);
    changed(|folder| drop(folder.raw.insert("model.safetensors".into(), bytes)))
}

#[test]
fn headers() {
    let raw = |bytes: &[u8]| changed(|folder| drop(folder.raw.insert("model.safetensors".into(), bytes.to_vec())));
    refused(raw(&u64::MAX.to_le_bytes()).path(), &["model.safetensors", "truncated or not safetensors"]);
    refused(raw(b"").path(), &["model.safetensors", "has 0 bytes"]);
    let two = |second: &str, a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[4],"data_offsets":{a}}},"{second}":{{"dtype":"F32","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    refused(header(&two("b", "[0,16]", "[8,24]"), 24).path(), &["model.safetensors", "\"b\"", "overlap"]);
    refused(header(&two("b", "[0,16]", "[16,32]"), 24).path(), &["model.safetensors: truncated", "142", "150"]);
    refused(header(&two("a", "[0,16]", "[16,32]"), 32).path(), &["model.safetensors", "\"a\"", "twice"]);
    let one = |dtype: &str, shape: &str| {
        header(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,16]}}}}"#), 16)
    };
    refused(one("Q9", "[4]").path(), &["model.safetensors", "\"a\"", "Q9"]);
    refused(one("F32", "[0]").path(), &["model.safetensors", "\"a\"", "0"]);
    refused(one("F32", "[4294967296,4294967296,4294967296]").path(), &["model.safetensors", "\"a\"", "4294967296"]);
}

#[test]
fn shards() {
    let mut folder = Folder::new(Layout::FastVlm);
    folder.shards = 3;
    let dir = folder.write();
    std::fs::remove_file(dir.path().join("model-00002-of-00003.safetensors")).expect("removed");
    refused(dir.path(), &["model-00002-of-00003.safetensors"]);
    let index = json!({"weight_map": {"a": "../../etc/passwd"}}).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).expect("written");
    refused(dir.path(), &["model.safetensors.index.json", "../../etc/passwd"]);
}

#[test]
fn texts() {
    let tokenizer = b"{\"model\": \"\xff\"}".to_vec();
    let dir = changed(|folder| drop(folder.raw.insert("tokenizer.json".into(), tokenizer)));
    refused(dir.path(), &["tokenizer.json", "UTF-8"]);
    for (key, value) in
        [("num_hidden_layers", json!(1_000_000_000)), ("hidden_size", json!(-1)), ("vocab_size", json!(1e308))]
    {
        let dir = changed(|folder| folder.set("config.json", &format!("/text_config/{key}"), value));
        refused(dir.path(), &["config.json", key]);
    }
    let dir = changed(|folder| folder.set("config.json", "/text_config/hidden_act", json!("tanh")));
    refused(dir.path(), &["config.json", "hidden_act", "tanh"]);
    let dir = changed(|folder| folder.unset("config.json", "/model_type"));
    refused(dir.path(), &["config.json", "model_type"]);
}

#[test]
fn tensors() {
    let name = "model.language_model.layers.1.mlp.up_proj.weight";
    let dir = changed(|folder| drop(folder.tensors.remove(name)));
    refused(dir.path(), &[name, "missing"]);
    let dir = changed(|folder| folder.tensor(name).shape = vec![8, 16]);
    refused(dir.path(), &[name, "[8, 16]", "[16, 8]"]);
    let dir = changed(|folder| {
        let tensor = Tensor { dtype: "BF16", shape: vec![1], bytes: vec![0; 2] };
        folder.tensors.insert("model.language_model.layers.1.mlp.extra".into(), tensor);
    });
    refused(dir.path(), &["model.language_model.layers.1.mlp.extra"]);
}

#[test]
fn values_that_are_not_finite() {
    let name = "model.language_model.layers.1.mlp.up_proj.weight";
    let dir = TempDir::new().expect("a folder");
    let model = dir.path().join("model");
    copy(&nano("hf"), &model);
    let path = model.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    let n_header = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n_header]).expect("JSON");
    let at = 8 + n_header + header[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[at + 6..at + 8].copy_from_slice(&[0xc0, 0x7f]);
    std::fs::write(&path, bytes).expect("written");
    refused(&model, &["model.safetensors", name, "[0, 3]", "NaN", "--allow-non-finite"]);
    let allowed = |quant: &str| {
        let mut command = compile(&model);
        command.args(["--allow-non-finite", "--quant", quant]).arg("-o").arg(dir.path().join("out"));
        command
    };
    fail(&mut allowed("int4"), 3, &[name, "column 3 is NaN", "--quant f32"]);
    succeed(&mut allowed("f32"));
}

#[test]
fn paths_that_are_no_checkpoint() {
    let dir = TempDir::new().expect("a folder");
    refused(&dir.path().join("none"), &["none", "no such file or folder"]);
    refused(dir.path(), &["is it a checkpoint folder?"]);
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "x").expect("written");
    refused(&text, &["notes.txt", "neither a folder nor a .safetensors file"]);
}

/// A checkpoint whose weights were cut off.
fn damaged_hf(parent: &Path) -> PathBuf {
    let broken = parent.join("broken");
    copy(&nano("hf"), &broken);
    let weights = std::fs::OpenOptions::new().write(true).open(broken.join("model.safetensors")).expect("a file");
    let len = weights.metadata().expect("a length").len();
    weights.set_len(len - 1000).expect("cut off");
    broken
}

#[test]
fn command_lines() {
    let dir = TempDir::new().expect("a folder");
    let hf = nano("hf");
    let out = dir.path().join("out");
    for target in ["aarch64-apple-tvos", "wasm32-wasip1", "x86"] {
        let mut command = tvlmc();
        command.arg("compile").arg(&hf).args(["--target", target]).arg("-o").arg(&out);
        fail(&mut command, 2, &[target, "expected one of x86_64-unknown-linux-gnu", "wasm32-unknown-unknown"]);
    }
    fail(compile(&hf).args(["--quant", "int3"]).arg("-o").arg(&out), 2, &["int3", "did you mean `int4`?"]);
    fail(compile(&hf).args(["--context", "3"]).arg("-o").arg(&out), 2, &["context of 3"]);
    for name in ["Nano", "0", "self", "a/b", "a\"]"] {
        fail(compile(&hf).args(["--name", name]).arg("-o").arg(&out), 2, &["name"]);
    }
    fail(compile(&hf).args(["--max-ram", "1M"]).arg("-o").arg(&out), 1, &["--max-ram", "1,048,576"]);
    fail(compile(&hf).arg("-o").arg(hf.join("out")), 2, &["checkpoint's folder"]);
    // A slip of the order is told as such, not as one of the output's place.
    fail(
        compile(&hf.join("config.json")).arg("-o").arg(hf.join("out")),
        3,
        &["neither a folder nor a .safetensors file"],
    );
    fail(compile(&hf).arg("-o").arg(hf.join("..")), 2, &[]);
    fail(compile(&hf).arg("-o").arg(dir.path().join("none/out")), 4, &["none does not exist", "create it first"]);
    // The name that is made of the folder's, too, before any weight is read.
    let (broken, here) = (damaged_hf(dir.path()), dir.path().join("work"));
    std::fs::create_dir_all(here.join("broken-x86_64-unknown-linux-gnu")).expect("a folder");
    fail(compile(&broken).current_dir(&here), 2, &["broken-x86_64-unknown-linux-gnu exists already", "--force", "-o"]);
    std::fs::remove_dir_all(&here).expect("removed");
    fail(compile(&broken).arg("-o").arg(&out), 3, &["broken/model.safetensors", "truncated"]);
    std::fs::remove_dir_all(&broken).expect("removed");
    fail(compile(&hf).arg("--check").arg(&out), 3, &["is no folder"]);
    fail(&mut tvlmc(), 2, &["Usage"]);
    fail(tvlmc().arg("compile").arg(&hf), 2, &["--target"]);
    fail(tvlmc().arg("conpile"), 2, &["compile"]);
    assert_eq!(names(dir.path()), [""; 0]);
    assert!(!hf.join("out").exists());
}

#[test]
fn help_and_completions_are_results() {
    assert!(succeed(tvlmc().arg("--help")).contains("tvlmc demo"));
    assert!(succeed(tvlmc().arg("--version")).starts_with("tvlmc "));
    assert!(succeed(tvlmc().args(["completions", "bash"])).contains("compile"));
}

#[test]
fn inspect_tells_and_writes_nothing() {
    let text = succeed(tvlmc().arg("inspect").arg(nano("hf")));
    for word in ["fast_vlm", "model.safetensors", "BF16", "639,920", "9 tokens", "vision.stage4", "arena"] {
        assert!(text.contains(word), "{text}\n  should have: {word}");
    }
    let json = succeed(tvlmc().arg("inspect").arg(nano("llava")).arg("--json"));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["format"], "llava_qwen2");
    assert_eq!(json["files"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["image"]["tokens"], 9);
    let stages = json["macs"]["vision_stages"].as_array().expect("stages");
    let sum: u64 = stages.iter().filter_map(|stage| stage["macs"].as_u64()).sum();
    assert_eq!(Some(sum), json["macs"]["vision"].as_u64());
}

#[test]
fn quiet_is_quiet_and_a_closed_pipe_no_error() {
    let done = finish(tvlmc().arg("--quiet").arg("inspect").arg(nano("hf")));
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let call = {
        let mut call = tvlmc();
        call.args(["completions", "bash"]);
        call
    };
    let done = finish(&mut cli_support::in_shell("\"$@\" | true; echo done", &call));
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("done\n", ""));
}
