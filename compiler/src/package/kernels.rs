//! The kernels of each level, one file for a family, and the table the plan calls them by.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use emit::{File, Function, Item};
use kernels::{Kernel, Target, emit_kernel, legalize, parameter_tokens, verify};
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;

use crate::error::Error;
use crate::machine::Machine;
use crate::pipeline::Prepared;

/// Family of a kernel, the name of its file: by the first word of its name.
pub(crate) fn family(kernel: &str) -> &'static str {
    const FAMILIES: &[(&str, &str)] = &[
        // One row's products are those of a layer, but for their tile.
        ("gemm", "gemm"),
        ("gemv_u7s8", "gemm"),
        ("gemv_bias_u7s8", "gemm"),
        ("gemv_residual_u7s8", "gemm"),
        ("gemv_bias_residual_u7s8", "gemm"),
        ("gemv_u4s8", "gemm"),
        ("gemv_bias_u4s8", "gemm"),
        ("gemv_residual_u4s8", "gemm"),
        ("gemv_bias_residual_u4s8", "gemm"),
        ("expand_u4", "gemm"),
        ("quantize_rows", "linear"),
        ("quantize", "quantize"),
        ("gelu_", "elementwise"),
        ("swiglu_", "elementwise"),
        ("copy_", "elementwise"),
        ("softmax", "attention"),
        ("attend", "attention"),
        ("pack_kv", "attention"),
        ("rope_cache", "attention"),
        ("depthwise", "depthwise"),
        ("conv", "conv"),
        ("patch_embed", "conv"),
        ("stem", "conv"),
        ("squeeze_excite", "squeeze_excite"),
        ("scale_gelu", "squeeze_excite"),
        ("argmax", "head"),
        ("embed", "head"),
        ("split", "split"),
        ("layer_norm_f32", "norm"),
        ("rms_norm_f32", "norm"),
        ("rms_norm_gain_f32", "norm"),
    ];
    FAMILIES.iter().find(|(prefix, _)| kernel.starts_with(prefix)).map_or("linear", |(_, family)| family)
}

fn family_docs(family: &str) -> &'static str {
    match family {
        "gemm" => "Register tiles of matrix products.",
        "elementwise" => "Work on each element of rows.",
        "attention" => "Softmax, attention, rotary positions and the cache.",
        "depthwise" => "Depthwise convolutions along one row.",
        "conv" => "Convolutional regions of the vision tower, strip by strip.",
        "squeeze_excite" => "Squeeze and excite.",
        "quantize" => "Rows of bytes with a scale per block.",
        "head" => "Embedding rows and the most likely token.",
        "split" => "A head in two halves: all rows by the first one, the few that can win by both.",
        "norm" => "Normalizations of rows.",
        _ => "Linear layers on rows, with what precedes and follows them.",
    }
}

/// The kernels that the plan calls, in the order of their first call, at one level.
pub(super) fn entry_points(prepared: &Prepared, level: usize) -> Result<Vec<Rc<Kernel>>, Error> {
    let program = &prepared.program;
    let steps = program.all_phases().into_iter().flat_map(|(_, p)| &p.steps).map(|s| &s.kernels[level]);
    let mut out = Vec::new();
    for kernel in steps.chain([&program.embed[level]]) {
        add(&mut out, kernel)?;
    }
    Ok(out)
}

/// Adds a kernel unless it is there; two different ones of one name are our bug.
fn add(kernels: &mut Vec<Rc<Kernel>>, kernel: &Rc<Kernel>) -> Result<(), Error> {
    match kernels.iter().find(|k| k.name == kernel.name) {
        Some(known) if known.body == kernel.body => Ok(()),
        Some(_) => Err(Error::Bug(format!("two kernels are named {}", kernel.name))),
        None => {
            kernels.push(kernel.clone());
            Ok(())
        }
    }
}

/// A kernel as a level has it.
struct Printed {
    kernel: Rc<Kernel>,
    function: Function,
    /// The level whose file has it: this one, or one that it extends and where it is the same.
    home: &'static str,
}

