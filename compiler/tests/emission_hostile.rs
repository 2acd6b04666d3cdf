//! Strings of a checkpoint never become code: whatever folders, tensors, settings and tokens are called, what is emitted
//! differs in the crate's name and in digests only.

mod frontend_support;

use std::collections::BTreeMap;
use std::process::Command;

use frontend_support::{Folder, Tensor, description};
use models::Layout;
use proc_macro2::{TokenStream, TokenTree};
use serde_json::json;
use tvlmc::assemble::{Assembled, Options, assemble};
use tvlmc::package::check_name;

/// What breaks out of comments, strings, tables, tags, lines and folders where it is pasted as it is.
const BREAKOUTS: [&str; 50] = [
    "\"; }}",
    "*/ fn evil() {} /*",
    "\n[dependencies]\nevil = \"1\"",
    "</script><script>alert(1)</script>",
    "\u{202e}}; )(lave",
    "\"#; panic!(); r#\"",
    "\"##; panic!(); r##\"",
    "'); drop(",
    "\\",
    "\\\"",
    "\\n",
    "\\u{7d}",
    "{}",
    "{0}",
    "{:?}",
    "{{",
    "}}",
    "${HOME}",
    "$(touch evil)",
    "`touch evil`",
    "; rm -rf .",
    "| tee evil",
    "&& evil",
    "%s%n%x",
    "%0a%0d",
    "../../evil",
    "..",
    ".",
    "/etc/passwd",
    "C:\\evil",
    "nul\0byte",
    "tab\tcr\rlf\nff\u{c}",
    "\u{1b}[2J\u{1b}]0;evil\u{7}",
    "\u{7f}\u{80}\u{9f}",
    "\u{2028}\u{2029}\u{85}",
    "\u{feff}bom",
    "\u{200b}\u{200d}\u{2060}",
    "e\u{301}\u{327}\u{310}",
    "\u{10ffff}\u{e000}",
    "#![feature(evil)]",
    "#[no_mangle]",
    "///doc\n//!inner",
    "include_str!(\"/etc/passwd\")",
    "env!(\"HOME\")",
    "self",
    "r#fn",
    "--config=evil",
    "=cmd|' /C calc'!A0",
    "<!-- x --><?php evil(); ?>",
    "a' OR '1'='1",
];

/// Each of them alone, in a name, at the end of a line, and many times.
fn payloads() -> Vec<String> {
    let all = |s: &&str| [s.to_string(), format!("model{s}layer"), format!("x\n{s}"), s.repeat(9)];
    BREAKOUTS.iter().flat_map(all).collect()
}

const PAYLOADS_AT_A_TIME: usize = 20;

/// A checkpoint whose strings are these, wherever a checkpoint has strings.
fn checkpoint(strings: &[String]) -> Folder {
    let mut small = description(Layout::FastVlm);
    small.vision.dims = [8, 16, 32, 64, 128];
    (small.text.hidden, small.text.head_dim, small.text.vocab) = (64, 32, 1024);
    let mut folder = Folder::of(&small);
    let config = folder.json.get_mut("config.json").expect("a configuration");
    config["_name_or_path"] = json!(strings[0]);
    config["architectures"] = json!(strings);
    config["text_config"]["_name_or_path"] = json!(strings[0]);
    config["vision_config"]["label_names"] = json!(strings);
    for (i, string) in strings.iter().enumerate() {
        config[string] = json!({ string: string });
        let tensor = Tensor { dtype: "F32", shape: vec![1], bytes: vec![0; 4] };
        folder.tensors.insert(format!("{string}{i}.self_attn.rotary_emb.inv_freq"), tensor);
    }
    let tokenizer = folder.json.get_mut("tokenizer.json").expect("a tokenizer");
    for (i, string) in strings.iter().enumerate() {
        // Tokens are spelled in GPT-2's alphabet for bytes, added ones as they are.
        let spelled: String = string.bytes().map(letter).collect();
        tokenizer["model"]["vocab"][format!("{spelled}ab{i}")] = json!(300 + i);
        let added = json!({"id": 400 + i, "content": format!("{string}<{i}>"), "special": i % 2 == 0});
        tokenizer["added_tokens"].as_array_mut().expect("a list").push(added);
    }
    tokenizer["version"] = json!(strings[0]);
    folder.json.insert("tokenizer_config.json", json!({"chat_template": strings.concat(), "name_or_path": strings[0]}));
    folder.raw.insert("chat_template.jinja".into(), strings.concat().into());
    folder
}

/// The character that stands for a byte.
fn letter(byte: u8) -> char {
    let itself = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..byte).filter(|b| !itself(b)).count() as u32;
    if itself(&byte) { byte.into() } else { char::from_u32(256 + others).expect("a letter") }
}

