//! A kernels module: kernels, the steps of all phases, and the functions that a page calls.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use codegen_wasm::{encode, signature, worth_constants};
use kernels::{Kernel, ParamKind, legalize, specialize, verify};
use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, ElementSection, Elements, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalType, ImportSection, Instruction as I, MemoryType, Module, RefType, Section, TableSection,
    TableType, TypeSection, ValType,
};

use super::team::{self, Parts};
use super::{Variant, info, phases};
use crate::error::Error;
use crate::lower::{Phase, Place, Step, Units};
use crate::pipeline::Prepared;

/// Imported globals, in order.
const ARENA: u32 = 0;
const WEIGHTS: u32 = 1;
const CONTROL: u32 = 2;

/// Most pages of shared memory, which has to name a limit: all of 32 bits.
const MOST_PAGES: u64 = 1 << 16;

/// The code of a kernels module, to which [`tell`] adds what it says of itself.
///
/// # Errors
/// [`Error::Bug`] if two kernels share a name or one is malformed.
pub fn code(prepared: &Prepared, variant: Variant) -> Result<Vec<u8>, Error> {
    let phases: Vec<&Phase> = phases(prepared).into_iter().map(|(_, phase)| phase).collect();
    let kernels = all_kernels(prepared, variant, &phases)?;
    let names: HashMap<&str, u32> = (0..).zip(&kernels).map(|(i, k)| (k.name.as_str(), i)).collect();
    let index = |name: &str| names.get(name).copied().unwrap_or(u32::MAX);
    let mut m = Writer::default();
    for kernel in &kernels {
        m.function(signature(kernel), 0, encode(kernel, variant.level(prepared), &index));
    }
    // The table holds each step, then what counts its units.
    let mut table = Vec::new();
    for step in phases.iter().flat_map(|phase| &phase.steps) {
        let kernel = &step.kernels[variant.index(prepared)];
        table.push(m.function(STEP, 0, step_function(prepared, step, kernel, index(&kernel.name))));
    }
    let n_steps = table.len();
    let mut counts: Vec<(Units, u32)> = Vec::new();
    for step in phases.iter().flat_map(|phase| &phase.steps) {
        let known = counts.iter().find(|(units, _)| *units == step.units).map(|(_, function)| *function);
        let function = known.unwrap_or_else(|| {
            let function = m.function(1, 1, units_function(step.units));
            counts.push((step.units, function));
            function
        });
        table.push(function);
    }
    let lengths: Vec<usize> = phases.iter().map(|phase| phase.steps.len()).collect();
    let count = m.function(1, 1, lengths_function(&lengths, false));
    let base = m.function(1, 1, lengths_function(&lengths, true));
    let units_type = m.ty(1, 1);
    let units = m.function(3, 1, lookup(base, n_steps, units_type, &[2]));
    let step = {
        let (arena, scratch) = (line(prepared.memory.total), line(prepared.program.scratch_bytes));
        let ty = m.ty(STEP, 0);
        m.function(7, 0, dispatch(base, ty, (arena, scratch)))
    };
    let kernel = &prepared.program.embed[variant.index(prepared)];
    let embed = m.function(2, 0, embed_function(prepared, kernel, index(&kernel.name)));
    // `run` follows; shared memory needs what it calls first.
    let next = m.next();
    let (wait, barrier, run) = if variant.shared { (next, next + 1, next + 2) } else { (0, 0, next) };
    let parts = Parts { control: CONTROL, count, units, step, run, barrier, wait };
    if variant.shared {
        m.function(2, 0, team::wait());
        m.function(1, 1, team::barrier(&parts));
    }
    m.function(5, 1, team::run(&parts, variant.shared));
    let mut exports = vec![("step", step), ("units", units), ("embed", embed), ("run", run)];
    if variant.shared {
        exports.push(("work", m.function(2, 0, team::work(&parts))));
        exports.push(("begin", m.function(4, 0, team::begin(&parts))));
        exports.push(("stop", m.function(0, 0, team::stop(&parts))));
    }
    Ok(m.finish(variant.shared, &table, &exports))
}

/// Adds the section `tvlmc.info` to a module.
pub fn tell(module: &mut Vec<u8>, told: &[u8]) {
    CustomSection { name: info::SECTION.into(), data: told.into() }.append_to(module);
}

/// Parameters of a step's function: first, last, start, rows, and the address of scratch.
const STEP: usize = 5;

