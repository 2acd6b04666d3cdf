//! `compile --system-prompt`: the cache after a fixed system message is kept with the weights, and answers are those of a
//! model that reads the message itself.

mod cli_support;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::path::Path;

use cli_support::{assert_same_tree, compile, fail, finish, nano, succeed, tvlmc};
use serde_json::Value;
use tempfile::TempDir;
use tvlmc::assemble::{Options, assemble};
use tvlmc::output::Staging;

const SYSTEM: &str = "You answer in one word. Never two; \"three\" at most.\nBe kind.";

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&succeed(command)).expect("JSON")
}

/// A compiled folder with the same system message, which it reads in every conversation.
fn unbaked(checkpoint: &Path, recipe: &str, out: &Path) {
    let recipe = models::Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let options =
        Options { name: Some("nano"), recipe: Some(recipe), system: Some(SYSTEM.into()), ..Options::default() };
    let assembled = assemble(checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
    let staging = Staging::begin(out, false).unwrap_or_else(|e| panic!("{e}"));
    assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
    staging.commit().unwrap_or_else(|e| panic!("{e}"));
}

fn check(layout: &str, quant: &str) {
    let dir = TempDir::new().expect("a folder");
    let (out, plain, told) = (dir.path().join("baked"), dir.path().join("plain"), dir.path().join("system.txt"));
    std::fs::write(&told, format!("{SYSTEM}\n")).expect("written");
    let mut from_file = std::ffi::OsString::from("@");
    from_file.push(&told);
    let common = ["--quant", quant, "--name", "nano", "--system-prompt"];
    succeed(compile(&nano(layout)).args(common).arg(&from_file).arg("-o").arg(&out));
    unbaked(&nano(layout), quant, &plain);
    let ask = |folder: &Path, last: &[&str]| {
        let mut command = tvlmc();
        command.arg("run").arg(folder).args(["--prompt", "What is this?", "--max-new-tokens", "9", "--ignore-eos"]);
        json(command.arg("--image").arg(nano("hf").join("image.png")).arg("--json").args(last))
    };
    for last in [&["--threads", "1"][..], &["--threads", "3", "--temperature", "0.8", "--seed", "2"]] {
        let (baked, read) = (ask(&out, last), ask(&plain, last));
        for key in ["text", "token_ids", "prompt_token_ids"] {
            assert_eq!(baked[key], read[key], "{layout} as {quant}, {last:?}: {key}");
        }
    }
    // The message is part of the model: another one has other tokens before the question.
    let usual = tvlmc()
        .arg("run")
        .arg(nano(layout))
        .args(["--quant", quant, "--prompt", "What is this?", "--max-new-tokens", "1", "--json"])
        .output()
        .expect("runs");
    let usual: Value = serde_json::from_slice(&usual.stdout).expect("JSON");
    assert_ne!(usual["prompt_token_ids"], ask(&out, &[])["prompt_token_ids"]);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(out.join("manifest.json")).expect("there")).expect("JSON");
    assert_eq!(manifest["system_prompt"], SYSTEM);
    // The same again, from the text itself; and it is what is checked.
    let again = dir.path().join("again");
    succeed(compile(&nano(layout)).args(common).arg(SYSTEM).arg("-o").arg(&again));
    assert_same_tree(&out, &again);
    succeed(compile(&nano(layout)).args(common).arg(SYSTEM).arg("--check").arg(&out));
    let other = finish(compile(&nano(layout)).args(common).arg("Another.").arg("--check").arg(&out));
    assert_eq!((other.code, other.stdout.contains("Another.")), (1, true), "{}", other.stdout);
    let verified = succeed(tvlmc().arg("verify").arg(&out).arg("--checkpoint").arg(nano(layout)));
    assert!(!verified.is_empty());
}

#[test]
fn of_an_int4_model() {
    check("llava", "int4");
}

#[test]
fn of_a_model_of_floats() {
    check("hf", "f32");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    let ask = |text: &str| {
        let mut command = compile(&nano("hf"));
        command.arg("-o").arg(&out).arg("--system-prompt").arg(text);
        command
    };
    fail(&mut ask(""), 2, &["--system-prompt", "no text"]);
    fail(&mut ask("@/nowhere/prompt.txt"), 3, &["/nowhere/prompt.txt"]);
    let latin = dir.path().join("latin");
    std::fs::write(&latin, [b'a', 0xe4]).expect("written");
    fail(&mut ask(&format!("@{}", latin.display())), 3, &["latin", "UTF-8 at byte 1"]);
    // Before anything is built.
    let long = "long ".repeat(600);
    fail(ask(&long).env("CARGO", "/nowhere/cargo"), 3, &["--system-prompt", "of the context's 512", "shorten it"]);
    fail(ask("Short.").env("CARGO", "/nowhere/cargo"), 4, &["/nowhere/cargo", "Rust toolchain"]);
    assert!(!out.exists());
}

/// What a page says with a message that is kept in its weight file is what the native program says.
#[test]
fn of_a_page() {
    if !machine::has_node() {
        println!("skipped: system messages of pages: no node");
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let (native, page, script) = (dir.path().join("native"), dir.path().join("page"), dir.path().join("ask.mjs"));
    let common = ["--quant", "int4", "--name", "nano", "--system-prompt", SYSTEM];
    succeed(compile(&nano("llava")).args(common).arg("-o").arg(&native));
    let mut web = tvlmc();
    web.arg("compile").arg(nano("llava")).args(["--target", "wasm32-unknown-unknown"]).args(common);
    succeed(web.arg("-o").arg(&page));
    let said = json(tvlmc().arg("run").arg(&native).args([
        "--prompt",
        "What is this?",
        "--max-new-tokens",
        "9",
        "--ignore-eos",
        "--json",
    ]));
    let text = "import { load } from './page/index.js';\n\
                const model = await load({ cache: 'none' });\n\
                const { text, promptTokens, timings } = await model.ask('What is this?', { maxNewTokens: 9, ignoreEos: true }).result;\n\
                await model.close();\n\
                console.log(JSON.stringify({ text, promptTokens, rows: timings.prefillRows }));\n";
    std::fs::write(&script, text).expect("written");
    let told = json(std::process::Command::new("node").arg("ask.mjs").current_dir(dir.path()));
    assert_eq!(told["text"], said["text"]);
    let prompt = said["prompt_token_ids"].as_array().expect("a list").len();
    assert_eq!(told["promptTokens"], prompt);
    // The message itself is not read again.
    assert!(told["rows"].as_u64().is_some_and(|rows| rows < prompt as u64), "{told}");
}
