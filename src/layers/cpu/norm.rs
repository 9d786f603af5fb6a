//! Layer norm for the CPU: alone, on rows on their way into a product, in place on those that come out of one.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::gemm::{Cells, GemmBlocks, OperandCells, Operands, Room, Rows, ValueCells, room_for};
use super::operator::{Layer, apply};
use crate::layers::form::NormForm;
use crate::layers::parts::NormParts;
use crate::simd::{Isa, Kernel, Simd};
use crate::tensors::vector;

/// A norm for the CPU kernels.
pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl NormForm for Arc<Norm> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(self.clone(), x, None, x.shape())
    }
}

impl Layer for Arc<Norm> {
    const NAME: &'static str = "layer-norm";

    fn forward(&self, x: &[f32], _: Option<&[f32]>) -> Vec<f32> {
        let dim = self.weight.len();
        by_blocks(x.len() / dim, dim, |rows, out| {
            Isa::best().run(Normalise { norm: self, from: &x[rows.start * dim..rows.end * dim], to: out });
        })
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let dim = self.weight.len();
        Ok(by_blocks(x.len() / dim, dim, |rows, out| {
            let values = rows.start * dim..rows.end * dim;
            out.copy_from_slice(&grad[values.clone()]);
            Isa::best().run(DifferentiateNorm { norm: self, x: &x[values], grad: out, plus: None });
        }))
    }
}

/// Makes `rows` x `columns` values on all threads, some rows at a time.
fn by_blocks(rows: usize, columns: usize, fill: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let most = rows.div_ceil(GemmBlocks::new(rows, columns, Isa::best()).count()).max(1);
    let mut out = vec![0.0; rows * columns];
    out.par_chunks_mut(most * columns).enumerate().for_each(|(i, out)| {
        fill(i * most..i * most + out.len() / columns, out);
    });
    out
}

impl Norm {
    /// Those of these parts.
    pub(super) fn new(parts: &NormParts) -> Arc<Self> {
        let [weight, bias] = [&parts.weight, &parts.bias].map(vector);
        Arc::new(Self { weight, bias, epsilon: parts.epsilon as f32 })
    }

    /// Channels that it normalises.
    pub(super) fn dim(&self) -> usize {
        self.weight.len()
    }

    /// Normalises rows in place.
    #[inline(always)]
    pub(crate) fn in_place<S: Simd>(&self, s: S, rows: &mut [f32]) {
        let cells = ValueCells::of(rows, self.dim());
        for row in 0..rows.len() / self.dim() {
            // SAFETY: the row is there; each vector of it is written after it was read.
            unsafe { self.row(s, rows.as_ptr().add(row * self.dim()), cells, row) };
        }
    }

    /// Normalises the row `x` into a row of `cells`.
    ///
    /// # Safety
    /// `x` is valid for reads of a row, and `row` is one of the cells'.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, x: *const f32, cells: impl Cells<S>, row: usize) {
        let dim = self.weight.len();
        assert!(self.bias.len() == dim && cells.columns() == dim);
        let (weight, bias) = (self.weight.as_ptr(), self.bias.as_ptr());
        // SAFETY: x, the row, weight and bias are valid for `dim` values.
        unsafe {
            let (mean, scale) = statistics(s, x, dim, self.epsilon);
            let centre = s.splat(mean);
            for i in (0..dim).step_by(S::LANES) {
                let n = S::LANES.min(dim - i);
                let d = s.mul(s.sub(s.load_first(x.add(i), n), centre), s.splat(scale));
                let y = s.fma(d, s.load_first(weight.add(i), n), s.load_first(bias.add(i), n));
                cells.put(s, row, i, y, n);
            }
        }
    }

    /// Makes of the gradients of normalised rows those of the rows `x`, in place, and adds `plus`.
    #[inline(always)]
    pub(crate) fn differentiate<S: Simd>(&self, s: S, x: &[f32], grad: &mut [f32], plus: Option<&[f32]>) {
        DifferentiateNorm { norm: self, x, grad, plus }.run(s);
    }
}

