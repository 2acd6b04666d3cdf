//! From the fused graph to a program: a flat list of kernel calls over slots and packed weights.
//!
//! Lowering chooses, for each region, the kernels of the library and the strips they work on. All
//! decisions that differ between instruction-set levels stay inside kernels; the list of steps,
//! the slots and the packed weights are one for all levels of a target.

mod context;
mod decoder;
mod error;
mod pattern;
mod split;
mod vision;

use std::rc::Rc;

use ir::{Graph, WeightId, Weights};
use kernels::library::Schedule;
use kernels::library::cache::Cache;
use kernels::library::matrix::Format;
use kernels::{Elem, Kernel, Target};
use models::recipe::{self as recipes, Block, LARGEST_BLOCK, Linears};
use models::{Description, Recipe, RecipeError};

pub use context::SlotId;
pub use error::LowerError;

use crate::pack::{PackId, Packs};
use context::Context;

/// A lowered model.
pub struct Program {
    /// Image to rows.
    pub vision: Phase,
    /// The same for smaller images, from small to large.
    pub smaller: Vec<Smaller>,
    /// Many positions.
    pub prefill: Phase,
    /// One position.
    pub decode: Phase,
    /// A few positions with the head for each, which have the bits they have alone; empty where they do not.
    pub verify: Phase,
    /// Most rows of `verify`; 1 where it is empty.
    pub verify_rows: usize,
    /// What is left to do for all logits of the latest call's `rows`; empty where calls make them.
    pub logits: Phase,
    /// Row of a token, for each level; parameters are pointers, then y and id.
    pub embed: Vec<Rc<Kernel>>,
    /// The embedding's panels.
    pub embed_table: PackId,
    /// The pointer arguments of `embed` but y.
    pub embed_pointers: Vec<Place>,
    /// All slots; offsets are the memory plan's.
    pub slots: Vec<Slot>,
    /// Weights in file order.
    pub packs: Packs,
    /// The slots that the runtime touches.
    pub io: Io,
    /// The KV cache: its slots, and how each is cut (`Attention::blocks`).
    pub cache: Vec<(SlotId, [usize; 4])>,
    /// Bytes of scratch of one thread: the largest of all steps and levels.
    pub scratch_bytes: usize,
    /// Positions of the cache.
    pub context: usize,
    /// Most rows of a prefill.
    pub chunk: usize,
    /// How matrices are stored.
    pub formats: Formats,
}

/// The vision tower for images of another side than the model's own.
pub struct Smaller {
    /// Pixels of a row, and rows.
    pub side: usize,
    /// Rows an image becomes.
    pub tokens: usize,
    /// As [`Io::image`].
    pub image: SlotId,
    /// As [`Io::image_rows`].
    pub image_rows: SlotId,
    /// Image to rows.
    pub phase: Phase,
}

/// Slots at the border of the program.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// `[side + 2, side + 2, 3]` with a border of zeros.
    pub image: SlotId,
    /// `[tokens, hidden]`.
    pub image_rows: SlotId,
    /// `[chunk, hidden]`.
    pub rows: SlotId,
    /// `[verify_rows, vocab]`, rows at their pitch.
    pub logits: SlotId,
    /// An index for each row of `logits`.
    pub token: SlotId,
}

/// A run through part of the model.
#[derive(Default)]
pub struct Phase {
    /// Steps, in order.
    pub steps: Vec<Step>,
}

impl Phase {
    /// Multiply-adds, of one row where a result's rows are dynamic.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| step.macs).sum()
    }
}

impl Program {
    /// The phases by name, in the order of the emitted code's.
    pub fn phases(&self) -> [(&'static str, &Phase); 5] {
        let Program { vision, prefill, decode, verify, logits, .. } = self;
        [("vision", vision), ("prefill", prefill), ("decode", decode), ("verify", verify), ("logits", logits)]
    }

    /// Every list of steps by name: `vision-256` for a smaller side, else as in [`Program::phases`], in their order.
    pub fn all_phases(&self) -> Vec<(String, &Phase)> {
        let [vision, rest @ ..] = self.phases();
        let smaller = self.smaller.iter().map(|s| (format!("vision-{}", s.side), &s.phase));
        let named = |(name, phase): (&str, _)| (name.to_string(), phase);
        [named(vision)].into_iter().chain(smaller).chain(rest.map(named)).collect()
    }

    /// Side, tokens, slots of the image and of its rows, and phase of each side of an image, from small to large.
    pub fn sides(&self, own: &Description) -> Vec<(usize, usize, SlotId, SlotId, &Phase)> {
        let smaller = self.smaller.iter().map(|s| (s.side, s.tokens, s.image, s.image_rows, &s.phase));
        let Io { image, image_rows, .. } = self.io;
        smaller.chain([(own.vision.side, own.vision.tokens(), image, image_rows, &self.vision)]).collect()
    }
}

/// A piece of the arena.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What it holds, for the printed plan.
    pub name: String,
    /// Floats.
    pub floats: usize,
    /// Whether it lives across phases.
    pub persistent: bool,
}

