//! Every kernel that the nano models use, as floats and quantized, for every target: also those whose
//! emission comes later.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use compiler::frontend::{Checkpoint, OpenOptions, describe};
use compiler::lower::{self, Formats};
use compiler::passes;
use kernels::Elem;
use kernels::library::Schedule;
use kernels::library::cache::Cache;
use kernels::library::matrix::Format;
use kernels::{Kernel, Target};
use snapshots::{Named, integer_targets, module, targets};

const BYTES: Format = Format::Bytes { block: 128 };

const INT8: Formats = Formats {
    vision: BYTES,
    projector: BYTES,
    decoder: BYTES,
    head: BYTES,
    split: false,
    cache: Cache::Int8,
    maps: Elem::F32,
};

const INT4: Formats = Formats { decoder: Format::Nibbles, head: Format::Nibbles, split: true, ..INT8 };

/// The kernels of a nano model's program, built with the schedule of `target`.
fn kernels_of(layout: &str, target: Box<dyn Target>, formats: Formats) -> Vec<Rc<Kernel>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout);
    let checkpoint = Checkpoint::open(&folder, &OpenOptions::default()).expect("the nano model is in the project");
    let described = describe(&checkpoint).expect("it is a FastVLM").description;
    let mut weights = ir::Weights::new();
    let vision = models::vision(&described, &mut weights).expect("a graph");
    let decoder = models::decoder(&described, &mut weights).expect("a graph");
    let table = models::embedding(&described, &mut weights);
    let vision = passes::run_all(vision, &mut weights, None).expect("passes");
    let decoder = passes::run_all(decoder, &mut weights, None).expect("passes");
    let targets = [target];
    let options = lower::Options { context: described.text.max_positions.min(512), formats };
    let program = lower::lower(&described, &vision, &decoder, table, &mut weights, &targets, &options);
    let program = program.unwrap_or_else(|e| panic!("{layout}: {e}"));
    let mut all: BTreeMap<String, Rc<Kernel>> = BTreeMap::new();
    let phases = program.phases();
    let entries = phases.into_iter().flat_map(|(_, p)| &p.steps).flat_map(|s| &s.kernels).chain(&program.embed);
    for kernel in entries.flat_map(Kernel::with_callees) {
        let known = all.entry(kernel.name.clone()).or_insert_with(|| kernel.clone());
        assert_eq!(known.body, kernel.body, "two kernels are named {}", kernel.name);
    }
    all.into_values().collect()
}

/// [`module`] verifies each kernel after legalizing it.
#[test]
fn every_kernel_verifies_and_parses_on_every_target() {
    for (of, formats) in
        [(targets as fn() -> Vec<Named>, Formats::F32), (integer_targets, INT8), (integer_targets, INT4)]
    {
        for (i, (folder, target)) in of().iter().enumerate() {
            for layout in ["hf", "llava"] {
                let kernels = kernels_of(layout, of().swap_remove(i).1, formats);
                assert!(kernels.len() > 20, "{layout}: only {} kernels", kernels.len());
                let text = module(&kernels, target.as_ref());
                syn::parse_file(&text).unwrap_or_else(|e| panic!("{layout}, {formats} at {folder}: {e}"));
            }
        }
    }
}

/// One register stays free when a tile is chosen.
#[test]
fn register_tiles_fit_the_registers() {
    for (_, target) in targets() {
        let s = Schedule::new(target.as_ref());
        let parts = kernels::LANES / target.lanes();
        let used = s.tile.0 * s.tile.1 * parts + s.tile.1 * parts + 1;
        assert!(used < target.registers(), "{}: a tile of {:?} takes {used} registers", target.level(), s.tile);
    }
}
