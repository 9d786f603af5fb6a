//! The forms of backends that keep weights as tensors: each layer is a few steps, of which the backend has its own.

use candle_core::{Result, Shape, Tensor};

use super::form::{ConvForm, ConvSizes, LinearForm, MapForm, MlpForm, NormForm, PyramidForm};
use super::parts::{Activation, ConvParts, LinearParts, MlpParts, NormParts, PyramidParts};

/// What follows a product: residual + gamma · activation(x + bias).
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) bias: Option<&'a Tensor>,
    pub(super) activation: Activation,
    pub(super) gamma: Option<&'a Tensor>,
    pub(super) residual: Option<&'a Tensor>,
}

impl Finish<'_> {
    /// Applies it to `x` with the steps of a backend, if there is anything to do.
    pub(super) fn apply(self, steps: impl Steps, x: Tensor) -> Result<Tensor> {
        let Self { bias, activation, gamma, residual } = self;
        match (bias, activation, gamma, residual) {
            (None, Activation::None, None, None) => Ok(x),
            _ => steps.finish(x, self),
        }
    }
}

/// What a backend does in linear layers.
pub(super) trait Steps: Copy + Send + Sync + 'static {
    /// x · weightᵀ: `x` [.., inputs], `weight` [outputs, inputs].
    fn product(self, x: &Tensor, weight: &Tensor) -> Result<Tensor>;

    /// Applies what follows a product to `x` [.., channels].
    fn finish(self, x: Tensor, finish: Finish) -> Result<Tensor>;

    /// Normalises `x` [.., channels].
    fn layer_norm(self, x: &Tensor, norm: &NormParts) -> Result<Tensor>;
}

/// A linear layer by steps.
pub(super) struct StepLinear<S> {
    pub(super) parts: LinearParts,
    pub(super) steps: S,
}

impl<S: Steps> LinearForm for StepLinear<S> {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, _: &Shape) -> Result<Tensor> {
        let LinearParts { weight, bias, norm, activation, gamma } = &self.parts;
        let product = match norm {
            Some(norm) => self.steps.product(&self.steps.layer_norm(x, norm)?, weight)?,
            None => self.steps.product(x, weight)?,
        };
        let (bias, gamma) = (bias.as_ref(), gamma.as_ref());
        Finish { bias, activation: *activation, gamma, residual }.apply(self.steps, product)
    }
}

/// An MLP by steps.
pub(super) struct StepMlp<S> {
    fc1: StepLinear<S>,
    fc2: StepLinear<S>,
}

impl<S: Steps> StepMlp<S> {
    pub(super) fn new(MlpParts { norm, fc1, fc2, gamma }: MlpParts, steps: S) -> Self {
        let fc1 = LinearParts { norm: Some(norm), activation: Activation::Gelu, ..fc1 };
        let linear = |parts| StepLinear { parts, steps };
        Self { fc1: linear(fc1), fc2: linear(LinearParts { gamma, ..fc2 }) }
    }
}

impl<S: Steps> MlpForm for StepMlp<S> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.fc1.forward(x, None, x.shape())?;
        self.fc2.forward(&hidden, Some(x), x.shape())
    }
}

/// A layer norm by one step.
pub(super) struct StepNorm<S> {
    pub(super) parts: NormParts,
    pub(super) steps: S,
}

impl<S: Steps> NormForm for StepNorm<S> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.steps.layer_norm(x, &self.parts)
    }
}

/// A convolution over a pyramid as it is written: maps are resampled and concatenated.
pub(super) struct StepPyramid {
    conv: Box<dyn ConvForm>,
    outputs: usize,
    align_corners: bool,
    maps: &'static dyn MapForm,
}

impl StepPyramid {
    /// By the backend's form of the convolution, and what it does with maps.
    pub(super) fn new(
        PyramidParts { conv, align_corners, .. }: PyramidParts,
        form: impl FnOnce(ConvParts) -> Box<dyn ConvForm>,
        maps: &'static dyn MapForm,
    ) -> Self {
        Self { outputs: conv.outputs(), conv: form(conv), align_corners, maps }
    }
}

impl PyramidForm for StepPyramid {
    fn forward(&self, maps: &[Tensor]) -> Result<Tensor> {
        let Some(first) = maps.first() else { candle_core::bail!("a pyramid without maps") };
        let (batch, h, w, _) = first.dims4()?;
        let resized = maps.iter().map(|map| self.maps.resized(map, [h, w], self.align_corners));
        let map = Tensor::cat(&resized.collect::<Result<Vec<_>>>()?, 3)?;
        let sizes = ConvSizes { batch, map: [h, w, map.dim(3)?], out: [h, w], outputs: self.outputs };
        self.conv.forward(&map, None, sizes)
    }
}
