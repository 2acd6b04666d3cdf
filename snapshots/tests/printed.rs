//! The printed source of the library's kernels, for every target.

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use kernels::{Kernel, Target};
use snapshots::{Named, has_program, integer_kernels, integer_targets, kernels, lacking, module, printed, targets};

/// The triple whose standard library a level is compiled against.
fn triple(level: &str) -> &'static str {
    match level {
        "neon" | "neon_exact" | "dotprod" | "i8mm" => "aarch64-unknown-linux-gnu",
        "simd128" | "relaxed" | "relaxed_exact" => "wasm32-wasip1",
        _ => "x86_64-unknown-linux-gnu",
    }
}

/// Kernels by the names of their snapshots.
type Kernels = Vec<(&'static str, Rc<Kernel>)>;

/// Every target with the kernels that are looked at on it.
fn all() -> Vec<(Named, Kernels)> {
    let floats = targets().into_iter().map(|t| (t, kernels()));
    floats
        .chain(integer_targets().into_iter().map(|t| {
            let kernels = integer_kernels(t.1.as_ref());
            (t, kernels)
        }))
        .collect()
}

#[test]
fn source_is_as_reviewed() {
    for ((folder, target), kernels) in all() {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(Path::new("..").join(folder));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            for (name, kernel) in kernels {
                insta::assert_snapshot!(name, printed(&kernel, target.as_ref()));
            }
        });
    }
}

#[test]
fn building_and_printing_again_gives_the_same_bytes() {
    for (((folder, target), first), (_, second)) in all().iter().zip(all()) {
        for ((name, first), (_, second)) in first.iter().zip(second) {
            assert_eq!(printed(first, target.as_ref()), printed(&second, target.as_ref()), "{name} at {folder}");
        }
    }
}

#[test]
fn every_printed_file_is_rust() {
    for ((folder, target), kernels) in all() {
        let text = whole(target.as_ref(), &kernels);
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{folder}: {e}"));
        assert!(file.items.len() > kernels.len());
    }
}

#[test]
fn printed_files_are_fixed_points_of_rustfmt() {
    if !has_program("rustfmt") {
        println!("skipped: no rustfmt, so printed source was not compared with its formatting");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("rustfmt.toml");
    std::fs::write(&config, emit::RUSTFMT_TOML).expect("the settings are written");
    for ((folder, target), kernels) in all() {
        let path = dir.path().join(format!("{folder}.rs"));
        std::fs::write(&path, whole(target.as_ref(), &kernels)).expect("the file is written");
        let out = Command::new("rustfmt").arg("--check").arg("--config-path").arg(&config).arg(&path).output();
        let out = out.expect("rustfmt was found above");
        let diff: String = String::from_utf8_lossy(&out.stdout).lines().take(40).collect::<Vec<_>>().join("\n");
        assert!(out.status.success(), "{folder}:\n{diff}\n{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// Types and intrinsics are right on every target; nothing is run.
#[test]
fn printed_files_compile() {
    let dir = tempfile::tempdir().expect("a folder");
    for ((level, target), kernels) in all() {
        let triple = triple(level);
        if let Some(why) = lacking(triple) {
            println!("skipped: {why}, so kernels printed for {level} were not compiled");
            continue;
        }
        let path = dir.path().join(format!("{level}.rs"));
        std::fs::write(&path, whole(target.as_ref(), &kernels)).expect("the file is written");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--target", triple]);
        rustc.args(["-Dwarnings", "-Aunused_imports", "-Adead_code", "--out-dir"]).arg(dir.path()).arg(&path);
        let out = rustc.output().expect("rustc was found above");
        assert!(out.status.success(), "{level}:\n{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// All kernels of the list in one file.
fn whole(target: &dyn Target, kernels: &Kernels) -> String {
    let kernels: Vec<Rc<Kernel>> = kernels.iter().map(|(_, k)| k.clone()).collect();
    module(&kernels, target)
}
