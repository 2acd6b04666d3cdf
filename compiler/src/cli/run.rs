//! `tvlmc run`: a question about pictures.

use std::path::Path;

use runtime_decode::Options;

use super::args::Run;
use super::cache::Cache;
use super::model::Model;
use super::runner::{self, RawPictures, Runner};
use super::ui::Ui;
use crate::error::Error;

pub fn run(args: &Run, ui: &Ui) -> Result<u8, Error> {
    let model = Model::open(&args.model)?;
    let chosen = args.choices.resolve()?.at_sides(&args.side, &model)?;
    let prompt = prompt(&args.prompt)?;
    if args.image.iter().filter(|path| *path == Path::new("-")).count() > 1 {
        return Err(Error::Usage("--image -: stdin holds one picture, so it can be named once".into()));
    }
    let (n_sides, n_images) = (args.side.len(), args.image.len());
    if n_sides > 1 && n_sides != n_images {
        return Err(Error::Usage(format!(
            "--side: {n_sides} sides for {n_images} pictures: give one for all, or one for each"
        )));
    }
    let cache = Cache::open()?;
    let compiled = cache.compiled(&args.model, &chosen, ui)?;
    // Pictures first: a wrong one is told before the crate is built.
    let mut pictures = RawPictures::new()?;
    let options = Options { alpha: compiled.manifest.alpha, exif: args.exif };
    for path in &args.image {
        pictures.add(path, options)?;
    }
    let runner = Runner::build(&cache, &compiled, ui)?;
    let mut command = runner.command();
    pictures.give(&mut command);
    // In a file, so that neither its length nor other users' curiosity matters.
    command.arg("--prompt-file").arg(pictures.text("prompt", prompt.as_bytes())?);
    command.arg("--max-new-tokens").arg(args.max_new_tokens.to_string());
    let sampler = &args.sampler;
    let numbers = [
        ("--temperature", sampler.temperature.to_string()),
        ("--top-k", sampler.top_k.to_string()),
        ("--top-p", sampler.top_p.to_string()),
        ("--repetition-penalty", sampler.repetition_penalty.to_string()),
        ("--seed", sampler.seed.to_string()),
    ];
    for (flag, value) in numbers {
        command.arg(format!("{flag}={value}"));
    }
    if let Some(threads) = args.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    if let Some(speculate) = args.speculate {
        command.arg("--speculate").arg(speculate.to_string());
    }
    if !args.side.is_empty() {
        let sides: Vec<String> = args.side.iter().map(usize::to_string).collect();
        command.arg("--side").arg(sides.join(","));
    }
    if let Some(level) = &args.level {
        command.arg("--level").arg(level);
    }
    for (flag, given) in [("--ignore-eos", args.ignore_eos), ("--json", args.json), ("--quiet", ui.is_quiet())] {
        if given {
            command.arg(flag);
        }
    }
    ui.check()?;
    runner::exit_code(runner::run(command, ui)?)
}

/// The question as text.
pub fn prompt(given: &std::ffi::OsStr) -> Result<&str, Error> {
    let text = given.to_str().ok_or_else(|| Error::input("--prompt", "", "is not UTF-8"))?;
    if text.is_empty() {
        return Err(Error::input("--prompt", "", "is empty, a question is expected"));
    }
    Ok(text)
}
