//! Isotropic networks (arXiv 2209.15001, section 4.4): NAT-iso, DiNAT-iso and ViT with a relative
//! position bias. Original code: `classification/nat_isotropic.py`, `dinat_isotropic.py`, `vitrpb.py`.

use candle_core::{Result, Tensor};
use nat_convert::arch::Backbone as Config;
use nat_convert::recipe::Recipe;

use super::block::Block;
use super::dinat_s::PatchEmbed;
use super::levels::Levels;
use crate::weights::Weights;

/// Patches of 16x16 pixels and one level of blocks.
pub(super) struct Isotropic {
    patch_embed: PatchEmbed,
    layers: Vec<Block>,
}

impl Isotropic {
    /// Takes the tensors `patch_embed.*` and `layers.*`.
    pub(super) fn new(config: &Config, recipe: &Recipe, weights: &Weights) -> Self {
        let layers = weights.pp("layers");
        Self {
            patch_embed: PatchEmbed::new(config, &weights.pp("patch_embed")),
            layers: (0..config.depths[0]).map(|b| Block::new(config, recipe, 0, b, &layers.pp(b))).collect(),
        }
    }
}

impl Levels for Isotropic {
    /// ViT-rpb refuses a map that its bias table is not for.
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut x = self.patch_embed.forward(images)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        Ok(vec![x])
    }
}
