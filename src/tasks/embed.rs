//! Embeddings: the one vector that a classifier makes of an image before it names a class.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use image::RgbImage;
use nat_convert::arch::Head;
use nat_convert::zoo::Task;

use super::image_task::all;
use super::{ImageTask, Model, TaskError};
use crate::images::{CenterCrop, RgbPixels};
use crate::models::classifier::Classifier;

/// A classifier with its preprocessing, asked for its pooled features: the last map, normed and averaged over its
/// positions, which is the tensor `pooled` of [`ExtractFeatures`](super::ExtractFeatures). Images that look alike to
/// the network have vectors of about the same direction.
pub struct Embed {
    model: Arc<Model>,
    crop: CenterCrop,
}

impl Embed {
    /// Makes a task of a model, which other tasks may share; `None` takes the resolution or crop that belongs to it.
    ///
    /// # Errors
    /// When the model is no classifier, or the numbers do not suit it.
    pub fn new(
        model: impl Into<Arc<Model>>,
        resolution: Option<usize>,
        crop_pct: Option<f64>,
    ) -> Result<Self, TaskError> {
        let model = model.into();
        if !matches!(model.metadata.architecture.head, Head::Classifier(_)) {
            return Err(no_pooled(&model));
        }
        let crop = model.center_crop(resolution, crop_pct)?;
        Ok(Self { model, crop })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How images become inputs.
    pub fn crop(&self) -> &CenterCrop {
        &self.crop
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.model.metadata.architecture.backbone.out_dim()
    }

    /// The vector of each image.
    ///
    /// # Errors
    /// When the network can't be computed at this resolution, or overflows.
    pub fn run(&self, images: &[RgbImage]) -> Result<Vec<Vec<f32>>, TaskError> {
        all(self, &images.iter().map(|image| self.prepare(image)).collect::<Vec<_>>())
    }

    fn network(&self) -> Result<&Classifier, TaskError> {
        self.model.classifier(Task::Classify).map_err(|_| no_pooled(&self.model))
    }
}

fn no_pooled(model: &Model) -> TaskError {
    TaskError::NoPooled { model: model.name.clone() }
}

impl ImageTask for Embed {
    /// [3, resolution, resolution], normalised.
    type Input = Vec<f32>;
    /// [`Embed::width`] numbers.
    type Output = Vec<f32>;

    fn model(&self) -> &Model {
        &self.model
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.crop.apply(image)
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        a.len() == b.len()
    }

    fn bytes(&self, input: &Self::Input) -> usize {
        size_of_val(input.as_slice())
    }

    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let network = self.network()?;
        let values: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let vectors = self
            .model
            .stack(&values, [self.crop.resolution(); 2])
            .and_then(|images| network.pooled(&images)?.to_device(&Device::Cpu))
            .and_then(|vectors: Tensor| vectors.to_vec2::<f32>())
            .map_err(|error| self.model.compute_error(error))?;
        // The results are there and not dropped.
        let _ = watch(inputs.len());
        let checked = |vector: Vec<f32>| match vector.iter().all(|x| x.is_finite()) {
            true => Ok(vector),
            false => Err(TaskError::NotFinite { model: self.model.name.clone() }),
        };
        Ok(vectors.into_iter().map(checked).collect())
    }
}

#[cfg(test)]
mod tests {
    use nat_testing::golden;

    use super::*;
    use crate::images::Reader;
    use crate::tasks::{ExtractFeatures, LoadOptions};
    use crate::zoo::{self, Located};

    #[test]
    fn a_vector_is_the_tensor_pooled() {
        let demo =
            Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, &LoadOptions::default())
                .unwrap();
        let golden = Model::open(&golden::path("classify/nat-k7.pth"), &LoadOptions::default()).unwrap();
        let images = ["digits/images/digit-0-012.png", "images/chelsea.png", "digits/images/digit-1-009.png"];
        let images = images.map(|name| Reader::default().file(&golden::path(name)).unwrap());
        for (model, resolution, width) in [(demo, None, 128), (golden, Some(64), 128)] {
            let model = Arc::new(model);
            let features = ExtractFeatures::new(Arc::clone(&model), resolution, Some(0.9)).unwrap();
            let task = Embed::new(model, resolution, Some(0.9)).unwrap();
            assert_eq!(task.crop().to_string(), features.preparation().to_string());
            assert_eq!(task.width(), width);
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let got = task.run(&images).unwrap().into_iter().map(bits).collect::<Vec<_>>();
            for (got, tensors) in got.iter().zip(features.run(&images).unwrap()) {
                assert_eq!(*got, bits(tensors["pooled"].flatten_all().unwrap().to_vec1().unwrap()));
            }
            assert!(got[0] != got[1] && got.len() == 3 && got[0].len() == width);
        }
    }

    #[test]
    fn what_is_no_classifier_has_no_vector() {
        for name in ["detect/maskrcnn_s/model.pth", "segment/upernet_b/model.pth"] {
            for backbone in [false, true] {
                let options = LoadOptions { backbone, ..LoadOptions::default() };
                let model = Model::open(&golden::path(name), &options).unwrap();
                let error = Embed::new(model, Some(64), None).err().map(|error| error.to_string());
                let says = "has no pooled features: only classifiers have";
                assert!(error.as_deref().is_some_and(|error| error.contains(says)), "{error:?}");
            }
        }
    }
}
