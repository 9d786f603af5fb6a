//! The block that every family repeats: x + attention(norm1(x)), then x + mlp(norm2(x)).

use candle_core::{Result, Tensor};
use nat_convert::arch::BlockSpec;

use super::backend;
use super::form::BlocksForm;
use super::linear::{Linear, Mlp};
use super::parts::{AttentionParts, BlockParts, LinearParts};
use crate::attention::NeighborhoodAttention;
use crate::weights::Weights;

/// Consecutive transformer blocks (arXiv 2204.07143, figure 3), with layer scale where the network has it.
pub struct Blocks {
    form: Form,
    /// The side of the map that attention is over the whole of, of networks that have it (ViT-rpb).
    side: Option<usize>,
}

enum Form {
    /// All of them in a form of the backend's own.
    Whole(Box<dyn BlocksForm>),
    /// Made of layers.
    Layered(Vec<Block>),
}

/// One block.
struct Block {
    attn: Attention,
    mlp: Mlp,
}

/// x + gamma · proj(attention(qkv(norm(x)))).
struct Attention {
    qkv: Linear,
    rpb: Option<Tensor>,
    /// What a padded position has for its q, k and v. As NATTEN 0.14 did when the weights were trained, the input of
    /// the qkv layer is padded with zeros, of which that layer makes its bias.
    pad: Option<Tensor>,
    proj: Linear,
    operator: NeighborhoodAttention,
}

impl Blocks {
    /// Takes the tensors that `specs` name.
    pub fn new(specs: &[BlockSpec], weights: &Weights) -> Self {
        let whole_map = specs.iter().find(|spec| spec.attn.whole_map);
        let side = whole_map.map(|spec| spec.attn.kernel_size.saturating_mul(spec.attn.dilation));
        let parts: Vec<_> = specs.iter().map(|spec| BlockParts::take(spec, weights)).collect();
        let form = match backend::of(weights).blocks(&parts, weights) {
            Some(whole) => Form::Whole(whole),
            None => Form::Layered(parts.into_iter().map(|parts| Block::of(parts, weights)).collect()),
        };
        Self { form, side }
    }

    /// [B, H, W, C] to [B, H, W, C].
    ///
    /// # Errors
    /// When `x` is no such map, or one that attention over a whole map is not for.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        if let Some(side) = self.side.filter(|&side| (h, w) != (side, side)) {
            candle_core::bail!("this network's attention covers maps of {side}x{side}, not {h}x{w}");
        }
        match &self.form {
            Form::Whole(form) => form.forward(x),
            Form::Layered(blocks) => blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x)),
        }
    }
}

impl Block {
    fn of(BlockParts { attn, mlp }: BlockParts, weights: &Weights) -> Self {
        Self { attn: Attention::of(attn, weights), mlp: Mlp::of(mlp, weights) }
    }

    /// [B, H, W, C] to [B, H, W, C].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.mlp.forward(&self.attn.forward(x)?)
    }
}

impl Attention {
    fn of(AttentionParts { norm, qkv, rpb, operator, proj }: AttentionParts, weights: &Weights) -> Self {
        Self {
            pad: qkv.bias.clone(),
            qkv: Linear::of(LinearParts { norm: Some(norm), ..qkv }, weights),
            rpb,
            proj: Linear::of(proj, weights),
            operator,
        }
    }

    /// [B, H, W, C] to [B, H, W, C].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(x)?; // [B, H, W, 3·C]
        let mixed = self.operator.forward_padded(&qkv, self.rpb.as_ref(), self.pad.as_ref())?;
        self.proj.forward_residual(&mixed, x)
    }
}
