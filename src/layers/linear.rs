//! Linear layers with what stands around them in a transformer block: the layer norm before, the
//! activation, layer scale and residual after, and a block's whole MLP.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{
    Activation, Blocks, Epilogue, Output, Packed, PackedLayer, Scratch, Then, block, output, product,
};
use super::norm::{LayerNorm, Norm, Normed};
use super::operator::{Layer, apply};
use super::plain::{self, Finish};
use super::profile::{Kind, span};
use super::rows::{Operands, Plain, Rows, Scaled, room};
use super::simd::{Kernel, Simd};
use super::vector;
use crate::weights::Weights;

/// x · weightᵀ + bias over the last dimension.
pub struct Linear {
    form: Form,
    bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

enum Form {
    /// Packed for the CPU kernels.
    Packed(Arc<PackedLayer>),
    /// As a tensor: any device, differentiable.
    Plain { weight: Tensor },
}

/// A block's layer scale: one factor a channel (arXiv 2103.17239).
pub struct LayerScale {
    values: Arc<Vec<f32>>,
    plain: Option<Tensor>,
}

impl LayerScale {
    /// Takes the tensor `name`, `[dim]`.
    pub fn new(dim: usize, weights: &Weights, name: &str) -> Self {
        let gamma = weights.get(&[dim], name);
        if weights.is_plain() {
            Self { values: Arc::default(), plain: Some(gamma) }
        } else {
            Self { values: Arc::new(vector(&gamma)), plain: None }
        }
    }

    fn plain(gamma: Option<&Self>) -> Option<&Tensor> {
        gamma.and_then(|gamma| gamma.plain.as_ref())
    }

    fn values(gamma: Option<&Self>) -> Option<Arc<Vec<f32>>> {
        gamma.map(|gamma| gamma.values.clone())
    }
}

impl Linear {
    /// Takes `weight` [outputs, inputs] and, with `bias`, `bias` `[outputs]`.
    pub fn new(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> Self {
        let weight = weights.get(&[outputs, inputs], "weight");
        Self::of(weight, bias.then(|| weights.get(&[outputs], "bias")), weights)
    }

    /// As [`Linear::new`], the first `rows` outputs multiplied by `factor`.
    pub fn scaled(
        (inputs, outputs): (usize, usize),
        bias: bool,
        (rows, factor): (usize, f64),
        weights: &Weights,
    ) -> Self {
        if factor == 1.0 {
            return Self::new(inputs, outputs, bias, weights);
        }
        let factors: Vec<f32> = (0..outputs).map(|i| if i < rows { factor as f32 } else { 1.0 }).collect();
        let scaled = |x: Tensor, name| {
            let shape: Vec<usize> = [outputs, 1][..x.rank()].to_vec();
            let scale = || {
                let factors = Tensor::from_slice(&factors, shape, x.device())?;
                x.to_dtype(DType::F32)?.broadcast_mul(&factors)?.to_dtype(x.dtype())
            };
            weights.made(x.dims(), name, scale())
        };
        let weight = scaled(weights.get(&[outputs, inputs], "weight"), "weight");
        let bias = bias.then(|| scaled(weights.get(&[outputs], "bias"), "bias"));
        Self::of(weight, bias, weights)
    }

    /// A layer on flattened maps [area, channels], whose `weight` [outputs, channels · area] counts
    /// positions fastest, as PyTorch flattens [channels, H, W]. With a bias.
    pub fn on_map(channels: usize, area: usize, outputs: usize, weights: &Weights) -> Self {
        let shape = [outputs, channels * area];
        let weight = weights.get(&shape, "weight");
        let channels_inmost = weight
            .reshape((outputs, channels, area))
            .and_then(|w| w.transpose(1, 2)?.contiguous()?.reshape(&shape));
        let weight = weights.made(&shape, "weight", channels_inmost);
        Self::of(weight, Some(weights.get(&[outputs], "bias")), weights)
    }

    /// A transposed convolution of `side` x `side` at that stride, whose outputs do not overlap: gives each
    /// position its [side, side, outputs]. Takes `weight` [inputs, outputs, side, side] and a bias.
    pub fn transposed(inputs: usize, outputs: usize, side: usize, weights: &Weights) -> Self {
        let area = side * side;
        let weight = weights.get(&[inputs, outputs, side, side], "weight");
        let rows =
            weight.permute((2, 3, 1, 0)).and_then(|w| w.contiguous()?.reshape((area * outputs, inputs)));
        let weight = weights.made(&[area * outputs, inputs], "weight", rows);
        let bias = weights.get(&[outputs], "bias").repeat(area);
        let bias = weights.made(&[area * outputs], "bias", bias);
        Self::of(weight, Some(bias), weights)
    }

    /// `weight` [outputs, inputs]
    pub(super) fn of(weight: Tensor, bias: Option<Tensor>, weights: &Weights) -> Self {
        let (outputs, inputs) = (weight.dims()[0], weight.dims()[1]);
        let form = if weights.is_plain() {
            Form::Plain { weight }
        } else {
            let layer = PackedLayer::new(weights, [outputs, inputs], &vector(&weight), bias.as_ref());
            Form::Packed(Arc::new(layer))
        };
        Self { form, bias, inputs, outputs, activation: Activation::None }
    }

    /// The layer with max(x, 0) behind it.
    #[must_use]
    pub fn relu(self) -> Self {
        Self { activation: Activation::Relu, ..self }
    }

    /// The bias `[outputs]`, which is linear(0), if the layer has one: where its results are, and of their type.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// linear(x), [.., inputs] to [.., outputs].
    ///
    /// # Errors
    /// When the last dimension is not `inputs`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(Kind::Linear, shape.elem_count() * self.inputs);
        match &self.form {
            Form::Packed(layer) => {
                let product = Product { activation: self.activation, ..Product::of(layer, self.inputs) };
                apply(product, x, None, &shape)
            }
            Form::Plain { weight } => {
                let finish = Finish { activation: self.activation, ..Finish::bias(&self.bias) };
                finish.apply(plain::product(x, weight)?)
            }
        }
    }

