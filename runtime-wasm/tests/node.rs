//! The module in Node, with kernels that stand in for compiled ones: conversations word for word those of a native session,
//! whether work is done in whole phases or in slices, and refusals instead of traps.

#[path = "../../runtime-min/tests/common/mod.rs"]
mod common;
#[path = "node/native.rs"]
mod native;
#[path = "../../compiler/src/shared_memory.rs"]
mod shared_memory;
#[path = "../../runtime-min/tests/tok_support/mod.rs"]
mod tok_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_min::{ImagePolicy, Info, Model, OpenOptions, Program};
use serde_json::{Value, json};

/// A folder that goes away with its value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).expect("a file");
    }
}

/// Runs a script of `tests/node` on a folder; what it prints, as JSON. None where there is no Node.
fn node(script: &str, folder: &Folder) -> Option<Value> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let done = match Command::new("node").arg(tests.join(script)).arg(&folder.0).output() {
        Ok(done) => done,
        Err(error) => {
            println!("skipped: {script}: node: {error}");
            return None;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{script}: {}\n{out}\n{err}", done.status);
    Some(serde_json::from_str(&out).unwrap_or_else(|error| panic!("{script}: {error}: {out}\n{err}")))
}

fn image(side: usize, channels: usize, value: u64, at: usize) -> Value {
    json!({ "do": "image", "width": side + 1, "height": side, "channels": channels, "value": value, "side": at })
}

fn ask(images: &[usize], text: &str, options: Value) -> Value {
    json!({ "do": "ask", "images": images, "text": text, "options": options })
}

/// What is done in all ways: each kind of job, and each kind of refusal that a user can cause.
fn script() -> Vec<Value> {
    let turn = |images: &[usize], question: &str, answer: &str| json!({ "images": images, "question": question, "answer": answer });
    let after = |turns: Value, images: &[usize], text: &str| json!({ "do": "after", "turns": turns, "images": images, "text": text, "options": {} });
    let sampled = json!({ "temperature": 1.5, "topK": 200, "topP": 0.95, "repetitionPenalty": 1.1, "seed": 3, "ignoreEos": true, "maxNewTokens": 12 });
    vec![
        ask(&[], "hello", json!({})),
        ask(&[], "and now? \u{e4}\u{1f600}", json!({ "maxNewTokens": 5, "ignoreEos": true })),
        image(9, 3, 40, 0),
        image(5, 4, 7, 2),
        image(4, 3, 1, 4),
        ask(&[0], "what is it?", json!({ "ignoreEos": true, "maxNewTokens": 30 })),
        json!({ "do": "reset" }),
        ask(&[1, 2, 0], "and these?", json!({ "ignoreEos": true, "maxNewTokens": 30, "speculation": 0 })),
        json!({ "do": "reset" }),
        ask(&[1, 2, 0], "and these?", sampled.clone()),
        ask(&[], "more of it", sampled),
        json!({ "do": "reset" }),
        ask(&[], "aabaabaab", json!({ "ignoreEos": true, "maxNewTokens": 60 })),
        after(json!([turn(&[0], "what?", "abc"), turn(&[], "so?", "")]), &[1], "and?"),
        after(json!([turn(&[0], "what?", "abc"), turn(&[], "so?", "")]), &[1], "and then?"),
        after(json!([]), &[], "alone"),
        json!({ "do": "cancel", "after": 3, "text": "stop me" }),
        ask(&[], "go on", json!({ "ignoreEos": true, "maxNewTokens": 7 })),
        // Refusals.
        ask(&[], "", json!({})),
        ask(&[], &"x".repeat(common::CONTEXT), json!({})),
        ask(&[], "hm", json!({ "temperature": -1 })),
        ask(&[], "hm", json!({ "topP": 2.5 })),
        image(4, 3, 1, 3),
        json!({ "do": "reset" }),
        ask(&[], "to the end of the context", json!({ "ignoreEos": true, "maxNewTokens": 1000 })),
        ask(&[], "too late", json!({})),
        json!({ "do": "tokenize", "text": "a <|im_end|> b\u{301}" }),
    ]
}

fn folder(name: &str, weights: &[u8], info: &[u8]) -> Folder {
    let folder = Folder::new(name);
    let runtime = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime.wasm")).expect("runtime.wasm");
    folder.put("info.bin", info);
    folder.put("weights.tvlm", weights);
    folder.put("runtime-shared.wasm", shared_memory::share(&runtime).expect("it imports its memory"));
    folder.put("runtime.wasm", runtime);
    folder
}

/// Has the script done in Node, and compares.
fn compare<P: Program>(name: &str, weights: &[u8], model: &Model<P>) {
    let script = script();
    let folder = folder(name, weights, &native::info(P::info()));
    folder.put("info-late.bin", native::info(&Info { late_logits: true, ..*P::info() }));
    folder.put("script.json", serde_json::to_vec(&script).expect("JSON"));
    let expected = native::talk(model, &script);
    let Some(found) = node("talk.mjs", &folder) else { return };
    let found = found.as_object().expect("by way");
    assert!(found.len() >= 6, "{} ways", found.len());
    for (way, entries) in found {
        let entries = entries.as_array().expect("entries");
        for ((action, expected), found) in script.iter().zip(&expected).zip(entries) {
            assert_eq!(found, expected, "{way}: {action}");
        }
        assert_eq!(entries.len(), expected.len(), "{way}");
    }
}

#[test]
fn conversations_are_those_of_a_native_session() {
    compare("talk", &common::fake_file(), &common::model());
}

#[test]
fn a_system_message_may_be_in_the_file() {
    let tokenizer = common::tokenizer_section(true);
    let system = common::model().system_cache().expect("a cache");
    // Before the weights, so that a model opens without them.
    let sections: [(&str, &[u8]); 3] = [("tokenizer", &tokenizer), ("system", &system), ("weights", &[3; 100])];
    let weights = common::weight_file(common::DIGEST, &sections);
    let model = Model::<native::Baked>::from_bytes("baked", &weights, &OpenOptions::default()).expect("intact");
    compare("baked", &weights, &model);
    let arriving = folder("baked-arrival", &weights, &native::info(native::Baked::info()));
    assert!(node("arrival.mjs", &arriving).is_none_or(|found| found == json!("ok")));
}

#[test]
fn a_file_may_arrive_while_it_is_used() {
    let folder = folder("arrival", &common::fake_file(), &native::info(&common::FAKE));
    assert!(node("arrival.mjs", &folder).is_none_or(|found| found == json!("ok")));
}

#[test]
fn what_is_hostile_is_refused() {
    let folder = folder("hostile", &common::fake_file(), &native::info(&common::FAKE));
    let Some(found) = node("hostile.mjs", &folder) else { return };
    println!("{found}");
    assert!(found["refused"].as_u64().expect("a count") > 100, "{found}");
    assert_eq!(found["trapped"], json!([]));
}

#[test]
fn pictures_are_pillows_bytes() {
    // As many sides as the golden file has, in one `Info`: a side has slots of its own.
    let golden =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime-min/tests/data/pixels-small.bin"));
    for (name, policy) in [("pad", ImagePolicy::Pad { color: [0; 3] }), ("crop", ImagePolicy::Crop)] {
        let folder = folder(name, &common::fake_file(), &native::info_for_pictures(policy));
        folder.put("pixels.bin", golden.as_ref().expect("pixels-small.bin"));
        folder.put("input.bin", (common::FAKE.arena_bytes as u32).to_le_bytes());
        folder.put("policy.json", if name == "crop" { "0" } else { "1" });
        let Some(found) = node("pictures.mjs", &folder) else { return };
        println!("{name}: {found}");
        assert!(found["pictures"].as_u64().expect("a count") > 10, "{found}");
        assert_eq!(found["wrong"], json!(0), "{found}");
    }
}

#[test]
fn strings_get_the_reference_ids() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime-min/tests/data");
    let json = std::fs::read_to_string(data.join("nano-tokenizer.json")).expect("nano-tokenizer.json");
    let section = tok_support::Tables::from_json(&json).section();
    let weights = common::weight_file(common::DIGEST, &[("tokenizer", &section), ("weights", &[3; 100])]);
    let folder = folder("strings", &weights, &native::info(&common::FAKE));
    folder.put("strings.bin", std::fs::read(data.join("tok-nano-small.bin")).expect("tok-nano-small.bin"));
    let Some(found) = node("strings.mjs", &folder) else { return };
    println!("{found}");
    assert!(found["strings"].as_u64().expect("a count") > 100, "{found}");
    assert_eq!(found["wrong"], json!(0), "{found}");
}