pub(super) fn emit(prepared: &Prepared, files: &mut BTreeMap<String, String>) -> Result<(), Error> {
    // A level comes after the one that it extends.
    let mut done: Vec<(&dyn Target, Vec<Printed>)> = Vec::new();
    for (i, target) in prepared.targets.iter().enumerate().rev() {
        let base = done.iter().find(|(base, _)| Some(base.level()) == target.extends());
        let all = print(prepared, i, base.map(|(base, all)| (*base, &all[..])))?;
        level(prepared, i, &all, files)?;
        done.push((target.as_ref(), all));
    }
    let levels: Vec<&str> = prepared.targets.iter().map(|target| target.level()).collect();
    files.insert("src/kernels/mod.rs".to_string(), emit::print(&table(prepared, &levels)?));
    Ok(())
}

/// The kernels of a level, callees before callers; those that the level it extends has too stay there.
fn print(prepared: &Prepared, index: usize, base: Option<(&dyn Target, &[Printed])>) -> Result<Vec<Printed>, Error> {
    let target = prepared.targets[index].as_ref();
    let theirs: BTreeMap<&str, &Printed> =
        base.iter().flat_map(|(_, all)| *all).map(|other| (other.kernel.name.as_str(), other)).collect();
    let better = base.map(|(base, _)| better_helpers(target, base)).unwrap_or_default();
    let mut kernels = Vec::new();
    for entry in entry_points(prepared, index)? {
        for kernel in entry.with_callees() {
            add(&mut kernels, &kernel)?;
        }
    }
    let (mut all, mut own) = (Vec::new(), BTreeSet::new());
    for kernel in kernels {
        let legal = legalize(&kernel, target);
        verify(&legal).map_err(|e| Error::Bug(e.to_string()))?;
        let function = emit_kernel(&legal, target);
        let stays = |other: &&&Printed| {
            let named = words(&function.body);
            text(&Item::Function(function.clone())) == text(&Item::Function(other.function.clone()))
                && !named.iter().any(|n| better.contains(n) || own.contains(n))
        };
        let home = theirs.get(kernel.name.as_str()).filter(stays).map_or(target.level(), |other| other.home);
        if home == target.level() {
            own.insert(kernel.name.clone());
        }
        all.push(Printed { kernel, function, home });
    }
    Ok(all)
}

/// An item's text; that of a function whatever features it is compiled with.
fn text(item: &Item) -> String {
    let mut item = item.clone();
    if let Item::Function(function) = &mut item {
        function.attrs.clear();
    }
    emit::print(&File { docs: Vec::new(), items: vec![item] })
}

/// Helpers that a target writes in another way than the one that it extends, or that name such: as one instruction, perhaps.
fn better_helpers(target: &dyn Target, base: &dyn Target) -> BTreeSet<String> {
    let named = |item: Item| helper_name(&item).map(|name| (name, item));
    let theirs: BTreeMap<String, Item> = base.prelude().into_iter().filter_map(named).collect();
    let own: Vec<(String, Item)> = target.prelude().into_iter().filter_map(named).collect();
    let mut better = BTreeSet::new();
    loop {
        let before = better.len();
        for (name, item) in &own {
            let names_one = match item {
                Item::Function(function) => words(&function.body).iter().any(|word| better.contains(word)),
                _ => false,
            };
            if names_one || theirs.get(name).is_none_or(|other| text(other) != text(item)) {
                better.insert(name.clone());
            }
        }
        if better.len() == before {
            return better;
        }
    }
}

