//! A matrix of weights in one of the formats, and products with it.

use crate::LANES;
use crate::build::Builder;
use crate::int::Int;
use crate::ir::Ptr;
use crate::library::gemm::{self, Init, Operands, Shape};
use crate::library::quantize::{QuantRows, Quantized, Source};
use crate::library::{Schedule, elementwise, integer, pitch};

/// How a matrix is stored, and with it what its products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Floats, `[line][depth][16]`.
    F32,
    /// Bytes of 7 bits, `[line][depth / 4][16]` words, and a scale per output channel; the other
    /// operand is quantized by blocks of this many channels.
    Bytes {
        /// Channels that share an activation's scale.
        block: usize,
    },
    /// Nibbles with a factor per group of 16, blocks of 17 lines, and a scale per output channel.
    Nibbles,
}

impl Format {
    /// Part of a kernel's name.
    pub fn name(self) -> String {
        match self {
            Format::F32 => "f32".to_string(),
            Format::Bytes { block } => format!("i8b{block}"),
            Format::Nibbles => "i4".to_string(),
        }
    }

    /// The layout of quantized rows of `channels`; none for floats.
    pub fn rows(self, channels: usize) -> Option<QuantRows> {
        match self {
            Format::F32 => None,
            Format::Bytes { block } => Some(QuantRows::new(channels, block, false)),
            Format::Nibbles => Some(QuantRows::new(channels, 0, true)),
        }
    }

    /// Floats of scratch for `n` quantized rows of `channels`.
    pub fn scratch(self, channels: usize, n: usize) -> usize {
        self.rows(channels).map_or(0, |q| n * q.pitch())
    }

    /// Words of one line of a matrix with `inputs` channels.
    pub fn line_words(self, inputs: usize) -> usize {
        match self.rows(inputs) {
            None => inputs * LANES,
            Some(q) if q.groups => q.blocks() * integer::BLOCK_WORDS,
            Some(q) => q.physical() / 4 * LANES,
        }
    }
}

/// The parameters of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// How it is stored.
    pub format: Format,
    /// Input channels.
    pub inputs: usize,
    /// Its weights.
    pub w: Ptr,
    /// Of a quantized matrix: the layout of its left operand, and its scales.
    pub quantized: Option<(QuantRows, Ptr)>,
}

/// The left operand of a product.
#[derive(Clone, Debug)]
pub enum Left {
    /// Rows of floats, at their pitch.
    Floats((Ptr, Int)),
    /// Quantized rows.
    Quantized(Quantized),
}

/// The rest of a product's operands, moved to their first element.
pub struct Rest {
    /// First line of the matrix.
    pub line: Int,
    /// Bias, for the `Init`s that have one.
    pub bias: Option<(Ptr, Int)>,
    /// Residual, for the `Init`s that have one; rows as far apart as those of `c`.
    pub residual: Option<(Ptr, Int)>,
    /// Result.
    pub c: (Ptr, Int),
    /// Floats between rows of the result.
    pub ldc: usize,
}

impl Matrix {
    /// Declares the parameters `name` and, for a quantized matrix, `name_scale`.
    pub fn declare(k: &mut Builder, name: &str, format: Format, inputs: usize) -> Matrix {
        let rows = format.rows(inputs);
        let w = if rows.is_some() { k.read_u32(name) } else { k.read(name) };
        let quantized = rows.map(|rows| (rows, k.read(&format!("{name}_scale"))));
        Matrix { format, inputs, w, quantized }
    }

    /// Makes the left operand of `n` rows `x`, at the pitch of `source`'s channels: floats stay
    /// where they are, others are quantized into `scratch`, [`Format::scratch`] floats.
    ///
    /// # Panics
    /// Without scratch for a quantized matrix.
    pub fn left(&self, k: &mut Builder, source: Source, x: (Ptr, Int), n: &Int, scratch: Option<(Ptr, Int)>) -> Left {
        if self.quantized.is_some() {
            let scratch = scratch.expect("quantized rows have scratch");
            return Left::Quantized(self.quantize(k, source, x, n, scratch));
        }
        if source == Source::Gelu {
            k.call(&elementwise::gelu(self.inputs), vec![x.clone().into(), n.clone().into()]);
        }
        Left::Floats(x)
    }

