//! Layer norm over the last dimension (arXiv 1607.06450).

use candle_core::{Result, Tensor};
use nat_convert::arch::LayerNormSpec;

use super::backend;
use super::form::NormForm;
use super::parts::NormParts;
use crate::profile::{Kind, span};
use crate::weights::Weights;

/// (x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension, where it stands alone. Norms
/// before a linear layer or behind a convolution are parts of these.
pub struct LayerNorm {
    form: Box<dyn NormForm>,
    dim: usize,
}

impl LayerNorm {
    /// Takes the tensors that `spec` names.
    pub fn new(spec: &LayerNormSpec, weights: &Weights) -> Self {
        Self { form: backend::of(weights).norm(NormParts::take(spec, weights), weights), dim: spec.dim }
    }

    /// Normalises `x` [.., dim].
    ///
    /// # Errors
    /// When the last dimension is not `dim`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.dim == 0 || x.dims().last() != Some(&self.dim) {
            candle_core::bail!("layer norm over {} channels got {:?}", self.dim, x.shape());
        }
        let _span = span(Kind::Norm, 0);
        self.form.forward(x)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use nat_convert::arch::Scope;
    use nat_convert::recipe::EPSILON;
    use nat_testing::tensors::largest;

    use super::*;
    use crate::tensors::vector;

    fn spec(dim: usize, epsilon: f64) -> LayerNormSpec {
        LayerNormSpec::new(&Scope::default(), dim, epsilon)
    }

    #[test]
    fn agrees_with_the_plain_form_far_from_zero() {
        for (dim, epsilon) in [(1, EPSILON), (7, 1e-12), (16, EPSILON), (48, 1e-3), (100, 0.5)] {
            let weights = Weights::random(3, DType::F32, Device::Cpu);
            let fused = LayerNorm::new(&spec(dim, epsilon), &weights);
            let plain = Weights::random(3, DType::F32, Device::Cpu).plain();
            let plain = LayerNorm::new(&spec(dim, epsilon), &plain);
            // A large mean shows cancellation.
            let x = (Tensor::randn(0f32, 1.0, (2, 5, 3, dim), &Device::Cpu).unwrap() + 30.0).unwrap();
            let (a, b) = (fused.forward(&x).unwrap(), plain.forward(&x).unwrap());
            let off = largest(&a, &b);
            assert!(off < 2e-5, "dim {dim}: {off}");
        }
        let norm = LayerNorm::new(&spec(8, EPSILON), &Weights::random(3, DType::F32, Device::Cpu));
        let error = norm.forward(&Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap()).unwrap_err();
        assert!(error.to_string().contains("over 8 channels got [2, 9]"), "{error}");
    }
    /// The definition and differences of it, in f64, where epsilon counts as much as the variance does.
    #[test]
    fn epsilon_is_what_was_given_forward_and_backward() {
        for epsilon in [1e-12, EPSILON, 1e-3, 0.25] {
            let rows = [[0.05, -0.02, 0.01, 0.03, -0.04], [0.7, 0.71, 0.69, 0.72, 0.68]];
            let norm = |weights| LayerNorm::new(&spec(5, epsilon), &weights);
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
