//! The folder `NAME.mlpackage`: `Manifest.json`, `Data/com.apple.CoreML/model.mlmodel` and the weights beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use ir::{TensorSource, Weights};
use models::Description;
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::blob::{BlobError, Blobs};
use super::proto::{
    ArrayDataType, ArrayFeatureType, FeatureDescription, FeatureType, Metadata, Model as Spec, ModelDescription,
};
use super::translate::{INPUT, OUTPUT, translate};
use crate::assemble::{Assembled, hex};
use crate::error::Error;
use crate::frontend::Checkpoint;
use crate::output::Staging;
use crate::package::TOOL_VERSION;
use crate::passes::PASSES;

/// The version of the format that has the ops of iOS 15.
const SPECIFICATION: i32 = 6;

/// The last pass before a graph is translated.
const LAST_PASS: &str = "reparameterize";

/// Author and folder of what an `.mlpackage` holds, by convention.
const OWNER: &str = "com.apple.CoreML";

/// A Core ML model that is ready to be written.
pub struct Model {
    spec: Vec<u8>,
    blobs: Blobs,
    weights: Weights,
}

/// What a model says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Under which terms its weights stand.
    pub license: String,
    /// More, by keys.
    pub more: Vec<(&'static str, String)>,
}

impl Model {
    /// The model of a compiled checkpoint's vision tower.
    ///
    /// # Errors
    /// As [`Model::of`].
    pub fn of_assembled(assembled: &Assembled) -> Result<Model, Error> {
        let more = vec![
            ("dev.tvlmc.version", TOOL_VERSION.to_string()),
            ("dev.tvlmc.checkpoint-sha256", hex(&assembled.checkpoint_digest())),
        ];
        let license = assembled.prepared.licenses.summary();
        let texts = Texts { name: &assembled.name, license, more };
        Model::of(&assembled.prepared.description, &texts, &assembled.checkpoint)
    }

    /// The model of the vision tower of this description. No weights are read; `checkpoint` is named in messages.
    ///
    /// # Errors
    /// A tower with an op or a constant that has no place in 16-bit floats.
    pub fn of(description: &Description, texts: &Texts<'_>, checkpoint: &Checkpoint) -> Result<Model, Error> {
        let refused = |item: &str, problem: String| {
            Error::input(checkpoint.folder().display().to_string(), item, format!("--delegate coreml: {problem}"))
        };
        let mut weights = Weights::new();
        let graph =
            models::vision(description, &mut weights).map_err(|e| refused("the vision tower", e.to_string()))?;
        let mut graph = graph;
        for pass in PASSES {
            graph = (pass.run)(&graph, &mut weights).map_err(|e| Error::Bug(e.to_string()))?;
            if pass.name == LAST_PASS {
                break;
            }
        }
        let (program, blobs) = translate(&graph, &weights).map_err(|e| refused(&e.node, e.reason))?;
        let (vision, hidden) = (&description.vision, description.text.hidden);
        let (side, tokens) = (vision.side, vision.tokens());
        let description = ModelDescription {
            input: vec![feature(
                INPUT,
                "A picture, resized and padded: red, green and blue planes of values from 0 to 255.",
                &[1, 3, side, side],
            )],
            output: vec![feature(OUTPUT, "Rows of the decoder, one for each token.", &[1, tokens, hidden])],
            metadata: Some(Metadata {
                short_description: format!("Vision tower and projector of {}.", texts.name),
                version_string: String::new(),
                author: "tvlmc".to_string(),
                license: texts.license.clone(),
                user_defined: texts.more.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
            }),
        };
        let spec =
            Spec { specification_version: SPECIFICATION, description: Some(description), ml_program: Some(program) };
        Ok(Model { spec: spec.encode_to_vec(), blobs, weights })
    }

    /// Bytes of all files, the manifest aside.
    pub fn bytes(&self) -> u64 {
        self.spec.len() as u64 + self.blobs.bytes()
    }

    /// Writes the folder `relative` of an unfinished output; `progress` gets the bytes of weights written so far.
    ///
    /// # Errors
    /// [`Error::Input`]: a weight beyond the range of 16-bit floats, or one that cannot be read. The disk.
    pub fn write(
        &self,
        staging: &Staging,
        relative: &str,
        checkpoint: &Checkpoint,
        progress: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let [manifest, spec, weights] = files(relative);
        staging.write(&manifest, self.manifest().as_bytes())?;
        staging.write(&spec, &self.spec)?;
        let path = staging.path(&weights);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let source: &dyn TensorSource = checkpoint;
        let written = || -> Result<(), Failure> {
            let mut file = BufWriter::new(File::create_new(&path).map_err(BlobError::Io)?);
            self.blobs.write(&self.weights, source, &mut file, &mut |done| progress(done).map_err(Failure::Own))?;
            let file = file.into_inner().map_err(|e| BlobError::Io(e.into_error()))?;
            Ok(file.sync_all().map_err(BlobError::Io)?)
        };
        written().map_err(|failure| match failure {
            Failure::Own(e) => e,
            Failure::Blob(BlobError::Io(e)) => Error::writing("write", &path, self.bytes())(e),
            // What it was decides between bad input and a broken disk.
            Failure::Blob(BlobError::Source(e)) => {
                let input = || Error::input(checkpoint.folder().display().to_string(), "", e.to_string());
                checkpoint.failure().unwrap_or_else(input)
            }
            Failure::Blob(BlobError::Range { name, element, value }) => {
                let problem = format!(
                    "element {element} is {value:e}, and a Core ML model holds 16-bit floats of at most 65504: \
                     compile it without --delegate coreml"
                );
                Error::input(checkpoint.folder().display().to_string(), name, problem)
            }
        })
    }

