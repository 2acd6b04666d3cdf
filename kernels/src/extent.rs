//! Which elements a kernel touches: the proof that a plan's slots are large enough.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use crate::int::{Int, Var};
use crate::ir::{Arg, Kernel, Op, ParamKind, Ptr, Stmt, each_call};

/// Why extents could not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtentError {
    /// An index may be negative: kernel and pointer.
    Negative(String, String),
    /// The number of sizes is not the number of size parameters: kernel, expected, found.
    Sizes(String, usize, usize),
}

impl fmt::Display for ExtentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtentError::Negative(kernel, ptr) => write!(f, "{kernel}: an index of {ptr} may be negative"),
            ExtentError::Sizes(kernel, want, have) => write!(f, "{kernel}: {want} sizes expected, {have} given"),
        }
    }
}

/// For every pointer parameter, the range of bytes the kernel may touch when its size
/// parameters lie in the closed ranges `sizes`. An untouched pointer has an empty range.
///
/// Outer loops with known bounds are walked, the rest is interval arithmetic: the ranges may be
/// larger than what is touched, never smaller.
pub fn extents(kernel: &Kernel, sizes: &[(i64, i64)]) -> Result<Vec<Range<i64>>, ExtentError> {
    walk(kernel, sizes, WALKED, &Memo::default())
}

/// Iterations of nested loops that are walked one by one.
const WALKED: i64 = 1 << 14;

/// Iterations of an inner loop that are walked: the taps of a convolution.
const FEW: i64 = 8;

/// Extents of callees by name and sizes.
type Memo = Rc<RefCell<HashMap<(String, Vec<(i64, i64)>), Vec<Range<i64>>>>>;

fn walk(kernel: &Kernel, sizes: &[(i64, i64)], budget: i64, memo: &Memo) -> Result<Vec<Range<i64>>, ExtentError> {
    let params: Vec<Var> = kernel
        .params
        .iter()
        .filter_map(|p| match p.kind {
            ParamKind::Size(var) => Some(var),
            ParamKind::Ptr(..) => None,
        })
        .collect();
    if params.len() != sizes.len() {
        return Err(ExtentError::Sizes(kernel.name.clone(), params.len(), sizes.len()));
    }
    let mut walk = Walk {
        kernel,
        vars: vec![(0, 0); kernel.vars.len()],
        touched: vec![None; kernel.pointers().count()],
        budget,
        memo: memo.clone(),
    };
    for (var, range) in params.iter().zip(sizes) {
        walk.vars[var.0 as usize] = *range;
    }
    walk.block(&kernel.body)?;
    Ok(walk.touched.into_iter().map(|t| t.map_or(0..0, |(low, high)| low..high)).collect())
}

struct Walk<'a> {
    kernel: &'a Kernel,
    vars: Vec<(i64, i64)>,
    /// First byte and one past the last, per pointer.
    touched: Vec<Option<(i64, i64)>>,
    /// Iterations that may still be walked one by one, over the loops around this place.
    budget: i64,
    memo: Memo,
}

