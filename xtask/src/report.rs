//! What the stages of a run came to, and the one line that says it.

use std::time::Instant;

/// How a stage ended.
pub enum Outcome {
    /// Well; with a figure worth a mention, or nothing.
    Good(String),
    /// Not perfect, and not a reason to fail.
    Note(String),
    /// Badly.
    Bad(String),
    /// Not run, and why.
    Skipped(String),
}

/// The stages so far.
#[derive(Default)]
pub struct Report {
    stages: Vec<(&'static str, Outcome)>,
    /// What tests said they skipped.
    skipped: Vec<String>,
}

impl Report {
    /// Runs a stage; an error of its own is a bad end.
    pub fn stage(&mut self, name: &'static str, run: impl FnOnce() -> Result<Outcome, String>) {
        eprintln!("\n== {name}");
        let begin = Instant::now();
        let outcome = run().unwrap_or_else(Outcome::Bad);
        eprintln!("== {name}: {} ({:.0} s)", words(&outcome), begin.elapsed().as_secs_f64());
        self.stages.push((name, outcome));
    }

    /// A test's own words on what it skipped.
    pub fn skip(&mut self, reason: &str) {
        if !self.skipped.iter().any(|s| s == reason) {
            self.skipped.push(reason.to_string());
        }
    }

    /// Prints the summary line; whether nothing ended badly.
    pub fn summary(&self) -> bool {
        let mut skipped: Vec<String> = Vec::new();
        let mut ran = Vec::new();
        for (name, outcome) in &self.stages {
            match outcome {
                Outcome::Skipped(why) => skipped.push(format!("{name}: {why}")),
                outcome => ran.push(format!("{name} {}", words(outcome))),
            }
        }
        skipped.extend(self.skipped.iter().cloned());
        let skipped = if skipped.is_empty() { "nothing".to_string() } else { skipped.join("; ") };
        println!("\nsummary: {} | skipped: {skipped}", ran.join(" | "));
        !self.stages.iter().any(|(_, outcome)| matches!(outcome, Outcome::Bad(_)))
    }
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Good(figure) if figure.is_empty() => "ok".to_string(),
        Outcome::Good(figure) => format!("ok ({figure})"),
        Outcome::Note(what) => format!("noted ({what})"),
        Outcome::Bad(why) => format!("FAILED ({why})"),
        Outcome::Skipped(why) => format!("skipped ({why})"),
    }
}