/// One kernel call by all threads, followed by a barrier.
pub struct Step {
    /// Dotted name, unique in its phase.
    pub name: String,
    /// Shapes in words: `[64, 64, 384] conv 7x7, 384 -> 1536 -> 384`.
    pub shapes: String,
    /// The kernel of each level; parameters are the same.
    pub kernels: Vec<Rc<Kernel>>,
    /// How the work is divided.
    pub units: Units,
    /// Pointer arguments in parameter order.
    pub pointers: Vec<Place>,
    /// The slot that holds the result, and its layout.
    pub result: Tap,
    /// Multiply-adds, of one row where the result's rows are dynamic.
    pub macs: u64,
    /// Bytes of scratch of one thread, the largest of all levels.
    pub scratch_bytes: usize,
}

/// What is divided among threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// A number of pieces known now.
    Fixed(usize),
    /// Groups of this many rows of the call.
    Rows(usize),
    /// For each of `heads`, blocks of `block` rows of the call.
    HeadRows {
        /// Heads.
        heads: usize,
        /// Rows of a block.
        block: usize,
    },
}

/// Where a pointer argument points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Packed weights.
    Weight(PackId),
    /// The scales of a quantized matrix.
    Scales(PackId),
    /// The lengths of the rows of a matrix's second half.
    Reach(PackId),
    /// A slot, from a number of floats on.
    Slot(SlotId, usize),
    /// The thread's scratch.
    Scratch,
}

/// A result that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The slot.
    pub slot: SlotId,
    /// First float.
    pub at: usize,
    /// Rows; 0 for the rows of the call.
    pub rows: usize,
    /// Elements of a row.
    pub channels: usize,
    /// Elements between rows.
    pub pitch: usize,
    /// How they are stored.
    pub elem: Elem,
}

/// What lowering is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Positions of the cache.
    pub context: usize,
    /// How matrices are stored.
    pub formats: Formats,
}

/// How the matrices of each part of a model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The vision tower's pointwise convolutions and linear layers.
    pub vision: Format,
    /// The projector.
    pub projector: Format,
    /// The decoder's layers.
    pub decoder: Format,
    /// Head and embedding.
    pub head: Format,
    /// Whether these have a second half, the first being [`Format::Nibbles`].
    pub split: bool,
    /// Keys and values of the decoder.
    pub cache: Cache,
    /// Values of the vision tower between its regions.
    pub maps: Elem,
}

impl std::fmt::Display for Formats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Formats { vision, projector, decoder, head, split, cache, maps } = self;
        let [v, p, d, h] = [vision, projector, decoder, head].map(|x| match x {
            Format::F32 => "f32",
            Format::Bytes { .. } => "int8",
            Format::Nibbles => "int4",
        });
        let h = if *split { "int8split" } else { h };
        let c = match cache {
            Cache::F32 => "f32",
            Cache::F16 => "f16",
            Cache::Int8 => "int8",
        };
        if [p, d, h, c] == [v; 4] && *maps == Elem::F32 {
            return f.write_str(v);
        }
        let m = if *maps == Elem::F32 { "" } else { " on 16-bit floats" };
        write!(f, "vision {v}{m}, projector {p}, decoder {d}, head {h}, cache {c}")
    }
}

impl Default for Formats {
    fn default() -> Formats {
        Formats::F32
    }
}

