//! Measuring schedules on the machine at hand, and what is kept of it.
//!
//! A schedule is made of numbers that do not change what a kernel computes. [`Plan`] varies them one at a time and
//! prints every variant of every step into one program; [`choose`](choose::choose) reads its times; [`Tuning`] is what
//! compiling takes.

pub mod choose;
mod file;
pub mod host;
mod plan;

pub use file::{Levels, Tuning, TuningFile};
pub use plan::{ANSWER, Plan};
