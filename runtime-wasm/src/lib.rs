//! The runtime of compiled models as a WebAssembly module: sessions, tokenizer, preprocessing and sampler, for any model.
//!
//! It calls no kernel. A host (`web/js/engine.js`) gives it a memory, what the kernels tell about themselves, and a weight
//! file; then it asks what to do, does that, and asks again. The host's side is the functions of `exports`.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

pub mod heap;
pub mod host;
pub mod info;
pub mod remote;
pub mod request;

#[cfg(target_family = "wasm")]
mod exports;
