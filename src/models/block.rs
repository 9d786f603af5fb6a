//! The block that every family repeats: x + attention(norm1(x)), then x + mlp(norm2(x)).

use candle_core::{Result, Tensor};
use nat_convert::arch::{AttentionSpec, BlockSpec};

use crate::attention::NeighborhoodAttention;
use crate::layers::{Linear, LinearParts, Mlp, MlpParts, NormParts};
use crate::weights::Weights;

/// One transformer block (arXiv 2204.07143, figure 3), with layer scale where the network has it.
pub(super) struct Block {
    attn: Attention,
    mlp: Mlp,
}

impl Block {
    pub(super) fn new(spec: &BlockSpec, weights: &Weights) -> Self {
        let gamma = |gamma: &Option<_>| gamma.as_ref().map(|gamma| weights.take(gamma));
        let norm = NormParts::take(&spec.norm1, weights);
        let mlp = MlpParts {
            norm: NormParts::take(&spec.norm2, weights),
            fc1: LinearParts::take(&spec.fc1, weights),
            fc2: LinearParts::take(&spec.fc2, weights),
            gamma: gamma(&spec.gamma2),
        };
        Self {
            attn: Attention::new(&spec.attn, norm, gamma(&spec.gamma1), weights),
            mlp: Mlp::of(mlp, weights),
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
    fn new(spec: &AttentionSpec, norm: NormParts, gamma: Option<Tensor>, weights: &Weights) -> Self {
        let &AttentionSpec { heads, kernel_size, dilation, whole_map, query_factor, .. } = spec;
        // The operator scales queries by dim^-1/2 of a head; another scale goes into what makes them.
        let qkv = LinearParts::take(&spec.qkv, weights).scaled(spec.qkv.inputs, query_factor, weights);
        let proj = LinearParts { gamma, ..LinearParts::take(&spec.proj, weights) };
        Self {
            pad: qkv.bias.clone(),
            qkv: Linear::of(LinearParts { norm: Some(norm), ..qkv }, weights),
            rpb: spec.rpb.as_ref().map(|rpb| weights.take(rpb)),
            proj: Linear::of(proj, weights),
            operator: NeighborhoodAttention { heads, kernel_size, dilation },
            whole_map,
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
