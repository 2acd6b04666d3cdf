//! `--delegate coreml`: the vision tower and the projector as a Core ML model, so that Apple's Neural Engine can run them.
//!
//! A model is a folder `NAME.mlpackage`: an ML program (MIL) in protocol buffers, its weights as 16-bit floats, and a
//! manifest. It is written without any tool of Apple's: all formats are published with `coremltools`. What a model promises
//! is its interface: `image`, `[1, 3, side, side]`, values 0 to 255 as the runtime's preprocessing leaves them, to `rows`,
//! `[1, tokens, hidden]`, as the decoder reads them.

pub mod blob;
mod mil;
mod package;
pub mod proto;
mod readme;
mod translate;

pub use mil::OPSET;
pub use package::{Model, Summary, Texts, folder, summary};
pub use readme::{README, readme};
pub use translate::{INPUT, OUTPUT, Untranslated};