    /// linear(norm(x)), [.., inputs] to [.., outputs].
    ///
    /// # Errors
    /// When the last dimension is not `inputs`.
    pub fn forward_normed(&self, norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(Kind::Qkv, shape.elem_count() * self.inputs);
        match &self.form {
            Form::Packed(layer) => {
                let product =
                    Product { norm: Some(norm.fused(x.shape())?), ..Product::of(layer, self.inputs) };
                apply(product, x, None, &shape)
            }
            Form::Plain { weight } => {
                Finish::bias(&self.bias).apply(plain::product(&norm.forward(x)?, weight)?)
            }
        }
    }

    /// residual + gamma · linear(x): `x` [.., inputs], `residual` and the result [.., outputs].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_residual(
        &self,
        x: &Tensor,
        residual: &Tensor,
        gamma: Option<&LayerScale>,
    ) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(Kind::Proj, shape.elem_count() * self.inputs);
        match &self.form {
            Form::Packed(layer) => {
                let gamma = LayerScale::values(gamma);
                apply(Product { gamma, ..Product::of(layer, self.inputs) }, x, Some(residual), &shape)
            }
            Form::Plain { weight } => {
                let gamma = LayerScale::plain(gamma);
                let finish = Finish { gamma, residual: Some(residual), ..Finish::bias(&self.bias) };
                finish.apply(plain::product(x, weight)?)
            }
        }
    }

    /// The shape of the result for an input like `x`.
    fn check(&self, x: &Tensor) -> Result<Shape> {
        match x.dims().split_last() {
            Some((&last, rest)) if last == self.inputs => Ok([rest, &[self.outputs]].concat().into()),
            _ => candle_core::bail!("a linear layer of {} inputs got {:?}", self.inputs, x.shape()),
        }
    }
}

/// residual + gamma · activation(linear(norm(x))), of which each part but linear may be absent.
struct Product {
    layer: Arc<PackedLayer>,
    inputs: usize,
    norm: Option<Arc<Norm>>,
    activation: Activation,
    /// Only beside a residual.
    gamma: Option<Arc<Vec<f32>>>,
}

impl Product {
    fn of(layer: &Arc<PackedLayer>, inputs: usize) -> Self {
        Self { layer: layer.clone(), inputs, norm: None, activation: Activation::None, gamma: None }
    }
}

