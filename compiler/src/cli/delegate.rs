//! `--delegate`: what else an app may run the vision tower on.

use super::ui::{Ui, size};
use crate::assemble::Assembled;
use crate::coreml::{self, Model};
use crate::error::{Error, Quoted, did_you_mean};
use crate::machine::{Machine, System};
use crate::output::Staging;

/// Names that `--delegate` takes.
const NAMES: [&str; 1] = ["coreml"];

/// Why there is none for Android's interface.
const NO_NNAPI: &str = "there is none: Android has deprecated NNAPI since version 15, and where others have measured it, it was \
    slower than the processor. The field `delegate` of the C interface's `tvlm_open_options` takes any other accelerator";

/// What can run a part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delegate {
    /// Apple's Core ML.
    CoreMl,
}

/// What was asked for.
///
/// # Errors
/// [`Error::Usage`]: no such delegate, or none for this machine.
pub fn asked(name: Option<&str>, machine: Machine) -> Result<Option<Delegate>, Error> {
    let refuse = |problem: String| Err(Error::Usage(format!("--delegate {problem}")));
    let lower = name.map(str::to_lowercase);
    match lower.as_deref() {
        None => Ok(None),
        Some("coreml") => match machine.system() {
            Some(System::Ios | System::IosSimulator | System::MacOs) => Ok(Some(Delegate::CoreMl)),
            Some(System::Linux | System::Android) | None => refuse(format!(
                "coreml: is for Apple's systems, such as --target aarch64-apple-ios; this is {}",
                machine.triple()
            )),
        },
        Some("nnapi") => refuse(format!("nnapi: {NO_NNAPI}")),
        Some(other) => {
            let near = did_you_mean(other, NAMES);
            refuse(format!("{}: there is no such delegate{near}; known: {}", Quoted(other), NAMES.join(", ")))
        }
    }
}

impl Delegate {
    /// What it runs of a model.
    ///
    /// # Errors
    /// A model that it cannot run.
    pub fn model(self, assembled: &Assembled) -> Result<Model, Error> {
        match self {
            Delegate::CoreMl => Model::of_assembled(assembled),
        }
    }
}

/// Writes what a delegate runs into `folder` of an unfinished output, which ends in `/` where it is not the output itself.
///
/// # Errors
/// As of [`Model::write`].
pub fn write(model: &Model, assembled: &Assembled, staging: &Staging, folder: &str, ui: &Ui) -> Result<(), Error> {
    let work = ui.work("writing the Core ML model", Some(model.bytes()));
    let relative = format!("{folder}{}", coreml::folder(&assembled.name));
    model.write(staging, &relative, &assembled.checkpoint, &|done| {
        work.at(done);
        ui.check()
    })?;
    work.done(&size(model.bytes()));
    // A Swift package connects the model, and says so in its own readme.
    if folder.is_empty() {
        staging.write(coreml::README, coreml::readme(assembled).as_bytes())?;
        ui.note(&format!("{relative}: {} tells how an app runs it", coreml::README));
    }
    Ok(())
}
