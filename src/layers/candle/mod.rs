//! The layers as candle operators: any device, any float type, with gradients. What the other backends are tested
//! against.

mod reference;

use candle_core::{D, DType, Device, Result, Tensor};

use super::form::{
    Backend, BatchForm, ConvForm, ConvSizes, LinearForm, MapForm, MlpForm, NormForm, PyramidForm, Roi,
};
use super::parts::{
    Activation, ConvParts, LinearParts, MapLayout, MlpParts, NormParts, PyramidParts, Window,
};
use super::regions::{self, PyramidMap};
use super::stepwise::{Finish, StepLinear, StepMlp, StepNorm, StepPyramid, Steps};
use crate::tensors::{wide_values, widened, with_all_f32};
use crate::weights::Weights;

/// candle's operators, on whatever device tensors are.
#[derive(Clone, Copy)]
pub(super) struct Operators;

impl Backend for Operators {
    fn linear(&self, parts: LinearParts, _: &Weights) -> Box<dyn LinearForm> {
        Box::new(StepLinear { parts, steps: *self })
    }

    fn mlp(&self, parts: MlpParts, _: &Weights) -> Box<dyn MlpForm> {
        Box::new(StepMlp::new(parts, *self))
    }

    fn conv(&self, parts: ConvParts, _: &Weights) -> Box<dyn ConvForm> {
        Box::new(OperatorConv(parts))
    }

    fn norm(&self, parts: NormParts, _: &Weights) -> Box<dyn NormForm> {
        Box::new(StepNorm { parts, steps: *self })
    }

    fn pyramid(&self, parts: PyramidParts, weights: &Weights) -> Box<dyn PyramidForm> {
        Box::new(StepPyramid::new(parts, |conv| self.conv(conv, weights), &Operators))
    }

    fn batches(&self) -> Box<dyn BatchForm> {
        Box::new(Together)
    }

    fn maps(&self) -> &'static dyn MapForm {
        &Operators
    }
}

impl Steps for Operators {
    fn product(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        // As one product: candle would make one of each row of a map.
        x.reshape(((), inputs))?.matmul(&weight.t()?)?.reshape(shape)
    }

    fn finish(self, x: Tensor, Finish { bias, activation, gamma, residual }: Finish) -> Result<Tensor> {
        let x = bias.map_or_else(|| Ok(x.clone()), |bias| x.broadcast_add(bias))?;
        let x = match activation {
            Activation::None => x,
            Activation::Gelu => x.gelu_erf()?,
            Activation::Relu => x.relu()?,
        };
        let x = gamma.map_or_else(|| Ok(x.clone()), |gamma| x.broadcast_mul(gamma))?;
        residual.map_or_else(|| Ok(x.clone()), |residual| residual + &x)
    }

    /// Statistics in f32 also for half types, as PyTorch takes them; in f64 for f64.
    fn layer_norm(self, x: &Tensor, norm: &NormParts) -> Result<Tensor> {
        let NormParts { weight, bias, epsilon } = norm;
        let wide = widened(x)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + *epsilon)?.sqrt()?)?;
        normed.to_dtype(x.dtype())?.broadcast_mul(weight)?.broadcast_add(bias)
    }
}

/// A convolution by candle's operator.
struct OperatorConv(ConvParts);

impl ConvForm for OperatorConv {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, sizes: ConvSizes) -> Result<Tensor> {
        let ConvParts { weight, bias, window, source, activation, norm } = &self.0;
        // Images come in any type.
        let x = match source {
            MapLayout::ChannelsFirst => x.to_dtype(weight.dtype())?,
            MapLayout::ChannelsLast => x.to_dtype(weight.dtype())?.permute((0, 3, 1, 2))?,
        };
        let map = convolution(x, weight, *window, sizes.out)?;
        let finish = Finish { bias: bias.as_ref(), activation: *activation, gamma: None, residual };
        let x = finish.apply(Operators, map)?;
        norm.as_ref().map_or(Ok(x.clone()), |norm| Operators.layer_norm(&x, norm))
    }
}

/// The convolution of `x` [B, C, H, W] at `out` positions: [B, H', W', outputs].
fn convolution(mut x: Tensor, weight: &Tensor, window: Window, out: [usize; 2]) -> Result<Tensor> {
    let Window { kernel, stride, padding } = window;
    let (_, _, h, w) = x.dims4()?;
    for (axis, (side, out)) in [h, w].into_iter().zip(out).enumerate() {
        let end = ((out - 1) * stride + kernel).saturating_sub(side + padding);
        x = x.pad_with_zeros(axis + 2, padding, end)?;
    }
    x.contiguous()?.conv2d(weight, 0, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
}

impl MapForm for Operators {
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        x.mean((1, 2))
    }

    fn resized(&self, x: &Tensor, [height, width]: [usize; 2], align_corners: bool) -> Result<Tensor> {
        let (_, h, w, c) = x.dims4()?;
        if h == 0 || w == 0 || c == 0 {
            candle_core::bail!("a map of shape {:?} can't be resampled", x.shape());
        }
        if (h, w) == (height, width) {
            return Ok(x.clone());
        }
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        x.upsample_bilinear2d(height, width, align_corners)?.permute((0, 2, 3, 1))?.contiguous()
    }

    /// On the CPU: candle has no operator for it. Of f64 in f64, sample by sample.
    fn regions(&self, maps: &[Tensor], strides: &[usize], regions: &[Roi], side: usize) -> Result<Tensor> {
        let Some(first) = maps.first() else { candle_core::bail!("regions of no maps") };
        let channels = first.dims4()?.3;
        let shape = (regions.len(), side, side, channels);
        if first.dtype() == DType::F64 {
            let mut out = Vec::with_capacity(regions.len() * side * side * channels);
            for region in regions {
                let Some((map, &stride)) = maps.get(region.level).zip(strides.get(region.level)) else {
                    candle_core::bail!("a region on map {} of {}", region.level, maps.len());
                };
                let (_, height, width, _) = map.dims4()?;
                let values = wide_values(map)?;
                out.extend(reference::align(&values, [height, width], stride, region.corners, side));
            }
            return Tensor::from_vec(out, shape, first.device());
        }
        let values = with_all_f32(maps, |values| {
            let shapes = maps.iter().map(Tensor::dims4).collect::<Result<Vec<_>>>()?;
            let maps = shapes.into_iter().zip(values).zip(strides);
            let maps =
                maps.map(|((shape, values), &stride)| PyramidMap::new(shape, values, stride, channels));
            regions::align(&maps.collect::<Result<Vec<_>>>()?, regions, side)
        })??;
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(first.dtype())?.to_device(first.device())
    }

    fn kept(&self, _: &[[f32; 4]], _: f32, _: &Tensor) -> Result<Option<Vec<bool>>> {
        Ok(None)
    }
}

/// All images of a batch at once.
struct Together;

impl BatchForm for Together {
    fn together(&self, batch: usize, _: usize, _: Option<usize>) -> usize {
        batch
    }
}