    /// The left operand of a quantized matrix, as [`Matrix::left`] makes it.
    ///
    /// # Panics
    /// For a matrix of floats.
    pub fn quantize(
        &self,
        k: &mut Builder,
        source: Source,
        x: (Ptr, Int),
        n: &Int,
        (ptr, at): (Ptr, Int),
    ) -> Quantized {
        let q = Quantized { ptr, at, rows: self.layout().0 };
        q.fill_all(k, source, x, n.clone());
        q
    }

    /// The layout of the left operand, and the scales.
    ///
    /// # Panics
    /// For a matrix of floats.
    pub fn layout(&self) -> (QuantRows, Ptr) {
        self.quantized.expect("a quantized matrix")
    }

    /// Emits `c = init + left w` for `n` rows and `count` lines.
    ///
    /// # Panics
    /// For nibbles: [`integer::expand`] makes bytes of them first, as [`columns`](super::columns) does.
    pub fn rows(&self, k: &mut Builder, s: &Schedule, left: &Left, init: Init, (n, count): (&Int, &Int), rest: Rest) {
        match left {
            Left::Floats(a) => {
                let shape =
                    Shape { lines: count.clone(), ldc: rest.ldc, ldr: rest.ldc, ..Shape::dense(self.inputs, 0) };
                let operands = Operands {
                    a: a.clone(),
                    b: (self.w, rest.line * (self.inputs * LANES)),
                    bias: rest.bias,
                    residual: rest.residual,
                    c: rest.c,
                };
                gemm::rows(k, s, &shape, init, n.clone(), &operands);
            }
            Left::Quantized(q) => {
                assert!(!q.rows.groups, "a product of rows with nibbles");
                let (weights, c, ldc) = self.weights(rest);
                integer::rows(k, s, q, (&weights, init), (n, count), (c, ldc));
            }
        }
    }

    /// Emits `c = init + left w` for `n` rows, a few, and the lines `first..last`. Every row has the bits it has alone.
    pub fn vectors(
        &self,
        k: &mut Builder,
        s: &Schedule,
        (left, n): (&Left, usize),
        init: Init,
        (first, last): (Int, Int),
        rest: Rest,
    ) {
        match left {
            Left::Floats(a) => {
                for i in 0..n {
                    let row = |x: &(Ptr, Int), pitch: usize| (x.0, x.1.clone() + i * pitch);
                    let operands = Operands {
                        a: row(a, pitch(self.inputs)),
                        b: (self.w, Int::from(0usize)),
                        bias: rest.bias.clone(),
                        residual: rest.residual.as_ref().map(|r| row(r, rest.ldc)),
                        c: row(&rest.c, rest.ldc),
                    };
                    let lines = (first.clone(), last.clone());
                    gemm::vector(k, s, &Shape::dense(self.inputs, 0), init, lines, &operands);
                }
            }
            Left::Quantized(q) => {
                let (weights, c, ldc) = self.weights(rest);
                integer::vectors(k, s, (q, n), (&weights, init), (first, last), (&c, ldc));
            }
        }
    }

    /// Operands of an integer product.
    ///
    /// # Panics
    /// For a matrix of floats.
    pub(super) fn weights(&self, rest: Rest) -> (integer::Weights, (Ptr, Int), usize) {
        let words = self.format.line_words(self.inputs);
        let weights = integer::Weights {
            w: (self.w, rest.line.clone() * words),
            scale: Some((self.layout().1, rest.line * LANES)),
            bias: rest.bias,
            residual: rest.residual.map(|r| (r, rest.ldc)),
        };
        (weights, rest.c, rest.ldc)
    }
}
