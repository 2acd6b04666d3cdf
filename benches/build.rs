//! Prints the kernels that are timed, at both levels, and a table of calls with everything a call needs.

use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::{env, fs};

use codegen_avx2::Level;
use emit::{File, Item};
use kernels::library::conv::{self, Map};
use kernels::library::gemm::Init;
use kernels::library::linear::{self, Linear, Rows};
use kernels::library::matrix::Format;
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::library::{Schedule, depthwise, elementwise, lines, pitch, softmax};
use kernels::{Kernel, ParamKind, Target, emit_kernel, extents, legalize};

/// What a call's speed is measured in.
#[derive(Clone, Copy)]
enum Unit {
    /// Floating-point operations, a multiply-add being two.
    Flops,
    /// Bytes of weights that are read once.
    Bytes,
    /// Elements.
    Elements,
}

/// A call that is timed.
struct Case {
    name: String,
    kernel: Rc<Kernel>,
    /// Values of the sizes, in parameter order.
    sizes: Vec<usize>,
    unit: Unit,
    amount: f64,
    /// A pointer that walks through several copies of its operand, so that no cache holds them: its
    /// parameter's name and the copies.
    stream: Option<(&'static str, usize)>,
}

/// Stages of the tower at 1024 x 1024: side of the map and channels.
const STAGES: [(usize, usize); 5] = [(256, 96), (128, 192), (64, 384), (32, 768), (16, 1536)];

/// Rows of a matrix product, as many as a strip of the compiler has.
const ROWS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = env::var("OUT_DIR")?;
    for level in Level::FLOAT {
        let text = level_file(&level, &cases(&Schedule::new(&level)));
        fs::write(Path::new(&out).join(format!("{}.rs", level.level())), text)?;
    }
    Ok(())
}

fn cases(s: &Schedule) -> Vec<Case> {
    let mut cases = Vec::new();
    for (side, channels) in STAGES {
        for (inputs, outputs) in [(channels, 4 * channels), (4 * channels, channels)] {
            let l = plain(inputs, outputs, Rows::Fixed(ROWS), ROWS);
            cases.push(Case {
                name: format!("gemm/{ROWS}x{inputs}x{outputs}"),
                kernel: linear::linear(s, &l),
                sizes: vec![0, ROWS.div_ceil(linear::UNIT)],
                unit: Unit::Flops,
                amount: 2.0 * (ROWS * inputs * outputs) as f64,
                stream: None,
            });
        }
        cases.push(conv_ffn(s, side, channels));
    }
    for (side, channels) in &STAGES[..3] {
        for kernel in [3, 7] {
            let row = depthwise::Shape { channels: *channels, multiplier: 1, kernel, stride: 1, width: *side };
            let rows = 16;
            cases.push(Case {
                name: format!("depthwise/{kernel}x{kernel} {side}x{channels}"),
                kernel: conv::depthwise_map(s, &Map { row, height: *side }),
                sizes: vec![0, rows],
                unit: Unit::Flops,
                amount: 2.0 * (rows * side * channels * kernel * kernel) as f64,
                stream: None,
            });
        }
    }
    cases.push(Case {
        name: "gelu/128x1536".to_string(),
        kernel: elementwise::gelu(1536),
        sizes: vec![ROWS],
        unit: Unit::Elements,
        amount: (ROWS * 1536) as f64,
        stream: None,
    });
    cases.push(Case {
        name: "softmax/32x1024".to_string(),
        kernel: softmax::softmax(pitch(1024), false),
        sizes: vec![32, 1024, 64],
        unit: Unit::Elements,
        amount: (32 * 1024) as f64,
        stream: None,
    });
    let copies = 24;
    cases.push(Case {
        name: format!("gemv/896x4864, {copies} matrices"),
        kernel: linear::vector(s, &plain(896, 4864, Rows::Fixed(1), 1), false),
        sizes: vec![0, lines(4864)],
        unit: Unit::Bytes,
        amount: (copies * 4 * 896 * 4864) as f64,
        stream: Some(("w", copies)),
    });
    cases
}

