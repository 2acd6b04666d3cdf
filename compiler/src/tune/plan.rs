//! Which variants of which steps are timed, and the program that times them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use kernels::library::{Choice, Schedule};
use kernels::{Callable, Kernel, ParamKind, Target, callable_module};

use crate::error::Error;
use crate::lower::{Phase, Place, Program, Step, Units};
use crate::pipeline::Prepared;

/// Tokens of the answer that decoding is weighted with: a picture, a question, and as many words as a sentence or two.
pub const ANSWER: usize = 64;

/// Positions before a decoded token.
const POSITIONS: usize = 300;

/// Rows of a prompt besides the picture's.
const QUESTION: usize = 32;

/// Multiply-adds of a timed call at the most: of a larger step, a part of its units is timed.
const MOST_MACS: u64 = 400_000_000;

/// Bytes of weights that a decoding step walks through, so that they come from memory.
const STREAM_BYTES: usize = 96 << 20;

/// The program's text but for the kernels and the table of calls.
const HARNESS: &str = include_str!("harness.rs");

/// What is timed at a level.
pub struct Plan {
    /// The schedules: the model's, then those that differ in one number.
    pub schedules: Vec<(Option<Choice>, Schedule)>,
    /// Steps of the model that any schedule changes.
    pub calls: Vec<Call>,
    modules: BTreeMap<usize, Vec<Callable>>,
}

/// A step, in all its variants.
pub struct Call {
    /// How often it runs for a picture, a question and an answer of [`ANSWER`] tokens, in calls as large as this.
    pub times: f64,
    /// The variant of each schedule.
    pub variants: Vec<usize>,
    /// Where each variant is printed: a schedule's module, and which function of it.
    runs: Vec<(usize, usize)>,
    /// Bytes of each operand.
    bytes: Vec<usize>,
    /// The operand that comes from memory, and copies of it.
    stream: Option<(usize, usize)>,
}

impl Call {
    /// Its variants.
    pub fn count(&self) -> usize {
        self.runs.len()
    }
}

impl Plan {
    /// The model's schedule against those that differ in one number.
    ///
    /// # Errors
    /// [`Error::Bug`] if a candidate cannot be lowered.
    pub fn candidates(prepared: &mut Prepared, target: &dyn Target) -> Result<Plan, Error> {
        let base = Schedule::new(target);
        let mut schedules = vec![(None, base)];
        for choice in Choice::ALL {
            schedules.extend(choice.candidates(&base, target).into_iter().map(|s| (Some(choice), s)));
        }
        Plan::of(prepared, target, schedules)
    }

    /// The model's schedule against one other.
    ///
    /// # Errors
    /// As [`Plan::candidates`].
    pub fn against(prepared: &mut Prepared, target: &dyn Target, other: Schedule) -> Result<Plan, Error> {
        Plan::of(prepared, target, vec![(None, Schedule::new(target)), (None, other)])
    }

    fn of(
        prepared: &mut Prepared,
        target: &dyn Target,
        schedules: Vec<(Option<Choice>, Schedule)>,
    ) -> Result<Plan, Error> {
        let all: Vec<Schedule> = schedules.iter().map(|(_, s)| *s).collect();
        let program = prepared.lowered(&all).map_err(|e| Error::Bug(format!("{}: {e}", target.level())))?;
        let mut plan = Plan { schedules, calls: Vec::new(), modules: BTreeMap::new() };
        let prompt = (prepared.description.vision.tokens() + QUESTION).min(program.chunk);
        let before = POSITIONS.min(program.context - 1);
        plan.phase(&program, &program.vision, (0, 0), 1)?;
        plan.phase(&program, &program.prefill, (0, prompt), 1)?;
        plan.phase(&program, &program.decode, (before, 1), ANSWER)?;
        Ok(plan)
    }

