//! The MODEL_OR_OUT of a command line: a checkpoint, or a folder that was compiled.

use std::path::{Path, PathBuf};

use models::Recipe;
use runtime_decode::Alpha;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::args::{Choices, Sides};
use super::recipe;
use super::tuned::Tuned;
use crate::assemble::{Options, TARGET};
use crate::error::{Error, Quoted, did_you_mean};
use crate::machine::Machine;
use crate::output::MANIFEST;
use crate::package::listed;
use crate::tune::Tuning;

/// What the user named.
pub enum Model {
    /// A checkpoint folder or a file in one, not looked into yet.
    Checkpoint(PathBuf),
    /// A compiled folder.
    Compiled(Box<Compiled>),
}

/// A compiled folder.
pub struct Compiled {
    /// Where it is.
    pub folder: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// What we read of `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Program and version that wrote it.
    pub tool: String,
    /// Name of the crate and its binary.
    pub name: String,
    /// Target triple.
    pub target: String,
    /// Number format of the weights.
    pub quantization: String,
    /// How they were chosen.
    pub recipe: Recipe,
    /// The schedules that were measured, if any.
    pub tuning: Option<Tuning>,
    /// How transparent pictures become RGB.
    #[serde(default, deserialize_with = "alpha")]
    pub alpha: Alpha,
    /// Of the checkpoint.
    pub checkpoint_sha256: String,
    /// Pairs code and weights.
    pub pairing_sha256: String,
    /// Bytes of the packed weights.
    pub weights_bytes: u64,
    /// Bytes that all threads of a session share.
    pub arena_bytes: u64,
    /// Bytes of each thread.
    pub scratch_bytes_per_thread: u64,
    /// Pixels on each side of the model's input.
    pub image_side: usize,
    /// Positions one picture takes.
    pub tokens_per_image: usize,
    /// The sides that pictures can have, from small to large.
    pub sides: Vec<Side>,
    /// Positions of a conversation.
    pub max_context: usize,
    /// The system message whose cache is in the weight file.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// Instruction-set levels, best first.
    pub levels: Vec<String>,
    /// Steps of the vision tower.
    pub vision: Vec<Op>,
    /// Steps of one decoded token.
    pub decode: Vec<Op>,
}

/// [`Alpha`] by its name.
fn alpha<'de, D: Deserializer<'de>>(from: D) -> Result<Alpha, D::Error> {
    let name = String::deserialize(from)?;
    Alpha::ALL.into_iter().find(|alpha| alpha.name() == name).ok_or_else(|| {
        D::Error::custom(format!("alpha: {} is unknown, \"white\" or \"drop\" is expected", Quoted(&name)))
    })
}

/// A side that pictures can have.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Side {
    /// Pixels.
    pub side: usize,
    /// Positions a picture takes.
    pub tokens: usize,
    /// Multiply-adds of the tower.
    pub macs: u64,
}

/// One step of a compiled model.
#[derive(Clone, Debug, Deserialize)]
pub struct Op {
    /// Multiply-adds.
    pub macs: u64,
}

impl Compiled {
    /// Refuses sides that it was not compiled for.
    fn check_sides(&self, wanted: &[usize]) -> Result<(), Error> {
        let known: Vec<usize> = self.manifest.sides.iter().map(|known| known.side).collect();
        let Some(side) = wanted.iter().find(|side| !known.contains(side)) else { return Ok(()) };
        let names: Vec<String> = known.iter().map(usize::to_string).collect();
        Err(Error::Usage(format!(
            "--side {side}: {} was compiled for {}; compile it again with --sides to change that",
            self.folder.display(),
            listed(&names, "and")
        )))
    }
}

impl Model {
    /// Says which of the two `path` is.
    ///
    /// # Errors
    /// A compiled folder whose manifest cannot be read, and a file out of such a folder.
    pub fn open(path: &Path) -> Result<Model, Error> {
        if path.extension().is_some_and(|end| end == "tvlm") && path.is_file() {
            let problem = "is a weight file: name the compiled folder that holds it";
            return Err(Error::input(path.display().to_string(), "", problem));
        }
        let manifest = path.join(MANIFEST);
        if !manifest.is_file() || path.join("config.json").is_file() {
            return Ok(Model::Checkpoint(path.to_owned()));
        }
        let shown = manifest.display().to_string();
        let text = std::fs::read_to_string(&manifest).map_err(Error::io("read", &manifest))?;
        let read: Manifest = serde_json::from_str(&text)
            .map_err(|e| Error::input(&shown, "", format!("{e}: was it written by this version of tvlmc?")))?;
        if read.format != "tvlmc-package" || read.version != 1 {
            let found = format!("format {} version {}", Quoted(&read.format), read.version);
            return Err(Error::input(shown, "", format!("{found}, this version reads tvlmc-package version 1")));
        }
        recipe::check(&read.recipe, &shown)?;
        if let Some(fault) = read.tuning.as_ref().and_then(Tuning::fault) {
            return Err(Error::input(shown, "tuning", fault));
        }
        Ok(Model::Compiled(Box::new(Compiled { folder: path.to_owned(), manifest: read })))
    }
}

