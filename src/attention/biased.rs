//! The operator as a GPU's blocks take it.

use candle_core::{Result, Tensor};

use super::cuda::launch;
use super::operator::NeighborhoodAttention;
use super::problem::Problem;
use crate::cuda::{element, tensor};
use crate::profile::{Kind, span};

/// The operator with its tensors, on the qkv of a product whose bias is not added yet: that of the queries is added on the
/// way, that of the keys cancels in the softmax, and that of the values, whose weights sum to 1, is added to what follows by
/// whoever makes that. On a padded map it is the same: each padded position has zeros where it would have the bias.
pub(crate) struct BiasedAttention {
    pub(crate) operator: NeighborhoodAttention,
    /// [heads, 2K−1, 2K−1]
    pub(crate) rpb: Tensor,
    /// What a padded position has: zeros, [3·heads·dim].
    pub(crate) pad: Tensor,
    /// [heads·dim]
    pub(crate) query_bias: Option<Tensor>,
}

impl BiasedAttention {
    /// Of `qkv` [B, H, W, 3·heads·dim]: [B, H, W, heads·dim].
    ///
    /// # Errors
    /// When `qkv` is of another width or on another device, or that fails.
    pub(crate) fn forward(&self, qkv: &Tensor) -> Result<Tensor> {
        let NeighborhoodAttention { heads, kernel_size, dilation } = self.operator;
        let problem = Problem::checked(qkv.dims(), heads, kernel_size, dilation, true)?;
        if self.pad.dims() != [3 * problem.heads * problem.dim] {
            candle_core::bail!("attention of {:?} channels got {:?}", self.pad.shape(), qkv.shape());
        }
        let _span = span(Kind::Attention, problem.macs());
        let inputs = [Some(qkv), Some(&self.rpb), Some(&self.pad), self.query_bias.as_ref()];
        let launch = launch(&problem, qkv.device().as_cuda_device()?, element(qkv.dtype())?)?;
        tensor(&inputs, &problem.output(), |_, aligned| launch(aligned))
    }
}
