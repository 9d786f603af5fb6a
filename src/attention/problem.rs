//! The sizes of a computation, checked once: every path takes them from here.

use candle_core::{Shape, Tensor};

use super::error::AttentionError;
use super::window::MOST_PADDED;

/// What a computation is about, checked. No user gets at it, though a trait that they may name in bounds has methods with
/// it.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Channels of a head.
    pub(super) dim: usize,
    pub(super) kernel_size: usize,
    pub(super) dilation: usize,
    /// 2K−1.
    pub(super) bias_side: usize,
}

impl Problem {
    /// The sizes of the computation on a qkv of shape `qkv`, which may be `padded`.
    ///
    /// # Errors
    /// Every variant of [`AttentionError`] that is about these.
    pub(super) fn checked(
        qkv: &[usize],
        heads: usize,
        kernel_size: usize,
        dilation: usize,
        padded: bool,
    ) -> Result<Self, AttentionError> {
        let &[batch, height, width, channels] = qkv else {
            return Err(AttentionError::Rank { shape: qkv.to_vec() });
        };
        if heads == 0 || kernel_size == 0 || dilation == 0 {
            return Err(AttentionError::Zero { heads, kernel_size, dilation });
        }
        if channels == 0 || !channels.is_multiple_of(3) || !(channels / 3).is_multiple_of(heads) {
            return Err(AttentionError::Channels { channels, heads });
        }
        let whole_map = height == kernel_size && width == kernel_size && dilation == 1;
        if kernel_size.is_multiple_of(2) && !whole_map {
            return Err(AttentionError::EvenKernel { kernel_size, dilation, height, width });
        }
        // Length >= K·d, in a form that cannot overflow.
        if height.min(width) / dilation < kernel_size {
            if !padded {
                return Err(AttentionError::SmallMap { height, width, kernel_size, dilation });
            }
            if kernel_size > MOST_PADDED {
                return Err(AttentionError::LargeKernel { height, width, kernel_size });
            }
        }
        let (dim, bias_side) = (channels / 3 / heads, 2 * kernel_size - 1);
        // Beyond the map a dilation changes nothing.
        let dilation = dilation.min(height.max(width)).max(1);
        Ok(Self { batch, height, width, heads, dim, kernel_size, dilation, bias_side })
    }

    /// Whether a map is smaller than the window.
    pub(super) fn is_padded(&self) -> bool {
        self.height.min(self.width) / self.dilation < self.kernel_size
    }

    /// Multiply-accumulates of both products.
    pub(super) fn macs(&self) -> usize {
        let &Self { batch, height, width, heads, dim, kernel_size, .. } = self;
        (2 * batch * height * width * heads * dim).saturating_mul(kernel_size.pow(2))
    }

    /// The bias table, of `qkv`'s type and where that is: `rpb`, or zeros.
    pub(super) fn table(&self, rpb: Option<&Tensor>, qkv: &Tensor) -> candle_core::Result<Tensor> {
        let &Self { heads, bias_side: side, .. } = self;
        match rpb {
            Some(rpb) => rpb.to_dtype(qkv.dtype())?.contiguous(),
            None => Tensor::zeros((heads, side, side), qkv.dtype(), qkv.device()),
        }
    }

    /// What a query's products with keys are multiplied by: dim^−½.
    pub(super) fn scale(&self) -> f64 {
        (self.dim as f64).powf(-0.5)
    }

    /// The shape of the result.
    pub(super) fn output(&self) -> Shape {
        (self.batch, self.height, self.width, self.heads * self.dim).into()
    }
}
