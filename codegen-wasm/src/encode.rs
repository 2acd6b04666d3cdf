//! Kernels as encoded functions: pointers and sizes are 32-bit integers, registers are locals.
//!
//! Engines allocate registers and choose machine instructions well, but do little about loops: innermost loops are
//! unrolled a few times here, with addresses in pointers that move (`address`). Constants of recipes are made once.

use std::collections::BTreeMap;

use kernels::{Arg, Elem, Int, Kernel, Op, ParamKind, Ptr, Reg, Stmt, Var};
use wasm_encoder::{BlockType, Function, Instruction as I, MemArg, ValType};

use crate::Level;
use crate::address::{Known, Pointers, Sum, advanced, distance};
use crate::ops::{self, Recipe, Value};

/// Iterations of an innermost loop that become one, at the most.
const UNROLLED: i64 = 4;

/// Statements of an unrolled body, at the most. A product is several instructions without relaxed ones, and longer bodies
/// are slower then.
const UNROLLED_RELAXED: usize = 64;
const UNROLLED_SIMD128: usize = 48;

/// How many parameters the function of a kernel has, all of them 32-bit integers; it returns nothing.
pub fn signature(kernel: &Kernel) -> usize {
    kernel.params.len()
}

/// The function of `kernel`, which must be legalized for `level` and verified. `index` gives the function of a kernel
/// that it calls, by name.
pub fn encode(kernel: &Kernel, level: Level, index: &dyn Fn(&str) -> u32) -> Function {
    let mut e = Encoder {
        level,
        index,
        pointers: Vec::new(),
        vars: vec![0; kernel.vars.len()],
        n_params: kernel.params.len() as u32,
        locals: Vec::new(),
        regs: Vec::new(),
        constants: BTreeMap::new(),
        moving: Pointers::default(),
        places: Vec::new(),
        known: Known::new(),
        code: Vec::new(),
    };
    for (i, param) in kernel.params.iter().enumerate() {
        match param.kind {
            ParamKind::Ptr(_, elem, _) => e.pointers.push((i as u32, elem)),
            ParamKind::Size(var) => e.vars[var.0 as usize] = i as u32,
        }
    }
    let given: Vec<usize> = kernel.params.iter().filter_map(|p| size(p.kind)).collect();
    for var in (0..kernel.vars.len()).filter(|var| !given.contains(var)) {
        e.vars[var] = e.local(ValType::I32);
    }
    e.regs = kernel.regs.iter().map(|_| e.local(ValType::V128)).collect();
    e.block(&kernel.body);
    e.finish()
}

/// Pointers that an innermost loop keeps in registers of the machine; more than these are read from the stack again and
/// again.
const MOST_PLACES: usize = 8;

/// Whether a kernel is faster where the distances it is called with are constants: an innermost loop then has pointers
/// for fewer of its addresses. Without relaxed instructions products bind, not addresses, and where all of these have
/// registers one function does for all distances, which makes modules smaller. With them it costs 4 %
/// (`cargo run --release -p codegen-wasm --example rates gemm`).
pub fn worth_constants(kernel: &Kernel, level: Level) -> bool {
    most_places(&kernel.body) > if level.relaxed() { 0 } else { MOST_PLACES }
}

/// The most pointers of an innermost loop.
fn most_places(body: &[Stmt]) -> usize {
    let of = |stmt: &Stmt| match stmt {
        Stmt::Loop(var, _, _, body) if is_innermost(body) => Pointers::of(*var, body).all.len(),
        Stmt::Loop(_, _, _, body) | Stmt::IfAtLeast(_, _, body) => most_places(body),
        Stmt::IfLess(_, _, then, otherwise) => most_places(then).max(most_places(otherwise)),
        _ => 0,
    };
    body.iter().map(of).max().unwrap_or(0)
}

fn size(kind: ParamKind) -> Option<usize> {
    match kind {
        ParamKind::Size(var) => Some(var.0 as usize),
        ParamKind::Ptr(..) => None,
    }
}

