//! What a backbone's family computes.

use candle_core::{Result, Tensor};

/// The levels of a transformer.
pub(super) trait Levels: Send + Sync {
    /// Images [B, 3, H, W] to each level's map before its downsampler, finest first: [B, H/4, W/4, C] and on, or one
    /// map [B, H/16, W/16, C] of an isotropic network.
    ///
    /// # Errors
    /// When the images do not suit the network.
    fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>>;
}
