//! Layer norm over the last dimension (arXiv 1607.06450).

use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::gemm::{Blocks, Operands, Rows, output, room};
use super::profile::{Kind, span};
use super::simd::{Isa, Kernel, Simd};
use super::{map_f32, plain, vector};
use crate::weights::Weights;

/// LayerNorm's epsilon, the same in every published checkpoint.
pub(super) const EPSILON: f32 = 1e-5;

/// (x - mean) / sqrt(variance + 1e-5) · weight + bias over the last dimension.
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    plain: Option<(Tensor, Tensor)>,
}

impl LayerNorm {
    /// Takes `weight` and `bias`, both `[dim]`.
    pub fn new(dim: usize, weights: &Weights) -> Self {
        let (weight, bias) = (weights.get(&[dim], "weight"), weights.get(&[dim], "bias"));
        if weights.is_plain() {
            Self { weight: Vec::new(), bias: Vec::new(), plain: Some((weight, bias)) }
        } else {
            Self { weight: vector(&weight), bias: vector(&bias), plain: None }
        }
    }

    /// Normalises `x` [.., dim].
    ///
    /// # Errors
    /// When the last dimension is not `dim`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let _span = span(Kind::Norm, 0);
        if let Some((weight, bias)) = &self.plain {
            return plain::layer_norm(x, weight, bias);
        }
        let dim = self.check(x)?;
        map_f32(x, x.shape(), |x| {
            let blocks = Blocks::new(x.len() / dim, dim, Isa::best());
            output(x.len() / dim, dim, |out| {
                (0..blocks.count()).into_par_iter().for_each(|i| {
                    let rows = blocks.range(i);
                    // SAFETY: the blocks are disjoint and each is written in full.
                    let out = unsafe { out.rows_mut(rows.clone()) };
                    let from = &x[rows.start * dim..rows.end * dim];
                    Isa::best().run(Normalise {
                        norm: self,
                        from: Some(from),
                        to: out,
                        stride: dim,
                        operands: false,
                    });
                });
            })
        })
    }

    /// The dimension, when `x` ends in it.
    pub(crate) fn check(&self, x: &Tensor) -> Result<usize> {
        match x.dims().last() {
            Some(&dim) if dim == self.weight.len() && dim > 0 => Ok(dim),
            _ => candle_core::bail!("layer norm over {} channels got {:?}", self.weight.len(), x.shape()),
        }
    }

    /// Normalises rows in place.
    #[inline(always)]
    pub(crate) fn in_place<S: Simd>(&self, s: S, rows: &mut [f32]) {
        Normalise { norm: self, from: None, to: rows, stride: self.weight.len(), operands: false }.run(s);
    }
}

/// Normalises the rows of `from` (or of `to` itself) into `to`.
struct Normalise<'a> {
    norm: &'a LayerNorm,
    from: Option<&'a [f32]>,
    to: &'a mut [f32],
    /// From a row of `to` to the next.
    stride: usize,
    /// Whether `to` takes the operands of a product.
    operands: bool,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.norm.weight.len();
        let whole = dim - dim % S::LANES;
        assert!(self.from.is_none_or(|from| from.len() / dim == self.to.len() / self.stride));
        assert!(self.stride >= if self.operands { dim.div_ceil(S::WORD) } else { dim });
        assert!(self.norm.bias.len() == dim && !(self.operands && self.from.is_none()));
        let (weight, bias) = (self.norm.weight.as_ptr(), self.norm.bias.as_ptr());
        for (r, out) in self.to.chunks_exact_mut(self.stride).enumerate() {
            let x = self.from.map_or(out.as_ptr(), |from| from[r * dim..].as_ptr());
            let out = out.as_mut_ptr();
            // SAFETY: x, out, weight and bias are valid for `dim` values, or operands.
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
                let scale = 1.0 / ((s.reduce_sum(squares) + rest) / dim as f32 + EPSILON).sqrt();
                for i in (0..dim).step_by(S::LANES) {
                    let n = S::LANES.min(dim - i);
                    let d = s.mul(s.sub(s.load_first(x.add(i), n), centre), s.splat(scale));
                    let y = s.fma(d, s.load_first(weight.add(i), n), s.load_first(bias.add(i), n));
                    if self.operands {
                        s.store_operands(out, i, y, n);
                    } else {
                        s.store_first(out.add(i), y, n);
                    }
                }
            }
        }
    }
}

/// Rows that are normalised on their way into a product.
pub(crate) struct Normed<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) norm: &'a LayerNorm,
}

impl Rows for Normed<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(&'a self, s: S, range: Range<usize>, scratch: &'a mut Vec<f32>) -> Operands<'a> {
        let dim = self.norm.weight.len();
        let stride = room::<S>(scratch, range.len(), dim);
        let from = &self.rows[range.start * dim..range.end * dim];
        Normalise { norm: self.norm, from: Some(from), to: scratch, stride, operands: true }.run(s);
        Operands { words: scratch, stride }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn agrees_with_the_plain_form_far_from_zero() {
        for dim in [1, 7, 16, 48, 100] {
            let weights = Weights::random(3, DType::F32, Device::Cpu);
            let fused = LayerNorm::new(dim, &weights);
            let plain = LayerNorm::new(dim, &Weights::random(3, DType::F32, Device::Cpu).plain());
            // A large mean shows cancellation.
            let x = (Tensor::randn(0f32, 1.0, (2, 5, 3, dim), &Device::Cpu).unwrap() + 30.0).unwrap();
            let (a, b) = (fused.forward(&x).unwrap(), plain.forward(&x).unwrap());
            let off = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 2e-5, "dim {dim}: {off}");
        }
        let norm = LayerNorm::new(8, &Weights::random(3, DType::F32, Device::Cpu));
        let error = norm.forward(&Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap()).unwrap_err();
        assert!(error.to_string().contains("over 8 channels got [2, 9]"), "{error}");
    }
}
