//! What the snapshot tests share: the targets, and a handful of kernels at their smallest tiles.
//!
//! The snapshots are printed source, one folder for each target (`v3`, `v4`, `v3_exact`, `v3_vnni`, `v4_vnni`,
//! `neon`, `neon_exact`, `dotprod`, `simd128`, `relaxed`, `relaxed_exact`), the graphs of the nano model after each pass (`passes`), and how
//! many instructions hot kernels of aarch64 take (`counts`). Review a changed snapshot as you would review code.

use std::process::Command;
use std::rc::Rc;

use compiler::machine::has_target;
use emit::{File, Item};
use kernels::library::attention::{self, Attention};
use kernels::library::cache::Cache;
use kernels::library::conv::{self, Map};
use kernels::library::gemm::{self, Init, Tile};
use kernels::library::linear::{self, Linear, Norm, Rows};
use kernels::library::matrix::Format;
use kernels::library::quantize::{self, QuantRows, Source, Span};
use kernels::library::split::{self, Split};
use kernels::library::squeeze_excite::{self, Shapes};
use kernels::library::two_layer::{self, TwoLayer};
use kernels::library::{Schedule, depthwise, elementwise, head, integer, norm, rope};
use kernels::{Dots, Elem, Kernel, Target, emit_kernel, legalize, verify};