    /// The files of the folder `relative` of an output, each with what is not as it would be written. Weights are judged by
    /// their number of bytes.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn check(&self, relative: &str, out: &Path) -> Result<BTreeMap<String, Option<String>>, Error> {
        let [manifest, spec, weights] = files(relative);
        let same = |path: &str, expected: &[u8]| match fs::read(out.join(path)) {
            Ok(bytes) if bytes == expected => Ok(None),
            Ok(_) => Ok(Some("is not what would be emitted".to_string())),
            Err(e) => missing(out, path, e),
        };
        let length = match fs::metadata(out.join(&weights)) {
            Ok(found) if found.len() == self.blobs.bytes() => None,
            Ok(found) => Some(format!("is {} bytes, expected {}", found.len(), self.blobs.bytes())),
            Err(e) => missing(out, &weights, e)?,
        };
        let manifest_found = same(&manifest, self.manifest().as_bytes())?;
        let spec_found = same(&spec, &self.spec)?;
        Ok(BTreeMap::from([(manifest, manifest_found), (spec, spec_found), (weights, length)]))
    }

    /// `Manifest.json`. Identifiers are made of what they name, so that equal models are equal bytes.
    fn manifest(&self) -> String {
        let (spec, weights) = (self.identifier("model.mlmodel"), self.identifier("weights"));
        let item = |name: &str, about: &str| {
            json!({
                "author": OWNER,
                "description": about,
                "name": name,
                "path": format!("{OWNER}/{name}"),
            })
        };
        let manifest = json!({
            "fileFormatVersion": "1.0.0",
            "itemInfoEntries": {
                &spec: item("model.mlmodel", "CoreML Model Specification"),
                &weights: item("weights", "CoreML Model Weights"),
            },
            "rootModelIdentifier": &spec,
        });
        format!("{manifest:#}\n")
    }

    /// A UUID of version 8, which is free in its bits.
    fn identifier(&self, what: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(what);
        hash.update(&self.spec);
        let mut bits = [0; 16];
        bits.copy_from_slice(&hash.finalize()[..16]);
        bits[6] = bits[6] & 0x0f | 0x80;
        bits[8] = bits[8] & 0x3f | 0x80;
        let digits = hex(&bits);
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}

enum Failure {
    Blob(BlobError),
    Own(Error),
}

impl From<BlobError> for Failure {
    fn from(e: BlobError) -> Failure {
        Failure::Blob(e)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Own(e)
    }
}

fn feature(name: &str, about: &str, shape: &[usize]) -> FeatureDescription {
    let array =
        ArrayFeatureType { shape: shape.iter().map(|&n| n as i64).collect(), data_type: ArrayDataType::Float32 as i32 };
    FeatureDescription {
        name: name.to_string(),
        short_description: about.to_string(),
        r#type: Some(FeatureType { multi_array_type: Some(array) }),
    }
}

/// Manifest, program and weights of the folder `relative`.
fn files(relative: &str) -> [String; 3] {
    ["Manifest.json".to_string(), format!("Data/{OWNER}/model.mlmodel"), format!("Data/{OWNER}/weights/weight.bin")]
        .map(|path| format!("{relative}/{path}"))
}

fn missing(out: &Path, path: &str, e: io::Error) -> Result<Option<String>, Error> {
    match e.kind() {
        io::ErrorKind::NotFound => Ok(Some("is missing".to_string())),
        _ => Err(Error::io("read", &out.join(path))(e)),
    }
}

/// The name of a model's folder.
pub fn folder(name: &str) -> String {
    format!("{name}.mlpackage")
}

/// What is in a folder that [`Model::write`] has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Name of the folder.
    pub name: String,
    /// Bytes of program and weights.
    pub bytes: u64,
    /// Operations, constants aside.
    pub operations: usize,
    /// Names of the ops' set.
    pub opset: String,
}

/// The Core ML models in a folder, by name.
///
/// # Errors
/// A model that cannot be read.
pub fn summary(parent: &Path) -> Result<Vec<Summary>, Error> {
    let entries = fs::read_dir(parent).map_err(Error::io("read", parent))?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", parent))?.path();
        if path.extension().is_some_and(|end| end == "mlpackage") && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    folders.iter().map(|folder| one(folder)).collect()
}

fn one(folder: &Path) -> Result<Summary, Error> {
    let [_, model, weights] = files("").map(|path| folder.join(path.trim_start_matches('/')));
    let bytes = fs::read(&model).map_err(Error::io("read", &model))?;
    let spec = Spec::decode(&bytes[..]).map_err(|e| {
        let problem = format!("{e}: is no Core ML model of tvlmc; compile it again");
        Error::input(model.display().to_string(), "", problem)
    })?;
    let weight_bytes = fs::metadata(&weights).map_err(Error::io("read", &weights))?.len();
    let functions = spec.ml_program.iter().flat_map(|program| program.functions.values());
    let blocks = functions.clone().flat_map(|function| function.block_specializations.values());
    let operations = blocks.flat_map(|block| &block.operations).filter(|op| op.r#type != "const").count();
    Ok(Summary {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: bytes.len() as u64 + weight_bytes,
        operations,
        opset: functions.map(|function| function.opset.as_str()).collect::<Vec<_>>().join(", "),
    })
}
