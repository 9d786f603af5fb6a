//! Convolutions.

use candle_core::{DType, Device, Result, Tensor};
use nat_cuda::layers::{self, depth};
use nat_cuda::maps;

use super::steps::FusedSteps;
use crate::cuda::{element, tensor, tensor_of};
use crate::layers::form::{ConvForm, ConvSizes};
use crate::layers::parts::{ConvParts, MapLayout, Window};
use crate::layers::stepwise::{Finish, Steps};
use crate::weights::Weights;

/// A convolution as a product of its windows with its weight.
pub(super) struct FusedConv {
    /// [outputs, depth], a row in the order of the windows.
    weight: Tensor,
    /// The rest of its parts.
    parts: ConvParts,
}

impl FusedConv {
    pub(super) fn new(parts: ConvParts, weights: &Weights) -> Self {
        let &[outputs, channels, kernel, _] = parts.weight.dims() else {
            // A part's weight has these dimensions; zeros stand in for any other.
            return Self { weight: parts.weight.clone(), parts };
        };
        let depth = depth(kernel, channels);
        // On the CPU, once: a GPU's driver would compile another file of kernels for it.
        let rows = || -> Result<Tensor> {
            let weight = parts.weight.to_device(&Device::Cpu)?;
            let weight = match parts.source {
                MapLayout::ChannelsFirst => weight,
                MapLayout::ChannelsLast => weight.permute((0, 2, 3, 1))?,
            };
            let rows = weight.contiguous()?.flatten_from(1)?;
            let rows = rows.pad_with_zeros(1, 0, depth - kernel * kernel * channels)?.contiguous()?;
            rows.to_device(parts.weight.device())
        };
        Self { weight: weights.made(&[outputs, depth], "weight", rows()), parts }
    }

    /// The windows of images [B, C, H, W], of any type: [B, H', W', depth].
    fn image_windows(&self, x: &Tensor, sizes: ConvSizes) -> Result<Tensor> {
        let dtype = self.weight.dtype();
        let x = if x.dtype() == DType::F32 { x.clone() } else { x.to_dtype(dtype)? }.contiguous()?;
        let (batch, channels, height, width) = x.dims4()?;
        let Window { kernel, stride, padding } = self.parts.window;
        let size = [height, width];
        let windows = maps::ImageWindows { batch, channels, size, out: sizes.out, kernel, stride, padding };
        let shape = (batch, sizes.out[0], sizes.out[1], depth(kernel, channels)).into();
        match windows.launch(element(x.dtype())?, element(dtype)?) {
            Some(launch) => tensor_of(dtype, &[Some(&x)], &shape, |_| launch),
            None => candle_core::bail!("images in {:?} for a network in {dtype:?}", x.dtype()),
        }
    }

    /// The windows of a map [B, H, W, C]: [B, H', W', depth].
    fn map_windows(&self, x: &Tensor, sizes: ConvSizes) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?.contiguous()?;
        let (batch, height, width, channels) = x.dims4()?;
        let Window { kernel, stride, padding } = self.parts.window;
        let windows = layers::Windows {
            batch,
            size: [height, width],
            channels,
            out: sizes.out,
            kernel,
            stride,
            padding,
        };
        if (kernel, stride) == (1, 1) && windows.depth() == channels {
            return Ok(x);
        }
        let shape = (batch, sizes.out[0], sizes.out[1], windows.depth()).into();
        tensor(&[Some(&x)], &shape, |element, vectors| windows.launch(element, vectors))
    }
}

impl ConvForm for FusedConv {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, sizes: ConvSizes) -> Result<Tensor> {
        let windows = match self.parts.source {
            MapLayout::ChannelsFirst => self.image_windows(x, sizes)?,
            MapLayout::ChannelsLast => self.map_windows(x, sizes)?,
        };
        let product = FusedSteps.product(&windows, &self.weight)?;
        let ConvParts { bias, activation, norm, .. } = &self.parts;
        let finish = Finish { bias: bias.as_ref(), activation: *activation, gamma: None, residual };
        match norm {
            Some(norm) => FusedSteps.finished_norm(product, finish, norm),
            None => finish.apply(FusedSteps, product),
        }
    }
}
