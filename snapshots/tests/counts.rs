//! How many instructions the hot kernels of aarch64 take, counted in qemu: none may grow by more than a fiftieth.
//!
//! A kernel is called once, with zeros, on few of its rows and lines, and qemu logs every block of instructions that it
//! runs: that is exact, the same on every machine, and says nothing of cycles. `snapshots/counts/LEVEL.txt` holds the
//! reviewed counts, which are those of one compiler.

mod bare;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use kernels::library::attention::{Attention, attend};
use kernels::library::cache::Cache;
use kernels::library::columns::{Columns, columns, gated, quantize_rows};
use kernels::library::conv::{Map, conv_ffn, patch_embed};
use kernels::library::gemm::Init;
use kernels::library::linear::{Linear, Norm, Rows, gated_vectors, linear, vector, vectors};
use kernels::library::matrix::Format;
use kernels::library::split::{self, Split};
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::library::{Schedule, depthwise};
use kernels::{Elem, Kernel, ParamKind, Target, extents};
use snapshots::{integer_targets, module, targets};

/// Growth that fails, of a count.
const MOST: f64 = 0.02;

/// A kernel and its sizes.
type Case = (Rc<Kernel>, Vec<i64>);

const RMS: Norm = Norm::Rms { eps: 1e-6, gain: false };

/// Those of the 0.5B model that take its time, on a part of their rows and lines: widths, formats and depths are its own.
fn cases(s: &Schedule, float: bool) -> Vec<Case> {
    let (bytes, nibbles) = match float {
        true => (Format::F32, Format::F32),
        false => (Format::Bytes { block: 128 }, Format::Nibbles),
    };
    let maps = if float { Elem::F32 } else { Elem::F16 };
    let rows = Linear::new(896, 64, bytes, Rows::Fixed(13));
    let one = Linear { norm: Some(RMS), ..Linear::new(896, 1152, nibbles, Rows::Fixed(1)) };
    let row = |channels, kernel, stride, multiplier, width| depthwise::Shape {
        channels,
        multiplier,
        kernel,
        stride,
        width,
        from: maps,
        to: maps,
    };
    let ffn = Map { row: row(192, 7, 1, 1, 16), height: 8 };
    let patches = Map { row: row(96, 7, 2, 2, 16), height: 8 };
    let two = TwoLayer::new((192, 768), Activation::Gelu, bytes, 16, s.strip_bytes);
    let cache = if float { Cache::F32 } else { Cache::Int8 };
    let heads = Attention { heads: 14, kv_heads: 2, head_dim: 64, capacity: 1024, causal: true, cache };
    let mut all = vec![
        (linear(s, &rows), vec![0, 1]),
        (vector(s, &one, false), vec![0, 8]),
        (gated_vectors(s, RMS, nibbles, (896, 4864), 1), vec![0, 4]),
        (attend(s, &heads, Rows::Fixed(1), 4), vec![300, 0, 1]),
        (attend(s, &heads, Rows::UpTo(256), 4), vec![0, 256, 32, 34]),
        (depthwise::row(s, &ffn.row), vec![0, 7]),
        (conv_ffn(s, &ffn, &two, 1), vec![4, 5]),
        (patch_embed(s, &patches, bytes, 192, 1), vec![2, 3]),
    ];
    if float {
        return all;
    }
    let many = Columns { inputs: 896, outputs: 1152, format: nibbles, init: Init::Bias, rows: Rows::UpTo(256) };
    let head = Split { inputs: 896, vocab: 1024, rows: 1 };
    all.extend([
        (vectors(s, &Linear { norm: Some(RMS), ..Linear::new(896, 1152, nibbles, Rows::Fixed(4)) }, 4), vec![0, 8]),
        (quantize_rows(Some(RMS), &nibbles.rows(896).expect("quantized"), Rows::UpTo(256), 8), vec![8, 0, 1]),
        (columns(s, &many), vec![13, 0, 1]),
        (gated(s, &Columns { outputs: 4864, init: Init::Zero, ..many }), vec![13, 0, 1]),
        (split::screen(s, &head, 1), vec![0, 8]),
        (split::complete(&head), vec![1, 0, 8]),
    ]);
    all
}

/// What a C library has and compilers call, 16 bytes at a time.
const MEMSET: &str = r#"
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    unsafe {
        asm!(
            "dup v0.16b, {byte:w}",
            "2: sub {left}, {end}, {at}",
            "cmp {left}, #16",
            "b.lo 3f",
            "str q0, [{at}], #16",
            "b 2b",
            "3: cmp {at}, {end}",
            "b.eq 4f",
            "strb {byte:w}, [{at}], #1",
            "b 3b",
            "4:",
            at = inout(reg) to => _,
            end = in(reg) to.add(n),
            byte = in(reg) byte,
            left = out(reg) _,
            out("v0") _,
        )
    };
    to
}
"#;

