//! The layers' kernels on the GPU: what stands between the matrix products, which are cuBLAS's.

use candle_core::{Result, Tensor};
use nat_cuda::layers;
pub(super) use nat_cuda::layers::depth;

use super::conv::Window;
use super::gemm::Activation;
use super::plain::Finish;
use crate::cuda::tensor;

/// Whether the kernels compute this: on the GPU, and no gradient is wanted.
pub(super) fn serves(x: &Tensor) -> bool {
    x.device().is_cuda() && !x.track_op()
}

/// [`Finish`] of `x` [.., channels].
pub(super) fn finish(x: &Tensor, Finish { bias, activation, gamma, residual }: Finish) -> Result<Tensor> {
    let x = x.contiguous()?;
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let activation = match activation {
        Activation::None => layers::Activation::None,
        Activation::Gelu => layers::Activation::Gelu,
        Activation::Relu => layers::Activation::Relu,
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

/// Layer norm of `x` over its last dimension.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let size = rows(&x);
    if weight.dims() != [size[1]] || bias.dims() != [size[1]] {
        candle_core::bail!("layer norm over {:?} channels got {:?}", weight.shape(), x.shape());
    }
    tensor(&[Some(&x), Some(weight), Some(bias)], x.shape(), |element, vectors| {
        layers::layer_norm(element, size, epsilon as f32, vectors)
    })
}

/// The windows of `x` [B, H, W, C] at `out` positions, [B, H', W', depth], as the rows of a product with a
/// weight of `depth` columns.
pub(super) fn windows(x: &Tensor, window: Window, out: [usize; 2]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let Window { kernel, stride, padding } = window;
    let windows = layers::Windows { batch, size: [height, width], channels, out, kernel, stride, padding };
    let shape = (batch, out[0], out[1], windows.depth()).into();
    tensor(&[Some(&x)], &shape, |element, vectors| windows.launch(element, vectors))
}

/// The weight [outputs, C, kernel, kernel] of a convolution as the second factor of a product with
/// [`windows`]: [outputs, depth].
pub(super) fn flattened(weight: &Tensor) -> Result<Tensor> {
    let (_, channels, kernel, _) = weight.dims4()?;
    let rows = weight.permute((0, 2, 3, 1))?.contiguous()?.flatten_from(1)?;
    rows.pad_with_zeros(1, 0, depth(kernel, channels) - kernel * kernel * channels)?.contiguous()
}

/// The mean of `x` [B, H, W, C] over its positions, [B, C].
pub(super) fn mean(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let shape = (batch, channels).into();
    tensor(&[Some(&x)], &shape, |element, _| layers::mean(element, [batch, height * width, channels]))
}

/// Rows and channels of a map.
fn rows(x: &Tensor) -> [usize; 2] {
    let channels = x.dims().last().copied().unwrap_or(0);
    [x.elem_count() / channels.max(1), channels]
}
