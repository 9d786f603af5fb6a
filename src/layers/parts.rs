//! What layers are made of, as tensors: taken from the weights, not yet in the form that a backend gives them.

use candle_core::{DType, Result, Tensor};

use crate::weights::Weights;

/// Geometry of a convolution. An input outside the map is zero and the output has
/// ceil(side / stride) positions: PyTorch's 3x3 with padding 1, and patch embeddings that pad the
/// right and the bottom up to whole patches.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros before the first row and column.
    pub padding: usize,
}

impl Window {
    /// A convolution on one point.
    pub const POINT: Self = Self { kernel: 1, stride: 1, padding: 0 };
    /// 3x3, and the map keeps its size.
    pub const SAME: Self = Self { kernel: 3, stride: 1, padding: 1 };
}

/// Order of the dimensions of a convolution's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapLayout {
    /// [B, C, H, W]: images.
    ChannelsFirst,
    /// [B, H, W, C]: feature maps.
    ChannelsLast,
}

/// What follows a product and its bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// x Φ(x), the exact GELU.
    Gelu,
    /// max(x, 0)
    Relu,
}

/// A layer norm's tensors: (x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension.
#[derive(Clone)]
pub struct NormParts {
    /// `[dim]`
    pub weight: Tensor,
    /// `[dim]`
    pub bias: Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}

impl NormParts {
    /// Takes `weight` and `bias`, both `[dim]`.
    pub fn take(dim: usize, epsilon: f64, weights: &Weights) -> Self {
        Self { weight: weights.get(&[dim], "weight"), bias: weights.get(&[dim], "bias"), epsilon }
    }

    /// Channels that it normalises.
    pub(crate) fn dim(&self) -> usize {
        self.weight.elem_count()
    }
}

/// A linear layer's tensors, with what stands around it: residual + gamma · activation(linear(norm(x))).
#[derive(Clone)]
pub struct LinearParts {
    /// [outputs, inputs]
    pub weight: Tensor,
    /// `[outputs]`
    pub bias: Option<Tensor>,
    /// Of `inputs` channels.
    pub norm: Option<NormParts>,
    /// Behind the bias.
    pub activation: Activation,
    /// `[outputs]`, only beside a residual: the layer scale of a block (arXiv 2103.17239).
    pub gamma: Option<Tensor>,
}

impl LinearParts {
    /// Takes `weight` [outputs, inputs] and, with `bias`, `bias` `[outputs]`.
    pub fn take(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> Self {
        let weight = weights.get(&[outputs, inputs], "weight");
        Self::of(weight, bias.then(|| weights.get(&[outputs], "bias")))
    }

    /// Those of a weight [outputs, inputs] that is there, and nothing around them.
    pub(crate) fn of(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, norm: None, activation: Activation::None, gamma: None }
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
        Self::of(weight, Some(weights.get(&[outputs], "bias")))
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
        Self::of(weight, Some(bias))
    }

    /// The same with the first `rows` outputs multiplied by `factor`; `weights` are told of a failure.
    #[must_use]
    pub fn scaled(self, rows: usize, factor: f64, weights: &Weights) -> Self {
        if factor == 1.0 {
            return self;
        }
        let outputs = self.outputs();
        let factors: Vec<f32> = (0..outputs).map(|i| if i < rows { factor as f32 } else { 1.0 }).collect();
        let scaled = |x: Tensor, name| {
            let shape: Vec<usize> = [outputs, 1][..x.rank()].to_vec();
            let scale = || {
                let factors = Tensor::from_slice(&factors, shape, x.device())?;
                x.to_dtype(DType::F32)?.broadcast_mul(&factors)?.to_dtype(x.dtype())
            };
            weights.made(x.dims(), name, scale())
        };
        let bias = self.bias.map(|bias| scaled(bias, "bias"));
        Self { weight: scaled(self.weight, "weight"), bias, ..self }
    }

