//! A case and the one check every family uses.

use std::rc::Rc;

use codegen_avx2::Level;
use codegen_neon::Level::Neon;
use codegen_wasm::{Level as Wasm, Simd128};
use kernels::library::Schedule;
use kernels::{Dots, Kernel, Memory, Op, ParamKind, Place, Stmt, Target, interpret, legalize, verify};

use crate::data::{HOLE, float};
use crate::{engine, trace};

/// What an element holds after a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// What it held before: nothing may write it.
    Same,
    /// A float near this one.
    Near(f64),
    /// These bits.
    Bits(u32),
    /// Any finite float: what it is worth is judged as a whole.
    Any,
    /// Anything.
    Word,
}

/// A pointer argument.
#[derive(Clone)]
pub enum Buffer {
    /// Only read. Elements that are [`HOLE`] must not be.
    Read(Vec<u32>),
    /// As [`Buffer::Read`], but holes may be read: their lanes must not matter.
    Loose(Vec<u32>),
    /// Holes first, then this.
    Write(Vec<Want>),
    /// Written in place.
    Update(Vec<u32>, Vec<Want>),
    /// This many floats, with holes first for every part.
    Scratch(fn(&Schedule, usize) -> usize, usize),
}

impl Buffer {
    fn start(&self, s: &Schedule) -> Vec<u32> {
        match self {
            Buffer::Read(start) | Buffer::Loose(start) | Buffer::Update(start, _) => start.clone(),
            Buffer::Write(want) => vec![HOLE; want.len()],
            Buffer::Scratch(size, n) => vec![HOLE; size(s, *n)],
        }
    }
}

/// Scratch of a size that does not depend on the schedule.
pub fn scratch(floats: usize) -> Buffer {
    Buffer::Scratch(|_, n| n, floats)
}

/// A kernel with its arguments and the result.
pub struct Case<'a> {
    /// Says which shape failed.
    pub name: String,
    /// The kernel under a schedule.
    pub kernel: &'a dyn Fn(&Schedule) -> Rc<Kernel>,
    /// Pointer arguments by name.
    pub buffers: Vec<(&'static str, Buffer)>,
    /// Size arguments by name, but `first` and `last`.
    pub sizes: Vec<(&'static str, usize)>,
    /// Units of work, if the kernel ends in `first` and `last`.
    pub units: Option<usize>,
    /// Largest error, as a share of `1 + |expected|`.
    pub tolerance: f64,
}

impl Case<'_> {
    fn buffer(&self, name: &str) -> &Buffer {
        let found = self.buffers.iter().find(|(n, _)| *n == name);
        &found.unwrap_or_else(|| panic!("{}: no buffer {name}", self.name)).1
    }

    fn sizes(&self, kernel: &Kernel, first: usize, last: usize) -> Vec<i64> {
        let value = |name: &str| match (name, self.units) {
            ("first", Some(_)) => first,
            ("last", Some(_)) => last,
            _ => {
                self.sizes.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{}: no size {name}", self.name)).1
            }
        };
        let sizes = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Size(_)));
        sizes.map(|p| value(&p.name) as i64).collect()
    }
}

/// Elements in front of and behind every buffer that nothing may touch.
const GUARD: usize = 48;

/// The targets of quantized models. None fuses, so all give the same bits.
pub fn exact_targets() -> [Box<dyn Target>; 7] {
    [
        Box::new(Level::V3Exact),
        Box::new(Wasm::RelaxedExact),
        Box::new(Level::V3Vnni),
        Box::new(Level::V4Vnni),
        Box::new(codegen_neon::Level::Dotprod),
        Box::new(Simd128),
        Box::new(codegen_neon::Level::I8mm),
    ]
}

/// The targets of float models; all but simd128 fuse multiply and add.
pub fn targets() -> [Box<dyn Target>; 5] {
    [Box::new(Level::V3), Box::new(Level::V4), Box::new(Neon), Box::new(Wasm::Relaxed), Box::new(Simd128)]
}

