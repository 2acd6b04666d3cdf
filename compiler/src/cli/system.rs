//! `tvlmc compile --system-prompt`: the beginning of all conversations, computed by the emitted code itself.
//!
//! The same model is compiled into the cache and built as for `run`; its program then writes what the weight file is to
//! carry. Quantized models have the same bits on every machine, so any that runs the program will do.

use std::ffi::OsStr;
use std::path::Path;
use std::{env, fs};

use runtime_min::tokenizer::Tokenizer;
use runtime_min::{QUESTION, template};

use super::args::Compile;
use super::cache::Cache;
use super::model::Chosen;
use super::runner::Runner;
use super::ui::Ui;
use crate::assemble::{Options, SYSTEM_CACHE};
use crate::error::Error;
use crate::frontend::{Checkpoint, OpenOptions, describe, tokenizer_section};
use crate::machine::Machine;
use crate::package::SYSTEM;
use crate::pipeline;

/// Most bytes of a file with a system prompt: far more than a context takes.
const MOST: u64 = 1 << 20;

/// The text of `--system-prompt`: itself, or after `@` what the named file says, without the line feed at its end.
///
/// # Errors
/// No text, or a file that cannot be read or holds none.
pub fn text(given: &OsStr) -> Result<String, Error> {
    let Some(given) = given.to_str() else {
        return Err(Error::Usage("--system-prompt: not UTF-8".into()));
    };
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(path) => {
            let wrong = |problem: String| Error::input(path.to_owned(), "", problem);
            let path = Path::new(path);
            let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
            if bytes > MOST {
                return Err(wrong(format!("{bytes} bytes: a system prompt has at most {MOST}")));
            }
            let bytes = fs::read(path).map_err(Error::io("read", path))?;
            let text = String::from_utf8(bytes)
                .map_err(|e| wrong(format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        }
    };
    if text.is_empty() {
        return Err(Error::Usage("--system-prompt: there is no text; leave it out for the reference's".into()));
    }
    Ok(text)
}

/// Refuses a message that leaves no room for a question, before anything is compiled.
fn check_room(args: &Compile, chosen: &Chosen) -> Result<(), Error> {
    let Options { allow_non_finite, context, .. } = chosen.options;
    let checkpoint = Checkpoint::open(&args.model, &OpenOptions { allow_non_finite })?;
    let mut description = describe(&checkpoint)?.description;
    pipeline::Sides::asked(chosen.options.sides.as_deref()).choose(&mut description)?;
    let context = pipeline::context(&description, context)?;
    let section = tokenizer_section(&checkpoint, &description)?;
    let bug = |e: runtime_min::Error| Error::Bug(format!("the tokenizer's tables: {e}"));
    let tokenizer = Tokenizer::from_section(&section).map_err(bug)?;
    let system = chosen.options.system.as_deref().unwrap_or(SYSTEM);
    let taken = template::beginning(&tokenizer, system).map_err(bug)?.len();
    if taken + QUESTION > context {
        let problem = format!(
            "the system message takes {taken} positions of the context's {context}, and a question and its answer take at \
             least {QUESTION}: shorten it, or raise --context"
        );
        return Err(Error::input("--system-prompt", "", problem));
    }
    Ok(())
}

/// Computes the cache after the system message of `chosen`.
///
/// # Errors
/// A machine that cannot run the emitted code, a text that leaves no room for a question, and what `run` may fail with.
pub fn bake(args: &Compile, chosen: &Chosen, ui: &Ui) -> Result<Vec<u8>, Error> {
    if Machine::here().is_none() {
        return Err(Error::Environment(format!(
            "--system-prompt runs the emitted code once, and none is emitted for this machine ({} with {}): compile on one with x86-64 \
             or aarch64 and Linux or macOS",
            env::consts::ARCH,
            env::consts::OS
        )));
    }
    check_room(args, chosen)?;
    let cache = Cache::open()?;
    let compiled = cache.compiled(&args.model, chosen, ui)?;
    let runner = Runner::build(&cache, &compiled, ui)?;
    let folder = tempfile::Builder::new()
        .prefix("tvlmc-")
        .tempdir()
        .map_err(Error::io("create a folder in", &env::temp_dir()))?;
    let path = folder.path().join("system");
    let work = ui.work("reading the system prompt", None);
    let mut command = runner.command();
    let ran =
        command.arg(SYSTEM_CACHE).arg(&path).output().map_err(Error::io("run", Path::new("the emitted program")))?;
    ui.check()?;
    if !ran.status.success() {
        let told = String::from_utf8_lossy(&ran.stderr);
        let told = told.trim().trim_start_matches("error: ").to_owned();
        return Err(match ran.status.code() {
            Some(3) => Error::input("--system-prompt".to_string(), "", told),
            Some(4) => Error::Environment(told),
            _ => Error::Bug(format!("the emitted program: {} {told}", ran.status)),
        });
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    work.done("");
    Ok(bytes)
}
