//! Convolutions.

use candle_core::{DType, Device, Result, Tensor};
use nat_cuda::images::ImageConv;
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
        let weight = weights.made(&[outputs, depth], "weight", rows());
        Self { weight, parts }
    }

    /// Images [B, C, H, W] as kernels take them: of f32 or of the weights' type.
    fn images(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = if x.dtype() == DType::F32 { DType::F32 } else { self.weight.dtype() };
        x.to_dtype(dtype)?.contiguous()
    }

    /// The convolution of images [B, C, H, W] with its bias, by one kernel if there is one for it: [B, H', W', outputs].
    fn image_conv(&self, x: &Tensor, sizes: ConvSizes) -> Result<Option<Tensor>> {
        let (batch, channels, height, width) = x.dims4()?;
        let (Window { kernel, stride, padding }, ConvSizes { out, outputs, .. }) = (self.parts.window, sizes);
        let size = [height, width];
        let conv = ImageConv { batch, channels, size, out, outputs, kernel, stride, padding };
        let ConvParts { weight, bias, .. } = &self.parts;
        let launch = conv.launch(element(x.dtype())?, element(weight.dtype())?);
        let inputs = [Some(x), Some(weight), bias.as_ref()];
        launch.map(|launch| tensor_of(weight.dtype(), &inputs, &sizes.shape(), |_| launch)).transpose()
    }

    /// The windows of images [B, C, H, W]: [B, H', W', depth].
    fn image_windows(&self, x: &Tensor, sizes: ConvSizes) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let (Window { kernel, stride, padding }, dtype) = (self.parts.window, self.weight.dtype());
        let size = [height, width];
        let windows = maps::ImageWindows { batch, channels, size, out: sizes.out, kernel, stride, padding };
        let shape = (batch, sizes.out[0], sizes.out[1], depth(kernel, channels)).into();
        match windows.launch(element(x.dtype())?, element(dtype)?) {
            Some(launch) => tensor_of(dtype, &[Some(x)], &shape, |_| launch),
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
        let ConvParts { bias, activation, norm, source, .. } = &self.parts;
        let mut finish = Finish { bias: bias.as_ref(), activation: *activation, gamma: None, residual };
        let map = match source {
            MapLayout::ChannelsLast => FusedSteps.product(&self.map_windows(x, sizes)?, &self.weight)?,
            MapLayout::ChannelsFirst => {
                let x = self.images(x)?;
                match self.image_conv(&x, sizes)? {
                    Some(map) => {
                        finish.bias = None;
                        map
                    }
                    None => FusedSteps.product(&self.image_windows(&x, sizes)?, &self.weight)?,
                }
            }
        };
        match norm {
            Some(norm) => FusedSteps.finished_norm(map, finish, norm),
            None => finish.apply(FusedSteps, map),
        }
    }
}
