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
    /// Of quantized models, and of those of floats if there is one.
    levels: (Level, Option<Level>),
}

impl Variant {
    /// All that there are. Loaders take one with `-dot` where a dot product in one instruction turns out to be faster.
    const ALL: [Variant; 5] = [
        Variant { name: "simd128", shared: false, levels: (Level::Simd128, Some(Level::Simd128)) },
        Variant { name: "relaxed", shared: false, levels: (Level::RelaxedExact, Some(Level::Relaxed)) },
        Variant { name: "relaxed-dot", shared: false, levels: (Level::RelaxedDot, None) },
        Variant { name: "threads", shared: true, levels: (Level::RelaxedExact, Some(Level::Relaxed)) },
        Variant { name: "threads-dot", shared: true, levels: (Level::RelaxedDot, None) },
    ];

    /// Those of a model.
    pub fn of(prepared: &Prepared) -> Vec<Variant> {
        let all = Variant::ALL.into_iter();
        all.filter(|variant| !is_float(prepared) || variant.levels.1.is_some()).collect()
    }

    /// The level of a model's kernels.
    pub fn level(&self, prepared: &Prepared) -> Level {
        let (quantized, float) = self.levels;
        if is_float(prepared) { float.unwrap_or(quantized) } else { quantized }
    }

    /// The place of that among the levels of the model.
    pub fn index(&self, prepared: &Prepared) -> usize {
        let levels: &[Level] = if is_float(prepared) { &Level::FLOAT } else { &Level::EXACT };
        let level = self.level(prepared);
        levels.iter().position(|each| *each == level).unwrap_or(0)
    }
}

fn is_float(prepared: &Prepared) -> bool {
    prepared.program.formats.is_float()
}

/// The phases by number: one for each side of an image, from small to large, then those of the decoder that there are.
pub fn phases(prepared: &Prepared) -> Vec<(String, &Phase)> {
    let sides = prepared.program.sides(&prepared.description);
    let vision = sides.into_iter().map(|(side, _, _, _, phase)| (format!("vision-{side}"), phase));
    let rest = prepared.program.phases().into_iter().skip(1).filter(|(_, phase)| !phase.steps.is_empty());
    vision.chain(rest.map(|(name, phase)| (name.to_string(), phase))).collect()
}
