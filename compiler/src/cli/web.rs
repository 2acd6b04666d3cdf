//! `tvlmc compile --target wasm32-unknown-unknown`: a checkpoint to a folder for web pages.

use std::fmt::Write as _;
use std::path::Path;

use models::Recipe;
use models::recipe::Maps;

use super::args::Compile;
use super::compile::way_out;
use super::explain::explain;
use super::print;
use super::ui::{Ui, size};
use crate::assemble::Options;
use crate::error::{Error, grouped};
use crate::output::Staging;
use crate::wasm::{self, Web};

/// Refuses what this target does not have, before anything is read.
///
/// # Errors
/// Measured schedules, which are those of a processor.
pub fn check(args: &Compile) -> Result<(), Error> {
    if args.choices.tuned.is_some() {
        return Err(Error::Usage(format!("--tuned: schedules are measured for processors, not for {}", args.target)));
    }
    Ok(())
}

/// Compiles into `out`, or compares a folder with what would be written.
///
/// # Errors
/// As of assembling and writing.
pub fn compile(args: &Compile, options: &Options<'_>, out: &Path, ui: &Ui) -> Result<u8, Error> {
    let work = ui.work("reading and planning", None);
    let web = wasm::assemble(&args.model, options, &wasm::SIDES)?;
    ui.check()?;
    work.done(&format!("{} tensors", grouped(web.checkpoint.tensors().count() as u64)));
    for note in &web.prepared.notes {
        ui.note(&format!("note: {note}"));
    }
    let need = web.weight_file_bytes() + web.session_bytes(1);
    if let Some(limit) = args.max_ram.filter(|limit| need > *limit) {
        return Err(Error::Check(format!(
            "running takes {} bytes with one thread, --max-ram allows {}: {}",
            grouped(need),
            grouped(limit),
            way_out(web.weight_file_bytes(), limit)
        )));
    }
    if args.explain {
        print(&explain(&web.prepared))?;
    }
    if let Some(out) = &args.check {
        return compare(&web, out, ui);
    }
    let out = write(&web, out, args.force, ui)?;
    ui.note(&format!(
        "{}: {} of code, {} of weights; running takes {} beside them",
        out.display(),
        size(web.code_bytes()),
        size(web.weight_file_bytes()),
        size(web.session_bytes(1)),
    ));
    ui.note(&format!("license of the weights: {}", web.prepared.licenses.summary()));
    Ok(0)
}

/// The same with maps of 32-bit floats: engines have no instruction for the others, whose conversions make the depthwise
/// kernels three times as slow and the modules twice as large.
pub fn with_float_maps<'a>(options: &Options<'a>, ui: &Ui) -> Options<'a> {
    let file = options.recipe.as_ref().filter(|r| Recipe::named(&r.name).as_ref() != Ok(r));
    if file.is_some_and(|r| r.maps == Maps::F16) {
        ui.note("note: maps are of 32-bit floats, not the recipe's F16: WebAssembly has no instruction for these");
    }
    let recipe = options.recipe.clone().map(|recipe| Recipe { maps: Maps::F32, ..recipe });
    Options { recipe, ..options.clone() }
}

fn write(web: &Web, out: &Path, force: bool, ui: &Ui) -> Result<std::path::PathBuf, Error> {
    let staging = Staging::begin(out, force)?;
    let what = if web.prepared.recipe.is_float() { "packing weights" } else { "quantizing weights" };
    let total = web.weight_file_bytes();
    let work = ui.work(what, Some(total));
    web.write(&staging, &|done| {
        work.at(done);
        ui.check()
    })?;
    work.done(&size(total));
    staging.commit()
}

fn compare(web: &Web, out: &Path, ui: &Ui) -> Result<u8, Error> {
    if !out.is_dir() {
        let problem = "is no folder: --check compares an output that exists";
        return Err(Error::input(out.display().to_string(), "", problem));
    }
    let differences = web.differences(out)?;
    if differences.is_empty() {
        ui.note(&format!("{}: is what would be emitted now", out.display()));
        return Ok(0);
    }
    let mut text = String::new();
    for line in &differences {
        let _ = writeln!(text, "{line}");
    }
    print(&text)?;
    let files = if differences.len() == 1 { "1 file is".into() } else { format!("{} files are", differences.len()) };
    Err(Error::Check(format!("{}: {files} not what would be emitted now", out.display())))
}
