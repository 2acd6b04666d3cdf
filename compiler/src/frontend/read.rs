//! Reading tensor values: rows of the first axis, converted to f32, and checked to be finite.

use std::ops::Range;
use std::sync::PoisonError;

use half::slice::HalfFloatSliceExt;
use ir::{SourceError, TensorSource};

use super::Checkpoint;
use super::files::InputFile;
use super::safetensors::{Dtype, TensorInfo};
use crate::error::{Error, grouped};

/// Bytes read at a time: the raw and the converted values together stay in the second-level cache.
const BUFFER: usize = 128 << 10;

impl Checkpoint {
    /// Rows `rows` of tensor `name` in f32: all values whose first index is in the range.
    ///
    /// A tensor without axes has one row.
    ///
    /// # Errors
    ///
    /// The tensor is missing, not of a float type, shorter than the range, or holds a value that is not
    /// finite (unless that was allowed); or the file cannot be read or has shrunk.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.rows_into(name, rows, &mut values)?;
        Ok(values)
    }

    /// [`Checkpoint::rows`], appended to `values`.
    pub fn rows_into(&self, name: &str, rows: Range<usize>, values: &mut Vec<f32>) -> Result<(), Error> {
        self.read_rows(name, rows, values).map_err(|e| self.locate(e))
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, values: &mut Vec<f32>) -> Result<(), Error> {
        let (info, file) = self.stored(name)?;
        let span = span(info, &rows).map_err(|problem| Error::Input(vec![self.finding(name, problem)]))?;
        let first = (span.start - info.offset) / info.dtype.bytes();
        let before = values.len();
        values.reserve(((span.end - span.start) / info.dtype.bytes()) as usize);
        let finite = read_span(file, info.dtype, span, values)?;
        if finite || self.options.allow_non_finite {
            return Ok(());
        }
        let at = values[before..].iter().position(|v| !v.is_finite()).expect("one value was not finite");
        let problem = non_finite(info, first + at as u64, values[before + at]);
        Err(Error::Input(vec![self.finding(name, problem)]))
    }

    /// The first error that reading through [`TensorSource`] met, once.
    ///
    /// Weights are evaluated behind that trait; whoever gets an error from there asks here for what it
    /// was, which decides between bad input and a broken disk.
    pub fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether two tensors of one shape have the same bits, or the same values if their types differ.
    pub(super) fn same_values(&self, a: &str, b: &str) -> Result<bool, Error> {
        let ((a_info, a_file), (b_info, b_file)) = (self.stored(a)?, self.stored(b)?);
        if a_info.shape != b_info.shape {
            return Ok(false);
        }
        if a_info.dtype == b_info.dtype {
            return same_bytes(a_file, a_info, b_file, b_info);
        }
        let (n_rows, row) = (a_info.shape.first().copied().unwrap_or(1), a_info.values().max(1));
        let step = (BUFFER as u64 * n_rows as u64 / row).max(1) as usize;
        for begin in (0..n_rows).step_by(step) {
            let range = begin..(begin + step).min(n_rows);
            if self.rows(a, range.clone())? != self.rows(b, range)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Tensors by the checkpoint's own names. The trait's error is only text: [`Checkpoint::failure`] has the error
/// itself.
impl TensorSource for Checkpoint {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Checkpoint::shape(self, name).map(<[usize]>::to_vec)
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, SourceError> {
        Checkpoint::rows(self, name, rows).map_err(|e| {
            let text = SourceError::Read { name: name.to_owned(), reason: e.to_string() };
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            text
        })
    }
}

fn same_bytes(a_file: &InputFile, a: &TensorInfo, b_file: &InputFile, b: &TensorInfo) -> Result<bool, Error> {
    let (mut a_bytes, mut b_bytes) = (vec![0; 8 * BUFFER], vec![0; 8 * BUFFER]);
    let mut done = 0;
    while done < a.bytes {
        let n = (a.bytes - done).min(8 * BUFFER as u64) as usize;
        a_file.read_at(&mut a_bytes[..n], a.offset + done)?;
        b_file.read_at(&mut b_bytes[..n], b.offset + done)?;
        if a_bytes[..n] != b_bytes[..n] {
            return Ok(false);
        }
        done += n as u64;
    }
    Ok(true)
}

/// The bytes of the file that hold `rows`.
fn span(info: &TensorInfo, rows: &Range<usize>) -> Result<Range<u64>, String> {
    if info.dtype == Dtype::I64 {
        return Err("has dtype I64, a float type is expected".into());
    }
    let n_rows = info.shape.first().copied().unwrap_or(1);
    if rows.start > rows.end || rows.end > n_rows {
        return Err(format!("rows {}..{} are wanted of {}", rows.start, rows.end, grouped(n_rows as u64)));
    }
    // The tensor is inside the file, so nothing here can overflow.
    let row_bytes = info.bytes / n_rows as u64;
    Ok(info.offset + rows.start as u64 * row_bytes..info.offset + rows.end as u64 * row_bytes)
}

/// Appends the values in `span` and says whether all of them are finite.
fn read_span(file: &InputFile, dtype: Dtype, span: Range<u64>, values: &mut Vec<f32>) -> Result<bool, Error> {
    let mut raw = vec![0; BUFFER.min((span.end - span.start) as usize)];
    let mut halves = Vec::new();
    let mut finite = true;
    let mut at = span.start;
    while at < span.end {
        let raw = &mut raw[..(span.end - at).min(BUFFER as u64) as usize];
        file.read_at(raw, at)?;
        at += raw.len() as u64;
        let before = values.len();
        match dtype {
            Dtype::F32 => values.extend(raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Dtype::Bf16 => {
                let bits = raw.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)) << 16);
                values.extend(bits.map(f32::from_bits));
            }
            Dtype::F16 => {
                halves.clear();
                halves.extend(raw.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b)));
                values.resize(before + halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut values[before..]);
            }
            Dtype::I64 => unreachable!("refused before reading"),
        }
        finite &= all_finite(&values[before..]);
    }
    Ok(finite)
}

/// Written as a sum so that the compiler makes vector code of it.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values
        .chunks(4096)
        .all(|chunk| chunk.iter().map(|v| u32::from(v.to_bits() & EXPONENT == EXPONENT)).sum::<u32>() == 0)
}

/// The message for the value at flat index `at`.
fn non_finite(info: &TensorInfo, at: u64, value: f32) -> String {
    let mut rest = at;
    let mut index: Vec<u64> = info
        .shape
        .iter()
        .rev()
        .map(|&n| {
            let i = rest % n as u64;
            rest /= n as u64;
            i
        })
        .collect();
    index.reverse();
    format!(
        "the value at {index:?} (number {} of {}) is {value}: the file is damaged or the training diverged; --allow-non-finite --quant f32 keeps it",
        grouped(at + 1),
        grouped(info.values())
    )
}
