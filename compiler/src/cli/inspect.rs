//! `tvlmc inspect`: what is in a model, and what would be emitted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use models::{Layout, Policy, VisionForm};
use serde_json::{Value, json};

use super::args::Inspect;
use super::model::{Compiled, Model, Side};
use super::ui::{Ui, count, size};
use super::{compile, tuned};
use crate::assemble::{Assembled, Options, TARGET, hex};
use crate::bundle::apple;
use crate::coreml;
use crate::error::Error;
use crate::lower::Phase;
use crate::package::WEIGHTS_NAME;
use crate::quant::{QUANTIZATION_NAME, Report};
use crate::wasm;

pub fn inspect(args: &Inspect, ui: &Ui) -> Result<u8, Error> {
    let mut chosen = args.choices.resolve()?;
    chosen.options.sides = args.sides.given();
    let (text, json) = match Model::open(&args.model)? {
        Model::Compiled(compiled) => {
            chosen.refuse_for_compiled()?;
            if chosen.options.sides.is_some() {
                return Err(Error::Usage(
                    "--sides: the folder was compiled already; compile it again to change it".into(),
                ));
            }
            folder(&compiled)?
        }
        Model::Checkpoint(path) => {
            let tuning = tuned::asked(chosen.tuned.as_ref(), &path, &chosen.options)?;
            checkpoint(&compile::read_without_notes(&path, &Options { tuning, ..chosen.options }, ui)?)
        }
    };
    super::print(&if args.json { format!("{json}\n") } else { text })?;
    Ok(0)
}

/// Rows of a table: a title and what there is to say.
struct Table(String);

impl Table {
    fn row(&mut self, title: &str, text: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{title:18} {text}");
    }

    /// The sides below the largest, from large to small.
    fn smaller(&mut self, sides: &[Side]) {
        for Side { side, tokens, macs } in sides.iter().rev().skip(1) {
            self.row("", format!("{side} x {side} pixels, {tokens} tokens, {} multiply-adds", count(*macs)));
        }
    }
}