/// Bytes rounded up to lines.
fn line(bytes: usize) -> usize {
    bytes.next_multiple_of(64)
}

/// Every kernel at the variant's level, callees before callers; one for each set of distances that it is called with.
fn all_kernels(prepared: &Prepared, variant: Variant, phases: &[&Phase]) -> Result<Vec<Rc<Kernel>>, Error> {
    let (program, at, level) = (&prepared.program, variant.index(prepared), variant.level(prepared));
    let entries = phases.iter().flat_map(|phase| &phase.steps).map(|step| &step.kernels[at]);
    let mut sources: HashMap<String, Rc<Kernel>> = HashMap::new();
    let (mut all, mut made, mut seen) = (Vec::new(), HashMap::new(), HashSet::new());
    for entry in entries.chain([&program.embed[at]]) {
        if sources.get(&entry.name).is_some_and(|known| known.body == entry.body) {
            continue;
        }
        for kernel in entry.with_callees() {
            match sources.get(&kernel.name) {
                Some(other) if other.body == kernel.body => {}
                Some(_) => return Err(Error::Bug(format!("two kernels are named {}", kernel.name))),
                None => {
                    sources.insert(kernel.name.clone(), kernel);
                }
            }
        }
        let legal = legalize(entry, &level);
        verify(&legal).map_err(|e| Error::Bug(e.to_string()))?;
        let own = specialize(&legal, &|callee| worth_constants(callee, level), &mut made);
        all.extend(own.with_callees().into_iter().filter(|kernel| seen.insert(kernel.name.clone())));
    }
    Ok(all)
}

/// The code section and what declares it.
#[derive(Default)]
struct Writer {
    types: Vec<(usize, usize)>,
    functions: FunctionSection,
    code: CodeSection,
}

impl Writer {
    /// The type of a function of integers.
    fn ty(&mut self, params: usize, results: usize) -> u32 {
        let known = self.types.iter().position(|ty| *ty == (params, results));
        known.unwrap_or_else(|| {
            self.types.push((params, results));
            self.types.len() - 1
        }) as u32
    }

    /// The index of the next function.
    fn next(&self) -> u32 {
        self.code.len()
    }

    fn function(&mut self, params: usize, results: usize, body: Function) -> u32 {
        let (ty, at) = (self.ty(params, results), self.next());
        self.functions.function(ty);
        self.code.function(&body);
        at
    }

    fn finish(self, shared: bool, table: &[u32], exported: &[(&str, u32)]) -> Vec<u8> {
        let mut types = TypeSection::new();
        for (params, results) in &self.types {
            types.ty().function(vec![ValType::I32; *params], vec![ValType::I32; *results]);
        }
        let mut imports = ImportSection::new();
        let maximum = shared.then_some(MOST_PAGES);
        let memory = MemoryType { minimum: 0, maximum, memory64: false, shared, page_size_log2: None };
        imports.import("env", "memory", EntityType::Memory(memory));
        for name in ["arena", "weights", "control"] {
            let global = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
            imports.import("env", name, EntityType::Global(global));
        }
        let size = table.len() as u64;
        let mut tables = TableSection::new();
        let element_type = RefType::FUNCREF;
        tables.table(TableType { element_type, table64: false, minimum: size, maximum: Some(size), shared: false });
        let mut elements = ElementSection::new();
        elements.active(None, &ConstExpr::i32_const(0), Elements::Functions(table.into()));
        let mut exports = ExportSection::new();
        for (name, function) in exported {
            exports.export(name, ExportKind::Func, *function);
        }
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&self.functions).section(&tables).section(&exports);
        module.section(&elements).section(&self.code);
        module.finish()
    }
}

fn function(locals: u32, code: impl IntoIterator<Item = I<'static>>) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    code.into_iter().for_each(|i| {
        function.instruction(&i);
    });
    function.instruction(&I::End);
    function
}

