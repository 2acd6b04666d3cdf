//! `cargo xtask bench`: the emitted vision tower and ONNX Runtime on the same model, in turn.
//!
//! The two run alternately (A B A B), so that a change of the machine's load or clock meets both. The
//! best time of each side is compared; all rounds are in the JSON. Benches report, they do not assert.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::emitted::{self, Choices, Emitted};
use crate::{json, options, peers, shell};

/// What the command line asks for.
struct Args {
    checkpoint: PathBuf,
    rounds: usize,
    runs: usize,
    threads: Vec<usize>,
    json: PathBuf,
}

/// One round of one side: milliseconds of the vision tower.
#[derive(Clone, Copy)]
struct Time {
    best: f64,
    median: f64,
}

/// Runs the comparison.
pub fn run(rest: &[&str]) -> Result<bool, String> {
    let cache = shell::cache()?;
    let args = parse(rest)?;
    peers::checkpoint(&args.checkpoint)?;
    let python = peers::environment(true)?;
    let onnx = peers::exported_vision(&args.checkpoint, &python)?;
    let choices = Choices { quant: Some("f32"), context: None };
    let ours = emitted::make(&args.checkpoint, &cache.join("bench/emitted-0.5b"), &choices)?;

    let mut table =
        String::from("| threads | ours, ms | ONNX Runtime, ms | ratio | ratio of medians |\n|---|---|---|---|---|\n");
    let mut rows = Vec::new();
    for &threads in &args.threads {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        let mut decode = Vec::new();
        for _ in 0..args.rounds {
            let report = time_ours(&ours, args.runs, threads)?;
            us.push(time_in(&report, "vision_ms")?);
            decode.push(report);
            them.push(time_peer(&python, &onnx, args.runs, threads)?);
        }
        let best = |times: &[Time]| times.iter().map(|t| t.best).fold(f64::INFINITY, f64::min);
        let (a, b) = (best(&us), best(&them));
        let (ma, mb) = (median(&us), median(&them));
        let _ = writeln!(table, "| {threads} | {a:.0} | {b:.0} | {:.2} | {:.2} |", b / a, mb / ma);
        rows.push(row(threads, &us, &them, &decode));
    }
    println!(
        "\n{table}\nA ratio above 1: ours is faster. Best of {} rounds of {} runs, in turn.",
        args.rounds, args.runs
    );
    let text = format!("[\n{}\n]\n", rows.join(",\n"));
    std::fs::write(&args.json, text).map_err(|e| format!("{}: {e}", args.json.display()))?;
    println!("all rounds: {}", args.json.display());
    Ok(true)
}

fn parse(rest: &[&str]) -> Result<Args, String> {
    let cache = shell::cache()?;
    let mut args = Args {
        checkpoint: cache.join("oracle/0.5b-hf-bf16-s0"),
        rounds: 3,
        runs: 2,
        threads: vec![1, 2],
        json: cache.join("bench/vision.json"),
    };
    options::each(rest, |flag, value| {
        match flag {
            "--checkpoint" => args.checkpoint = value.into(),
            "--rounds" => args.rounds = options::number(flag, value)?,
            "--runs" => args.runs = options::number(flag, value)?,
            "--threads" => args.threads = options::numbers(flag, value)?,
            "--json" => args.json = value.into(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(args)
}

fn time_ours(ours: &Emitted, runs: usize, threads: usize) -> Result<String, String> {
    let (weights, runs, threads) = (ours.weights(), runs.to_string(), threads.to_string());
    let args = ["--weights", emitted::utf8(&weights)?, "--bench", &runs, "--threads", &threads];
    shell::output(&mut shell::command(&ours.runner, &args))
}

fn time_peer(python: &str, onnx: &str, runs: usize, threads: usize) -> Result<Time, String> {
    let (runs, threads) = (runs.to_string(), threads.to_string());
    let script = ["benches/peers/bench_vision.py", "onnxruntime", onnx, "--threads", &threads, "--runs", &runs];
    let report = shell::output(&mut shell::command(python, &script))?;
    let times = json::numbers(&report, "ms")?;
    let median = peers::median(&times).ok_or_else(|| format!("no times in {report}"))?;
    Ok(Time { best: times.iter().copied().fold(f64::INFINITY, f64::min), median })
}

/// The times of one phase in a runner's report.
fn time_in(report: &str, phase: &str) -> Result<Time, String> {
    let at =
        report.find(&format!("\"{phase}\"")).ok_or_else(|| format!("no {phase} in the runner's report: {report}"))?;
    Ok(Time { best: json::number(&report[at..], "min")?, median: json::number(&report[at..], "median")? })
}

fn median(times: &[Time]) -> f64 {
    let mut all: Vec<f64> = times.iter().map(|t| t.median).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn row(threads: usize, us: &[Time], them: &[Time], reports: &[String]) -> String {
    let list = |times: &[Time]| times.iter().map(|t| format!("{:.1}", t.best)).collect::<Vec<_>>().join(", ");
    let reports: Vec<&str> = reports.iter().map(|r| r.trim()).collect();
    format!(
        "  {{\"threads\": {threads}, \"ours_ms\": [{}], \"onnxruntime_ms\": [{}], \"ours\": [{}]}}",
        list(us),
        list(them),
        reports.join(", ")
    )
}
