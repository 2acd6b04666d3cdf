//! `tvlmc demo`: the model that ships with the project answers questions on its pictures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

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
    let choices = Choices { quant: args.quant.clone(), context: None, allow_non_finite: false };
    let cache = Cache::open()?;
    let compiled = cache.compiled(&folder, &choices, ui)?;
    let mut pictures = RawPictures::new()?;
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut lines = String::new();
    for question in &questions {
        if !known.contains_key(question.image.as_str()) {
            let path = folder.join("eval").join(&question.image);
            // Raw files are numbered, so that no name can hold a tab.
            let rgb = super::picture::read(&path, compiled.manifest.alpha, false)?;
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
    let (mut n_asked, mut n_equal) = (0, 0);
    let mut printed = Ok(());
    for (question, report) in questions.iter().zip(reports) {
        let report: Report =
            serde_json::from_str(&report).map_err(|e| Error::Bug(format!("the emitted program's report: {e}")))?;
        n_asked += 1;
        let equal = report.text.trim() == question.reference_answer.trim();
        n_equal += usize::from(equal);
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
    super::print(&format!("{n_equal} of {} answers equal to the reference\n", questions.len()))?;
    if n_equal == questions.len() {
        return Ok(0);
    }
    Err(Error::Check(format!("{} of {n_asked} answers differ from the reference", n_asked - n_equal)))
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