impl Walk<'_> {
    fn range(&self, n: &Int) -> (i64, i64) {
        n.interval(&|v| self.vars[v.0 as usize])
    }

    fn touch(&mut self, ptr: Ptr, at: &Int, count: i64) -> Result<(), ExtentError> {
        let (low, high) = self.range(at);
        let bytes = self.bytes(ptr);
        self.touch_range(ptr, low * bytes, (high + count) * bytes)
    }

    /// Bytes of an element of a pointer.
    fn bytes(&self, ptr: Ptr) -> i64 {
        self.kernel.pointers().nth(ptr.0 as usize).map_or(1, |(_, elem, _)| elem.bytes() as i64)
    }

    fn touch_range(&mut self, ptr: Ptr, low: i64, high: i64) -> Result<(), ExtentError> {
        if low < 0 {
            let name = self.kernel.pointers().nth(ptr.0 as usize).map_or("?", |p| p.0);
            return Err(ExtentError::Negative(self.kernel.name.clone(), name.to_string()));
        }
        let slot = &mut self.touched[ptr.0 as usize];
        *slot = Some(slot.map_or((low, high), |(a, b)| (a.min(low), b.max(high))));
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), ExtentError> {
        match op {
            Op::Load(ptr, at) => self.touch(*ptr, at, self.kernel.lanes as i64),
            Op::Broadcast(ptr, at) => self.touch(*ptr, at, 1),
            Op::Quad(ptr, at) => self.touch(*ptr, at, 4),
            Op::Splat(_)
            | Op::SplatBits(_)
            | Op::SplatInt(_)
            | Op::Iota(_)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::MulAdd(..)
            | Op::NegMulAdd(..)
            | Op::ShiftLeft(..)
            | Op::ShiftRight(..)
            | Op::ShiftRightSigned(..)
            | Op::ShiftRightHalves(..)
            | Op::Dot(..)
            | Op::DotLane(..)
            | Op::DotPairs(..)
            | Op::Zip(..)
            | Op::Compare(..)
            | Op::Select(..)
            | Op::InterleaveLow(..)
            | Op::InterleaveHigh(..)
            | Op::Reduce(..)
            | Op::Copy(_) => Ok(()),
        }
    }

    fn block(&mut self, body: &[Stmt]) -> Result<(), ExtentError> {
        for stmt in body {
            match stmt {
                // A prefetch touches nothing, and so may reach anywhere.
                Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) => {}
                Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => self.op(op)?,
                Stmt::Store(ptr, at, _) => self.touch(*ptr, at, self.kernel.lanes as i64)?,
                Stmt::StoreOne(ptr, at, _) => self.touch(*ptr, at, 1)?,
                Stmt::CopyOne((to, to_at), (from, from_at)) => {
                    self.touch(*to, to_at, 1)?;
                    self.touch(*from, from_at, 1)?;
                }
                Stmt::LetInt(var, value) => self.vars[var.0 as usize] = self.range(value),
                Stmt::Loop(var, from, to, body) => {
                    self.repeat(*var, self.range(from), self.range(to), body)?;
                }
                Stmt::IfLess(a, b, then, otherwise) => {
                    let (a, b) = (self.range(a), self.range(b));
                    if a.0 < b.1 {
                        self.block(then)?;
                    }
                    if a.1 >= b.0 {
                        self.block(otherwise)?;
                    }
                }
                Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                    self.touch(*x, x_at, 1)?;
                    self.touch(*y, y_at, 1)?;
                    self.block(then)?;
                }
                Stmt::Call(callee, args) => self.call(callee, args)?,
            }
        }
        Ok(())
    }

    fn repeat(&mut self, var: Var, from: (i64, i64), to: (i64, i64), body: &[Stmt]) -> Result<(), ExtentError> {
        let (first, end) = (from.0, to.1);
        let known = from.0 == from.1 && to.0 == to.1;
        let walked = end - first <= if has_call(body) { self.budget } else { FEW.min(self.budget) };
        if known && end - first > 1 && walked {
            let outer = self.budget;
            self.budget /= end - first;
            for i in first..end {
                self.vars[var.0 as usize] = (i, i);
                self.block(body)?;
            }
            self.budget = outer;
        } else if first < end {
            self.vars[var.0 as usize] = (first, end - 1);
            self.block(body)?;
        }
        Ok(())
    }

    fn call(&mut self, callee: &Kernel, args: &[Arg]) -> Result<(), ExtentError> {
        let sizes: Vec<(i64, i64)> = args
            .iter()
            .filter_map(|a| match a {
                Arg::Size(n) => Some(self.range(n)),
                Arg::Ptr(..) => None,
            })
            .collect();
        let key = (callee.name.clone(), sizes);
        let known = self.memo.borrow().get(&key).cloned();
        let inner = match known {
            Some(inner) => inner,
            None => {
                let inner = walk(callee, &key.1, self.budget, &self.memo)?;
                self.memo.borrow_mut().insert(key, inner.clone());
                inner
            }
        };
        let pointers = args.iter().filter_map(|a| match a {
            Arg::Ptr(ptr, at) => Some((*ptr, at)),
            Arg::Size(_) => None,
        });
        for ((ptr, at), extent) in pointers.zip(inner) {
            if extent.start < extent.end {
                let ((low, high), bytes) = (self.range(at), self.bytes(ptr));
                self.touch_range(ptr, low * bytes + extent.start, high * bytes + extent.end)?;
            }
        }
        Ok(())
    }
}

fn has_call(body: &[Stmt]) -> bool {
    let mut found = false;
    each_call(body, &mut |_| found = true);
    found
}
