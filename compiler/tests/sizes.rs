//! Sizes that fill no tile and no line, lowered and run by the kernel interpreter, against the
//! evaluator on the graphs as they were imported. Tensors are noise: no checkpoint is needed.

#[path = "../../models/tests/common/mod.rs"]
mod common;
mod noise;

use common::{description, errors};
use ir::{Evaluator, Graph, SourceError, Value, Weights};
use kernels::Target;
use kernels::library::pitch;
use models::{Description, Layout, Text, VisionForm, decoder, embedding, vision};
use noise::{Noise, noise};
use tvlmc::lower::{Formats, Options, Program, lower};
use tvlmc::memory;
use tvlmc::pack::PackId;
use tvlmc::passes::run_all;
use tvlmc::simulate::Simulation;

/// Largest difference relative to the largest element.
const RELATIVE: f32 = 1e-4;

/// A model in both forms: as imported, and as a program.
struct Model {
    description: Description,
    vision: Graph,
    decoder: Graph,
    weights: Weights,
    noise: Noise,
    program: Program,
    targets: Vec<Box<dyn Target>>,
    packed: Vec<u32>,
}

impl Model {
    fn new(d: Description) -> Model {
        let mut weights = Weights::new();
        let (vision, decoder) =
            (vision(&d, &mut weights).expect("a graph"), decoder(&d, &mut weights).expect("a graph"));
        let table = embedding(&d, &mut weights);
        let noise = Noise::of(&weights);
        let fused = [&vision, &decoder].map(|g| run_all(g.clone(), &mut weights, None).expect("passes"));
        let targets: Vec<Box<dyn Target>> =
            codegen_avx2::Level::FLOAT.into_iter().map(|l| Box::new(l) as Box<dyn Target>).collect();
        let options = Options { context: d.text.max_positions, formats: Formats::F32 };
        let program = lower(&d, &fused[0], &fused[1], table, &mut weights, &targets, &options);
        let program = program.unwrap_or_else(|e| panic!("{e}"));
        let mut packed = Vec::new();
        let mut keep = |piece: &[u32]| {
            packed.extend_from_slice(piece);
            Ok::<(), SourceError>(())
        };
        program.packs.write(&weights, &noise, &mut keep, &|_| {}).expect("weights");
        Model { description: d, vision, decoder, weights, noise, program, targets, packed }
    }

