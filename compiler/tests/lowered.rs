//! The lowered program, run by the kernel interpreter, against the graph evaluator, step by step,
//! and against the reference's tokens.

#[allow(dead_code, reason = "shared with other tests")]
mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ir::{Evaluator, Value};
use tvlmc::frontend::{Checkpoint, OpenOptions};
use tvlmc::lower::Phase;
use tvlmc::pipeline::{Options, Prepared, prepare};
use tvlmc::simulate::Simulation;

fn nano(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout)
}

fn reference(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("reference/image.safetensors")).expect("a reference beside the checkpoint")
}

fn floats(file: &[u8], name: &str) -> Vec<f32> {
    let file = safetensors::SafeTensors::deserialize(file).expect("a reference");
    let bytes = file.tensor(name).expect("a tensor").data().to_vec();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn ints(file: &[u8], name: &str) -> Vec<i64> {
    let file = safetensors::SafeTensors::deserialize(file).expect("a reference");
    let bytes = file.tensor(name).expect("a tensor").data().to_vec();
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight"))).collect()
}

/// Largest difference relative to the largest element.
fn relative(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-20f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0f32, |m, (x, y)| if x.is_nan() { f32::INFINITY } else { m.max((x - y).abs()) }) / largest
}

/// Pixels `[1, 3, side, side]` in 0..=1 to values 0..=255, `[side, side, 3]`.
fn pixels(file: &[u8], side: usize) -> Vec<f32> {
    let planes = floats(file, "pixel_values");
    (0..side * side * 3).map(|i| (planes[i % 3 * side * side + i / 3] * 255.0).round()).collect()
}

/// The rows of a result without the padding between them.
/// Runs a phase; compares each step whose name is a node's with the node's value.
fn run_and_compare(
    sim: &mut Simulation<'_>,
    phase: &Phase,
    at: (usize, usize),
    threads: usize,
    expected: &BTreeMap<String, Vec<f32>>,
    tolerance: f32,
) {
    let mut compared = 0;
    sim.run(phase, at, threads, |step, sim| {
        if let Some(value) = expected.get(&step.name) {
            let got = sim.result(&step.result, at.1);
            // The token is an index; the evaluator gives it as a float.
            if step.name != "argmax" {
                let error = relative(&got, value);
                println!("{:32} {:40} {error:.1e}", step.name, step.shapes);
                assert!(error < tolerance, "{}: {error}", step.name);
                compared += 1;
            }
        }
    })
    .unwrap_or_else(|e| panic!("{e}"));
    assert!(compared >= 2, "only {compared} steps had a node to compare with");
}

fn values(prepared: &Prepared, checkpoint: &Checkpoint, vision: bool, input: &Value) -> BTreeMap<String, Vec<f32>> {
    let graph = if vision { &prepared.vision } else { &prepared.decoder };
    let mut out = BTreeMap::new();
    Evaluator::new(graph, &prepared.weights, checkpoint)
        .watch(input, &mut |node, value| {
            out.insert(node.name.clone(), value.data.clone());
        })
        .expect("the evaluator runs");
    out
}

fn check(folder: &Path, level: usize, threads: usize) {
    let layout = folder.file_name().unwrap_or_default().display();
    let checkpoint = Checkpoint::open(folder, &OpenOptions::default()).expect("a checkpoint");
    let prepared = prepare(&checkpoint, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let packed = prepared.packed(&checkpoint).expect("weights");
    let target = prepared.targets[level].as_ref();
    let mut sim = Simulation::new(&prepared.program, &prepared.memory, level, target, &packed);
    let file = reference(folder);
    let side = prepared.description.vision.side;
    let image = pixels(&file, side);

    // Vision.
    sim.picture(side, &image);
    let expected = values(&prepared, &checkpoint, true, &Value::map(side, side, 3, image));
    run_and_compare(&mut sim, &prepared.program.vision, (0, 0), threads, &expected, 1e-4);
    let (tokens, hidden) = (prepared.description.vision.tokens(), prepared.description.text.hidden);
    let pitch = kernels::library::pitch(hidden);
    let rows = sim.rows(prepared.program.io.image_rows, tokens, hidden);
    let error = relative(&rows, &floats(&file, "projector"));
    println!("{layout}: projector {error:.1e}");
    assert!(error < 1e-3);

    // Prompt: text rows by the embedding, image rows as encoded.
    let n = sim.prompt(&ints(&file, "input_ids"), &prepared.description).expect("rows");
    let input = sim.rows(prepared.program.io.rows, n, hidden);
    assert!(relative(&input, &floats(&file, "inputs_embeds")) < 1e-3);
    let expected = values(&prepared, &checkpoint, false, &Value::rows(hidden, input));
    run_and_compare(&mut sim, &prepared.program.prefill, (0, n), threads, &expected, 1e-4);
    let vocab = prepared.description.text.vocab;
    let logits = sim.get(prepared.program.io.logits, 0, vocab);
    let worst = logits.iter().zip(floats(&file, "logits.first")).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("{layout}: first logits {worst:.1e}");
    assert!(worst < 1e-2);

    // Greedy tokens.
    let wanted = ints(&file, "tokens");
    let mut made = Vec::new();
    let mut position = n;
    loop {
        let token = sim.get(prepared.program.io.token, 0, 1)[0].to_bits();
        made.push(i64::from(token));
        if made.len() == wanted.len() {
            break;
        }
        sim.embed(token, 0, pitch).expect("a row");
        sim.run(&prepared.program.decode, (position, 1), threads, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        position += 1;
    }
    assert_eq!(made, wanted, "{layout}: greedy tokens");
}

#[test]
fn hf_on_avx512_with_one_thread() {
    check(&nano("hf"), 0, 1);
}

#[test]
fn llava_on_avx2_with_three_threads() {
    check(&nano("llava"), 1, 3);
}

/// Widths, heads and stages that fill no line of 16, an odd vocabulary, a side that is no multiple of 64.
#[test]
fn odd_sizes_on_both_levels() {
    check(&nano("odd"), 0, 2);
    check(&nano("odd"), 1, 1);
}

/// Other seeds, number formats, shards, sizes and the train form, as `xtask/oracle/draw.sh` draws them.
#[test]
fn drawn_nano_checkpoints() {
    let folder = machine::checkpoints();
    let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let is_nano = |p: &PathBuf| p.file_name().is_some_and(|n| n.display().to_string().starts_with("nano-"));
    let mut drawn: Vec<PathBuf> = entries.filter(is_nano).filter(|p| p.join("reference").is_dir()).collect();
    drawn.sort();
    if drawn.is_empty() {
        println!("skipped: drawn nano checkpoints, none in {}: xtask/oracle/draw.sh draws them", folder.display());
    }
    for (i, folder) in drawn.iter().enumerate() {
        check(folder, i % 2, 1 + i % 3);
    }
}
