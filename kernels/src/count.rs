//! How much work a kernel does for given sizes: operations by kind, and bytes by pointer.
//!
//! Control flow depends on sizes alone, so that this is exact without running anything. A branch on values
//! ([`Stmt::IfAtLeast`]) counts as not taken: kernels have it for what is rare.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;
use std::rc::Rc;

use crate::int::{Int, Var};
use crate::ir::{Arg, BinaryOp, Elem, Kernel, Op, ParamKind, Ptr, Stmt, UnaryOp};

/// Operations, of 32-bit lanes: an instruction on a register of 8 lanes counts 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dot products of four bytes, [`Op::Dot`]: 4 multiply-adds each.
    pub dots: u64,
    /// Dot products of four bytes whose sums stay in halves, [`BinaryOp::DotBytes`]: 4 multiply-adds each.
    pub half_dots: u64,
    /// Multiply-adds of floats, rounded once.
    pub fused: u64,
    /// Other arithmetic on floats, conversions among it.
    pub floats: u64,
    /// Other arithmetic on integers.
    pub integers: u64,
}

impl Counts {
    /// The counts `n` times.
    pub fn times(self, n: u64) -> Counts {
        let Counts { dots, half_dots, fused, floats, integers } = self;
        let [dots, half_dots, fused, floats, integers] = [dots, half_dots, fused, floats, integers].map(|x| x * n);
        Counts { dots, half_dots, fused, floats, integers }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.dots += more.dots;
        self.half_dots += more.half_dots;
        self.fused += more.fused;
        self.floats += more.floats;
        self.integers += more.integers;
    }
}

/// What a call of a kernel does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations of this kernel and of those it calls, by their names.
    pub kernels: BTreeMap<String, Counts>,
    /// Bytes read and written by each pointer parameter, as often as they are.
    pub bytes: Vec<u64>,
}

/// Counts kernels; remembers what it counted, so that one of these is worth keeping for the kernels of one target.
#[derive(Default)]
pub struct Counter {
    known: HashMap<(String, Vec<i64>), Rc<Work>>,
}

impl Counter {
    /// The work of a kernel, legalized for a target, with these values of its size parameters.
    ///
    /// # Panics
    /// A number of sizes that is not that of the size parameters, or expressions that leave the integers; [`verify`]
    /// and [`extents`] tell of such kernels.
    ///
    /// [`verify`]: crate::verify
    /// [`extents`]: crate::extents
    pub fn count(&mut self, kernel: &Kernel, sizes: &[i64]) -> Rc<Work> {
        let key = (kernel.name.clone(), sizes.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let mut vars = vec![0; kernel.vars.len()];
        let params = kernel.params.iter().filter_map(|p| match p.kind {
            ParamKind::Size(var) => Some(var),
            ParamKind::Ptr(..) => None,
        });
        let params: Vec<Var> = params.collect();
        assert_eq!(params.len(), sizes.len(), "{}: sizes", kernel.name);
        params.iter().zip(sizes).for_each(|(var, value)| vars[var.0 as usize] = *value);
        let elems: Vec<Elem> = kernel.pointers().map(|(_, elem, _)| elem).collect();
        let work = Work { kernels: BTreeMap::new(), bytes: vec![0; elems.len()] };
        let mut walk = Walk { counter: self, lanes: kernel.lanes as u64, elems, vars, own: Counts::default(), work };
        walk.block(&kernel.body, 1);
        let (own, mut work) = (walk.own, walk.work);
        *work.kernels.entry(kernel.name.clone()).or_default() += own;
        let work = Rc::new(work);
        self.known.insert(key, work.clone());
        work
    }
}

struct Walk<'c> {
    counter: &'c mut Counter,
    lanes: u64,
    elems: Vec<Elem>,
    vars: Vec<i64>,
    /// Of the kernel itself, without those it calls.
    own: Counts,
    work: Work,
}

