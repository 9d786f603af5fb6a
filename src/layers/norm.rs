//! Layer norm over the last dimension (arXiv 1607.06450).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::Blocks;
use super::operator::{Layer, apply};
use super::profile::{Kind, span};
use super::rows::{Operands, Rows, room};
use super::simd::{Isa, Kernel, Simd};
use super::{plain, vector};
use crate::weights::Weights;

/// (x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension.
pub struct LayerNorm {
    form: Form,
    dim: usize,
}

enum Form {
    /// For the CPU kernels.
    Fused(Arc<Norm>),
    /// As tensors: any device, differentiable.
    Plain { weight: Tensor, bias: Tensor, epsilon: f64 },
}

impl LayerNorm {
    /// Takes `weight` and `bias`, both `[dim]`; `epsilon` is added to the variance.
    pub fn new(dim: usize, epsilon: f64, weights: &Weights) -> Self {
        let (weight, bias) = (weights.get(&[dim], "weight"), weights.get(&[dim], "bias"));
        let form = if weights.is_plain() {
            Form::Plain { weight, bias, epsilon }
        } else {
            let [weight, bias] = [weight, bias].map(|x| vector(&x));
            Form::Fused(Arc::new(Norm { weight, bias, epsilon: epsilon as f32 }))
        };
        Self { form, dim }
    }

    /// Normalises `x` [.., dim].
    ///
    /// # Errors
    /// When the last dimension is not `dim`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let _span = span(Kind::Norm, 0);
        match &self.form {
            Form::Plain { weight, bias, epsilon } => plain::layer_norm(x, weight, bias, *epsilon),
            Form::Fused(_) => apply(self.fused(x.shape())?, x, None, x.shape()),
        }
    }

    /// The norm for the CPU kernels, of maps like `shape`.
    ///
    /// # Errors
    /// When the last dimension is not the norm's.
    pub(super) fn fused(&self, shape: &Shape) -> Result<Arc<Norm>> {
        match &self.form {
            Form::Fused(norm) if self.dim > 0 && shape.dims().last() == Some(&self.dim) => Ok(norm.clone()),
            Form::Fused(_) => candle_core::bail!("layer norm over {} channels got {shape:?}", self.dim),
            Form::Plain { .. } => candle_core::bail!("a fused layer beside a plain norm"),
        }
    }
}

/// A norm for the CPU kernels.
pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Layer for Arc<Norm> {
    const NAME: &'static str = "layer-norm";

    fn forward(&self, x: &[f32], _: Option<&[f32]>) -> Vec<f32> {
        let dim = self.weight.len();
        by_blocks(x.len() / dim, dim, |rows, out| {
            let from = Some(&x[rows.start * dim..rows.end * dim]);
            Isa::best().run(Normalise { norm: self, from, to: out, stride: dim, operands: false });
        })
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let dim = self.weight.len();
        Ok(by_blocks(x.len() / dim, dim, |rows, out| {
            let values = rows.start * dim..rows.end * dim;
            out.copy_from_slice(&grad[values.clone()]);
            Isa::best().run(Differentiate { norm: self, x: &x[values], grad: out, plus: None });
        }))
    }
}

/// Makes `rows` x `columns` values on all threads, some rows at a time.
fn by_blocks(rows: usize, columns: usize, fill: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let most = rows.div_ceil(Blocks::new(rows, columns, Isa::best()).count()).max(1);
    let mut out = vec![0.0; rows * columns];
    out.par_chunks_mut(most * columns).enumerate().for_each(|(i, out)| {
        fill(i * most..i * most + out.len() / columns, out);
    });
    out
}

impl Norm {
    /// Normalises rows in place.
    #[inline(always)]
    pub(crate) fn in_place<S: Simd>(&self, s: S, rows: &mut [f32]) {
        Normalise { norm: self, from: None, to: rows, stride: self.weight.len(), operands: false }.run(s);
    }

