//! Prints the kernels that are timed, at every level, and a table of calls with everything a call needs.

#[path = "build/cases.rs"]
mod cases;

use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::{env, fs};

use cases::Case;
use codegen_avx2::Level;
use emit::{File, Item};
use kernels::library::Schedule;
use kernels::{Kernel, ParamKind, Target, emit_kernel, extents, legalize};

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
    let stream = case.stream.map(|(name, copies)| {
        let at = case.kernel.pointers().position(|(n, ..)| n == name).unwrap_or_else(|| panic!("no parameter {name}"));
        (at, copies)
    });
    format!(
        "super::Case {{ name: {:?}, floats: &{floats:?}, unit: super::Unit::{:?}, amount: {:?}, stream: {stream:?}, run: run_{i} }}",
        case.name, case.unit, case.amount
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
