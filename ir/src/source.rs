//! Where the checkpoint's numbers come from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Tensors by name, read in slices of rows so that no tensor has to be in memory whole.
pub trait TensorSource: Sync {
    /// The tensor's shape, or `None` if there is no tensor of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Rows `rows` of the first axis, converted to f32. A vector has one element in each row.
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, SourceError>;
}

/// A tensor that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// There is no tensor of this name.
    Missing {
        /// The tensor.
        name: String,
    },
    /// The tensor has another shape than the graph was built for.
    Shape {
        /// The tensor.
        name: String,
        /// What the graph was built for.
        expected: Vec<usize>,
        /// What the source has.
        found: Vec<usize>,
    },
    /// Rows that the tensor does not have were asked for.
    Rows {
        /// The tensor or expression.
        name: String,
        /// First and one past the last row.
        rows: (usize, usize),
        /// How many there are.
        len: usize,
    },
    /// Reading failed; the reason names the file.
    Read {
        /// The tensor.
        name: String,
        /// What went wrong, and where.
        reason: String,
    },
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Missing { name } => write!(f, "tensor {name:?} is missing from the checkpoint"),
            SourceError::Shape { name, expected, found } => {
                write!(f, "tensor {name:?} is {found:?}, expected {expected:?}")
            }
            SourceError::Rows { name, rows: (start, end), len } => {
                write!(f, "{name}: rows {start}..{end} of {len}")
            }
            SourceError::Read { name, reason } => write!(f, "tensor {name:?}: {reason}"),
        }
    }
}

impl std::error::Error for SourceError {}

/// Tensors in memory, for tests and small models.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl MemorySource {
    /// Adds a tensor.
    ///
    /// # Panics
    /// If `data` does not have as many elements as `shape` says.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, data: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        self.tensors.insert(name.into(), (shape, data));
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

impl TensorSource for MemorySource {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|(shape, _)| shape.clone())
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, SourceError> {
        let (shape, data) = self.tensors.get(name).ok_or_else(|| SourceError::Missing { name: name.into() })?;
        let len = shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > len {
            return Err(SourceError::Rows { name: name.into(), rows: (rows.start, rows.end), len });
        }
        let width: usize = shape[1..].iter().product();
        Ok(data[rows.start * width..rows.end * width].to_vec())
    }
}