    /// Makes of the gradients of normalised rows those of the rows `x`, in place, and adds `plus`.
    #[inline(always)]
    pub(crate) fn differentiate<S: Simd>(&self, s: S, x: &[f32], grad: &mut [f32], plus: Option<&[f32]>) {
        Differentiate { norm: self, x, grad, plus }.run(s);
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

/// Normalises the rows of `from` (or of `to` itself) into `to`.
struct Normalise<'a> {
    norm: &'a Norm,
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
        assert!(self.from.is_none_or(|from| from.len() / dim == self.to.len() / self.stride));
        assert!(self.stride >= if self.operands { dim.div_ceil(S::WORD) } else { dim });
        assert!(self.norm.bias.len() == dim && !(self.operands && self.from.is_none()));
        let (weight, bias) = (self.norm.weight.as_ptr(), self.norm.bias.as_ptr());
        for (r, out) in self.to.chunks_exact_mut(self.stride).enumerate() {
            let x = self.from.map_or(out.as_ptr(), |from| from[r * dim..].as_ptr());
            let out = out.as_mut_ptr();
            // SAFETY: x, out, weight and bias are valid for `dim` values, or operands.
            unsafe {
                let (mean, scale) = statistics(s, x, dim, self.norm.epsilon);
                let centre = s.splat(mean);
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

/// Makes of the gradients of normalised rows those of the rows `x`, in place, and adds `plus`. With
/// n = (x − mean) / deviation and g = grad · weight it is (g − mean(g) − n · mean(g · n)) / deviation.
struct Differentiate<'a> {
    norm: &'a Norm,
    x: &'a [f32],
    grad: &'a mut [f32],
    plus: Option<&'a [f32]>,
}

impl Kernel for Differentiate<'_> {
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
pub(crate) struct Normed<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) norm: &'a Norm,
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
    use candle_core::{DType, Device, Var};
    use nat_convert::recipe::EPSILON;

    use super::*;

    #[test]
    fn agrees_with_the_plain_form_far_from_zero() {
        for (dim, epsilon) in [(1, EPSILON), (7, 1e-12), (16, EPSILON), (48, 1e-3), (100, 0.5)] {
            let weights = Weights::random(3, DType::F32, Device::Cpu);
            let fused = LayerNorm::new(dim, epsilon, &weights);
            let plain = LayerNorm::new(dim, epsilon, &Weights::random(3, DType::F32, Device::Cpu).plain());
            // A large mean shows cancellation.
            let x = (Tensor::randn(0f32, 1.0, (2, 5, 3, dim), &Device::Cpu).unwrap() + 30.0).unwrap();
            let (a, b) = (fused.forward(&x).unwrap(), plain.forward(&x).unwrap());
            let off = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 2e-5, "dim {dim}: {off}");
        }
        let norm = LayerNorm::new(8, EPSILON, &Weights::random(3, DType::F32, Device::Cpu));
        let error = norm.forward(&Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap()).unwrap_err();
        assert!(error.to_string().contains("over 8 channels got [2, 9]"), "{error}");
    }
    /// The definition and differences of it, in f64, where epsilon counts as much as the variance does.
    #[test]
    fn epsilon_is_what_was_given_forward_and_backward() {
        for epsilon in [1e-12, EPSILON, 1e-3, 0.25] {
            let rows = [[0.05, -0.02, 0.01, 0.03, -0.04], [0.7, 0.71, 0.69, 0.72, 0.68]];
            let norm = |weights| LayerNorm::new(5, epsilon, &weights);
            let random = || Weights::random(3, DType::F32, Device::Cpu);
            let [weight, bias] = ["weight", "bias"].map(|name| vector(&random().get(&[5], name)));
            // The sum of the squares of the results.
            let naive = |row: &[f64; 5]| -> (Vec<f64>, f64) {
                let mean = row.iter().sum::<f64>() / 5.0;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5.0;
                let normed = |(i, x): (usize, &f64)| {
                    (x - mean) / (variance + epsilon).sqrt() * f64::from(weight[i]) + f64::from(bias[i])
                };
                let y: Vec<f64> = row.iter().enumerate().map(normed).collect();
                let squares = y.iter().map(|y| y * y).sum();
                (y, squares)
            };
            for layer in [norm(random()), norm(random().differentiable()), norm(random().plain())] {
                let x = Tensor::new(&rows, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
                let got = layer.forward(&x).unwrap().to_vec2::<f32>().unwrap();
                for (got, row) in got.iter().zip(&rows) {
                    for (got, want) in got.iter().zip(naive(row).0) {
                        assert!((f64::from(*got) - want).abs() < 1e-4, "{epsilon}: {got}, not {want}");
                    }
                }
            }
            for layer in [norm(random().differentiable()), norm(random().plain())] {
                let x = Tensor::new(&rows, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
                let x = Var::from_tensor(&x).unwrap();
                let gradients =
                    layer.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let got = gradients.get(&x).unwrap().to_vec2::<f32>().unwrap();
                for (got, row) in got.iter().zip(&rows) {
                    for (i, got) in got.iter().enumerate() {
                        const STEP: f64 = 1e-6;
                        let moved = |step: f64| {
                            let mut row = *row;
                            row[i] += step;
                            naive(&row).1
                        };
                        let want = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                        let off = (f64::from(*got) - want).abs();
                        assert!(off < 2e-3 * want.abs().max(1.0), "{epsilon}: {got}, not {want}");
                    }
                }
            }
        }
    }
}