/// Whether there is a program of this name.
pub fn has_program(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Why nothing can be compiled for a triple here, if so.
pub fn lacking(triple: &str) -> Option<String> {
    (!has_target(triple).unwrap_or(false)).then(|| format!("no standard library for {triple}"))
}

/// A target and the folder of its snapshots. Levels that do not fuse are printed by the name of those that do: `V3Exact` as `v3`.
pub type Named = (&'static str, Box<dyn Target>);

/// The targets of float models.
pub fn targets() -> Vec<Named> {
    vec![
        ("v3", Box::new(codegen_avx2::Level::V3)),
        ("v4", Box::new(codegen_avx2::Level::V4)),
        ("neon", Box::new(codegen_neon::Level::Neon)),
        ("i8mm", Box::new(codegen_neon::Level::I8mm)),
        ("simd128", Box::new(codegen_wasm::Simd128)),
        ("relaxed", Box::new(codegen_wasm::Level::Relaxed)),
    ]
}

/// The targets of quantized models.
pub fn integer_targets() -> Vec<Named> {
    vec![
        ("v3_exact", Box::new(codegen_avx2::Level::V3Exact)),
        ("v3_vnni", Box::new(codegen_avx2::Level::V3Vnni)),
        ("v4_vnni", Box::new(codegen_avx2::Level::V4Vnni)),
        ("neon_exact", Box::new(codegen_neon::Level::Exact)),
        ("dotprod", Box::new(codegen_neon::Level::Dotprod)),
        ("i8mm", Box::new(codegen_neon::Level::I8mm)),
        ("simd128", Box::new(codegen_wasm::Simd128)),
        ("relaxed_exact", Box::new(codegen_wasm::Level::RelaxedExact)),
    ]
}

/// The least of everything: what a kernel needs to show its parts.
fn least() -> Schedule {
    Schedule {
        tile: (2, 1),
        vector_lines: 1,
        integer_tiles: [(2, 1), (2, 1)],
        nibble_lines: 1,
        nibbles_in_halves: false,
        dots: Dots::Words,
        byte_lines: 1,
        ahead: 4096,
        depth_block: 16,
        depthwise: 2,
        depthwise_weights_in_registers: false,
        strip_bytes: 1 << 12,
    }
}

/// The kernels that are looked at, by the names of their snapshots.
pub fn kernels() -> Vec<(&'static str, Rc<Kernel>)> {
    let s = &least();
    let row = depthwise::Shape {
        channels: 16,
        multiplier: 1,
        kernel: 3,
        stride: 1,
        width: 4,
        from: Elem::F32,
        to: Elem::F32,
    };
    let heads = Attention { heads: 2, kv_heads: 1, head_dim: 32, capacity: 32, causal: true, cache: Cache::F32 };
    let rms = Norm::Rms { eps: 1e-6, gain: false };
    let rows = Linear {
        norm: Some(rms),
        inputs: 32,
        outputs: 16,
        format: Format::F32,
        init: Init::BiasResidual,
        gelu: false,
        rows: Rows::UpTo(4),
        strip: 4,
        from: Elem::F32,
        to: Elem::F32,
    };
    let one = Linear { norm: None, init: Init::Bias, rows: Rows::Fixed(1), strip: 1, ..rows };
    let map = Map { row, height: 4 };
    let two = TwoLayer::new((16, 32), two_layer::Activation::Gelu, Format::F32, 8, s.strip_bytes);
    let gates = Shapes { pixels: 4, channels: 32, reduced: 16 };
    vec![
        ("gemm_tile", gemm::tile(&Tile { rows: 2, lines: 1, init: Init::Bias, halves: false, lda: Some(32) })),
        ("linear", linear::linear(s, &rows)),
        ("gemv", linear::vector(s, &one, false)),
        ("depthwise", depthwise::row(s, &row)),
        ("conv_ffn", conv::conv_ffn(s, &map, &two, 2)),
        ("squeeze_excite", squeeze_excite::gate(s, &gates)),
        ("layer_norm", norm::layer_norm(32, 1e-5, Elem::F32)),
        ("rms_norm", norm::rms_norm(32, 1e-6, true)),
        ("softmax", callee(&attention::attend(s, &heads, Rows::UpTo(4), 2), "softmax")),
        ("rope", rope::rope(&heads, Rows::UpTo(4))),
        ("attend", attention::attend(s, &heads, Rows::UpTo(4), 2)),
        ("gelu", elementwise::gelu(16)),
        ("swiglu", elementwise::swiglu(16)),
        ("embed", head::embed(Format::F32, 16, 64)),
        ("argmax", head::argmax(64)),
    ]
}

/// The kernels of quantized models that are looked at, by the names of their snapshots. A tile is the
/// callee of the product that needs it.
pub fn integer_kernels(target: &dyn Target) -> Vec<(&'static str, Rc<Kernel>)> {
    let s = &Schedule { dots: target.dots(), nibbles_in_halves: target.adds_in_halves(), ..least() };
    let rows = Linear {
        norm: None,
        inputs: 144,
        outputs: 16,
        format: Format::Bytes { block: 128 },
        init: Init::BiasResidual,
        gelu: false,
        rows: Rows::Fixed(2),
        strip: 2,
        from: Elem::F32,
        to: Elem::F32,
    };
    let one = Linear { format: Format::Nibbles, init: Init::Bias, rows: Rows::Fixed(1), strip: 1, ..rows };
    let to = QuantRows::new(144, 128, false);
    let heads = Attention { heads: 2, kv_heads: 1, head_dim: 32, capacity: 32, causal: true, cache: Cache::Int8 };
    let attend = attention::attend(s, &heads, Rows::UpTo(4), 2);
    let keep = rope::rope(&heads, Rows::UpTo(4));
    let groups = QuantRows::new(48, 0, true);
    let halves = Split { inputs: 128, vocab: 64, rows: 1 };
    vec![
        ("integer_tile", callee(&linear::linear(s, &rows), "gemm")),
        ("nibble_tile", callee(&linear::vector(s, &one, false), "gemv")),
        ("quantize", quantize::quantize(Source::Plain, 144, &to, Span::all(&to))),
        ("quantize_groups", quantize::quantize(Source::Plain, 48, &groups, Span::all(&groups))),
        ("expand", integer::expand()),
        ("attend_i8", attend.clone()),
        ("softmax_i8", callee(&attend, "softmax")),
        ("mix_i8", callee(&attend, "gemm_accumulate")),
        ("quantize_u7", callee(&keep, "quantize_u7")),
        ("interleave", callee(&keep, "interleave_u7_later")),
        ("embed_i4", head::embed(Format::Nibbles, 128, 64)),
        ("split_low", callee(&split::complete(&halves), "split_low")),
        ("split_rescore", split::rescore(&halves, false)),
    ]
}

/// The first kernel that `kernel` calls, or its callees, whose name begins so.
fn callee(kernel: &Rc<Kernel>, name: &str) -> Rc<Kernel> {
    let found = kernel.with_callees().into_iter().find(|k| k.name.starts_with(name));
    found.unwrap_or_else(|| panic!("{} calls no {name}", kernel.name))
}

/// The kernel alone, as its target prints it.
///
/// # Panics
/// If the legalized kernel is malformed: that is what the tests are for.
pub fn printed(kernel: &Rc<Kernel>, target: &dyn Target) -> String {
    emit::print(&File { docs: Vec::new(), items: vec![function(kernel, target)] })
}

/// The kernels with everything they call and the target's helpers: a file that compiles.
///
/// # Panics
/// As [`printed`].
pub fn module(kernels: &[Rc<Kernel>], target: &dyn Target) -> String {
    let mut all: Vec<Rc<Kernel>> = Vec::new();
    for callee in kernels.iter().flat_map(Kernel::with_callees) {
        if !all.iter().any(|k| k.name == callee.name) {
            all.push(callee);
        }
    }
    let mut items = target.prelude();
    items.extend(all.iter().map(|k| function(k, target)));
    emit::print(&File { docs: vec![format!("Kernels of level {}.", target.level())], items })
}

fn function(kernel: &Rc<Kernel>, target: &dyn Target) -> Item {
    let legal = legalize(kernel, target);
    verify(&legal).unwrap_or_else(|e| panic!("{} at {}: {e}", kernel.name, target.level()));
    Item::Function(emit_kernel(&legal, target))
}
