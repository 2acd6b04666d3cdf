//! The emitted code against the graph evaluator, op by op.
//!
//! The runner of an emitted crate dumps what every step makes. Here the fused graphs are evaluated on the same
//! pixels and the same input rows, and each step is compared with the node of its name. Steps inside a region
//! have no node of their own; what they do shows in the region's result.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ir::{Evaluator, Graph, Value};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frontend::Checkpoint;
use crate::pack::Kind;
use crate::pipeline::Prepared;
use crate::quant;

/// Shown for values without any difference.
pub const EQUAL_DB: f64 = 200.0;

/// One step, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Op {
    /// Name of step and node.
    pub name: String,
    /// `vision`, `prefill` or `decode`.
    pub phase: String,
    /// Largest difference.
    pub max_abs: f64,
    /// Signal to noise in decibels; at most [`EQUAL_DB`].
    pub snr_db: f64,
    /// The least that its recipe has to reach, [`quant::limit_db`].
    pub limit_db: f64,
}

impl Op {
    /// Whether only rounding and quantization differ.
    pub fn ok(&self) -> bool {
        self.snr_db >= self.limit_db
    }
}

/// All steps, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// In the order of their evaluation.
    pub ops: Vec<Op>,
    /// Tokens of the emitted code.
    pub tokens: Vec<u32>,
    /// Tokens of the evaluator.
    pub expected: Vec<u32>,
    /// Whether no weight is quantized, so that the tokens have to be equal.
    pub exact: bool,
}

impl Comparison {
    /// Whether all steps agree, and the tokens where they have to.
    pub fn ok(&self) -> bool {
        (self.tokens == self.expected || !self.exact) && self.ops.iter().all(Op::ok)
    }

    /// The first step that differs by more than rounding.
    pub fn first_difference(&self) -> Option<&Op> {
        self.ops.iter().find(|op| !op.ok())
    }
}

/// A dump's `index.json`.
#[derive(Deserialize)]
struct Index {
    prompt_token_ids: Vec<i64>,
    token_ids: Vec<u32>,
    files: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
struct Entry {
    name: String,
    phase: String,
    start: usize,
    rows: usize,
    channels: usize,
    file: String,
}

/// Compares the dump in `folder`; `seen` gets each step as soon as it is compared.
///
/// # Errors
/// A dump that cannot be read or is of another model, or a weight that cannot be read.
pub fn compare(
    prepared: &Prepared,
    checkpoint: &Checkpoint,
    folder: &Path,
    seen: &mut dyn FnMut(&Op),
) -> Result<Comparison, Error> {
    let path = folder.join("index.json");
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| wrong(format!("index.json: {e}")))?;
    let dump = Dump { folder, index };
    let mut judge = Judge { ops: Vec::new(), seen };

    let mut image_rows = Vec::new();
    if let Some(pixels) = dump.entry("input", "pixels", 0) {
        let side = pixels.rows;
        let graph = prepared.vision_at(side).ok_or_else(|| wrong(format!("pixels of {side} rows")))?;
        let bytes = dump.read(&pixels.file)?;
        let pixels = Value::map(side, side, 3, bytes.into_iter().map(f32::from).collect());
        run(graph, prepared, checkpoint, None, &pixels, &dump, ("vision", 0), &mut judge)?;
        let last = dump.index.files.iter().rfind(|entry| entry.phase == "vision");
        let last = last.ok_or_else(|| wrong("the dump has pixels, and no step of the vision tower".into()))?;
        image_rows = dump.floats(last)?;
    }

