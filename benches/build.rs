//! Prints the kernels that are timed, at every level, and a table of calls with everything a call needs.

#[path = "build/cases.rs"]
mod cases;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use cases::Case;
use codegen_avx2::Level;
use kernels::library::Schedule;
use kernels::{Callable, Target, callable_module};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let out = env::var("OUT_DIR")?;
    let write = |name: String, text: String| fs::write(Path::new(&out).join(format!("{name}.rs")), text);
    for level in Level::FLOAT {
        write(format!("float_{}", level.level()), level_file(&level, &cases::floats(&Schedule::new(&level))))?;
    }
    for level in Level::EXACT {
        write(format!("exact_{}", level.level()), level_file(&level, &cases::quantized(&Schedule::new(&level))))?;
    }
    Ok(())
}

/// Helpers, kernels, and the table `CASES`.
fn level_file(target: &dyn Target, cases: &[Case]) -> String {
    let calls: Vec<Callable> = cases.iter().map(|c| c.call.clone()).collect();
    let mut text = callable_module(target, &calls);
    text += "\n/// What is timed.\npub const CASES: &[super::Case] = &[\n";
    for (i, case) in cases.iter().enumerate() {
        let _ = writeln!(text, "    {},", entry(i, case));
    }
    text + "];\n"
}

fn entry(i: usize, case: &Case) -> String {
    let bytes = case.call.operands().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let floats: Vec<usize> = bytes.into_iter().map(|n| n.div_ceil(4)).collect();
    let stream = case.stream.map(|(name, copies)| {
        let at = case.call.kernel.pointers().position(|(n, ..)| n == name);
        (at.unwrap_or_else(|| panic!("no parameter {name}")), copies)
    });
    format!(
        "super::Case {{ name: {:?}, floats: &{floats:?}, unit: super::Unit::{:?}, amount: {:?}, stream: {stream:?}, run: run_{i} }}",
        case.name, case.unit, case.amount
    )
}
