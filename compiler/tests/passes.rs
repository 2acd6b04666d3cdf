//! Each pass leaves what the graph computes as it was, and ends in the form that lowering reads.

#[path = "../../models/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with other tests")]
mod machine;
mod noise;

use common::{description, errors, get, image, nano, rows, tensors};
use ir::{Evaluator, Graph, MemorySource, Op, RegionKind, TensorSource, Value, Weights, verify};
use models::{Description, Layout, Text, VisionForm, decoder, vision};
use noise::{Noise, noise};
use tvlmc::passes::{PASSES, run_all};

const CASES: [(&str, Layout); 2] = [("hf", Layout::FastVlm), ("llava", Layout::LlavaQwen2)];

/// Largest difference that a pass may make, relative to the largest element.
const RELATIVE: f32 = 1e-5;

/// Runs the passes one by one; returns the last graph and its result.
fn every_pass(mut graph: Graph, weights: &mut Weights, source: &dyn TensorSource, input: &Value) -> (Graph, Value) {
    let run = |graph: &Graph, weights: &Weights| Evaluator::new(graph, weights, source).run(input).expect("a value");
    let logits = |graph: &Graph, weights: &Weights| {
        // The token alone would hide differences.
        let names = if graph.find("head").is_some() { ["head"] } else { ["head.logits"] };
        let values = Evaluator::new(graph, weights, source).values(input, &names).expect("values");
        values.into_values().next().expect("one")
    };
    let tokens = graph.name == "decoder";
    let mut before = run(&graph, weights);
    let mut before_logits = tokens.then(|| logits(&graph, weights));
    for pass in PASSES {
        graph = (pass.run)(&graph, weights).unwrap_or_else(|e| panic!("{}: {e}", pass.name));
        verify(&graph, weights).unwrap_or_else(|e| panic!("after {}: {e}", pass.name));
        let after = run(&graph, weights);
        let (worst, relative) = errors(&after.data, &before.data);
        println!("{} {}: {} nodes, {worst:.1e}, relative {relative:.1e}", graph.name, pass.name, graph.len());
        assert!(relative < RELATIVE, "{} {}: {relative}", graph.name, pass.name);
        if let Some(before) = &mut before_logits {
            let after = logits(&graph, weights);
            let (worst, relative) = errors(&after.data, &before.data);
            println!("    logits {worst:.1e}, relative {relative:.1e}");
            assert!(relative < RELATIVE, "{} {}: logits {relative}", graph.name, pass.name);
            *before = after;
        }
        before = after;
    }
    (graph, before)
}

/// One line for each node: op or region, and name.
fn steps(graph: &Graph) -> Vec<String> {
    let step = |op: &Op| match op {
        Op::Region { kind, .. } => format!("{kind:?}"),
        op => op.name().to_string(),
    };
    graph.nodes().map(|(_, n)| format!("{} {}", step(&n.op), n.name)).collect()
}

const VISION_STEPS: &[&str] = &[
    "Input image",
    "Stem vision.stem",
    "Conv2d vision.stage0.0.mixer",
    "ConvFfn vision.stage0.0.mlp",
    "PatchEmbed vision.stage1.downsample",
    "Conv2d vision.stage1.0.mixer",
    "ConvFfn vision.stage1.0.mlp",
    "PatchEmbed vision.stage2.downsample",
    "Conv2d vision.stage2.0.mixer",
    "ConvFfn vision.stage2.0.mlp",
    "Conv2d vision.stage2.1.mixer",
    "ConvFfn vision.stage2.1.mlp",
    "PatchEmbed vision.stage3.downsample",
    "Conv2d vision.stage3.pos_emb",
    "Attention vision.stage3.0.attn",
    "ConvFfn vision.stage3.0.mlp",
    "PatchEmbed vision.stage4.downsample",
    "Conv2d vision.stage4.pos_emb",
    "Attention vision.stage4.0.attn",
    "ConvFfn vision.stage4.0.mlp",
    "FinalConv vision.final_conv",
    "Flatten vision.flatten",
    "Projector projector",
];

const DECODER_STEPS: &[&str] = &[
    "Input rows",
    "DecoderAttention decoder.0.attn",
    "Mlp decoder.0.mlp",
    "DecoderAttention decoder.1.attn",
    "Mlp decoder.1.mlp",
    "Head head",
    "ArgMax argmax",
];

fn check_vision(source: &MemorySource, d: &Description, reference: &MemorySource) {
    let mut weights = Weights::new();
    let graph = vision(d, &mut weights).expect("a graph");
    let (graph, value) = every_pass(graph, &mut weights, source, &image(reference));
    assert_eq!(steps(&graph), VISION_STEPS);
    let (worst, relative) = errors(&value.data, &get(reference, "projector"));
    println!("projector against the reference: {worst:.1e}, relative {relative:.1e}");
    assert!(relative < 2e-5, "projector: {relative}");
}

#[test]
fn vision_of_both_layouts() {
    for (name, layout) in CASES {
        let reference = tensors(&nano(name).join("reference/image.safetensors"));
        check_vision(&tensors(&nano(name)), &description(layout, VisionForm::Folded), &reference);
    }
}

/// A checkpoint in train form is drawn on demand, outside the repository.
#[test]
fn vision_in_train_form() {
    let Some(folder) = machine::drawn("nano-hf-train-bf16-s3") else { return };
    let reference = folder.join("reference/image.safetensors");
    let d = description(Layout::FastVlm, VisionForm::Train);
    check_vision(&tensors(&folder), &d, &tensors(&reference));
}

