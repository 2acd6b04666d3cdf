//! The way of a model through the compiler, up to the point where text is written.

use std::path::Path;

use ir::{Graph, Weights};
use kernels::Target;
use kernels::library::Schedule;
use models::{Description, Recipe};
use runtime_min::QUESTION;

use crate::error::Error;
use crate::frontend::{Checkpoint, Licenses, describe};
use crate::lower::{self, Formats, LowerError, Program};
use crate::machine::Machine;
use crate::memory::{self, Memory};
use crate::passes;
use crate::tune::Tuning;

/// Positions of the cache when the user does not say: enough for a picture and a conversation.
const DEFAULT_CONTEXT: usize = 2048;

/// Sides of images that a model is lowered for: each is another way through the tower, over the same weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sides<'a> {
    /// The model's own.
    #[default]
    Own,
    /// The model's own and those of these that are smaller, from small to large.
    Below(&'a [usize]),
    /// Just these, in any order: the model's own or multiples of [`SIDE_UNIT`] below it, each once.
    These(&'a [usize]),
}

/// Pixels of an image, in a row and in a column, that become one of the tower's. A side between two multiples takes as
/// many positions as the next one and shows less.
pub const SIDE_UNIT: usize = 64;

impl<'a> Sides<'a> {
    /// These, or the model's own if none are asked for.
    pub fn asked(sides: Option<&'a [usize]>) -> Sides<'a> {
        sides.map_or(Sides::Own, Sides::These)
    }

    /// Gives a description the largest of the sides and returns the others, from small to large.
    ///
    /// # Errors
    /// A side that a model of this description is not lowered for, or none.
    pub fn choose(self, description: &mut Description) -> Result<Vec<usize>, Error> {
        let own = description.vision.side;
        let mut all = match self {
            Sides::Own => vec![own],
            Sides::Below(some) => some.iter().copied().filter(|side| *side < own).chain([own]).collect(),
            Sides::These(some) => some.to_vec(),
        };
        all.sort_unstable();
        let refused = |reason: String| Err(Error::Usage(format!("side of pictures: {reason}")));
        if let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return refused(format!("{} is named twice", twice[0]));
        }
        let fits = |side: &usize| *side == own || (side.is_multiple_of(SIDE_UNIT) && (1..own).contains(side));
        if let (Sides::These(_), Some(side)) = (self, all.iter().find(|side| !fits(side))) {
            return refused(format!(
                "{side}: this model takes {own}, its own, and smaller multiples of {SIDE_UNIT}; a side between two of them \
                 would take as many positions as the larger one and show less",
            ));
        }
        let Some(largest) = all.pop() else { return refused("none is named".into()) };
        description.vision.side = largest;
        Ok(all)
    }
}

/// What the user may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Positions of the cache; [`DEFAULT_CONTEXT`] or the model's own limit if that is smaller.
    pub context: Option<usize>,
    /// Where to write the graphs after each pass.
    pub dump: Option<&'a Path>,
    /// How weights are stored; as floats if not given.
    pub recipe: Option<&'a Recipe>,
    /// Schedules that were measured; those of the model of the machine if not given.
    pub tuning: Option<&'a Tuning>,
    /// What runs the model.
    pub machine: Machine,
    /// Sides of images.
    pub sides: Sides<'a>,
}

/// A model ready to be emitted.
pub struct Prepared {
    /// What the model is, with the largest of its sides.
    pub description: Description,
    /// Sentences for the user about how the checkpoint was read.
    pub notes: Vec<String>,
    /// What goes where the weights go.
    pub licenses: Licenses,
    /// Image to rows, fused.
    pub vision: Graph,
    /// Rows to token, fused.
    pub decoder: Graph,
    /// As `vision`, for smaller images, with what they change of the description.
    pub smaller: Vec<(Description, Graph)>,
    /// Constants of both graphs.
    pub weights: Weights,
    /// What it was lowered for.
    pub machine: Machine,
    /// Levels of the target, best first.
    pub targets: Vec<Box<dyn Target>>,
    /// Steps, slots and packed weights.
    pub program: Program,
    /// Offsets of the slots.
    pub memory: Memory,
    /// How weights are stored.
    pub recipe: Recipe,
    /// The schedules that were given.
    pub tuning: Option<Tuning>,
}

/// The positions of a model's cache, as asked for or as a conversation needs.
///
/// # Errors
/// More than the model has, or too few for an image and a question.
pub fn context(description: &Description, asked: Option<usize>) -> Result<usize, Error> {
    let limit = description.text.max_positions;
    let context = asked.unwrap_or(DEFAULT_CONTEXT.min(limit));
    let least = description.vision.tokens() + QUESTION;
    if context > limit || context < least {
        return Err(Error::Usage(format!(
            "a context of {context} positions: this model takes {least} (one image and a short question) to {limit}"
        )));
    }
    Ok(context)
}

