//! The graphs, evaluated as they are built, against transformers and timm.

mod common;

use std::collections::BTreeMap;

use common::{description, errors, get, image, map, nano, rows, tensors};
use ir::{Evaluator, TensorSource, Value, Weights, verify};
use models::{Description, Layout, VisionForm, decoder, embed, expected_tensors, vision};

const CASES: [(&str, Layout); 2] = [("hf", Layout::FastVlm), ("llava", Layout::LlavaQwen2)];

/// Largest error of a value, relative to the largest element.
const RELATIVE: f32 = 2e-5;

#[test]
fn expected_tensors_are_the_checkpoints() {
    for (name, layout) in CASES {
        let source = tensors(&nano(name));
        let expected: BTreeMap<_, _> = expected_tensors(&description(layout, VisionForm::Folded))
            .expect("a valid description")
            .into_iter()
            .collect();
        for (tensor, shape) in &expected {
            assert_eq!(source.shape(tensor).as_ref(), Some(shape), "{name}: {tensor}");
        }
        let unused: Vec<_> = source.names().filter(|t| !expected.contains_key(*t)).collect();
        let known = |t: &&str| t.ends_with("num_batches_tracked") || t.ends_with("head.proj");
        assert!(unused.iter().all(known), "{name}: {unused:?}");
    }
}

#[test]
fn descriptions_read_back() {
    let d = description(Layout::LlavaQwen2, VisionForm::Train);
    assert_eq!(Description::from_ron(&d.to_ron()).expect("text"), d);
}

#[test]
fn unsupported_descriptions_are_named() {
    let refusal = |change: fn(&mut Description)| {
        let mut d = description(Layout::FastVlm, VisionForm::Folded);
        change(&mut d);
        expected_tensors(&d).expect_err("refused").to_string()
    };
    let mean = refusal(|d| d.image.mean = [0.5; 3]);
    assert_eq!(mean, "image.mean is [0.5, 0.5, 0.5], supported is [0, 0, 0], as all FastVLM checkpoints have");
    let heads = refusal(|d| d.text.kv_heads = 2);
    assert_eq!(heads, "text.kv_heads is 2, supported is a divisor of 3 heads");
    let dims = refusal(|d| d.vision.dims[1] = 24);
    assert!(dims.starts_with("vision.dims is [8, 24, 32, 64, 128]"), "{dims}");
    assert!(refusal(|d| d.text.rope_theta = f64::NAN).starts_with("text.rope_theta is NaN"));
}

#[test]
fn tower_and_projector() {
    for (name, layout) in CASES {
        let reference = tensors(&nano(name).join("reference/image.safetensors"));
        let taps = [
            ("vision.stem.2.act", "vision.stem"),
            ("vision.stage0.0.mlp.add", "vision.stage0"),
            ("vision.stage1.0.mlp.add", "vision.stage1"),
            ("vision.stage2.1.mlp.add", "vision.stage2"),
            ("vision.stage3.0.mlp.add", "vision.stage3"),
            ("vision.stage4.0.mlp.add", "vision.stage4"),
            ("vision.final_conv.act", "vision.final"),
        ];
        let mut weights = Weights::new();
        let graph = vision(&description(layout, VisionForm::Folded), &mut weights).expect("a graph");
        verify(&graph, &weights).expect("verified");
        let source = tensors(&nano(name));
        let mut names: Vec<&str> = taps.iter().map(|t| t.0).collect();
        names.push("projector.fc2");
        let values = Evaluator::new(&graph, &weights, &source).values(&image(&reference), &names).expect("values");
        for (node, tensor) in taps {
            let expected = map(&reference, tensor);
            assert_eq!(values[node].shape, expected.shape, "{name}: {node}");
            let (worst, relative) = errors(&values[node].data, &expected.data);
            println!("{name} {node}: {worst:.1e}, relative {relative:.1e}");
            assert!(relative < RELATIVE, "{name}: {node}: {relative}");
        }
        let (worst, relative) = errors(&values["projector.fc2"].data, &get(&reference, "projector"));
        println!("{name} projector: {worst:.1e}, relative {relative:.1e}");
        assert!(relative < RELATIVE, "{name}: projector: {relative}");
    }
}

#[test]
fn embedded_prompt() {
    for (name, layout) in CASES {
        let reference = tensors(&nano(name).join("reference/text.safetensors"));
        let d = description(layout, VisionForm::Folded);
        let found = embedded(&d, name, &get(&reference, "input_ids"));
        assert_eq!(found.data, get(&reference, "inputs_embeds"), "{name}");
    }
}

#[test]
fn decoder_answers() {
    for (name, layout) in CASES {
        for prompt in ["image", "text"] {
            let reference = tensors(&nano(name).join(format!("reference/{prompt}.safetensors")));
            answer(name, &description(layout, VisionForm::Folded), &reference, prompt);
        }
    }
}

fn answer(name: &str, d: &Description, reference: &ir::MemorySource, prompt: &str) {
    let case = format!("{name} {prompt}");
    let mut weights = Weights::new();
    let graph = decoder(d, &mut weights).expect("a graph");
    verify(&graph, &weights).expect("verified");
    let source = tensors(&nano(name));
    let mut evaluator = Evaluator::new(&graph, &weights, &source);
    let names = ["decoder.0.mlp.add", "head.norm", "head.logits", "argmax"];
    let mut values = evaluator.values(&rows(reference, "inputs_embeds"), &names).expect("values");
    if reference.shape("hidden.1").is_some() {
        let (worst, relative) = errors(&values["decoder.0.mlp.add"].data, &get(reference, "hidden.1"));
        println!("{case} layer 0: {worst:.1e}, relative {relative:.1e}");
        assert!(relative < RELATIVE, "{case}: layer 0: {relative}");
    }
    let hidden = get(reference, "hidden.last");
    let (worst, relative) = errors(&values["head.norm"].data, &hidden[hidden.len() - d.text.hidden..]);
    println!("{case} last hidden: {worst:.1e}, relative {relative:.1e}");
    assert!(relative < RELATIVE, "{case}: last hidden: {relative}");
    let (worst, _) = errors(&values["head.logits"].data, &get(reference, "logits.first"));
    println!("{case} first logits: {worst:.1e}");
    assert!(worst < 2e-4, "{case}: first logits: {worst}");

    let expected = get(reference, "tokens");
    let mut tokens = Vec::new();
    while tokens.len() < expected.len() {
        let token = values["argmax"].data[0];
        tokens.push(token);
        if tokens.len() < expected.len() {
            values = evaluator.values(&embedded(d, name, &[token]), &names).expect("values");
        }
    }
    assert_eq!(tokens, expected, "{case}: tokens");
    let (worst, _) = errors(&values["head.logits"].data, &get(reference, "logits.last"));
    println!("{case} last logits: {worst:.1e}");
    assert!(worst < 2e-4, "{case}: last logits: {worst}");
}

fn embedded(d: &Description, name: &str, ids: &[f32]) -> Value {
    let mut weights = Weights::new();
    let graph = embed(d, &mut weights).expect("a graph");
    verify(&graph, &weights).expect("verified");
    let source = tensors(&nano(name));
    Evaluator::new(&graph, &weights, &source).run(&Value::rows(1, ids.to_vec())).expect("rows")
}
