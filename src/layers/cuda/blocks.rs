//! Consecutive blocks.

use candle_core::{DType, Device, Result, Tensor};

use super::steps::FusedSteps;
use crate::attention::BiasedAttention;
use crate::layers::form::BlocksForm;
use crate::layers::parts::{Activation, AttentionParts, BlockParts, LinearParts, MlpParts, NormParts};
use crate::layers::stepwise::{Finish, Steps};
use crate::profile::{Kind, span};
use crate::weights::Weights;

/// Consecutive blocks: a residual and the norm that follows it, of the same block or the next, are one pass over memory, and
/// there is none for the bias of qkv.
pub(super) struct FusedBlocks(Vec<FusedBlock>);

struct FusedBlock {
    norm1: NormParts,
    /// [3·dim, dim]
    qkv: Tensor,
    attention: BiasedAttention,
    /// With what the bias of the values comes to in its bias.
    proj: LinearParts,
    norm2: NormParts,
    fc1: LinearParts,
    /// With the block's layer scale.
    fc2: LinearParts,
}

impl FusedBlocks {
    pub(super) fn new(parts: &[BlockParts], weights: &Weights) -> Self {
        Self(parts.iter().map(|parts| FusedBlock::new(parts, weights)).collect())
    }
}

impl BlocksForm for FusedBlocks {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(first) = self.0.first() else { return Ok(x.clone()) };
        let mut x = x.contiguous()?;
        let mut normed = FusedSteps.layer_norm(&x, &first.norm1)?;
        for (i, block) in self.0.iter().enumerate() {
            (x, normed) = block.attend(&x, &normed)?;
            let next = self.0.get(i + 1).map(|next| &next.norm1);
            let norm;
            (x, norm) = block.transform(&x, &normed, next)?;
            match norm {
                Some(norm) => normed = norm,
                None => break,
            }
        }
        Ok(x)
    }
}

impl FusedBlock {
    fn new(BlockParts { attn, mlp }: &BlockParts, weights: &Weights) -> Self {
        let AttentionParts { norm, qkv, rpb, operator, proj } = attn;
        let MlpParts { norm: norm2, fc1, fc2, gamma } = mlp;
        let (dim, side) = (qkv.inputs(), (2 * operator.kernel_size).saturating_sub(1));
        let part = |bias: &Tensor, i: usize| bias.narrow(0, i * dim, dim)?.contiguous();
        let made = |shape: &[usize], name, tensor| weights.made(shape, name, tensor);
        let zeros = |shape: &[usize], name| {
            made(shape, name, Tensor::zeros(shape, qkv.weight.dtype(), qkv.weight.device()))
        };
        let query_bias = qkv.bias.as_ref().map(|bias| made(&[dim], "attn.qkv.bias", part(bias, 0)));
        let proj_bias =
            |bias| made(&[dim], "attn.proj.bias", part(bias, 2).and_then(|bias| through(&bias, proj)));
        Self {
            norm1: norm.clone(),
            qkv: qkv.weight.clone(),
            attention: BiasedAttention {
                operator: *operator,
                rpb: rpb.clone().unwrap_or_else(|| zeros(&[operator.heads, side, side], "attn.rpb")),
                pad: zeros(&[3 * dim], "attn.qkv.bias"),
                query_bias,
            },
            proj: LinearParts {
                bias: qkv.bias.as_ref().map(proj_bias).or(proj.bias.clone()),
                ..proj.clone()
            },
            norm2: norm2.clone(),
            fc1: LinearParts { activation: Activation::Gelu, ..fc1.clone() },
            fc2: LinearParts { gamma: gamma.clone(), ..fc2.clone() },
        }
    }

    /// x + gamma · proj(attention(qkv(normed))), and norm2 of it.
    fn attend(&self, x: &Tensor, normed: &Tensor) -> Result<(Tensor, Tensor)> {
        let macs = x.elem_count() * self.qkv.dims()[1];
        let qkv = {
            let _span = span(Kind::Qkv, 3 * macs);
            FusedSteps.product(normed, &self.qkv)? // [B, H, W, 3·C]
        };
        let mixed = self.attention.forward(&qkv)?;
        let _span = span(Kind::Proj, macs);
        let added = FusedSteps.product(&mixed, &self.proj.weight)?;
        FusedSteps.finish_norm(added, finish(&self.proj, Some(x)), &self.norm2)
    }

    /// x + gamma · fc2(gelu(fc1(normed))), and `next` of it.
    fn transform(
        &self,
        x: &Tensor,
        normed: &Tensor,
        next: Option<&NormParts>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let _span = span(Kind::Mlp, 2 * x.elem_count() * self.fc1.outputs());
        let hidden = FusedSteps.product(normed, &self.fc1.weight)?;
        let hidden = FusedSteps.finish(hidden, finish(&self.fc1, None))?;
        let added = FusedSteps.product(&hidden, &self.fc2.weight)?;
        let end = finish(&self.fc2, Some(x));
        match next {
            Some(norm) => FusedSteps.finish_norm(added, end, norm).map(|(x, normed)| (x, Some(normed))),
            None => Ok((FusedSteps.finish(added, end)?, None)),
        }
    }
}

/// What follows a layer's product.
fn finish<'a>(parts: &'a LinearParts, residual: Option<&'a Tensor>) -> Finish<'a> {
    let LinearParts { bias, activation, gamma, .. } = parts;
    Finish { bias: bias.as_ref(), activation: *activation, gamma: gamma.as_ref(), residual }
}

/// The bias of `proj` and what `proj` makes of `value_bias` [dim]: the weights of a query's values sum to 1, so a bias of the
/// values is in every output. Computed on the CPU in f32 and rounded once.
fn through(value_bias: &Tensor, proj: &LinearParts) -> Result<Tensor> {
    let wide = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    let added = wide(&proj.weight)?.matmul(&wide(value_bias)?.unsqueeze(1)?)?.squeeze(1)?;
    let sum = match &proj.bias {
        Some(bias) => (wide(bias)? + added)?,
        None => added,
    };
    sum.to_dtype(proj.weight.dtype())?.to_device(proj.weight.device())
}
