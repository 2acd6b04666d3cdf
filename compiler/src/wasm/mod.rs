//! Models for WebAssembly engines: kernels modules that need no compiler, and what a page has to know about them.
//!
//! A kernels module holds all kernels of one level, the steps of all phases as functions in a table, and what runs
//! them: [`module::code`] writes it, [`team`] what it takes to run on several threads. It works on the memory of the runtime's
//! module, which it imports; addresses are those of the lowered program, from three globals on.

mod info;
mod module;
mod package;
mod team;

use codegen_wasm::Level;

use crate::lower::Phase;
use crate::pipeline::Prepared;

pub use package::{SIDES, TARGET, WEIGHTS_FOLDER, Web, assemble};

/// A kernels module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Part of the name of its files.
    pub name: &'static str,
    /// Whether memory is shared by threads.
    pub shared: bool,
    /// Its place among the levels of the model, the best first.
    level: usize,
}

impl Variant {
    /// All of a package.
    pub const ALL: [Variant; 3] = [
        Variant { name: "simd128", shared: false, level: 1 },
        Variant { name: "relaxed", shared: false, level: 0 },
        Variant { name: "threads", shared: true, level: 0 },
    ];

    /// The level of a model's kernels.
    pub fn level(&self, prepared: &Prepared) -> Level {
        let levels = if prepared.program.formats.is_float() { Level::FLOAT } else { Level::EXACT };
        levels[self.level]
    }

    /// Its place among the levels of the model.
    pub fn index(&self) -> usize {
        self.level
    }
}

/// The phases by number: one for each side of an image, from small to large, then those of the decoder that there are.
pub fn phases(prepared: &Prepared) -> Vec<(String, &Phase)> {
    let sides = prepared.program.sides(&prepared.description);
    let vision = sides.into_iter().map(|(side, _, _, _, phase)| (format!("vision-{side}"), phase));
    let rest = prepared.program.phases().into_iter().skip(1).filter(|(_, phase)| !phase.steps.is_empty());
    vision.chain(rest.map(|(name, phase)| (name.to_string(), phase))).collect()
}
