//! Every kernel of the library against naive f64 code, over sizes on both sides of each tile edge.
//!
//! A case is a kernel, its buffers and what must be in them afterwards; [`case::check`] runs it on
//! lines and on all targets, with several schedules, in parts, and follows its addresses. Where there is Node, the
//! functions that are encoded for WebAssembly run in it.

mod attention;
mod case;
mod conv;
mod data;
mod depthwise;
mod engine;
mod functions;
mod halves;
mod head;
mod integer;
mod linear;
mod mlp;
mod packed;
mod quantize;
mod regions;
mod rows;
mod softmax;
mod split;
mod trace;