impl Layer for Product {
    const NAME: &'static str = "linear";

    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Self { layer, inputs, norm, activation, gamma } = self;
        let epilogue = Epilogue { residual, gamma: values(gamma), ..layer.epilogue(*activation) };
        let rows = x.len() / inputs;
        match norm {
            Some(norm) => product(rows, &Normed { rows: x, norm }, &layer.weight, epilogue, Then::Nothing),
            None => product(rows, &Plain { rows: x, depth: *inputs }, &layer.weight, epilogue, Then::Nothing),
        }
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let Self { layer, inputs, norm, activation, gamma } = self;
        if *activation != Activation::None {
            candle_core::bail!("a linear layer with an activation of its own has no gradient");
        }
        let (rows, weight) = (x.len() / inputs, layer.transposed()?);
        let then = norm.as_ref().map_or(Then::Nothing, |norm| Then::NormGradient { norm, x });
        let depth = layer.weight.n();
        Ok(match values(gamma) {
            Some(factors) => {
                product(rows, &Scaled { rows: grad, factors }, weight, Epilogue::default(), then)
            }
            None => product(rows, &Plain { rows: grad, depth }, weight, Epilogue::default(), then),
        })
    }
}

fn values(gamma: &Option<Arc<Vec<f32>>>) -> Option<&[f32]> {
    gamma.as_ref().map(|gamma| gamma.as_slice())
}

/// A block's MLP with its norm and residual: fc2(gelu(fc1(norm(x)))).
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// Takes `fc1` [hidden, dim] and `fc2` [dim, hidden], with biases.
    pub fn new(dim: usize, hidden: usize, weights: &Weights) -> Self {
        Self {
            fc1: Linear::new(dim, hidden, true, &weights.pp("fc1")),
            fc2: Linear::new(hidden, dim, true, &weights.pp("fc2")),
        }
    }

    /// x + gamma · mlp(norm(x)), [.., dim]. The hidden values of a block of rows never leave the cache.
    ///
    /// # Errors
    /// When the last dimension is not `dim`.
    pub fn forward_residual(
        &self,
        norm: &LayerNorm,
        x: &Tensor,
        gamma: Option<&LayerScale>,
    ) -> Result<Tensor> {
        let hidden = self.fc1.check(x)?;
        let _span = span(Kind::Mlp, 2 * hidden.elem_count() * self.fc1.inputs);
        match (&self.fc1.form, &self.fc2.form) {
            (Form::Packed(fc1), Form::Packed(fc2)) => {
                let layers = [fc1.clone(), fc2.clone()];
                let gamma = LayerScale::values(gamma);
                let mlp = FusedMlp { norm: norm.fused(x.shape())?, layers, dim: self.fc1.inputs, gamma };
                apply(mlp, x, None, x.shape())
            }
            (Form::Plain { weight }, _) => {
                let finish = Finish { activation: Activation::Gelu, ..Finish::bias(&self.fc1.bias) };
                let hidden = finish.apply(plain::product(&norm.forward(x)?, weight)?)?;
                self.fc2.forward_residual(&hidden, x, gamma)
            }
            _ => candle_core::bail!("an MLP of layers of two forms"),
        }
    }
}

/// x + gamma · fc2(gelu(fc1(norm(x)))), on rows of `dim` values.
struct FusedMlp {
    norm: Arc<Norm>,
    layers: [Arc<PackedLayer>; 2],
    dim: usize,
    gamma: Option<Arc<Vec<f32>>>,
}

impl FusedMlp {
    /// Makes rows of `dim` values like `x`, of blocks for which `words` a row have to be in cache.
    fn by_blocks<K: Kernel<Output = ()>>(
        &self,
        x: &[f32],
        words: usize,
        kernel: impl Fn(Range<usize>, Output) -> K + Sync,
    ) -> Vec<f32> {
        let rows = x.len() / self.dim;
        let isa = self.layers[0].weight.isa();
        let blocks = Blocks::new(rows, words, isa);
        output(rows, self.dim, |out| {
            let tasks = (0..blocks.count()).into_par_iter().with_max_len(1);
            tasks.for_each(|i| isa.run(kernel(blocks.range(i), out)));
        })
    }
}

