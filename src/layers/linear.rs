//! Linear layers with what stands around them in a transformer block: the layer norm before, the
//! activation, layer scale and residual after, and a block's whole MLP.

use candle_core::{Result, Shape, Tensor};
use nat_convert::arch::LinearSpec;

use super::backend;
use super::form::{LinearForm, MlpForm};
use super::parts::{LinearParts, MlpParts};
use crate::profile::{Kind, span};
use crate::weights::Weights;

/// gamma · activation(norm(x) · weightᵀ + bias) over the last dimension, of which its parts say what there is.
pub struct Linear {
    form: Box<dyn LinearForm>,
    inputs: usize,
    outputs: usize,
    /// What its time counts as, without a residual.
    kind: Kind,
}

impl Linear {
    /// Takes the tensors that `spec` names.
    pub fn new(spec: &LinearSpec, weights: &Weights) -> Self {
        Self::of(LinearParts::take(spec, weights), weights)
    }

    /// The layer of these parts, which came of `weights`.
    ///
    /// # Panics
    /// When a norm is of other channels than the layer's inputs.
    pub fn of(parts: LinearParts, weights: &Weights) -> Self {
        let (inputs, outputs) = (parts.inputs(), parts.outputs());
        assert!(parts.norm.as_ref().is_none_or(|norm| norm.dim() == inputs), "a norm of other channels");
        let kind = if parts.norm.is_some() { Kind::Qkv } else { Kind::Linear };
        Self { form: backend::of(weights).linear(parts, weights), inputs, outputs, kind }
    }

    /// linear(norm(x)), [.., inputs] to [.., outputs].
    ///
    /// # Errors
    /// When the last dimension is not `inputs`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(self.kind, shape.elem_count() * self.inputs);
        self.form.forward(x, None, &shape)
    }

    /// residual + gamma · linear(x): `x` [.., inputs], `residual` and the result [.., outputs].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(Kind::Proj, shape.elem_count() * self.inputs);
        self.form.forward(x, Some(residual), &shape)
    }

    /// The shape of the result for an input like `x`.
    fn check(&self, x: &Tensor) -> Result<Shape> {
        match x.dims().split_last() {
            Some((&last, rest)) if last == self.inputs => Ok([rest, &[self.outputs]].concat().into()),
            _ => candle_core::bail!("a linear layer of {} inputs got {:?}", self.inputs, x.shape()),
        }
    }
}

/// A block's MLP with its norm, layer scale and residual: x + gamma · fc2(gelu(fc1(norm(x)))).
pub struct Mlp {
    form: Box<dyn MlpForm>,
    dim: usize,
    hidden: usize,
}

impl Mlp {
    /// The MLP of these parts, which came of `weights`.
    ///
    /// # Panics
    /// When they are of widths that do not fit.
    pub fn of(parts: MlpParts, weights: &Weights) -> Self {
        let (dim, hidden) = (parts.fc1.inputs(), parts.fc1.outputs());
        assert!(parts.norm.dim() == dim && parts.fc2.inputs() == hidden && parts.fc2.outputs() == dim);
        Self { form: backend::of(weights).mlp(parts, weights), dim, hidden }
    }