/// Reads, optimizes and lowers a model for a machine.
///
/// # Errors
/// Whatever is wrong with the checkpoint's description, or wanted of it and not supported. No
/// weights are read.
pub fn prepare(checkpoint: &Checkpoint, options: &Options<'_>) -> Result<Prepared, Error> {
    let described = describe(checkpoint)?;
    let licenses = checkpoint.licenses()?;
    let mut description = described.description;
    let smaller_sides = options.sides.choose(&mut description)?;
    let config = checkpoint.folder().join("config.json").display().to_string();
    let refused = |what: &str, e: &dyn std::fmt::Display| Error::input(&config, what, e.to_string());
    let context = context(&description, options.context)?;
    let recipe = match options.recipe {
        Some(recipe) => recipe.clone(),
        None => Recipe::named("f32").map_err(|e| Error::Bug(e.to_string()))?,
    };
    let formats = Formats::of(&recipe, &recipe.name).map_err(|e| Error::Usage(e.to_string()))?;
    let mut weights = Weights::new();
    if !smaller_sides.is_empty() {
        // From the first graph on: what is in it twice would make others of all that is built on it.
        weights.share();
    }
    let vision = models::vision(&description, &mut weights).map_err(|e| refused("the vision tower", &e))?;
    let decoder = models::decoder(&description, &mut weights).map_err(|e| refused("the decoder", &e))?;
    let table = models::embedding(&description, &mut weights);
    let vision = passes::run_all(vision, &mut weights, options.dump).map_err(|e| pass_error(&config, &e))?;
    let decoder = passes::run_all(decoder, &mut weights, options.dump).map_err(|e| pass_error(&config, &e))?;
    let mut smaller = Vec::new();
    for side in &smaller_sides {
        let mut other = description.clone();
        other.vision.side = *side;
        let graph = models::vision(&other, &mut weights).map_err(|e| refused("the vision tower", &e))?;
        smaller.push((other, passes::run_all(graph, &mut weights, None).map_err(|e| pass_error(&config, &e))?));
    }
    let targets = options.machine.levels(formats.is_float());
    let tuning = options.tuning.cloned();
    let schedules = schedules(&targets, tuning.as_ref());
    let told = lower::Options { context, formats };
    let graphs = (&vision, &decoder);
    let lowered = lower::lower_with(&description, graphs, &smaller, table, &mut weights, &schedules, &told);
    let program = lowered.map_err(|e| match e {
        lower::LowerError::Unsupported { .. } => refused("the model", &e),
        e => Error::Bug(e.to_string()),
    })?;
    let memory = memory::plan(&program);
    let notes = described.notes;
    Ok(Prepared {
        description,
        notes,
        licenses,
        vision,
        decoder,
        smaller,
        weights,
        machine: options.machine,
        targets,
        program,
        memory,
        recipe,
        tuning,
    })
}

/// The schedule of each level: what was measured, or what the model of the machine gives.
fn schedules(targets: &[Box<dyn Target>], tuning: Option<&Tuning>) -> Vec<Schedule> {
    let one = |target: &dyn Target| match tuning {
        Some(tuning) => tuning.schedule(target),
        None => Schedule::new(target),
    };
    targets.iter().map(|target| one(target.as_ref())).collect()
}

fn pass_error(config: &str, e: &passes::PassError) -> Error {
    match e {
        passes::PassError::Refused { node, reason } => Error::input(config, node.clone(), reason.clone()),
        passes::PassError::Dump { path, error } => {
            Error::Environment(format!("cannot write {}: {error}", path.display()))
        }
        e => Error::Bug(e.to_string()),
    }
}

impl Prepared {
    /// The tower's graph for images of a side, if there is one.
    pub fn vision_at(&self, side: usize) -> Option<&Graph> {
        let own = (self.description.vision.side == side).then_some(&self.vision);
        own.or_else(|| self.smaller.iter().find(|(d, _)| d.vision.side == side).map(|(_, graph)| graph))
    }

    /// The schedule of each level.
    pub fn schedules(&self) -> Vec<Schedule> {
        schedules(&self.targets, self.tuning.as_ref())
    }

    /// The same model lowered with other schedules: as many levels as there are schedules.
    ///
    /// # Errors
    /// As of lowering.
    pub fn lowered(&mut self, schedules: &[Schedule]) -> Result<Program, LowerError> {
        let table = models::embedding(&self.description, &mut self.weights);
        let told = lower::Options { context: self.program.context, formats: self.program.formats };
        let graphs = (&self.vision, &self.decoder);
        lower::lower_with(&self.description, graphs, &self.smaller, table, &mut self.weights, schedules, &told)
    }

    /// All packed weights in memory: for tests and small models.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn packed(&self, checkpoint: &Checkpoint) -> Result<Vec<u32>, Error> {
        let mut words = Vec::with_capacity(self.program.packs.total());
        let mut keep = |piece: &[u32]| {
            words.extend_from_slice(piece);
            Ok::<(), ir::SourceError>(())
        };
        self.program
            .packs
            .write(&self.weights, checkpoint, &mut keep, &|_| {})
            .map_err(|e| checkpoint.failure().unwrap_or_else(|| Error::Bug(e.to_string())))?;
        Ok(words)
    }
}
