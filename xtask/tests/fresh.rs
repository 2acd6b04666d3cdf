//! Whole models: every drawn checkpoint gives the reference's tokens, from both its picture and its text.
//!
//! The checkpoints are drawn by `xtask/oracle/draw.sh` (other seeds, number formats, shards, the train form, the 0.5B
//! size) into `$TVLMC_ORACLE`; `cargo xtask full` does both.

use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;

/// What the reference recorded.
struct Recorded {
    prompt: String,
    input_ids: Vec<i64>,
    tokens: Vec<i64>,
}

#[test]
#[ignore = "minutes; cargo xtask full"]
fn drawn_checkpoints_give_the_references_tokens() {
    let Some(folder) = oracle() else {
        println!("skipped: neither TVLMC_ORACLE nor HOME is set, so no drawn checkpoints");
        return;
    };
    let mut checkpoints: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    checkpoints.retain(|path| path.join("reference/image.safetensors").is_file());
    checkpoints.sort();
    if checkpoints.is_empty() {
        println!("skipped: no drawn checkpoints in {}; xtask/oracle/draw.sh draws them", folder.display());
    }
    let mut wrong = Vec::new();
    for checkpoint in &checkpoints {
        for (kind, image) in [("image", Some(checkpoint.join("image.png"))), ("text", None)] {
            let expected = recorded(&checkpoint.join(format!("reference/{kind}.safetensors")));
            let report = ask(checkpoint, image.as_deref(), &expected);
            let name = format!("{}, {kind}", checkpoint.file_name().unwrap_or_default().display());
            println!("{name}: {} tokens, {}", expected.tokens.len(), report["timings_ms"]);
            for (key, ids) in [("prompt_token_ids", &expected.input_ids), ("token_ids", &expected.tokens)] {
                let found = numbers(&report[key]);
                if found != *ids {
                    wrong.push(format!("{name}: {key} are {found:?}, the reference's {ids:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As `cargo xtask` finds it.
fn oracle() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TVLMC_ORACLE").or_else(|| Some(set("TVLMC_CACHE")?.join("oracle"))).or_else(|| {
        let home = || Some(set("HOME")?.join(".cache"));
        Some(set("XDG_CACHE_HOME").or_else(home)?.join("tvlmc/oracle"))
    })
}

fn recorded(path: &Path) -> Recorded {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let prompt = header.metadata().as_ref().and_then(|m| m.get("prompt")).expect("a prompt").clone();
    let file = SafeTensors::deserialize(&bytes).expect("a reference");
    let ids = |name: &str| {
        let data = file.tensor(name).expect("a tensor").data();
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight"))).collect()
    };
    Recorded { prompt, input_ids: ids("input_ids"), tokens: ids("tokens") }
}

/// The report of `tvlmc run --json`.
fn ask(checkpoint: &Path, image: Option<&Path>, expected: &Recorded) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--release", "--package", "tvlmc", "--", "run"]).arg(checkpoint);
    command.args(["--quant", "f32", "--json", "--ignore-eos", "--prompt", &expected.prompt]);
    command.arg("--max-new-tokens").arg(expected.tokens.len().to_string());
    if let Some(image) = image {
        command.arg("--image").arg(image);
    }
    let out = command.output().expect("cargo runs");
    assert!(out.status.success(), "{}: {}", checkpoint.display(), String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON object")
}

fn numbers(list: &Value) -> Vec<i64> {
    list.as_array().map(|ids| ids.iter().filter_map(Value::as_i64).collect()).unwrap_or_default()
}