/// Compiles the checkpoint in a folder of this name.
fn compile(folder: &Folder, name: &str) -> Assembled {
    let dir = tempfile::tempdir().expect("a folder");
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = name[..end].replace(['/', '\0'], "_");
    // These two are not names of folders of their own.
    let name = if name == "." || name == ".." { format!("{name} ") } else { name };
    let model = dir.path().join(name);
    std::fs::create_dir(&model).expect("a folder");
    folder.write_to(&model);
    assemble(&model, &Options::default()).unwrap_or_else(|e| panic!("{name:?}: {e}", name = model.display()))
}

/// The tokens, literals only by their kind: digests differ.
fn shape(tokens: TokenStream, out: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                out.push(format!("{:?}", group.delimiter()));
                shape(group.stream(), out);
                out.push("end".into());
            }
            TokenTree::Ident(ident) => out.push(ident.to_string()),
            TokenTree::Punct(punct) => out.push(punct.as_char().to_string()),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let is_byte = text.len() == 4 && text.starts_with("0x");
                out.push(if is_byte { "0x".into() } else { text });
            }
        }
    }
}

/// Text without digests, and the lock file's packages in one order.
fn plain(name: &str, text: &str) -> String {
    let is_digest = |line: &&str| line.contains("_sha256\"");
    match name {
        "manifest.json" => {
            text.lines().map(|l| if is_digest(&l) { "digest" } else { l }).collect::<Vec<_>>().join("\n")
        }
        "Cargo.lock" => {
            let mut packages: Vec<&str> = text.split("\n\n").map(str::trim).collect();
            packages.sort_unstable();
            packages.join("\n\n")
        }
        _ => text.to_owned(),
    }
}

/// Emitted files by name, with the name of the harmless crate replaced by `name`.
fn renamed(files: &BTreeMap<String, String>, name: &str) -> BTreeMap<String, String> {
    let rename = |text: &String| text.replace("harm-less", name).replace("harm_less", &name.replace('-', "_"));
    files.iter().map(|(path, text)| (path.clone(), rename(text))).collect()
}

#[test]
fn hostile_strings_change_nothing() {
    let harmless: Vec<String> = (0..PAYLOADS_AT_A_TIME).map(|i| format!("harmless{i}")).collect();
    let harmless = compile(&checkpoint(&harmless), "harm-less");
    assert_eq!(harmless.name, "harm-less");
    let payloads = payloads();
    for strings in payloads.chunks(PAYLOADS_AT_A_TIME) {
        let folder = checkpoint(strings);
        // Every string is in the files; every third one names the folder too, in all of their forms.
        for string in strings.iter().step_by(3) {
            let hostile = compile(&folder, string);
            let name = &hostile.name;
            let letters =
                |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
            assert!(
                name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_lowercase()) && letters(name),
                "{name:?}"
            );
            assert!(check_name(name).is_ok());
            let expected = renamed(&harmless.package.files, name);
            assert!(hostile.package.files.keys().eq(expected.keys()), "{string:?}: other files");
            for (path, text) in &hostile.package.files {
                let expected = &expected[path];
                if path.starts_with("runtime/") {
                    assert!(text == expected, "{string:?}: {path}");
                } else if path.ends_with(".rs") && text != expected {
                    let [mut found, mut wanted] = [Vec::new(), Vec::new()];
                    shape(text.parse().unwrap_or_else(|e| panic!("{string:?}: {path}: {e}")), &mut found);
                    shape(expected.parse().expect("tokens"), &mut wanted);
                    assert!(found == wanted, "{string:?}: {path}: other tokens");
                } else if !path.ends_with(".rs") {
                    assert_eq!(plain(path, text), plain(path, expected), "{string:?}: {path}");
                }
            }
        }
    }
    println!("{} strings", payloads.len());
    cargo_reads(&harmless);
}

/// The manifest is one for cargo too; the others differ from it in the name alone.
fn cargo_reads(assembled: &Assembled) {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, text) in &assembled.package.files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    let args = ["metadata", "--offline", "--locked", "--format-version", "1"];
    // A home that has never seen a registry: what is written needs none.
    let home = tempfile::tempdir().expect("a folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(args).current_dir(dir.path()).env("CARGO_HOME", home.path());
    let done = cargo.output().expect("cargo runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let mut names: Vec<_> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["harm-less", "runtime-min"]);
    assert_eq!(
        packages[0]["dependencies"].as_array().map_or(0, Vec::len)
            + packages[1]["dependencies"].as_array().map_or(0, Vec::len),
        1
    );
}

/// Paths and keys that people have in their configurations stay there.
#[test]
fn nothing_of_a_configuration_is_carried_over() {
    let secret = "hf_Secret7f3a91cd/home/zaphod.b";
    let assembled = compile(&checkpoint(&[secret.into()]), "model");
    for (path, text) in &assembled.package.files {
        assert!(!text.contains("Secret7f3a91cd") && !text.contains("zaphod"), "{path}");
    }
}
