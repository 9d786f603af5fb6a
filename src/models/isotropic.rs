//! Isotropic networks (arXiv 2209.15001, section 4.4): NAT-iso, DiNAT-iso and ViT with a relative
//! position bias. Original code: `classification/nat_isotropic.py`, `dinat_isotropic.py`, `vitrpb.py`.

use candle_core::{Result, Tensor};
use nat_convert::arch::IsotropicSpec;

use super::levels::Levels;
use super::patches::PatchEmbed;
use crate::layers::Blocks;
use crate::weights::Weights;

/// Patches of 16x16 pixels and one level of blocks.
pub(super) struct Isotropic {
    patch_embed: PatchEmbed,
    layers: Blocks,
}

impl Isotropic {
    pub(super) fn new(spec: &IsotropicSpec, weights: &Weights) -> Self {
        Self {
            patch_embed: PatchEmbed::new(&spec.patch_embed, weights),
            layers: Blocks::new(&spec.layers, weights),
        }
    }
}

impl Levels for Isotropic {
    /// ViT-rpb refuses a map that its bias table is not for.
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let x = self.patch_embed.forward(images)?; // [B, H/16, W/16, C]
        Ok(vec![self.layers.forward(&x)?])
    }
}
