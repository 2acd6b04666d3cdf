//! Integer expressions: addresses, sizes and loop bounds.

use std::ops::{Add, Div, Mul, Rem, Sub};

/// An integer variable of a kernel: a parameter, a loop counter or a named value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Var(pub u32);

/// A non-negative integer expression, folded while it is built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Int {
    /// A constant.
    Const(i64),
    /// A variable.
    Var(Var),
    /// `a + b`.
    Add(Box<Int>, Box<Int>),
    /// `a - b`.
    Sub(Box<Int>, Box<Int>),
    /// `a * b`.
    Mul(Box<Int>, Box<Int>),
    /// `a / b`, rounded down.
    Div(Box<Int>, Box<Int>),
    /// `a % b`.
    Rem(Box<Int>, Box<Int>),
    /// The smaller one.
    Min(Box<Int>, Box<Int>),
    /// The larger one.
    Max(Box<Int>, Box<Int>),
}

impl Int {
    /// The smaller of two.
    pub fn min(self, other: impl Into<Int>) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) => Int::Const(a.min(b)),
            (a, b) => Int::Min(Box::new(a), Box::new(b)),
        }
    }

    /// The larger of two.
    pub fn max(self, other: impl Into<Int>) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) => Int::Const(a.max(b)),
            (a, b) => Int::Max(Box::new(a), Box::new(b)),
        }
    }

    /// The quotient, rounded up.
    pub fn div_ceil(self, by: i64) -> Int {
        (self + (by - 1)) / by
    }

    /// The value if it is a constant.
    pub fn constant(&self) -> Option<i64> {
        match self {
            Int::Const(n) => Some(*n),
            _ => None,
        }
    }

    /// Evaluates with `value` giving the variables. Subtraction below zero, division by zero and
    /// overflow give `None`.
    pub fn eval(&self, value: &impl Fn(Var) -> i64) -> Option<i64> {
        let both = |a: &Int, b: &Int| Some((a.eval(value)?, b.eval(value)?));
        Some(match self {
            Int::Const(n) => *n,
            Int::Var(v) => value(*v),
            Int::Add(a, b) => both(a, b).and_then(|(a, b)| a.checked_add(b))?,
            Int::Sub(a, b) => both(a, b).and_then(|(a, b)| a.checked_sub(b).filter(|d| *d >= 0))?,
            Int::Mul(a, b) => both(a, b).and_then(|(a, b)| a.checked_mul(b))?,
            Int::Div(a, b) => both(a, b).and_then(|(a, b)| a.checked_div(b))?,
            Int::Rem(a, b) => both(a, b).and_then(|(a, b)| a.checked_rem(b))?,
            Int::Min(a, b) => both(a, b).map(|(a, b)| a.min(b))?,
            Int::Max(a, b) => both(a, b).map(|(a, b)| a.max(b))?,
        })
    }

    /// Smallest and largest value when each variable lies in the closed range `range` gives.
    pub fn interval(&self, range: &impl Fn(Var) -> (i64, i64)) -> (i64, i64) {
        let of = |a: &Int, b: &Int| (a.interval(range), b.interval(range));
        match self {
            Int::Const(n) => (*n, *n),
            Int::Var(v) => range(*v),
            Int::Add(a, b) => {
                let (a, b) = of(a, b);
                (a.0 + b.0, a.1 + b.1)
            }
            Int::Sub(a, b) => {
                let (a, b) = of(a, b);
                (a.0 - b.1, a.1 - b.0)
            }
            Int::Mul(a, b) => {
                let (a, b) = of(a, b);
                let ends = [a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1];
                (*ends.iter().min().expect("four"), *ends.iter().max().expect("four"))
            }
            Int::Div(a, b) => {
                let (a, b) = of(a, b);
                (a.0.div_euclid(b.1.max(1)), a.1.div_euclid(b.0.max(1)))
            }
            Int::Rem(a, b) => {
                let (a, b) = of(a, b);
                match (a.0 == a.1, b.0 == b.1 && b.0 > 0) {
                    (true, true) => (a.0 % b.0, a.0 % b.0),
                    _ => (0, a.1.min(b.1 - 1).max(0)),
                }
            }
            Int::Min(a, b) => {
                let (a, b) = of(a, b);
                (a.0.min(b.0), a.1.min(b.1))
            }
            Int::Max(a, b) => {
                let (a, b) = of(a, b);
                (a.0.max(b.0), a.1.max(b.1))
            }
        }
    }

    /// The expression with variables replaced by what `value` gives.
    pub fn replace(&self, value: &impl Fn(Var) -> Option<Int>) -> Int {
        let both = |a: &Int, b: &Int| (a.replace(value), b.replace(value));
        match self {
            Int::Const(_) => self.clone(),
            Int::Var(v) => value(*v).unwrap_or_else(|| self.clone()),
            Int::Add(a, b) => {
                let (a, b) = both(a, b);
                a + b
            }
            Int::Sub(a, b) => {
                let (a, b) = both(a, b);
                a - b
            }
            Int::Mul(a, b) => {
                let (a, b) = both(a, b);
                a * b
            }
            Int::Div(a, b) => {
                let (a, b) = both(a, b);
                a / b
            }
            Int::Rem(a, b) => {
                let (a, b) = both(a, b);
                a % b
            }
            Int::Min(a, b) => {
                let (a, b) = both(a, b);
                a.min(b)
            }
            Int::Max(a, b) => {
                let (a, b) = both(a, b);
                a.max(b)
            }
        }
    }

    /// Calls `f` for every variable in the expression.
    pub fn each_var(&self, f: &mut impl FnMut(Var)) {
        match self {
            Int::Const(_) => {}
            Int::Var(v) => f(*v),
            Int::Add(a, b)
            | Int::Sub(a, b)
            | Int::Mul(a, b)
            | Int::Div(a, b)
            | Int::Rem(a, b)
            | Int::Min(a, b)
            | Int::Max(a, b) => {
                a.each_var(f);
                b.each_var(f);
            }
        }
    }
}