/// Refuses a machine other than this one.
pub fn check_target(target: &str) -> Result<(), Error> {
    if target == TARGET {
        return Ok(());
    }
    if Machine::of_triple(target).is_none() {
        return Err(unknown_target(target));
    }
    Err(Error::Usage(format!("--target {target}: is not this machine, which is {TARGET}")))
}

/// Words that people use for a target, and what they mean by them.
const SYSTEMS: [(&str, &str); 7] = [
    ("android", "aarch64-linux-android"),
    ("ios", "aarch64-apple-ios"),
    ("iphone", "aarch64-apple-ios"),
    ("mac", "aarch64-apple-darwin"),
    ("web", "wasm32-unknown-unknown"),
    ("wasm", "wasm32-unknown-unknown"),
    ("linux", "x86_64-unknown-linux-gnu"),
];

/// The error for a triple that is none of ours: names the nearest, or all.
pub fn unknown_target(target: &str) -> Error {
    let triples = Machine::ALL.map(Machine::triple);
    let lower = target.to_lowercase();
    let meant = SYSTEMS.iter().find(|(word, _)| lower.contains(word)).map(|(_, triple)| triple);
    let nearest = match (did_you_mean(target, triples), meant) {
        (near, Some(triple)) if near.is_empty() => format!(" (did you mean {})", Quoted(triple)),
        (near, _) => near,
    };
    Error::Usage(format!("--target {}: unknown{nearest}; expected one of {}", Quoted(target), triples.join(", ")))
}

/// What a command line chooses, read once: a recipe may come from a pipe.
pub struct Chosen {
    /// The compiler's options.
    pub options: Options<'static>,
    /// The options that were given and shape what is compiled.
    given: Vec<&'static str>,
    /// Where schedules come from, if that was said.
    pub tuned: Option<Tuned>,
}

impl Choices {
    /// Reads the recipe.
    ///
    /// # Errors
    /// A recipe that does not exist, cannot be read, or asks for what this version does not have.
    pub fn resolve(&self) -> Result<Chosen, Error> {
        let Choices { storage, context, tuned, allow_non_finite } = self;
        let recipe = Some(recipe::chosen(storage)?);
        let given = [
            ("--recipe", storage.recipe.is_some()),
            ("--quant", storage.quant.is_some()),
            ("--context", context.is_some()),
            ("--tuned", tuned.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        let (context, allow_non_finite) = (*context, *allow_non_finite);
        let options = Options { context, allow_non_finite, recipe, ..Options::default() };
        Ok(Chosen { options, given, tuned: tuned.clone() })
    }
}

impl Sides {
    /// What was asked for, if anything.
    pub fn given(&self) -> Option<Vec<usize>> {
        (!self.sides.is_empty()).then(|| self.sides.clone())
    }
}

impl Chosen {
    /// The same for a command that takes these sides of pictures. A checkpoint is compiled for them, a compiled folder has
    /// to have them.
    ///
    /// # Errors
    /// A folder without one of them.
    pub fn at_sides(mut self, sides: &[usize], model: &Model) -> Result<Chosen, Error> {
        let mut wanted = sides.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        match model {
            Model::Compiled(compiled) => compiled.check_sides(&wanted)?,
            Model::Checkpoint(_) => self.options.sides = (!wanted.is_empty()).then_some(wanted),
        }
        Ok(self)
    }

    /// Refuses choices that were made when a folder was compiled.
    pub fn refuse_for_compiled(&self) -> Result<(), Error> {
        match self.given.first() {
            None => Ok(()),
            Some(name) => {
                Err(Error::Usage(format!("{name}: the folder was compiled already; compile it again to change it")))
            }
        }
    }
}
