//! `manifest.json`: what was made from what.

use std::collections::BTreeMap;

use models::{Layout, Recipe};
use runtime_decode::Alpha;
use serde::Serialize;

use super::{Identity, TOOL_VERSION, WEIGHTS_NAME};
use crate::lower::Phase;
use crate::pipeline::Prepared;
use crate::tune::Tuning;

/// The manifest. Fields are written in this order.
#[derive(Serialize)]
struct Manifest<'a> {
    format: &'static str,
    version: u32,
    tool: String,
    name: &'a str,
    target: &'a str,
    quantization: String,
    /// As it was given; what compiles the same again.
    recipe: &'a Recipe,
    /// The schedules that were measured, if any; what compiles the same again.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuning: Option<&'a Tuning>,
    checkpoint_sha256: String,
    pairing_sha256: String,
    weights: &'static str,
    weights_bytes: usize,
    license: License<'a>,
    arena_bytes: usize,
    scratch_bytes_per_thread: usize,
    image_side: usize,
    tokens_per_image: usize,
    /// From small to large; the last one is that of `image_side`, `tokens_per_image` and `vision`.
    sides: Vec<Side>,
    /// What the reference implementation of the layout makes of transparent pictures.
    alpha: &'static str,
    max_context: usize,
    /// Whose cache the weight file carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<&'a str>,
    levels: Vec<String>,
    vision: Vec<Op<'a>>,
    decode: Vec<Op<'a>>,
}

/// A side that pictures can have.
#[derive(Serialize)]
struct Side {
    side: usize,
    tokens: usize,
    /// Multiply-adds of the tower.
    macs: u64,
}

/// What the checkpoint says about the license of the weights; empty if nothing.
#[derive(Serialize)]
struct License<'a> {
    /// As the front matter of its README has it.
    declared: BTreeMap<&'a str, &'a str>,
    texts: Vec<LicenseFile<'a>>,
}

/// A license text in the folder.
#[derive(Serialize)]
struct LicenseFile<'a> {
    file: &'a str,
    /// Its name in the checkpoint, unless it is a strange one.
    from: Option<&'a str>,
}

/// One step.
#[derive(Serialize)]
struct Op<'a> {
    name: &'a str,
    macs: u64,
    weight_bytes: usize,
}

pub(super) fn manifest(prepared: &Prepared, id: &Identity<'_>) -> String {
    let licenses = &prepared.licenses;
    let manifest = Manifest {
        format: "tvlmc-package",
        version: 1,
        tool: format!("tvlmc {TOOL_VERSION}"),
        name: id.name,
        target: id.target,
        quantization: prepared.program.formats.to_string(),
        recipe: &prepared.recipe,
        tuning: prepared.tuning.as_ref(),
        checkpoint_sha256: hex(&id.checkpoint),
        pairing_sha256: hex(&id.digest),
        weights: WEIGHTS_NAME,
        weights_bytes: prepared.program.packs.total() * 4,
        license: License {
            declared: licenses.declared.iter().map(|(key, value)| (*key, value.as_str())).collect(),
            texts: licenses.texts.iter().map(|t| LicenseFile { file: &t.file, from: t.from.as_deref() }).collect(),
        },
        arena_bytes: prepared.memory.total,
        scratch_bytes_per_thread: prepared.program.scratch_bytes,
        image_side: prepared.description.vision.side,
        tokens_per_image: prepared.description.vision.tokens(),
        sides: sides(prepared),
        alpha: alpha(prepared).name(),
        max_context: prepared.program.context,
        system_prompt: id.baked.then_some(id.system),
        levels: levels(prepared),
        vision: ops(prepared, &prepared.program.vision),
        decode: ops(prepared, &prepared.program.decode),
    };
    let mut text = serde_json::to_string_pretty(&manifest).expect("plain data has a JSON form");
    text.push('\n');
    text
}

fn sides(prepared: &Prepared) -> Vec<Side> {
    let all = prepared.program.sides(&prepared.description).into_iter();
    all.map(|(side, tokens, .., phase)| Side { side, tokens, macs: phase.macs() }).collect()
}

/// What the reference implementation of the layout makes of transparent pictures.
pub(super) fn alpha(prepared: &Prepared) -> Alpha {
    match prepared.description.layout {
        Layout::FastVlm => Alpha::White,
        Layout::LlavaQwen2 => Alpha::Drop,
    }
}

/// Names of the levels, best first, as the emitted code takes them.
pub(super) fn levels(prepared: &Prepared) -> Vec<String> {
    prepared.targets.iter().map(|t| prepared.machine.level_name(t.level())).collect()
}

fn ops<'a>(prepared: &'a Prepared, phase: &'a Phase) -> Vec<Op<'a>> {
    let weight_bytes = |step: &crate::lower::Step| {
        step.pointers
            .iter()
            .map(|p| match p {
                crate::lower::Place::Weight(pack) => 4 * prepared.program.packs.floats(*pack),
                // Counted with the matrix.
                crate::lower::Place::Scales(_) | crate::lower::Place::Reach(_) => 0,
                crate::lower::Place::Slot(..) | crate::lower::Place::Scratch => 0,
            })
            .sum()
    };
    phase.steps.iter().map(|s| Op { name: &s.name, macs: s.macs, weight_bytes: weight_bytes(s) }).collect()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
