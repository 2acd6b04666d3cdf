//! `tvlmc verify`: the emitted code against the graph evaluator.

use std::path::Path;

use runtime_decode::Picture;
use serde::Serialize;

use super::args::Verify;
use super::cache::Cache;
use super::compile;
use super::model::{Compiled, Model};
use super::run::prompt;
use super::runner::{self, RawPictures, Runner};
use super::ui::Ui;
use crate::assemble::{Assembled, Options, hex};
use crate::error::Error;
use crate::evaluate::{self, Comparison, Op};

/// `--json`.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    ops: &'a [Op],
    tokens: &'a [u32],
    expected_tokens: &'a [u32],
}

pub fn verify(args: &Verify, ui: &Ui) -> Result<u8, Error> {
    let prompt = prompt(&args.prompt)?;
    let model = Model::open(&args.model)?;
    let chosen = args.choices.resolve()?.at_sides(args.side.as_slice(), &model)?;
    let cache = Cache::open()?;
    let (compiled, assembled) = match model {
        Model::Compiled(compiled) => {
            chosen.refuse_for_compiled()?;
            runner::check_target(&compiled)?;
            let Some(checkpoint) = &args.checkpoint else {
                return Err(Error::Usage(format!(
                    "{} is compiled, and holds no graph to compare with: name its checkpoint with --checkpoint",
                    args.model.display()
                )));
            };
            let assembled = same_model(&compiled, checkpoint, &chosen.options, ui)?;
            (*compiled, assembled)
        }
        Model::Checkpoint(path) => {
            if args.checkpoint.is_some() {
                return Err(Error::Usage("--checkpoint goes with a folder that was compiled".into()));
            }
            match cache.compiled_and_read(&path, &chosen, ui)? {
                (compiled, Some(assembled)) => (compiled, assembled),
                (compiled, None) => (compiled, compile::read(&path, &chosen.options, ui)?),
            }
        }
    };
    let mut pictures = RawPictures::new()?;
    match &args.image {
        Some(path) => {
            let options = runtime_decode::Options { alpha: compiled.manifest.alpha, exif: false };
            pictures.add(path, options)?
        }
        None => pictures
            .add_rgb(&drawn(args.side.unwrap_or(compiled.manifest.image_side) as u32), Path::new("drawn picture"))?,
    };
    let runner = Runner::build(&cache, &compiled, ui)?;
    let dump = pictures.folder().join("dump");
    let mut command = runner.command();
    pictures.give(&mut command);
    command.arg("--prompt-file").arg(pictures.text("prompt", prompt.as_bytes())?);
    command.arg("--dump").arg(&dump);
    if let Some(side) = args.side {
        command.arg("--side").arg(side.to_string());
    }
    if let Some(threads) = args.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    if let Some(level) = &args.level {
        command.arg("--level").arg(level);
    }
    let work = ui.work("running the emitted code", None);
    let code = runner::exit_code(runner::run(command, ui)?)?;
    if code != 0 {
        return Ok(code);
    }
    work.done("");
    let work = ui.work("evaluating the graph", None);
    let compared = evaluate::compare(&assembled.prepared, &assembled.checkpoint, &dump, &mut |_| {})?;
    ui.check()?;
    work.done("");
    report(&compared, args.json)
}

/// Reads the checkpoint that a folder was compiled from, and makes sure that it is the one.
fn same_model(compiled: &Compiled, checkpoint: &Path, options: &Options<'_>, ui: &Ui) -> Result<Assembled, Error> {
    let manifest = &compiled.manifest;
    let (name, context) = (Some(&manifest.name[..]), Some(manifest.max_context));
    let sides = Some(manifest.sides.iter().map(|known| known.side).collect());
    let (recipe, tuning) = (Some(manifest.recipe.clone()), manifest.tuning.clone());
    let system = manifest.system_prompt.clone();
    // That the cache is there counts, not what it holds.
    let baked = system.is_some().then(Vec::new);
    let options = Options { name, context, recipe, tuning, system, baked, sides, ..options.clone() };
    let assembled = compile::read(checkpoint, &options, ui)?;
    let found = hex(&assembled.digest);
    if found != manifest.pairing_sha256 {
        let folder = compiled.folder.display();
        let problem = format!(
            "{folder} was compiled from another checkpoint or by another version of tvlmc ({}): digest {found}, expected {}",
            manifest.tool, manifest.pairing_sha256
        );
        return Err(Error::input(checkpoint.display().to_string(), "", problem));
    }
    Ok(assembled)
}

/// Gradients, edges and noise; half as high as wide, so that resizing and padding happen as well.
fn drawn(side: u32) -> Picture {
    let (width, height) = (2 * side + 1, side + 1);
    let mut seed = 1_u32;
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                // Marsaglia's xorshift.
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                let slope = (x * 255 / width + y * 255 / height * c) % 256;
                let edge = if (x / 37 + y / 23 + c) % 3 == 0 { 90 } else { 0 };
                pixels.push(((slope + edge + seed % 32) % 256) as u8);
            }
        }
    }
    Picture { width: width as usize, height: height as usize, pixels }
}

fn report(compared: &Comparison, json: bool) -> Result<u8, Error> {
    if json {
        let report = Report {
            ok: compared.ok(),
            ops: &compared.ops,
            tokens: &compared.tokens,
            expected_tokens: &compared.expected,
        };
        let text = serde_json::to_string(&report).map_err(|e| Error::Bug(e.to_string()))?;
        super::print(&format!("{text}\n"))?;
    } else {
        let width = compared.ops.iter().map(|op| op.name.len()).max().unwrap_or(0);
        let mut text = format!("{:8} {:width$} {:>10} {:>10}\n", "phase", "step", "max abs", "SNR");
        for op in &compared.ops {
            let mark = if op.ok() { String::new() } else { format!("  <- below {} dB", op.limit_db) };
            text += &format!("{:8} {:width$} {:10.2e} {:7.1} dB{mark}\n", op.phase, op.name, op.max_abs, op.snr_db);
        }
        let least = |of: fn(&Op) -> f64| compared.ops.iter().map(of).fold(f64::INFINITY, f64::min);
        let (worst, limit) = (least(|op| op.snr_db), least(|op| op.limit_db));
        let n_ops = compared.ops.len();
        let tokens = if compared.tokens == compared.expected { "equal" } else { "different" };
        text += &format!("{n_ops} ops, worst {worst:.1} dB of at least {limit} dB, tokens {tokens}\n");
        super::print(&text)?;
    }
    if compared.ok() {
        return Ok(0);
    }
    Err(Error::Check(match compared.first_difference() {
        Some(op) => format!(
            "they part first at {} ({}): {:.1} dB, at least {} is expected; largest difference {:.2e}",
            op.name, op.phase, op.snr_db, op.limit_db, op.max_abs
        ),
        None => format!("tokens {:?}, the evaluator's are {:?}", compared.tokens, compared.expected),
    }))
}