fn checkpoint(assembled: &Assembled) -> (String, Value) {
    let (checkpoint, prepared) = (&assembled.checkpoint, &assembled.prepared);
    let (vision, text) = (&prepared.description.vision, &prepared.description.text);
    let layout = match prepared.description.layout {
        Layout::FastVlm => "fast_vlm",
        Layout::LlavaQwen2 => "llava_qwen2",
    };
    let form = match vision.form {
        VisionForm::Folded => "folded",
        VisionForm::Train => "train",
    };
    let policy = match &prepared.description.image.policy {
        Policy::Pad { color } => format!("pad with {color:?}"),
        Policy::Crop => "crop the center".into(),
    };
    let mut dtypes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, info) in checkpoint.tensors() {
        let of_type = dtypes.entry(info.dtype.name()).or_default();
        of_type.0 += 1;
        of_type.1 += info.values();
        // Counters of training are no parameters.
        if info.dtype.name() != "I64" {
            *parts.entry(part(name)).or_default() += info.values();
        }
    }
    let n_values: u64 = parts.values().sum();
    let stages = stages(&prepared.program.vision);
    let vision_macs: u64 = stages.iter().map(|(_, macs)| macs).sum();
    // The head runs once, for the last row: its result has a row of its own.
    let rows = prepared.program.prefill.steps.iter().filter(|s| s.result.rows == 0);
    let row_macs: u64 = rows.map(|s| s.macs).sum();
    let decode_macs: u64 = prepared.program.decode.steps.iter().map(|s| s.macs).sum();
    // As `--level` takes them.
    let levels: Vec<String> =
        prepared.targets.iter().map(|t| format!("x86-64-{}", t.level().replace('_', "-"))).collect();
    let package = &assembled.package;
    let code: u64 = package.files.values().map(|text| text.len() as u64).sum();
    let n_steps: BTreeMap<&str, usize> =
        prepared.program.phases().into_iter().map(|(name, phase)| (name, phase.steps.len())).collect();

    let mut table = Table(String::new());
    table.row("format", format!("{layout}, vision tower in {form} form"));
    for (name, bytes) in checkpoint.files() {
        table.row("file", format!("{name}, {}", size(bytes)));
    }
    for (dtype, (tensors, values)) in &dtypes {
        table.row("tensors", format!("{tensors} of {dtype}, {} values", count(*values)));
    }
    table.row("parameters", format!("{:12} all", count(n_values)));
    for (part, values) in &parts {
        table.row("", format!("  {:12} {}", count(*values), part));
    }
    table.row("image", format!("{0} x {0} pixels, {1} tokens, {policy}", vision.side, vision.tokens()));
    let sides = prepared.program.sides(&prepared.description).into_iter();
    let sides: Vec<Side> = sides.map(|(side, tokens, .., phase)| Side { side, tokens, macs: phase.macs() }).collect();
    table.smaller(&sides);
    table.row("vision tower", format!("widths {:?}, blocks {:?}", vision.dims, vision.depths));
    let (heads, kv) = (text.heads, text.kv_heads);
    table.row("decoder", format!("{} layers of {}, {heads} heads on {kv}, MLP {}", text.layers, text.hidden, text.ffn));
    let head = if text.tied { "tied" } else { "its own" };
    table.row(
        "vocabulary",
        format!("{} rows, head {head}, end tokens {:?}", text.vocab, prepared.description.tokens.eos),
    );
    table.row("multiply-adds", format!("{:12} one image", count(vision_macs)));
    for (stage, macs) in &stages {
        table.row("", format!("  {:12} {stage}", count(*macs)));
    }
    table.row("", format!("{:12} one row of a prompt, without attention", count(row_macs)));
    table.row("", format!("{:12} one token of an answer, without attention", count(decode_macs)));
    table.row("license", prepared.licenses.summary());
    for note in &prepared.notes {
        table.row("note", note);
    }
    let recipe = &prepared.recipe;
    table.row(
        "would be emitted",
        format!("{} for {TARGET}, recipe {}, levels {}", assembled.name, recipe.name, levels.join(", ")),
    );
    table.row("", format!("{:12} code, {} files", size(code), package.files.len()));
    table.row("", format!("{:12} weight file, tokenizer included", size(assembled.weight_file_bytes())));
    table.row("", format!("{:12} arena, {} positions", size(package.arena_bytes as u64), prepared.program.context));
    table.row("", format!("{:12} scratch of each thread", size(package.scratch_bytes as u64)));
    table.row(
        "",
        format!(
            "{} steps for an image, {} for a prompt, {} for a token",
            n_steps["vision"], n_steps["prefill"], n_steps["decode"]
        ),
    );

    let json = json!({
        "format": layout,
        "vision_form": form,
        "files": checkpoint.files().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect::<Vec<_>>(),
        "dtypes": dtypes.iter().map(|(dtype, (n, values))| json!({"dtype": dtype, "tensors": n, "values": values})).collect::<Vec<_>>(),
        "parameters": n_values,
        "parts": parts,
        "image": {"side": vision.side, "tokens": vision.tokens()},
        "sides": sides,
        "decoder": {"layers": text.layers, "hidden": text.hidden, "heads": heads, "kv_heads": kv, "ffn": text.ffn, "vocab": text.vocab, "tied": text.tied},
        "macs": {
            "vision": vision_macs,
            "vision_stages": stages.iter().map(|(name, macs)| json!({"name": name, "macs": macs})).collect::<Vec<_>>(),
            "prefill_row": row_macs,
            "decode": decode_macs,
        },
        "license": {
            "declared": prepared.licenses.declared.iter().cloned().collect::<BTreeMap<_, _>>(),
            "texts": prepared.licenses.texts.iter().map(|text| json!({"file": text.file, "from": text.from})).collect::<Vec<_>>(),
        },
        "notes": prepared.notes,
        "emitted": {
            "name": assembled.name,
            "target": TARGET,
            "recipe": recipe,
            "levels": levels,
            "code_bytes": code,
            "weights_bytes": package.weights_bytes,
            "weight_file_bytes": assembled.weight_file_bytes(),
            "arena_bytes": package.arena_bytes,
            "scratch_bytes_per_thread": package.scratch_bytes,
            "max_context": prepared.program.context,
            "steps": n_steps,
            "digest": hex(&assembled.digest),
        },
    });
    (table.0, json)
}

