//! What layers are made of, as tensors: taken from the weights, not yet in the form that a backend gives them.

use candle_core::{Device, Result, Tensor};
pub use nat_convert::arch::Window;
use nat_convert::arch::{
    AttentionSpec, BlockSpec, ConvModuleSpec, ConvSpec, LayerNormSpec, LinearSpec, UpsamplingSpec,
};

use crate::attention::NeighborhoodAttention;
use crate::tensors::widened;
use crate::weights::Weights;

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
#[non_exhaustive]
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
    /// Takes the tensors that `spec` names.
    pub fn take(spec: &LayerNormSpec, weights: &Weights) -> Self {
        let LayerNormSpec { weight, bias, epsilon, .. } = spec;
        Self { weight: weights.take(weight), bias: weights.take(bias), epsilon: *epsilon }
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
    /// Takes the tensors that `spec` names.
    pub fn take(spec: &LinearSpec, weights: &Weights) -> Self {
        Self::of(weights.take(&spec.weight), spec.bias.as_ref().map(|bias| weights.take(bias)))
    }

    /// Those of a weight [outputs, inputs] that is there, and nothing around them.
    pub(crate) fn of(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, norm: None, activation: Activation::None, gamma: None }
    }

    /// A layer on flattened maps [positions, `channels`], whose weight [outputs, inputs] counts positions fastest, as
    /// PyTorch flattens [channels, H, W].
    pub fn on_map(spec: &LinearSpec, channels: usize, weights: &Weights) -> Self {
        let Self { weight, bias, .. } = Self::take(spec, weights);
        let shape = [spec.outputs, spec.inputs];
        let channels_inmost = weight
            .reshape((spec.outputs, channels, spec.inputs / channels.max(1)))
            .and_then(|w| w.transpose(1, 2)?.contiguous()?.reshape(&shape));
        Self::of(weights.made(&shape, &spec.weight.name, channels_inmost), bias)
    }

    /// A transposed convolution whose outputs do not overlap: gives each position its [side, side, outputs].
    pub fn upsampling(spec: &UpsamplingSpec, weights: &Weights) -> Self {
        let UpsamplingSpec { inputs, outputs, side, weight, bias } = spec;
        let area = side * side;
        let shape = [area * outputs, *inputs];
        let rows = weights.take(weight).permute((2, 3, 1, 0)).and_then(|w| w.contiguous()?.reshape(&shape));
        let repeated = weights.take(bias).repeat(area);
        let made = weights.made(&shape, &weight.name, rows);
        Self::of(made, Some(weights.made(&[area * outputs], &bias.name, repeated)))
    }

    /// The same with the first `rows` outputs multiplied by `factor`; `weights` are told of a failure.
    #[must_use]
    pub fn scaled(self, rows: usize, factor: f64, weights: &Weights) -> Self {
        if factor == 1.0 {
            return self;
        }
        let outputs = self.outputs();
        let factors: Vec<f64> = (0..outputs).map(|i| if i < rows { factor } else { 1.0 }).collect();
        let scaled = |x: Tensor, name| {
            let shape: Vec<usize> = [outputs, 1][..x.rank()].to_vec();
            let scale = || {
                let wide = widened(&x)?;
                // On the CPU first: a GPU need not know f64.
                let factors = Tensor::from_slice(&factors, shape, &Device::Cpu)?.to_dtype(wide.dtype())?;
                wide.broadcast_mul(&factors.to_device(x.device())?)?.to_dtype(x.dtype())
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

/// The tensors of a block's attention: residual + gamma · proj(attention(qkv(norm(x)))).
pub struct AttentionParts {
    /// Of what qkv and proj are around.
    pub norm: NormParts,
    /// [3·dim, dim]: what makes q, k and v.
    pub qkv: LinearParts,
    /// [heads, 2K−1, 2K−1], the relative position bias.
    pub rpb: Option<Tensor>,
    /// Heads, window and dilation.
    pub operator: NeighborhoodAttention,
    /// [dim, dim], with the block's layer scale as its `gamma`.
    pub proj: LinearParts,
}

/// The tensors of a transformer block.
pub struct BlockParts {
    /// x + gamma1 · attention(norm1(x)).
    pub attn: AttentionParts,
    /// x + gamma2 · mlp(norm2(x)).
    pub mlp: MlpParts,
}

impl BlockParts {
    /// Takes the tensors that `spec` names.
    pub fn take(spec: &BlockSpec, weights: &Weights) -> Self {
        let gamma = |gamma: &Option<_>| gamma.as_ref().map(|gamma| weights.take(gamma));
        let linear = |spec| LinearParts::take(spec, weights);
        let &AttentionSpec { heads, kernel_size, dilation, query_factor, .. } = &spec.attn;
        Self {
            attn: AttentionParts {
                norm: NormParts::take(&spec.norm1, weights),
                // The operator scales queries by dim^-1/2 of a head; another scale goes into what makes them.
                qkv: linear(&spec.attn.qkv).scaled(spec.attn.qkv.inputs, query_factor, weights),
                rpb: spec.attn.rpb.as_ref().map(|rpb| weights.take(rpb)),
                operator: NeighborhoodAttention { heads, kernel_size, dilation },
                proj: LinearParts { gamma: gamma(&spec.gamma1), ..linear(&spec.attn.proj) },
            },
            mlp: MlpParts {
                norm: NormParts::take(&spec.norm2, weights),
                fc1: linear(&spec.fc1),
                fc2: linear(&spec.fc2),
                gamma: gamma(&spec.gamma2),
            },
        }
    }
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
    /// Takes the tensors that `spec` names, for inputs of the order `source`.
    pub fn take(spec: &ConvSpec, source: MapLayout, weights: &Weights) -> Self {
        let weight = weights.take(&spec.weight);
        let bias = spec.bias.as_ref().map(|bias| weights.take(bias));
        Self { weight, bias, window: spec.window, source, activation: Activation::None, norm: None }
    }

    /// OpenMMLab's ConvModule on a channels-last map, with its BatchNorm in weight and bias, and ReLU.
    pub fn module(ConvModuleSpec { conv, norm }: &ConvModuleSpec, weights: &Weights) -> Self {
        let parts = Self::take(conv, MapLayout::ChannelsLast, weights);
        let weight = &parts.weight;
        let [gamma, beta, mean, variance] =
            [&norm.weight, &norm.bias, &norm.mean, &norm.variance].map(|weight| weights.take(weight));
        let fold = || -> Result<(Tensor, Tensor)> {
            let wide = widened;
            let scale = (wide(&gamma)? / (wide(&variance)? + norm.epsilon)?.sqrt()?)?;
            let bias = (wide(&beta)? - (wide(&mean)? * &scale)?)?;
            let weight = wide(weight)?.broadcast_mul(&scale.reshape((conv.outputs, 1, 1, 1))?)?;
            Ok((weight.to_dtype(gamma.dtype())?, bias.to_dtype(gamma.dtype())?))
        };
        let (weight, bias) = match fold() {
            Ok(folded) => folded,
            Err(error) => (weights.made(&conv.weight.shape, &conv.weight.name, Err(error)), beta),
        };
        Self { weight, bias: Some(bias), activation: Activation::Relu, ..parts }
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
