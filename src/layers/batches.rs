//! How a batch of images goes through a network.

use candle_core::{Result, Tensor};

use super::backend;
use super::form::BatchForm;
use crate::tensors::on_pool;
use crate::weights::Weights;

/// What runs a network on batches, in parts that suit what computes it.
pub struct Batches(Box<dyn BatchForm>);

impl Batches {
    /// For a network of these weights.
    pub fn new(weights: &Weights) -> Self {
        Self(backend::of(weights).batches())
    }

    /// What `network` makes of images [B, ..].
    ///
    /// # Errors
    /// Those of the network.
    pub fn run(&self, images: &Tensor, network: impl Fn(&Tensor) -> Result<Tensor> + Sync) -> Result<Tensor> {
        self.parts(images, None, |images, _| self.0.run(images, &network))
    }

    /// What `run` makes of images [B, ..], put together again; it is told where a part begins. At most `most` go
    /// at a time, where memory sets that limit.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn parts(
        &self,
        images: &Tensor,
        most: Option<usize>,
        run: impl Fn(&Tensor, usize) -> Result<Tensor> + Sync,
    ) -> Result<Tensor> {
        let batch = images.dim(0)?;
        let values = images.elem_count() / batch.max(1);
        let together = self.0.together(batch, values, most).max(1);
        let part = |first| run(&images.narrow(0, first, together.min(batch - first))?, first);
        let parts =
            on_pool(images.device(), || (0..batch).step_by(together).map(part).collect::<Result<Vec<_>>>())?;
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(parts, 0),
        }
    }
}
