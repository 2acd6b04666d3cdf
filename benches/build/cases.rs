//! The calls that are timed: kernels at the sizes of the real models.

use std::rc::Rc;

use kernels::library::attention::{self, Attention};
use kernels::library::cache::Cache;
use kernels::library::columns::{self, Columns};
use kernels::library::conv::{self, Map};
use kernels::library::gemm::Init;
use kernels::library::linear::{self, Linear, Rows};
use kernels::library::matrix::{Format, Left, Matrix, Rest};
use kernels::library::quantize::{self, QuantRows, Quantized, Source, Span};
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::library::{Schedule, depthwise, elementwise, head, lines, pitch, softmax};
use kernels::{Builder, Callable, Elem, Int, Kernel};

/// What a call's speed is measured in.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Floating-point operations, a multiply-add being two.
    Flops,
    /// Operations on bytes, a multiply-add being two.
    Ops,
    /// Bytes of weights that are read once.
    Bytes,
    /// Elements.
    Elements,
}

/// A call that is timed.
pub struct Case {
    pub name: String,
    pub call: Callable,
    pub unit: Unit,
    pub amount: f64,
    /// A pointer that walks through several copies of its operand, so that no cache holds them: its
    /// parameter's name and the copies.
    pub stream: Option<(&'static str, usize)>,
}

/// Stages of the tower at 1024 x 1024: side of the map and channels.
const STAGES: [(usize, usize); 5] = [(256, 96), (128, 192), (64, 384), (32, 768), (16, 1536)];

/// Rows of a matrix product, as many as a strip of the compiler has.
const ROWS: usize = 128;

/// Rows of a prompt with a picture.
const PROMPT: usize = 290;

/// Inputs and outputs of the decoder's matrices: q, k and v; attention's output; gate and up; down.
const DECODER: [(usize, usize); 4] = [(896, 1152), (896, 896), (896, 9728), (4864, 896)];

/// Tokens.
const VOCAB: usize = 151_936;

/// Bytes that a stream reads at least: several times a last-level cache.
const STREAM_BYTES: usize = 192 << 20;

/// Channels that share an activation's scale, in the vision tower and in the decoder.
const BLOCKS: (usize, usize) = (384, 128);

/// A call that reads no stream.
fn case(name: String, kernel: Rc<Kernel>, sizes: Vec<usize>, (unit, amount): (Unit, f64)) -> Case {
    Case { name, call: Callable { kernel, sizes }, unit, amount, stream: None }
}

/// Calls of float models.
pub fn floats(s: &Schedule) -> Vec<Case> {
    let mut cases = Vec::new();
    for (side, channels) in STAGES {
        for (inputs, outputs) in [(channels, 4 * channels), (4 * channels, channels)] {
            let l = Linear::new(inputs, outputs, Format::F32, Rows::Fixed(ROWS));
            cases.push(case(
                format!("gemm/{ROWS}x{inputs}x{outputs}"),
                linear::linear(s, &l),
                vec![0, ROWS.div_ceil(linear::UNIT)],
                (Unit::Flops, 2.0 * (ROWS * inputs * outputs) as f64),
            ));
        }
        cases.push(conv_ffn(s, side, channels));
    }
    for (side, channels) in &STAGES[..3] {
        for kernel in [3, 7] {
            let row = depthwise::Shape {
                channels: *channels,
                multiplier: 1,
                kernel,
                stride: 1,
                width: *side,
                from: Elem::F32,
                to: Elem::F32,
            };
            let rows = 16;
            cases.push(case(
                format!("depthwise/{kernel}x{kernel} {side}x{channels}"),
                conv::depthwise_map(s, &Map { row, height: *side }),
                vec![0, rows],
                (Unit::Flops, 2.0 * (rows * side * channels * kernel * kernel) as f64),
            ));
        }
    }
    let elements = |rows: usize, n: usize| (Unit::Elements, (rows * n) as f64);
    cases.push(case("gelu/128x1536".to_string(), elementwise::gelu(1536), vec![ROWS], elements(ROWS, 1536)));
    let softmax = softmax::Softmax { group: 1, channels: 32, causal: false, planes: false }.block();
    cases.push(case("softmax/32x128".to_string(), softmax, vec![32, 128, 0, 8], elements(32, 128)));
    cases.push(vector(s, "gemv", Format::F32, (896, 4864)));
    cases
}

/// Calls of quantized models.
pub fn quantized(s: &Schedule) -> Vec<Case> {
    let (vision, decoder) = (Format::Bytes { block: BLOCKS.0 }, Format::Bytes { block: BLOCKS.1 });
    let mut cases = Vec::new();
    for (inputs, outputs) in [(192, 768), (384, 1536), (768, 3072), (1536, 6144), (3072, 768), (6144, 1536)] {
        let ops = 2.0 * (ROWS * inputs * outputs) as f64;
        let kernel = product(s, vision, inputs, outputs);
        cases.push(case(format!("int8/gemm/{ROWS}x{inputs}x{outputs}"), kernel, vec![], (Unit::Ops, ops)));
    }
    for (name, format) in [("int8", decoder), ("int4", Format::Nibbles)] {
        for (inputs, outputs) in DECODER {
            let rows = Rows::Fixed(PROMPT);
            let c = Columns { inputs, outputs, format, init: Init::Zero, rows };
            let ops = (Unit::Ops, 2.0 * (PROMPT * inputs * outputs) as f64);
            let sizes = vec![0, c.units()];
            cases.push(case(
                format!("{name}/prefill/{PROMPT}x{inputs}x{outputs}"),
                columns::columns(s, &c),
                sizes,
                ops,
            ));
        }
        for sizes in DECODER {
            cases.push(vector(s, &format!("{name}/gemv"), format, sizes));
        }
    }
    cases.push(vector(s, "int8/head", decoder, (896, VOCAB)));
    cases.extend(rows_to_bytes());
    cases.extend(attentions(s));
    cases.push(case(
        "int8/embedding row/896".to_string(),
        head::embed(decoder, 896, VOCAB),
        vec![1000],
        (Unit::Elements, 896.0),
    ));
    cases.push(case(format!("argmax/{VOCAB}"), head::argmax(VOCAB), vec![0, 1], (Unit::Elements, VOCAB as f64)));
    cases
}

/// One row times a matrix that comes from memory.
fn vector(s: &Schedule, name: &str, format: Format, (inputs, outputs): (usize, usize)) -> Case {
    let bytes = 4 * lines(outputs) * format.line_words(inputs);
    let copies = STREAM_BYTES.div_ceil(bytes);
    Case {
        name: format!("{name}/{inputs}x{outputs}, {copies} matrices"),
        call: Callable {
            kernel: linear::vector(s, &Linear::new(inputs, outputs, format, Rows::Fixed(1)), false),
            sizes: vec![0, lines(outputs)],
        },
        unit: Unit::Bytes,
        amount: (copies * bytes) as f64,
        stream: Some(("w", copies)),
    }
}

/// The product of quantized rows alone.
fn product(s: &Schedule, format: Format, inputs: usize, outputs: usize) -> Rc<Kernel> {
    let rows = format.rows(inputs).expect("a quantized format");
    let about = format!("{ROWS} quantized rows of {inputs} channels to {outputs}.");
    let mut k = Builder::new(format!("product_{}_{inputs}x{outputs}", format.name()), &[&about]);
    let q = k.read("q");
    let w = Matrix::declare(&mut k, "w", format, inputs);
    let zero = || Int::from(0usize);
    let c = (k.write("y"), zero());
    let left = Left::Quantized(Quantized { ptr: q, at: zero(), rows });
    let rest = Rest { line: zero(), bias: None, residual: None, c, ldc: pitch(outputs) };
    w.rows(&mut k, s, &left, Init::Zero, (&Int::from(ROWS), &Int::from(lines(outputs))), rest);
    k.finish()
}

/// Floats to bytes, with what comes before: as many rows as the kernels of the library take at a time.
fn rows_to_bytes() -> Vec<Case> {
    let wide = QuantRows::new(3072, BLOCKS.0, false);
    let gated = QuantRows::new(4864, 0, true);
    let one = Span { whole: 1, short: false };
    let all = QuantRows::new(768, BLOCKS.0, false);
    let rows = quantize::chunk(ROWS);
    [
        ("quantize", Source::Plain, all, Span::all(&all), 768),
        ("quantize GELU", Source::Gelu, wide, one, wide.block),
        ("quantize SwiGLU", Source::SwiGlu, gated, one, gated.block),
    ]
    .into_iter()
    .map(|(name, source, to, span, channels)| {
        let kernel = quantize::quantize(source, pitch(source.width() * channels), &to, span);
        let elements = (Unit::Elements, (rows * channels) as f64);
        case(format!("{name}/{rows}x{channels}"), kernel, vec![rows, 0], elements)
    })
    .collect()
}

/// The decoder's attention: a prompt, and one row with 300 positions before it.
fn attentions(s: &Schedule) -> Vec<Case> {
    let (heads, head_dim, before) = (14, 64, 300);
    let a = Attention { heads, kv_heads: 2, head_dim, capacity: 2048, causal: true, cache: Cache::Int8 };
    let flops = |keys: usize| (Unit::Flops, 4.0 * (heads * head_dim * keys) as f64);
    let units = a.kv_heads * PROMPT.div_ceil(a.unit());
    let many = attention::attend(s, &a, Rows::UpTo(PROMPT), a.unit());
    let one = attention::attend(s, &a, Rows::Fixed(1), 1);
    vec![
        case(format!("attention/{PROMPT} rows"), many, vec![0, PROMPT, 0, units], flops(PROMPT * (PROMPT + 1) / 2)),
        case(format!("attention/1 row after {before}"), one, vec![before, 0, a.kv_heads], flops(before + 1)),
    ]
}

/// A quarter of a stage's ConvFFN, in the strips that the compiler takes.
fn conv_ffn(s: &Schedule, side: usize, channels: usize) -> Case {
    let row =
        depthwise::Shape { channels, multiplier: 1, kernel: 7, stride: 1, width: side, from: Elem::F32, to: Elem::F32 };
    let map = Map { row, height: side };
    let strip = (ROWS / side).clamp(1, side / 4);
    let two = TwoLayer::new((channels, 4 * channels), Activation::Gelu, Format::F32, strip * side, s.strip_bytes);
    let units = side / strip / 4;
    let pixels = units * strip * side;
    case(
        format!("conv_ffn/{side}x{side}x{channels}"),
        conv::conv_ffn(s, &map, &two, strip),
        vec![0, units],
        (Unit::Flops, 2.0 * (pixels * channels * (8 * channels + 49)) as f64),
    )
}