    let rows = dump.rows(prepared, checkpoint, &image_rows)?;
    let hidden = prepared.description.text.hidden;
    let mut starts: Vec<(usize, usize)> = Vec::new();
    for entry in dump.index.files.iter().filter(|entry| entry.phase == "prefill" && entry.name != "logits") {
        // The last steps of a call work on one row, the first ones on all.
        match starts.iter_mut().find(|(start, _)| *start == entry.start) {
            Some((_, n)) => *n = (*n).max(entry.rows),
            None => starts.push((entry.start, entry.rows)),
        }
    }
    let mut decoder = Evaluator::new(&prepared.decoder, &prepared.weights, checkpoint);
    let mut expected = Vec::new();
    for (i, &(start, n)) in starts.iter().enumerate() {
        let Some(part) = rows.get(start * hidden..(start + n) * hidden) else {
            return Err(wrong(format!("rows {start}..{} of {}", start + n, rows.len() / hidden)));
        };
        let input = Value::rows(hidden, part.to_vec());
        let at = ("prefill", start);
        let result = run(&prepared.decoder, prepared, checkpoint, Some(&mut decoder), &input, &dump, at, &mut judge)?;
        if i + 1 == starts.len() {
            expected.extend(result.data.first().map(|&token| token as u32));
        }
    }
    // The second token is made from the first one of the emitted code, so that one difference stays one.
    if let ([first, _, ..], false) = (&dump.index.token_ids[..], starts.is_empty()) {
        let input = Value::rows(hidden, embedding(prepared, checkpoint, *first)?);
        let at = ("decode", decoder.position());
        let result = run(&prepared.decoder, prepared, checkpoint, Some(&mut decoder), &input, &dump, at, &mut judge)?;
        expected.extend(result.data.first().map(|&token| token as u32));
    }
    let Judge { ops, .. } = judge;
    if ops.is_empty() {
        return Err(wrong("no step has the name of a node".into()));
    }
    let exact = prepared.recipe.is_exact();
    Ok(Comparison { ops, tokens: dump.index.token_ids, expected, exact })
}

struct Judge<'a> {
    ops: Vec<Op>,
    seen: &'a mut dyn FnMut(&Op),
}

struct Dump<'a> {
    folder: &'a Path,
    index: Index,
}

impl Dump<'_> {
    fn entry(&self, phase: &str, name: &str, start: usize) -> Option<&Entry> {
        self.index.files.iter().find(|e| e.name == name && e.phase == phase && e.start == start)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, Error> {
        let path = self.folder.join(file);
        fs::read(&path).map_err(Error::io("read", &path))
    }

    fn floats(&self, entry: &Entry) -> Result<Vec<f32>, Error> {
        let bytes = self.read(&entry.file)?;
        if bytes.len() != entry.rows * entry.channels * 4 {
            return Err(wrong(format!(
                "{}: {} bytes, not {} x {} floats",
                entry.file,
                bytes.len(),
                entry.rows,
                entry.channels
            )));
        }
        Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }

    /// The decoder's input rows: token rows from the checkpoint, image rows as the emitted code made them.
    fn rows(&self, prepared: &Prepared, checkpoint: &Checkpoint, image_rows: &[f32]) -> Result<Vec<f32>, Error> {
        let hidden = prepared.description.text.hidden;
        let image = prepared.description.tokens.image.map(i64::from);
        let mut images = image_rows.chunks_exact(hidden);
        let mut known: BTreeMap<u32, Vec<f32>> = BTreeMap::new();
        let mut rows = Vec::new();
        for &id in &self.index.prompt_token_ids {
            if id < 0 {
                // One id stands for all rows of the picture.
                rows.extend(images.by_ref().flatten());
            } else if Some(id) == image {
                rows.extend(images.next().ok_or_else(|| wrong("more image tokens than image rows".into()))?);
            } else {
                let id = u32::try_from(id).map_err(|_| wrong(format!("token {id}")))?;
                if let std::collections::btree_map::Entry::Vacant(slot) = known.entry(id) {
                    slot.insert(embedding(prepared, checkpoint, id)?);
                }
                rows.extend(&known[&id]);
            }
        }
        Ok(rows)
    }
}