/// Schedules with small blocks, and tiles no target has.
pub fn odd_schedules() -> [Schedule; 3] {
    let odd = Schedule {
        tile: (3, 2),
        vector_lines: 2,
        integer_tiles: [(2, 3), (5, 2)],
        byte_lines: 3,
        nibble_lines: 3,
        nibbles_in_halves: true,
        dots: Dots::Lanes,
        ahead: 0,
        depth_block: 16,
        depthwise: 3,
        depthwise_weights_in_registers: true,
        strip_bytes: 4096,
    };
    [
        odd,
        Schedule {
            tile: (1, 1),
            vector_lines: 1,
            integer_tiles: [(1, 1), (1, 1)],
            byte_lines: 1,
            nibble_lines: 1,
            nibbles_in_halves: false,
            dots: Dots::Lanes,
            ahead: 64,
            depth_block: 32,
            depthwise: 1,
            depthwise_weights_in_registers: false,
            strip_bytes: 1 << 10,
        },
        Schedule {
            tile: (5, 4),
            vector_lines: 8,
            integer_tiles: [(5, 2), (3, 4)],
            byte_lines: 4,
            nibble_lines: 4,
            nibbles_in_halves: true,
            dots: Dots::Words,
            ahead: 4096,
            depth_block: 48,
            depthwise: 5,
            strip_bytes: 1 << 14,
            ..odd
        },
    ]
}

/// Runs a case everywhere. Returns the floats of what it writes, in order of the parameters.
pub fn check(case: &Case) -> Vec<Vec<u32>> {
    let own: Vec<Schedule> = targets().iter().map(|t| Schedule::new(t.as_ref())).collect();
    let base = execute(case, &(case.kernel)(&own[1]), &own[1], 1, "lines");
    let mut unfused = None;
    for (target, s) in targets().iter().zip(&own) {
        let kernel = legalized(case, s, target.as_ref());
        let found = execute(case, &kernel, s, 1, target.level());
        // `Simd128` rounds twice, so its bits are its own.
        let same = if target.level() == "simd128" { &*unfused.insert(found.clone()) } else { &base };
        assert_eq!(&found, same, "{} at {} has other bits", case.name, target.level());
    }
    for (level, want) in [(Wasm::Relaxed, Some(&base)), (Simd128, unfused.as_ref())] {
        encoded(case, level, &Schedule::new(&level), want);
    }
    for s in odd_schedules() {
        let kernel = (case.kernel)(&s);
        let found = execute(case, &kernel, &s, 1, "another schedule");
        assert_eq!(found, base, "{}: {s:?} has other bits", case.name);
        trace::check(case, &kernel, &s);
    }
    let s = &odd_schedules()[0];
    let found = execute(case, &legalized(case, s, &Simd128), s, 1, "simd128, another schedule");
    assert_eq!(Some(&found), unfused.as_ref(), "{}: {s:?} has other bits on simd128", case.name);
    encoded(case, Wasm::Relaxed, s, Some(&base));
    for (parts, s) in [2, 3, 7].into_iter().zip(&own) {
        if case.units.is_some() {
            let found = execute(case, &(case.kernel)(s), s, parts, "parts");
            assert_eq!(found, base, "{}: {parts} parts have other bits", case.name);
        }
    }
    base
}