impl Layer for FusedMlp {
    const NAME: &'static str = "mlp";

    fn forward(&self, x: &[f32], _: Option<&[f32]>) -> Vec<f32> {
        let words = self.layers.iter().map(|layer| layer.weight.words()).sum();
        self.by_blocks(x, words, |range, out| Forward { mlp: self, x, range, out })
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let [fc1, fc2] = &self.layers;
        let transposed = [fc1.transposed()?, fc2.transposed()?];
        let words = fc1.weight.words() + 2 * fc2.weight.words();
        Ok(self.by_blocks(x, words, |range, out| Backward { mlp: self, transposed, x, grad, range, out }))
    }
}

/// One block of rows through both layers of an MLP.
struct Forward<'a> {
    mlp: &'a FusedMlp,
    x: &'a [f32],
    range: Range<usize>,
    out: Output,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let FusedMlp { norm, layers: [fc1, fc2], gamma, .. } = self.mlp;
        let count = self.range.len();
        let first = fc1.epilogue(Activation::Gelu);
        let residual = Some(self.x);
        let second = Epilogue { residual, gamma: values(gamma), ..fc2.epilogue(Activation::None) };
        let mut scratch = Scratch::take();
        let Scratch { rows, hidden, .. } = &mut scratch;
        let source = Normed { rows: self.x, norm };
        let normed = source.get(s, self.range.clone(), rows);
        let stride = room::<S>(hidden, count, fc1.weight.n());
        let view = Output::operands(hidden, fc1.weight.n(), stride);
        // SAFETY: `hidden` is this thread's own; the tasks' rows of `out` are disjoint.
        unsafe {
            block(s, normed, &fc1.weight, 0..fc1.weight.panels(), &first, view, 0..count);
            let hidden = Operands { words: hidden, stride };
            block(s, hidden, &fc2.weight, 0..fc2.weight.panels(), &second, self.out, self.range);
        }
        scratch.put_back();
    }
}