struct Encoder<'a> {
    level: Level,
    index: &'a dyn Fn(&str) -> u32,
    /// Local and element of each pointer.
    pointers: Vec<(u32, Elem)>,
    /// Locals of integers.
    vars: Vec<u32>,
    n_params: u32,
    /// Types of the locals behind the parameters.
    locals: Vec<ValType>,
    /// Locals of registers.
    regs: Vec<u32>,
    /// Locals of the constants that recipes take, set at the beginning.
    constants: BTreeMap<i16, u32>,
    /// Pointers of the innermost loop, and their locals.
    moving: Pointers,
    places: Vec<u32>,
    /// Integers named in it.
    known: Known,
    code: Vec<I<'static>>,
}

impl Encoder<'_> {
    fn finish(self) -> Function {
        let mut function = Function::new_with_locals_types(self.locals);
        for (value, local) in &self.constants {
            let bits = (0..8).fold(0u128, |bits, lane| bits | u128::from(*value as u16) << (16 * lane));
            function.instruction(&I::V128Const(bits as i128));
            function.instruction(&I::LocalSet(*local));
        }
        for instruction in &self.code {
            function.instruction(instruction);
        }
        function.instruction(&I::End);
        function
    }

    fn local(&mut self, ty: ValType) -> u32 {
        self.locals.push(ty);
        self.n_params + self.locals.len() as u32 - 1
    }

    fn push(&mut self, instruction: I<'static>) {
        self.code.push(instruction);
    }

    fn get(&mut self, reg: Reg) {
        self.push(I::LocalGet(self.regs[reg.0 as usize]));
    }

    fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) => {}
            Stmt::Let(reg, op) | Stmt::LetMut(reg, op) | Stmt::Set(reg, op) => {
                self.op(op);
                self.push(I::LocalSet(self.regs[reg.0 as usize]));
            }
            Stmt::Store(ptr, at, reg) => self.write(*ptr, at, *reg, ops::store),
            Stmt::StoreOne(ptr, at, reg) => self.write(*ptr, at, *reg, ops::store_one),
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                let (_, to) = self.address(*to, to_at);
                let (_, from) = self.address(*from, from_at);
                self.push(I::I32Load(from));
                self.push(I::I32Store(to));
            }
            Stmt::LetInt(var, value) => {
                self.int(value);
                self.push(I::LocalSet(self.vars[var.0 as usize]));
                if !self.places.is_empty() {
                    self.known.insert(*var, value.clone());
                }
            }
            Stmt::Loop(var, from, to, body) => self.repeat(*var, from, to, body),
            Stmt::IfLess(a, b, then, otherwise) => {
                self.int(a);
                self.int(b);
                self.push(I::I32LtU);
                self.branch(then, otherwise);
            }
            Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                let (_, x) = self.address(*x, x_at);
                self.push(I::F32Load(x));
                let (_, y) = self.address(*y, y_at);
                self.push(I::F32Load(y));
                self.push(I::F32Ge);
                self.branch(then, &[]);
            }
            Stmt::Call(callee, args) => {
                for arg in args {
                    match arg {
                        Arg::Ptr(ptr, at) => self.whole_address(*ptr, at),
                        Arg::Size(n) => self.int(n),
                    }
                }
                self.push(I::Call((self.index)(&callee.name)));
            }
        }
    }

    fn branch(&mut self, then: &[Stmt], otherwise: &[Stmt]) {
        self.push(I::If(BlockType::Empty));
        self.block(then);
        if !otherwise.is_empty() {
            self.push(I::Else);
            self.block(otherwise);
        }
        self.push(I::End);
    }

    /// A loop. The innermost one moves its pointers.
    fn repeat(&mut self, var: Var, from: &Int, to: &Int, body: &[Stmt]) {
        let (counter, trips) = (self.vars[var.0 as usize], distance(from, to));
        if trips.is_some_and(|n| n <= 0) {
            return;
        }
        let inner = is_innermost(body);
        let steps = if inner { unrolled(trips, body, self.level) } else { 1 };
        let copies: Vec<Stmt> = (0..steps as usize).flat_map(|i| advanced(body, var, i)).collect();
        let body = if steps > 1 { &copies } else { body };

        self.int(from);
        self.push(I::LocalSet(counter));
        let end = match to.constant() {
            Some(_) => None,
            None => {
                let end = self.local(ValType::I32);
                self.int(to);
                self.push(I::LocalSet(end));
                Some(end)
            }
        };
        let last = |e: &mut Self| match end {
            Some(end) => e.push(I::LocalGet(end)),
            None => e.int(to),
        };
        // What is known not to be empty is not asked.
        if trips.is_none() {
            self.push(I::LocalGet(counter));
            last(self);
            self.push(I::I32LtU);
            self.push(I::If(BlockType::Empty));
        }
        if inner {
            self.begin_moving(var, body);
        }
        let once = trips == Some(steps);
        if !once {
            self.push(I::Loop(BlockType::Empty));
        }
        self.block(body);
        if !once {
            self.advance(steps);
            self.push(I::LocalGet(counter));
            self.push(I::I32Const(steps as i32));
            self.push(I::I32Add);
            self.push(I::LocalTee(counter));
            last(self);
            self.push(I::I32LtU);
            self.push(I::BrIf(0));
            self.push(I::End);
        }
        if inner {
            (self.moving, self.places, self.known) = (Pointers::default(), Vec::new(), Known::new());
        }
        if trips.is_none() {
            self.push(I::End);
        }
    }

    /// Sets the pointers of an innermost loop, whose counter has its first value.
    fn begin_moving(&mut self, var: Var, body: &[Stmt]) {
        let moving = Pointers::of(var, body);
        for m in &moving.all {
            let mut start = m.start();
            if m.stride != 0 {
                start.terms.push((Int::Var(var), m.stride));
            }
            let (local, elem) = self.pointers[m.ptr.0 as usize];
            self.push(I::LocalGet(local));
            self.sum(&start, elem.bytes() as i64);
            self.push(I::I32Add);
            let place = self.local(ValType::I32);
            self.push(I::LocalSet(place));
            self.places.push(place);
        }
        self.moving = moving;
    }

    fn advance(&mut self, steps: i64) {
        for (at, place) in self.places.clone().into_iter().enumerate() {
            let m = &self.moving.all[at];
            let bytes = m.stride * steps * self.pointers[m.ptr.0 as usize].1.bytes() as i64;
            if bytes != 0 {
                self.push(I::LocalGet(place));
                self.push(I::I32Const(bytes as i32));
                self.push(I::I32Add);
                self.push(I::LocalSet(place));
            }
        }
    }

    /// An integer expression.
    fn int(&mut self, n: &Int) {
        match n {
            Int::Const(c) => self.push(I::I32Const(*c as u32 as i32)),
            Int::Var(v) => self.push(I::LocalGet(self.vars[v.0 as usize])),
            Int::Add(a, b) => self.both(a, b, I::I32Add),
            Int::Sub(a, b) => self.both(a, b, I::I32Sub),
            Int::Mul(a, b) => match b.constant() {
                Some(c) => {
                    self.int(a);
                    self.times(c);
                }
                None => self.both(a, b, I::I32Mul),
            },
            Int::Div(a, b) => match power(b) {
                Some(bits) => self.both(a, &Int::Const(bits), I::I32ShrU),
                None => self.both(a, b, I::I32DivU),
            },
            Int::Rem(a, b) => match power(b) {
                Some(bits) => self.both(a, &Int::Const((1 << bits) - 1), I::I32And),
                None => self.both(a, b, I::I32RemU),
            },
            Int::Min(a, b) => self.choose(a, b, I::I32LtU),
            Int::Max(a, b) => self.choose(a, b, I::I32GtU),
        }
    }

    fn both(&mut self, a: &Int, b: &Int, instruction: I<'static>) {
        self.int(a);
        self.int(b);
        self.push(instruction);
    }

    fn choose(&mut self, a: &Int, b: &Int, first: I<'static>) {
        let (x, y) = (self.local(ValType::I32), self.local(ValType::I32));
        self.int(a);
        self.push(I::LocalTee(x));
        self.int(b);
        self.push(I::LocalTee(y));
        self.push(I::LocalGet(x));
        self.push(I::LocalGet(y));
        self.push(first);
        self.push(I::Select);
    }

    /// Multiplies what was computed last.
    fn times(&mut self, c: i64) {
        match c {
            1 => {}
            _ if c > 0 && c.count_ones() == 1 => {
                self.push(I::I32Const(c.trailing_zeros() as i32));
                self.push(I::I32Shl);
            }
            _ => {
                self.push(I::I32Const(c as i32));
                self.push(I::I32Mul);
            }
        }
    }

    /// A sum, times `scale`.
    fn sum(&mut self, sum: &Sum, scale: i64) {
        let mut begun = false;
        for (term, coefficient) in &sum.terms {
            self.int(term);
            self.times(coefficient * scale);
            if begun {
                self.push(I::I32Add);
            }
            begun = true;
        }
        if sum.constant != 0 || !begun {
            self.push(I::I32Const((sum.constant * scale) as i32));
            if begun {
                self.push(I::I32Add);
            }
        }
    }

    /// The address of an element as a base, which is computed, and an offset.
    fn address(&mut self, ptr: Ptr, at: &Int) -> (Elem, MemArg) {
        let (local, elem) = self.pointers[ptr.0 as usize];
        let bytes = elem.bytes() as i64;
        let memarg = |elements: i64| MemArg { offset: (elements * bytes) as u64, align: 0, ..MEMORY };
        if let Some((found, offset)) = self.moving.find(ptr, at, &self.known) {
            self.push(I::LocalGet(self.places[found]));
            return (elem, memarg(offset));
        }
        let mut sum = Sum::of(at, &Known::new());
        // An offset is added without wrapping around: what it is added to must be an address of its own.
        let offset = if sum.grows() { std::mem::take(&mut sum.constant) } else { 0 };
        self.push(I::LocalGet(local));
        if sum != Sum::default() {
            self.sum(&sum, bytes);
            self.push(I::I32Add);
        }
        (elem, memarg(offset))
    }

    /// The address of an element as one number.
    fn whole_address(&mut self, ptr: Ptr, at: &Int) {
        let (_, memarg) = self.address(ptr, at);
        if memarg.offset != 0 {
            self.push(I::I32Const(memarg.offset as u32 as i32));
            self.push(I::I32Add);
        }
    }

    fn write(&mut self, ptr: Ptr, at: &Int, reg: Reg, access: fn(Elem) -> ops::Access) {
        let (elem, memarg) = self.address(ptr, at);
        let access = access(elem);
        self.recipe(&access.convert, &[self.regs[reg.0 as usize]]);
        self.push((access.code)(memarg));
    }

    /// An operation; its result is left on the stack.
    fn op(&mut self, op: &Op) {
        match op {
            Op::Splat(x) => self.words([x.to_bits(); 4]),
            Op::SplatBits(x) => self.words([*x as u32; 4]),
            Op::SplatInt(n) => {
                self.int(n);
                self.push(I::I32x4Splat);
            }
            Op::Iota(from) => self.words([0, 1, 2, 3].map(|i| (from + i) as u32)),
            Op::Load(ptr, at) => {
                let (elem, memarg) = self.address(*ptr, at);
                let access = ops::load(elem);
                self.push((access.code)(memarg));
                if !access.convert.steps.is_empty() {
                    let loaded = self.local(ValType::V128);
                    self.push(I::LocalSet(loaded));
                    self.recipe(&access.convert, &[loaded]);
                }
            }
            Op::Broadcast(ptr, at) => {
                let (elem, memarg) = self.address(*ptr, at);
                match elem {
                    Elem::F32 | Elem::U32 => self.push(I::V128Load32Splat(memarg)),
                    Elem::I8 => {
                        self.push(I::I32Load8S(memarg));
                        self.push(I::I32x4Splat);
                    }
                    Elem::U16 | Elem::F16 => {
                        self.push(I::I32Load16U(memarg));
                        self.push(I::I32x4Splat);
                    }
                }
            }
            // Expanded by the legalizer.
            Op::Quad(..) | Op::DotLane(..) | Op::DotPairs(..) | Op::Zip(..) => {}
            Op::Copy(a) => self.get(*a),
            Op::Unary(_, a)
            | Op::ShiftLeft(a, _)
            | Op::ShiftRight(a, _)
            | Op::ShiftRightSigned(a, _)
            | Op::ShiftRightHalves(a, _)
            | Op::Reduce(_, a) => self.registers(op, &[*a]),
            Op::Binary(_, a, b) | Op::Compare(_, a, b) | Op::InterleaveLow(a, b) | Op::InterleaveHigh(a, b) => {
                self.registers(op, &[*a, *b]);
            }
            Op::MulAdd(a, b, c) | Op::NegMulAdd(a, b, c) | Op::Select(a, b, c) | Op::Dot(a, b, c) => {
                self.registers(op, &[*a, *b, *c]);
            }
        }
    }

    fn words(&mut self, words: [u32; 4]) {
        let bits = words.iter().rev().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
        self.push(I::V128Const(bits as i128));
    }

    fn registers(&mut self, op: &Op, regs: &[Reg]) {
        let locals: Vec<u32> = regs.iter().map(|reg| self.regs[reg.0 as usize]).collect();
        if let Some(recipe) = ops::recipe(self.level, op) {
            self.recipe(&recipe, &locals);
        }
    }

    /// The steps of a recipe in line: results that one step takes stay on the stack.
    fn recipe(&mut self, recipe: &Recipe, args: &[u32]) {
        let Some(last) = recipe.steps.len().checked_sub(1) else { return self.push(I::LocalGet(args[0])) };
        let mut kept = vec![None; recipe.steps.len()];
        self.step(recipe, last, args, &mut kept);
    }

    fn step(&mut self, recipe: &Recipe, at: usize, args: &[u32], kept: &mut Vec<Option<u32>>) {
        if let Some(local) = kept[at] {
            return self.push(I::LocalGet(local));
        }
        let step = &recipe.steps[at];
        for value in &step.args {
            match value {
                Value::Arg(i) => self.push(I::LocalGet(args[*i])),
                Value::Step(i) => self.step(recipe, *i, args, kept),
                Value::Halves(n) => {
                    let local = match self.constants.get(n) {
                        Some(local) => *local,
                        None => {
                            let local = self.local(ValType::V128);
                            *self.constants.entry(*n).or_insert(local)
                        }
                    };
                    self.push(I::LocalGet(local));
                }
            }
        }
        if let Some(by) = step.by {
            self.push(I::I32Const(by as i32));
        }
        self.push(step.code.clone());
        let uses =
            recipe.steps.iter().flat_map(|s| &s.args).filter(|v| matches!(v, Value::Step(i) if *i == at)).count();
        if uses > 1 {
            let local = self.local(ValType::V128);
            self.push(I::LocalTee(local));
            kept[at] = Some(local);
        }
    }
}

