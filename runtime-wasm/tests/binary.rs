//! `runtime.wasm` is what its sources give, wherever they lie, and no larger than it was.

#[path = "../../xtask/src/runtime_wasm.rs"]
mod recipe;

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Why the module cannot be built here as it was, if it cannot.
fn differs() -> Option<String> {
    let (here, there) = (recipe::rustc().ok()?, std::fs::read_to_string(root().join(recipe::VERSION)).ok()?);
    if here != there {
        return Some(format!("this is {}, the module was built by {}", here.trim(), there.trim()));
    }
    let target = Command::new("rustc").args(["--print", "target-libdir", "--target", recipe::TARGET]).output().ok()?;
    let folder = String::from_utf8_lossy(&target.stdout).trim().to_string();
    (!Path::new(&folder).is_dir()).then(|| format!("the target {} is not installed", recipe::TARGET))
}

#[test]
fn the_module_is_what_its_sources_give() {
    if let Some(why) = differs() {
        println!("skipped: runtime.wasm is not built again: {why}");
        return;
    }
    let committed = std::fs::read(root().join(recipe::MODULE)).expect("runtime.wasm");
    let built = recipe::build(root(), &Path::new(env!("CARGO_TARGET_TMPDIR")).join("module")).expect("it builds");
    assert!(
        built == committed,
        "{} bytes, runtime.wasm has {}: cargo xtask runtime-wasm",
        built.len(),
        committed.len()
    );
}

#[test]
fn it_is_small_and_names_no_folder() {
    let module = std::fs::read(root().join(recipe::MODULE)).expect("runtime.wasm");
    println!("{} bytes", module.len());
    assert!(module.len() < 176 << 10, "{} bytes: what has become larger?", module.len());
    let text = String::from_utf8_lossy(&module);
    let here = root().canonicalize().expect("the workspace");
    for folder in [here.to_str().expect("UTF-8"), "/home/", "/Users/", ".cargo", ".rustup"] {
        assert!(!text.contains(folder), "it names {folder}");
    }
}
