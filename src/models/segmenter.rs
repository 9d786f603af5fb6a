//! What a segmenter does.

use candle_core::{Result, Tensor};

/// A network that says for every pixel what it is.
pub trait Segmenter: Send + Sync {
    /// Values of each position: one a class, or a single one that tells two classes apart.
    fn outputs(&self) -> usize;

    /// Logits [B, h, w, outputs] of normalised images [B, 3, H, W], at whatever size the network decides on: they
    /// are resized to the image's.
    ///
    /// # Errors
    /// When the images do not suit the network.
    fn forward(&self, images: &Tensor) -> Result<Tensor>;
}
