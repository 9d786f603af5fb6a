//! DiNAT_s (arXiv 2209.15001, section 4): Swin's layout with neighborhood attention in place of
//! shifted windows. Original code: `classification/dinat_s.py`.

use candle_core::{Result, Tensor};
use nat_convert::arch::{DinatSLevelSpec, DinatSSpec, LayerNormSpec, LinearSpec};

use super::levels::Levels;
use super::patches::PatchEmbed;
use crate::layers::{Blocks, Linear, LinearParts, Maps, NormParts};
use crate::weights::Weights;

/// DiNAT_s without the norms that follow its levels.
pub(super) struct DinatS {
    patch_embed: PatchEmbed,
    levels: Vec<DinatSLevel>,
}

struct DinatSLevel {
    blocks: Blocks,
    downsample: Option<PatchMerging>,
}

/// Neighbours side by side, then a norm and a linear map.
struct PatchMerging {
    linear: Linear,
    maps: Maps,
}

impl DinatS {
    pub(super) fn new(spec: &DinatSSpec, weights: &Weights) -> Self {
        Self {
            patch_embed: PatchEmbed::new(&spec.patch_embed, weights),
            levels: spec.levels.iter().map(|level| DinatSLevel::new(level, weights)).collect(),
        }
    }
}

impl Levels for DinatS {
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut x = self.patch_embed.forward(images)?; // [B, H/4, W/4, C]
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

impl DinatSLevel {
    fn new(spec: &DinatSLevelSpec, weights: &Weights) -> Self {
        let merging = |(norm, reduction): &_| PatchMerging::new(norm, reduction, weights);
        Self { blocks: Blocks::new(&spec.blocks, weights), downsample: spec.downsample.as_ref().map(merging) }
    }
}

impl PatchMerging {
    fn new(norm: &LayerNormSpec, reduction: &LinearSpec, weights: &Weights) -> Self {
        let norm = Some(NormParts::take(norm, weights));
        let linear = Linear::of(LinearParts { norm, ..LinearParts::take(reduction, weights) }, weights);
        Self { linear, maps: Maps::new(weights) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.maps.merged(x)?)
    }
}
