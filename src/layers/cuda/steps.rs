//! What stands between the matrix products, which are cuBLAS's.

use candle_core::{Result, Tensor};
use nat_cuda::layers;

use crate::cuda::tensor;
use crate::layers::parts::{Activation, NormParts};
use crate::layers::stepwise::{Finish, Steps};

/// nat-cuda's kernels.
#[derive(Clone, Copy)]
pub(super) struct FusedSteps;

impl FusedSteps {
    /// What follows a product, and a norm of that.
    pub(super) fn finish_norm(self, x: Tensor, finish: Finish, norm: &NormParts) -> Result<(Tensor, Tensor)> {
        let x = self.finish(x, finish)?;
        let normed = self.layer_norm(&x, norm)?;
        Ok((x, normed))
    }

    /// The norm of what follows a product.
    pub(super) fn finished_norm(self, x: Tensor, finish: Finish, norm: &NormParts) -> Result<Tensor> {
        Ok(self.finish_norm(x, finish, norm)?.1)
    }
}

impl Steps for FusedSteps {
    fn product(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        crate::cuda::product(&x.contiguous()?, weight)
    }

    fn finish(self, x: Tensor, Finish { bias, activation, gamma, residual }: Finish) -> Result<Tensor> {
        let x = x.contiguous()?;
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let activation = match activation {
            Activation::None => layers::KernelActivation::None,
            Activation::Gelu => layers::KernelActivation::Gelu,
            Activation::Relu => layers::KernelActivation::Relu,
        };
        let size = rows(&x);
        for channels in [bias, gamma].into_iter().flatten() {
            if channels.dims() != [size[1]] {
                candle_core::bail!("{:?} factors for a map of shape {:?}", channels.shape(), x.shape());
            }
        }
        if let Some(residual) = residual.as_ref().filter(|residual| residual.shape() != x.shape()) {
            candle_core::bail!("a residual of shape {:?} beside a map of {:?}", residual.shape(), x.shape());
        }
        tensor(&[Some(&x), bias, gamma, residual.as_ref()], x.shape(), |element, vectors| {
            layers::finish(element, size, activation, vectors)
        })
    }

    fn layer_norm(self, x: &Tensor, norm: &NormParts) -> Result<Tensor> {
        let NormParts { weight, bias, epsilon } = norm;
        let x = x.contiguous()?;
        let size = rows(&x);
        if weight.dims() != [size[1]] || bias.dims() != [size[1]] {
            candle_core::bail!("layer norm over {:?} channels got {:?}", weight.shape(), x.shape());
        }
        tensor(&[Some(&x), Some(weight), Some(bias)], x.shape(), |element, vectors| {
            layers::layer_norm(element, size, *epsilon as f32, vectors)
        })
    }
}

/// Rows and channels of a map.
fn rows(x: &Tensor) -> [usize; 2] {
    let channels = x.dims().last().copied().unwrap_or(0);
    [x.elem_count() / channels.max(1), channels]
}
