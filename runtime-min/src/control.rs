//! What an app tells a session while it works: how hot the device is, to wait, to go on, to stop.
//!
//! All of it is a few atomics that the work looks at between steps, so any thread may tell at any time. Nothing of it changes
//! an answer: bits do not depend on how many threads there are, nor on when they run.

use crate::cancel::CancelToken;
use core::fmt;

/// How much the device wants to be left alone, in the words of Apple's `thermalState`; Android's thermal status has more of
/// them.
///
/// | pressure | threads | pictures | between tokens |
/// |---|---|---|---|
/// | nominal | all | the largest side | nothing |
/// | fair | three of four | the largest side | nothing |
/// | serious | half | the side below the largest one | nothing |
/// | critical | one | the smallest side | a rest as long as the token took, 250 ms at most |
///
/// Threads change with the next token, the next part of a question or the next picture; sides where a model has several and
/// none is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// None.
    #[default]
    Nominal = 0,
    /// Fans, if there are any, begin to be heard.
    Fair = 1,
    /// The system slows down.
    Serious = 2,
    /// The system will stop what it can.
    Critical = 3,
}

impl Pressure {
    /// All of them, by their numbers.
    pub const ALL: [Self; 4] = [Self::Nominal, Self::Fair, Self::Serious, Self::Critical];

    /// The one of this number, which it has `as u32`.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Threads that work, of a session's `all`.
    pub fn threads(self, all: usize) -> usize {
        match self {
            Self::Nominal => all,
            Self::Fair => all - all / 4,
            Self::Serious => all.div_ceil(2),
            Self::Critical => all.min(1),
        }
    }

    /// Which of a model's `n` sides, from small to large, a picture is encoded at that asks for none.
    pub(crate) fn side(self, n: usize) -> usize {
        let below = match self {
            Self::Nominal | Self::Fair => 1,
            Self::Serious => 2,
            Self::Critical => n,
        };
        n.saturating_sub(below)
    }
}

/// Tells a session things from any thread, at any time; see [`Session::control`](crate::Session::control). Copies tell the
/// same session.
#[derive(Clone)]
pub struct Control(CancelToken);

impl Control {
    pub(crate) fn new(token: CancelToken) -> Self {
        Self(token)
    }

    /// As [`CancelToken::cancel`]: also ends work that is paused.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Tells how the device is; holds until something else is told.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.0.orders().set_pressure(pressure);
    }

    /// What was told last.
    pub fn pressure(&self) -> Pressure {
        self.0.orders().pressure()
    }
}

#[cfg(feature = "std")]
impl Control {
    /// Lets the session's work wait after its current step, with all threads asleep, until [`resume`](Self::resume). Work
    /// that begins meanwhile waits before its first step. Without effect for a program that hands its work out.
    pub fn pause(&self) {
        self.0.orders().set_paused(true);
    }

    /// Lets it go on where it was.
    pub fn resume(&self) {
        self.0.orders().set_paused(false);
    }

    /// True from [`pause`](Self::pause) to [`resume`](Self::resume).
    pub fn is_paused(&self) -> bool {
        self.0.orders().is_paused()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({:?})", self.pressure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_sides_get_fewer() {
        let threads = |all: usize| Pressure::ALL.map(|pressure| pressure.threads(all));
        assert_eq!(threads(1), [1, 1, 1, 1]);
        assert_eq!(threads(2), [2, 2, 1, 1]);
        assert_eq!(threads(6), [6, 5, 3, 1]);
        assert_eq!(threads(8), [8, 6, 4, 1]);
        let sides = |n: usize| Pressure::ALL.map(|pressure| pressure.side(n));
        assert_eq!(sides(1), [0, 0, 0, 0]);
        assert_eq!(sides(2), [1, 1, 0, 0]);
        assert_eq!(sides(4), [3, 3, 2, 0]);
        let numbers = Pressure::ALL.map(|pressure| Pressure::from_number(pressure as u32));
        assert_eq!((numbers, Pressure::from_number(4)), (Pressure::ALL.map(Some), None));
    }
}