/// The gradient of one block of rows: the hidden values are computed again, and none of them leaves the
/// cache.
struct Backward<'a> {
    mlp: &'a FusedMlp,
    transposed: [&'a Packed; 2],
    x: &'a [f32],
    grad: &'a [f32],
    range: Range<usize>,
    out: Output,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let FusedMlp { norm, layers: [fc1, _], dim, gamma, .. } = self.mlp;
        let [back1, back2] = self.transposed;
        let (count, width) = (self.range.len(), fc1.weight.n());
        let values_of_rows = self.range.start * dim..self.range.end * dim;
        let mut scratch = Scratch::take();
        let Scratch { rows, hidden, slopes } = &mut scratch;
        slopes.resize(count * width, 0.0);
        let stride = room::<S>(hidden, count, width);
        let derivative = Epilogue { slope: true, ..fc1.epilogue(Activation::Gelu) };
        // SAFETY: the buffers are this thread's own; the tasks' rows of `out` are disjoint.
        unsafe {
            let source = Normed { rows: self.x, norm };
            let normed = source.get(s, self.range.clone(), rows);
            let view = Output::values(slopes, width);
            block(s, normed, &fc1.weight, 0..fc1.weight.panels(), &derivative, view, 0..count);

            let times = Epilogue { times: Some(slopes), ..Epilogue::default() };
            let view = Output::operands(hidden, width, stride);
            let (plain, scaled);
            let grad = match values(gamma) {
                Some(factors) => {
                    scaled = Scaled { rows: self.grad, factors };
                    scaled.get(s, self.range.clone(), rows)
                }
                None => {
                    plain = Plain { rows: self.grad, depth: *dim };
                    plain.get(s, self.range.clone(), rows)
                }
            };
            block(s, grad, back2, 0..back2.panels(), &times, view, 0..count);

            let hidden = Operands { words: hidden, stride };
            let range = self.range.clone();
            block(s, hidden, back1, 0..back1.panels(), &Epilogue::default(), self.out, range);
            let (x, grad) = (&self.x[values_of_rows.clone()], &self.grad[values_of_rows]);
            norm.differentiate(s, x, self.out.rows_mut(self.range), Some(grad));
        }
        scratch.put_back();
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use nat_convert::recipe::EPSILON;

    use super::*;

    fn off(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn fused_forms_agree_with_plain_ones() {
        // Values are near 1, so with bf16 the rounding of 8 bits shows.
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F16, 5e-3), (DType::BF16, 4e-2)] {
            for (dim, hidden, rows) in [(16, 48, 1), (32, 64, 49), (24, 96, 300), (13, 39, 20)] {
                let random = |dtype| Weights::random(1, dtype, Device::Cpu);
                let build = |w: &Weights| {
                    (
                        LayerNorm::new(dim, EPSILON, &w.pp("norm")),
                        Linear::new(dim, dim, true, &w.pp("linear")),
                        Mlp::new(dim, hidden, &w.pp("mlp")),
                        LayerScale::new(dim, w, "gamma"),
                    )
                };
                let (fused, plain) = (build(&random(dtype)), build(&random(DType::F32).plain()));
                let x = Tensor::randn(0f32, 1.0, (1, rows, dim), &Device::Cpu).unwrap();
                let run = |(norm, linear, mlp, gamma): &(LayerNorm, Linear, Mlp, LayerScale)| {
                    [
                        linear.forward(&x).unwrap(),
                        linear.forward_normed(norm, &x).unwrap(),
                        linear.forward_residual(&x, &x, None).unwrap(),
                        linear.forward_residual(&x, &x, Some(gamma)).unwrap(),
                        mlp.forward_residual(norm, &x, None).unwrap(),
                        mlp.forward_residual(norm, &x, Some(gamma)).unwrap(),
                    ]
                };
                for (case, (a, b)) in run(&fused).iter().zip(&run(&plain)).enumerate() {
                    let off = off(a, b);
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
                    let norm = LayerNorm::new(dim, EPSILON, &weights.pp("norm"));
                    let linear = Linear::new(dim, dim, true, &weights.pp("linear"));
                    let mlp = Mlp::new(dim, hidden, &weights.pp("mlp"));
                    let gamma = LayerScale::new(dim, &weights, "gamma");
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
                    [
                        back(&norm.forward(&x).unwrap()),
                        back(&linear.forward(&x).unwrap()),
                        back(&linear.forward_normed(&norm, &x).unwrap()),
                        back(&linear.forward_residual(&x, &other, None).unwrap()),
                        back(&linear.forward_residual(&x, &other, Some(&gamma)).unwrap()),
                        back(&linear.forward_residual(&x, &x, Some(&gamma)).unwrap()),
                        back(&mlp.forward_residual(&norm, &x, None).unwrap()),
                        back(&mlp.forward_residual(&norm, &x, Some(&gamma)).unwrap()),
                    ]
                };
                let fused = run(Weights::random(1, dtype, Device::Cpu).differentiable());
                let plain = run(Weights::random(1, DType::F32, Device::Cpu).plain());
                for (case, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                    for (fused, plain) in fused.iter().zip(plain) {
                        let (Some(fused), Some(plain)) = (fused, plain) else {
                            assert!(fused.is_none() && plain.is_none(), "case {case}");
                            continue;
                        };
                        let size = plain.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                        let off = off(fused, plain) / size;
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
            let run = |linear: Linear| linear.forward(&x).unwrap().to_vec2::<f32>().unwrap();
            let plain = run(Linear::new(8, 6, true, &weights()));
            let scaled = run(Linear::scaled((8, 6), true, (2, 0.3), &weights()));
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
        let linear = Linear::new(8, 4, true, &Weights::random(1, DType::F32, Device::Cpu));
        let x = Var::zeros((2, 8), DType::F32, &Device::Cpu).unwrap();
        let error = linear.forward(&x).unwrap().backward().unwrap_err();
        assert!(error.to_string().contains("built for inference"), "{error}");
    }

    #[test]
    fn wrong_widths_are_errors_with_the_numbers() {
        let linear = Linear::new(8, 4, true, &Weights::random(1, DType::F32, Device::Cpu));
        let x = Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap();
        assert!(linear.forward(&x).unwrap_err().to_string().contains("8 inputs got [2, 9]"));
    }
}
