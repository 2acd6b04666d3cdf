//! Lists the sources that every emitted folder carries a copy of: those of the runtime and of the decoder beside it.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    list("../runtime-min/src", "runtime.rs")?;
    list("../runtime-min/decode/src", "decode.rs")
}

/// Writes a list of the names and texts of all Rust files of a folder.
fn list(folder: &str, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(folder);
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root)?.to_str().ok_or("a source with a strange name")?.replace('\\', "/");
        text += &format!("    ({name:?}, include_str!({:?})),\n", file.canonicalize()?);
    }
    text += "]\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join(name), text)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
