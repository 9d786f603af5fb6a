//! Features: everything that a network computes on the way, as named tensors.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use image::RgbImage;

use super::files::NewFile;
use super::{Model, TaskError};
use crate::images::CenterCrop;

/// A network with its preprocessing.
pub struct ExtractFeatures {
    model: Model,
    crop: CenterCrop,
}

/// The tensors of one image, f32: `input` [1, 3, H, W], `stage1`, `stage2`, … [1, C, H, W], and of
/// classifiers `pooled` [1, C] and `logits` [1, classes].
pub type Tensors = BTreeMap<String, Tensor>;

impl ExtractFeatures {
    /// Makes a task of a model; `None` takes the resolution or crop that belongs to it.
    ///
    /// # Errors
    /// When the numbers do not suit the model.
    pub fn new(model: Model, resolution: Option<usize>, crop_pct: Option<f64>) -> Result<Self, TaskError> {
        let crop = model.center_crop(resolution, crop_pct)?;
        Ok(Self { model, crop })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How images become inputs.
    pub fn crop(&self) -> &CenterCrop {
        &self.crop
    }

    /// The tensors of each image.
    ///
    /// # Errors
    /// When the network can't be computed at this resolution.
    pub fn run(&self, images: &[RgbImage]) -> Result<Vec<Tensors>, TaskError> {
        self.run_inputs(&images.iter().map(|image| self.crop.apply(image)).collect::<Vec<_>>())
    }

    /// As [`ExtractFeatures::run`], of images that went through [`ExtractFeatures::crop`].
    ///
    /// # Errors
    /// As [`ExtractFeatures::run`].
    pub fn run_inputs(&self, inputs: &[Vec<f32>]) -> Result<Vec<Tensors>, TaskError> {
        self.compute(inputs).map_err(|error| self.model.compute_error(error))
    }

    fn compute(&self, inputs: &[Vec<f32>]) -> candle_core::Result<Vec<Tensors>> {
        let images = self.model.stack(inputs, self.crop.resolution())?;
        let features = self.model.network.features(&images)?;
        let stages = features.stages.into_iter().zip(1..).map(|(map, i)| (format!("stage{i}"), map));
        let of_batch: Vec<_> = [("input".to_owned(), images.to_dtype(DType::F32)?)]
            .into_iter()
            .chain(stages)
            .chain(features.pooled.map(|pooled| ("pooled".to_owned(), pooled)))
            .chain(features.logits.map(|logits| ("logits".to_owned(), logits)))
            .collect();
        let of_image =
            |b| of_batch.iter().map(move |(name, t)| Ok((name.clone(), t.narrow(0, b, 1)?))).collect();
        (0..inputs.len()).map(of_image).collect()
    }
}

/// Writes the tensors of an image to a safetensors file, whole or not at all.
///
/// # Errors
/// When the file can't be written; what was there before is then unchanged.
pub fn save(tensors: &Tensors, path: &Path) -> Result<(), TaskError> {
    let failed = |error| TaskError::Write { path: path.display().to_string(), error };
    let bytes = safetensors::serialize(tensors, None::<HashMap<String, String>>)
        .map_err(|e| failed(std::io::Error::other(e)))?;
    let mut file = NewFile::create(path).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.keep().map_err(failed)
}