/// A program that calls each kernel from a function of its own.
fn program(cases: &[Case], target: &dyn Target) -> String {
    let kernels: Vec<Rc<Kernel>> = cases.iter().map(|(kernel, _)| kernel.clone()).collect();
    let (mut functions, mut calls, mut most) = (String::new(), String::new(), 0);
    for (i, (kernel, sizes)) in cases.iter().enumerate() {
        let exact: Vec<(i64, i64)> = sizes.iter().map(|n| (*n, *n)).collect();
        let ranges = extents(kernel, &exact).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        let (mut ranges, mut sizes, mut at) = (ranges.into_iter(), sizes.iter(), 0);
        let args: Vec<String> = kernel
            .params
            .iter()
            .map(|param| match param.kind {
                ParamKind::Ptr(..) => {
                    let here = at;
                    at += (ranges.next().map_or(0, |range| range.end) as usize).next_multiple_of(64);
                    format!("p.add({here}).cast()")
                }
                ParamKind::Size(_) => sizes.next().expect("as many sizes as parameters").to_string(),
            })
            .collect();
        assert_eq!(sizes.next(), None, "{} takes fewer sizes", kernel.name);
        most = most.max(at);
        let _ = write!(
            functions,
            "#[target_feature(enable = \"{}\")]\n#[inline(never)]\n#[unsafe(no_mangle)]\n\
             unsafe fn case_{i}(p: *mut u8) {{\n    unsafe {{ kernels::{}({}) }};\n}}\n\n",
            target.features(),
            kernel.name,
            args.join(", ")
        );
        let _ = writeln!(calls, "        case_{i}(at);");
    }
    format!(
        "{}{MEMSET}\n#[allow(dead_code)]\nmod kernels {{\n{}}}\n\n{functions}\
         #[repr(align(64))]\nstruct Bytes([u8; {most}]);\n\nstatic mut MEMORY: Bytes = Bytes([0; {most}]);\n\n\
         #[unsafe(no_mangle)]\nunsafe extern \"C\" fn finish() -> ! {{\n    unsafe {{ call(94, 0, 0, 0) }};\n    loop {{}}\n}}\n\n\
         #[unsafe(no_mangle)]\nunsafe extern \"C\" fn _start() -> ! {{\n    unsafe {{\n        \
         let at = core::hint::black_box((&raw mut MEMORY).cast());\n{calls}        finish()\n    }}\n}}\n",
        bare::HEAD,
        module(&kernels, target)
    )
}

/// Instructions from the beginning of each function `case_N` to that of the next.
fn count(processor: &str, binary: &Path, cases: usize) -> Vec<u64> {
    let with = bare::emulated(processor);
    let mut child = Command::new(&with[0])
        .args(&with[1..])
        .args(["-d", "in_asm,exec,nochain"])
        .arg(binary)
        .stderr(Stdio::piped())
        .spawn()
        .expect("qemu starts");
    let mut log = BufReader::new(child.stderr.take().expect("it was asked for"));
    let (mut blocks, mut counts, mut now) = (HashMap::new(), vec![0; cases], None);
    // The block that is being listed: its address and instructions.
    let mut listed: Option<(u64, u64)> = None;
    let mut line = String::new();
    while log.read_line(&mut line).expect("the log is text") > 0 {
        match words(&line) {
            Line::Instruction(at, n) => match &mut listed {
                Some((_, known)) => *known += n,
                None => listed = Some((at, n)),
            },
            Line::Ran(at, symbol) => {
                if let Some((start, n)) = listed.take() {
                    blocks.insert(start, n);
                }
                match symbol.strip_prefix("case_") {
                    Some(case) => now = case.parse::<usize>().ok(),
                    None if symbol == "finish" => now = None,
                    None => {}
                }
                if let Some(case) = now {
                    counts[case] += blocks.get(&at).unwrap_or_else(|| panic!("block {at:x} ran and was not listed"));
                }
            }
            Line::Other => {}
        }
        line.clear();
    }
    let status = child.wait().expect("qemu ends");
    assert!(status.success(), "{status}");
    counts
}

/// A line of qemu's log.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Instructions at an address.
    Instruction(u64, u64),
    /// A block at an address was run; the symbol before it.
    Ran(u64, &'a str),
    Other,
}

/// `0x00210120:  d10083ff  sub sp, sp, #0x20` and `Trace 0: 0x7f8a [0000/0000000000210120/0000/ff] case_0`.
fn words(line: &str) -> Line<'_> {
    if let Some(ran) = line.strip_prefix("Trace ") {
        let Some((place, symbol)) = ran.split_once('[').and_then(|(_, rest)| rest.split_once(']')) else {
            return Line::Other;
        };
        let at = place.split('/').nth(1).and_then(|at| u64::from_str_radix(at, 16).ok());
        return at.map_or(Line::Other, |at| Line::Ran(at, symbol.trim()));
    }
    let instruction = line.strip_prefix("0x").and_then(|rest| rest.split_once(':'));
    match instruction.and_then(|(at, _)| u64::from_str_radix(at, 16).ok()) {
        Some(at) => Line::Instruction(at, 1),
        None => Line::Other,
    }
}

