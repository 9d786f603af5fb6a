//! Image classification: a backbone, global average pooling and one linear layer. A backbone alone,
//! or a detector's, gives its feature maps through the same type.

use candle_core::{DType, Result, Tensor};
use nat_convert::arch::{Architecture, Head};

use super::Backbone;
use crate::layers::{Linear, on_pool};
use crate::weights::{LoadError, Weights};

/// A backbone and, for classifiers, its head.
pub struct Classifier {
    backbone: Backbone,
    head: Option<Linear>,
    #[cfg(feature = "cuda")]
    replay: crate::cuda::Replay,
}

/// What a network computes on the way.
pub struct Features {
    /// Each level's map before its downsampler, [B, C, H, W], f32; through `norm{i}` where the network
    /// has them.
    pub stages: Vec<Tensor>,
    /// The last map, normed and averaged, [B, C], f32; of classifiers.
    pub pooled: Option<Tensor>,
    /// [B, classes], f32; of classifiers.
    pub logits: Option<Tensor>,
}

impl Classifier {
    /// Builds the network and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ.
    pub fn new(architecture: &Architecture, weights: &Weights) -> std::result::Result<Self, LoadError> {
        let backbone = Backbone::new(&architecture.backbone, weights);
        let head = match architecture.head {
            Head::Classifier { classes } => {
                Some(Linear::new(architecture.backbone.out_dim(), classes, true, &weights.pp("head")))
            }
            _ => None,
        };
        weights.finish()?;
        Ok(Self {
            backbone,
            head,
            #[cfg(feature = "cuda")]
            replay: crate::cuda::Replay::default(),
        })
    }

    /// Logits [B, classes], f32, of normalised images [B, 3, H, W].
    ///
    /// # Errors
    /// When the images do not suit the network, or it is not a classifier.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let batch = images.dim(0)?;
        #[cfg(feature = "cuda")]
        if images.device().is_cuda() {
            return match batch {
                1..=crate::cuda::Replay::MOST_IMAGES if !images.track_op() => {
                    self.replay.run(images, |images| self.logits(images))
                }
                _ => self.logits(images),
            };
        }
        // On a CPU an image a thread: more at a time would leave the caches between layers.
        let together = if images.device().is_cpu() { rayon::current_num_threads() } else { batch };
        let part = |first| self.logits(&images.narrow(0, first, together.min(batch - first))?);
        let parts = on_pool(|| (0..batch).step_by(together.max(1)).map(part).collect::<Result<Vec<_>>>())?;
        Tensor::cat(&parts, 0)
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let maps = self.backbone.forward(images)?;
        match (maps.last(), &self.head) {
            (Some(last), Some(head)) => head.forward(&self.backbone.pool(last)?)?.to_dtype(DType::F32),
            _ => candle_core::bail!("this network has no classifier"),
        }
    }

    /// Every map, and for a classifier the pooled features and the logits, of images [B, 3, H, W].
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn features(&self, images: &Tensor) -> Result<Features> {
        let maps = on_pool(|| self.backbone.forward(images))?;
        let pooled = match (maps.last(), &self.head) {
            (Some(last), Some(_)) => Some(self.backbone.pool(last)?),
            _ => None,
        };
        let logits = match (&pooled, &self.head) {
            (Some(pooled), Some(head)) => Some(head.forward(pooled)?.to_dtype(DType::F32)?),
            _ => None,
        };
        let stages = maps.iter().map(|map| map.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32));
        Ok(Features {
            stages: stages.collect::<Result<_>>()?,
            pooled: pooled.map(|pooled| pooled.to_dtype(DType::F32)).transpose()?,
            logits,
        })
    }
}
