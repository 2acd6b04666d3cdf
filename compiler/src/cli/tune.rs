//! `tvlmc tune`: measures schedules on this machine and keeps the winners.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kernels::Target;
use kernels::library::Schedule;

use super::args::Tune;
use super::cache::Cache;
use super::model::{Model, check_target};
use super::tuned::{digest, place};
use super::ui::Ui;
use super::{print, runner};
use crate::error::{Error, Quoted};
use crate::frontend::{Checkpoint, OpenOptions};
use crate::pipeline::{self, Prepared, prepare};
use crate::tune::choose::{Finding, Times, choose, compare};
use crate::tune::{ANSWER, Levels, Plan, Tuning, TuningFile, host};

pub fn tune(args: &Tune, ui: &Ui) -> Result<u8, Error> {
    check_target(&args.target)?;
    if let Model::Compiled(_) = Model::open(&args.model)? {
        let problem = "was compiled already: name the checkpoint it was made from";
        return Err(Error::input(args.model.display().to_string(), "", problem));
    }
    let chosen = args.choices.resolve()?;
    let options = &chosen.options;
    let cache = Cache::open()?;
    let checkpoint = Checkpoint::open(&args.model, &OpenOptions { allow_non_finite: options.allow_non_finite })?;
    let told =
        pipeline::Options { context: options.context, recipe: options.recipe.as_ref(), ..pipeline::Options::default() };
    let mut prepared = prepare(&checkpoint, &told)?;
    let level = level(&prepared, args.level.as_deref())?;
    // A target of its own, since the model is lowered again and again.
    let target = prepared.targets.swap_remove(level);

    let plan = Plan::candidates(&mut prepared, target.as_ref())?;
    let what = format!("{} variants of {} kernels", plan.variants(), plan.calls.len());
    let times = measure(&plan, target.as_ref(), &cache, &what, ui)?;
    let (findings, mut schedule) = choose(&plan, &times);
    let mut report = head(target.as_ref());
    findings.iter().for_each(|finding| write_finding(&mut report, finding));
    let base = Schedule::new(target.as_ref());
    let mut last = "the model's numbers stay: nothing measured is better by more than the noise".to_string();
    if schedule != base {
        let plan = Plan::against(&mut prepared, target.as_ref(), schedule)?;
        let times = measure(&plan, target.as_ref(), &cache, "all winners together", ui)?;
        let (model, tuned, noise) = compare(&plan, &times);
        let gain = 1.0 - tuned / model;
        let (model, tuned, noise, gain) = (1e3 * model, 1e3 * tuned, 1e2 * noise, 1e2 * gain);
        last = format!(
            "together {tuned:.2} ms, {model:.2} ms with the model's numbers: {gain:.1} % less (noise {noise:.1} %)"
        );
        if gain <= noise {
            schedule = base;
            last += ", so the model's numbers stay";
        }
    }
    report.push(last);
    let levels = vec![Levels { level: target.level().to_string(), schedule }];
    let tuning = Tuning { processor: host::processor(), levels };
    let digest = digest(&args.model, options)?;
    let file = TuningFile::new(digest.clone(), tuning, report.clone());
    let cached = place(&cache, &digest);
    for path in [Some(&cached), args.output.as_ref()].into_iter().flatten() {
        write(path, &file.text())?;
        report.push(format!("written to {}", path.display()));
    }
    print(&report.iter().fold(String::new(), |text, line| text + line + "\n"))?;
    Ok(0)
}

/// The level to measure at: the one that was asked for, or this processor's best.
fn level(prepared: &Prepared, asked: Option<&str>) -> Result<usize, Error> {
    let name = |target: &dyn Target| format!("x86-64-{}", target.level().replace('_', "-"));
    let all: Vec<(String, bool)> = prepared.targets.iter().map(|t| (name(t.as_ref()), host::has(t.as_ref()))).collect();
    let found = match asked {
        None => all.iter().position(|(_, there)| *there),
        Some(asked) => {
            let at = all.iter().position(|(name, _)| name == asked).ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                Error::Usage(format!("--level {}: there are {}", Quoted(asked), names.join(", ")))
            })?;
            all[at].1.then_some(at)
        }
    };
    let lacks = || {
        Error::Environment(format!("{} does not have {}", host::processor(), asked.unwrap_or(&all[all.len() - 1].0)))
    };
    found.ok_or_else(lacks)
}

/// Builds and runs the program of a plan.
fn measure(plan: &Plan, target: &dyn Target, cache: &Cache, what: &str, ui: &Ui) -> Result<Times, Error> {
    let scratch = cache.scratch()?;
    for (name, text) in plan.files(target) {
        let path = scratch.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    let work = ui.work("building what is measured", None);
    let (binary, _) = runner::cargo(scratch.path(), &scratch.path().join("target"), ui)?;
    work.done(what);
    let work = ui.work("measuring", None);
    let text = run(&binary, plan.calls.len(), &work, ui)?;
    work.done(what);
    Times::parse(plan, &text).map_err(|e| Error::Bug(format!("the measuring program: {e}")))
}

/// Runs the program and returns what it writes.
fn run(binary: &Path, calls: usize, work: &super::ui::Work<'_>, ui: &Ui) -> Result<String, Error> {
    let mut child =
        Command::new(binary).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Error::io("run", binary))?;
    let mut text = String::new();
    let mut done = 0;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
        if line.starts_with("again ") {
            done += 1;
            work.step(done, calls);
        }
        if ui.is_interrupted() {
            // It may have ended by itself: Ctrl-C goes to all of us.
            let _ = child.kill();
        }
        text += &line;
        text.push('\n');
    }
    let status = child.wait().map_err(Error::io("wait for", binary))?;
    ui.check()?;
    if status.success() { Ok(text) } else { Err(Error::Bug(format!("the measuring program: {status}"))) }
}

fn head(target: &dyn Target) -> Vec<String> {
    vec![
        format!("{}, level {}", host::processor(), target.level()),
        format!(
            "least time of one thread for a picture, a question and {ANSWER} tokens, in the kernels a number changes"
        ),
    ]
}

fn write_finding(report: &mut Vec<String>, finding: &Finding) {
    report.push(format!("{} (noise {:.1} %)", finding.choice.name(), 1e2 * finding.noise));
    let model = finding.tried[0].1;
    for (i, (schedule, seconds)) in finding.tried.iter().enumerate() {
        let mut line = format!("  {:28} {:10.2} ms", finding.choice.value(schedule), 1e3 * seconds);
        if i > 0 {
            let _ = write!(line, " {:+6.1} %", 1e2 * (seconds / model - 1.0));
        } else {
            line += "  model";
        }
        if i == finding.taken {
            line += if i > 0 { "  wins" } else { ", stays" };
        }
        report.push(line);
    }
}

/// Writes a file under another name first, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("create a file in", folder))?;
    std::fs::write(file.path(), text).map_err(Error::io("write", path))?;
    file.persist(path).map_err(|e| e.error).map_err(Error::io("write", path))?;
    Ok(())
}
