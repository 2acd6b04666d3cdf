//! `tvlmc predict`: how long a model takes on a device that is not at hand.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::args::Predict;
use super::model::{Model, unknown_target};
use super::ui::{Ui, count, size};
use super::{print, tuned};
use crate::error::Error;
use crate::frontend::{self, Checkpoint, OpenOptions};
use crate::machine::Machine;
use crate::pipeline::{self, Prepared, Sides};
use crate::predict::{Device, Kind, PhaseTime, Prediction, Predictor, StepTime};

/// Bytes of a device file that are read. The built-in ones have a tenth of this.
const MOST_BYTES: u64 = 1 << 16;

/// Positions of a prompt besides its picture's when the user does not say, where the context has room for them.
const QUESTION_ROWS: usize = 34;

/// Steps that `--steps` lists of each phase.
const SLOWEST: usize = 10;

pub fn predict(args: &Predict, ui: &Ui) -> Result<u8, Error> {
    let device = device(&args.device)?;
    let triple = args.target.as_deref().unwrap_or(&device.target);
    let machine = Machine::of_triple(triple).ok_or_else(|| unknown_target(triple))?;
    let chosen = args.choices.resolve()?;
    if let Model::Compiled(_) = Model::open(&args.model)? {
        let problem = "was compiled already: name the checkpoint it was made from";
        return Err(Error::input(args.model.display().to_string(), "", problem));
    }
    frontend::check_path(&args.model)?;
    let tuning = tuned::asked(chosen.tuned.as_ref(), &args.model, &chosen.options)?;
    let options = &chosen.options;
    let work = ui.work("reading and planning", None);
    let open = OpenOptions { allow_non_finite: options.allow_non_finite };
    let checkpoint = Checkpoint::open(&args.model, &open)?;
    let (recipe, tuning) = (options.recipe.as_ref(), tuning.as_ref());
    let context = options.context;
    let sides = if args.side.is_some() { Sides::These(args.side.as_slice()) } else { Sides::Own };
    let choices = pipeline::Options { context, recipe, tuning, machine, sides, ..pipeline::Options::default() };
    let prepared = pipeline::prepare(&checkpoint, &choices)?;
    let rows = args.prompt_rows.unwrap_or_else(|| {
        let rows = prepared.description.vision.tokens() + QUESTION_ROWS;
        rows.min(prepared.program.context - 1)
    });
    let mut predictor = Predictor::new(&prepared, &device)?;
    let prediction = match args.threads {
        Some(threads) => predictor.predict(threads, rows)?,
        None => predictor.best(rows)?,
    };
    work.done("");
    let text = if args.json {
        format!("{}\n", json(&device, &prepared, &prediction, args.steps))
    } else {
        table(&device, &prepared, &prediction, args)
    };
    print(&text)?;
    Ok(0)
}

/// The device of a command line: a name, or a file.
fn device(given: &Path) -> Result<Device, Error> {
    let unknown = match given.to_str().map(Device::named) {
        Some(Ok(device)) => return Ok(device),
        Some(Err(error)) => error.to_string(),
        None => "the name is not UTF-8".to_string(),
    };
    // A bare word that names no file is a mistyped name rather than a missing file.
    let path = given.components().count() > 1 || given.extension().is_some_and(|end| end == "ron");
    if !path && !given.exists() {
        return Err(Error::Usage(format!("--device: {unknown}, and there is no file of this name")));
    }
    let file = given.display().to_string();
    let open = File::open(given).map_err(Error::io("read the device", given))?;
    let mut bytes = Vec::new();
    open.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read the device", given))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::input(file, "", format!("more than {MOST_BYTES} bytes: is it a device?")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::input(&file, "", "is not UTF-8: is it a device?"))?;
    Device::parse(&text, &file)
}

/// Milliseconds with three digits that count.
fn ms(ms: f64) -> String {
    match ms {
        100.0.. => format!("{ms:.0} ms"),
        10.0..100.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.2} ms"),
    }
}

/// The slowest steps, slowest first.
fn slowest(phase: &PhaseTime) -> Vec<&StepTime> {
    let mut steps: Vec<&StepTime> = phase.steps.iter().collect();
    steps.sort_by(|a, b| b.ms().total_cmp(&a.ms()));
    steps.truncate(SLOWEST);
    steps
}

/// What a prediction rests on.
const ASSUMPTIONS: &str = "Peaks are the device's; the shares of them are those of x86-64 (docs/prediction.md). Cores hold their clock, \
                           nothing else runs, weights are in memory. Reading the picture, resizing it and choosing tokens are not counted.";

