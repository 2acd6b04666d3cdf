//! `cargo xtask bench-peers`: what a user would pick instead, and ours, on the same work in the same minutes.
//!
//! Every side is a process of its own. In each round all sides of a phase run in turn (A B C, A B C, ...), so that a
//! change of the machine's load or clock meets all of them; medians over the rounds are compared. Benches report, they
//! do not assert.

mod measure;
mod models;
mod sides;
mod table;
pub mod web;

use std::path::{Path, PathBuf};

use crate::emitted::{self, Choices};
use crate::{options, shell};
use measure::Figures;
pub use measure::median;
use models::Models;
use sides::{Side, Work};

/// What the command line asks for.
struct Args {
    checkpoint: PathBuf,
    quant: String,
    rounds: usize,
    runs: usize,
    threads: Vec<usize>,
    /// Names of sides; empty: all.
    only: Vec<String>,
    json: PathBuf,
    markdown: PathBuf,
}

/// Runs the comparison.
pub fn run(rest: &[&str]) -> Result<bool, String> {
    let args = parse(rest)?;
    let wanted = |side: &&Side| args.only.is_empty() || args.only.iter().any(|name| name == side.name());
    let sides: Vec<Side> = Side::ALL.iter().filter(wanted).copied().collect();
    let python = environment(sides.iter().any(|side| *side != Side::Ours))?;
    checkpoint(&args.checkpoint)?;

    let folder = shell::cache()?.join("peers");
    let models = Models::make(&models_folder(&args.checkpoint)?, &args.checkpoint, &python, &sides)?;
    let ours = if sides.contains(&Side::Ours) {
        let out = folder.join(format!("emitted-{}", args.quant));
        let choices = Choices { quant: Some(&args.quant), context: Some(CONTEXT) };
        Some(emitted::make(&args.checkpoint, &out, &choices)?)
    } else {
        None
    };
    let work = Work::prepare(ours.as_ref(), models, python, &folder, args.runs)?;

    let mut figures = Figures::default();
    for round in 1..=args.rounds {
        for &threads in &args.threads {
            for phase in [sides::Phase::Vision, sides::Phase::Decoder] {
                for side in sides.iter().filter(|side| side.takes(phase)) {
                    eprintln!("\n== round {round} of {}, {threads} threads: {}", args.rounds, side.name());
                    work.measure(*side, phase, threads, &mut figures)?;
                }
            }
        }
    }
    let report = table::Report { figures: &figures, threads: &args.threads, quant: &args.quant, rounds: args.rounds };
    let markdown = report.markdown();
    println!("\n{markdown}");
    for (path, text) in [(&args.markdown, &markdown), (&args.json, &report.json())] {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(true)
}

/// Positions our sessions have room for: what private memory is compared at.
const CONTEXT: usize = 1024;

/// Installs the peers where they are missing; their Python interpreter.
pub fn environment(needed: bool) -> Result<String, String> {
    let python = shell::cache()?.join("peers-venv/bin/python");
    if needed {
        for script in ["xtask/oracle/setup.sh", "benches/peers/setup.sh"] {
            if !shell::run(&mut shell::command("bash", &[script]))? {
                return Err(format!("{script} failed: the peers are not installed"));
            }
        }
    }
    Ok(emitted::utf8(&python)?.to_string())
}

/// The vision tower in ONNX, f32; made where it is missing.
pub fn exported_vision(checkpoint: &Path, python: &str) -> Result<String, String> {
    Ok(Models::make(&models_folder(checkpoint)?, checkpoint, python, &[Side::OnnxF32])?.onnx)
}

/// Where the peers' forms of a checkpoint are, by its name.
fn models_folder(checkpoint: &Path) -> Result<PathBuf, String> {
    let name = checkpoint.file_name().unwrap_or_default();
    Ok(shell::cache()?.join("peers/models").join(name))
}

/// The checkpoint, or the command that draws one.
pub fn checkpoint(folder: &Path) -> Result<(), String> {
    let config = folder.join("config.json");
    if config.is_file() {
        return Ok(());
    }
    Err(format!(
        "{}: no such file; draw the checkpoint with `bash xtask/oracle/draw.sh 0.5b-hf-bf16-s0` or name one with --checkpoint",
        config.display()
    ))
}

fn parse(rest: &[&str]) -> Result<Args, String> {
    let cache = shell::cache()?;
    let mut args = Args {
        checkpoint: cache.join("oracle/0.5b-hf-bf16-s0"),
        quant: "f32".to_string(),
        rounds: 3,
        runs: 3,
        threads: vec![1, 2],
        only: Vec::new(),
        json: cache.join("peers/report.json"),
        markdown: cache.join("peers/report.md"),
    };
    options::each(rest, |flag, value| {
        match flag {
            "--checkpoint" => args.checkpoint = value.into(),
            "--quant" => args.quant = value.to_string(),
            "--rounds" => args.rounds = options::number(flag, value)?,
            "--runs" => args.runs = options::number(flag, value)?,
            "--threads" => args.threads = options::numbers(flag, value)?,
            "--only" => args.only = value.split(',').map(side).collect::<Result<_, _>>()?,
            "--json" => args.json = value.into(),
            "--markdown" => args.markdown = value.into(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(args)
}

/// A name of a side.
fn side(name: &str) -> Result<String, String> {
    let names: Vec<&str> = Side::ALL.iter().map(Side::name).collect();
    if names.contains(&name) {
        return Ok(name.to_string());
    }
    Err(format!("--only {name}: expected some of {}", names.join(",")))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn options_are_checked() {
        let args = parse(&["--rounds", "5", "--threads", "1,4", "--only", "tvlmc,llama.cpp"]).expect("good options");
        assert_eq!((args.rounds, args.threads, args.only.len()), (5, vec![1, 4], 2));
        for bad in [&["--rounds", "0"][..], &["--threads", "1,"], &["--only", "nobody"], &["--rounds"], &["-x", "1"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
