//! Lists what emitted folders carry a copy of: the sources of the runtime, of the decoder beside it, of its C interface and of the
//! faces for Swift, Java and Kotlin, and for the web the page and the runtime's modules.

use std::path::{Path, PathBuf};
use std::{env, fs};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let rust = |name: &str| name.ends_with(".rs");
    list("../runtime-min/src", "runtime.rs", "include_str", &rust)?;
    list("../runtime-min/decode/src", "decode.rs", "include_str", &rust)?;
    list("../runtime-min/c/src", "interface.rs", "include_str", &rust)?;
    list("../bindings/swift", "swift.rs", "include_str", &|name| name.ends_with(".swift"))?;
    list("../bindings/android", "android.rs", "include_str", &|name| name.ends_with(".java") || name.ends_with(".kt"))?;
    let page = |name: &str| {
        let folder = name.split('/').next().unwrap_or_default();
        !["test", "types", "node_modules"].contains(&folder) && !name.split('/').any(|part| part.starts_with('.'))
    };
    list("../web", "web.rs", "include_bytes", &page)?;
    let modules = |name: &str| name.ends_with(".wasm") && !name.contains('/');
    list("../runtime-wasm", "runtime_wasm.rs", "include_bytes", &modules)
}

/// Writes a list of the names and contents of those files of a folder that are wanted.
fn list(folder: &str, name: &str, include: &str, wanted: &dyn Fn(&str) -> bool) -> Done {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(folder);
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    if root.is_dir() {
        collect(&root, &mut files)?;
    }
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root)?.to_str().ok_or("a source with a strange name")?.replace('\\', "/");
        if wanted(&name) {
            text += &format!("    ({name:?}, {include}!({:?})),\n", file.canonicalize()?);
        }
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
        } else {
            files.push(path);
        }
    }
    Ok(())
}
