//! Quantized packages, built beside a probe that tells what every step makes, and the same told by the interpreter.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../machine/mod.rs"]
pub mod machine;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../cross/mod.rs"]
pub mod cross;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use kernels::library::Schedule;
use machine::emulator;
use models::Recipe;
use tvlmc::assemble::{Assembled, Options, assemble};
use tvlmc::lower::Phase;
use tvlmc::memory;
use tvlmc::output::Staging;
use tvlmc::package::WEIGHTS_NAME;
use tvlmc::pipeline::Prepared;
use tvlmc::simulate::Simulation;
use tvlmc::tune::Tuning;

/// The program that is built around each package.
const PROBE: &str = include_str!("probe.rs");

/// What each probe has beside it.
const WATCH: &str = include_str!("watch.rs");

/// What is asked about which picture.
pub struct Question {
    pub prompt: &'static str,
    /// Width and height of a picture of noise.
    pub picture: (usize, usize),
    pub tokens: usize,
}

/// A package, and the probe that links it.
pub struct Built {
    pub assembled: Assembled,
    pub folder: tempfile::TempDir,
}

/// One run of the probe.
pub struct Run {
    pub level: String,
    pub threads: usize,
    /// `PHASE START STEP HASH` for each step.
    pub steps: String,
    pub prompt: Vec<i64>,
    pub tokens: Vec<u32>,
}

/// Compiles a checkpoint, writes the package and builds the probe.
pub fn build(checkpoint: &Path, recipe: &str) -> Built {
    build_tuned(checkpoint, recipe, None)
}

/// As [`build`], with the schedules of a tuning.
pub fn build_tuned(checkpoint: &Path, recipe: &str, tuning: Option<Tuning>) -> Built {
    let recipe = Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}"));
    let options = Options { recipe: Some(recipe), tuning, ..Options::default() };
    build_with(checkpoint, options)
}

