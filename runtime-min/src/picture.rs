//! A picture on its way into a conversation: as the model's pixels, then as rows of its decoder.

use crate::program::Info;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

/// Images that were made by this process.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// So many numbers in a row that no image has, the first of them.
#[cfg(feature = "std")]
pub(crate) fn numbers(n: usize) -> usize {
    MADE.fetch_add(n, Ordering::Relaxed)
}

/// A picture as the model takes it.
#[derive(Clone, Debug)]
pub struct Pixels {
    pub(crate) side: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) took: Duration,
}

impl Pixels {
    /// Pixels in a row, and rows.
    pub fn side(&self) -> usize {
        self.side
    }

    /// `[side, side, 3]`: red, green, blue, row by row.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Time that preprocessing took.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// An encoded picture; can be asked about any number of times, in any session of the same model. A session that is asked
/// about the same image or a clone of it in the same place does not read it again.
#[derive(Clone)]
pub struct Image {
    /// Equal ids have equal rows.
    pub(crate) id: usize,
    pub(crate) rows: Vec<f32>,
    pub(crate) hidden: usize,
    /// Of the model that made it.
    pub(crate) digest: [u8; 32],
    pub(crate) preprocess: Duration,
    pub(crate) vision: Duration,
}

impl Image {
    pub(crate) fn new(rows: Vec<f32>, info: &Info, preprocess: Duration, vision: Duration) -> Self {
        let id = MADE.fetch_add(1, Ordering::Relaxed);
        Self { id, rows, hidden: info.hidden, digest: info.digest, preprocess, vision }
    }

    /// Positions it takes in a conversation.
    pub fn tokens(&self) -> usize {
        self.rows.len() / self.hidden
    }

    /// `[tokens, hidden]`: the projector's output.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Time that preprocessing took.
    pub fn preprocess_time(&self) -> Duration {
        self.preprocess
    }

    /// Time that encoding took.
    pub fn vision_time(&self) -> Duration {
        self.vision
    }
}

impl core::fmt::Debug for Image {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Image([{}, {}])", self.tokens(), self.hidden)
    }
}
