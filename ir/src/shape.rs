//! Shapes and element types of values.
//!
//! Values are either pictures or lists of rows, channels last. The batch is always one, and the
//! only length that is not known while compiling has a name of its own: `Positions`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shape of a value; the last axis is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A picture, `[h, w, c]`. Ops on rows see it as `h * w` rows in row-major order.
    Map {
        /// Height in pixels.
        h: usize,
        /// Width in pixels.
        w: usize,
        /// Channels of a pixel.
        c: usize,
    },
    /// Rows, `[n, c]`.
    Rows {
        /// Number of rows.
        n: Axis,
        /// Channels of a row.
        c: usize,
    },
}

/// Length of the row axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Axis {
    /// Known while compiling.
    Fixed(usize),
    /// The positions of one call of the decoder.
    Positions,
}

/// Type of a value's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit index, such as a token id.
    U32,
}

impl Shape {
    /// Length of the last axis.
    pub fn channels(&self) -> usize {
        match *self {
            Shape::Map { c, .. } | Shape::Rows { c, .. } => c,
        }
    }

    /// The same pixels or rows with another number of channels.
    pub fn with_channels(&self, c: usize) -> Shape {
        match *self {
            Shape::Map { h, w, .. } => Shape::Map { h, w, c },
            Shape::Rows { n, .. } => Shape::Rows { n, c },
        }
    }

    /// Number of rows; a picture has one row for each pixel.
    pub fn rows(&self) -> Axis {
        match *self {
            Shape::Map { h, w, .. } => Axis::Fixed(h * w),
            Shape::Rows { n, .. } => n,
        }
    }

    /// Number of elements with `positions` in place of the open axis.
    pub fn elements(&self, positions: usize) -> usize {
        self.rows().length(positions) * self.channels()
    }
}

impl Axis {
    /// The length with `positions` in place of the open axis.
    pub fn length(&self, positions: usize) -> usize {
        match *self {
            Axis::Fixed(n) => n,
            Axis::Positions => positions,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Map { h, w, c } => write!(f, "[{h}, {w}, {c}]"),
            Shape::Rows { n, c } => write!(f, "[{n}, {c}]"),
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Fixed(n) => write!(f, "{n}"),
            Axis::Positions => f.write_str("positions"),
        }
    }
}