/// As [`build`], for the machine that the options name: this one, or that of [`cross`].
pub fn build_with(checkpoint: &Path, options: Options<'_>) -> Built {
    let triple = options.machine.triple();
    let built = write(checkpoint, options, ("main.rs", PROBE), "");
    let folder = built.folder.path();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--offline", "--quiet", "--target", triple])
        .current_dir(folder.join("probe"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", "-Dwarnings");
    if triple == cross::TRIPLE {
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", cross::LINKER);
    }
    let out = cargo.output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    built
}

/// Compiles a checkpoint to the package `model`, and writes a crate beside it: its source, and what its manifest has more.
pub fn write(checkpoint: &Path, options: Options<'_>, (name, source): (&str, &str), more: &str) -> Built {
    let options = Options { name: Some("model"), ..options };
    let assembled = assemble(checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().expect("a folder");
    let staging = Staging::begin(&folder.path().join("model"), false).unwrap_or_else(|e| panic!("{e}"));
    assembled.write(&staging, &|_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
    staging.commit().unwrap_or_else(|e| panic!("{e}"));
    let probe = folder.path().join("probe");
    std::fs::create_dir_all(probe.join("src")).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         {more}[dependencies]\nmodel = {{ path = \"../model\" }}\n"
    );
    for (path, text) in [("Cargo.toml", manifest.as_str()), ("src/watch.rs", WATCH), (&format!("src/{name}"), source)] {
        std::fs::write(probe.join(path), text).expect("written");
    }
    Built { assembled, folder }
}

impl Built {
    /// Runs the probe with these last arguments.
    pub fn probe(&self, question: &Question, last: &[String]) -> String {
        self.probe_by(Command::new(self.runner()), question, last)
    }

    /// As [`Built::probe`] with a word or none before pairs of level and threads: those of this processor, then those of
    /// the emulated one.
    pub fn probe_all(&self, question: &Question, word: Option<&str>, pairs: &[String]) -> String {
        let word = word.map(str::to_string);
        let (here, emulated): (Vec<String>, Vec<String>) = pairs
            .iter()
            .cloned()
            .partition(|pair| pair.split_once(':').is_some_and(|(level, _)| native_levels().contains(&level)));
        let with_word = |pairs: Vec<String>| word.iter().cloned().chain(pairs).collect::<Vec<String>>();
        let mut told = self.probe(question, &with_word(here));
        if !emulated.is_empty() {
            let mut command = Command::new(emulator().expect("levels are of the emulator"));
            command.arg(self.runner());
            told += &self.probe_by(command, question, &with_word(emulated));
        }
        told
    }

    fn runner(&self) -> PathBuf {
        let triple = self.assembled.prepared.machine.triple();
        self.folder.path().join("target").join(triple).join("release/probe")
    }

    /// As [`Built::probe`] for a package for aarch64, on an emulated processor.
    #[allow(dead_code, reason = "of the tests of aarch64 alone")]
    pub fn probe_on(&self, processor: &str, question: &Question, last: &[String]) -> String {
        let mut command = cross::emulated(processor);
        command.arg(self.runner());
        self.probe_by(command, question, last)
    }

    fn probe_by(&self, mut command: Command, question: &Question, last: &[String]) -> String {
        let (w, h) = question.picture;
        let noise: Vec<u8> = (0..w * h * 3).map(|i| ((i * 7919 + i / 97 * 31) % 251) as u8).collect();
        let picture = self.folder.path().join("picture.rgb");
        std::fs::write(&picture, noise).expect("written");
        let ran = command
            .arg(self.folder.path().join("model").join(WEIGHTS_NAME))
            .arg(format!("{w}x{h}:{}", picture.display()))
            .args([question.prompt, &question.tokens.to_string()])
            .args(last)
            .current_dir(self.folder.path())
            .output()
            .expect("the probe runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{}\n{stderr}", stdout.lines().last().unwrap_or_default());
        stdout.into_owned()
    }

    /// Every level this processor has, and the emulated ones, with each number of threads.
    pub fn runs(&self, question: &Question, threads: &[usize]) -> Vec<Run> {
        let pairs = levels().into_iter().flat_map(|level| threads.iter().map(move |n| format!("{level}:{n}")));
        let told = self.probe_all(question, None, &pairs.collect::<Vec<String>>());
        told.split("run ").skip(1).map(Run::parse).collect()
    }

    /// The lines of the same run by the interpreter at one level. The picture is the one the probe has prepared.
    pub fn interpreted(&self, prepared: &Prepared, level: usize, like: &Run) -> String {
        let pixels = std::fs::read(self.folder.path().join("pixels.u8")).expect("the probe has run");
        let packed = self.assembled.prepared.packed(&self.assembled.checkpoint).expect("weights");
        let program = &prepared.program;
        let mut sim = Simulation::new(program, &prepared.memory, level, prepared.targets[level].as_ref(), &packed);
        let (side, hidden) = (prepared.description.vision.side, prepared.description.text.hidden);
        let pitch = kernels::library::pitch(hidden);
        sim.picture(side, &pixels.into_iter().map(f32::from).collect::<Vec<f32>>());
        let mut lines = String::new();
        run(&mut sim, ("vision", &program.vision), (0, 0), &mut lines);
        let n = sim.prompt(&like.prompt, &prepared.description).expect("rows");
        assert!(n <= program.chunk, "{n} positions take more than one call");
        run(&mut sim, ("prefill", &program.prefill), (0, n), &mut lines);
        // The last token needs no step.
        let decoded = &like.tokens[..like.tokens.len() - 1];
        let mut logits = Vec::new();
        let vocab = prepared.description.text.vocab;
        for (i, token) in decoded.iter().enumerate() {
            sim.embed(*token, 0, pitch).expect("a row");
            run(&mut sim, ("decode", &program.decode), (n + i, 1), &mut lines);
            // The probe asks for all logits in the end; here they are compared below.
            let mut unseen = String::new();
            let seen = if i + 1 == decoded.len() { &mut lines } else { &mut unseen };
            run(&mut sim, ("decode", &program.logits), (n + i, 1), seen);
            logits.push(sim.get(program.io.logits, 0, vocab));
        }
        if program.verify.steps.is_empty() {
            return lines;
        }
        // The same tokens together have the logits that each has alone.
        let rows = &decoded[..decoded.len().min(program.verify_rows)];
        assert!(rows.len() > 1, "nothing to verify");
        for (row, token) in rows.iter().enumerate() {
            sim.embed(*token, row, pitch).expect("a row");
        }
        for phase in [&program.verify, &program.logits] {
            sim.run(phase, (n, rows.len()), 3, |_, _| {}).unwrap_or_else(|e| panic!("verify: {e}"));
        }
        for (row, alone) in logits.iter().take(rows.len()).enumerate() {
            let together = sim.get(program.io.logits, row * kernels::library::pitch(vocab), vocab);
            let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&together), bits(alone), "level {level}: logits of row {row}, verified");
            assert_eq!(
                sim.get(program.io.token, row, 1)[0].to_bits(),
                like.tokens[row + 1],
                "level {level}, row {row}"
            );
        }
        lines
    }
}

impl Run {
    pub fn parse(text: &str) -> Run {
        let mut run = Run { level: String::new(), threads: 0, steps: String::new(), prompt: vec![], tokens: vec![] };
        for (i, line) in text.lines().enumerate() {
            let (word, rest) = line.split_once(' ').expect("words");
            let ids = || rest.split(' ').map(|id| id.parse::<i64>().expect("an id"));
            match word {
                level if i == 0 => (run.level, run.threads) = (level.to_string(), rest.parse().expect("a number")),
                "prompt" => run.prompt = ids().collect(),
                "tokens" => run.tokens = ids().map(|id| id as u32).collect(),
                _ => writeln!(run.steps, "{line}").expect("a text"),
            }
        }
        run
    }

    /// Panics at the first step whose bits are not those of `other`, and if either has fewer steps.
    pub fn assert_same(&self, other: &str, of: &str) {
        let who = format!("{} with {} threads", self.level, self.threads);
        for (mine, theirs) in self.steps.lines().zip(other.lines()) {
            assert_eq!(mine, theirs, "{who} against {of}: the first step with other bits");
        }
        assert_eq!(self.steps.lines().count(), other.lines().count(), "{who} against {of}: steps");
    }
}

/// Runs a phase and writes a line for each step, as the probe does.
fn run(sim: &mut Simulation<'_>, (name, phase): (&str, &Phase), at: (usize, usize), lines: &mut String) {
    sim.run(phase, at, 1, |step, sim| {
        let bits = sim.result(&step.result, at.1).into_iter().map(f32::to_bits);
        let hash = bits.fold(0xcbf2_9ce4_8422_2325u64, |h, x| (h ^ u64::from(x)).wrapping_mul(0x0100_0000_01b3));
        writeln!(lines, "{name} {} {} {hash:016x}", at.0, step.name).expect("a text");
    })
    .unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// The levels of quantized packages, best first, and whether this processor has them.
fn all_levels() -> [(&'static str, bool); 3] {
    [
        ("x86-64-v4-vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("x86-64-v3-vnni", std::is_x86_feature_detected!("avxvnni")),
        ("x86-64-v3", true),
    ]
}

/// The levels of this processor, best first.
fn native_levels() -> Vec<&'static str> {
    all_levels().into_iter().filter(|(_, there)| *there).map(|(level, _)| level).collect()
}

/// The levels that can be run: this processor's, best first, then the emulated ones. Those that neither has are told.
pub fn levels() -> Vec<&'static str> {
    let lacking = all_levels().into_iter().filter(|(_, there)| !there).map(|(level, _)| level);
    if emulator().is_some() {
        return native_levels().into_iter().chain(lacking).collect();
    }
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        lacking.for_each(|level| println!("skipped: level {level}, which this processor lacks (TVLMC_EMULATOR unset)"));
    });
    native_levels()
}

/// The same model lowered with another schedule at a level, and that level as the only one.
pub fn with_schedule(mut prepared: Prepared, level: usize, schedule: Schedule) -> Prepared {
    let program = prepared.lowered(&[schedule]).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
    let memory = memory::plan(&program);
    let targets = vec![prepared.targets.swap_remove(level)];
    Prepared { program, memory, targets, ..prepared }
}

/// The folder of a nano checkpoint.
pub fn nano(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(layout)
}

/// The folder of the tiny checkpoint, which is not in the repository; told where it is missing.
#[allow(dead_code, reason = "of long tests")]
pub fn tiny() -> Option<PathBuf> {
    machine::drawn("tiny-hf-bf16-s0")
}
