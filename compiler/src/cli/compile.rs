//! `tvlmc compile`: a checkpoint to a folder.

use std::path::{Path, PathBuf};

use super::args::{Compile, Form};
use super::explain::explain;
use super::model::{Model, unknown_target};
use super::system;
use super::ui::{Ui, size};
use super::{bundle, delegate, diff, library, print, tuned, web};
use crate::assemble::{Assembled, Options, assemble, assemble_for, crate_name};
use crate::coreml;
use crate::error::{Error, grouped};
use crate::frontend;
use crate::machine::Machine;
use crate::output::{self, Staging};
use crate::tune::Tuning;
use crate::wasm;

pub fn compile(args: &Compile, ui: &Ui) -> Result<u8, Error> {
    let machine = machine(args)?;
    let delegated = delegate::asked(args.delegate.as_deref(), machine)?;
    let for_web = machine == Machine::Wasm;
    let mut chosen = args.choices.resolve()?;
    chosen.options.sides = args.sides.given();
    chosen.options.system = args.system_prompt.as_deref().map(system::text).transpose()?;
    if let Model::Compiled(_) = Model::open(&args.model)? {
        let problem = "was compiled already: name the checkpoint it was made from";
        return Err(Error::input(args.model.display().to_string(), "", problem));
    }
    let out = args.output.clone().unwrap_or_else(|| {
        let name = args.name.clone().unwrap_or_else(|| crate_name(&args.model));
        PathBuf::from(format!("{name}-{}", args.target))
    });
    // Refused before minutes of work rather than after, and the input before the place of the output.
    frontend::check_path(&args.model)?;
    if args.check.is_none() {
        output::check(&out, args.force)?;
        refuse_inside(&out, &args.model)?;
    }
    let tuning = tuned::asked(chosen.tuned.as_ref(), &args.model, &chosen.options)?;
    if let Some(tuning) = &tuning {
        check_levels(tuning, machine)?;
    }
    if let Some(dump) = &args.dump_ir {
        refuse_inside(dump, &args.model)?;
    }
    if args.system_prompt.is_some() {
        chosen.options.baked = Some(system::bake(args, &chosen, ui)?);
    }
    let (name, dump) = (args.name.as_deref(), args.dump_ir.as_deref());
    let mut options = Options { name, dump, tuning, machine, ..chosen.options };
    if !machine.has_std() {
        options = web::with_float_maps(&options, ui);
    }
    if args.emit == Some(Form::Package) {
        return bundle::compile(args, &options, &out, ui);
    }
    if for_web {
        return web::compile(args, &options, &out, ui);
    }
    let assembled = read(&args.model, &options, ui)?;
    look(args, &assembled)?;
    let model = delegated.map(|delegate| delegate.model(&assembled)).transpose()?;
    if let Some(out) = &args.check {
        return diff::check(&assembled, model.as_ref(), out, ui);
    }
    if args.emit == Some(Form::Staticlib) {
        return library::write(&assembled, model.as_ref(), &out, args.force, ui);
    }
    let out = write_with(&assembled, model.as_ref(), &out, args.force, ui)?;
    let package = &assembled.package;
    let run = package.arena_bytes as u64 + package.scratch_bytes as u64;
    ui.note(&format!(
        "{}: {} of code, {} of weights; running takes {} beside them",
        out.display(),
        size(package.files.values().map(|text| text.len() as u64).sum()),
        size(assembled.weight_file_bytes()),
        size(run),
    ));
    ui.note(&format!("license of the weights: {}", assembled.prepared.licenses.summary()));
    Ok(0)
}

/// What is compiled for, and in which form.
fn machine(args: &Compile) -> Result<Machine, Error> {
    if args.target == wasm::TARGET {
        web::check(args)?;
        return match args.emit {
            Some(Form::Crate) => Ok(Machine::WasmRust),
            None | Some(Form::Web) => Ok(Machine::Wasm),
            Some(Form::Staticlib | Form::Package) => {
                Err(Error::Usage(format!("--emit: {} takes crate or web", wasm::TARGET)))
            }
        };
    }
    let machine = Machine::of_triple(&args.target).ok_or_else(|| unknown_target(&args.target))?;
    if args.emit == Some(Form::Web) {
        return Err(Error::Usage(format!("--emit web: is for --target {}, this is {}", wasm::TARGET, args.target)));
    }
    if matches!(args.emit, Some(Form::Staticlib | Form::Package)) {
        if args.check.is_some() {
            return Err(Error::Usage(
                "--check works with --emit crate and web; a library that was built is not compared".to_string(),
            ));
        }
        library::check(machine)?;
    }
    Ok(machine)
}

/// Refuses schedules that were measured on another kind of processor, which would change nothing.
fn check_levels(tuning: &Tuning, machine: Machine) -> Result<(), Error> {
    let own: Vec<&str> = [true, false].into_iter().flat_map(|float| machine.levels(float)).map(|t| t.level()).collect();
    if tuning.levels.iter().any(|measured| own.contains(&measured.level.as_str())) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--tuned: measured on {}, which is no processor of {}",
        tuning.processor,
        machine.triple()
    )))
}

