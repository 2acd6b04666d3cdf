//! The loops of `benches/web/yardsticks` and the emitted kernels that do their work, in turn.

use std::path::Path;
use std::process::Command;

use codegen_wasm::Level;
use kernels::library::Schedule;
use kernels::library::columns::{Columns, columns};
use kernels::library::gemm::Init;
use kernels::library::linear::{Linear, Rows, UNIT, linear, vector};
use kernels::library::matrix::Format;

use super::timed;

const ROUNDS: usize = 7;
/// Bytes a weight takes in the yardstick's matrix of nibbles, scales included, and in ours.
const BYTES: [f64; 2] = [20.0 / 32.0, 17.0 / 32.0];

/// Prints each yardstick and our kernels beside it, medians over rounds, and the medians of the rounds' ratios.
pub fn compare() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/web/yardsticks");
    let target = std::env::temp_dir().join("yardsticks");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .env("RUSTFLAGS", "-C target-feature=+simd128,+relaxed-simd")
        .status();
    assert!(built.is_ok_and(|s| s.success()), "the yardsticks build");
    let module = target.join("wasm32-unknown-unknown/release/yardsticks.wasm");
    let mut rounds: Vec<[f64; 6]> = Vec::new();
    for _ in 0..ROUNDS {
        let theirs = yardsticks(&module);
        let [tile, vector, read] = theirs[..] else { panic!("three rates, not {theirs:?}") };
        rounds.push([tile, int8(), int4(), vector, from_memory(), read]);
    }
    let [tile, int8, int4, vector, ours, read] = [0, 1, 2, 3, 4, 5];
    let gb = |rate: f64, bytes: f64| rate / 2.0 * bytes;
    let median = |f: &dyn Fn(&[f64; 6]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(f).collect();
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    println!("tile by hand, operands in L1          {:6.1} Gop/s", median(&|r| r[tile]));
    for (what, at) in [("int8 product, 24x896x3072", int8), ("int4 product, 320x896x768", int4)] {
        println!("{what:37} {:6.1} Gop/s, {:.2} of it", median(&|r| r[at]), median(&|r| r[at] / r[tile]));
    }
    println!("plain reading from memory             {:6.1} GB/s", median(&|r| r[read]));
    for (what, at, bytes) in
        [("int4 vector by hand, from memory", vector, BYTES[0]), ("int4 vector, from memory", ours, BYTES[1])]
    {
        println!(
            "{what:37} {:6.1} GB/s, {:.2} of reading, {:.2} of the one by hand; {:.1} Gop/s, {:.2} of the one by hand",
            median(&|r| gb(r[at], bytes)),
            median(&|r| gb(r[at], bytes) / r[read]),
            median(&|r| gb(r[at], bytes) / gb(r[vector], BYTES[0])),
            median(&|r| r[at]),
            median(&|r| r[at] / r[vector]),
        );
    }
}

fn yardsticks(module: &Path) -> Vec<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rates/yardsticks.mjs");
    let out = Command::new("node").args(["--experimental-wasm-relaxed-simd", script]).arg(module).output();
    let told = String::from_utf8(out.expect("node runs").stdout).expect("text");
    told.split_whitespace().map(|rate| rate.parse().expect("a rate")).collect()
}

/// The first number that [`timed`] gives.
fn gops(told: &str) -> f64 {
    told.split(' ').next().and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("no rate: {told}"))
}

const LEVEL: Level = Level::RelaxedExact;

fn int8() -> f64 {
    let l = Linear::new(896, 3072, Format::Bytes { block: 1 << 20 }, Rows::Fixed(128));
    let kernel = linear(&Schedule::new(&LEVEL), &l);
    gops(&timed(&kernel, LEVEL, &[0, (24 / UNIT) as i64], 2.0 * 24.0 * 896.0 * 3072.0))
}

fn int4() -> f64 {
    let c = Columns { inputs: 896, outputs: 768, format: Format::Nibbles, init: Init::Zero, rows: Rows::UpTo(320) };
    gops(&timed(&columns(&Schedule::new(&LEVEL), &c), LEVEL, &[320, 0, 12], 2.0 * 320.0 * 896.0 * 768.0))
}

fn from_memory() -> f64 {
    let l = Linear::new(4864, 65536, Format::Nibbles, Rows::Fixed(1));
    gops(&timed(&vector(&Schedule::new(&LEVEL), &l, false), LEVEL, &[0, 65536 / 16], 2.0 * 4864.0 * 65536.0))
}
