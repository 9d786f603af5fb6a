//! DiNAT_s (arXiv 2209.15001, section 4): Swin's layout with neighborhood attention in place of
//! shifted windows. Original code: `classification/dinat_s.py`.

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::{EPSILON, Recipe};

use super::block::Block;
use super::levels::Levels;
use crate::layers::{Conv2d, ConvParts, Linear, LinearParts, MapLayout, NormParts, Window};
use crate::weights::Weights;

/// DiNAT_s without the norms that follow its levels.
pub(super) struct DinatS {
    patch_embed: PatchEmbed,
    levels: Vec<Level>,
}

/// Non-overlapping patches through one linear map and a norm; images are padded with zeros on the
/// right and the bottom up to whole patches.
pub(super) struct PatchEmbed(Conv2d);

struct Level {
    blocks: Vec<Block>,
    downsample: Option<PatchMerging>,
}

/// Neighbours side by side, then a norm and a linear map.
struct PatchMerging(Linear);

impl DinatS {
    /// Takes the tensors `patch_embed.*` and `layers.*`.
    pub(super) fn new(config: &Config, recipe: &Recipe, weights: &Weights) -> Self {
        let levels =
            (0..config.depths.len()).map(|l| Level::new(config, recipe, l, &weights.pp("layers").pp(l)));
        Self { patch_embed: PatchEmbed::new(config, &weights.pp("patch_embed")), levels: levels.collect() }
    }
}

impl Levels for DinatS {
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

impl PatchEmbed {
    pub(super) fn new(config: &Config, weights: &Weights) -> Self {
        let window = Window { kernel: config.patch_size, stride: config.patch_size, padding: 0 };
        let channels = (3, config.embed_dim);
        let proj = ConvParts::take(channels, window, true, MapLayout::ChannelsFirst, &weights.pp("proj"));
        let norm = Some(NormParts::take(config.embed_dim, EPSILON, &weights.pp("norm")));
        Self(Conv2d::of(ConvParts { norm, ..proj }, weights))
    }

    /// Images [B, 3, H, W] to tokens [B, H/patch, W/patch, C].
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.0.forward(images)
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
                .then(|| PatchMerging::new(config.dim(level), &weights.pp("downsample"))),
        }
    }
}

impl PatchMerging {
    fn new(dim: usize, weights: &Weights) -> Self {
        let reduction = LinearParts::take(4 * dim, 2 * dim, false, &weights.pp("reduction"));
        let norm = Some(NormParts::take(4 * dim, EPSILON, &weights.pp("norm")));
        Self(Linear::of(LinearParts { norm, ..reduction }, weights))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let x = x.pad_with_zeros(1, 0, h % 2)?.pad_with_zeros(2, 0, w % 2)?;
        let (h, w) = (h.div_ceil(2), w.div_ceil(2));
        // Neighbours in the order (0,0), (1,0), (0,1), (1,1) as (row, column):
        // [B, H, 2, W, 2, C] -> [B, H, W, column, row, C].
        let x = x.reshape((b, h, 2, w, 2, c))?.permute([0, 1, 3, 4, 2, 5])?.contiguous()?;
        self.0.forward(&x.reshape((b, h, w, 4 * c))?)
    }
}
