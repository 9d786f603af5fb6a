//! Linear layers with what stands around them in a transformer block: the layer norm before, the
//! activation, layer scale and residual after, and a block's whole MLP.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{
    Activation, Blocks, Epilogue, Operands, Output, Packed, Plain, Rows, Scratch, block, output, product,
    room,
};
use super::norm::{LayerNorm, Normed};
use super::plain::{self, Finish};
use super::profile::{Kind, span};
use super::simd::{Kernel, Simd};
use super::{map_f32, vector, with_f32};
use crate::weights::Weights;

/// x · weightᵀ + bias over the last dimension.
pub struct Linear {
    form: Form,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

enum Form {
    /// Packed for the CPU kernels.
    Packed { weight: Packed, bias: Option<Vec<f32>> },
    /// As tensors: any device, differentiable.
    Plain { weight: Tensor, bias: Option<Tensor> },
}

/// A block's layer scale: one factor a channel (arXiv 2103.17239).
pub struct LayerScale {
    values: Vec<f32>,
    plain: Option<Tensor>,
}

impl LayerScale {
    /// Takes the tensor `name`, `[dim]`.
    pub fn new(dim: usize, weights: &Weights, name: &str) -> Self {
        let gamma = weights.get(&[dim], name);
        if weights.is_plain() {
            Self { values: Vec::new(), plain: Some(gamma) }
        } else {
            Self { values: vector(&gamma), plain: None }
        }
    }

    fn plain(gamma: Option<&Self>) -> Option<&Tensor> {
        gamma.and_then(|gamma| gamma.plain.as_ref())
    }
}

impl Linear {
    /// Takes `weight` [outputs, inputs] and, with `bias`, `bias` `[outputs]`.
    pub fn new(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> Self {
        let weight = weights.get(&[outputs, inputs], "weight");
        Self::of(weight, bias.then(|| weights.get(&[outputs], "bias")), weights)
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
            Form::Plain { weight, bias }
        } else {
            let weight = Packed::new(weights.isa(), outputs, inputs, &vector(&weight));
            Form::Packed { weight, bias: bias.as_ref().map(vector) }
        };
        Self { form, inputs, outputs, activation: Activation::None }
    }

    /// The layer with max(x, 0) behind it.
    #[must_use]
    pub fn relu(self) -> Self {
        Self { activation: Activation::Relu, ..self }
    }

    /// linear(x), [.., inputs] to [.., outputs].
    ///
    /// # Errors
    /// When the last dimension is not `inputs`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.check(x)?;
        let _span = span(Kind::Linear, shape.elem_count() * self.inputs);
        match &self.form {
            Form::Packed { weight, bias } => map_f32(x, &shape, |x| {
                let rows = Plain { rows: x, depth: self.inputs };
                product(x.len() / self.inputs, &rows, weight, epilogue(bias, self.activation))
            }),
            Form::Plain { weight, bias } => {
                let finish = Finish { activation: self.activation, ..Finish::bias(bias) };
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
            Form::Packed { weight, bias } => {
                norm.check(x)?;
                map_f32(x, &shape, |x| {
                    let rows = Normed { rows: x, norm };
                    product(x.len() / self.inputs, &rows, weight, epilogue(bias, Activation::None))
                })
            }
            Form::Plain { weight, bias } => {
                Finish::bias(bias).apply(plain::product(&norm.forward(x)?, weight)?)
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
            Form::Packed { weight, bias } => {
                same(&shape, residual.shape())?;
                with_f32(residual, |residual| {
                    map_f32(x, &shape, |x| {
                        let rows = Plain { rows: x, depth: self.inputs };
                        let epilogue = Epilogue {
                            residual: Some(residual),
                            gamma: scale(gamma),
                            ..epilogue(bias, Activation::None)
                        };
                        product(x.len() / self.inputs, &rows, weight, epilogue)
                    })
                })?
            }
            Form::Plain { weight, bias } => {
                let gamma = LayerScale::plain(gamma);
                let finish = Finish { gamma, residual: Some(residual), ..Finish::bias(bias) };
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

fn same(a: &Shape, b: &Shape) -> Result<()> {
    if a == b {
        Ok(())
    } else {
        candle_core::bail!("a residual of shape {b:?} beside a branch of shape {a:?}")
    }
}

fn epilogue(bias: &Option<Vec<f32>>, activation: Activation) -> Epilogue<'_> {
    Epilogue { bias: bias.as_deref(), activation, residual: None, gamma: None }
}

fn scale(gamma: Option<&LayerScale>) -> Option<&[f32]> {
    gamma.map(|gamma| gamma.values.as_slice())
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
            (Form::Packed { weight: fc1, bias: bias1 }, Form::Packed { weight: fc2, bias: bias2 }) => {
                let dim = norm.check(x)?;
                map_f32(x, x.shape(), |x| {
                    let rows = x.len() / dim;
                    let first = epilogue(bias1, Activation::Gelu);
                    let second = Epilogue {
                        residual: Some(x),
                        gamma: scale(gamma),
                        ..epilogue(bias2, Activation::None)
                    };
                    let blocks = Blocks::new(rows, fc1.words() + fc2.words(), fc1.isa());
                    output(rows, dim, |out| {
                        (0..blocks.count()).into_par_iter().with_max_len(1).for_each(|i| {
                            let normed = Normed { rows: x, norm };
                            fc1.isa().run(Fused {
                                normed,
                                layers: [(fc1, first), (fc2, second)],
                                range: blocks.range(i),
                                out,
                            });
                        });
                    })
                })
            }
            (Form::Plain { weight, bias }, _) => {
                let finish = Finish { activation: Activation::Gelu, ..Finish::bias(bias) };
                let hidden = finish.apply(plain::product(&norm.forward(x)?, weight)?)?;
                self.fc2.forward_residual(&hidden, x, gamma)
            }
            _ => candle_core::bail!("an MLP of layers of two forms"),
        }
    }
}

/// One block of rows through both layers of an MLP.
struct Fused<'a> {
    normed: Normed<'a>,
    layers: [(&'a Packed, Epilogue<'a>); 2],
    range: std::ops::Range<usize>,
    out: Output,
}

impl Kernel for Fused<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [(fc1, first), (fc2, second)] = self.layers;
        let count = self.range.len();
        let Scratch { mut rows, mut hidden } = Scratch::take();
        let normed = self.normed.get(s, self.range.clone(), &mut rows);
        let stride = room::<S>(&mut hidden, count, fc1.n());
        let view = Output::operands(&mut hidden, fc1.n(), stride);
        // SAFETY: `hidden` is this thread's own; the tasks' rows of `out` are disjoint.
        unsafe {
            block(s, normed, fc1, 0..fc1.panels(), &first, view, 0..count);
            let hidden = Operands { words: &hidden, stride };
            block(s, hidden, fc2, 0..fc2.panels(), &second, self.out, self.range);
        }
        Scratch { rows, hidden }.put_back();
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

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
                        LayerNorm::new(dim, &w.pp("norm")),
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
    fn wrong_widths_are_errors_with_the_numbers() {
        let linear = Linear::new(8, 4, true, &Weights::random(1, DType::F32, Device::Cpu));
        let x = Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap();
        assert!(linear.forward(&x).unwrap_err().to_string().contains("8 inputs got [2, 9]"));
    }
}
