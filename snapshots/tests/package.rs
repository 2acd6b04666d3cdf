//! The text of whole emitted crates: Rust, formatted, and the same each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use compiler::assemble::{Options, assemble};

/// The emitted files of a nano model.
fn files(layout: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout);
    let options = Options { name: Some("nano"), ..Options::default() };
    assemble(&folder, &options).unwrap_or_else(|e| panic!("{layout}: {e}")).package.files
}

#[test]
fn emitting_again_gives_the_same_bytes() {
    assert_eq!(files("hf"), files("hf"));
}

#[test]
fn every_source_is_a_fixed_point_of_rustfmt() {
    let there = Command::new("rustfmt").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        println!("skipped: no rustfmt, so emitted crates were not compared with their formatting");
    }
    for layout in ["hf", "llava"] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut rustfmt = Command::new("rustfmt");
        rustfmt.args(["--check", "--config-path"]).arg(dir.path());
        std::fs::write(dir.path().join("rustfmt.toml"), emit::RUSTFMT_TOML).expect("the settings are written");
        // The runtime is copied as it is, in the project's own format.
        let emitted = files(layout).into_iter().filter(|(name, _)| name.ends_with(".rs") && !name.starts_with("runtime/"));
        for (name, text) in emitted {
            syn::parse_file(&text).unwrap_or_else(|e| panic!("{layout}, {name}: {e}"));
            // Modules are given one by one, not followed.
            let path = dir.path().join(name.replace('/', "-"));
            let text: String = text.lines().filter(|l| !is_module(l)).map(|l| format!("{l}\n")).collect();
            std::fs::write(&path, text).expect("a file is written");
            rustfmt.arg(path);
        }
        if there {
            let out = rustfmt.output().expect("rustfmt was found above");
            let diff: String = String::from_utf8_lossy(&out.stdout).lines().take(40).collect::<Vec<_>>().join("\n");
            assert!(out.status.success(), "{layout}:\n{diff}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

fn is_module(line: &str) -> bool {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.starts_with("mod ") && line.ends_with(';')
}
