//! `weights/weight.bin`: 16-bit floats in the storage format that ML programs refer to.
//!
//! A header of 64 bytes (number of blobs, version 2), then for each blob 64 bytes of metadata and its elements; metadata
//! and elements begin at multiples of 64. An operation names a blob by the place of its metadata. All is little endian, as
//! in `mlmodel/src/MILBlob/Blob/StorageFormat.hpp` of Apple's repository `coremltools`.

use std::io::{self, Write};

use half::f16;
use ir::{SourceError, TensorSource, WeightId, Weights};

/// What everything begins at multiples of, and the size of header and metadata.
pub const ALIGNMENT: usize = 64;

/// The first word of metadata.
pub const SENTINEL: u32 = 0xDEAD_BEEF;

/// The version of the format.
pub const VERSION: u32 = 2;

/// The type of a blob of 16-bit floats.
pub const FLOAT16: u32 = 1;

/// Elements of a slice that is held as it is made.
const SLICE: usize = 1 << 19;

/// Weights in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blobs(Vec<Blob>);

/// One weight.
#[derive(Clone, Debug, PartialEq)]
struct Blob {
    /// The node and what the weight is to it.
    name: String,
    id: WeightId,
    elements: usize,
    /// Where its metadata begins.
    at: u64,
}

/// Why a weight file cannot be written.
#[derive(Debug)]
pub enum BlobError {
    /// A weight is beyond what a 16-bit float holds.
    Range {
        /// The weight.
        name: String,
        /// Which of its elements, counted from 0.
        element: usize,
        /// The value.
        value: f32,
    },
    /// A weight cannot be read.
    Source(SourceError),
    /// The file cannot be written.
    Io(io::Error),
}

impl Blobs {
    /// Makes room for a weight and returns where its metadata will be. A weight that is there already is not stored again.
    pub fn add(&mut self, name: &str, id: WeightId, elements: usize) -> u64 {
        if let Some(known) = self.0.iter().find(|blob| blob.id == id && blob.elements == elements) {
            return known.at;
        }
        let at = self.bytes();
        self.0.push(Blob { name: name.to_string(), id, elements, at });
        at
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        let end = |blob: &Blob| blob.at + (ALIGNMENT + padded(2 * blob.elements)) as u64;
        self.0.last().map_or(ALIGNMENT as u64, end)
    }

    /// Writes the file, a slice of a weight after the other. `progress` gets the bytes written so far.
    ///
    /// # Errors
    /// A weight that does not fit into 16 bits or cannot be read; what `file` and `progress` say.
    pub fn write<E: From<BlobError>>(
        &self,
        weights: &Weights,
        source: &dyn TensorSource,
        file: &mut dyn Write,
        progress: &mut dyn FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let io = |e: io::Error| E::from(BlobError::Io(e));
        let mut header = [0; ALIGNMENT];
        header[..4].copy_from_slice(&(self.0.len() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        file.write_all(&header).map_err(io)?;
        for blob in &self.0 {
            let bytes = 2 * blob.elements;
            let mut metadata = [0; ALIGNMENT];
            metadata[..4].copy_from_slice(&SENTINEL.to_le_bytes());
            metadata[4..8].copy_from_slice(&FLOAT16.to_le_bytes());
            metadata[8..16].copy_from_slice(&(bytes as u64).to_le_bytes());
            metadata[16..24].copy_from_slice(&(blob.at + ALIGNMENT as u64).to_le_bytes());
            file.write_all(&metadata).map_err(io)?;
            let rows = weights.shape(blob.id)[0];
            let width = blob.elements / rows;
            let step = (SLICE / width).max(1);
            for first in (0..rows).step_by(step) {
                let slice = first..(first + step).min(rows);
                let values = weights.eval_rows(blob.id, slice, source).map_err(BlobError::Source)?;
                file.write_all(&halves(&blob.name, first * width, &values)?).map_err(io)?;
                progress(blob.at + (ALIGNMENT + 2 * (first * width + values.len())) as u64)?;
            }
            file.write_all(&[0; ALIGNMENT][..padded(bytes) - bytes]).map_err(io)?;
        }
        Ok(())
    }
}

/// Elements `first..` of a weight as 16-bit floats, rounded to the nearest. What was not finite before stays so: whether that is
/// allowed is decided where a checkpoint is read.
fn halves(name: &str, first: usize, values: &[f32]) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for (i, &value) in values.iter().enumerate() {
        let half = f16::from_f32(value);
        if value.is_finite() && !half.is_finite() {
            return Err(BlobError::Range { name: name.to_string(), element: first + i, value });
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(bytes)
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once_and_have_a_largest() {
        let bits = |values: &[f32]| halves("w", 0, values).map(|bytes| bytes.as_chunks().0.to_vec());
        assert_eq!(bits(&[1.0, -0.0, 65504.0]).expect("finite"), [0x3c00_u16, 0x8000, 0x7bff].map(u16::to_le_bytes));
        // The middle between the largest and what would be next goes up, and is too large.
        assert!(matches!(bits(&[0.0, 65520.0]), Err(BlobError::Range { element: 1, .. })));
        assert_eq!(bits(&[f32::INFINITY]).expect("as it was"), [0x7c00_u16.to_le_bytes()]);
    }

    #[test]
    fn places_are_aligned_and_shared() {
        let mut blobs = Blobs::default();
        assert_eq!(blobs.bytes(), 64);
        assert_eq!(blobs.add("a", WeightId(1), 33), 64);
        assert_eq!(blobs.add("b", WeightId(2), 1), 64 + 64 + 128);
        assert_eq!(blobs.add("again", WeightId(1), 33), 64);
        assert_eq!(blobs.bytes(), 256 + 64 + 64);
    }
}
