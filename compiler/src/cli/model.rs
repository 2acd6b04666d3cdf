//! The MODEL_OR_OUT of a command line: a checkpoint, or a folder that was compiled.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::Choices;
use crate::assemble::{Options, TARGET};
use crate::lower::Formats;
use crate::error::{Error, Quoted};
use crate::output::MANIFEST;

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
    /// How transparent pictures become RGB.
    #[serde(default)]
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
    /// Positions of a conversation.
    pub max_context: usize,
    /// Instruction-set levels, best first.
    pub levels: Vec<String>,
    /// Steps of the vision tower.
    pub vision: Vec<Op>,
    /// Steps of one decoded token.
    pub decode: Vec<Op>,
}

/// How the checkpoint's reference implementation makes RGB of transparent pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// transformers: seen before white.
    #[default]
    White,
    /// Apple: the colors as stored, transparent or not.
    Drop,
}

/// One step of a compiled model.
#[derive(Clone, Debug, Deserialize)]
pub struct Op {
    /// Multiply-adds.
    pub macs: u64,
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
        Ok(Model::Compiled(Box::new(Compiled { folder: path.to_owned(), manifest: read })))
    }
}

/// Refuses what this version cannot compile for.
pub fn check_target(target: &str) -> Result<(), Error> {
    if target == TARGET {
        return Ok(());
    }
    Err(Error::Usage(format!("--target {}: this version compiles for {TARGET} only", Quoted(target))))
}

impl Choices {
    /// The compiler's options.
    ///
    /// # Errors
    /// A number format that this version does not have.
    pub fn options(&self) -> Result<Options<'static>, Error> {
        let formats = Formats::named(&self.quant).ok_or_else(|| {
            Error::Usage(format!("--quant {}: this version has f32, int8 and int4", Quoted(&self.quant)))
        })?;
        let allow_non_finite = self.allow_non_finite;
        Ok(Options { context: self.context, allow_non_finite, formats, ..Options::default() })
    }

    /// Refuses choices that were made when a folder was compiled.
    pub fn refuse_for_compiled(&self) -> Result<(), Error> {
        self.options()?;
        if self.context.is_some() {
            return Err(Error::Usage(
                "--context: the folder was compiled already; compile it again to change it".into(),
            ));
        }
        Ok(())
    }
}