impl Walk<'_> {
    fn value(&self, n: &Int) -> i64 {
        n.eval(&|v| self.vars[v.0 as usize]).expect("sizes stay inside the integers")
    }

    fn touch(&mut self, ptr: Ptr, elements: u64) {
        self.work.bytes[ptr.0 as usize] += elements * self.elems[ptr.0 as usize].bytes() as u64;
    }

    fn op(&mut self, op: &Op, times: u64) {
        let lanes = self.lanes * times;
        match op {
            Op::Load(ptr, _) => self.touch(*ptr, lanes),
            Op::Broadcast(ptr, _) => self.touch(*ptr, times),
            Op::Quad(ptr, _) => self.touch(*ptr, 4 * times),
            // Constants leave loops, and copies cost nothing.
            Op::Splat(_) | Op::SplatBits(_) | Op::SplatInt(_) | Op::Iota(_) | Op::Copy(_) => {}
            Op::Dot(..) | Op::DotLane(..) => self.own.dots += lanes,
            Op::DotPairs(..) => self.own.dots += 2 * lanes,
            Op::Binary(BinaryOp::DotBytes, ..) => self.own.half_dots += lanes,
            Op::MulAdd(..) | Op::NegMulAdd(..) => self.own.fused += lanes,
            // Another name for the same bits.
            Op::Unary(UnaryOp::BitsToInt | UnaryOp::BitsToFloat, _) => {}
            Op::Binary(op, ..) if op.is_integer() => self.own.integers += lanes,
            Op::ShiftLeft(..)
            | Op::ShiftRight(..)
            | Op::ShiftRightSigned(..)
            | Op::ShiftRightHalves(..)
            | Op::Zip(..) => {
                self.own.integers += lanes;
            }
            Op::Unary(..)
            | Op::Binary(..)
            | Op::Compare(..)
            | Op::Select(..)
            | Op::InterleaveLow(..)
            | Op::InterleaveHigh(..)
            | Op::Reduce(..) => self.own.floats += lanes,
        }
    }

    fn block(&mut self, body: &[Stmt], times: u64) {
        for stmt in body {
            match stmt {
                Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) | Stmt::IfAtLeast(..) => {}
                Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => self.op(op, times),
                Stmt::Store(ptr, ..) => self.touch(*ptr, self.lanes * times),
                Stmt::StoreOne(ptr, ..) => self.touch(*ptr, times),
                Stmt::CopyOne((to, _), (from, _)) => {
                    self.touch(*to, times);
                    self.touch(*from, times);
                }
                Stmt::LetInt(var, value) => self.vars[var.0 as usize] = self.value(value),
                Stmt::Loop(var, from, to, body) => {
                    let (from, to) = (self.value(from), self.value(to));
                    if steers(body, &mut BTreeSet::from([*var])) {
                        for i in from..to {
                            self.vars[var.0 as usize] = i;
                            self.block(body, times);
                        }
                    } else if from < to {
                        self.vars[var.0 as usize] = from;
                        self.block(body, times * (to - from) as u64);
                    }
                }
                Stmt::IfLess(a, b, then, otherwise) => {
                    let taken = if self.value(a) < self.value(b) { then } else { otherwise };
                    self.block(taken, times);
                }
                Stmt::Call(callee, args) => self.call(callee, args, times),
            }
        }
    }

    fn call(&mut self, callee: &Kernel, args: &[Arg], times: u64) {
        let sizes = args.iter().filter_map(|a| match a {
            Arg::Size(n) => Some(self.value(n)),
            Arg::Ptr(..) => None,
        });
        let sizes: Vec<i64> = sizes.collect();
        let inner = self.counter.count(callee, &sizes);
        for (name, counts) in &inner.kernels {
            *self.work.kernels.entry(name.clone()).or_default() += counts.times(times);
        }
        let pointers = args.iter().filter_map(|a| match a {
            Arg::Ptr(ptr, _) => Some(*ptr),
            Arg::Size(_) => None,
        });
        for (ptr, bytes) in pointers.zip(&inner.bytes) {
            self.work.bytes[ptr.0 as usize] += bytes * times;
        }
    }
}

/// Whether how much is done depends on one of the variables, to which those that are made of them are added.
fn steers(body: &[Stmt], of: &mut BTreeSet<Var>) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::LetInt(var, value) => {
            if mentions(value, of) {
                of.insert(*var);
            }
            false
        }
        Stmt::Loop(_, from, to, body) => mentions(from, of) || mentions(to, of) || steers(body, of),
        Stmt::IfLess(a, b, then, otherwise) => {
            mentions(a, of) || mentions(b, of) || steers(then, of) || steers(otherwise, of)
        }
        Stmt::Call(_, args) => args.iter().any(|arg| matches!(arg, Arg::Size(n) if mentions(n, of))),
        Stmt::Note(_)
        | Stmt::Blank
        | Stmt::Prefetch(..)
        | Stmt::IfAtLeast(..)
        | Stmt::Let(..)
        | Stmt::LetMut(..)
        | Stmt::Set(..)
        | Stmt::Store(..)
        | Stmt::StoreOne(..)
        | Stmt::CopyOne(..) => false,
    })
}

fn mentions(n: &Int, of: &BTreeSet<Var>) -> bool {
    let mut found = false;
    n.each_var(&mut |var| found |= of.contains(&var));
    found
}
