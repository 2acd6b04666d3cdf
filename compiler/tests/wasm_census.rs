//! What the innermost loops of emitted kernels modules consist of: instructions on vectors, and no scalar loop left behind.

use std::collections::BTreeMap;
use std::path::Path;

use models::Recipe;
use models::recipe::Maps;
use tvlmc::assemble::Options;
use tvlmc::wasm::{self, Web};
use wasmparser::{Operator, Parser, Payload};

/// The least share of instructions on vectors in a loop of integer products, where locals, constants and the counter's are not
/// counted but addresses are: 78 % measured with relaxed SIMD, 86 % without, whose products take more. Other loops have more of these, of which engines make less: 18 Gop/s either way in a depthwise
/// row whose addresses are half of its instructions or a tenth.
const LEAST_SHARE: f64 = 0.75;

fn web(recipe: &str) -> Web {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    // As the command line compiles for pages.
    let options = Options { recipe: Some(Recipe { maps: Maps::F32, ..recipe }), ..Options::default() };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    wasm::assemble(&demo, &options, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// Instructions of products in a loop that does most of the work.
const LARGE: usize = 16;

/// Instructions of one innermost loop by their names.
type Loop = BTreeMap<String, usize>;

/// The instruction without what it carries.
fn name(op: &Operator<'_>) -> String {
    let text = format!("{op:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_string()
}

fn on_vectors(name: &str) -> bool {
    ["V128", "I8x16", "I16x8", "I32x4", "I64x2", "F32x4", "F64x2"].iter().any(|shape| name.starts_with(shape))
}

fn is_product(name: &str) -> bool {
    name.contains("Dot") || name.contains("ExtMul")
}

/// Loops without loops in them, and the instructions of whole functions, in the order of the module.
fn functions(module: &[u8]) -> Vec<(Vec<Loop>, Loop)> {
    let mut all = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        let Payload::CodeSectionEntry(body) = payload.expect("valid") else { continue };
        let (mut whole, mut loops) = (Loop::new(), Vec::new());
        // Open blocks; a loop among them has what it consists of so far, until another loop begins in it.
        let mut open: Vec<Option<Loop>> = Vec::new();
        for op in body.get_operators_reader().expect("valid") {
            let op = op.expect("valid");
            let name = name(&op);
            *whole.entry(name.clone()).or_default() += 1;
            match op {
                Operator::Loop { .. } => {
                    open.iter_mut().for_each(|block| *block = None);
                    open.push(Some(Loop::new()));
                }
                Operator::Block { .. } | Operator::If { .. } => open.push(None),
                Operator::End => loops.extend(open.pop().flatten()),
                _ => {
                    if let Some(innermost) = open.iter_mut().rev().flatten().next() {
                        *innermost.entry(name).or_default() += 1;
                    }
                }
            }
        }
        all.push((loops, whole));
    }
    all
}

fn count(of: &Loop, wanted: impl Fn(&str) -> bool) -> usize {
    of.iter().filter(|(name, _)| wanted(name)).map(|(_, n)| n).sum()
}

#[test]
fn loops_are_of_vectors() {
    for recipe in ["int4", "f32"] {
        for (variant, module) in &web(recipe).modules {
            let who = format!("{recipe}, {}", variant.name);
            let (mut products, mut least, mut copies) = (0, f64::INFINITY, 0);
            for (i, (loops, whole)) in functions(module).iter().enumerate() {
                // Decisions compare floats; nothing computes them one by one.
                let scalar = |name: &str| {
                    name.starts_with("F64") && !on_vectors(name)
                        || name.starts_with("F32") && !on_vectors(name) && !["F32Load", "F32Ge"].contains(&name)
                };
                assert_eq!(count(whole, scalar), 0, "{who}: function {i}: {whole:?}");
                // Those that wait for each other.
                if count(whole, |name| name.contains("Atomic")) > 0 {
                    continue;
                }
                // A loop that calls is not the innermost one.
                for innermost in loops.iter().filter(|each| !each.contains_key("Call")) {
                    let memory = count(innermost, |name| name.contains("Load") || name.contains("Store"));
                    let vectors = count(innermost, on_vectors);
                    if memory > 0 && vectors == 0 {
                        // Elements moved as they are, from places that are not beside each other.
                        let moves = count(innermost, |name| ["I32Load", "I32Store"].contains(&name));
                        assert_eq!(moves, memory, "{who}: function {i}: a scalar loop: {innermost:?}");
                        copies += 1;
                    }
                    // Smaller tiles finish what the large ones leave.
                    if count(innermost, is_product) >= LARGE {
                        let plain = |name: &str| name.starts_with("Local") || name.ends_with("Const") || name == "BrIf";
                        // The counter's addition and comparison.
                        let all = count(innermost, |name| !plain(name)).saturating_sub(2);
                        products += 1;
                        least = least.min(vectors as f64 / all as f64);
                    }
                }
            }
            let share = 100.0 * least.min(1.0);
            println!("{who}: {products} large loops of products, {share:.0} % on vectors or more; {copies} of moves");
            assert!(products > 20 || recipe == "f32", "{who}: {products} loops of products");
            assert!(least >= LEAST_SHARE, "{who}: {:.0} % of a loop of products is on vectors", 100.0 * least);
            assert!(copies <= 4, "{who}: {copies} loops move single elements");
            let relaxed =
                functions(module).iter().map(|(_, whole)| count(whole, |name| name.contains("Relaxed"))).sum::<usize>();
            assert_eq!(relaxed > 0, variant.name != "simd128", "{who}: {relaxed} relaxed instructions");
        }
    }
}
