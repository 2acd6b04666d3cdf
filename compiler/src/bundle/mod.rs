//! Packages that app developers add to their projects: built libraries with a face in the language of the platform.
//!
//! Building the libraries is left to whoever calls this. What is done here needs neither Xcode nor an Android SDK: both kinds of
//! packages are folders and archives of documented formats. The faces are sources of `bindings/`, which this program carries.

pub mod android;
pub mod apple;
mod elf;
mod macho;

use std::path::Path;

use crate::error::{Error, Quoted};
use crate::frontend::Licenses;
use crate::machine::Machine;
use crate::output::{MANIFEST, Staging};
use crate::package::{LICENSES, WEIGHTS_NAME, check_name, license};

/// A library for one machine.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// What it runs on.
    pub machine: Machine,
    /// `libtvlm.a` for Apple's systems, `libtvlm.so` for Android.
    pub library: &'a Path,
}

/// What a package says about itself.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the model, as its crate has it.
    pub name: &'a str,
    /// Version of the package: numbers with points between, and what may follow a hyphen.
    pub version: &'a str,
    /// What `manifest.json` says.
    pub manifest: &'a str,
    /// What lay beside the weights.
    pub licenses: &'a Licenses,
}

/// Folder of the license of what is not the model's.
const OURS: &str = "licenses";

impl About<'_> {
    fn check(&self) -> Result<(), Error> {
        check_name(self.name)?;
        let number = self.version.split(['-', '+']).next().unwrap_or_default();
        let numbers = number.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        let plain = self.version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'));
        if numbers && plain {
            return Ok(());
        }
        Err(Error::Usage(format!("{} is no version; one is 1.0.0 or 1.0.0-beta.1", Quoted(self.version))))
    }

    /// The manifest and the licenses.
    fn write(&self, staging: &Staging) -> Result<(), Error> {
        staging.write(MANIFEST, self.manifest.as_bytes())?;
        for (name, text) in LICENSES {
            staging.write(&format!("{OURS}/{name}"), text.as_bytes())?;
        }
        for license in &self.licenses.texts {
            staging.write(&license.file, license.text.as_bytes())?;
        }
        Ok(())
    }

    fn license(&self) -> String {
        license(self.licenses, OURS)
    }
}

/// The libraries' bytes, of machines that differ.
fn read<'a>(slices: &[Slice<'a>]) -> Result<Vec<(Slice<'a>, Vec<u8>)>, Error> {
    if slices.is_empty() {
        return Err(Error::Usage("a package without a library: name a target for one".to_string()));
    }
    let mut read = Vec::new();
    for (i, slice) in slices.iter().enumerate() {
        if slices[..i].iter().any(|other| other.machine == slice.machine) {
            return Err(Error::Usage(format!(
                "{} is there twice: a package has one library for each",
                slice.machine.triple()
            )));
        }
        read.push((*slice, std::fs::read(slice.library).map_err(Error::io("read", slice.library))?));
    }
    Ok(read)
}

/// A library that is not for its machine.
fn unfit(slice: &Slice<'_>, found: &str) -> Error {
    let (path, triple) = (slice.library.display(), slice.machine.triple());
    Error::Environment(format!("{path}: {found}, and {triple} was wanted: build it for that target"))
}

/// What writes the weight file to a path.
pub type Weights<'a> = &'a dyn Fn(&Path) -> Result<(), Error>;

/// Has the weight file written into its folder.
fn weights(staging: &Staging, write: Weights<'_>, folder: &str) -> Result<(), Error> {
    let folder = staging.path(folder);
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    write(&folder.join(WEIGHTS_NAME))
}