/// A text of a file that anybody may have edited, escaped but for its quotes.
fn shown(text: &str) -> String {
    text.split_inclusive(['\'', '"']).fold(String::new(), |mut out, piece| {
        let quote = piece.ends_with(['\'', '"']);
        let (plain, quote) = piece.split_at(piece.len() - usize::from(quote));
        out.extend(plain.escape_debug());
        out + quote
    })
}

fn cores(prediction: &Prediction) -> String {
    let list: Vec<String> = prediction.cores.iter().map(|(name, n)| format!("{n} {name}")).collect();
    list.join(", ")
}

fn table(device: &Device, prepared: &Prepared, prediction: &Prediction, args: &Predict) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:12} {}", "device", shown(&device.description));
    let threads = prediction.threads();
    let plural = if threads == 1 { "" } else { "s" };
    let _ = writeln!(text, "{:12} {threads} thread{plural}: {}", "cores", shown(&cores(prediction)));
    if args.threads.is_none() {
        let own = "a session that is not told takes one for each fast core of a phone, elsewhere for each core";
        let _ = writeln!(text, "{:12} with so many the first token comes soonest; {own}", "");
    }
    let (recipe, level) = (&prepared.recipe.name, &prediction.level);
    let _ = writeln!(text, "{:12} recipe {recipe}, level {level} of {}", "model", prepared.machine.triple());
    for phase in &prediction.phases {
        let _ = writeln!(text, "\n{:12} {:>9}  {}", phase.name, ms(phase.ms()), phase.what);
        let (macs, bytes) = (count(phase.macs()), size(phase.bytes()));
        let _ = writeln!(
            text,
            "{:12} {:>9}  {}; {macs} multiply-adds, {bytes} from memory",
            "  bound by",
            "",
            phase.bound().name()
        );
        for (kind, part) in Kind::ALL.iter().zip(phase.kinds()) {
            if part > 0.0 {
                let share = 100.0 * part / phase.ms();
                let _ = writeln!(text, "{:12} {:>9}  {share:4.1} % {}", "", ms(part), kind.name());
            }
        }
        for step in slowest(phase).into_iter().filter(|_| args.steps) {
            let _ = writeln!(text, "  {:>9} {:36} {}; {}", ms(step.ms()), step.name, step.shapes, step.bound.name());
        }
    }
    let _ = writeln!(text, "\n{:12} {:>9}  vision and prefill", "first token", ms(prediction.first_token_ms()));
    let _ = writeln!(text, "\n{ASSUMPTIONS}\nSources: {}", shown(&device.sources));
    text
}

/// `steps`: with each step of each phase, which are hundreds.
fn json(device: &Device, prepared: &Prepared, prediction: &Prediction, steps: bool) -> Value {
    let kinds = |kinds: [f64; Kind::ALL.len()]| -> Value {
        Kind::ALL
            .iter()
            .zip(kinds)
            .map(|(kind, ms)| (kind.key().to_string(), json!(ms)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let step = |step: &StepTime| {
        json!({
            "name": step.name,
            "shapes": step.shapes,
            "ms": step.ms(),
            "bound": step.bound.name(),
            "kinds_ms": kinds(step.kinds),
            "macs": step.macs,
            "bytes": step.bytes,
        })
    };
    let phase = |phase: &PhaseTime| {
        let mut told = json!({
            "name": phase.name,
            "what": phase.what,
            "ms": phase.ms(),
            "bound": phase.bound().name(),
            "kinds_ms": kinds(phase.kinds()),
            "macs": phase.macs(),
            "bytes": phase.bytes(),
        });
        if steps {
            told["steps"] = phase.steps.iter().map(step).collect();
        }
        told
    };
    json!({
        "device": {"name": device.name, "description": device.description, "sources": device.sources},
        "target": prepared.machine.triple(),
        "level": prediction.level,
        "threads": prediction.threads(),
        "cores": prediction.cores.iter().map(|(name, n)| json!({"name": name, "cores": n})).collect::<Vec<_>>(),
        "recipe": prepared.recipe,
        "side": prepared.description.vision.side,
        "context": prepared.program.context,
        "phases": prediction.phases.iter().map(phase).collect::<Vec<_>>(),
        "first_token_ms": prediction.first_token_ms(),
        "assumptions": ASSUMPTIONS,
    })
}