/// Runs a quantized case on all targets of quantized models, with several schedules and in parts:
/// the same bits everywhere. Returns what [`check`] does.
///
/// NEON and lines join in where there is no multiply-add. They fuse, so that a kernel with one (of a
/// GELU, a norm, a convolution) has other bits there: then they are compared with each other.
pub fn check_exact(case: &Case) -> Vec<Vec<u32>> {
    let own: Vec<Schedule> = exact_targets().iter().map(|t| Schedule::new(t.as_ref())).collect();
    let base = execute(case, &legalized(case, &own[0], &Level::V3Exact), &own[0], 1, "v3");
    for (target, s) in exact_targets().iter().zip(&own) {
        let found = execute(case, &legalized(case, s, target.as_ref()), s, 1, target.level());
        assert_eq!(found, base, "{} at {} has other bits", case.name, target.level());
    }
    for level in [Simd128, Wasm::RelaxedExact, Wasm::RelaxedDot] {
        encoded(case, level, &Schedule::new(&level), Some(&base));
    }
    encoded(case, Wasm::RelaxedExact, &odd_schedules()[0], Some(&base));
    let kernel = (case.kernel)(&own[0]);
    if has_multiply_add(&kernel) {
        let lines = observe(case, &kernel, &own[0], 1, "lines", false, &interpreted);
        let neon = observe(case, &legalized(case, &own[0], &Neon), &own[0], 1, "neon", false, &interpreted);
        assert_eq!(neon, lines, "{}: NEON has other bits than lines", case.name);
    } else {
        assert_eq!(execute(case, &kernel, &own[0], 1, "lines"), base, "{}: lines have other bits", case.name);
        let neon = execute(case, &legalized(case, &own[0], &Neon), &own[0], 1, "neon");
        assert_eq!(neon, base, "{} at NEON has other bits", case.name);
    }
    for (s, target) in odd_schedules().iter().zip(exact_targets().iter().rev()) {
        let found = execute(case, &legalized(case, s, target.as_ref()), s, 1, "another schedule");
        assert_eq!(found, base, "{} at {}: {s:?} has other bits", case.name, target.level());
    }
    for (parts, (target, s)) in [2, 3, 7].into_iter().zip(exact_targets().iter().zip(&own)) {
        if case.units.is_some() {
            let found = execute(case, &legalized(case, s, target.as_ref()), s, parts, "parts");
            assert_eq!(found, base, "{}: {parts} parts have other bits", case.name);
        }
    }
    base
}

/// Whether a kernel or one it calls has a multiply-add.
pub fn has_multiply_add(kernel: &Rc<Kernel>) -> bool {
    kernel.with_callees().iter().any(|k| fuses(&k.body))
}

/// Whether a multiply-add is among the statements.
fn fuses(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => {
            matches!(op, Op::MulAdd(..) | Op::NegMulAdd(..))
        }
        Stmt::Loop(_, _, _, body) => fuses(body),
        Stmt::IfLess(_, _, then, otherwise) => fuses(then) || fuses(otherwise),
        Stmt::IfAtLeast(_, _, then) => fuses(then),
        _ => false,
    })
}

/// What a kernel makes of buffers where nothing is fused: all buffers afterwards.
pub fn unfused(kernel: &Kernel, buffers: &[Vec<u32>], sizes: &[usize]) -> Vec<Vec<u32>> {
    let mut memory = Memory { buffers: buffers.to_vec() };
    let places: Vec<Place> = (0..buffers.len()).map(|buffer| Place { buffer, at: 0 }).collect();
    let sizes: Vec<i64> = sizes.iter().map(|n| *n as i64).collect();
    let kernel = legalize(kernel, &Level::V3Exact);
    interpret(&kernel, &mut memory, &places, &sizes).unwrap_or_else(|e| panic!("{e}"));
    memory.buffers
}

fn legalized(case: &Case, s: &Schedule, target: &dyn Target) -> Rc<Kernel> {
    let kernel = (case.kernel)(s);
    verify(&kernel).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let kernel = legalize(&kernel, target);
    verify(&kernel).unwrap_or_else(|e| panic!("{} at {}: {e}", case.name, target.level()));
    trace::check(case, &kernel, s);
    kernel
}

/// Runs `kernel` on guarded buffers, its units in parts, and compares with what the case wants.
fn execute(case: &Case, kernel: &Kernel, s: &Schedule, parts: usize, how: &str) -> Vec<Vec<u32>> {
    observe(case, kernel, s, parts, how, true, &interpreted)
}

/// What runs a kernel: memory, pointers and sizes.
type Run<'a> = &'a dyn Fn(&Kernel, &mut Memory, &[Place], &[i64]) -> Result<(), String>;

fn interpreted(kernel: &Kernel, memory: &mut Memory, places: &[Place], sizes: &[i64]) -> Result<(), String> {
    interpret(kernel, memory, places, sizes).map_err(|e| e.to_string())
}

/// Runs the encoded function of a level where there is an engine; it must give `want`.
fn encoded(case: &Case, level: Wasm, s: &Schedule, want: Option<&Vec<Vec<u32>>>) {
    if engine::missing(level) {
        return;
    }
    let kernel = legalized(case, s, &level);
    let run = |kernel: &Kernel, memory: &mut Memory, places: &[Place], sizes: &[i64]| {
        engine::run(kernel, level, memory, places, sizes)
    };
    let found = observe(case, &kernel, s, 1, "encoded", false, &run);
    assert_eq!(Some(&found), want, "{}: encoded at {level:?} it has other bits", case.name);
}

