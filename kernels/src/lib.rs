//! Kernel IR: the language in which every kernel of an emitted library is written, once.
//!
//! A kernel is a list of three-address statements on *lines*, vectors of 64 bytes (16 x f32). A
//! target splits a line into the registers it has; the author of a kernel does not. Integer
//! expressions ([`Int`]) address memory and bound loops; they may hold constants, since shapes are
//! known when a kernel is built.
//!
//! The way of a kernel: built ([`Builder`]), checked ([`verify`]), split into registers and
//! expanded for a target ([`legalize`]), then run by the interpreter ([`interpret`]) or printed
//! ([`print`]). Both consumers see the same legalized program, so the printed code has the
//! interpreter's bits.

mod build;
mod callable;
mod count;
mod extent;
pub mod half;
mod int;
mod interp;
mod ir;
mod legalize;
pub mod library;
pub mod math;
mod print;
mod prune;
mod specialize;
mod target;
mod verify;

pub use build::Builder;
pub use callable::{Callable, callable_module};
pub use count::{Counter, Counts, Work};
pub use extent::{ExtentError, extents};
pub use int::{Int, Var};
pub use interp::{Fault, Memory, Place, interpret};
pub use ir::{
    Access, Arg, BinaryOp, CompareOp, Elem, Kernel, Op, Param, ParamKind, Ptr, ReduceOp, Reg, RegInfo, Stmt, Ty,
    UnaryOp, Zip,
};
pub use legalize::legalize;
pub use print::{emit_kernel, float_tokens, parameter_tokens};
pub use specialize::{replace, specialize};
pub use target::{Dots, Target};
pub use verify::{Invalid, verify};

/// Lanes of a line: 16 x 32 bits.
pub const LANES: usize = 16;