/// All files of one level.
fn level(
    prepared: &Prepared,
    index: usize,
    all: &[Printed],
    files: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let target = prepared.targets[index].as_ref();
    // A kernel of another level is named where the table or a kernel of this level does.
    let own = all.iter().filter(|kernel| kernel.home == target.level());
    let mut called: BTreeSet<String> = own.flat_map(|kernel| words(&kernel.function.body)).collect();
    called.extend(entry_points(prepared, index)?.iter().map(|kernel| kernel.name.clone()));
    let mut families: BTreeMap<&str, Vec<&Printed>> = BTreeMap::new();
    for kernel in all.iter().filter(|it| it.home == target.level() || called.contains(&it.kernel.name)) {
        families.entry(family(&kernel.kernel.name)).or_default().push(kernel);
    }
    let folder = format!("src/kernels/{}", target.level());
    let mut named = BTreeSet::new();
    for (name, kernels) in &families {
        let file = family_file(name, kernels, target);
        for item in &file.items {
            if let Item::Function(function) = item {
                named.extend(words(&function.body));
            }
        }
        files.insert(format!("{folder}/{name}.rs"), emit::print(&file));
    }
    let docs = vec![format!("Helpers of level {}: reductions over the lanes of a register.", target.level())];
    let lanes = File { docs, items: used(target.prelude(), named) };
    files.insert(format!("{folder}/lanes.rs"), emit::print(&lanes));
    let docs = vec![format!("Kernels of level {}, one file for each family.", target.level())];
    let modules: BTreeSet<&str> = families.keys().copied().chain(["lanes"]).collect();
    let items = modules
        .iter()
        .map(|m| {
            let m = ident(m);
            line(if m == "lanes" { quote!(mod #m;) } else { quote!(pub mod #m;) })
        })
        .collect();
    files.insert(format!("{folder}/mod.rs"), emit::print(&File { docs, items }));
    Ok(())
}

/// The file of a family. Kernels of other levels are named from there.
fn family_file(name: &str, kernels: &[&Printed], target: &dyn Target) -> File {
    let (mut functions, mut callees, mut there) = (Vec::new(), BTreeSet::new(), Vec::new());
    for Printed { kernel, function, home } in kernels {
        if *home != target.level() {
            there.push((*home, natural(&kernel.name), ident(&kernel.name)));
            continue;
        }
        callees.extend(kernel.with_callees().into_iter().map(|callee| callee.name.clone()));
        functions.push(function.clone());
    }
    // What the functions themselves name: callees of callees are not theirs to import.
    let named: BTreeSet<String> = functions.iter().flat_map(|f| words(&f.body)).collect();
    let uses: BTreeSet<&str> =
        callees.iter().filter(|n| named.contains(*n)).map(|n| family(n)).filter(|f| *f != name).collect();
    let mut items: Vec<Item> = uses
        .into_iter()
        .map(|other| {
            let other = ident(other);
            line(quote!(use super::#other::*;))
        })
        .collect();
    if helpers(target, &named) {
        items.push(line(quote!(
            use super::lanes::*;
        )));
    }
    items.sort_by_key(|i| if let Item::Line { tokens, .. } = i { tokens.to_string() } else { String::new() });
    if let Some(intrinsics) = target.prelude().into_iter().find(|i| matches!(i, Item::Line { .. }))
        && named.iter().any(|n| target.is_intrinsic(n))
    {
        items.push(intrinsics);
    }
    // Before the others, as rustfmt has them.
    there.sort();
    let there = there.into_iter().map(|(level, _, kernel)| {
        let (level, family) = (ident(level), ident(name));
        line(quote!(pub use super::super::#level::#family::#kernel;))
    });
    items.splice(0..0, there);
    items.extend(functions.into_iter().map(Item::Function));
    File { docs: vec![family_docs(name).to_string()], items }
}

/// A name as rustfmt sorts it: numbers by value, underscores before everything else.
fn natural(name: &str) -> Vec<(String, Option<u64>)> {
    let mut parts = vec![(String::new(), None)];
    for c in name.chars() {
        let (text, number) = parts.last_mut().expect("never empty");
        match (c.to_digit(10).map(u64::from), *number) {
            (Some(digit), before) => *number = Some(before.unwrap_or(0) * 10 + digit),
            (None, None) => text.push(if c == '_' { ' ' } else { c }),
            (None, Some(_)) => parts.push((if c == '_' { ' ' } else { c }.to_string(), None)),
        }
    }
    parts
}

/// The helpers and constants that are named, by kernels or by helpers that are, with their import if there are any.
fn used(prelude: Vec<Item>, mut named: BTreeSet<String>) -> Vec<Item> {
    loop {
        let before = named.len();
        for item in &prelude {
            if let (Item::Function(f), Some(name)) = (item, helper_name(item))
                && named.contains(&name)
            {
                named.extend(words(&f.body));
            }
        }
        if named.len() == before {
            break;
        }
    }
    let left: Vec<Item> =
        prelude.into_iter().filter(|item| helper_name(item).is_none_or(|name| named.contains(&name))).collect();
    if left.iter().any(|item| helper_name(item).is_some()) { left } else { Vec::new() }
}

fn helpers(target: &dyn Target, named: &BTreeSet<String>) -> bool {
    target.prelude().iter().any(|item| helper_name(item).is_some_and(|name| named.contains(&name)))
}

/// The name of a helper or constant of a prelude; an import has none.
fn helper_name(item: &Item) -> Option<String> {
    match item {
        Item::Function(f) => words_of(&f.head).pop(),
        // `pub const NAME: ...`.
        Item::Line { tokens, .. } => {
            let words = words_of(tokens);
            if words.first().is_some_and(|word| word == "pub") { words.into_iter().nth(2) } else { None }
        }
        Item::Comment(_) | Item::Table { .. } | Item::Scope { .. } => None,
    }
}

/// Identifiers of all statements.
fn words(body: &emit::Block) -> Vec<String> {
    let mut out = Vec::new();
    for stmt in body {
        match stmt {
            emit::Stmt::Comment(_) | emit::Stmt::Blank => {}
            emit::Stmt::Line(tokens) => out.extend(words_of(tokens)),
            emit::Stmt::Scope { head, body } => {
                out.extend(words_of(head));
                out.extend(words(body));
            }
            emit::Stmt::Branch { head, body, otherwise } => {
                out.extend(words_of(head));
                out.extend(words(body));
                out.extend(words(otherwise));
            }
        }
    }
    out
}

fn words_of(tokens: &TokenStream) -> Vec<String> {
    tokens
        .clone()
        .into_iter()
        .flat_map(|t| match t {
            TokenTree::Ident(i) => vec![i.to_string()],
            TokenTree::Group(g) => words_of(&g.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
        })
        .collect()
}

/// `src/kernels/mod.rs`: the table of entry points and its values for each level.
fn table(prepared: &Prepared, levels: &[&str]) -> Result<File, Error> {
    let entries = entry_points(prepared, 0)?;
    // A module of an engine has the instructions of one level only: those that it is compiled with.
    let built = |level: &str| match prepared.machine {
        Machine::X86_64(_) | Machine::Aarch64(_) | Machine::Wasm => vec![],
        Machine::WasmRust if level == "simd128" => vec![quote!(cfg(not(target_feature = "relaxed-simd")))],
        Machine::WasmRust => vec![quote!(cfg(target_feature = "relaxed-simd"))],
    };
    // As rustfmt sorts them.
    let sorted: BTreeSet<&str> = levels.iter().copied().collect();
    let mut items: Vec<Item> = sorted
        .iter()
        .map(|level| {
            let (attrs, level) = (built(level), ident(level));
            Item::Line { docs: vec![], attrs, tokens: quote!(mod #level;) }
        })
        .collect();
    let rows = entries
        .iter()
        .map(|kernel| {
            let (name, types) = (ident(&kernel.name), types(kernel));
            let docs = kernel.docs.first().cloned().into_iter().collect();
            (docs, quote!(pub #name: unsafe fn(#(#types),*)))
        })
        .collect();
    items.push(Item::Table {
        docs: vec!["The kernels that the plan calls, at one level.".to_string()],
        attrs: vec![],
        head: quote!(pub struct Kernels),
        rows,
        delimiters: ("{", "}"),
    });
    for level in levels {
        let one = prepared.machine == Machine::WasmRust;
        let (module, constant) = (ident(level), if one { "BUILT".to_string() } else { level.to_uppercase() });
        let constant = ident(&constant);
        if one {
            let name = prepared.machine.level_name(level);
            let docs = vec!["Name of the level that this is compiled with.".to_string()];
            let tokens = quote!(pub const LEVEL: &str = #name;);
            items.push(Item::Line { docs, attrs: built(level), tokens });
        }
        let rows = entries
            .iter()
            .map(|kernel| {
                let (name, family) = (ident(&kernel.name), ident(family(&kernel.name)));
                (vec![], quote!(#name: #module::#family::#name))
            })
            .collect();
        items.push(Item::Table {
            docs: vec![format!("Level {level}.")],
            attrs: built(level),
            head: quote!(pub const #constant: Kernels = Kernels),
            rows,
            delimiters: ("{", "};"),
        });
    }
    Ok(File { docs: vec!["Kernels: the same functions at each level, specialized for this model.".to_string()], items })
}

/// Types of a kernel's parameters.
fn types(kernel: &Kernel) -> Vec<TokenStream> {
    parameter_tokens(kernel).into_iter().map(|p| p.into_iter().skip(2).collect()).collect()
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

fn line(tokens: TokenStream) -> Item {
    Item::Line { docs: vec![], attrs: vec![], tokens }
}
