//! The tvlmc compiler as a library: see ARCHITECTURE.md for the way of a model through it.

pub mod assemble;
pub mod bundle;
pub mod cli;
pub mod coreml;
pub mod error;
pub mod evaluate;
pub mod frontend;
pub mod lower;
pub mod machine;
pub mod memory;
pub mod output;
pub mod pack;
pub mod package;
pub mod passes;
pub mod pipeline;
pub mod predict;
pub mod quant;
pub mod shared_memory;
pub mod simulate;
pub mod tune;
pub mod wasm;
pub mod weightfile;
mod xxh64;

pub use error::Error;
