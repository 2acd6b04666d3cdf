//! What an emitted FastVLM library links: weights, arena, threads, tokenizer, image preprocessing, sampler, session.
//!
//! Emitted code is a flat list of kernel calls with constant offsets. Everything around that list which does not
//! depend on the model lives here, written once: the [`Program`] trait is the line between the two. There are no
//! dependencies, and without the `std` feature the crate is `no_std` + `alloc` (one thread, weights from memory). A [`Program`]
//! may hand its work out instead of doing it; sessions are then driven by their `async` functions.
//!
//! A user sees four types: [`Model`] (weights, tokenizer and code, shared), [`Session`] (arena, threads and the
//! conversation, exclusive), [`Image`] (an encoded picture) and [`Answer`] (an iterator over pieces of text).

#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

extern crate alloc;

pub mod arena;
pub mod cpu;
pub mod delegate;
pub mod error;
pub mod hash;
pub mod image;
pub mod model;
pub mod program;
pub mod sampler;
pub mod session;
pub mod team;
pub mod template;
pub mod tokenizer;
pub mod weights;

mod affinity;
mod answer;
mod cancel;
mod clock;
mod control;
mod float;
mod later;
mod map;
mod order;
mod picture;
mod processors;
mod prompt;
mod room;
#[cfg(feature = "std")]
mod saved;
mod speculate;
#[cfg(feature = "std")]
mod sync;
mod system;
mod trim;

#[cfg(feature = "std")]
pub mod host;

pub use affinity::{Affinity, Bound};
pub use answer::{Answer, StopReason, Timings};
pub use cancel::CancelToken;
#[cfg(not(feature = "std"))]
pub use clock::set_clock;
pub use control::{Control, Pressure};
pub use delegate::{Delegate, Delegation};
pub use error::Error;
pub use image::Rgb8;
pub use model::{Model, OpenOptions};
pub use picture::{Image, Pixels};
pub use program::{CacheSlot, Cx, ImagePolicy, Info, Level, Program, Side, Step, StepView};
pub use sampler::SamplerOptions;
pub use session::{Options, Session, Turn};
pub use system::QUESTION;
pub use team::Member;
pub use weights::{Residence, Verify};