#[test]
fn decoder_of_both_layouts() {
    for (name, layout) in CASES {
        let d = description(layout, VisionForm::Folded);
        let reference = tensors(&nano(name).join("reference/image.safetensors"));
        let mut weights = Weights::new();
        let graph = decoder(&d, &mut weights).expect("a graph");
        let source = tensors(&nano(name));
        let (graph, _) = every_pass(graph, &mut weights, &source, &rows(&reference, "inputs_embeds"));
        assert_eq!(steps(&graph), DECODER_STEPS);
        for (_, node) in graph.nodes() {
            let Op::Region { kind, body } = &node.op else { continue };
            let ops: Vec<_> = body.nodes().map(|(_, n)| n.op.name()).collect();
            match kind {
                RegionKind::DecoderAttention => {
                    assert_eq!(ops, ["Input", "RmsNorm", "Linear", "Rope", "Attention", "Linear", "Add"]);
                }
                RegionKind::Mlp => assert_eq!(ops, ["Input", "RmsNorm", "Linear", "SwiGlu", "Linear", "Add"]),
                RegionKind::Head => assert_eq!(ops, ["Input", "LastRow", "RmsNorm", "Linear"]),
                other => panic!("{other:?} in a decoder"),
            }
            for (_, inner) in body.nodes() {
                match &inner.op {
                    Op::RmsNorm { gain, .. } => assert!(gain.is_none(), "{}: gain is left", inner.name),
                    Op::Attention { scale, .. } => assert_eq!(*scale, 1.0, "{}", inner.name),
                    _ => {}
                }
            }
        }
    }
}

/// The gain in front of a tied head stays, because the embedding must.
#[test]
fn tied_head_keeps_its_gain() {
    let mut d = description(Layout::FastVlm, VisionForm::Folded);
    d.text.tied = true;
    let mut weights = Weights::new();
    let table = models::embedding(&d, &mut weights);
    let graph = decoder(&d, &mut weights).expect("a graph");
    let graph = run_all(graph, &mut weights, None).expect("passes");
    let head = &graph[graph.find("head").expect("a head")].op;
    let Op::Region { body, .. } = head else { panic!("{head:?}") };
    let norm = &body[body.find("head.norm").expect("a norm")].op;
    assert!(matches!(norm, Op::RmsNorm { gain: Some(_), .. }), "{norm:?}");
    let logits = &body[body.find("head.logits").expect("logits")].op;
    assert_eq!(*logits, Op::Linear { weight: table, bias: None });
}

/// Widths and heads that fill no line of 16 compute the same; heads come out in whole lines.
#[test]
fn odd_widths() {
    for (hidden, heads, kv_heads, head_dim, ffn) in
        [(96, 3, 1, 32, 50), (100, 5, 1, 20, 37), (37, 4, 2, 2, 1), (70, 7, 7, 10, 129), (96, 2, 2, 48, 16)]
    {
        let mut d = description(Layout::FastVlm, VisionForm::Folded);
        d.text = Text { hidden, heads, kv_heads, head_dim, ffn, vocab: 437, tied: hidden == 37, ..d.text };
        let mut weights = Weights::new();
        let graph = decoder(&d, &mut weights).expect("a graph");
        let source = Noise::of(&weights);
        let input = Value::rows(hidden, (0..5 * hidden as u64).map(noise).collect());
        let (graph, _) = every_pass(graph, &mut weights, &source, &input);
        for (_, node) in graph.nodes() {
            let Op::Region { kind: RegionKind::DecoderAttention, body } = &node.op else { continue };
            let width = |op: &Op| match op {
                Op::Rope { head_dim, .. } | Op::Attention { head_dim, .. } => Some(*head_dim),
                _ => None,
            };
            let widths: Vec<_> = body.nodes().filter_map(|(_, n)| width(&n.op)).collect();
            assert_eq!(widths, [2 * (head_dim / 2).next_multiple_of(16); 2], "heads of {head_dim}");
        }
    }
}

/// Stage widths and a picture side that fit no tile, pixels that are not in the unit range.
#[test]
fn odd_tower() {
    // Stages that double, and stages that grow by other multiples.
    for dims in [[4, 8, 16, 32, 64], [3, 3, 12, 96, 96]] {
        let mut d = description(Layout::FastVlm, VisionForm::Train);
        d.vision.side = 75;
        d.vision.dims = dims;
        d.vision.depths = [1, 2, 1, 2, 1];
        d.image.std = [0.25, 0.5, 0.75];
        let mut weights = Weights::new();
        let graph = vision(&d, &mut weights).expect("a graph");
        let source = Noise::of(&weights);
        let input = Value::map(75, 75, 3, (0..75 * 75 * 3).map(|i| (i * 31 % 256) as f32).collect());
        every_pass(graph, &mut weights, &source, &input);
    }
}

#[test]
fn dumps_read_back() {
    let dir = std::env::temp_dir().join(format!("tvlmc-passes-{}", std::process::id()));
    let d = description(Layout::FastVlm, VisionForm::Train);
    let mut weights = Weights::new();
    let graph = run_all(vision(&d, &mut weights).expect("a graph"), &mut weights, Some(&dir)).expect("passes");
    let mut files: Vec<_> =
        std::fs::read_dir(dir.join("vision")).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|f| f.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    assert_eq!(
        names,
        ["00-import.ron", "01-reparameterize.ron", "02-fold.ron", "03-merge.ron", "04-fuse.ron", "05-layout.ron"]
    );
    let text = std::fs::read_to_string(files.last().expect("a file")).expect("text");
    let module = ir::Module::from_ron(&text).expect("RON");
    assert_eq!(module.graph, graph);
    assert_eq!(module.weights, weights);
    assert_eq!(module.to_ron(), text);
    std::fs::remove_dir_all(&dir).expect("removed");
}