fn plain(inputs: usize, outputs: usize, rows: Rows, strip: usize) -> Linear {
    Linear { norm: None, inputs, outputs, format: Format::F32, init: Init::Bias, gelu: false, rows, strip }
}

/// A quarter of a stage's ConvFFN, in the strips that the compiler takes.
fn conv_ffn(s: &Schedule, side: usize, channels: usize) -> Case {
    let row = depthwise::Shape { channels, multiplier: 1, kernel: 7, stride: 1, width: side };
    let map = Map { row, height: side };
    let strip = (ROWS / side).clamp(1, side / 4);
    let two = TwoLayer::new((channels, 4 * channels), Activation::Gelu, Format::F32, strip * side, s.strip_bytes);
    let units = side / strip / 4;
    let pixels = units * strip * side;
    Case {
        name: format!("conv_ffn/{side}x{side}x{channels}"),
        kernel: conv::conv_ffn(s, &map, &two, strip),
        sizes: vec![0, units],
        unit: Unit::Flops,
        amount: 2.0 * (pixels * channels * (8 * channels + 49)) as f64,
        stream: None,
    }
}

/// Helpers, kernels, and the table `CASES`.
fn level_file(target: &dyn Target, cases: &[Case]) -> String {
    let mut all: Vec<Rc<Kernel>> = Vec::new();
    for kernel in cases.iter().flat_map(|c| c.kernel.with_callees()) {
        if !all.iter().any(|k| k.name == kernel.name) {
            all.push(kernel);
        }
    }
    let mut items = target.prelude();
    items.extend(all.iter().map(|k| Item::Function(emit_kernel(&legalize(k, target), target))));
    let mut text = emit::print(&File { docs: Vec::new(), items });
    text += "\n/// What is timed.\npub const CASES: &[super::Case] = &[\n";
    for (i, case) in cases.iter().enumerate() {
        let _ = writeln!(text, "    {},", entry(i, case));
    }
    text += "];\n";
    for (i, case) in cases.iter().enumerate() {
        text += &wrapper(i, case, target);
    }
    text
}

fn entry(i: usize, case: &Case) -> String {
    let sizes: Vec<(i64, i64)> = case.sizes.iter().map(|&n| (n as i64, n as i64)).collect();
    let ranges = extents(&case.kernel, &sizes).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let floats: Vec<usize> = ranges.iter().map(|r| (r.end as usize).div_ceil(4)).collect();
    let unit = match case.unit {
        Unit::Flops => "Flops",
        Unit::Bytes => "Bytes",
        Unit::Elements => "Elements",
    };
    let stream = case.stream.map(|(name, copies)| {
        let at = case.kernel.pointers().position(|(n, ..)| n == name).unwrap_or_else(|| panic!("no parameter {name}"));
        (at, copies)
    });
    format!(
        "super::Case {{ name: {:?}, floats: &{floats:?}, unit: super::Unit::{unit}, amount: {:?}, stream: {stream:?}, run: run_{i} }}",
        case.name, case.amount
    )
}

/// `run_3`: the kernel with its sizes filled in, pointers from a list.
fn wrapper(i: usize, case: &Case, target: &dyn Target) -> String {
    let (mut ptrs, mut sizes) = (0.., case.sizes.iter());
    let args: Vec<String> = case
        .kernel
        .params
        .iter()
        .map(|param| match param.kind {
            ParamKind::Ptr(..) => format!("p[{}].cast()", ptrs.next().unwrap_or(0)),
            ParamKind::Size(_) => {
                sizes.next().unwrap_or_else(|| panic!("{}: a size is missing", case.name)).to_string()
            }
        })
        .collect();
    format!(
        "\n/// # Safety\n///\n/// `p` holds the operands of `CASES[{i}]`.\n#[target_feature(enable = {:?})]\npub unsafe fn run_{i}(p: &[*mut f32]) {{\n    // SAFETY: the caller's.\n    unsafe {{ {}({}) }}\n}}\n",
        target.features(),
        case.kernel.name,
        args.join(", ")
    )
}
