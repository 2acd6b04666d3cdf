//! Printed kernels of quantized models, compiled and run, against the interpreter bit for bit: on this
//! processor's levels, on simd128 and relaxed SIMD in Node, and on NEON in qemu.

mod bare;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use kernels::library::columns::{Columns, columns, gated, quantize_rows};
use kernels::library::conv::{Map, conv_ffn, patch_embed};
use kernels::library::gemm::Init;
use kernels::library::linear::{Linear, Norm, Rows, gated_vectors, linear, vector};
use kernels::library::matrix::Format;
use kernels::library::split::{self, Split};
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::library::{Schedule, depthwise, head};
use kernels::{
    Access, BinaryOp, Builder, Elem, Kernel, LANES, Memory, Op, ParamKind, Place, Target, UnaryOp, extents, interpret,
    legalize,
};
use snapshots::{has_program, integer_targets, lacking, module};

const BYTES: Format = Format::Bytes { block: 128 };

/// A kernel, its sizes, and whether its words of weights are nibbles.
struct Case {
    kernel: Rc<Kernel>,
    sizes: Vec<i64>,
    nibbles: bool,
}

fn cases(s: &Schedule) -> Vec<Case> {
    let norm = Some(Norm::Rms { eps: 1e-6, gain: false });
    let mut all = Vec::new();
    for format in [BYTES, Format::Nibbles] {
        let nibbles = format == Format::Nibbles;
        let mut case = |kernel: Rc<Kernel>, sizes: &[i64]| all.push(Case { kernel, sizes: sizes.to_vec(), nibbles });
        let (inputs, outputs, rows) = (400, 75, Rows::UpTo(5));
        let l = Linear {
            norm,
            inputs,
            outputs,
            format,
            init: Init::BiasResidual,
            gelu: true,
            rows,
            strip: 3,
            from: Elem::F32,
            to: Elem::F32,
        };
        case(vector(s, &Linear { gelu: false, ..l }, false), &[0, 5]);
        let c = Columns { inputs, outputs, format, init: Init::Residual, rows };
        case(columns(s, &c), &[5, 0, 2]);
        case(gated(s, &Columns { outputs: 144, init: Init::Zero, ..c }), &[5, 0, 2]);
        case(gated_vectors(s, Norm::Rms { eps: 1e-6, gain: false }, format, (inputs, 80), 1), &[0, 5]);
        case(head::embed(format, inputs, 64), &[37]);
        let to = format.rows(inputs).expect("a quantized format");
        case(quantize_rows(None, &to, rows, 3), &[5, 0, 1]);
        if nibbles {
            let h = Split { inputs, vocab: outputs, rows: 1 };
            case(split::row(&h, Norm::Rms { eps: 1e-6, gain: true }, false), &[0, 1]);
            case(split::screen(s, &h, 1), &[0, 5]);
            case(split::rescore(&h, false), &[0, 5]);
            case(split::complete(&h), &[1, 0, 5]);
            case(split::embed(&h), &[37]);
        } else {
            case(linear(s, &l), &[5, 0, 1]);
            let row = depthwise::Shape {
                channels: 48,
                multiplier: 1,
                kernel: 3,
                stride: 1,
                width: 3,
                from: Elem::F32,
                to: Elem::F32,
            };
            let t = TwoLayer::new((48, 144), Activation::Gelu, format, 6, 1 << 12);
            case(conv_ffn(s, &Map { row, height: 4 }, &t, 2), &[0, 2]);
            let row = depthwise::Shape {
                channels: 24,
                multiplier: 2,
                kernel: 7,
                stride: 2,
                width: 9,
                from: Elem::F32,
                to: Elem::F32,
            };
            case(patch_embed(s, &Map { row, height: 4 }, format, 48, 1), &[0, 2]);
        }
    }
    all.push(Case { kernel: halves(), sizes: vec![], nibbles: false });
    all
}

/// Every 16-bit float widened, and values between them rounded: ties, their neighbors, and what is below the least
/// and above the largest.
fn halves() -> Rc<Kernel> {
    let mut k = Builder::new("halves", &["Conversions of 16-bit floats."]);
    let (x, noise) = (k.read_floats("x", Elem::F16), k.read_u32("noise"));
    let wide = k.write("wide");
    let rounded = ["near", "tie", "small", "one"].map(|name| k.write_floats(name, Elem::F16));
    let (low, ties) = (k.bind("low", Op::SplatBits(0x3fff)), k.bind("ties", Op::SplatBits(0x3000)));
    let step = k.splat("step", 0.375);
    k.each("i", 0usize, 65536 / LANES, |k, i| {
        let at = k.int("at", i.clone() * LANES);
        let v = k.load("v", x, at.clone());
        k.store(wide, at.clone(), v);
        let bits = k.unary("bits", UnaryOp::BitsToInt, v);
        let n = k.load("n", noise, at.clone());
        for (mask, to) in [(low, rounded[0]), (ties, rounded[1])] {
            let more = k.binary("more", BinaryOp::And, n, mask);
            let moved = k.binary("moved", BinaryOp::AddInt, bits, more);
            let moved = k.unary("moved", UnaryOp::BitsToFloat, moved);
            k.store(to, at.clone(), moved);
        }
        let less = k.mul("less", v, step);
        k.store(rounded[2], at.clone(), less);
        let same = k.broadcast("same", x, at);
        k.store_one(rounded[3], i, same);
    });
    k.finish()
}

