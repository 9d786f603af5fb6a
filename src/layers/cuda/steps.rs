//! What stands between the matrix products, which are cuBLAS's.

use candle_core::{Result, Tensor};
use nat_cuda::layers;

use crate::cuda::{all_aligned, one_type, tensor, tensors};
use crate::layers::parts::{Activation, NormParts};
use crate::layers::stepwise::{Finish, Steps};

/// nat-cuda's kernels.
#[derive(Clone, Copy)]
pub(super) struct FusedSteps;

impl FusedSteps {
    /// What follows a product, and a norm of that.
    pub(super) fn finish_norm(self, x: Tensor, finish: Finish, norm: &NormParts) -> Result<(Tensor, Tensor)> {
        match fused_norm(&x, finish, norm, true)? {
            [Some(x), Some(normed)] => Ok((x, normed)),
            _ => {
                let x = self.finish(x, finish)?;
                let normed = self.layer_norm(&x, norm)?;
                Ok((x, normed))
            }
        }
    }

    /// The norm of what follows a product.
    pub(super) fn finished_norm(self, x: Tensor, finish: Finish, norm: &NormParts) -> Result<Tensor> {
        match fused_norm(&x, finish, norm, false)? {
            [_, Some(normed)] => Ok(normed),
            _ => self.layer_norm(&finish.apply(self, x)?, norm),
        }
    }
}

/// What follows the product `x`, if it is `wanted`, and a norm of that, by one kernel; nothing where there is none for it.
fn fused_norm(x: &Tensor, finish: Finish, norm: &NormParts, wanted: bool) -> Result<[Option<Tensor>; 2]> {
    let Finish { bias, activation, gamma, residual } = finish;
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let inputs = [Some(x), bias, gamma, residual.as_ref(), Some(&norm.weight), Some(&norm.bias)];
    check_finish(x, finish)?;
    check_norm(x, norm)?;
    let (dtype, element) = one_type(&inputs)?;
    let launch = layers::finish_norm(element, rows(x), norm.epsilon as f32, all_aligned(&inputs));
    match launch {
        Some(launch) if activation == Activation::None => {
            tensors(dtype, &inputs, x.shape(), [wanted, true], |_| launch)
        }
        _ => Ok([None, None]),
    }
}

/// Refuses what does not fit `x` [.., channels].
fn check_finish(x: &Tensor, Finish { bias, gamma, residual, .. }: Finish) -> Result<()> {
    for channels in [bias, gamma].into_iter().flatten() {
        if channels.dims() != [rows(x)[1]] {
            candle_core::bail!("{:?} factors for a map of shape {:?}", channels.shape(), x.shape());
        }
    }
    if let Some(residual) = residual.filter(|residual| residual.shape() != x.shape()) {
        candle_core::bail!("a residual of shape {:?} beside a map of {:?}", residual.shape(), x.shape());
    }
    Ok(())
}

/// Refuses a norm of other channels than those of `x` [.., channels].
fn check_norm(x: &Tensor, NormParts { weight, bias, .. }: &NormParts) -> Result<()> {
    if weight.dims() != [rows(x)[1]] || bias.dims() != [rows(x)[1]] {
        candle_core::bail!("layer norm over {:?} channels got {:?}", weight.shape(), x.shape());
    }
    Ok(())
}

impl Steps for FusedSteps {
    fn product(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        crate::cuda::product(&x.contiguous()?, weight)
    }

    fn finish(self, x: Tensor, finish: Finish) -> Result<Tensor> {
        let Finish { bias, activation, gamma, residual } = finish;
        let x = x.contiguous()?;
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let activation = match activation {
            Activation::None => layers::KernelActivation::None,
            Activation::Gelu => layers::KernelActivation::Gelu,
            Activation::Relu => layers::KernelActivation::Relu,
        };
        check_finish(&x, finish)?;
        let size = rows(&x);
        tensor(&[Some(&x), bias, gamma, residual.as_ref()], x.shape(), |element, vectors| {
            layers::finish(element, size, activation, vectors)
        })
    }

    fn layer_norm(self, x: &Tensor, norm: &NormParts) -> Result<Tensor> {
        let NormParts { weight, bias, epsilon } = norm;
        let x = x.contiguous()?;
        check_norm(&x, norm)?;
        let size = rows(&x);
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