/// [`execute`] by other means; `judged` says whether what is written is compared.
fn observe(
    case: &Case,
    kernel: &Kernel,
    s: &Schedule,
    parts: usize,
    how: &str,
    judged: bool,
    run: Run,
) -> Vec<Vec<u32>> {
    let mut memory = Memory::default();
    let mut places = Vec::new();
    for (name, _, _) in kernel.pointers() {
        let mut elements = vec![HOLE; GUARD];
        elements.extend(case.buffer(name).start(s));
        elements.extend([HOLE; GUARD]);
        places.push(Place { buffer: memory.buffers.len(), at: 4 * GUARD });
        memory.buffers.push(elements);
    }
    let before = memory.buffers.clone();
    for (first, last) in split(case, parts) {
        for ((name, _, _), place) in kernel.pointers().zip(&places) {
            if matches!(case.buffer(name), Buffer::Scratch(..)) {
                memory.buffers[place.buffer].fill(HOLE);
            }
        }
        let sizes = case.sizes(kernel, first, last);
        run(kernel, &mut memory, &places, &sizes).unwrap_or_else(|e| panic!("{}, {how}: {e}", case.name));
    }
    let mut out = Vec::new();
    for (((name, _, _), after), before) in kernel.pointers().zip(&memory.buffers).zip(&before) {
        let end = after.len() - GUARD;
        let guarded = after[..GUARD].iter().chain(&after[end..]).all(|&e| e == HOLE);
        assert!(guarded, "{}, {how}: guards of {name} are overwritten", case.name);
        let (after, before) = (&after[GUARD..end], &before[GUARD..end]);
        match case.buffer(name) {
            Buffer::Read(_) | Buffer::Loose(_) => {
                assert_eq!(after, before, "{}, {how}: {name} is overwritten", case.name)
            }
            Buffer::Scratch(..) => {}
            Buffer::Write(want) | Buffer::Update(_, want) => {
                for (i, want) in want.iter().enumerate().filter(|_| judged) {
                    compare(*want, before[i], after[i], case.tolerance)
                        .unwrap_or_else(|e| panic!("{}, {how}: {name}[{i}] {e}", case.name));
                }
                out.push(after.to_vec());
            }
        }
    }
    out
}

fn compare(want: Want, before: u32, after: u32, tolerance: f64) -> Result<(), String> {
    let right = match want {
        Want::Same => after == before,
        Want::Bits(bits) => after == bits,
        Want::Any => f32::from_bits(after).is_finite(),
        Want::Word => after != before,
        Want::Near(want) => {
            let error = (f64::from(f32::from_bits(after)) - want).abs();
            error <= tolerance * (1.0 + want.abs())
        }
    };
    if right {
        Ok(())
    } else {
        Err(format!("is {} ({after:#x}), {want:?} is wanted, was {}", float(after), float(before)))
    }
}

/// The units of a case in parts as the runtime divides them, larger ones first: where there are too few units the last
/// parts are empty. One part without units.
pub fn split(case: &Case, parts: usize) -> Vec<(usize, usize)> {
    let units = case.units.unwrap_or(0);
    let begin = |i: usize| units / parts * i + i.min(units % parts);
    (0..parts).map(|i| (begin(i), begin(i + 1))).collect()
}

/// Sizes of a whole run.
pub fn whole(case: &Case, kernel: &Kernel) -> Vec<i64> {
    case.sizes(kernel, 0, case.units.unwrap_or(0))
}

/// Sizes of a part.
pub fn part(case: &Case, kernel: &Kernel, (first, last): (usize, usize)) -> Vec<i64> {
    case.sizes(kernel, first, last)
}

/// Holes and contents of each argument before a run.
pub fn contents(case: &Case, kernel: &Kernel, s: &Schedule) -> Vec<(Vec<u32>, Buffer)> {
    kernel.pointers().map(|(name, _, _)| (case.buffer(name).start(s), case.buffer(name).clone())).collect()
}
