//! The layers as candle operators: any device, any float type, with gradients. On a GPU, what stands
//! between the matrix products of an inference is done by fused kernels instead.

use candle_core::{D, DType, Result, Tensor};

use super::conv::Window;
#[cfg(feature = "cuda")]
use super::cuda;
use super::gemm::Activation;

/// What follows a product: residual + gamma · activation(x + bias).
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) bias: Option<&'a Tensor>,
    pub(super) activation: Activation,
    pub(super) gamma: Option<&'a Tensor>,
    pub(super) residual: Option<&'a Tensor>,
}

impl<'a> Finish<'a> {
    /// Nothing but the bias.
    pub(super) fn bias(bias: &'a Option<Tensor>) -> Self {
        Self { bias: bias.as_ref(), activation: Activation::None, gamma: None, residual: None }
    }

    /// Applies it to `x` [.., channels].
    pub(super) fn apply(self, x: Tensor) -> Result<Tensor> {
        let Self { bias, activation, gamma, residual } = self;
        #[cfg(feature = "cuda")]
        if cuda::serves(&x) {
            let nothing = activation == Activation::None;
            return match (bias, gamma, residual) {
                (None, None, None) if nothing => Ok(x),
                _ => cuda::finish(&x, self),
            };
        }
        let x = bias.map_or_else(|| Ok(x.clone()), |bias| x.broadcast_add(bias))?;
        let x = match activation {
            Activation::None => x,
            Activation::Gelu => x.gelu_erf()?,
            Activation::Relu => x.relu()?,
        };
        let x = gamma.map_or_else(|| Ok(x.clone()), |gamma| x.broadcast_mul(gamma))?;
        residual.map_or_else(|| Ok(x.clone()), |residual| residual + &x)
    }
}

/// x · weightᵀ: `x` [.., inputs], `weight` [outputs, inputs].
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    // As one product: candle would make one of each row of a map.
    x.reshape(((), inputs))?.matmul(&weight.t()?)?.reshape(shape)
}

/// Layer norm over the last dimension. Statistics in f32 also for half types, as PyTorch takes them.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::serves(x) {
        return cuda::layer_norm(x, weight, bias, epsilon);
    }
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// The convolution of `x` [B, H, W, C] with `weight` [outputs, C, kernel, kernel] to `out` positions.
pub(super) fn convolution(x: &Tensor, weight: &Tensor, window: Window, out: [usize; 2]) -> Result<Tensor> {
    let Window { kernel, stride, padding } = window;
    let (_, h, w, _) = x.dims4()?;
    let mut x = x.permute((0, 3, 1, 2))?;
    for (axis, (side, out)) in [h, w].into_iter().zip(out).enumerate() {
        let end = ((out - 1) * stride + kernel).saturating_sub(side + padding);
        x = x.pad_with_zeros(axis + 2, padding, end)?;
    }
    x.contiguous()?.conv2d(weight, 0, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
}

/// The mean of `x` [B, H, W, C] over its positions, [B, C].
pub(crate) fn mean(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::serves(x) {
        return cuda::mean(x);
    }
    x.mean((1, 2))
}
