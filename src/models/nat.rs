//! NAT (arXiv 2204.07143, section 3) and DiNAT (arXiv 2209.15001), which differs in its dilations.
//!
//! Original code: SHI-Labs/Neighborhood-Attention-Transformer, `classification/nat.py` and `dinat.py`.
//! Dropout and stochastic depth, which act in training only, are left out.

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::{EPSILON, Recipe};

use super::block::Block;
use crate::layers::{Conv2d, LayerNorm, MapLayout, Window};
use crate::weights::Weights;

/// The overlapping 3x3 convolutions that NAT tokenizes and downsamples with.
const HALVE: Window = Window { kernel: 3, stride: 2, padding: 1 };

/// NAT or DiNAT without the norms that follow its levels.
pub struct Nat {
    patch_embed: ConvTokenizer,
    levels: Vec<Level>,
}

struct ConvTokenizer {
    proj: [Conv2d; 2],
    norm: LayerNorm,
}

struct Level {
    blocks: Vec<Block>,
    downsample: Option<ConvDownsampler>,
}

struct ConvDownsampler {
    reduction: Conv2d,
    norm: LayerNorm,
}

impl Nat {
    /// Takes the tensors `patch_embed.*` and `levels.*`.
    pub fn new(config: &Config, recipe: &Recipe, weights: &Weights) -> Self {
        let levels =
            (0..config.depths.len()).map(|l| Level::new(config, recipe, l, &weights.pp("levels").pp(l)));
        Self {
            patch_embed: ConvTokenizer::new(config.embed_dim, &weights.pp("patch_embed")),
            levels: levels.collect(),
        }
    }

    /// Images [B, 3, H, W] to each level's map before its downsampler: [B, H/4, W/4, C], …, sides
    /// rounded up at every halving.
    ///
    /// # Errors
    /// When the images are not [B, 3, H, W].
    pub fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut x = self.patch_embed.forward(images)?; // [B, H/4, W/4, C]
        let mut maps = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            for block in &level.blocks {
                x = block.forward(&x)?;
            }
            maps.push(x.clone());
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(&x)?; // [B, H, W, C] -> [B, H/2, W/2, 2C]
            }
        }
        Ok(maps)
    }
}

impl ConvTokenizer {
    fn new(dim: usize, weights: &Weights) -> Self {
        let conv =
            |i, channels, layout| Conv2d::new(channels, HALVE, true, layout, &weights.pp("proj").pp(i));
        Self {
            proj: [
                conv(0, (3, dim / 2), MapLayout::ChannelsFirst),
                conv(1, (dim / 2, dim), MapLayout::ChannelsLast),
            ],
            norm: LayerNorm::new(dim, EPSILON, &weights.pp("norm")),
        }
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.proj[0].forward(images, None)?; // [B, 3, H, W] -> [B, H/2, W/2, C/2]
        self.proj[1].forward(&x, Some(&self.norm)) // -> [B, H/4, W/4, C]
    }
}

impl Level {
    fn new(config: &Config, recipe: &Recipe, level: usize, weights: &Weights) -> Self {
        let blocks = weights.pp("blocks");
        Self {
            blocks: (0..config.depths[level])
                .map(|b| Block::new(config, recipe, level, b, &blocks.pp(b)))
                .collect(),
            downsample: (level + 1 < config.depths.len())
                .then(|| ConvDownsampler::new(config.dim(level), &weights.pp("downsample"))),
        }
    }
}

impl ConvDownsampler {
    fn new(dim: usize, weights: &Weights) -> Self {
        let reduction = weights.pp("reduction");
        Self {
            reduction: Conv2d::new((dim, 2 * dim), HALVE, false, MapLayout::ChannelsLast, &reduction),
            norm: LayerNorm::new(2 * dim, EPSILON, &weights.pp("norm")),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.reduction.forward(x, Some(&self.norm))
    }
}