/// Reads a checkpoint up to the point where something is written, and tells what is worth a note about it.
pub fn read(model: &Path, options: &Options<'_>, ui: &Ui) -> Result<Assembled, Error> {
    let assembled = read_without_notes(model, options, ui)?;
    tell(&assembled, ui);
    Ok(assembled)
}

/// As [`read`] for several machines, one or more.
pub fn read_for(machines: &[Machine], model: &Path, options: &Options<'_>, ui: &Ui) -> Result<Vec<Assembled>, Error> {
    let all = reading(ui, || assemble_for(machines, model, options), |all| &all[0])?;
    tell(&all[0], ui);
    Ok(all)
}

/// As [`read`], for who shows the notes in another way.
pub fn read_without_notes(model: &Path, options: &Options<'_>, ui: &Ui) -> Result<Assembled, Error> {
    reading(ui, || assemble(model, options), |assembled| assembled)
}

/// Shows that a checkpoint is read, and how much was.
fn reading<T>(ui: &Ui, read: impl FnOnce() -> Result<T, Error>, one: fn(&T) -> &Assembled) -> Result<T, Error> {
    let work = ui.work("reading and planning", None);
    let read = read()?;
    ui.check()?;
    work.done(&format!("{} tensors", grouped(one(&read).checkpoint.tensors().count() as u64)));
    Ok(read)
}

fn tell(assembled: &Assembled, ui: &Ui) {
    for note in &assembled.prepared.notes {
        ui.note(&format!("note: {note}"));
    }
}

/// Writes the folder `out` and returns its absolute path.
pub fn write(assembled: &Assembled, out: &Path, force: bool, ui: &Ui) -> Result<PathBuf, Error> {
    write_with(assembled, None, out, force, ui)
}

/// As [`write`], with what a delegate runs.
fn write_with(
    assembled: &Assembled,
    model: Option<&coreml::Model>,
    out: &Path,
    force: bool,
    ui: &Ui,
) -> Result<PathBuf, Error> {
    let staging = Staging::begin(out, force)?;
    if let Some(model) = model {
        staging.reserve(model.bytes() + assembled.bytes())?;
        delegate::write(model, assembled, &staging, "", ui)?;
    }
    progress(assembled, ui, &|progress| assembled.write(&staging, progress))?;
    staging.commit()
}

/// What is called with the bytes of weights written so far.
type Progress<'a> = &'a dyn Fn(u64) -> Result<(), Error>;

/// Shows the progress of writing weights.
pub fn progress(
    assembled: &Assembled,
    ui: &Ui,
    write: &dyn Fn(Progress<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let total = assembled.weight_file_bytes();
    let what = if assembled.prepared.recipe.is_float() { "packing weights" } else { "quantizing weights" };
    let work = ui.work(what, Some(total));
    write(&|done| {
        work.at(done);
        ui.check()
    })?;
    work.done(&size(total));
    Ok(())
}

/// What is asked about a model before anything is written: whether it fits, and the numbers of its kernels.
pub fn look(args: &Compile, assembled: &Assembled) -> Result<(), Error> {
    check_memory(assembled, args.max_ram)?;
    if args.explain { print(&explain(&assembled.prepared)) } else { Ok(()) }
}

fn check_memory(assembled: &Assembled, limit: Option<u64>) -> Result<(), Error> {
    let package = &assembled.package;
    let weights = assembled.weight_file_bytes();
    let need = weights + package.arena_bytes as u64 + package.scratch_bytes as u64;
    match limit {
        Some(limit) if need > limit => Err(Error::Check(format!(
            "running takes {} bytes with one thread ({} weight file, {} arena, {} scratch), --max-ram allows {}: {}",
            grouped(need),
            grouped(weights),
            grouped(package.arena_bytes as u64),
            grouped(package.scratch_bytes as u64),
            grouped(limit),
            way_out(weights, limit)
        ))),
        _ => Ok(()),
    }
}

/// What makes a model smaller than it is.
pub fn way_out(weights: u64, limit: u64) -> &'static str {
    if weights >= limit {
        "the weights alone are too many; a recipe of fewer bits, where this is not int4 yet, or a smaller model may do"
    } else {
        "try a smaller --context"
    }
}

/// The checkpoint's folder is not ours to write into.
fn refuse_inside(out: &Path, model: &Path) -> Result<(), Error> {
    let absolute = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let (Ok(model), Ok(name)) = (absolute(model), std::path::absolute(out)) else { return Ok(()) };
    let folder = if model.is_file() { model.parent().unwrap_or(&model) } else { &model };
    // The output may not exist yet, its parent does.
    let out = match (name.parent().map(absolute), name.file_name()) {
        (Some(Ok(parent)), Some(last)) => parent.join(last),
        _ => name,
    };
    if out.starts_with(folder) {
        return Err(Error::Usage(format!(
            "{} is in the checkpoint's folder, which stays as it is: choose another place with -o",
            out.display()
        )));
    }
    if folder.starts_with(&out) {
        return Err(Error::Usage(format!("{} holds the checkpoint: choose another place with -o", out.display())));
    }
    Ok(())
}
