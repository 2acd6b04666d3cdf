//! `tvlmc demo`: the model that ships with the project answers questions on its pictures.
//!
//! In floats every answer has to be the reference's. Integers change some answers, for better and for
//! worse: what counts there is how many are right.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use models::Recipe;
use models::recipe::{self, Weights};
use runtime_decode::Options;
use serde::Deserialize;

use super::args::{Choices, Demo};
use super::cache::Cache;
use super::runner::{self, RawPictures, Runner};
use super::ui::Ui;
use crate::error::{Error, Quoted};

/// Where the questions are, in the model's folder.
const QUESTIONS: &str = "eval/questions.jsonl";

/// One line of the questions.
#[derive(Deserialize)]
struct Question {
    image: String,
    question: String,
    /// The true one.
    answer: String,
    /// Of the reference implementation, in floats.
    reference_answer: String,
}

/// What we read of the runner's report.
#[derive(Deserialize)]
struct Report {
    text: String,
}

pub fn demo(args: &Demo, ui: &Ui) -> Result<u8, Error> {
    let folder = match &args.model {
        Some(folder) => folder.clone(),
        None => shipped()?,
    };
    let mut questions = questions(&folder.join(QUESTIONS))?;
    questions.truncate(args.questions.map_or(usize::MAX, NonZeroUsize::get));
    let chosen = Choices { storage: args.storage.clone(), ..Choices::default() }.resolve()?;
    let cache = Cache::open()?;
    let compiled = cache.compiled(&folder, &chosen, ui)?;
    let mut pictures = RawPictures::new()?;
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut lines = String::new();
    for question in &questions {
        if !known.contains_key(question.image.as_str()) {
            let path = folder.join("eval").join(&question.image);
            // Raw files are numbered, so that no name can hold a tab.
            let rgb = super::picture::read(&path, Options { alpha: compiled.manifest.alpha, exif: false })?;
            let raw = pictures.add_rgb(&rgb, Path::new("rgb"))?;
            known.insert(&question.image, format!("{}\t{}", raw.path.display(), raw.size));
        }
        let _ = writeln!(lines, "{}\t{}", known[question.image.as_str()], question.question);
    }
    let runner = Runner::build(&cache, &compiled, ui)?;
    let mut command = runner.command();
    command.arg("--questions").arg(pictures.text("questions", lines.as_bytes())?);
    if let Some(threads) = args.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    ui.check()?;
    let program = PathBuf::from(command.get_program());
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(Error::io("run", &program))?;
    let reports = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok);
    let mut tally = Tally::new(&questions);
    let mut printed = Ok(());
    for (question, report) in questions.iter().zip(reports) {
        let report: Report =
            serde_json::from_str(&report).map_err(|e| Error::Bug(format!("the emitted program's report: {e}")))?;
        let equal = tally.count(question, report.text.trim());
        let differs = if equal { String::new() } else { format!("   (reference: {})", question.reference_answer) };
        let line = format!("{}  {}  {}{differs}\n", question.image, question.question, report.text.trim());
        printed = super::print(&line);
        if printed.is_err() {
            break;
        }
    }
    if printed.is_err() {
        // Nobody reads on: the rest need not be asked.
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::io("wait for", &program))?;
    printed?;
    ui.check()?;
    if !status.success() {
        return runner::exit_code(status);
    }
    super::print(&format!("{tally}\n"))?;
    tally.judge(&compiled.manifest.recipe)?;
    Ok(0)
}

/// Answers counted.
struct Tally {
    asked: usize,
    /// Equal to the reference's.
    equal: usize,
    /// True ones.
    right: usize,
    /// True ones of the reference.
    reference_right: usize,
}

impl Tally {
    /// Before the first answer: one that does not come is neither equal nor right.
    fn new(questions: &[Question]) -> Tally {
        let right = |question: &&Question| question.reference_answer.trim() == question.answer.trim();
        Tally { asked: questions.len(), equal: 0, right: 0, reference_right: questions.iter().filter(right).count() }
    }