const MEMORY: MemArg = MemArg { offset: 0, align: 0, target: wasm_encoder::MemArgTarget::Memory(0), ordering: None };

/// Bits of a constant power of two.
fn power(n: &Int) -> Option<i64> {
    n.constant().filter(|c| *c > 0 && c.count_ones() == 1).map(|c| i64::from(c.trailing_zeros()))
}

fn is_innermost(body: &[Stmt]) -> bool {
    body.iter().all(|stmt| match stmt {
        Stmt::Loop(..) | Stmt::Call(..) => false,
        Stmt::IfLess(_, _, then, otherwise) => is_innermost(then) && is_innermost(otherwise),
        Stmt::IfAtLeast(_, _, then) => is_innermost(then),
        _ => true,
    })
}

/// How many iterations of an innermost loop become one.
fn unrolled(trips: Option<i64>, body: &[Stmt], level: Level) -> i64 {
    let statements = if level.relaxed() { UNROLLED_RELAXED } else { UNROLLED_SIMD128 };
    let plain = !body.iter().any(|stmt| matches!(stmt, Stmt::IfLess(..) | Stmt::IfAtLeast(..)));
    let Some(trips) = trips.filter(|_| plain) else { return 1 };
    let fits = |n: &i64| trips % n == 0 && body.len() * *n as usize <= statements;
    (1..=UNROLLED).rev().find(fits).unwrap_or(1)
}
