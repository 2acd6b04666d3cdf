//! Times encoded products of the library in Node with several register tiles: `cargo run -p codegen-wasm --example rates`.
//!
//! Each case is a module of its own; it runs until its functions are compiled well, then the best of many calls counts. With the name
//! of a group, only that one; `yardsticks` times the loops of `benches/web/yardsticks` in turn with ours.

mod yardsticks;

use std::process::Command;
use std::rc::Rc;

use codegen_wasm::{Level, callable_module, worth_constants};
use kernels::library::columns::{Columns, columns};
use kernels::library::gemm::Init;
use kernels::library::linear::{Linear, Rows, UNIT, linear, vector, vectors};
use kernels::library::matrix::Format;
use kernels::library::{Schedule, depthwise};
use kernels::{Elem, Kernel, ParamKind, extents, legalize, specialize};

const TIMES: &str = "
import { readFileSync } from 'node:fs';
const [path, pages, argv, ops, bytes] = process.argv.slice(2);
const memory = new WebAssembly.Memory({ initial: Number(pages) });
const words = new Uint32Array(memory.buffer);
// Bytes of at most 127 whose words are floats near one.
for (let i = 0; i < words.length; i++) words[i] = 0x3f010203;
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(path)), { env: { memory } });
const args = JSON.parse(argv);
let best = Infinity;
const begin = performance.now();
while (performance.now() - begin < 1000) {
  const from = performance.now();
  exports.run(...args);
  best = Math.min(best, performance.now() - from);
}
console.log(`${(ops / best / 1e6).toFixed(1)} Gop/s, ${(bytes / best / 1e6).toFixed(1)} GB/s, ${(best * 1e3).toFixed(0)} us`);
";

fn time(what: &str, kernel: &Rc<Kernel>, level: Level, sizes: &[i64], ops: f64) {
    println!("{what:44} {level:?}: {}", timed(kernel, level, sizes, ops));
}