    /// Counts an answer; whether it is the reference's.
    fn count(&mut self, question: &Question, answer: &str) -> bool {
        let equal = answer == question.reference_answer.trim();
        self.equal += usize::from(equal);
        self.right += usize::from(answer == question.answer.trim());
        equal
    }

    /// # Errors
    /// Floats: an answer differs. Integers: more right answers are lost than [`allowed_loss`] says.
    fn judge(&self, recipe: &Recipe) -> Result<(), Error> {
        let Tally { asked, equal, right, reference_right } = *self;
        let Some(points) = allowed_loss(recipe) else {
            return match asked - equal {
                0 => Ok(()),
                differ => Err(Error::Check(format!("{differ} of {asked} answers differ from the reference"))),
            };
        };
        // Of few questions one answer is more than the points: it is no proof.
        let most = (points * asked as f64 / 100.0).max(1.0);
        let lost = reference_right.saturating_sub(right);
        if lost as f64 <= most {
            return Ok(());
        }
        Err(Error::Check(format!(
            "{right} of {asked} answers are right, {lost} fewer than the reference's: recipe {} may lose {points} points",
            recipe.name
        )))
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Tally { asked, equal, right, reference_right } = *self;
        let percent = |n: usize| 100.0 * n as f64 / asked.max(1) as f64;
        let (ours, theirs) = (percent(right), percent(reference_right));
        write!(f, "{right} right ({ours:.1} %), of the reference {reference_right} ({theirs:.1} %); ")?;
        write!(f, "{equal} of {asked} answers equal to the reference")
    }
}

/// Points of accuracy that a recipe may lose; none for floats, which have to give the same answers.
fn allowed_loss(recipe: &Recipe) -> Option<f64> {
    let has = |weights| recipe.regions().iter().any(|(_, linears)| linears.weights == weights);
    let bytes = has(Weights::Int8) || has(Weights::Int8Split) || recipe.cache != recipe::Cache::F32;
    match (has(Weights::Int4), bytes) {
        (true, _) => Some(2.0),
        (false, true) => Some(0.5),
        (false, false) => None,
    }
}

/// `models/demo`, beside the program or in its source tree.
fn shipped() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().ok();
    let beside =
        program.iter().flat_map(|program| program.ancestors().skip(1)).map(|folder| folder.join("models/demo"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("models/demo"));
    source.into_iter().chain(beside).find(|folder| folder.join(QUESTIONS).is_file()).ok_or_else(|| {
        Error::Environment(
            "the demo model (models/demo) is neither in the source tree nor beside the program: --model names it"
                .into(),
        )
    })
}

fn questions(path: &Path) -> Result<Vec<Question>, Error> {
    let text = fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let problem = "no such file: the demo asks the questions beside a checkpoint; tvlmc run asks one of yours";
            Error::input(path.display().to_string(), "", problem)
        }
        _ => Error::io("read", path)(e),
    })?;
    let mut questions = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: String| Error::input(format!("{}:{}", path.display(), number + 1), "", problem);
        let question: Question = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if question.question.contains(['\t', '\n']) || question.question.is_empty() {
            return Err(wrong("a question is one line without tabs".into()));
        }
        if !Path::new(&question.image).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(wrong(format!("image {} leaves the folder", Quoted(&question.image))));
        }
        questions.push(question);
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether so many right answers of so many pass, when the reference has `reference` right.
    fn passes(recipe: &str, asked: usize, reference: usize, right: usize) -> bool {
        let tally = Tally { asked, equal: right, right, reference_right: reference };
        tally.judge(&Recipe::named(recipe).expect("built in")).is_ok()
    }

    #[test]
    fn recipes_may_lose_what_they_promise() {
        assert!(passes("int8", 300, 195, 194) && !passes("int8", 300, 195, 193));
        assert!(passes("int4", 300, 195, 189) && !passes("int4", 300, 195, 188));
        assert!(passes("int4", 300, 195, 300));
        assert!(passes("int8", 3, 3, 2) && !passes("int8", 3, 3, 1));
        // The tally has as many equal as right ones: floats need all.
        assert!(passes("f32", 3, 3, 3) && !passes("f32", 3, 2, 2));
    }
}