fn snapshot(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts").join(format!("{folder}.txt"))
}

/// The compiler's version without its date.
fn compiler() -> String {
    let out = Command::new("rustc").arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&out.stdout).split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Counts by kernel and sizes.
type Counts = BTreeMap<String, u64>;

/// A table: the compiler, then a line for each kernel.
fn print(counts: &Counts) -> String {
    let lines = counts.iter().map(|(case, n)| format!("{n:9} {case}\n"));
    format!("{}\n{}", compiler(), lines.collect::<String>())
}

/// What is wrong with counts beside a reviewed table.
fn compare(reviewed: &str, counts: &Counts) -> Vec<String> {
    let known: BTreeMap<&str, u64> = reviewed
        .lines()
        .skip(1)
        .filter_map(|line| line.trim().split_once(' '))
        .filter_map(|(n, case)| Some((case, n.parse().ok()?)))
        .collect();
    let mut wrong = Vec::new();
    for (case, &n) in counts {
        match known.get(case.as_str()) {
            None => wrong.push(format!("{case}: {n} instructions, in no table")),
            Some(&was) if n as f64 > was as f64 * (1.0 + MOST) => {
                wrong.push(format!(
                    "{case}: {n} instructions, {:.1} % more than {was}",
                    (n as f64 / was as f64 - 1.0) * 100.0
                ));
            }
            Some(_) => {}
        }
    }
    wrong.extend(known.keys().filter(|case| !counts.contains_key(**case)).map(|case| format!("{case}: not counted")));
    wrong
}

#[test]
fn kernels_of_aarch64_take_no_more_instructions() {
    if let Some(why) = bare::missing() {
        println!("skipped: {why}, so the instructions of kernels for aarch64 were not counted");
        return;
    }
    let update = std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always");
    let dir = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    for (folder, _, processor) in bare::LEVELS {
        let all = if folder == "neon" { targets() } else { integer_targets() };
        let (_, target) = all.into_iter().find(|(name, _)| *name == folder).expect("a level");
        let cases = cases(&Schedule::new(target.as_ref()), folder == "neon");
        let (source, binary) = (dir.path().join(format!("{folder}.rs")), dir.path().join(folder));
        std::fs::write(&source, program(&cases, target.as_ref())).expect("the source is written");
        bare::compile(&source, &binary).unwrap_or_else(|e| panic!("{folder}:\n{e}"));
        let counted = count(processor, &binary, cases.len());
        let named = |(kernel, sizes): &Case| {
            let names = kernel.params.iter().filter(|param| matches!(param.kind, ParamKind::Size(_)));
            let sizes = names.zip(sizes).map(|(param, n)| format!(" {}={n}", param.name));
            format!("{}{}", kernel.name, sizes.collect::<String>())
        };
        let counts: Counts = cases.iter().map(named).zip(counted).collect();
        assert_eq!(counts.len(), cases.len(), "two cases of {folder} have one name");
        assert!(counts.values().all(|n| *n > 100), "{folder} was not counted: {counts:?}");
        let path = snapshot(folder);
        if update {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, print(&counts)).expect("written");
            continue;
        }
        let reviewed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found: Vec<String> = compare(&reviewed, &counts).into_iter().map(|w| format!("{folder} {w}")).collect();
        if reviewed.lines().next() == Some(compiler().as_str()) {
            wrong.extend(found);
        } else if !found.is_empty() {
            // Another compiler may choose other instructions; that is no fault of the kernels.
            println!(
                "skipped: counts of {folder} are those of another compiler than {}: {}",
                compiler(),
                found.join("; ")
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf that is worth it: INSTA_UPDATE=always cargo test -p snapshots --test counts, then review the difference",
        wrong.join("\n")
    );
}

#[test]
fn growth_and_missing_lines_are_told() {
    let counts: Counts = [("a n=1", 102), ("b", 103), ("c", 7)].map(|(case, n)| (case.to_string(), n)).into();
    let wrong = compare("rustc 1\n      100 a n=1\n      100 b\n        5 d\n", &counts);
    assert_eq!(wrong, ["b: 103 instructions, 3.0 % more than 100", "c: 7 instructions, in no table", "d: not counted"]);
}

#[test]
fn lines_of_logs_are_read() {
    assert_eq!(words("0x00210120:  d10083ff  sub      sp, sp, #0x20\n"), Line::Instruction(0x21_0120, 1));
    let ran = "Trace 0: 0x7f6c00000100 [0000000000000000/0000000000210120/00000080/ff000200] case_12\n";
    assert_eq!(words(ran), Line::Ran(0x21_0120, "case_12"));
    for other in ["IN: case_0\n", "----------------\n", "\n", "Trace 0: [x]\n", "0xzz: 1\n"] {
        assert_eq!(words(other), Line::Other, "{other}");
    }
}
