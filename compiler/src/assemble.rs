//! From a checkpoint folder to everything that is written: the emitted crate and its weight file.

use std::path::Path;

use ir::SourceError;
use models::Recipe;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::frontend::{Checkpoint, OpenOptions, tokenizer_section};
use crate::machine::Machine;
use crate::output::Staging;
use crate::package::{self, Identity, Package, WEIGHTS_NAME};
use crate::pipeline::{self, Prepared, Sides};
use crate::quant::{QUANTIZATION_NAME, Report};
use crate::tune::Tuning;
use crate::weightfile::WeightFileWriter;

/// The target whose code this version runs.
pub const TARGET: &str = Machine::HOST.triple();

/// What the user may choose.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// The crate's name; made of the folder's name if not given.
    pub name: Option<&'a str>,
    /// Positions of the cache.
    pub context: Option<usize>,
    /// Where to write the graphs after each pass.
    pub dump: Option<&'a Path>,
    /// Read NaN and infinity in weights instead of refusing them.
    pub allow_non_finite: bool,
    /// How weights are stored; as floats if not given.
    pub recipe: Option<Recipe>,
    /// Schedules that were measured; those of the model of the machine if not given.
    pub tuning: Option<Tuning>,
    /// What the system message of all conversations says; the reference's if not given.
    pub system: Option<String>,
    /// Sides of pictures, [`Sides::These`]; if not given, the model's own, and for web pages smaller ones too.
    pub sides: Option<Vec<usize>>,
    /// What the crate is for.
    pub machine: Machine,
    /// The cache after it, for the weight file to carry: what [`SYSTEM_CACHE`] makes the emitted program write.
    pub baked: Option<Vec<u8>>,
}

/// The emitted program's option that writes the cache after the system message to a file.
pub const SYSTEM_CACHE: &str = "--write-system";

/// A model that is ready to be written.
pub struct Assembled {
    /// Where it was read from.
    pub checkpoint: Checkpoint,
    /// The lowered model.
    pub prepared: Prepared,
    /// The crate's name.
    pub name: String,
    /// Pairs code and weights.
    pub digest: [u8; 32],
    /// The crate's files.
    pub package: Package,
    tokenizer: Vec<u8>,
    system: String,
    baked: Option<Vec<u8>>,
    checkpoint_digest: [u8; 32],
}

/// Reads a checkpoint and makes all of its code; weights are read once for their digest.
///
/// # Errors
/// Whatever is wrong with the checkpoint, except values that are not finite.
pub fn assemble(model: &Path, options: &Options<'_>) -> Result<Assembled, Error> {
    assemble_known(model, options, None)
}

/// As [`assemble`] for several machines, with one weight file for all of their code.
///
/// # Errors
/// As [`assemble`] and [`pair`].
pub fn assemble_for(machines: &[Machine], model: &Path, options: &Options<'_>) -> Result<Vec<Assembled>, Error> {
    let mut all: Vec<Assembled> = Vec::new();
    for &machine in machines {
        let options = Options { machine, ..options.clone() };
        // All weights are read for it.
        let digest = all.first().map(|first| first.checkpoint_digest);
        all.push(assemble_known(model, &options, digest)?);
    }
    pair(&mut all)?;
    Ok(all)
}

/// As [`assemble`], for a checkpoint whose digest may be known.
fn assemble_known(model: &Path, options: &Options<'_>, digest: Option<[u8; 32]>) -> Result<Assembled, Error> {
    let checkpoint = Checkpoint::open(model, &OpenOptions { allow_non_finite: options.allow_non_finite })?;
    let Options { context, dump, recipe, tuning, .. } = options;
    let (recipe, tuning) = (recipe.as_ref(), tuning.as_ref());
    let (machine, context, dump) = (options.machine, *context, *dump);
    let sides = Sides::asked(options.sides.as_deref());
    let choices = pipeline::Options { context, dump, recipe, tuning, machine, sides };
    let prepared = pipeline::prepare(&checkpoint, &choices)?;
    let tokenizer = tokenizer_section(&checkpoint, &prepared.description)?;
    let name = match options.name {
        Some(name) => name.to_owned(),
        None => crate_name(model),
    };
    package::check_name(&name)?;
    let checkpoint_digest = digest.map_or_else(|| checkpoint.digest(), Ok)?;
    let system = options.system.clone().unwrap_or_else(|| package::SYSTEM.to_owned());
    let (baked, package) = (options.baked.clone(), Package::default());
    let mut assembled =
        Assembled { checkpoint, prepared, name, digest: [0; 32], package, tokenizer, system, baked, checkpoint_digest };
    assembled.digest = package::digest(&assembled.prepared, &assembled.identity())?;
    assembled.package = package::emit(&assembled.prepared, &assembled.identity())?;
    Ok(assembled)
}

/// Gives the crates of one model for several machines one digest, so that one weight file belongs to all of them.
///
/// # Errors
/// [`Error::Usage`]: the weights of some lie in other places.
pub fn pair(all: &mut [Assembled]) -> Result<(), Error> {
    for two in all.windows(2) {
        if two[0].prepared.program.packs != two[1].prepared.program.packs {
            let [one, other] = [0, 1].map(|i| two[i].prepared.machine.triple());
            return Err(Error::Usage(format!(
                "{one} and {other} would have different weight files: compile them with the same options, or one by one"
            )));
        }
    }
    let mut hash = Sha256::new();
    all.iter().for_each(|one| hash.update(one.digest));
    let digest = hash.finalize().into();
    for one in all {
        one.digest = digest;
        one.package = package::emit(&one.prepared, &one.identity())?;
    }
    Ok(())
}

