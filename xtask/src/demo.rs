//! The demo model: answers on the screen, and all its answers beside the recorded ones.

use crate::report::Outcome;
use crate::{emitted, shell};

/// Runs `tvlmc demo`.
pub fn run(rest: &[&str]) -> Result<bool, String> {
    emitted::tvlmc(&[&["demo"], rest].concat())
}

/// Asks all questions; `tvlmc demo` compares its answers with the recorded ones, and fails if one differs in floats, or if
/// fewer are right than `recipe` promises.
pub fn answers(recipe: &str) -> Result<Outcome, String> {
    let mut lines = Vec::new();
    let mut demo = shell::cargo(&[&emitted::TVLMC[..], &["demo", "--quant", recipe]].concat());
    // A cache of its own: the user's stays out of it.
    let good = shell::run_lines(demo.env("TVLMC_CACHE", shell::target().join("demo-cache")), |line| {
        if !line.trim().is_empty() {
            lines.push(line.to_string());
        }
    })?;
    let last = lines.last().map_or_else(String::new, |line| line.trim().to_string());
    if good {
        return Ok(Outcome::Good(last));
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(Outcome::Bad(if last.is_empty() { "no answers".to_string() } else { last }))
}
