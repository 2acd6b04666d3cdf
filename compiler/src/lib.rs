//! The tvlmc compiler as a library: see ARCHITECTURE.md for the way of a model through it.

pub mod error;
pub mod frontend;
pub mod lower;
pub mod memory;
pub mod pack;
pub mod passes;
pub mod pipeline;
pub mod simulate;
pub mod weightfile;
mod xxh64;

pub use error::Error;