impl Formats {
    /// The formats of a recipe; `file` is what its messages name.
    ///
    /// # Errors
    /// [`RecipeError::Unsupported`] for what no kernel computes.
    pub fn of(recipe: &Recipe, file: &str) -> Result<Formats, RecipeError> {
        let refused = |key: String, found: String, supported: &'static str| {
            Err(RecipeError::Unsupported { file: file.to_string(), key, found, supported })
        };
        for (region, linears) in [("vision", recipe.vision), ("projector", recipe.projector)] {
            if matches!(linears.weights, recipes::Weights::Int4 | recipes::Weights::Int8Split) {
                return refused(format!("{region}.weights"), linears.weights.to_string(), "F32 and Int8");
            }
        }
        if recipe.decoder.weights == recipes::Weights::Int8Split {
            return refused("decoder.weights".to_string(), "Int8Split".to_string(), "F32, Int8 and Int4");
        }
        let [vision, projector, decoder, head] = recipe.regions().map(|(_, linears)| format_of(linears));
        let cache = match recipe.cache {
            recipes::Cache::F32 => Cache::F32,
            recipes::Cache::F16 => Cache::F16,
            recipes::Cache::Int8 => Cache::Int8,
        };
        let split = recipe.head.weights == recipes::Weights::Int8Split;
        let maps = match recipe.maps {
            recipes::Maps::F32 => Elem::F32,
            recipes::Maps::F16 if vision == Format::F32 => {
                return refused("maps".to_string(), "F16".to_string(), "F32 where vision.weights are F32");
            }
            recipes::Maps::F16 => Elem::F16,
        };
        Ok(Formats { vision, projector, decoder, head, split, cache, maps })
    }

    /// All as floats.
    pub const F32: Formats = Formats {
        vision: Format::F32,
        projector: Format::F32,
        decoder: Format::F32,
        head: Format::F32,
        split: false,
        cache: Cache::F32,
        maps: Elem::F32,
    };

    /// Whether no product is of integers.
    pub fn is_float(&self) -> bool {
        [self.vision, self.projector, self.decoder, self.head] == [Format::F32; 4] && self.cache != Cache::Int8
    }

    /// Keys and values of the vision tower.
    pub fn vision_cache(&self) -> Cache {
        match self.vision {
            Format::F32 => Cache::F32,
            Format::Bytes { .. } | Format::Nibbles => Cache::Int8,
        }
    }
}

fn format_of(linears: Linears) -> Format {
    match (linears.weights, linears.activation_block) {
        (recipes::Weights::F32, _) => Format::F32,
        (recipes::Weights::Int8, Block::Row) => Format::Bytes { block: LARGEST_BLOCK },
        (recipes::Weights::Int8, Block::Channels(block)) => Format::Bytes { block },
        (recipes::Weights::Int4 | recipes::Weights::Int8Split, _) => Format::Nibbles,
    }
}

/// Lowers the fused graphs of a model for the levels of a target, best first, with the schedules of their model.
pub fn lower(
    description: &Description,
    vision: &Graph,
    decoder: &Graph,
    table: WeightId,
    weights: &mut Weights,
    targets: &[Box<dyn Target>],
    options: &Options,
) -> Result<Program, LowerError> {
    let schedules: Vec<Schedule> = targets.iter().map(|t| Schedule::new(t.as_ref())).collect();
    lower_with(description, (vision, decoder), &[], table, weights, &schedules, options)
}

/// Lowers the graphs of the vision tower and the decoder with a schedule for each level; `smaller` are descriptions and
/// graphs of the tower for smaller images, from small to large.
///
/// # Errors
/// As [`lower`].
pub fn lower_with(
    description: &Description,
    (vision, decoder): (&Graph, &Graph),
    smaller: &[(Description, Graph)],
    table: WeightId,
    weights: &mut Weights,
    schedules: &[Schedule],
    options: &Options,
) -> Result<Program, LowerError> {
    let mut cx = Context::new(schedules, weights, options.formats);
    let chunk = (description.vision.tokens() + 64).next_multiple_of(16).min(options.context);
    let (image, image_rows, vision) = vision::lower(&mut cx, description, vision)?;
    let mut others = Vec::new();
    for (description, graph) in smaller {
        let from = cx.slots.len();
        let (image, image_rows, phase) = vision::lower(&mut cx, description, graph)?;
        let (side, tokens) = (description.vision.side, description.vision.tokens());
        // Those of the largest side have the names already.
        cx.slots[from..].iter_mut().for_each(|slot| slot.name += &format!(".{side}"));
        others.push(Smaller { side, tokens, image, image_rows, phase });
    }
    let text = decoder::lower(&mut cx, description, decoder, table, options.context, chunk)?;
    Ok(Program {
        vision,
        smaller: others,
        prefill: text.prefill,
        decode: text.decode,
        verify: text.verify,
        verify_rows: text.verify_rows,
        logits: text.all_logits,
        embed: text.embed,
        embed_table: text.embed_table,
        embed_pointers: text.embed_pointers,
        cache: text.cache,
        io: Io { image, image_rows, rows: text.rows, logits: text.logits, token: text.token },
        scratch_bytes: cx.scratch_floats * 4,
        slots: cx.slots,
        packs: cx.packs,
        context: options.context,
        chunk,
        formats: options.formats,
    })
}