/// Evaluates a graph, comparing each node that has a step in the dump.
#[expect(clippy::too_many_arguments, reason = "a private helper: one call is one line of the story")]
fn run<'a>(
    graph: &'a Graph,
    prepared: &'a Prepared,
    checkpoint: &'a Checkpoint,
    evaluator: Option<&mut Evaluator<'a>>,
    input: &Value,
    dump: &Dump<'_>,
    (phase, start): (&str, usize),
    judge: &mut Judge<'_>,
) -> Result<Value, Error> {
    let mut failed = None;
    let mut watch = |node: &ir::Node, value: &Value| {
        // A token is an index, not a number with an error.
        if failed.is_some() || matches!(node.op, ir::Op::ArgMax | ir::Op::Input) {
            return;
        }
        let Some(entry) = dump.entry(phase, &node.name, start) else { return };
        match dump.floats(entry) {
            Ok(found) => {
                let (max_abs, snr_db) = difference(&found, &value.data);
                let limit_db = quant::limit_db(&prepared.recipe, &node.name);
                let op = Op { name: node.name.clone(), phase: phase.to_owned(), max_abs, snr_db, limit_db };
                (judge.seen)(&op);
                judge.ops.push(op);
            }
            Err(error) => failed = Some(error),
        }
    };
    let result = match evaluator {
        Some(evaluator) => evaluator.watch(input, &mut watch),
        None => Evaluator::new(graph, &prepared.weights, checkpoint).watch(input, &mut watch),
    };
    if let Some(error) = failed {
        return Err(error);
    }
    result.map_err(|e| unreadable(checkpoint, &e))
}

/// What reading the checkpoint met: bad input, a broken disk, or a bug of ours.
fn unreadable(checkpoint: &Checkpoint, e: &dyn std::error::Error) -> Error {
    checkpoint.failure().unwrap_or_else(|| Error::Bug(e.to_string()))
}

/// The row of one token.
fn embedding(prepared: &Prepared, checkpoint: &Checkpoint, id: u32) -> Result<Vec<f32>, Error> {
    let pack = prepared.program.packs.iter().nth(prepared.program.embed_table.0);
    let Some(Kind::Matrix { weight, outputs, .. }) = pack.map(|pack| &pack.kind) else {
        return Err(Error::Bug("the embedding is no matrix".into()));
    };
    let row = id as usize;
    if row >= *outputs {
        return Err(wrong(format!("token {id} of {outputs}")));
    }
    prepared.weights.eval_rows(*weight, row..row + 1, checkpoint).map_err(|e| unreadable(checkpoint, &e))
}

/// Largest difference, and signal to noise in decibels. Values that are not numbers are as wrong as can be.
fn difference(found: &[f32], expected: &[f32]) -> (f64, f64) {
    if found.len() != expected.len() {
        return (f64::MAX, -EQUAL_DB);
    }
    let (mut max, mut noise, mut signal) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (&found, &expected) in found.iter().zip(expected) {
        let error = (f64::from(found) - f64::from(expected)).abs();
        if !error.is_finite() {
            // Infinity that is expected is no difference.
            if found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()) {
                continue;
            }
            return (f64::MAX, -EQUAL_DB);
        }
        max = max.max(error);
        noise += error * error;
        signal += f64::from(expected) * f64::from(expected);
    }
    let snr = if noise == 0.0 { EQUAL_DB } else { 10.0 * (signal / noise).log10() };
    (max, snr.clamp(-EQUAL_DB, EQUAL_DB))
}

fn wrong(problem: String) -> Error {
    Error::Bug(format!("the dump of the emitted code does not fit the model: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), (0.0, EQUAL_DB));
        let (max, snr) = difference(&[1.1, 1.0], &[1.0, 1.0]);
        assert!((max - 0.1).abs() < 1e-6 && (snr - 23.01).abs() < 0.01, "{max} {snr}");
        assert_eq!(difference(&[f32::NAN], &[1.0]), (f64::MAX, -EQUAL_DB));
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), (f64::MAX, -EQUAL_DB));
        assert_eq!(difference(&[0.0], &[0.0]), (0.0, EQUAL_DB));
        assert_eq!(difference(&[1.0], &[0.0]), (1.0, -EQUAL_DB));
    }
}