    /// x + gamma · mlp(norm(x)), [.., dim].
    ///
    /// # Errors
    /// When the last dimension is not `dim`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.dims().last() != Some(&self.dim) {
            candle_core::bail!("an MLP of {} channels got {:?}", self.dim, x.shape());
        }
        let _span = span(Kind::Mlp, 2 * x.elem_count() * self.hidden);
        self.form.forward(x)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use nat_convert::arch::{LayerNormSpec, Scope};
    use nat_convert::recipe::EPSILON;
    use nat_testing::tensors::largest;

    use super::*;
    use crate::layers::norm::LayerNorm;
    use crate::layers::parts::NormParts;

    fn at(name: &str) -> Scope {
        Scope::default().at(name)
    }

    fn norm_spec(dim: usize) -> LayerNormSpec {
        LayerNormSpec::new(&at("norm"), dim, EPSILON)
    }

    /// Linear layers with all that can stand around them, and MLPs.
    struct Layers {
        linear: [Linear; 3],
        mlp: [Mlp; 2],
    }

    impl Layers {
        /// Of the same weights: alone, with a norm, with a layer scale; without a scale and with one.
        fn new(dim: usize, hidden: usize, weights: &Weights) -> Self {
            let take = |name, inputs, outputs| {
                LinearParts::take(&LinearSpec::new(&at(name), inputs, outputs, true), weights)
            };
            let norm = || NormParts::take(&norm_spec(dim), weights);
            let linear = || take("linear", dim, dim);
            let gamma = || Some(weights.get(&[dim], "gamma"));
            let mlp = |gamma| MlpParts {
                norm: norm(),
                fc1: take("fc1", dim, hidden),
                fc2: take("fc2", hidden, dim),
                gamma,
            };
            let normed = LinearParts { norm: Some(norm()), ..linear() };
            let scaled = LinearParts { gamma: gamma(), ..linear() };
            Self {
                linear: [linear(), normed, scaled].map(|parts| Linear::of(parts, weights)),
                mlp: [None, gamma()].map(|gamma| Mlp::of(mlp(gamma), weights)),
            }
        }

        fn forward(&self, x: &Tensor, other: &Tensor) -> Vec<Tensor> {
            let Self { linear: [linear, normed, scaled], mlp: [mlp, scaled_mlp] } = self;
            let outs = [
                linear.forward(x),
                normed.forward(x),
                linear.forward_residual(x, other),
                scaled.forward_residual(x, other),
                mlp.forward(x),
                scaled_mlp.forward(x),
            ];
            outs.map(Result::unwrap).into()
        }
    }

    #[test]
    fn fused_forms_agree_with_plain_ones() {
        // Values are near 1, so with bf16 the rounding of 8 bits shows.
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F16, 5e-3), (DType::BF16, 4e-2)] {
            for (dim, hidden, rows) in [(16, 48, 1), (32, 64, 49), (24, 96, 300), (13, 39, 20)] {
                let random = |dtype| Weights::random(1, dtype, Device::Cpu);
                let x = Tensor::randn(0f32, 1.0, (1, rows, dim), &Device::Cpu).unwrap();
                let run = |w: Weights| Layers::new(dim, hidden, &w).forward(&x, &x);
                let (fused, plain) = (run(random(dtype)), run(random(DType::F32).plain()));
                for (case, (a, b)) in fused.iter().zip(&plain).enumerate() {
                    let off = largest(a, b);
                    assert!(off < tolerance, "{dtype:?}, {dim} -> {hidden}, {rows} rows, case {case}: {off}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_plain_forms() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 4e-2)] {
            for (dim, hidden, rows) in [(16, 48, 1), (32, 64, 49), (24, 96, 300), (13, 39, 20)] {
                let run = |weights: Weights| {
                    let layers = Layers::new(dim, hidden, &weights);
                    let values: Vec<f32> =
                        (0..rows * dim).map(|i| (i * 37 % 101) as f32 / 30.0 - 1.5).collect();
                    let x = Tensor::from_vec(values, (1, rows, dim), &Device::Cpu).unwrap();
                    let [x, other] =
                        [&x, &x.affine(-0.5, 0.1).unwrap()].map(|x| Var::from_tensor(x).unwrap());
                    // A gradient that differs from value to value.
                    let back = |y: &Tensor| {
                        let grads = (y.sqr().unwrap() + y).unwrap().backward().unwrap();
                        [&x, &other].map(|x| grads.get(x).cloned())
                    };
                    let outs = layers.forward(&x, &other).into_iter().chain(layers.forward(&x, &x));
                    let norm = LayerNorm::new(&norm_spec(dim), &weights);
                    outs.chain([norm.forward(&x).unwrap()]).map(|y| back(&y)).collect::<Vec<_>>()
                };
                let fused = run(Weights::random(1, dtype, Device::Cpu).differentiable());
                let plain = run(Weights::random(1, DType::F32, Device::Cpu).plain());
                for (case, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                    for (fused, plain) in fused.iter().zip(plain) {
                        let (Some(fused), Some(plain)) = (fused, plain) else {
                            assert!(fused.is_none() && plain.is_none(), "case {case}");
                            continue;
                        };
                        let off = largest(fused, plain) / largest(plain, &plain.zeros_like().unwrap());
                        assert!(
                            off < tolerance,
                            "{dtype:?}, {dim} -> {hidden}, {rows} rows, case {case}: {off}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scaled_rows_are_multiplied_with_their_bias() {
        let x = Tensor::randn(0f32, 1.0, (3, 8), &Device::Cpu).unwrap();
        for form in [|weights| weights, Weights::plain] {
            let weights = || form(Weights::random(1, DType::F32, Device::Cpu));
            let run = |factor: f64| {
                let weights = weights();
                let parts = LinearParts::take(&LinearSpec::new(&at("linear"), 8, 6, true), &weights)
                    .scaled(2, factor, &weights);
                Linear::of(parts, &weights).forward(&x).unwrap().to_vec2::<f32>().unwrap()
            };
            let (plain, scaled) = (run(1.0), run(0.3));
            for (scaled, plain) in scaled.iter().zip(&plain) {
                for (i, (scaled, plain)) in scaled.iter().zip(plain).enumerate() {
                    let want = if i < 2 { 0.3 * plain } else { *plain };
                    assert!((scaled - want).abs() < 1e-6, "output {i}: {scaled}, not {want}");
                }
            }
        }
    }

    #[test]
    fn a_layer_for_inference_says_that_it_has_no_gradient() {
        let spec = LinearSpec::new(&at("linear"), 8, 4, true);
        let linear = Linear::new(&spec, &Weights::random(1, DType::F32, Device::Cpu));
        let x = Var::zeros((2, 8), DType::F32, &Device::Cpu).unwrap();
        let error = linear.forward(&x).unwrap().backward().unwrap_err();
        assert!(error.to_string().contains("built for inference"), "{error}");
    }

    #[test]
    fn wrong_widths_are_errors_with_the_numbers() {
        let spec = LinearSpec::new(&at("linear"), 8, 4, true);
        let linear = Linear::new(&spec, &Weights::random(1, DType::F32, Device::Cpu));
        let x = Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap();
        assert!(linear.forward(&x).unwrap_err().to_string().contains("8 inputs got [2, 9]"));
    }
}
