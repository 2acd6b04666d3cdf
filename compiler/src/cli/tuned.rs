//! `--tuned`: which measured schedules a model is compiled with, and where they are kept.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::ui::Ui;
use crate::assemble::{Options, hex};
use crate::error::Error;
use crate::frontend::{Checkpoint, OpenOptions, describe};
use crate::package::TOOL_VERSION;
use crate::tune::{Tuning, TuningFile, host};

/// Where schedules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuned {
    /// The model of the machine.
    Off,
    /// What `tvlmc tune` has found on this machine.
    Cached,
    /// A file that it wrote.
    File(PathBuf),
}

impl FromStr for Tuned {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Tuned, Infallible> {
        Ok(match text {
            "off" => Tuned::Off,
            "cached" => Tuned::Cached,
            path => Tuned::File(path.into()),
        })
    }
}

/// Stands for a model's shapes and how its weights are stored.
///
/// # Errors
/// What is wrong with the checkpoint's description.
pub fn digest(model: &Path, options: &Options<'_>) -> Result<String, Error> {
    let checkpoint = Checkpoint::open(model, &OpenOptions { allow_non_finite: options.allow_non_finite })?;
    let description = describe(&checkpoint)?.description;
    let text = format!("{description:?}\n{:?}\n{:?}", options.recipe, options.context);
    Ok(hex(&Sha256::digest(text)[..16]))
}

/// Where the cache keeps what was measured on this processor of the model with a digest.
pub fn place(cache: &Cache, digest: &str) -> PathBuf {
    let key = Sha256::digest(format!("{TOOL_VERSION}\n{}\n{digest}", host::processor()));
    cache.tuned().join(format!("{}.json", hex(&key[..16])))
}

/// What was asked for; it has to be there.
///
/// # Errors
/// There is no such file, or it is for something else.
pub fn asked(tuned: Option<&Tuned>, model: &Path, options: &Options<'_>) -> Result<Option<Tuning>, Error> {
    let path = match tuned {
        None | Some(Tuned::Off) => return Ok(None),
        Some(Tuned::File(path)) => path.clone(),
        Some(Tuned::Cached) => {
            let path = place(&Cache::open()?, &digest(model, options)?);
            if !path.is_file() {
                return Err(Error::Environment(format!(
                    "--tuned: nothing was measured for this model and these options on {}: run tvlmc tune first",
                    host::processor()
                )));
            }
            path
        }
    };
    Ok(Some(TuningFile::read(&path, &digest(model, options)?)?.tuning))
}

/// What was asked for, or else what this machine's cache has. A file of the cache that cannot be used is told and left.
///
/// # Errors
/// As [`asked`].
pub fn asked_or_cached(
    cache: &Cache,
    tuned: Option<&Tuned>,
    model: &Path,
    options: &Options<'_>,
    ui: &Ui,
) -> Result<Option<Tuning>, Error> {
    let empty = || std::fs::read_dir(cache.tuned()).map_or(true, |mut entries| entries.next().is_none());
    // Most caches have nothing, and then the checkpoint need not be opened.
    if tuned.is_some() || empty() {
        return asked(tuned, model, options);
    }
    let digest = digest(model, options)?;
    let path = place(cache, &digest);
    if !path.exists() {
        return Ok(None);
    }
    match TuningFile::read(&path, &digest) {
        Ok(file) => Ok(Some(file.tuning)),
        Err(error) => {
            ui.note(&format!("note: not used: {error}"));
            Ok(None)
        }
    }
}
