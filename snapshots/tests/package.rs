//! The text of whole emitted crates: Rust, formatted, and the same each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use compiler::assemble::{Options, assemble};
use compiler::machine::{Machine, System};
use snapshots::has_program;

/// The emitted files of a nano model.
fn files(layout: &str, recipe: &str, machine: Machine) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout);
    let recipe = Some(models::Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}")));
    let options = Options { name: Some("nano"), recipe, machine, ..Options::default() };
    assemble(&folder, &options).unwrap_or_else(|e| panic!("{layout}: {e}")).package.files
}

const X86: Machine = Machine::X86_64(System::Linux);
const ARM: Machine = Machine::Aarch64(System::Linux);

#[test]
fn emitting_again_gives_the_same_bytes() {
    assert_eq!(files("hf", "f32", X86), files("hf", "f32", X86));
}

#[test]
fn every_source_is_a_fixed_point_of_rustfmt() {
    let there = has_program("rustfmt");
    if !there {
        println!("skipped: no rustfmt, so emitted crates were not compared with their formatting");
    }
    for (layout, recipe, machine) in
        [("hf", "f32", X86), ("llava", "f32", ARM), ("odd", "int8", X86), ("hf", "int4", ARM)]
    {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in
            files(layout, recipe, machine).iter().filter(|(name, _)| name.ends_with(".rs") || *name == "rustfmt.toml")
        {
            if name.ends_with(".rs") {
                syn::parse_file(text).unwrap_or_else(|e| panic!("{layout}, {name}: {e}"));
            }
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
            std::fs::write(&path, text).expect("a file is written");
        }
        if there {
            // Modules are followed; the runtime is another crate, copied in the project's own format.
            let mut rustfmt = Command::new("rustfmt");
            let out = rustfmt.args(["--check", "src/lib.rs", "src/main.rs"]).current_dir(dir.path()).output();
            let out = out.expect("rustfmt was found above");
            let diff: String = String::from_utf8_lossy(&out.stdout).lines().take(40).collect::<Vec<_>>().join("\n");
            assert!(out.status.success(), "{layout}, {recipe}:\n{diff}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

/// What a level has an instruction for is compiled with it; what is the same at the level it extends is that.
#[test]
fn levels_share_what_is_the_same_and_nothing_else() {
    let shares = |files: &BTreeMap<String, String>, level: &str, word: &str| -> Vec<bool> {
        let of_level = files.iter().filter(|(path, _)| path.starts_with(&format!("src/kernels/{level}/")));
        let lines = of_level.flat_map(|(_, text)| text.lines());
        let named = lines.filter(|line| line.contains(word) && (line.contains("pub use ") || line.contains(" fn ")));
        named.map(|line| line.contains("pub use ")).collect()
    };
    let all = |found: Vec<bool>, shared: bool, what: &str| {
        assert!(!found.is_empty() && found.iter().all(|&it| it == shared), "{what}: {found:?}");
    };
    for recipe in ["int8", "int4"] {
        let x86 = files("hf", recipe, X86);
        all(shares(&x86, "v3_vnni", "gemm_bias_u7s8"), false, "dot products of v3 with VNNI");
        all(shares(&x86, "v3_vnni", "softmax"), true, "softmax of v3 with VNNI");
        all(shares(&x86, "v4_vnni", "softmax"), false, "softmax of v4, whose registers are wider");
        let arm = files("hf", recipe, ARM);
        all(shares(&arm, "dotprod", "gemm_bias_u7s8"), false, "dot products by sdot");
        all(shares(&arm, "i8mm", "gemm_bias_u7s8_4x1"), false, "products by smmla");
        all(shares(&arm, "dotprod", "softmax"), true, "softmax beside sdot");
        all(shares(&arm, "i8mm", "softmax"), true, "softmax beside smmla");
        if recipe == "int4" {
            all(shares(&arm, "dotprod", "split_rescore"), false, "rows of a head by sdot");
            all(shares(&arm, "i8mm", "gemv_residual_i4"), true, "nibbles by sdot");
        }
    }
}
