//! The block that every family repeats: x + attention(norm1(x)), then x + mlp(norm2(x)).

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::Recipe;

use crate::attention::NeighborhoodAttention;
use crate::layers::{Linear, LinearParts, Mlp, MlpParts, NormParts};
use crate::weights::Weights;

/// One transformer block (arXiv 2204.07143, figure 3), with layer scale where the network has it.
pub(super) struct Block {
    attn: Attention,
    mlp: Mlp,
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
        let gamma = |name| config.layer_scale.then(|| weights.get(&[dim], name));
        let norm = |name| NormParts::take(dim, epsilon, &weights.pp(name));
        let (hidden, mlp) = (config.hidden(level), weights.pp("mlp"));
        let dilation = config.dilations[level][block];
        Self {
            attn: Attention::new(
                config,
                recipe,
                level,
                dilation,
                norm("norm1"),
                gamma("gamma1"),
                &weights.pp("attn"),
            ),
            mlp: Mlp::of(
                MlpParts {
                    norm: norm("norm2"),
                    fc1: LinearParts::take(dim, hidden, true, &mlp.pp("fc1")),
                    fc2: LinearParts::take(hidden, dim, true, &mlp.pp("fc2")),
                    gamma: gamma("gamma2"),
                },
                weights,
            ),
        }
    }

    /// [B, H, W, C] to [B, H, W, C].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.mlp.forward(&self.attn.forward(x)?)
    }
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
    /// Attention over the whole map, of one side only (ViT-rpb).
    whole_map: bool,
}

impl Attention {
    fn new(
        config: &Config,
        recipe: &Recipe,
        level: usize,
        dilation: usize,
        norm: NormParts,
        gamma: Option<Tensor>,
        weights: &Weights,
    ) -> Self {
        let (dim, heads, kernel_size) = (config.dim(level), config.num_heads[level], config.kernel_size);
        let side = 2 * kernel_size - 1;
        // The operator scales queries by dim^-1/2 of a head; another scale goes into what makes them.
        let factor = recipe.query_scale.map_or(1.0, |scale| scale * ((dim / heads) as f64).sqrt());
        let qkv = LinearParts::take(dim, 3 * dim, config.qkv_bias, &weights.pp("qkv"));
        let qkv = LinearParts { norm: Some(norm), ..qkv.scaled(dim, factor, weights) };
        let proj = LinearParts::take(dim, dim, true, &weights.pp("proj"));
        Self {
            pad: qkv.bias.clone(),
            qkv: Linear::of(qkv, weights),
            rpb: config.rpb.then(|| weights.get(&[heads, side, side], "rpb")),
            proj: Linear::of(LinearParts { gamma, ..proj }, weights),
            operator: NeighborhoodAttention { heads, kernel_size, dilation },
            whole_map: config.family.attends_whole_map(),
        }
    }

    /// [B, H, W, C] to [B, H, W, C].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        let NeighborhoodAttention { kernel_size, dilation, .. } = self.operator;
        let span = kernel_size.saturating_mul(dilation);
        if self.whole_map && (h, w) != (span, span) {
            candle_core::bail!("this network's attention covers maps of {span}x{span}, not {h}x{w}");
        }
        let qkv = self.qkv.forward(x)?; // [B, H, W, 3·C]
        let mixed = self.operator.forward_padded(&qkv, self.rpb.as_ref(), self.pad.as_ref())?;
        self.proj.forward_residual(&mixed, x)
    }
}
