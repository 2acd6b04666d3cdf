//! Evaluation of weight expressions, by slices of rows.

use std::ops::Range;

use crate::weights::ColumnOrder;
use crate::{SourceError, TensorSource, WeightId, WeightOp, Weights};

impl Weights {
    /// All elements.
    pub fn eval(&self, id: WeightId, source: &dyn TensorSource) -> Result<Vec<f32>, SourceError> {
        self.eval_rows(id, 0..self.nodes[id.0 as usize].rows(), source)
    }

    /// Rows `rows` of the first axis. Reads only what they need, and holds a few copies of it.
    pub fn eval_rows(
        &self,
        id: WeightId,
        rows: Range<usize>,
        source: &dyn TensorSource,
    ) -> Result<Vec<f32>, SourceError> {
        self.rows(id, rows, source)
    }

    /// Ops that only move elements stay in the type that is asked for; arithmetic is done in
    /// f64 and converted at the end, so that an f32 result is rounded once.
    fn rows<T: Element>(
        &self,
        id: WeightId,
        rows: Range<usize>,
        source: &dyn TensorSource,
    ) -> Result<Vec<T>, SourceError> {
        let node = &self.nodes[id.0 as usize];
        if rows.start > rows.end || rows.end > node.rows() {
            return Err(SourceError::Rows { name: id.to_string(), rows: (rows.start, rows.end), len: node.rows() });
        }
        let width = node.width();
        let same = |a: &WeightId| self.rows::<f64>(*a, rows.clone(), source);
        let all = |v: &WeightId| self.rows::<f64>(*v, 0..self.nodes[v.0 as usize].rows(), source);
        let zip = |a: &WeightId, b: &WeightId, f: fn(f64, f64) -> f64| {
            Ok(same(a)?.into_iter().zip(same(b)?).map(|(a, b)| T::from_f64(f(a, b))).collect())
        };
        match &node.op {
            WeightOp::Tensor { name } => {
                let found = source.shape(name).ok_or_else(|| SourceError::Missing { name: name.clone() })?;
                if found != node.shape {
                    return Err(SourceError::Shape { name: name.clone(), expected: node.shape.clone(), found });
                }
                let data = source.rows(name, rows.clone())?;
                if data.len() != rows.len() * width {
                    let reason = format!("{} elements read, expected {}", data.len(), rows.len() * width);
                    return Err(SourceError::Read { name: name.clone(), reason });
                }
                Ok(T::from_f32s(data))
            }
            WeightOp::Values(values) => Ok(values[rows].iter().map(|&v| T::from_f64(v)).collect()),
            WeightOp::Fill(value) => Ok(vec![T::from_f64(*value); rows.len() * width]),
            WeightOp::Unit => {
                let (per_group, k) = (node.shape[1], node.shape[2]);
                let mut out = vec![T::ZERO; rows.len() * width];
                for (r, row) in rows.zip(out.chunks_exact_mut(width)) {
                    row[(r % per_group) * k * k + (k / 2) * k + k / 2] = T::from_f64(1.0);
                }
                Ok(out)
            }
            WeightOp::Reshape(a) => self.rows(*a, rows, source),
            WeightOp::PadKernel { a, k } => {
                let k0 = self.shape(*a)[2];
                let (small, pad) = (self.rows::<T>(*a, rows, source)?, (k - k0) / 2);
                let mut out = vec![T::ZERO; small.len() / (k0 * k0) * (k * k)];
                for (from, to) in small.chunks_exact(k0 * k0).zip(out.chunks_exact_mut(k * k)) {
                    for (y, line) in from.chunks_exact(k0).enumerate() {
                        let start = (y + pad) * k + pad;
                        to[start..start + k0].copy_from_slice(line);
                    }
                }
                Ok(out)
            }
            WeightOp::BnScale { gamma, var, eps } => {
                let scale = |(g, v): (f64, f64)| T::from_f64(g / (v + eps).sqrt());
                Ok(same(gamma)?.into_iter().zip(same(var)?).map(scale).collect())
            }
            WeightOp::MulRows { w, v } => {
                let (w, v) = (same(w)?, same(v)?);
                let mut out = Vec::with_capacity(w.len());
                for (row, v) in w.chunks_exact(width).zip(v) {
                    out.extend(row.iter().map(|x| T::from_f64(x * v)));
                }
                Ok(out)
            }
            WeightOp::MulCols { w, v } => {
                let (w, v) = (same(w)?, all(v)?);
                let mut out = Vec::with_capacity(w.len());
                let each = width / v.len();
                for row in w.chunks_exact(width) {
                    if each == 1 {
                        out.extend(row.iter().zip(&v).map(|(x, v)| T::from_f64(x * v)));
                    } else {
                        let pairs = row.chunks_exact(each).zip(&v);
                        out.extend(pairs.flat_map(|(xs, v)| xs.iter().map(move |x| T::from_f64(x * v))));
                    }
                }
                Ok(out)
            }
            WeightOp::Add(a, b) => zip(a, b, |a, b| a + b),
            WeightOp::Sub(a, b) => zip(a, b, |a, b| a - b),
            WeightOp::Mul(a, b) => zip(a, b, |a, b| a * b),
            WeightOp::Scale(a, by) => Ok(same(a)?.into_iter().map(|x| T::from_f64(x * by)).collect()),
            WeightOp::MatVec { w, v } => {
                let (w, v) = (same(w)?, all(v)?);
                let dot = |row: &[f64]| row.iter().zip(&v).map(|(a, b)| a * b).sum();
                Ok(w.chunks_exact(v.len()).map(|row| T::from_f64(dot(row))).collect())
            }
            WeightOp::Diagonal(a) => {
                let (n, items) = (self.shape(*a)[1], self.rows::<T>(*a, rows.clone(), source)?);
                Ok(rows.zip(items.chunks_exact(n)).map(|(r, row)| row[r]).collect())
            }
            WeightOp::OffDiagonal(a) => {
                let mut items = self.rows::<T>(*a, rows.clone(), source)?;
                for (r, row) in rows.zip(items.chunks_exact_mut(width)) {
                    row[r] = T::ZERO;
                }
                Ok(items)
            }
            WeightOp::ConcatRows(parts) => {
                let (mut out, mut first) = (Vec::with_capacity(rows.len() * width), 0);
                for part in parts {
                    let n = self.nodes[part.0 as usize].rows();
                    let (start, end) = (rows.start.clamp(first, first + n), rows.end.clamp(first, first + n));
                    if start < end {
                        out.extend(self.rows::<T>(*part, start - first..end - first, source)?);
                    }
                    first += n;
                }
                Ok(out)
            }
            WeightOp::InterleaveRows { a, b, block } => {
                // The blocks of both operands that the slice touches.
                let first = rows.start / (2 * block) * block;
                let last = rows.end.div_ceil(2 * block) * block;
                let parts = [self.rows::<T>(*a, first..last, source)?, self.rows::<T>(*b, first..last, source)?];
                let mut out = Vec::with_capacity(rows.len() * width);
                for row in rows {
                    let (pair, part, line) = (row / (2 * block), row / block % 2, row % block);
                    let from = (pair * block + line - first) * width;
                    out.extend_from_slice(&parts[part][from..from + width]);
                }
                Ok(out)
            }
            WeightOp::PermuteRows { a, order: ColumnOrder::Planar { planes, each } } => {
                let mut out = Vec::with_capacity(rows.len() * width);
                for m in 0..*planes {
                    let start = rows.start.clamp(m * each, (m + 1) * each) - m * each;
                    let end = rows.end.clamp(m * each, (m + 1) * each) - m * each;
                    if start < end {
                        let items = self.rows::<T>(*a, planes * start..planes * end, source)?;
                        for group in items.chunks_exact(planes * width) {
                            out.extend_from_slice(&group[m * width..(m + 1) * width]);
                        }
                    }
                }
                Ok(out)
            }
            WeightOp::PermuteCols { a, order: ColumnOrder::Planar { planes, each } } => {
                let items = self.rows::<T>(*a, rows, source)?;
                let taps = width / (planes * each);
                let mut out = Vec::with_capacity(items.len());
                for row in items.chunks_exact(width) {
                    for m in 0..*planes {
                        for i in 0..*each {
                            let from = (planes * i + m) * taps;
                            out.extend_from_slice(&row[from..from + taps]);
                        }
                    }
                }
                Ok(out)
            }
            WeightOp::PadRows { a, .. } => {
                let n = self.nodes[a.0 as usize].rows();
                let mut out = self.rows::<T>(*a, rows.start.min(n)..rows.end.min(n), source)?;
                out.resize(rows.len() * width, T::ZERO);
                Ok(out)
            }
            WeightOp::PadCols { a, cols } => {
                let n = width / cols * self.shape(*a)[1];
                let items = self.rows::<T>(*a, rows, source)?;
                let mut out = Vec::with_capacity(items.len() / n * width);
                for row in items.chunks_exact(n) {
                    out.extend_from_slice(row);
                    out.resize(out.len() + width - n, T::ZERO);
                }
                Ok(out)
            }
            WeightOp::PadRowBlocks { a, block, to } => {
                // Row `r` of the result is row `r % to` of block `r / to`, if the block has that many.
                let before = |r: usize| r / to * block + (r % to).min(*block);
                let items = self.rows::<T>(*a, before(rows.start)..before(rows.end), source)?;
                let mut out = vec![T::ZERO; rows.len() * width];
                let kept = rows.clone().filter(|r| r % to < *block);
                for (r, from) in kept.zip(items.chunks_exact(width)) {
                    out[(r - rows.start) * width..][..width].copy_from_slice(from);
                }
                Ok(out)
            }
            WeightOp::PadColBlocks { a, block, to } => {
                let items = self.rows::<T>(*a, rows, source)?;
                let mut out = Vec::with_capacity(items.len() / block * to);
                for columns in items.chunks_exact(*block) {
                    out.extend_from_slice(columns);
                    out.resize(out.len() + to - block, T::ZERO);
                }
                Ok(out)
            }
        }
    }
}

/// The two types in which rows are held.
trait Element: Copy {
    const ZERO: Self;
    fn from_f64(x: f64) -> Self;
    fn from_f32s(data: Vec<f32>) -> Vec<Self>;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;

    fn from_f64(x: f64) -> f32 {
        x as f32
    }

    fn from_f32s(data: Vec<f32>) -> Vec<f32> {
        data
    }
}

impl Element for f64 {
    const ZERO: f64 = 0.0;

    fn from_f64(x: f64) -> f64 {
        x
    }

    fn from_f32s(data: Vec<f32>) -> Vec<f64> {
        data.into_iter().map(f64::from).collect()
    }
}
