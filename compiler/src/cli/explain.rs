//! `compile --explain`: which numbers the kernels are built with, and why.

use std::fmt::Write as _;

use kernels::LANES;
use kernels::library::{Choice, Schedule};

use crate::lower::{Phase, Step, Units};
use crate::pipeline::Prepared;

/// The choices of all levels, then those of every kind of step.
pub fn explain(prepared: &Prepared) -> String {
    let mut text = String::new();
    match &prepared.tuning {
        Some(tuning) => {
            _ = writeln!(text, "Measured on {}; where nothing was, the model of the machine decides.", tuning.processor)
        }
        None => text += "The model of the machine decides; `tvlmc tune` measures instead.\n",
    }
    for (target, schedule) in prepared.targets.iter().zip(prepared.schedules()) {
        let (model, parts) = (Schedule::new(target.as_ref()), LANES / target.lanes());
        let _ = writeln!(
            text,
            "\nlevel {}: {} registers of {} bytes, a line of 64 bytes takes {parts}",
            target.level(),
            target.registers(),
            64 / parts
        );
        for choice in Choice::ALL {
            let (ours, theirs) = (choice.value(&schedule), choice.value(&model));
            let _ = writeln!(text, "  {:40} {theirs}: {}", choice.name(), choice.reason(&model, target.as_ref()));
            if ours != theirs {
                let _ = writeln!(text, "  {:40} {ours}: measured, taken instead", "");
            }
        }
    }
    let _ = writeln!(text, "\nmatrices: {}", prepared.program.formats);
    let program = &prepared.program;
    let phases = program.all_phases().into_iter().filter(|(name, phase)| name != "logits" && !phase.steps.is_empty());
    for (name, phase) in phases {
        write_phase(&mut text, &name, phase, program.chunk);
    }
    text
}

/// Steps that call the same kernel are one line.
fn write_phase(text: &mut String, name: &str, phase: &Phase, chunk: usize) {
    let _ = writeln!(text, "\n{name}: a thread takes an equal share of a step's units, in order; scratch is its own");
    let mut known: Vec<(&Step, usize)> = Vec::new();
    for step in &phase.steps {
        let same = |other: &Step| other.kernels[0].name == step.kernels[0].name && other.units == step.units;
        match known.iter_mut().find(|(other, _)| same(other)) {
            Some((_, count)) => *count += 1,
            None => known.push((step, 1)),
        }
    }
    for (step, count) in known {
        let units = match step.units {
            Units::Fixed(n) => n.to_string(),
            Units::Rows(group) => format!("1 for {group} rows"),
            Units::HeadRows { heads, block } => {
                format!("{heads} heads x 1 for {block} rows (up to {})", step.units.count(chunk))
            }
        };
        let scratch = match step.scratch_bytes {
            0 => String::new(),
            n => format!(", {} KB of scratch", n.div_ceil(1024)),
        };
        let _ = writeln!(text, "  {count:3} x {:44} {}; units: {units}{scratch}", step.kernels[0].name, step.shapes);
    }
}