    /// Adds the steps of a phase that are called with `rows` rows from position `start` on.
    fn phase(&mut self, program: &Program, phase: &Phase, at: (usize, usize), times: usize) -> Result<(), Error> {
        let mut known: Vec<(&str, Units, usize)> = Vec::new();
        for step in &phase.steps {
            let key = (step.kernels[0].name.as_str(), step.units);
            match known.iter_mut().find(|(name, units, _)| (*name, *units) == key) {
                Some((.., count)) => *count += 1,
                None => known.push((key.0, key.1, 1)),
            }
        }
        for (name, units, count) in known {
            let step = phase.steps.iter().find(|s| s.kernels[0].name == name && s.units == units);
            if let Some(step) = step {
                self.step(program, step, at, count * times, times > 1)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        program: &Program,
        step: &Step,
        (start, rows): (usize, usize),
        times: usize,
        from_memory: bool,
    ) -> Result<(), Error> {
        // Kernels that are equal are timed once.
        let mut distinct: Vec<(usize, &Rc<Kernel>)> = Vec::new();
        let mut variants = Vec::new();
        for (i, kernel) in step.kernels.iter().enumerate() {
            let known = distinct.iter().position(|(_, k)| *k == kernel);
            variants.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push((i, kernel));
            }
        }
        if distinct.len() == 1 {
            return Ok(());
        }
        let units = step.units.count(rows);
        let macs = step.macs * rows.max(1) as u64;
        let part = (units as u64 * MOST_MACS).div_ceil(macs.max(MOST_MACS)).max(1) as usize;
        let sizes = |kernel: &Kernel| -> Vec<usize> {
            let value = |name: &str| match name {
                "last" => part,
                "rows" => rows,
                "row" => rows - 1,
                "start" => start,
                _ => 0,
            };
            let named = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Size(_)));
            named.map(|p| value(&p.name)).collect()
        };
        let mut bytes: Vec<usize> = Vec::new();
        let mut runs = Vec::new();
        for (schedule, kernel) in distinct {
            let call = Callable { kernel: Rc::clone(kernel), sizes: sizes(kernel) };
            let operands = call.operands().map_err(|e| Error::Bug(e.to_string()))?;
            bytes.resize(operands.len(), 0);
            bytes.iter_mut().zip(operands).for_each(|(most, n)| *most = n.max(*most));
            let module = self.modules.entry(schedule).or_default();
            runs.push((schedule, module.len()));
            module.push(call);
        }
        let weights = |(_, place): &(usize, &Place)| match place {
            Place::Weight(pack) => program.packs.floats(*pack) * 4,
            Place::Scales(_) | Place::Reach(_) | Place::Slot(..) | Place::Scratch => 0,
        };
        let stream = step.pointers.iter().enumerate().max_by_key(weights).filter(|p| from_memory && weights(p) > 0);
        let stream = stream.map(|(i, _)| (i, STREAM_BYTES.div_ceil(bytes[i].max(1)).max(1)));
        let times = times as f64 * units as f64 / part as f64;
        self.calls.push(Call { times, variants, runs, bytes, stream });
        Ok(())
    }

    /// Variants in all.
    pub fn variants(&self) -> usize {
        self.calls.iter().map(Call::count).sum()
    }

    /// The files of the program that times everything. It writes `time CALL VARIANT SECONDS` for each, and for the
    /// first variant of each call, which is timed twice, `again CALL SECONDS`.
    pub fn files(&self, target: &dyn Target) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let manifest = "[package]\nname = \"tune\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                        [profile.release]\nopt-level = 3\ncodegen-units = 16\n";
        let lock = "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\n\
                    version = 4\n\n[[package]]\nname = \"tune\"\nversion = \"0.0.0\"\n";
        files.insert("Cargo.toml".to_string(), manifest.to_string());
        files.insert("Cargo.lock".to_string(), lock.to_string());
        files.insert("src/main.rs".to_string(), HARNESS.to_string());
        let mut table = String::from("//! What is timed.\n\nuse super::Call;\n\n");
        for (schedule, calls) in &self.modules {
            files.insert(format!("src/calls/s{schedule}.rs"), callable_module(target, calls));
            let _ = writeln!(table, "mod s{schedule};");
        }
        table += "\npub const CALLS: &[Call] = &[\n";
        for Call { runs, bytes, stream, .. } in &self.calls {
            let runs: Vec<String> = runs.iter().map(|(s, i)| format!("s{s}::run_{i}")).collect();
            let runs = runs.join(", ");
            let _ = writeln!(table, "    Call {{ bytes: &{bytes:?}, stream: {stream:?}, runs: &[{runs}] }},");
        }
        files.insert("src/calls/mod.rs".to_string(), table + "];\n");
        files
    }
}