impl From<i64> for Int {
    fn from(n: i64) -> Int {
        Int::Const(n)
    }
}

impl From<usize> for Int {
    fn from(n: usize) -> Int {
        Int::Const(n as i64)
    }
}

impl From<Var> for Int {
    fn from(v: Var) -> Int {
        Int::Var(v)
    }
}

impl From<&Int> for Int {
    fn from(n: &Int) -> Int {
        n.clone()
    }
}

impl<T: Into<Int>> Add<T> for Int {
    type Output = Int;
    fn add(self, other: T) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) => Int::Const(a + b),
            (a, Int::Const(0)) => a,
            (Int::Const(0), b) => b,
            // Constants gather at the right end: `x + 3 + 4` is `x + 7`.
            (Int::Add(a, c), Int::Const(b)) if c.constant().is_some() => {
                *a + Int::Const(c.constant().unwrap_or_default() + b)
            }
            (a, Int::Add(b, c)) => Int::Add(Box::new(a), b) + *c,
            (Int::Const(a), b) => Int::Add(Box::new(b), Box::new(Int::Const(a))),
            (a, b) => Int::Add(Box::new(a), Box::new(b)),
        }
    }
}

impl<T: Into<Int>> Sub<T> for Int {
    type Output = Int;
    fn sub(self, other: T) -> Int {
        match (self, other.into()) {
            // A difference below zero stays, for `eval` to refuse.
            (Int::Const(a), Int::Const(b)) if a >= b => Int::Const(a - b),
            (a, Int::Const(0)) => a,
            (a, b) if a == b => Int::Const(0),
            (a, b) => Int::Sub(Box::new(a), Box::new(b)),
        }
    }
}

impl<T: Into<Int>> Mul<T> for Int {
    type Output = Int;
    fn mul(self, other: T) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) => Int::Const(a * b),
            (_, Int::Const(0)) | (Int::Const(0), _) => Int::Const(0),
            (a, Int::Const(1)) => a,
            (Int::Const(1), b) => b,
            (Int::Mul(a, c), Int::Const(b)) if c.constant().is_some() => *a * (c.constant().unwrap_or(1) * b),
            (Int::Const(a), b) => b * a,
            (a, b) => Int::Mul(Box::new(a), Box::new(b)),
        }
    }
}

impl<T: Into<Int>> Div<T> for Int {
    type Output = Int;
    fn div(self, other: T) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) if b != 0 => Int::Const(a / b),
            (a, Int::Const(1)) => a,
            (a, b) => Int::Div(Box::new(a), Box::new(b)),
        }
    }
}

impl<T: Into<Int>> Rem<T> for Int {
    type Output = Int;
    fn rem(self, other: T) -> Int {
        match (self, other.into()) {
            (Int::Const(a), Int::Const(b)) if b != 0 => Int::Const(a % b),
            (_, Int::Const(1)) => Int::Const(0),
            (a, b) => Int::Rem(Box::new(a), Box::new(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_while_building() {
        let x = || Int::from(Var(0));
        assert_eq!(x() + 3usize + 4usize, x() + 7usize);
        assert_eq!(x() * 1usize + 0usize, x());
        assert_eq!((x() * 4usize) * 4usize, x() * 16usize);
        assert_eq!(x() - x(), Int::Const(0));
        assert_eq!(x() + (Int::from(Var(1)) + 2usize), x() + Int::from(Var(1)) + 2usize);
    }

    #[test]
    fn interval_holds_every_value() {
        let e = (Int::from(Var(0)) * 8usize + 3usize).min(Int::from(Var(1)) / 2usize);
        let (low, high) = e.interval(&|v| if v.0 == 0 { (0, 5) } else { (4, 60) });
        for a in 0..=5 {
            for b in 4..=60 {
                let value = e.eval(&|v| if v.0 == 0 { a } else { b }).expect("no overflow");
                assert!((low..=high).contains(&value));
            }
        }
    }
}