    /// The same with max(x, 0) behind it.
    #[must_use]
    pub fn relu(self) -> Self {
        Self { activation: Activation::Relu, ..self }
    }

    /// Width of what it takes.
    pub(crate) fn inputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Width of what it gives.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.dims()[0]
    }
}

/// The tensors of a block's MLP: residual + gamma · fc2(gelu(fc1(norm(x)))).
pub struct MlpParts {
    /// Of what both layers are around.
    pub norm: NormParts,
    /// [hidden, dim], with a bias.
    pub fc1: LinearParts,
    /// [dim, hidden], with a bias.
    pub fc2: LinearParts,
    /// `[dim]`, the block's layer scale.
    pub gamma: Option<Tensor>,
}

/// A convolution's tensors, with what stands around it: norm(residual + activation(conv(x))).
#[derive(Clone)]
pub struct ConvParts {
    /// [outputs, inputs, kernel, kernel]
    pub weight: Tensor,
    /// `[outputs]`
    pub bias: Option<Tensor>,
    /// Where outputs look.
    pub window: Window,
    /// Order of the input's dimensions.
    pub source: MapLayout,
    /// Behind the bias.
    pub activation: Activation,
    /// Of `outputs` channels.
    pub norm: Option<NormParts>,
}

impl ConvParts {
    /// Takes `weight` [outputs, inputs, kernel, kernel] and, with `bias`, `bias` `[outputs]`.
    pub fn take(
        (inputs, outputs): (usize, usize),
        window: Window,
        bias: bool,
        source: MapLayout,
        weights: &Weights,
    ) -> Self {
        let weight = weights.get(&[outputs, inputs, window.kernel, window.kernel], "weight");
        let bias = bias.then(|| weights.get(&[outputs], "bias"));
        Self { weight, bias, window, source, activation: Activation::None, norm: None }
    }

    /// OpenMMLab's ConvModule: a convolution without bias, BatchNorm with its running statistics, and
    /// ReLU. Takes `conv.weight` and `bn.weight`, `bn.bias`, `bn.running_mean`, `bn.running_var`; `epsilon`
    /// is added to the variance.
    pub fn module(
        (inputs, outputs): (usize, usize),
        window: Window,
        epsilon: f64,
        weights: &Weights,
    ) -> Self {
        let shape = [outputs, inputs, window.kernel, window.kernel];
        let weight = weights.pp("conv").get(&shape, "weight");
        let bn = weights.pp("bn");
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| bn.get(&[outputs], name));
        let fold = || -> Result<(Tensor, Tensor)> {
            let wide = |x: &Tensor| x.to_dtype(DType::F32);
            let scale = (wide(&gamma)? / (wide(&variance)? + epsilon)?.sqrt()?)?;
            let bias = (wide(&beta)? - (wide(&mean)? * &scale)?)?;
            let weight = wide(&weight)?.broadcast_mul(&scale.reshape((outputs, 1, 1, 1))?)?;
            Ok((weight.to_dtype(gamma.dtype())?, bias.to_dtype(gamma.dtype())?))
        };
        let (weight, bias) = match fold() {
            Ok(folded) => folded,
            Err(error) => (weights.made(&shape, "conv.weight", Err(error)), beta),
        };
        let (activation, source) = (Activation::Relu, MapLayout::ChannelsLast);
        Self { weight, bias: Some(bias), window, source, activation, norm: None }
    }

    /// The same with max(x, 0) behind it.
    #[must_use]
    pub fn relu(self) -> Self {
        Self { activation: Activation::Relu, ..self }
    }

    /// Channels of what it takes.
    pub(crate) fn inputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Channels of what it gives.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.dims()[0]
    }
}

/// A convolution over the concatenation of maps that are resampled to the size of the first.
pub struct PyramidParts {
    /// 3x3, of the channels of all maps.
    pub conv: ConvParts,
    /// How many maps there are, all of as many channels.
    pub levels: usize,
    /// Whether corners stay on corners: PyTorch's `align_corners`.
    pub align_corners: bool,
}
