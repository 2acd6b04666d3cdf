//! `cargo xtask bench-web`: the emitted web package and what a page would use instead, in Chromium, in turn.
//!
//! The measuring is done by `benches/web/bench.js`; this makes what it needs.

use std::path::{Path, PathBuf};

use super::models::{Models, absent, run};
use super::sides::Side;
use crate::{emitted, options, shell};

/// The peers, pinned: later releases of wllama lost their kernels of SIMD instructions.
const PACKAGES: [&str; 2] = ["onnxruntime-web@1.30.0", "@wllama/wllama@2.3.1"];

/// Prepares all sides and runs the comparison.
pub fn bench(rest: &[&str]) -> Result<bool, String> {
    let cache = shell::cache()?;
    let mut checkpoint = cache.join("oracle/0.5b-hf-bf16-s0");
    let mut passed: Vec<String> = Vec::new();
    options::each(rest, |flag, value| {
        match flag {
            "--checkpoint" => checkpoint = value.into(),
            "--rounds" | "--runs" => {
                options::number(flag, value)?;
                passed.extend([flag.to_string(), value.to_string()]);
            }
            "--threads" => {
                options::numbers(flag, value)?;
                passed.extend([flag.to_string(), value.to_string()]);
            }
            "--only" | "--json" | "--markdown" => passed.extend([flag.to_string(), value.to_string()]),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    super::checkpoint(&checkpoint)?;
    let tools = crate::web::tools()?;
    crate::web::setup()?;
    let peers = npm(&cache.join("peers/web"))?;
    let models = models(&checkpoint)?;
    let package = cache.join("peers/web-package");
    let context = super::CONTEXT.to_string();
    let (from, to) = (emitted::utf8(&checkpoint)?, emitted::utf8(&package)?);
    let target = ["--target", "wasm32-unknown-unknown"];
    if !emitted::tvlmc(&[&["compile", from, "-o", to, "--force", "--context", &context], &target[..]].concat())? {
        return Err(format!("tvlmc could not compile {from}"));
    }
    let mut command = shell::command("node", &["benches/web/bench.js"]);
    for (flag, folder) in [("--package", &package), ("--tools", &tools), ("--peers", &peers), ("--models", &models)] {
        command.arg(flag).arg(folder);
    }
    shell::run(command.args(passed))
}

/// Installs the peers' packages where they are missing.
fn npm(folder: &Path) -> Result<PathBuf, String> {
    let stamp = folder.join(format!("complete-{}", PACKAGES.join("-").replace('/', "-")));
    if !stamp.exists() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut command = shell::command("npm", &["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
        if !shell::run(command.arg(folder).arg("--ignore-scripts").args(PACKAGES))? {
            return Err("npm could not install the web peers".to_string());
        }
        std::fs::write(&stamp, "").map_err(|e| format!("{}: {e}", stamp.display()))?;
    }
    Ok(folder.to_path_buf())
}

/// The models in the peers' forms; made where they are missing.
fn models(checkpoint: &Path) -> Result<PathBuf, String> {
    let (python, folder) = (super::environment(true)?, super::models_folder(checkpoint)?);
    let made = Models::make(&folder, checkpoint, &python, &[Side::OnnxInt8])?;
    let place = |name: &str| emitted::utf8(&folder.join(name)).map(str::to_string);
    let from = emitted::utf8(checkpoint)?;
    absent(&place("decoder-int8.onnx")?, |to| run(&python, &["benches/web/make_decoder_onnx.py", from, to]))?;
    made.quantized("Q4_0", &made.gguf, from, &python)?;
    made.quantized("Q8_0", &place("decoder-q8_0.gguf")?, from, &python)?;
    Ok(folder)
}
