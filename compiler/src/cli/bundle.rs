//! `tvlmc compile --emit package`: a Swift package, or an archive for Android.

use std::path::{Path, PathBuf};

use super::args::Compile;
use super::compile::{look, progress, read_for};
use super::delegate;
use super::library::{self, Libraries};
use super::ui::{Ui, size};
use crate::assemble::Options;
use crate::bundle::{About, Slice, android, apple};
use crate::error::Error;
use crate::machine::{Machine, System};
use crate::output::{MANIFEST, Staging};

/// The version of packages, which are numbered by whoever publishes them.
const VERSION: &str = "1.0.0";

/// The kinds of packages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Swift,
    Android,
}

fn kind(machine: Machine) -> Option<Kind> {
    match machine.system()? {
        System::Ios | System::IosSimulator | System::MacOs => Some(Kind::Swift),
        System::Android => Some(Kind::Android),
        System::Linux => None,
    }
}

/// What a package for a machine is, and the machines whose libraries it holds, the one that was named first.
///
/// # Errors
/// A machine without packages, or that rustc here has no standard library for.
fn machines(named: Machine, ui: &Ui) -> Result<(Kind, Vec<Machine>), Error> {
    let Some(wanted) = kind(named) else {
        let way = "packages are for Apple's systems and Android; use --emit crate or staticlib";
        return Err(Error::Usage(format!("--emit package: there is none for {}: {way}", named.triple())));
    };
    library::check(named)?;
    let mut all = vec![named];
    for other in Machine::ALL.into_iter().filter(|other| *other != named && kind(*other) == Some(wanted)) {
        match library::check(other) {
            Ok(()) => all.push(other),
            Err(error) => ui.note(&format!("note: left out: {error}")),
        }
    }
    Ok((wanted, all))
}

/// Builds the libraries of all machines and writes the package into `out`.
///
/// # Errors
/// As of assembling, building and writing; no NDK, no `javac`, which is found out before any of it.
pub fn compile(args: &Compile, options: &Options<'_>, out: &Path, ui: &Ui) -> Result<u8, Error> {
    let (kind, machines) = machines(options.machine, ui)?;
    // No one asks for a delegate of another system: that was refused before.
    let delegated = delegate::asked(args.delegate.as_deref(), options.machine)?;
    if kind == Kind::Android {
        android::check_javac()?;
    }
    let linking = |machine: &Machine| match kind {
        Kind::Swift => Ok(Vec::new()),
        Kind::Android => android::linking(*machine).map(Vec::from),
    };
    let variables = machines.iter().map(linking).collect::<Result<Vec<_>, Error>>()?;
    let all = read_for(&machines, &args.model, options, ui)?;
    let first = &all[0];
    look(args, first)?;
    let model = delegated.map(|delegate| delegate.model(first)).transpose()?;
    let kinds = match kind {
        Kind::Swift => "staticlib",
        Kind::Android => "cdylib",
    };
    let built = all.iter().zip(&variables).map(|(one, variables)| library::build(one, kinds, variables, ui));
    let built = built.collect::<Result<Vec<Libraries>, Error>>()?;
    let missing = || Error::Bug("cargo made no library".to_string());
    let mut slices = Vec::new();
    for (&machine, built) in machines.iter().zip(&built) {
        let library: &PathBuf = built.archive.as_ref().or(built.shared.as_ref()).ok_or_else(missing)?;
        slices.push(Slice { machine, library });
    }
    let manifest = &first.package.files[MANIFEST];
    let about = About { name: &first.name, version: VERSION, manifest, licenses: &first.prepared.licenses };
    let staging = Staging::begin(out, args.force)?;
    let weights = |path: &Path| progress(first, ui, &|progress| first.write_weights(&staging, path, progress));
    let write_model: &dyn Fn(&Staging, &str) -> Result<(), Error> = &|staging, folder| match &model {
        Some(model) => delegate::write(model, first, staging, folder, ui),
        None => Ok(()),
    };
    let coreml = model.is_some().then_some(write_model);
    match kind {
        Kind::Swift => apple::write(&staging, &about, &slices, &weights, coreml)?,
        Kind::Android => android::write(&staging, &about, android::GROUP, &slices, &weights)?,
    }
    let out = staging.commit()?;
    let triples: Vec<&str> = machines.iter().map(|machine| machine.triple()).collect();
    let weights = size(first.weight_file_bytes());
    ui.note(&format!("{}: for {}, {weights} of weights", out.display(), triples.join(", ")));
    ui.note(&format!("license of the weights: {}", first.prepared.licenses.summary()));
    Ok(0)
}
