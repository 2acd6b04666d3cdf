//! `tvlmc compile --emit package`: a Swift package, or an archive for Android.

use std::path::{Path, PathBuf};

use super::args::Compile;
use super::compile::{progress, read};
use super::library::{self, Libraries};
use super::ui::{Ui, size};
use crate::assemble::{Assembled, Options, pair};
use crate::bundle::{About, Slice, android, apple};
use crate::error::Error;
use crate::machine::{Machine, System};
use crate::output::{MANIFEST, Staging};
use crate::package::WEIGHTS_NAME;

/// The version of packages, which are numbered by whoever publishes them.
const VERSION: &str = "1.0.0";

/// Machines whose libraries one package holds, the one that was named first.
///
/// # Errors
/// A machine without packages, or that rustc here has no standard library for.
pub fn machines(named: Machine, ui: &Ui) -> Result<Vec<Machine>, Error> {
    let family = |machine: Machine| match machine {
        Machine::Aarch64(system) | Machine::X86_64(system) => match system {
            System::Ios | System::IosSimulator | System::MacOs => Some(System::Ios),
            System::Android => Some(System::Android),
            System::Linux => None,
        },
        Machine::Wasm | Machine::WasmRust => None,
    };
    let Some(wanted) = family(named) else {
        let way = "packages are for Apple's systems and Android; use --emit crate or staticlib";
        return Err(Error::Usage(format!("--emit package: there is none for {}: {way}", named.triple())));
    };
    library::check(named)?;
    let mut all = vec![named];
    for other in Machine::ALL.into_iter().filter(|other| *other != named && family(*other) == Some(wanted)) {
        match library::check(other) {
            Ok(()) => all.push(other),
            Err(error) => ui.note(&format!("note: left out: {error}")),
        }
    }
    Ok(all)
}

/// Builds the libraries of all machines and writes the package into `out`.
///
/// # Errors
/// As of assembling, building and writing; no NDK, no `javac`.
pub fn compile(args: &Compile, options: &Options<'_>, out: &Path, ui: &Ui) -> Result<u8, Error> {
    let machines = machines(options.machine, ui)?;
    let for_android = matches!(options.machine, Machine::Aarch64(System::Android) | Machine::X86_64(System::Android));
    let linking = |machine| if for_android { android::linking(machine).map(Vec::from) } else { Ok(Vec::new()) };
    let variables = machines.iter().map(|machine| linking(*machine)).collect::<Result<Vec<_>, Error>>()?;
    let mut all: Vec<Assembled> = Vec::new();
    for &machine in &machines {
        all.push(read(&args.model, &Options { machine, ..options.clone() }, ui)?);
    }
    pair(&mut all)?;
    let kinds = if for_android { "cdylib" } else { "staticlib" };
    let built = all.iter().zip(&variables).map(|(one, variables)| library::build(one, kinds, variables, ui));
    let built = built.collect::<Result<Vec<Libraries>, Error>>()?;
    let missing = || Error::Bug("cargo made no library".to_string());
    let mut slices = Vec::new();
    for (&machine, built) in machines.iter().zip(&built) {
        let library: &PathBuf = built.archive.as_ref().or(built.shared.as_ref()).ok_or_else(missing)?;
        slices.push(Slice { machine, library });
    }
    let first = &all[0];
    let manifest = &first.package.files[MANIFEST];
    let about = About { name: &first.name, version: VERSION, manifest, licenses: &first.prepared.licenses };
    let staging = Staging::begin(out, args.force)?;
    let folder = if for_android {
        android::write(&staging, &about, android::GROUP, &slices, None)?;
        android::WEIGHTS_FOLDER
    } else {
        apple::write(&staging, &about, &slices, None)?;
        apple::WEIGHTS_FOLDER
    };
    progress(first, ui, &|progress| first.write_weights(&staging, progress))?;
    let (from, to) = (staging.path(WEIGHTS_NAME), staging.path(folder));
    std::fs::create_dir_all(&to).map_err(Error::io("create", &to))?;
    let to = to.join(WEIGHTS_NAME);
    std::fs::rename(&from, &to).map_err(Error::io("write", &to))?;
    let out = staging.commit()?;
    let triples: Vec<&str> = machines.iter().map(|machine| machine.triple()).collect();
    let weights = size(first.weight_file_bytes());
    ui.note(&format!("{}: for {}, {weights} of weights", out.display(), triples.join(", ")));
    ui.note(&format!("license of the weights: {}", first.prepared.licenses.summary()));
    Ok(0)
}