/// The rate of the best call, "N Gop/s, N GB/s of w, N us".
fn timed(kernel: &Rc<Kernel>, level: Level, sizes: &[i64], ops: f64) -> String {
    let folder = std::env::temp_dir().join(format!("rates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (path, script) = (folder.join("kernel.wasm"), folder.join("times.mjs"));
    let own = specialize(&legalize(kernel, &level), &|callee| worth_constants(callee, level), &mut Default::default());
    std::fs::write(&path, callable_module(&own, level)).expect("written");
    std::fs::write(&script, TIMES).expect("written");
    let ranges: Vec<(i64, i64)> = sizes.iter().map(|n| (*n, *n)).collect();
    let (mut at, mut args, mut given, mut bytes) = (4096i64, Vec::new(), sizes.iter(), 0);
    let mut ends = extents(kernel, &ranges).unwrap_or_else(|e| panic!("{e}")).into_iter();
    for param in &kernel.params {
        match param.kind {
            ParamKind::Ptr(..) => {
                let end = ends.next().map_or(0, |range| range.end);
                if param.name == "w" {
                    bytes = end;
                }
                args.push(at);
                at += (end + 63) / 64 * 64 + 64;
            }
            ParamKind::Size(_) => args.push(*given.next().expect("as many as parameters")),
        }
    }
    let out = Command::new("node")
        .args(["--experimental-wasm-relaxed-simd"])
        .args([&script, &path])
        .args([(at / 65536 + 1).to_string(), format!("{args:?}"), ops.to_string(), bytes.to_string()])
        .output()
        .expect("node runs");
    let _ = std::fs::remove_dir_all(&folder);
    format!("{}{}", String::from_utf8_lossy(&out.stdout).trim(), String::from_utf8_lossy(&out.stderr))
}

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    if only == "yardsticks" {
        return yardsticks::compare();
    }
    let rows = Rows::Fixed(128);
    for level in [Level::RelaxedExact, Level::Simd128] {
        let s = Schedule::new(&level);
        if "gemm".starts_with(&only) {
            for tile in [(8, 1), (6, 1), (5, 1), (4, 1), (3, 1)] {
                let s = Schedule { integer_tiles: [tile; 2], ..s };
                let (inputs, outputs, format) = (896, 3072, Format::Bytes { block: 1 << 20 });
                let l = Linear::new(inputs, outputs, format, rows);
                let ops = 2.0 * 24.0 * inputs as f64 * outputs as f64;
                time(
                    &format!("int8 24x{inputs}x{outputs}, tile {tile:?}"),
                    &linear(&s, &l),
                    level,
                    &[0, (24 / UNIT) as i64],
                    ops,
                );
            }
        }
        if "shapes".starts_with(&only) {
            for (n, inputs, outputs, block) in [
                (24, 384, 1536, 384),
                (32, 384, 1536, 384),
                (32, 1536, 384, 384),
                (32, 1536, 384, 1 << 20),
                (96, 384, 384, 384),
                (96, 192, 384, 192),
            ] {
                let l = Linear::new(inputs, outputs, Format::Bytes { block }, rows);
                let ops = 2.0 * n as f64 * inputs as f64 * outputs as f64;
                let what = format!("int8 {n}x{inputs}x{outputs}, blocks of {block}");
                time(&what, &linear(&s, &l), level, &[0, (n / UNIT) as i64], ops);
            }
        }
        if "columns".starts_with(&only) {
            let (inputs, outputs) = (896, 768);
            let c = Columns { inputs, outputs, format: Format::Nibbles, init: Init::Zero, rows: Rows::UpTo(320) };
            let ops = 2.0 * 320.0 * inputs as f64 * outputs as f64;
            for tile in [(8, 1), (6, 1), (5, 1), (4, 1), (3, 1)] {
                let s = Schedule { integer_tiles: [tile; 2], ..s };
                time(
                    &format!("int4 columns 320x{inputs}x{outputs}, tile {tile:?}"),
                    &columns(&s, &c),
                    level,
                    &[320, 0, 12],
                    ops,
                );
            }
        }
        if "vector".starts_with(&only) {
            for lines in [1, 2, 4] {
                // The last is read from memory.
                for (inputs, outputs) in [(896, 4864), (4864, 896), (4864, 65536)] {
                    let s = Schedule { nibble_lines: lines, byte_lines: lines, ..s };
                    for format in [Format::Nibbles, Format::Bytes { block: 1 << 20 }] {
                        let one = Rows::Fixed(1);
                        let l = Linear::new(inputs, outputs, format, one);
                        let ops = 2.0 * inputs as f64 * outputs as f64;
                        let what = format!("{} vector {inputs}x{outputs}, {lines} lines", format.name());
                        time(&what, &vector(&s, &l, false), level, &[0, outputs as i64 / 16], ops);
                    }
                }
            }
        }
        if "few".starts_with(&only) {
            for lines in [1, 2, 4] {
                for (n, inputs, outputs) in [(3, 896, 4864), (4, 896, 4864), (4, 4864, 65536)] {
                    let s = Schedule { nibble_lines: lines, ..s };
                    let l = Linear::new(inputs, outputs, Format::Nibbles, Rows::Fixed(n));
                    let ops = 2.0 * n as f64 * inputs as f64 * outputs as f64;
                    let what = format!("int4 {n} rows of {inputs}x{outputs}, {lines} lines");
                    time(&what, &vectors(&s, &l, n), level, &[0, outputs as i64 / 16], ops);
                }
            }
        }
        if "depthwise".starts_with(&only) {
            for (tile, kept, from) in [
                (2, true, Elem::F32),
                (4, true, Elem::F32),
                (4, false, Elem::F32),
                (8, false, Elem::F32),
                (4, true, Elem::F16),
                (4, false, Elem::F16),
            ] {
                let s = Schedule { depthwise: tile, depthwise_weights_in_registers: kept, ..s };
                let shape = depthwise::Shape {
                    channels: 192,
                    multiplier: 1,
                    kernel: 7,
                    stride: 1,
                    width: 64,
                    from,
                    to: Elem::F32,
                };
                let ops = 2.0 * 49.0 * 192.0 * 64.0;
                time(
                    &format!("depthwise 7x7 of {from:?}, {tile}, {kept}"),
                    &depthwise::row(&s, &shape),
                    level,
                    &[0, 7],
                    ops,
                );
            }
        }
    }
    for (level, tiles) in
        [(Level::Relaxed, [(2, 1), (4, 1), (6, 1), (8, 1)]), (Level::Simd128, [(2, 1), (4, 1), (6, 1), (8, 1)])]
    {
        if !"float".starts_with(&only) {
            continue;
        }
        for tile in tiles {
            let (inputs, outputs, format) = (896, 768, Format::F32);
            let s = Schedule { tile, ..Schedule::new(&level) };
            let l = Linear::new(inputs, outputs, format, rows);
            let ops = 2.0 * 24.0 * inputs as f64 * outputs as f64;
            time(
                &format!("f32 24x{inputs}x{outputs}, tile {tile:?}"),
                &linear(&s, &l),
                level,
                &[0, (24 / UNIT) as i64],
                ops,
            );
        }
    }
}
