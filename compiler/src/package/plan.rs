//! The plan: a flat list of kernel calls for each phase, readable from top to bottom.

use std::collections::BTreeMap;

use emit::{File, Function, Item, Stmt};
use kernels::{ParamKind, Target};
use models::Policy;
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

use super::names::Names;
use super::{Identity, WEIGHTS_NAME};
use crate::lower::{Phase, Place, SlotId, Smaller, Step, Units};
use crate::machine::Machine;
use crate::pack::PackId;
use crate::pipeline::Prepared;

pub(super) fn emit(prepared: &Prepared, id: &Identity<'_>, names: &Names, files: &mut BTreeMap<String, String>) {
    let program = &prepared.program;
    for (name, phase) in program.all_phases().into_iter().filter(|(_, phase)| !phase.steps.is_empty()) {
        let file = emit::print(&phase_file(prepared, &name, phase, names));
        files.insert(format!("src/plan/{}.rs", module(&name)), file);
    }
    files.insert("src/plan/weights.rs".to_string(), emit::print(&weights_file(prepared, names)));
    files.insert("src/plan/slots.rs".to_string(), emit::print(&slots_file(prepared, names)));
    files.insert("src/plan/mod.rs".to_string(), emit::print(&plan_file(prepared, id, names)));
}

/// The module of a phase.
fn module(phase: &str) -> String {
    phase.replace('-', "_")
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

fn number(n: usize) -> Literal {
    Literal::usize_unsuffixed(n)
}

fn line(tokens: TokenStream) -> Item {
    Item::Line { docs: vec![], attrs: vec![], tokens }
}

fn weights_file(prepared: &Prepared, names: &Names) -> File {
    let items = prepared
        .program
        .packs
        .iter()
        .enumerate()
        .map(|(i, pack)| {
            let (name, at) = (names.pack(PackId(i)), number(pack.at * 4));
            line(quote!(pub const #name: usize = #at;))
        })
        .collect();
    File { docs: vec!["Byte offsets in the weight file's section `weights`, in the order of use.".to_string()], items }
}

fn slots_file(prepared: &Prepared, names: &Names) -> File {
    let mut items = Vec::new();
    for (i, slot) in prepared.program.slots.iter().enumerate() {
        let (name, at) = (names.slot(SlotId(i)), number(prepared.memory.offsets[i]));
        let bytes = slot.floats * 4;
        let docs = vec![format!("{bytes} bytes{}.", if slot.persistent { ", kept between calls" } else { "" })];
        items.push(Item::Line { docs, attrs: vec![], tokens: quote!(pub const #name: usize = #at;) });
    }
    let cache = prepared.program.cache.iter().map(|(slot, [pieces, pitch, block, floats])| {
        let name = names.slot(*slot);
        let [pieces, pitch, block, bytes] = [*pieces, 4 * pitch, *block, 4 * floats].map(number);
        (vec![], quote!(CacheSlot { slot: #name, pieces: #pieces, pitch: #pitch, block: #block, block_bytes: #bytes }))
    });
    items.push(Item::Table {
        docs: vec!["The KV cache.".to_string()],
        attrs: vec![],
        head: quote!(pub const CACHE: &[CacheSlot] =),
        rows: cache.collect(),
        delimiters: ("&[", "];"),
    });
    items.insert(
        0,
        line(quote!(
            use runtime_min::CacheSlot;
        )),
    );
    let docs = vec![
        "Byte offsets in the arena.".to_string(),
        String::new(),
        "Slots whose lives do not meet share memory, so offsets repeat.".to_string(),
    ];
    File { docs, items }
}

fn phase_file(prepared: &Prepared, name: &str, phase: &Phase, names: &Names) -> File {
    let vision = name == "vision" || name.starts_with("vision-");
    let docs = match name {
        "vision" => "From the slot `IMAGE` to the rows of the picture.",
        _ if vision => "From the slot of a smaller image to the rows of the picture.",
        "prefill" => "Many positions: `rows` rows from position `start` on.",
        "logits" => "All logits of the `rows` rows whose tokens the latest call made.",
        "verify" => "A few positions, `rows` rows from position `start` on, with logits for each.",
        _ => "One position, `start`.",
    };
    let uses = [
        quote!(
            use super::{slots, weights};
        ),
        quote!(
            use crate::kernels::Kernels;
        ),
        quote!(
            use runtime_min::{Cx, Step};
        ),
    ];
    let mut items: Vec<Item> = uses.into_iter().map(line).collect();
    let steps = phase
        .steps
        .iter()
        .map(|step| {
            let tap = &step.result;
            let (slot, name) = (names.slot(tap.slot), &step.name);
            let (rows, channels, pitch) = (number(tap.rows), number(tap.channels), number(tap.pitch));
            let macs = Literal::u64_unsuffixed(step.macs);
            let new = if tap.elem == kernels::Elem::F16 { quote!(halves) } else { quote!(new) };
            let row = quote!(Step::#new(#name, slots::#slot, [#rows, #channels, #pitch], #macs));
            (vec![], row)
        })
        .collect();
    items.push(Item::Table {
        docs: vec![
            "The steps and where their results lie: name, slot, rows, channels and pitch, multiply-adds.".to_string(),
        ],
        attrs: vec![],
        head: quote!(pub const STEPS: &[Step] =),
        rows: steps,
        delimiters: ("&[", "];"),
    });
    let mut body = Vec::new();
    for (i, step) in phase.steps.iter().enumerate() {
        if i > 0 {
            body.push(Stmt::Blank);
        }
        step_statements(prepared, step, i, names, &mut body);
    }
    let params = match name {
        _ if vision => vec![quote!(k: &Kernels), quote!(cx: &Cx<'_>)],
        "logits" => vec![quote!(k: &Kernels), quote!(cx: &Cx<'_>), quote!(rows: usize)],
        "prefill" | "verify" => {
            vec![quote!(k: &Kernels), quote!(cx: &Cx<'_>), quote!(start: usize), quote!(rows: usize)]
        }
        _ => vec![quote!(k: &Kernels), quote!(cx: &Cx<'_>), quote!(start: usize)],
    };
    let function = Function {
        docs: vec![
            docs.to_string(),
            String::new(),
            "Every thread of the team runs this list; each step divides its work among them.".to_string(),
        ],
        attrs: vec![],
        head: quote!(pub fn run),
        params,
        returns: None,
        body,
    };
    items.push(Item::Function(function));
    File { docs: vec![format!("The phase `{name}`, step by step.")], items }
}

fn step_statements(prepared: &Prepared, step: &Step, index: usize, names: &Names, body: &mut Vec<Stmt>) {
    body.push(Stmt::Comment(format!("{}  {}", step.name, step.shapes)));
    let dynamic = step.result.rows == 0;
    let units = match step.units {
        Units::Fixed(n) => {
            let n = number(n);
            quote!(#n)
        }
        Units::Rows(1) => quote!(rows),
        Units::Rows(group) => {
            let group = number(group);
            quote!(rows.div_ceil(#group))
        }
        Units::HeadRows { heads, block } => {
            let (heads, block) = (number(heads), number(block));
            quote!(#heads * rows.div_ceil(#block))
        }
    };
    body.push(Stmt::Line(quote!(let part = cx.part(#units);)));
    body.push(Stmt::Comment("SAFETY: every operand was checked against its slot or weight.".to_string()));
    let kernel = &step.kernels[0];
    let field = ident(&kernel.name);
    let mut places = step.pointers.iter();
    let args: Vec<TokenStream> = kernel
        .params
        .iter()
        .map(|param| match param.kind {
            ParamKind::Ptr(_, elem, _) => {
                let place = address(prepared, places.next().copied().unwrap_or(Place::Scratch), names);
                if elem == kernels::Elem::F32 { place } else { quote!(#place.cast()) }
            }
            ParamKind::Size(_) => match param.name.as_str() {
                "first" => quote!(part.start),
                "last" => quote!(part.end),
                "start" => quote!(start),
                "row" => quote!(rows - 1),
                _ => quote!(rows),
            },
        })
        .collect();
    let call = Stmt::Line(quote!((k.#field)(#(#args),*);));
    body.push(Stmt::Scope { head: quote!(unsafe), body: vec![call] });
    let (index, rows) = (number(index), if dynamic { quote!(rows) } else { number_tokens(step.result.rows) });
    body.push(Stmt::Branch {
        head: quote!(cx.end(&STEPS[#index], #rows)),
        body: vec![Stmt::Line(quote!(return;))],
        otherwise: vec![],
    });
}

/// Where a pointer argument points.
fn address(prepared: &Prepared, place: Place, names: &Names) -> TokenStream {
    let packs = &prepared.program.packs;
    let (name, at, weight) = match place {
        Place::Weight(pack) => (names.pack(pack), 0, true),
        Place::Scales(pack) => (names.pack(pack), packs.scales_at(pack), true),
        Place::Reach(pack) => (names.pack(pack), packs.reach_at(pack), true),
        Place::Slot(slot, at) => (names.slot(slot), at, false),
        Place::Scratch => return quote!(cx.scratch()),
    };
    let base = if weight { quote!(weights::#name) } else { quote!(slots::#name) };
    let bytes = number(4 * at);
    let offset = if at == 0 { base } else { quote!(#base + #bytes) };
    if weight { quote!(cx.weight(#offset)) } else { quote!(cx.slot(#offset)) }
}

fn number_tokens(n: usize) -> TokenStream {
    let n = number(n);
    quote!(#n)
}

/// `src/plan/mod.rs`: the constants the runtime reads, and the program.
fn plan_file(prepared: &Prepared, id: &Identity<'_>, names: &Names) -> File {
    let (program, description) = (&prepared.program, &prepared.description);
    let pitch = |n: usize| number(kernels::library::pitch(n));
    let hidden = description.text.hidden;
    let slot = |s| {
        let name = names.slot(s);
        quote!(slots::#name)
    };
    let policy = match description.image.policy {
        Policy::Pad { color: [r, g, b] } => {
            let color = [r, g, b].map(Literal::u8_unsuffixed);
            let [r, g, b] = color;
            quote!(ImagePolicy::Pad { color: [#r, #g, #b] })
        }
        Policy::Crop => quote!(ImagePolicy::Crop),
    };
    let n = |n: usize| number_tokens(n);
    let verifies = !program.verify.steps.is_empty();
    let Identity { name, system, baked, .. } = *id;
    let rows: Vec<(Vec<String>, TokenStream)> = [
        ("name", quote!(#name)),
        ("hidden", n(hidden)),
        ("vocab", n(description.text.vocab)),
        ("max_context", quote!(crate::MAX_CONTEXT)),
        ("chunk", n(program.chunk)),
        ("verify_rows", n(program.verify_rows)),
        ("arena_bytes", quote!(crate::ARENA_BYTES)),
        ("scratch_bytes", quote!(crate::SCRATCH_BYTES_PER_THREAD)),
        ("weights_bytes", quote!(crate::WEIGHTS_BYTES)),
        ("system", quote!(#system)),
        ("baked", quote!(#baked)),
        ("cache", quote!(slots::CACHE)),
        ("sides", quote!(SIDES)),
        ("image_rows_pitch", {
            let p = pitch(hidden);
            quote!(#p)
        }),
        ("rows", slot(program.io.rows)),
        ("rows_pitch", {
            let p = pitch(hidden);
            quote!(#p)
        }),
        ("logits", slot(program.io.logits)),
        ("logits_pitch", {
            let p = pitch(description.text.vocab);
            quote!(#p)
        }),
        ("token", slot(program.io.token)),
        ("policy", policy),
        ("digest", quote!(crate::WEIGHTS_DIGEST)),
        ("weights_name", {
            let w = WEIGHTS_NAME;
            quote!(#w)
        }),
        ("steps", {
            let verify = if verifies { quote!(verify::STEPS) } else { quote!(&[]) };
            quote!([prefill::STEPS, decode::STEPS, #verify])
        }),
        ("late_logits", {
            let late = !program.logits.steps.is_empty();
            quote!(#late)
        }),
    ]
    .into_iter()
    .map(|(field, value)| {
        let field = ident(field);
        (vec![], quote!(#field: #value))
    })
    .collect();
    let levels = if prepared.machine == Machine::WasmRust {
        vec![(vec![], quote!(Level { name: kernels::LEVEL, available: cpu::wasm32 }))]
    } else {
        let level = |t: &dyn Target| {
            let name = prepared.machine.level_name(t.level());
            let check = ident(&name.replace('-', "_"));
            (vec![], quote!(Level { name: #name, available: cpu::#check }))
        };
        prepared.targets.iter().map(|t| level(t.as_ref())).collect()
    };
    let function =
        |docs: &str, head: TokenStream, params: Vec<TokenStream>, returns: Option<TokenStream>, body: Vec<Stmt>| {
            let docs = if docs.is_empty() { vec![] } else { vec![docs.to_string()] };
            Item::Function(Function { docs, attrs: vec![], head, params, returns, body })
        };
    let cx = quote!(cx: &Cx<'_>);
    let embed = ident(&program.embed[0].name);
    let pointers = program.embed_pointers.iter().zip(program.embed[0].pointers());
    let embed_args: Vec<TokenStream> = pointers
        .enumerate()
        .map(|(i, (place, (_, elem, _)))| {
            let place = if i == 0 { quote!(table) } else { address(prepared, *place, names) };
            if elem == kernels::Elem::F32 { place } else { quote!(#place.cast()) }
        })
        .collect();
    let (table, rows_slot) = (names.pack(program.embed_table), names.slot(program.io.rows));
    let row_bytes = number(4 * kernels::library::pitch(hidden));
    let table_rows = Item::Table {
        docs: vec![],
        attrs: vec![],
        head: quote!(const INFO: Info = Info),
        rows,
        delimiters: ("{", "};"),
    };
    let info = Item::Function(Function {
        docs: vec![],
        attrs: vec![quote!(inline)],
        head: quote!(fn info),
        params: vec![],
        returns: Some(quote!(&'static Info)),
        body: vec![Stmt::Line(quote!(&INFO))],
    });
    let level_rows = match levels.as_slice() {
        [(_, one)] => {
            Item::Line { docs: vec![], attrs: vec![], tokens: quote!(const LEVELS: &'static [Level] = &[#one];) }
        }
        _ => Item::Table {
            docs: vec![],
            attrs: vec![],
            head: quote!(const LEVELS: &'static [Level] =),
            rows: levels,
            delimiters: ("&[", "];"),
        },
    };
    let several = vec![
        Stmt::Line({
            let tables: Vec<Ident> = prepared.targets.iter().map(|t| ident(&t.level().to_uppercase())).collect();
            quote!(let mut tables = [#(kernels::#tables),*].into_iter();)
        }),
        Stmt::Comment("The last one is the lowest level, which every accepted processor has.".to_string()),
        Stmt::Line({
            let last = ident(&prepared.targets.last().map_or("v3", |t| t.level()).to_uppercase());
            quote!(Program { kernels: tables.nth(level).unwrap_or(kernels::#last) })
        }),
    ];
    let (level, choose) = match prepared.machine {
        Machine::WasmRust => (quote!(_: usize), vec![Stmt::Line(quote!(Program { kernels: kernels::BUILT }))]),
        _ => (quote!(level: usize), several),
    };
    let largest = Stmt::Line(quote!(vision::run(&self.kernels, cx);));
    let (side, encode) = match &program.smaller[..] {
        [] => (quote!(_: usize), vec![largest]),
        smaller => {
            let arm = |(i, other): (usize, &Smaller)| {
                let (i, run) = (number(i), vision_module(other.side));
                Stmt::Line(quote!(#i => #run::run(&self.kernels, cx),))
            };
            let last = Stmt::Line(quote!(_ => vision::run(&self.kernels, cx),));
            let body = smaller.iter().enumerate().map(arm).chain([last]).collect();
            (quote!(side: usize), vec![Stmt::Scope { head: quote!(match side), body }])
        }
    };
    let mut methods = vec![
        level_rows,
        info,
        function("", quote!(fn with_level), vec![level], Some(quote!(Self)), choose),
        function("", quote!(fn vision), vec![quote!(&self), cx.clone(), side], None, encode),
        function(
            "",
            quote!(fn prefill),
            vec![quote!(&self), cx.clone(), quote!(start: usize), quote!(rows: usize)],
            None,
            vec![Stmt::Line(quote!(prefill::run(&self.kernels, cx, start, rows);))],
        ),
        function(
            "",
            quote!(fn decode),
            vec![quote!(&self), cx.clone(), quote!(start: usize)],
            None,
            vec![Stmt::Line(quote!(decode::run(&self.kernels, cx, start);))],
        ),
        function(
            "",
            quote!(fn embed),
            vec![quote!(&self), cx, quote!(id: u32), quote!(row: usize)],
            None,
            vec![
                Stmt::Line(
                    quote!(let (table, to) = (cx.weight(weights::#table), cx.slot(slots::#rows_slot + row * #row_bytes));),
                ),
                Stmt::Comment("SAFETY: the runtime passes ids below `vocab` and rows below `chunk`.".to_string()),
                Stmt::Scope {
                    head: quote!(unsafe),
                    body: vec![Stmt::Line(quote!((self.kernels.#embed)(#(#embed_args),*, to, id as usize);))],
                },
            ],
        ),
    ];
    if verifies {
        methods.push(function(
            "",
            quote!(fn verify),
            vec![quote!(&self), quote!(cx: &Cx<'_>), quote!(start: usize), quote!(rows: usize)],
            None,
            vec![Stmt::Line(quote!(verify::run(&self.kernels, cx, start, rows);))],
        ));
    }
    let late = !program.logits.steps.is_empty();
    if late {
        let params = vec![quote!(&self), quote!(cx: &Cx<'_>), quote!(rows: usize)];
        let run = Stmt::Line(quote!(logits::run(&self.kernels, cx, rows);));
        methods.push(function("", quote!(fn logits), params, None, vec![run]));
    }
    let phases = program.all_phases().into_iter().filter(|(_, phase)| !phase.steps.is_empty());
    let mut modules: Vec<String> = phases.map(|(name, _)| module(&name)).collect();
    modules.extend(["slots", "weights"].map(String::from));
    modules.sort_unstable();
    let mut items: Vec<Item> = modules
        .iter()
        .map(|m| {
            let m = ident(m);
            line(quote!(mod #m;))
        })
        .collect();
    items.push(Item::Comment("The plan of each phase reads top to bottom.".to_string()));
    items.push(line(quote!(
        use crate::kernels::{self, Kernels};
    )));
    items.push(line(quote!(
        use runtime_min::{Cx, ImagePolicy, Info, Level, Side, cpu};
    )));
    items.push(Item::Table {
        docs: vec!["The compiled model: the kernels of the level that was chosen when it was opened.".to_string()],
        attrs: vec![],
        head: quote!(pub struct Program),
        rows: vec![(vec![], quote!(kernels: Kernels))],
        delimiters: ("{", "}"),
    });
    items.extend(sides(prepared, names));
    items.push(table_rows);
    items.push(Item::Scope { docs: vec![], head: quote!(impl runtime_min::Program for Program), items: methods });
    File { docs: vec!["What is run, in which order, on which memory.".to_string()], items }
}

/// The constant `SIDES`; where there are several, each is a constant before it.
fn sides(prepared: &Prepared, names: &Names) -> Vec<Item> {
    let program = &prepared.program;
    let slot = |slot| {
        let name = names.slot(slot);
        quote!(slots::#name)
    };
    let fields = |[side, tokens]: [TokenStream; 2], [input, rows]: [SlotId; 2], steps: TokenStream| {
        let (input, rows) = (slot(input), slot(rows));
        let all = [
            quote!(side: #side),
            quote!(tokens: #tokens),
            quote!(input: #input),
            quote!(rows: #rows),
            quote!(steps: #steps),
        ];
        all.map(|field| (vec![], field)).to_vec()
    };
    let table = |docs: &str, head: TokenStream, rows, delimiters| {
        let docs = if docs.is_empty() { vec![] } else { vec![docs.to_string()] };
        Item::Table { docs, attrs: vec![], head, rows, delimiters }
    };
    let all = "The square inputs, and what images of them become.";
    let largest = fields(
        [quote!(crate::IMAGE_SIDE), quote!(crate::TOKENS_PER_IMAGE)],
        [program.io.image, program.io.image_rows],
        quote!(vision::STEPS),
    );
    if program.smaller.is_empty() {
        // A list of one, as rustfmt has it.
        return vec![table(all, quote!(const SIDES: &[Side] =), largest, ("&[Side {", "}];"))];
    }
    let (mut items, mut list) = (Vec::new(), Vec::new());
    for other in &program.smaller {
        let (name, run) = (side_name(other.side), vision_module(other.side));
        let numbers = [other.side, other.tokens].map(number_tokens);
        let rows = fields(numbers, [other.image, other.image_rows], quote!(#run::STEPS));
        items.push(table("", quote!(const #name: Side = Side), rows, ("{", "};")));
        list.push(name);
    }
    let name = side_name(prepared.description.vision.side);
    items.push(table("", quote!(const #name: Side = Side), largest, ("{", "};")));
    list.push(name);
    let tokens = quote!(const SIDES: &[Side] = &[#(#list),*];);
    items.push(if emit::tokens_to_string(&tokens).len() <= emit::MAX_WIDTH {
        Item::Line { docs: vec![all.to_string()], attrs: vec![], tokens }
    } else {
        let rows = list.into_iter().map(|name| (vec![], quote!(#name))).collect();
        table(all, quote!(const SIDES: &[Side] =), rows, ("&[", "];"))
    });
    items
}

/// The constant of a side: long enough that rustfmt does not put several on a line of a list.
fn side_name(side: usize) -> Ident {
    ident(&format!("PICTURES_{side}"))
}

/// The module of the tower for a smaller side.
fn vision_module(side: usize) -> Ident {
    ident(&module(&format!("vision-{side}")))
}
