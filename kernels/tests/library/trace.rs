//! Follows a kernel's addresses without its arithmetic: which bytes are read and written.

use kernels::library::Schedule;
use kernels::{Arg, Int, Kernel, Op, ParamKind, Ptr, Stmt, extents};

use crate::case::{Buffer, Case, Want, contents, part, split, whole};
use crate::data::HOLE;

/// What is known of a byte.
#[derive(Clone, Copy)]
struct Byte {
    /// Holds a value: given, or written by the kernel.
    full: bool,
    may_write: bool,
}

/// A pointer argument: its bytes, and the range touched so far.
struct Argument {
    bytes: Vec<Byte>,
    /// Whether holes may be read.
    loose: bool,
    touched: Option<(i64, i64)>,
}

/// Checks that a kernel reads only what holds a value, writes only what the case says is written,
/// and stays inside [`extents`], which stay inside the buffers.
pub fn check(case: &Case, kernel: &Kernel, s: &Schedule) {
    let sizes: Vec<(i64, i64)> = whole(case, kernel).into_iter().map(|n| (n, n)).collect();
    let extents = extents(kernel, &sizes).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    for parts in if case.units.is_some() { &[1, 3][..] } else { &[1] } {
        let mut arguments: Vec<Argument> = contents(case, kernel, s).into_iter().map(argument).collect();
        for range in split(case, *parts) {
            for (argument, (start, buffer)) in arguments.iter_mut().zip(contents(case, kernel, s)) {
                if matches!(buffer, Buffer::Scratch(..)) {
                    argument.bytes = self::argument((start, buffer)).bytes;
                }
            }
            let bases: Vec<(usize, i64)> = (0..arguments.len()).map(|i| (i, 0)).collect();
            run(&mut arguments, kernel, &bases, &part(case, kernel, range))
                .unwrap_or_else(|e| panic!("{}, {parts} parts: {e}", case.name));
        }
        for (((name, _, _), argument), extent) in kernel.pointers().zip(&arguments).zip(&extents) {
            let len = argument.bytes.len() as i64;
            assert!(extent.end <= len, "{}: extents of {name} are {extent:?} of {len} bytes", case.name);
            if let Some((low, high)) = argument.touched {
                let inside = extent.start <= low && high <= extent.end;
                assert!(inside, "{}: {name} is touched in {low}..{high}, extents are {extent:?}", case.name);
            }
        }
    }
}

fn argument((start, buffer): (Vec<u32>, Buffer)) -> Argument {
    let may_write = |i: usize| match &buffer {
        Buffer::Read(_) | Buffer::Loose(_) => false,
        Buffer::Scratch(..) => true,
        Buffer::Write(want) | Buffer::Update(_, want) => !matches!(want[i], Want::Same),
    };
    let bytes = |(i, bits): (usize, &u32)| [Byte { full: *bits != HOLE, may_write: may_write(i) }; 4];
    Argument {
        bytes: start.iter().enumerate().flat_map(bytes).collect(),
        loose: matches!(buffer, Buffer::Loose(_)),
        touched: None,
    }
}

struct Walk<'a> {
    arguments: &'a mut Vec<Argument>,
    kernel: &'a Kernel,
    /// Argument and first byte of each pointer.
    bases: &'a [(usize, i64)],
    vars: Vec<i64>,
}

fn run(arguments: &mut Vec<Argument>, kernel: &Kernel, bases: &[(usize, i64)], sizes: &[i64]) -> Result<(), String> {
    let mut walk = Walk { arguments, kernel, bases, vars: vec![0; kernel.vars.len()] };
    let mut given = sizes.iter();
    for param in &kernel.params {
        if let ParamKind::Size(var) = param.kind {
            walk.vars[var.0 as usize] = *given.next().ok_or("too few sizes")?;
        }
    }
    walk.block(&kernel.body)
}

impl Walk<'_> {
    fn int(&self, n: &Int) -> Result<i64, String> {
        n.eval(&|v| self.vars[v.0 as usize]).ok_or_else(|| format!("{}: {n:?} is out of range", self.kernel.name))
    }

    /// Bytes of an element of a pointer.
    fn size(&self, ptr: Ptr) -> i64 {
        self.kernel.pointers().nth(ptr.0 as usize).map_or(1, |(_, elem, _)| elem.bytes() as i64)
    }

    fn touch(&mut self, ptr: Ptr, at: &Int, count: usize, write: bool) -> Result<(), String> {
        let ((argument, base), size) = (self.bases[ptr.0 as usize], self.size(ptr));
        let first = base + self.int(at)? * size;
        let end = first + count as i64 * size;
        let argument = &mut self.arguments[argument];
        let touched = argument.touched.get_or_insert((first, end));
        *touched = (touched.0.min(first), touched.1.max(end));
        let bytes = argument.bytes.get_mut(first as usize..end as usize).ok_or("outside")?;
        for (i, byte) in bytes.iter_mut().enumerate() {
            let right = if write { byte.may_write } else { byte.full || argument.loose };
            if !right {
                let verb = if write { "writes" } else { "reads" };
                let name = self.kernel.pointers().nth(ptr.0 as usize).map_or("?", |p| p.0);
                let at = first + i as i64;
                let own = at - base;
                return Err(format!("{} {verb} byte {own} of {name} (byte {at} of the argument)", self.kernel.name));
            }
            byte.full |= write;
        }
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Load(ptr, at) => self.touch(*ptr, at, self.kernel.lanes, false),
            Op::Broadcast(ptr, at) => self.touch(*ptr, at, 1, false),
            _ => Ok(()),
        }
    }

    fn block(&mut self, body: &[Stmt]) -> Result<(), String> {
        body.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), String> {
        match stmt {
            Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) => {}
            Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => self.op(op)?,
            Stmt::Store(ptr, at, _) => self.touch(*ptr, at, self.kernel.lanes, true)?,
            Stmt::StoreOne(ptr, at, _) => self.touch(*ptr, at, 1, true)?,
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                self.touch(*from, from_at, 1, false)?;
                self.touch(*to, to_at, 1, true)?;
            }
            Stmt::LetInt(var, value) => self.vars[var.0 as usize] = self.int(value)?,
            Stmt::Loop(var, from, to, body) => {
                for i in self.int(from)?..self.int(to)? {
                    self.vars[var.0 as usize] = i;
                    self.block(body)?;
                }
            }
            Stmt::IfLess(a, b, then, otherwise) => {
                let less = self.int(a)? < self.int(b)?;
                self.block(if less { then } else { otherwise })?;
            }
            // Without arithmetic nothing is known of values: it happens, which touches the most.
            Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                self.touch(*x, x_at, 1, false)?;
                self.touch(*y, y_at, 1, false)?;
                self.block(then)?;
            }
            Stmt::Call(callee, args) => {
                let (mut bases, mut sizes) = (Vec::new(), Vec::new());
                for arg in args {
                    match arg {
                        Arg::Ptr(ptr, at) => {
                            let (argument, base) = self.bases[ptr.0 as usize];
                            bases.push((argument, base + self.int(at)? * self.size(*ptr)));
                        }
                        Arg::Size(n) => sizes.push(self.int(n)?),
                    }
                }
                run(self.arguments, callee, &bases, &sizes)?;
            }
        }
        Ok(())
    }
}