fn folder(compiled: &Compiled) -> Result<(String, Value), Error> {
    let m = &compiled.manifest;
    let (vision, decode): (u64, u64) =
        (m.vision.iter().map(|op| op.macs).sum(), m.decode.iter().map(|op| op.macs).sum());
    let mut table = Table(String::new());
    table.row("compiled", format!("{} for {}, recipe {}", m.name, m.target, m.recipe.name));
    table.row("matrices", &m.quantization);
    table.row("by", &m.tool);
    table.row("checkpoint", &m.checkpoint_sha256);
    table.row("digest", &m.pairing_sha256);
    table.row("image", format!("{0} x {0} pixels, {1} tokens", m.image_side, m.tokens_per_image));
    table.smaller(&m.sides);
    table.row("context", format!("{} positions", m.max_context));
    table.row("levels", m.levels.join(", "));
    table.row("multiply-adds", format!("{:12} one image", count(vision)));
    table.row("", format!("{:12} one token of an answer, without attention", count(decode)));
    let weight_file = weight_file_bytes(compiled)?;
    table.row("weight file", format!("{}, tokenizer included", size(weight_file)));
    table.row("arena", size(m.arena_bytes));
    table.row("scratch", format!("{} each thread", size(m.scratch_bytes_per_thread)));
    let in_package = compiled.folder.join(apple::MODEL_FOLDER);
    let models = coreml::summary(if in_package.is_dir() { &in_package } else { &compiled.folder })?;
    for model in &models {
        let coreml::Summary { name, bytes, operations, opset } = model;
        table.row("Core ML", format!("{name}, {}, {operations} operations of {opset}", size(*bytes)));
    }
    let quantization = quantization(compiled)?;
    if let Some(report) = &quantization {
        table.0.push('\n');
        quantization_table(report, &mut table.0);
    }
    let json = json!({
        "compiled": {
            "name": m.name,
            "target": m.target,
            "quantization": m.quantization,
            "recipe": m.recipe,
            "tool": m.tool,
            "checkpoint_sha256": m.checkpoint_sha256,
            "digest": m.pairing_sha256,
            "levels": m.levels,
            "weights_bytes": m.weights_bytes,
            "weight_file_bytes": weight_file,
            "arena_bytes": m.arena_bytes,
            "scratch_bytes_per_thread": m.scratch_bytes_per_thread,
            "max_context": m.max_context,
        },
        "image": {"side": m.image_side, "tokens": m.tokens_per_image},
        "sides": m.sides,
        "macs": {"vision": vision, "decode": decode},
        "core_ml": models.iter().map(|model| json!({"name": model.name, "bytes": model.bytes, "operations": model.operations, "opset": model.opset})).collect::<Vec<_>>(),
        "quantization": quantization,
    });
    Ok((table.0, json))
}

/// Bytes of a folder's weight file, or of the pieces of a page's.
fn weight_file_bytes(compiled: &Compiled) -> Result<u64, Error> {
    let length = |path: &Path| Ok(std::fs::metadata(path).map_err(Error::io("read", path))?.len());
    let pieces = compiled.folder.join(wasm::WEIGHTS_FOLDER);
    if !pieces.is_dir() {
        let package = compiled.folder.join(apple::WEIGHTS_FOLDER).join(WEIGHTS_NAME);
        return length(&if package.is_file() { package } else { compiled.folder.join(WEIGHTS_NAME) });
    }
    let entries = std::fs::read_dir(&pieces).map_err(Error::io("read", &pieces))?;
    entries.map(|entry| length(&entry.map_err(Error::io("read", &pieces))?.path())).sum()
}

/// What quantization cost, of a folder whose recipe has some.
fn quantization(compiled: &Compiled) -> Result<Option<Report>, Error> {
    if compiled.manifest.recipe.is_float() {
        return Ok(None);
    }
    let path = compiled.folder.join(QUANTIZATION_NAME);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|e| {
        let problem = format!("{e}: was it written by this version of tvlmc?");
        Error::input(path.display().to_string(), "", problem)
    })
}

/// A line for each part, then one for each tensor.
fn quantization_table(report: &Report, table: &mut String) {
    let snr = |db: Option<f64>| db.map_or("exact".to_string(), |db| format!("{db:.1} dB"));
    let head = ["tensor", "format", "weights", "bits", "SNR"].map(String::from);
    let mut rows = vec![head];
    let mut row = |name: &str, format: &str, weights: u64, bits: f64, db: Option<f64>| {
        // The name stands in a file that anybody may have edited.
        let name = name.escape_debug().to_string();
        rows.push([name, format.to_string(), count(weights), format!("{bits:.3}"), snr(db)]);
    };
    for part in &report.parts {
        row(&part.name, "", part.weights, part.bits_per_weight, part.snr_db);
    }
    for entry in &report.tensors {
        row(&entry.name, entry.format.name(), entry.weights, entry.bits_per_weight, entry.snr_db);
    }
    let width = rows.iter().map(|[name, ..]| name.chars().count()).max().unwrap_or(0);
    for [name, format, weights, bits, snr] in rows {
        let _ = writeln!(table, "{name:width$} {format:>6} {weights:>9} {bits:>7} {snr:>8}");
    }
}

/// The part of a model that a tensor belongs to, in both layouts.
fn part(name: &str) -> &'static str {
    if name.contains("vision_tower") {
        "vision tower"
    } else if name.contains("projector") {
        "projector"
    } else if name.contains("embed_tokens") {
        "embedding"
    } else if name.starts_with("lm_head") {
        "head"
    } else {
        "decoder layers"
    }
}

/// Multiply-adds of the vision tower by the first two words of the steps' names, in order.
fn stages(phase: &Phase) -> Vec<(String, u64)> {
    let mut stages: Vec<(String, u64)> = Vec::new();
    for step in &phase.steps {
        let words: Vec<&str> = step.name.split('.').collect();
        let stage = if words[0] == "vision" { words[..2.min(words.len())].join(".") } else { words[0].to_owned() };
        match stages.last_mut() {
            Some((last, macs)) if *last == stage => *macs += step.macs,
            _ => stages.push((stage, step.macs)),
        }
    }
    stages
}
