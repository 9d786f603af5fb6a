//! DiNAT_s (arXiv 2209.15001, section 4): Swin's layout with neighborhood attention in place of
//! shifted windows. Original code: `classification/dinat_s.py`.

use candle_core::{Result, Tensor};
use nat_convert::arch::{DinatSLevelSpec, DinatSSpec, LayerNormSpec, LinearSpec};

use super::block::Block;
use super::levels::Levels;
use super::patches::PatchEmbed;
use crate::layers::{Linear, LinearParts, NormParts};
use crate::weights::Weights;

/// DiNAT_s without the norms that follow its levels.
pub(super) struct DinatS {
    patch_embed: PatchEmbed,
    levels: Vec<DinatSLevel>,
}

struct DinatSLevel {
    blocks: Vec<Block>,
    downsample: Option<PatchMerging>,
}

/// Neighbours side by side, then a norm and a linear map.
struct PatchMerging(Linear);

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
            for block in &level.blocks {
                x = block.forward(&x)?;
            }
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
        Self {
            blocks: spec.blocks.iter().map(|block| Block::new(block, weights)).collect(),
            downsample: spec.downsample.as_ref().map(merging),
        }
    }
}

impl PatchMerging {
    fn new(norm: &LayerNormSpec, reduction: &LinearSpec, weights: &Weights) -> Self {
        let norm = Some(NormParts::take(norm, weights));
        Self(Linear::of(LinearParts { norm, ..LinearParts::take(reduction, weights) }, weights))
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
