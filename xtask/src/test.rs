//! `cargo xtask test`: the one test command.
//!
//! Everything it needs is Rust; what else would help and is missing is named in the summary line.
//! A stage that fails does not keep the next one from running.

use crate::report::{Outcome, Report};
use crate::{demo, shell, web};

/// Runs the short ladder.
pub fn run() -> Result<bool, String> {
    let mut report = Report::default();
    stages(&mut report);
    Ok(report.summary())
}

/// The stages, cheapest first; the tests last, so that their results close the output.
pub fn stages(report: &mut Report) {
    report.stage("format", format);
    report.stage("lints", || lints(&[]));
    report.stage("demo in f32", || demo::answers("f32"));
    report.stage("demo in int4", || demo::answers("int4"));
    let mut skipped = Vec::new();
    report.stage("web package", || web::tests(&mut skipped));
    report.stage("tests", || cargo_test(&["--workspace", "--no-fail-fast"], &[], &mut skipped));
    for reason in skipped {
        report.skip(&reason);
    }
}

/// Formatting is noted, not enforced: formatter versions differ. `full` enforces it.
fn format() -> Result<Outcome, String> {
    if shell::ask("cargo", &["fmt", "--version"]).is_none() {
        return Ok(Outcome::Skipped("no rustfmt; `cargo xtask setup` adds it".to_string()));
    }
    let mut files = 0;
    let good =
        shell::run_lines(&mut shell::cargo(&["fmt", "--all", "--", "--check", "--files-with-diff"]), |_| files += 1)?;
    Ok(if good { Outcome::Good(String::new()) } else { Outcome::Note(format!("{files} files would change")) })
}

/// Clippy with these extra flags for rustc; warnings are shown, errors fail.
pub fn lints(flags: &[&str]) -> Result<Outcome, String> {
    if shell::ask("cargo", &["clippy", "--version"]).is_none() {
        return Ok(Outcome::Skipped("no clippy; `cargo xtask setup` adds it".to_string()));
    }
    let mut args = vec!["clippy", "--workspace", "--all-targets", "--quiet", "--"];
    args.extend(flags);
    let good = shell::run(&mut shell::cargo(&args))?;
    Ok(if good { Outcome::Good(String::new()) } else { Outcome::Bad("see above".to_string()) })
}

/// `cargo test` with its output passed on, except what tests that passed have printed: of that, lines that say
/// `skipped: ...` are collected.
pub fn cargo_test(args: &[&str], env: &[(&str, &str)], skipped: &mut Vec<String>) -> Result<Outcome, String> {
    let mut all = vec!["test"];
    all.extend(args);
    all.extend(["--", "--show-output"]);
    let mut command = shell::cargo(&all);
    command.envs(env.iter().copied());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let mut quiet = false;
    let good = shell::run_lines(&mut command, |line| {
        let words = line.trim();
        if let Some(counts) = words.strip_prefix("test result:") {
            passed += count(counts, "passed");
            failed += count(counts, "failed");
            ignored += count(counts, "ignored");
        }
        if words == "successes:" {
            quiet = true;
        } else if words == "failures:" || words.starts_with("test result:") {
            quiet = false;
        }
        if let (true, Some(reason)) = (quiet, words.strip_prefix("skipped:")) {
            skipped.push(reason.trim().to_string());
        }
        if !quiet {
            println!("{line}");
        }
    })?;
    let figures = format!("{passed} passed, {failed} failed, {ignored} ignored");
    Ok(if good { Outcome::Good(figures) } else { Outcome::Bad(figures) })
}

/// The number in front of `what` in ` ok. 12 passed; 0 failed; ...`.
fn count(line: &str, what: &str) -> usize {
    let words: Vec<&str> = line.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
    words.windows(2).find(|w| w[1] == what).and_then(|w| w[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_are_found_in_cargos_words() {
        let line = " FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.05s";
        assert_eq!([count(line, "passed"), count(line, "failed"), count(line, "ignored")], [12, 1, 3]);
        assert_eq!(count("", "passed"), 0);
    }
}