/// Mean and 1 / sqrt(variance + epsilon) of a row.
///
/// # Safety
/// `x` is valid for reads of `dim` values.
#[inline(always)]
unsafe fn statistics<S: Simd>(s: S, x: *const f32, dim: usize, epsilon: f32) -> (f32, f32) {
    let whole = dim - dim % S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        // Two passes: E[x²] - mean² would cancel.
        let mut sum = s.splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            sum = s.add(sum, s.load(x.add(i)));
        }
        let rest: f32 = (whole..dim).map(|i| *x.add(i)).sum();
        let mean = (s.reduce_sum(sum) + rest) / dim as f32;
        let centre = s.splat(mean);
        let mut squares = s.splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let d = s.sub(s.load(x.add(i)), centre);
            squares = s.fma(d, d, squares);
        }
        let rest: f32 = (whole..dim).map(|i| (*x.add(i) - mean).powi(2)).sum();
        (mean, 1.0 / ((s.reduce_sum(squares) + rest) / dim as f32 + epsilon).sqrt())
    }
}

/// Normalises the rows of `from` into `to`.
struct Normalise<'a> {
    norm: &'a Norm,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.norm.dim();
        assert!(self.from.len() == self.to.len());
        let cells = ValueCells::of(self.to, dim);
        for (row, x) in self.from.chunks_exact(dim).enumerate() {
            // SAFETY: `to` has as many rows as `from`.
            unsafe { self.norm.row(s, x.as_ptr(), cells, row) };
        }
    }
}

/// Makes of the gradients of normalised rows those of the rows `x`, in place, and adds `plus`. With
/// n = (x − mean) / deviation and g = grad · weight it is (g − mean(g) − n · mean(g · n)) / deviation.
struct DifferentiateNorm<'a> {
    norm: &'a Norm,
    x: &'a [f32],
    grad: &'a mut [f32],
    plus: Option<&'a [f32]>,
}

impl Kernel for DifferentiateNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.norm.weight.len();
        assert!(self.x.len() == self.grad.len() && self.plus.is_none_or(|plus| plus.len() == self.x.len()));
        let weight = self.norm.weight.as_ptr();
        for (r, grad) in self.grad.chunks_exact_mut(dim).enumerate() {
            let (x, grad) = (self.x[r * dim..].as_ptr(), grad.as_mut_ptr());
            let plus = self.plus.map(|plus| plus[r * dim..].as_ptr());
            // SAFETY: x, grad, plus and weight are valid for `dim` values.
            unsafe {
                let (mean, scale) = statistics(s, x, dim, self.norm.epsilon);
                let (centre, scale) = (s.splat(mean), s.splat(scale));
                let (mut sum, mut product) = (s.splat(0.0), s.splat(0.0));
                for i in (0..dim).step_by(S::LANES) {
                    let n = S::LANES.min(dim - i);
                    let g = s.mul(s.load_first(grad.add(i), n), s.load_first(weight.add(i), n));
                    let normed = s.mul(s.sub(s.load_first(x.add(i), n), centre), scale);
                    sum = s.add(sum, g);
                    product = s.fma(g, normed, product);
                }
                let sum = s.splat(s.reduce_sum(sum) / dim as f32);
                let product = s.splat(s.reduce_sum(product) / dim as f32);
                for i in (0..dim).step_by(S::LANES) {
                    let n = S::LANES.min(dim - i);
                    let g = s.mul(s.load_first(grad.add(i), n), s.load_first(weight.add(i), n));
                    let normed = s.mul(s.sub(s.load_first(x.add(i), n), centre), scale);
                    let g = s.sub(s.sub(g, sum), s.mul(normed, product));
                    // Looked at in every round: the loop is short, and the answer always the same.
                    let plus =
                        if let Some(plus) = plus { s.load_first(plus.add(i), n) } else { s.splat(0.0) };
                    s.store_first(grad.add(i), s.fma(g, scale, plus), n);
                }
            }
        }
    }
}

/// Rows that are normalised on their way into a product.
pub(crate) struct NormedRows<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) norm: &'a Norm,
}

impl Rows for NormedRows<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        room: &'a mut Room<S::Word>,
    ) -> Operands<'a, S::Word> {
        let (dim, count) = (self.norm.dim(), range.len());
        let stride = room_for::<S>(&mut room.words, count, dim);
        let from = &self.rows[range.start * dim..range.end * dim];
        let cells = OperandCells::of(&mut room.words, dim, stride);
        for (row, x) in from.chunks_exact(dim).enumerate() {
            // SAFETY: the room is for as many rows.
            unsafe { self.norm.row(s, x.as_ptr(), cells, row) };
        }
        Operands { words: &room.words, stride }
    }
}
