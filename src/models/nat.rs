//! NAT (arXiv 2204.07143, section 3) and DiNAT (arXiv 2209.15001), which differs in its dilations.
//!
//! Original code: SHI-Labs/Neighborhood-Attention-Transformer, `classification/nat.py` and `dinat.py`.
//! Dropout and stochastic depth, which act in training only, are left out.

use candle_core::{Result, Tensor};
use nat_convert::arch::{ConvSpec, LayerNormSpec, NatLevelSpec, NatSpec};

use super::levels::Levels;
use crate::layers::{Blocks, Conv2d, ConvParts, MapLayout, NormParts};
use crate::weights::Weights;

/// NAT or DiNAT without the norms that follow its levels.
pub(super) struct Nat {
    /// Overlapping 3x3 convolutions at stride 2, which make tokens.
    tokenizer: [Conv2d; 2],
    levels: Vec<NatLevel>,
}

struct NatLevel {
    blocks: Blocks,
    /// An overlapping 3x3 convolution at stride 2.
    downsample: Option<Conv2d>,
}

impl Nat {
    pub(super) fn new(spec: &NatSpec, weights: &Weights) -> Self {
        let [first, second] = &spec.proj;
        Self {
            tokenizer: [
                Conv2d::new(first, MapLayout::ChannelsFirst, weights),
                normed(second, &spec.norm, weights),
            ],
            levels: spec.levels.iter().map(|level| NatLevel::new(level, weights)).collect(),
        }
    }
}

impl Levels for Nat {
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let x = self.tokenizer[0].forward(images)?; // [B, 3, H, W] -> [B, H/2, W/2, C/2]
        let mut x = self.tokenizer[1].forward(&x)?; // -> [B, H/4, W/4, C]
        let mut maps = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            x = level.blocks.forward(&x)?;
            maps.push(x.clone());
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(&x)?; // [B, H, W, C] -> [B, H/2, W/2, 2C], sides rounded up
            }
        }
        Ok(maps)
    }
}

impl NatLevel {
    fn new(spec: &NatLevelSpec, weights: &Weights) -> Self {
        Self {
            blocks: Blocks::new(&spec.blocks, weights),
            downsample: spec.downsample.as_ref().map(|(reduction, norm)| normed(reduction, norm, weights)),
        }
    }
}

/// A convolution with a norm behind it.
fn normed(conv: &ConvSpec, norm: &LayerNormSpec, weights: &Weights) -> Conv2d {
    let parts = ConvParts::take(conv, MapLayout::ChannelsLast, weights);
    Conv2d::of(ConvParts { norm: Some(NormParts::take(norm, weights)), ..parts }, weights)
}