/// Words from a fixed sequence.
fn noise(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    }
}

/// The operands of a case, by pointer: weights, floats in [-1, 1), quantized rows, zeros to write to.
fn operands(case: &Case) -> Vec<Vec<u32>> {
    let sizes: Vec<(i64, i64)> = case.sizes.iter().map(|n| (*n, *n)).collect();
    let ranges = extents(&case.kernel, &sizes).unwrap_or_else(|e| panic!("{e}"));
    let mut operands = Vec::new();
    for (i, ((name, elem, access), range)) in case.kernel.pointers().zip(ranges).enumerate() {
        let (n, mut next) = ((range.end as usize).div_ceil(4), noise(i as u64));
        let float = |word: u32| ((word >> 8) as f32 / (1 << 23) as f32 - 1.0).to_bits();
        operands.push(match (access, elem) {
            (Access::Write, _) => vec![0; n],
            // Odd nibbles: a factor is never -8, which has no place in a byte.
            (Access::Read, Elem::U32) if case.nibbles => (0..n).map(|_| next() | 0x1111_1111).collect(),
            // Every 16-bit float there is, in turn.
            (Access::Read, Elem::F16) => (0..n as u32).map(|i| ((2 * i) & 0xffff) | ((2 * i + 1) << 16)).collect(),
            (Access::Read, Elem::U32 | Elem::I8 | Elem::U16) => (0..n).map(|_| next() & 0x7f7f_7f7f).collect(),
            (Access::Read, Elem::F32) if name == "q" => quantized(case, n),
            (Access::Read, Elem::F32) => (0..n).map(|_| float(next())).collect(),
        });
    }
    operands
}

/// Five rows of 400 channels as the product takes them.
fn quantized(case: &Case, words: usize) -> Vec<u32> {
    let format = if case.nibbles { Format::Nibbles } else { BYTES };
    let to = format.rows(400).expect("a quantized format");
    let make = Case { kernel: quantize_rows(None, &to, Rows::Fixed(5), 5), sizes: vec![0, 1], nibbles: case.nibbles };
    let mut made = interpreted(&make, &make.kernel, operands(&make)).remove(1);
    made.resize(words, 0);
    made
}

fn interpreted(case: &Case, kernel: &Kernel, operands: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    let places: Vec<Place> = (0..operands.len()).map(|buffer| Place { buffer, at: 0 }).collect();
    let mut memory = Memory { buffers: operands };
    interpret(kernel, &mut memory, &places, &case.sizes).unwrap_or_else(|e| panic!("{e}"));
    memory.buffers
}

/// A program that reads all operands, calls every kernel, and writes all operands.
fn program(cases: &[Case], target: &dyn Target) -> String {
    let kernels: Vec<Rc<Kernel>> = cases.iter().map(|c| c.kernel.clone()).collect();
    let (mut calls, mut at) = (String::new(), 0);
    for case in cases {
        let (mut pointers, mut sizes) = (operands(case).into_iter(), case.sizes.iter());
        let args: Vec<String> = case
            .kernel
            .params
            .iter()
            .map(|param| match param.kind {
                ParamKind::Ptr(..) => {
                    let here = at;
                    at += pointers.next().map_or(0, |words| words.len());
                    format!("p.add({here}).cast()")
                }
                ParamKind::Size(_) => sizes.next().expect("as many sizes as parameters").to_string(),
            })
            .collect();
        calls += &format!("        kernels::{}({});\n", case.kernel.name, args.join(", "));
    }
    let text = module(&kernels, target);
    let run = format!(
        "#[allow(dead_code)]\nmod kernels {{\n{text}}}\n\n\
         #[target_feature(enable = \"{}\")]\nunsafe fn run(p: *mut u32) {{\n    unsafe {{\n{calls}    }}\n}}\n\n\
         const WORDS: usize = {at};\n",
        target.features()
    );
    if bare::LEVELS.iter().any(|(_, level, _)| *level == target.level()) {
        format!("{}{ALONE}{run}", bare::HEAD)
    } else {
        format!("{run}{HOSTED}")
    }
}

/// The program around `run`.
const HOSTED: &str = "
fn main() {
    use std::io::{Read, Write};
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    let mut words: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(words.len(), WORDS);
    unsafe { run(words.as_mut_ptr()) };
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::io::stdout().write_all(&bytes).unwrap();
}
";

/// The same behind [`bare::HEAD`].
const ALONE: &str = r#"
static mut MEMORY: [u32; WORDS] = [0; WORDS];