/// The address of an operand.
fn address(prepared: &Prepared, place: Place, scratch: I<'static>) -> Vec<I<'static>> {
    let packs = &prepared.program.packs;
    let (base, at) = match place {
        Place::Weight(pack) => (I::GlobalGet(WEIGHTS), packs.offset(pack)),
        Place::Scales(pack) => (I::GlobalGet(WEIGHTS), packs.offset(pack) + 4 * packs.scales_at(pack)),
        Place::Reach(pack) => (I::GlobalGet(WEIGHTS), packs.offset(pack) + 4 * packs.reach_at(pack)),
        Place::Slot(slot, at) => (I::GlobalGet(ARENA), prepared.memory.offsets[slot.0] + 4 * at),
        Place::Scratch => return vec![scratch],
    };
    vec![base, I::I32Const(at as u32 as i32), I::I32Add]
}

/// `(first, last, start, rows, scratch)`: a kernel with the operands of a step.
fn step_function(prepared: &Prepared, step: &Step, kernel: &Kernel, callee: u32) -> Function {
    let mut places = step.pointers.iter();
    let mut code = Vec::new();
    for param in &kernel.params {
        match param.kind {
            ParamKind::Ptr(..) => {
                let place = places.next().copied().unwrap_or(Place::Scratch);
                code.extend(address(prepared, place, I::LocalGet(4)));
            }
            ParamKind::Size(_) => match param.name.as_str() {
                "first" => code.push(I::LocalGet(0)),
                "last" => code.push(I::LocalGet(1)),
                "start" => code.push(I::LocalGet(2)),
                "row" => code.extend([I::LocalGet(3), I::I32Const(1), I::I32Sub]),
                _ => code.push(I::LocalGet(3)),
            },
        }
    }
    code.push(I::Call(callee));
    function(0, code)
}

/// `rows` to units of work.
fn units_function(units: Units) -> Function {
    let blocks = |block: usize| {
        let block = block as i32;
        [I::LocalGet(0), I::I32Const(block - 1), I::I32Add, I::I32Const(block), I::I32DivU]
    };
    match units {
        Units::Fixed(n) => function(0, [I::I32Const(n as i32)]),
        Units::Rows(group) => function(0, blocks(group)),
        Units::HeadRows { heads, block } => {
            function(0, blocks(block).into_iter().chain([I::I32Const(heads as i32), I::I32Mul]))
        }
    }
}

/// A phase to how many steps it has, or how many come before it. Zero for a phase that there is not.
fn lengths_function(lengths: &[usize], before: bool) -> Function {
    let mut code = vec![I::I32Const(0)];
    for (phase, n) in lengths.iter().enumerate() {
        code.extend([I::I32Const(*n as i32), I::I32Const(0), I::LocalGet(0), I::I32Const(phase as i32)]);
        code.push(if before { I::I32GtU } else { I::I32Eq });
        code.extend([I::Select, I::I32Add]);
    }
    function(0, code)
}

/// `(phase, index, ...)` to the function in the table, `by` behind the phase's first; it takes the parameters `args`.
fn lookup(base: u32, by: usize, type_index: u32, args: &[u32]) -> Function {
    let args = args.iter().map(|arg| I::LocalGet(*arg));
    let at = [I::LocalGet(0), I::Call(base), I::LocalGet(1), I::I32Add, I::I32Const(by as i32), I::I32Add];
    function(0, args.chain(at).chain([I::CallIndirect { type_index, table_index: 0 }]))
}

/// `(phase, index, first, last, start, rows, member)`: the step, with the member's scratch behind the arena.
fn dispatch(base: u32, type_index: u32, (arena, scratch): (usize, usize)) -> Function {
    let scratch = [
        I::GlobalGet(ARENA),
        I::I32Const(arena as i32),
        I::I32Add,
        I::LocalGet(6),
        I::I32Const(scratch as i32),
        I::I32Mul,
        I::I32Add,
    ];
    let at = [I::LocalGet(0), I::Call(base), I::LocalGet(1), I::I32Add, I::CallIndirect { type_index, table_index: 0 }];
    function(0, (2..6).map(I::LocalGet).chain(scratch).chain(at))
}

/// `(id, row)`: the embedding of a token to a row of the decoder's input.
fn embed_function(prepared: &Prepared, kernel: &Kernel, callee: u32) -> Function {
    let (program, hidden) = (&prepared.program, prepared.description.text.hidden);
    let pitch = 4 * kernels::library::pitch(hidden);
    let mut code = Vec::new();
    for place in &program.embed_pointers {
        code.extend(address(prepared, *place, I::I32Const(0)));
    }
    code.extend(address(prepared, Place::Slot(program.io.rows, 0), I::I32Const(0)));
    code.extend([I::LocalGet(1), I::I32Const(pitch as i32), I::I32Mul, I::I32Add, I::LocalGet(0), I::Call(callee)]);
    debug_assert_eq!(kernel.pointers().count(), program.embed_pointers.len() + 1);
    function(0, code)
}
