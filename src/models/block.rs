//! The block that every family repeats: x + attention(norm1(x)), then x + mlp(norm2(x)).

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::Recipe;

use crate::attention::NeighborhoodAttention;
use crate::layers::{LayerNorm, LayerScale, Linear, Mlp};
use crate::weights::Weights;

/// One transformer block (arXiv 2204.07143, figure 3), with layer scale where the network has it.
pub(super) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    gamma1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    gamma2: Option<LayerScale>,
}

impl Block {
    /// Block `block` of level `level`.
    pub(super) fn new(
        config: &Config,
        recipe: &Recipe,
        level: usize,
        block: usize,
        weights: &Weights,
    ) -> Self {
        let (dim, epsilon) = (config.dim(level), recipe.norm_epsilon);
        let gamma = |name| config.layer_scale.then(|| LayerScale::new(dim, weights, name));
        Self {
            norm1: LayerNorm::new(dim, epsilon, &weights.pp("norm1")),
            attn: Attention::new(config, recipe, level, config.dilations[level][block], &weights.pp("attn")),
            gamma1: gamma("gamma1"),
            norm2: LayerNorm::new(dim, epsilon, &weights.pp("norm2")),
            mlp: Mlp::new(dim, config.hidden(level), &weights.pp("mlp")),
            gamma2: gamma("gamma2"),
        }
    }

    /// [B, H, W, C] to [B, H, W, C].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attn.forward_residual(&self.norm1, x, self.gamma1.as_ref())?;
        self.mlp.forward_residual(&self.norm2, &x, self.gamma2.as_ref())
    }
}

/// Neighborhood attention between its two linear layers.
struct Attention {
    qkv: Linear,
    rpb: Option<Tensor>,
    /// What a padded position has for its q, k and v. As NATTEN 0.14 did when the weights were trained, the input of
    /// the qkv layer is padded with zeros, of which that layer makes its bias.
    pad: Option<Tensor>,
    proj: Linear,
    operator: NeighborhoodAttention,
    /// Attention over the whole map, of one side only (ViT-rpb).
    whole_map: bool,
}

impl Attention {
    fn new(config: &Config, recipe: &Recipe, level: usize, dilation: usize, weights: &Weights) -> Self {
        let (dim, heads, kernel_size) = (config.dim(level), config.num_heads[level], config.kernel_size);
        let side = 2 * kernel_size - 1;
        // The operator scales queries by dim^-1/2 of a head; another scale goes into what makes them.
        let factor = recipe.query_scale.map_or(1.0, |scale| scale * ((dim / heads) as f64).sqrt());
        let qkv = Linear::scaled((dim, 3 * dim), config.qkv_bias, (dim, factor), &weights.pp("qkv"));
        Self {
            pad: qkv.bias().cloned(),
            qkv,
            rpb: config.rpb.then(|| weights.get(&[heads, side, side], "rpb")),
            proj: Linear::new(dim, dim, true, &weights.pp("proj")),
            operator: NeighborhoodAttention { heads, kernel_size, dilation },
            whole_map: config.family.attends_whole_map(),
        }
    }

    /// x + gamma · proj(attention(qkv(norm(x)))), [B, H, W, C].
    fn forward_residual(&self, norm: &LayerNorm, x: &Tensor, gamma: Option<&LayerScale>) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        let NeighborhoodAttention { kernel_size, dilation, .. } = self.operator;
        let span = kernel_size.saturating_mul(dilation);
        if self.whole_map && (h, w) != (span, span) {
            candle_core::bail!("this network's attention covers maps of {span}x{span}, not {h}x{w}");
        }
        let qkv = self.qkv.forward_normed(norm, x)?; // [B, H, W, 3·C]
        let mixed = self.operator.forward_padded(&qkv, self.rpb.as_ref(), self.pad.as_ref())?;
        self.proj.forward_residual(&mixed, x, gamma)
    }
}
