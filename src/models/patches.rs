//! The patch embedding of DiNAT_s and of isotropic networks.

use candle_core::{Result, Tensor};
use nat_convert::arch::PatchesSpec;

use crate::layers::{Conv2d, ConvParts, MapLayout, NormParts};
use crate::weights::Weights;

/// Non-overlapping patches through one linear map and a norm; images are padded with zeros on the
/// right and the bottom up to whole patches.
pub(super) struct PatchEmbed(Conv2d);

impl PatchEmbed {
    pub(super) fn new(spec: &PatchesSpec, weights: &Weights) -> Self {
        let proj = ConvParts::take(&spec.proj, MapLayout::ChannelsFirst, weights);
        let norm = Some(NormParts::take(&spec.norm, weights));
        Self(Conv2d::of(ConvParts { norm, ..proj }, weights))
    }

    /// Images [B, 3, H, W] to tokens [B, H/patch, W/patch, C].
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.0.forward(images)
    }
}
