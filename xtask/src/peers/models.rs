//! The same model in each peer's form, made once with each peer's own tools.

use std::path::{Path, PathBuf};

use super::sides::Side;
use crate::{emitted, shell};

/// Where the peers' models are; only those of the wanted sides exist.
pub struct Models {
    /// f32, for ONNX Runtime and for OpenVINO in bf16.
    pub onnx: String,
    /// int8 by ONNX Runtime's tool.
    pub onnx_int8: String,
    /// int8 by NNCF.
    pub openvino_int8: String,
    /// Q4_0 throughout, the head too.
    pub gguf: String,
    /// 4-bit weights by optimum-intel.
    pub genai: String,
    /// Folder of llama.cpp's programs.
    pub llama: PathBuf,
}

impl Models {
    /// Makes what is missing in `folder`. A file is whole or absent: it is renamed when it is done.
    pub fn make(folder: &Path, checkpoint: &Path, python: &str, sides: &[Side]) -> Result<Models, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let bin = Path::new(python).parent().map(Path::to_path_buf).unwrap_or_default();
        let place = |name: &str| emitted::utf8(&folder.join(name)).map(str::to_string);
        let models = Models {
            onnx: place("vision.onnx")?,
            onnx_int8: place("vision-int8.onnx")?,
            openvino_int8: place("vision-int8/model.xml")?,
            gguf: place("decoder-q4_0.gguf")?,
            genai: place("decoder-int4")?,
            llama: shell::cache()?.join("peers/llama.cpp/build/bin"),
        };
        let checkpoint = emitted::utf8(checkpoint)?;
        let wants = |some: &[Side]| some.iter().any(|side| sides.contains(side));

        let script = |name: &str, from: &str, to: &str| {
            absent(to, |to| run(python, &[&format!("benches/peers/{name}"), from, to]))
        };
        if wants(&[Side::OnnxF32, Side::OnnxInt8, Side::OpenvinoInt8, Side::OpenvinoBf16]) {
            script("export_vision.py", checkpoint, &models.onnx)?;
        }
        if wants(&[Side::OnnxInt8]) {
            script("quantize_vision.py", &models.onnx, &models.onnx_int8)?;
        }
        if wants(&[Side::OpenvinoInt8]) {
            // Two files in a folder, the graph and the weights.
            absent(&place("vision-int8")?, |to| {
                std::fs::create_dir_all(to).map_err(|e| format!("{to}: {e}"))?;
                run(python, &["benches/peers/quantize_vision.py", &models.onnx, &format!("{to}/model.xml")])
            })?;
        }
        if wants(&[Side::Llama]) {
            models.quantized("Q4_0", &models.gguf, checkpoint, python)?;
        }
        if wants(&[Side::Genai]) {
            absent(&models.genai, |to| {
                let bf16 = place("decoder-bf16")?;
                run(python, &["benches/peers/make_decoder.py", checkpoint, &bf16])?;
                let export = bin.join("optimum-cli");
                let form = ["--task", "text-generation-with-past", "--weight-format", "int4"];
                run(emitted::utf8(&export)?, &[&["export", "openvino", "-m", &bf16], &form[..], &[to]].concat())?;
                std::fs::remove_dir_all(&bf16).map_err(|e| format!("{bf16}: {e}"))
            })?;
        }
        Ok(models)
    }

    /// Makes a decoder for llama.cpp in a format of its own, unless it is there.
    pub fn quantized(&self, format: &str, path: &str, checkpoint: &str, python: &str) -> Result<(), String> {
        absent(path, |to| {
            let f16 = format!("{to}-f16.gguf");
            run(python, &["benches/peers/make_decoder.py", checkpoint, &f16])?;
            let quantize = self.llama.join("llama-quantize");
            // --pure: the head as well, the fastest form.
            run(emitted::utf8(&quantize)?, &["--pure", &f16, to, format])?;
            std::fs::remove_file(&f16).map_err(|e| format!("{f16}: {e}"))
        })
    }
}

/// Makes `path` unless it is there, under another name until it is whole.
pub fn absent(path: &str, make: impl FnOnce(&str) -> Result<(), String>) -> Result<(), String> {
    let path = Path::new(path);
    if path.exists() {
        return Ok(());
    }
    // The ending says what is to be made.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!("partial-{name}"));
    if partial.is_dir() {
        std::fs::remove_dir_all(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
    }
    make(emitted::utf8(&partial)?)?;
    std::fs::rename(&partial, path).map_err(|e| format!("{}: {e}", partial.display()))
}

/// Runs a tool of a peer, which must not ask the network for models.
pub fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let mut command = shell::command(program, args);
    command.env("HF_HUB_OFFLINE", "1");
    if shell::run(&mut command)? { Ok(()) } else { Err(format!("{} failed", args.join(" "))) }
}
