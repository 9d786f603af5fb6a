//! Features: everything that a network computes on the way, as named tensors.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;
use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use nat_convert::arch::Geometry;
use nat_convert::zoo::Task;

use super::files::{NewFile, SOFTWARE_METADATA};
use super::image_task::all;
use super::{ImageTask, Model, TaskError};
use crate::images::{CenterCrop, KeepRatio, RgbPixels};
use crate::tensors::with_all_f32;

/// A network with its preprocessing.
pub struct ExtractFeatures {
    model: Arc<Model>,
    preparation: Preparation,
}

/// How images become inputs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Preparation {
    /// A classifier's.
    Crop(CenterCrop),
    /// A detector's or a segmenter's, whose inputs differ in size.
    Fit(KeepRatio),
}

/// An image as the network takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureInput {
    /// [3, height, width]
    pub(super) values: Vec<f32>,
    /// Width and height.
    size: [usize; 2],
}

impl Preparation {
    /// The network's input of one image.
    ///
    /// # Panics
    /// When the image has no pixels.
    pub fn apply<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> FeatureInput {
        match self {
            Self::Crop(crop) => FeatureInput { values: crop.apply(image), size: [crop.resolution(); 2] },
            Self::Fit(fit) => {
                let fitted = fit.apply(image);
                FeatureInput { values: fitted.values, size: fitted.size }
            }
        }
    }
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crop(crop) => crop.fmt(f),
            Self::Fit(fit) => fit.fmt(f),
        }
    }
}

/// The tensors of one image, f32: `input` [1, 3, H, W], `stage1`, `stage2`, … [1, C, H, W], and of
/// classifiers `pooled` [1, C] and `logits` [1, classes].
pub type Tensors = BTreeMap<String, Tensor>;

impl ExtractFeatures {
    /// Makes a task of a model, which other tasks may share; `None` takes the resolution or crop that belongs to it, and for the
    /// backbone of a detector or a segmenter that task's resize.
    ///
    /// # Errors
    /// When the numbers do not suit the model.
    pub fn new(
        model: impl Into<Arc<Model>>,
        resolution: Option<usize>,
        crop_pct: Option<f64>,
    ) -> Result<Self, TaskError> {
        let model = model.into();
        let preparation = match (model.metadata.preprocessing.geometry, resolution, crop_pct) {
            (Geometry::Scale { .. }, None, None) => Preparation::Fit(model.keep_ratio(None)?),
            _ => Preparation::Crop(model.center_crop(resolution, crop_pct)?),
        };
        Ok(Self { model, preparation })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How images become inputs.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// The tensors of each image.
    ///
    /// # Errors
    /// When the network can't be computed at this resolution.
    pub fn run(&self, images: &[RgbImage]) -> Result<Vec<Tensors>, TaskError> {
        let inputs: Vec<_> = images.iter().map(|image| self.prepare(image)).collect();
        let mut tensors = Vec::with_capacity(inputs.len());
        for together in inputs.chunk_by(|a, b| self.goes_with(a, b)) {
            tensors.extend(all(self, together)?);
        }
        Ok(tensors)
    }

    /// The tensors of image `b` among those of a batch, in memory of their own.
    fn of_image(&self, of_batch: &[(String, Tensor)], b: usize) -> Result<Tensors, TaskError> {
        let tensors = of_batch.iter().map(|(name, batch)| {
            let tensor = batch.narrow(0, b, 1)?;
            let finite = with_all_f32(std::slice::from_ref(&tensor), |values| {
                values.iter().all(|values| values.iter().all(|x| x.is_finite()))
            })?;
            Ok((name.clone(), tensor.force_contiguous()?, finite))
        });
        let tensors = tensors.collect::<candle_core::Result<Vec<_>>>();
        let tensors = tensors.map_err(|error| self.model.compute_error(error))?;
        if !tensors.iter().all(|(_, _, finite)| *finite) {
            return Err(TaskError::NotFinite { model: self.model.name.clone() });
        }
        Ok(tensors.into_iter().map(|(name, tensor, _)| (name, tensor)).collect())
    }
}

impl ImageTask for ExtractFeatures {
    type Input = FeatureInput;
    type Output = Tensors;

    fn model(&self) -> &Model {
        &self.model
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.preparation.apply(image)
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        a.size == b.size
    }

    fn bytes(&self, input: &Self::Input) -> usize {
        size_of_val(input.values.as_slice())
    }

    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError> {
        let network = self.model.classifier(Task::Classify)?;
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let values: Vec<&[f32]> = inputs.iter().map(|input| input.values.as_slice()).collect();
        let compute = || -> candle_core::Result<Vec<(String, Tensor)>> {
            let images = self.model.stack(&values, first.size)?;
            let features = network.features(&images)?;
            let stages = features.stages.into_iter().zip(1..).map(|(map, i)| (format!("stage{i}"), map));
            [("input".to_owned(), images)]
                .into_iter()
                .chain(stages)
                .chain(features.pooled.map(|pooled| ("pooled".to_owned(), pooled)))
                .chain(features.logits.map(|logits| ("logits".to_owned(), logits)))
                .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)))
                .collect()
        };
        let of_batch = compute().map_err(|error| self.model.compute_error(error))?;
        let _ = watch(inputs.len());
        Ok((0..inputs.len()).map(|b| self.of_image(&of_batch, b)).collect())
    }
}

/// Writes the tensors of an image to a safetensors file, whole or not at all.
///
/// # Errors
/// When the file can't be written; what was there before is then unchanged.
pub fn save(tensors: &Tensors, path: &Path) -> Result<(), TaskError> {
    let failed = |error| TaskError::Write { path: path.display().to_string(), error };
    let metadata = HashMap::from([SOFTWARE_METADATA.map(str::to_owned).into()]);
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(std::io::Error::other(e)))?;
    let mut file = NewFile::create(path).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.keep().map_err(failed)
}