impl Assembled {
    fn identity(&self) -> Identity<'_> {
        let (target, digest, baked) = (self.prepared.machine.triple(), self.digest, self.baked.is_some());
        Identity { name: &self.name, target, digest, checkpoint: self.checkpoint_digest, system: &self.system, baked }
    }

    /// Hash of all that was read of the checkpoint.
    pub fn checkpoint_digest(&self) -> [u8; 32] {
        self.checkpoint_digest
    }

    /// Bytes of the weight file, to the page.
    pub fn weight_file_bytes(&self) -> u64 {
        let page = |n: usize| (n as u64).next_multiple_of(4096);
        let weights = 4 * self.prepared.program.packs.total();
        let before = 4096 + page(self.tokenizer.len());
        // The last section ends the file.
        match &self.baked {
            None => before + weights as u64,
            Some(baked) => before + page(weights) + baked.len() as u64,
        }
    }

    /// Bytes of everything that is written.
    pub fn bytes(&self) -> u64 {
        self.weight_file_bytes() + self.package.files.values().map(|text| text.len() as u64).sum::<u64>()
    }

    /// Writes all files; `progress` gets the bytes of weights written so far and may stop the work.
    ///
    /// # Errors
    /// The disk, a weight that is not finite, a checkpoint that changed meanwhile, or what `progress` says.
    pub fn write(&self, staging: &Staging, progress: &dyn Fn(u64) -> Result<(), Error>) -> Result<(), Error> {
        staging.reserve(self.bytes())?;
        for (path, text) in &self.package.files {
            staging.write(path, text.as_bytes())?;
        }
        self.write_weights(staging, &staging.path(WEIGHTS_NAME), progress)
    }

    /// As [`Assembled::write`], without the crate: the weight file to `path`, and what tells of it beside the package.
    ///
    /// # Errors
    /// As [`Assembled::write`].
    pub fn write_weights(
        &self,
        staging: &Staging,
        path: &Path,
        progress: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let behind = self.baked.as_deref().map(|baked| ("system", baked));
        let report = write_weights(
            (&self.prepared, &self.checkpoint),
            (path, self.digest, self.weight_file_bytes()),
            (&[("tokenizer", self.tokenizer.as_slice())], behind.as_slice()),
            progress,
        )?;
        if let Some(report) = report {
            staging.write(QUANTIZATION_NAME, report.to_json().as_bytes())?;
        }
        self.checkpoint.check_unchanged()
    }
}

/// Name and contents of a section of the weight file.
type Section<'a> = (&'a str, &'a [u8]);

/// Writes a weight file of a digest and a size: the weights with sections before and behind them. The result says how
/// quantized tensors are stored.
///
/// # Errors
/// As [`Assembled::write`].
pub(crate) fn write_weights(
    (prepared, checkpoint): (&Prepared, &Checkpoint),
    (path, digest, bytes): (&Path, [u8; 32], u64),
    (before, behind): (&[Section<'_>], &[Section<'_>]),
    progress: &dyn Fn(u64) -> Result<(), Error>,
) -> Result<Option<Report>, Error> {
    let mut file = WeightFileWriter::create(path, digest)?;
    file.reserve(bytes)?;
    for (name, bytes) in before {
        file.section(name, bytes)?;
    }
    file.begin("weights")?;
    let mut write = |words: &[u32]| -> Result<(), PackError> {
        file.write_u32(words)?;
        Ok(progress(file.position())?)
    };
    let input = |problem: String| Error::input(checkpoint.folder().display().to_string(), "", problem);
    let tensors = prepared.program.packs.write(&prepared.weights, checkpoint, &mut write, &|_| {});
    let tensors = tensors.map_err(|e| match e {
        PackError::Own(e) => e,
        // What it was decides between bad input and a broken disk.
        PackError::Source(e) => checkpoint.failure().unwrap_or_else(|| input(e.to_string())),
    })?;
    for (name, bytes) in behind {
        file.section(name, bytes)?;
    }
    file.finish()?;
    Ok((!prepared.recipe.is_float()).then(|| Report::new(tensors)))
}

enum PackError {
    Source(SourceError),
    Own(Error),
}

impl From<SourceError> for PackError {
    fn from(e: SourceError) -> PackError {
        PackError::Source(e)
    }
}

impl From<Error> for PackError {
    fn from(e: Error) -> PackError {
        PackError::Own(e)
    }
}

/// Longest name of a crate.
const MAX_NAME: usize = 64;

/// The name of the crate that a checkpoint gives, which is known before anything is read: that of its folder.
pub fn crate_name(model: &Path) -> String {
    match model.parent() {
        Some(parent) if model.is_file() => name_of(if parent == Path::new("") { Path::new(".") } else { parent }),
        _ => name_of(model),
    }
}

/// The name of a folder, as a crate's name.
fn name_of(folder: &Path) -> String {
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let given = folder.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let mut name = String::new();
    for c in given.chars() {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
    }
    // Room for what may be put before it.
    name.truncate(MAX_NAME - "fastvlm-".len());
    let name = name.trim_end_matches('-');
    match name {
        "" => "fastvlm".into(),
        // A number first, or a word of Rust such as "test".
        name if package::check_name(name).is_err() => format!("fastvlm-{name}"),
        name => name.into(),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_folders() {
        let made = |folder: &str| name_of(Path::new(folder));
        assert_eq!(made("/none/FastVLM-0.5B"), "fastvlm-0-5b");
        assert_eq!(made("/none/123"), "fastvlm-123");
        assert_eq!(made("/none/..."), "fastvlm");
        assert_eq!(made("/none/\"; evil"), "evil");
        assert_eq!(made("/none/test"), "fastvlm-test");
        assert_eq!(made(&format!("/none/{}", "0".repeat(100))).len(), MAX_NAME);
    }
}
