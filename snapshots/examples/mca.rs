//! What `llvm-mca` makes of the innermost loops of aarch64's products: `cargo run -p snapshots --example mca`, with a number of rows
//! behind it for another tile. `LLVM_MCA` names the program where it is not `llvm-mca`; with `LOOPS` set
//! the loops themselves are printed too.
//!
//! Kernels are printed, compiled by rustc to assembly, and the shortest loop with dot products is taken of each. The models are
//! LLVM's: throughput of a loop whose loads hit the first cache, no more.

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use codegen_neon::Level;
use kernels::library::linear::{Linear, Rows, linear, vector};
use kernels::library::matrix::Format;
use kernels::library::{Choice, Schedule};
use kernels::{Kernel, Target};

/// Processors of the models, and the most dot products that each begins in a cycle. LLVM's model of the M1 has three of its four
/// vector pipes.
const PROCESSORS: [(&str, f64); 4] =
    [("cortex-a55", 1.0), ("cortex-a76", 2.0), ("neoverse-n1", 2.0), ("apple-m1", 4.0)];

/// Those that multiply small matrices too; LLVM 14 has no models of them, 22 has.
const WITH_MATRICES: [(&str, f64); 3] = [("cortex-a720", 2.0), ("neoverse-n2", 2.0), ("cortex-x4", 4.0)];

const ITERATIONS: f64 = 100.0;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let all: Vec<(&str, f64)> = PROCESSORS.iter().chain(&WITH_MATRICES).copied().collect();
    let rows: Option<usize> = std::env::args().nth(1).map(|rows| rows.parse().expect("rows of the tile"));
    for level in [Level::I8mm, Level::Dotprod, Level::Exact] {
        let mut s = Schedule::new(&level);
        if let Some(rows) = rows {
            s.integer_tiles = [(rows, 1); 2];
        }
        println!("{}: {}", level.level(), Choice::IntegerTiles.value(&s));
        let bytes = Linear::new(896, 3072, Format::Bytes { block: 1 << 20 }, Rows::Fixed(120));
        let nibbles = Linear::new(896, 4864, Format::Nibbles, Rows::Fixed(1));
        let (rows, one) = (linear(&s, &bytes), vector(&s, &nibbles, false));
        let assembly = assembly(folder.path(), &[rows.clone(), one.clone()], level);
        let (height, _) = s.integer_tiles[0];
        let (word, processors) = match level {
            Level::I8mm => ("smmla", &WITH_MATRICES[..]),
            Level::Dotprod => ("sdot", &all[..]),
            Level::Exact | Level::Neon => ("sadalp", &PROCESSORS[..]),
        };
        for (what, start, word) in [
            ("int8 product", format!("gemm_bias_u7s8_{height}x1_b896:"), word),
            ("int4, one row", "gemv_bias_u4s8_1:".to_string(), if level == Level::I8mm { "sdot" } else { word }),
        ] {
            let (body, dots) = innermost(&assembly, &start, word);
            if std::env::var_os("LOOPS").is_some() {
                body.iter().for_each(|line| println!("{line}"));
            }
            let stack = body.iter().filter(|line| line.contains("[sp")).count();
            println!("  {what}: {} instructions, {dots} dot products, {stack} of the stack", body.len());
            for &(processor, most) in processors {
                let cycles = cycles(folder.path(), &body, processor);
                let rate = dots as f64 / cycles;
                println!(
                    "    {processor:12} {cycles:6.1} cycles, {rate:.2} dot products each, {:.0} %",
                    100.0 * rate / most
                );
            }
        }
    }
}

/// The kernels as rustc's assembly.
fn assembly(folder: &Path, kernels: &[Rc<Kernel>], level: Level) -> String {
    let text = snapshots::module(kernels, &level).replace("\npub unsafe fn ", "\n#[unsafe(no_mangle)]\npub unsafe fn ");
    let (source, out) = (folder.join("kernels.rs"), folder.join("kernels.s"));
    std::fs::write(&source, text).expect("written");
    let built = Command::new("rustc")
        .args(["--edition", "2024", "-O", "-Awarnings", "-Cpanic=abort", "--crate-type", "lib", "--emit", "asm"])
        .args(["--target", "aarch64-unknown-linux-gnu", "-o"])
        .args([&out, &source])
        .status();
    assert!(built.is_ok_and(|status| status.success()), "rustc takes the kernels");
    std::fs::read_to_string(out).expect("assembly")
}

/// The instructions of the shortest loop of a function that has `word`, and how often it does.
fn innermost(assembly: &str, start: &str, word: &str) -> (Vec<String>, usize) {
    let from = assembly.find(&format!("\n{start}")).unwrap_or_else(|| panic!("no {start}"));
    let function: Vec<&str> = assembly[from..].lines().take_while(|line| !line.starts_with(".Lfunc_end")).collect();
    let mut best: Option<(Vec<String>, usize)> = None;
    for (end, line) in function.iter().enumerate() {
        let Some(label) = line.split_whitespace().last().filter(|label| label.starts_with(".LBB")) else { continue };
        let Some(begin) = function[..end].iter().position(|line| *line == format!("{label}:")) else { continue };
        let body = function[begin + 1..=end].iter().filter(|line| {
            let code = line.trim_start();
            line.starts_with('\t') && !code.starts_with(['.', '/'])
        });
        let body: Vec<String> = body.map(|line| line.to_string()).collect();
        let dots = body.iter().filter(|line| line.contains(word)).count();
        if dots > 0 && best.as_ref().is_none_or(|(known, _)| body.len() < known.len()) {
            best = Some((body, dots));
        }
    }
    best.unwrap_or_else(|| panic!("no loop with {word} in {start}"))
}

/// Cycles of one turn.
fn cycles(folder: &Path, body: &[String], processor: &str) -> f64 {
    let path = folder.join("loop.s");
    // A branch needs a place to go to.
    let last = body.last().and_then(|line| line.split_whitespace().last()).unwrap_or("");
    std::fs::write(&path, format!("{last}:\n{}\n", body.join("\n"))).expect("written");
    let program = std::env::var_os("LLVM_MCA").unwrap_or_else(|| "llvm-mca".into());
    let out = Command::new(program)
        .args(["-mtriple=aarch64", "-mattr=+dotprod,+i8mm", "-iterations=100"])
        .arg(format!("-mcpu={processor}"))
        .arg(&path)
        .output()
        .expect("llvm-mca runs; it is in the package llvm");
    let told = String::from_utf8_lossy(&out.stdout);
    let total =
        told.lines().find_map(|line| line.strip_prefix("Total Cycles:")).and_then(|n| n.trim().parse::<f64>().ok());
    total.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr))) / ITERATIONS
}
