//! NAT (arXiv 2204.07143, section 3) and DiNAT (arXiv 2209.15001), which differs in its dilations.
//!
//! Original code: SHI-Labs/Neighborhood-Attention-Transformer, `classification/nat.py` and `dinat.py`.
//! Dropout and stochastic depth, which act in training only, are left out.

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::{EPSILON, Recipe};

use super::block::Block;
use super::levels::Levels;
use crate::layers::{Conv2d, ConvParts, MapLayout, NormParts, Window};
use crate::weights::Weights;

/// The overlapping 3x3 convolutions that NAT tokenizes and downsamples with.
const HALVE: Window = Window { kernel: 3, stride: 2, padding: 1 };

/// NAT or DiNAT without the norms that follow its levels.
pub(super) struct Nat {
    patch_embed: ConvTokenizer,
    levels: Vec<Level>,
}

/// Two convolutions and a norm.
struct ConvTokenizer([Conv2d; 2]);

struct Level {
    blocks: Vec<Block>,
    downsample: Option<ConvDownsampler>,
}

/// A convolution and a norm.
struct ConvDownsampler(Conv2d);

impl Nat {
    /// Takes the tensors `patch_embed.*` and `levels.*`.
    pub(super) fn new(config: &Config, recipe: &Recipe, weights: &Weights) -> Self {
        let levels =
            (0..config.depths.len()).map(|l| Level::new(config, recipe, l, &weights.pp("levels").pp(l)));
        Self {
            patch_embed: ConvTokenizer::new(config.embed_dim, &weights.pp("patch_embed")),
            levels: levels.collect(),
        }
    }
}

impl Levels for Nat {
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
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
            |i, channels, layout| ConvParts::take(channels, HALVE, true, layout, &weights.pp("proj").pp(i));
        let first = conv(0, (3, dim / 2), MapLayout::ChannelsFirst);
        let second = conv(1, (dim / 2, dim), MapLayout::ChannelsLast);
        let norm = Some(NormParts::take(dim, EPSILON, &weights.pp("norm")));
        Self([first, ConvParts { norm, ..second }].map(|parts| Conv2d::of(parts, weights)))
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.0[0].forward(images)?; // [B, 3, H, W] -> [B, H/2, W/2, C/2]
        self.0[1].forward(&x) // -> [B, H/4, W/4, C]
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
        let layout = MapLayout::ChannelsLast;
        let reduction = ConvParts::take((dim, 2 * dim), HALVE, false, layout, &weights.pp("reduction"));
        let norm = Some(NormParts::take(2 * dim, EPSILON, &weights.pp("norm")));
        Self(Conv2d::of(ConvParts { norm, ..reduction }, weights))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}