    /// A picture, a prompt of `n` rows, and one more position, at one level.
    fn check(&self, level: usize, n: usize) {
        let memory = memory::plan(&self.program);
        let (program, io) = (&self.program, self.program.io);
        let mut sim = Simulation::new(program, &memory, level, self.targets[level].as_ref(), &self.packed);
        let same = |what: &str, found: &[f32], expected: &[f32]| {
            let (_, relative) = errors(found, expected);
            println!("level {level}, {what}: {relative:.1e}");
            assert!(relative < RELATIVE, "level {level}, {what}: {relative}");
        };

        let side = self.description.vision.side;
        let image: Vec<f32> = (0..side * side * 3).map(|i| (i * 31 % 256) as f32).collect();
        sim.picture(side, &image);
        sim.run(&program.vision, (0, 0), 2, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        let Text { hidden, vocab, .. } = self.description.text;
        let ld = pitch(hidden);
        let tokens = self.description.vision.tokens();
        let rows = sim.rows(io.image_rows, tokens, hidden);
        let input = Value::map(side, side, 3, image);
        let expected = Evaluator::new(&self.vision, &self.weights, &self.noise).run(&input).expect("rows");
        same("image rows", &rows, &expected.data);

        let mut evaluator = Evaluator::new(&self.decoder, &self.weights, &self.noise);
        let mut logits = |sim: &Simulation<'_>, what: &str, rows: Vec<f32>| {
            let mut expected = Vec::new();
            let token = evaluator.watch(&Value::rows(hidden, rows), &mut |node, value| {
                if node.name == "head.logits" {
                    expected.clone_from(&value.data);
                }
            });
            same(what, &sim.get(io.logits, 0, vocab), &expected);
            // What fills the last line up never wins.
            let made = sim.get(io.token, 0, 1)[0].to_bits();
            assert_eq!(made as f32, token.expect("a token").data[0], "level {level}, {what}: token");
        };
        // The last row is a token's, the others are noise.
        let mut rows: Vec<f32> = (0..(n - 1) * hidden).map(|i| noise(i as u64)).collect();
        for (i, row) in rows.chunks_exact(hidden).enumerate() {
            sim.set(io.rows, i * ld, row);
        }
        let last = u32::try_from(vocab - 1).expect("small");
        sim.embed(last, n - 1, ld).expect("a row");
        rows.extend(sim.get(io.rows, (n - 1) * ld, hidden));
        sim.run(&program.prefill, (0, n), 3, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        logits(&sim, "prefill", rows);
        sim.embed(last / 2, 0, ld).expect("a row");
        let row = sim.get(io.rows, 0, hidden);
        sim.run(&program.decode, (n, 1), 2, |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        logits(&sim, "decode", row);
    }
}

fn check(side: usize, dims: [usize; 5], text: impl Fn(Text) -> Text) {
    let mut d = description(Layout::FastVlm, VisionForm::Folded);
    d.vision.side = side;
    d.vision.dims = dims;
    d.vision.depths = [1; 5];
    d.text = text(Text { layers: 2, max_positions: 97, ..d.text });
    println!("{:?} {:?}", d.vision, d.text);
    let model = Model::new(d);
    model.check(0, 19);
    model.check(1, 18);
}

#[test]
fn heads_of_20_and_a_side_of_75() {
    check(75, [4, 8, 16, 32, 64], |t| Text {
        hidden: 100,
        heads: 5,
        kv_heads: 1,
        head_dim: 20,
        ffn: 37,
        vocab: 437,
        ..t
    });
}

#[test]
fn the_least_of_everything() {
    check(33, [1, 1, 1, 32, 32], |t| Text {
        hidden: 1,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        ffn: 1,
        vocab: 3,
        tied: true,
        ..t
    });
}

/// Odd stages, multiples of 1 to 4, heads that each have their keys.
#[test]
fn odd_stages() {
    check(64, [5, 10, 40, 160, 160], |t| Text {
        hidden: 37,
        heads: 3,
        kv_heads: 3,
        head_dim: 14,
        ffn: 51,
        vocab: 33,
        tied: true,
        ..t
    });
}

/// Wider than a block of the depth, with rows of 4 KB, and heads whose halves are 24.
#[test]
fn wide_rows() {
    check(40, [20, 40, 80, 160, 320], |t| Text {
        hidden: 1030,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 48,
        ffn: 1000,
        vocab: 1001,
        ..t
    });
}

/// The published 7B model, planned without its weights: 31 GB of them, and an embedding of more than 2 GiB.
#[test]
fn offsets_beyond_four_gigabytes() {
    let mut d = description(Layout::LlavaQwen2, VisionForm::Folded);
    d.vision.side = 1024;
    d.vision.dims = [96, 192, 384, 768, 1536];
    d.vision.depths = [2, 12, 24, 4, 2];
    d.text = Text {
        hidden: 3584,
        layers: 28,
        heads: 28,
        kv_heads: 4,
        head_dim: 128,
        ffn: 18944,
        vocab: 152064,
        max_positions: 32768,
        ..d.text
    };
    let mut weights = Weights::new();
    let graphs = [vision(&d, &mut weights).expect("a graph"), decoder(&d, &mut weights).expect("a graph")];
    let table = embedding(&d, &mut weights);
    let [tower, text] = graphs.map(|g| run_all(g, &mut weights, None).expect("passes"));
    let targets: Vec<Box<dyn Target>> =
        codegen_avx2::Level::FLOAT.into_iter().map(|l| Box::new(l) as Box<dyn Target>).collect();
    let program =
        lower(&d, &tower, &text, table, &mut weights, &targets, &Options { context: 32768, formats: Formats::F32 });
    let program = program.unwrap_or_else(|e| panic!("{e}"));

    let mut bytes = 0;
    for (i, pack) in program.packs.iter().enumerate() {
        assert_eq!(program.packs.offset(PackId(i)) as u64, bytes, "{}", pack.name);
        bytes += 4 * pack.floats as u64;
    }
    assert_eq!(4 * program.packs.total() as u64, bytes);
    assert!(bytes > 30_000_000_000, "{bytes} bytes");
    let (at, floats) = (program.packs.offset(program.embed_table), program.packs.floats(program.embed_table));
    assert!(at > u32::MAX as usize && 4 * floats > i32::MAX as usize, "{at} {floats}");
    // The last token's row ends where the table ends.
    let last = d.text.vocab as i64 - 1;
    let touched = kernels::extents(&program.embed[0], &[(last, last)]).expect("extents");
    assert_eq!(touched[0].end, 4 * floats as i64);
    let memory = memory::plan(&program);
    let cache = 2 * 28 * 4 * 128 * 32768 * 4;
    assert!(memory.persistent > cache && memory.total > memory.persistent, "{memory:?}");
}