/// Moves all bytes by reads or writes of a part.
unsafe fn all(number: usize, file: usize, at: usize) {
    let mut done = 0;
    while done < 4 * WORDS {
        let n = unsafe { call(number, file, at + done, 4 * WORDS - done) };
        if n <= 0 {
            unsafe { call(94, 1, 0, 0) };
        }
        done += n as usize;
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    unsafe {
        let at = &raw mut MEMORY;
        all(63, 0, at as usize);
        run(at.cast());
        all(64, 1, at as usize);
        call(94, 0, 0, 0);
    }
    loop {}
}

"#;

/// How a level is compiled and run here; none with the reason.
fn runner(folder: &str, dir: &Path) -> Result<(&'static str, Vec<String>), String> {
    #[cfg(target_arch = "x86_64")]
    {
        let detected = match folder {
            "v3_exact" => Some(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")),
            "v3_vnni" => Some(is_x86_feature_detected!("avxvnni")),
            "v4_vnni" => Some(is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")),
            _ => None,
        };
        match detected {
            Some(true) => return Ok(("x86_64-unknown-linux-gnu", vec![])),
            Some(false) => {
                return match std::env::var("TVLMC_EMULATOR") {
                    Ok(run) if !run.is_empty() => Ok(("x86_64-unknown-linux-gnu", vec![run])),
                    _ => Err("this processor has no such level and TVLMC_EMULATOR is unset".to_string()),
                };
            }
            None => {}
        }
    }
    if folder == "simd128" || folder == "relaxed_exact" {
        if !has_program("node") {
            return Err("no node".to_string());
        }
        if let Some(why) = lacking(WASI) {
            return Err(why);
        }
        let script = dir.join("run.mjs");
        std::fs::write(&script, NODE).expect("the script is written");
        return Ok((WASI, vec!["node".into(), "--no-warnings".into(), RELAXED.into(), script.display().to_string()]));
    }
    if let Some((.., processor)) = bare::LEVELS.iter().find(|(name, ..)| *name == folder) {
        return bare::missing().map_or_else(|| Ok((bare::TRIPLE, bare::emulated(processor))), Err);
    }
    Err(format!("{folder} cannot be run here"))
}

const WASI: &str = "wasm32-wasip1";

/// Node 20 has relaxed SIMD as an experiment, later ones take the option and have it anyway.
const RELAXED: &str = "--experimental-wasm-relaxed-simd";

const NODE: &str = "import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';
const wasi = new WASI({ version: 'preview1' });
const module = await WebAssembly.compile(readFileSync(process.argv[2]));
wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
";

fn run(mut command: Command, input: Vec<u8>) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // Nothing is written before everything is read.
    stdin.write_all(&input).expect("the operands are taken");
    drop(stdin);
    let out = child.wait_with_output().expect("the program ends");
    assert!(out.status.success(), "{}", out.status);
    out.stdout
}

#[test]
fn printed_kernels_have_the_bits_of_the_interpreter() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut ran = 0;
    for (folder, target) in integer_targets() {
        let (triple, with) = match runner(folder, dir.path()) {
            Ok(how) => how,
            Err(why) => {
                println!("skipped: {why}, so kernels printed for {folder} were not run");
                continue;
            }
        };
        let cases = cases(&Schedule::new(target.as_ref()));
        let source = dir.path().join(format!("{folder}.rs"));
        std::fs::write(&source, program(&cases, target.as_ref())).expect("the source is written");
        let binary: PathBuf = dir.path().join(format!("{folder}.bin"));
        if triple == bare::TRIPLE {
            bare::compile(&source, &binary).unwrap_or_else(|e| panic!("{folder}:\n{e}"));
        } else {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition", "2024", "-O", "-Awarnings", "--target", triple, "-o"]).arg(&binary).arg(&source);
            let out = rustc.output().expect("rustc runs");
            assert!(out.status.success(), "{folder}:\n{}", String::from_utf8_lossy(&out.stderr));
        }
        let command = match with.split_first() {
            None => Command::new(&binary),
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(&binary);
                command
            }
        };
        let input = cases.iter().flat_map(operands).flatten().flat_map(u32::to_le_bytes).collect();
        let output = run(command, input);
        let mut words = output.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        for case in &cases {
            let want = interpreted(case, &legalize(&case.kernel, target.as_ref()), operands(case));
            for ((name, ..), want) in case.kernel.pointers().zip(want) {
                let found: Vec<u32> = words.by_ref().take(want.len()).collect();
                let differ = found.iter().zip(&want).position(|(a, b)| a != b);
                assert_eq!(differ, None, "{} at {folder}: {name}, first differing word", case.kernel.name);
                assert_eq!(found.len(), want.len(), "{} at {folder}: {name} is cut off", case.kernel.name);
            }
        }
        ran += 1;
    }
    println!("kernels of {ran} levels were run");
}
