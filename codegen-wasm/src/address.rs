//! Addresses as sums: what of an index is constant, what moves with a loop, and what does not.
//!
//! Engines do little about addresses. A constant part costs nothing, as the offset of the instruction; what moves with
//! the innermost loop is kept in pointers that are advanced once an iteration.

use std::collections::HashMap;

use kernels::{Int, Op, Ptr, Stmt, Var, replace};

/// Expressions and how often each counts.
type Terms = Vec<(Int, i64)>;

/// `constant + sum of coefficient * term`; a term is no sum and no multiple.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub terms: Terms,
    pub constant: i64,
}

/// Definitions of named integers that are looked through.
pub(crate) type Known = HashMap<Var, Int>;

impl Sum {
    /// The sum of an expression; variables of `known` are replaced.
    pub fn of(n: &Int, known: &Known) -> Sum {
        let mut sum = Sum::default();
        sum.add(n, 1, known);
        sum.terms.retain(|(_, coefficient)| *coefficient != 0);
        sum
    }

    fn add(&mut self, n: &Int, by: i64, known: &Known) {
        match n {
            Int::Const(c) => self.constant += by * c,
            Int::Add(a, b) => {
                self.add(a, by, known);
                self.add(b, by, known);
            }
            Int::Sub(a, b) => {
                self.add(a, by, known);
                self.add(b, -by, known);
            }
            Int::Mul(a, b) => match (a.constant(), b.constant()) {
                (_, Some(c)) => self.add(a, by * c, known),
                (Some(c), _) => self.add(b, by * c, known),
                _ => self.term(n, by),
            },
            Int::Var(v) => match known.get(v) {
                Some(definition) => self.add(&definition.clone(), by, known),
                None => self.term(n, by),
            },
            Int::Div(..) | Int::Rem(..) | Int::Min(..) | Int::Max(..) => self.term(n, by),
        }
    }

    fn term(&mut self, n: &Int, by: i64) {
        match self.terms.iter_mut().find(|(term, _)| term == n) {
            Some((_, coefficient)) => *coefficient += by,
            None => self.terms.push((n.clone(), by)),
        }
    }

    /// Takes the multiple of a variable out.
    fn split(&mut self, var: Var) -> i64 {
        let at = self.terms.iter().position(|(term, _)| *term == Int::Var(var));
        at.map_or(0, |at| self.terms.swap_remove(at).1)
    }

    /// Whether a term contains a variable.
    fn mentions(&self, vars: &[Var]) -> bool {
        let mut found = false;
        self.terms.iter().for_each(|(term, _)| term.each_var(&mut |v| found |= vars.contains(&v)));
        found
    }

    /// Whether no term is subtracted: each part of it is at most the whole.
    pub fn grows(&self) -> bool {
        self.constant >= 0 && self.terms.iter().all(|(_, coefficient)| *coefficient >= 0)
    }

    /// The same terms in one order.
    fn sorted(mut self) -> Sum {
        self.terms.sort_by_cached_key(|(term, _)| format!("{term:?}"));
        self
    }
}

/// A pointer that moves with a loop; its accesses differ by constants.
#[derive(Clone, Debug)]
pub(crate) struct Moving {
    pub ptr: Ptr,
    /// Without the loop's variable and the constant.
    rest: Terms,
    /// Elements it moves when the variable grows by one.
    pub stride: i64,
    /// Least constant of its accesses, in elements.
    least: i64,
}

impl Moving {
    /// The element it starts from, but for the variable's share.
    pub fn start(&self) -> Sum {
        Sum { terms: self.rest.clone(), constant: self.least }
    }
}

/// The moving pointers of a loop's body, and the variables that are named in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pointers {
    pub all: Vec<Moving>,
    var: Option<Var>,
    inside: Vec<Var>,
}

impl Pointers {
    /// Those of the accesses of `body`, a loop over `var` without loops and calls in it.
    pub fn of(var: Var, body: &[Stmt]) -> Pointers {
        let mut pointers = Pointers { var: Some(var), ..Pointers::default() };
        pointers.inside.push(var);
        pointers.name(body);
        pointers.gather(body, &mut Known::new());
        pointers
    }

    fn name(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::LetInt(v, _) => self.inside.push(*v),
                Stmt::IfLess(_, _, then, otherwise) => {
                    self.name(then);
                    self.name(otherwise);
                }
                Stmt::IfAtLeast(_, _, then) => self.name(then),
                _ => {}
            }
        }
    }

    fn gather(&mut self, body: &[Stmt], known: &mut Known) {
        for stmt in body {
            match stmt {
                Stmt::LetInt(v, n) => {
                    known.insert(*v, n.clone());
                }
                // What may not happen may not be inside memory either.
                Stmt::IfLess(..) => {}
                Stmt::IfAtLeast((x, x_at), (y, y_at), _) => {
                    self.access(*x, x_at, known);
                    self.access(*y, y_at, known);
                }
                Stmt::Let(_, op) | Stmt::LetMut(_, op) | Stmt::Set(_, op) => {
                    if let Op::Load(ptr, at) | Op::Broadcast(ptr, at) | Op::Quad(ptr, at) = op {
                        self.access(*ptr, at, known);
                    }
                }
                Stmt::Store(ptr, at, _) | Stmt::StoreOne(ptr, at, _) => self.access(*ptr, at, known),
                Stmt::CopyOne((to, to_at), (from, from_at)) => {
                    self.access(*from, from_at, known);
                    self.access(*to, to_at, known);
                }
                Stmt::Note(_) | Stmt::Blank | Stmt::Prefetch(..) | Stmt::Loop(..) | Stmt::Call(..) => {}
            }
        }
    }

    fn access(&mut self, ptr: Ptr, at: &Int, known: &Known) {
        let Some((rest, stride, constant)) = self.parts(at, known) else { return };
        match self.all.iter_mut().find(|m| m.ptr == ptr && m.rest == rest && m.stride == stride) {
            Some(moving) => moving.least = moving.least.min(constant),
            None => self.all.push(Moving { ptr, rest, stride, least: constant }),
        }
    }

    /// An index as what does not move, the elements it moves by, and a constant; none if something else of the body is in it.
    fn parts(&self, at: &Int, known: &Known) -> Option<(Terms, i64, i64)> {
        let mut sum = Sum::of(at, known);
        let stride = sum.split(self.var?);
        if sum.mentions(&self.inside) {
            return None;
        }
        let Sum { terms, constant } = sum.sorted();
        Some((terms, stride, constant))
    }

    /// The moving pointer of an access, and elements from it.
    pub fn find(&self, ptr: Ptr, at: &Int, known: &Known) -> Option<(usize, i64)> {
        let (rest, stride, constant) = self.parts(at, known)?;
        let found = self.all.iter().position(|m| m.ptr == ptr && m.rest == rest && m.stride == stride)?;
        let offset = constant - self.all[found].least;
        (offset >= 0).then_some((found, offset))
    }
}

/// `to - from` if that is a constant.
pub(crate) fn distance(from: &Int, to: &Int) -> Option<i64> {
    let none = Known::new();
    let (from, to) = (Sum::of(from, &none).sorted(), Sum::of(to, &none).sorted());
    (from.terms == to.terms).then(|| to.constant - from.constant)
}

/// The statements with `var` as `var + by`.
pub(crate) fn advanced(body: &[Stmt], var: Var, by: usize) -> Vec<Stmt> {
    replace(body, &|v| (v == var).then(|| Int::Var(var) + by))
}
