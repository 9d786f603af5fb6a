//! Detection: the objects on an image, with their boxes and masks.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use candle_core::{DType, Device};
use image::RgbImage;
use nat_convert::labels::Labels;
use nat_convert::zoo::Task;
use rayon::prelude::*;

use super::image_task::{one, unwatched};
use super::{ImageTask, Model, TaskError};
use crate::images::mask::{Mask, paste};
use crate::images::{Fitted, KeepRatio, RgbPixels};
use crate::models::Network;
use crate::models::detector::{Detected, Found, Picture, Selection};
use crate::results::Detection;

/// A detector with its preprocessing and its labels.
pub struct Detect {
    model: Arc<Model>,
    fit: KeepRatio,
    labels: Vec<String>,
    coco: bool,
    selection: Selection,
    mask_threshold: f32,
    masks: bool,
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DetectOptions {
    /// Bounds of the long and the short side in pixels.
    pub scale: Option<[usize; 2]>,
    /// Objects count when their probability is more than this.
    pub score_threshold: Option<f32>,
    /// The best so many objects of an image are kept.
    pub max_detections: Option<usize>,
    /// Whether masks are computed.
    pub masks: bool,
}

impl Default for DetectOptions {
    /// What belongs to the model, with masks.
    fn default() -> Self {
        Self { scale: None, score_threshold: None, max_detections: None, masks: true }
    }
}

/// An object, with what its mask is made of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Object {
    /// The record.
    pub detection: Detection,
    grid: Option<Grid>,
}

/// A mask as the network gives it: its pixels take up to a thousand times the memory.
#[derive(Clone, Debug, PartialEq)]
struct Grid {
    /// Probabilities, side by side.
    values: Vec<f32>,
    /// The box that they lie over.
    corners: [f32; 4],
    /// Width and height of the image.
    size: [usize; 2],
    /// The probability from which on a pixel is on.
    threshold: f32,
}

impl Object {
    /// Its pixels, made anew at each call, unless only boxes were asked for.
    pub fn mask(&self) -> Option<Mask> {
        self.grid.as_ref().map(Grid::paste)
    }
}

impl Grid {
    fn paste(&self) -> Mask {
        paste(&self.values, self.values.len().isqrt(), self.corners, self.size, self.threshold)
    }
}

impl Detect {
    /// Makes a task of a model, which other tasks may share: a `Model`, or an `Arc` of one.
    ///
    /// # Errors
    /// When the model is no detector, or the options do not suit it.
    pub fn new(model: impl Into<Arc<Model>>, options: &DetectOptions) -> Result<Self, TaskError> {
        let model = model.into();
        let (Network::Detector(network), Some(classes)) =
            (&model.network, model.metadata.architecture.classes())
        else {
            return Err(model.other_task(Task::Detect));
        };
        let own = network.selection();
        let fit = model.keep_ratio(options.scale)?;
        let names = model.metadata.labels.clone();
        let coco = names.as_ref().is_some_and(|names| *names == Labels::Coco.names());
        let labels = names.unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect());
        let recipe = &model.metadata.architecture.recipe.detector;
        let selection = Selection {
            score_threshold: options.score_threshold.unwrap_or(own.score_threshold),
            max_detections: options.max_detections.unwrap_or(own.max_detections),
        };
        let mask_threshold = recipe.mask_threshold as f32;
        Ok(Self { fit, labels, coco, selection, mask_threshold, masks: options.masks, model })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Names of the classes; their indices where nothing names them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The number that annotations give class `index`, as in [`Detection::category_id`].
    pub fn category_id(&self, index: usize) -> usize {
        if self.coco { Labels::Coco.category_id(index) } else { index + 1 }
    }

    /// Which objects are kept.
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// How images become inputs.
    pub fn fit(&self) -> &KeepRatio {
        &self.fit
    }

    /// The objects on an image, highest score first.
    ///
    /// # Errors
    /// When the network can't be computed on an image of this size, or overflows.
    pub fn run(&self, image: &RgbImage) -> Result<Vec<Object>, TaskError> {
        one(self, &self.prepare(image), &mut unwatched)
    }

    /// What was found on an image, as its records.
    fn objects(&self, input: &Fitted, detected: Option<Detected>) -> Result<Vec<Object>, TaskError> {
        let not_finite = || TaskError::NotFinite { model: self.model.name.clone() };
        let Detected { found, masks } = detected.ok_or_else(not_finite)?;
        let grids = masks
            .map(|masks| {
                masks.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>()
            })
            .transpose()
            .map_err(|error| self.model.compute_error(error))?;
        if !grids.iter().flatten().flatten().all(|x| x.is_finite()) {
            return Err(not_finite());
        }
        let grids =
            grids.map_or_else(|| vec![None; found.len()], |grids| grids.into_iter().map(Some).collect());
        found.into_par_iter().zip(grids).map(|(found, grid)| self.object(input, found, grid)).collect()
    }

    fn object(&self, input: &Fitted, found: Found, grid: Option<Vec<f32>>) -> Result<Object, TaskError> {
        let Found { index, score, corners } = found;
        let [x1, y1, x2, y2] = corners;
        let size = input.original;
        let threshold = self.mask_threshold;
        let grid = grid.map(|values| Grid { values, corners, size, threshold });
        let segmentation = grid.as_ref().map(|grid| grid.paste().encode(size)).transpose()?;
        let detection = Detection {
            category_id: self.category_id(index),
            index,
            label: self.labels[index].clone(),
            score,
            bbox: [x1, y1, x2 - x1, y2 - y1],
            segmentation,
        };
        Ok(Object { detection, grid })
    }
}

impl ImageTask for Detect {
    type Input = Fitted;
    /// The objects, highest score first.
    type Output = Vec<Object>;

    fn model(&self) -> &Model {
        &self.model
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.fit.apply(image)
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
        let Network::Detector(network) = &self.model.network else {
            return Err(self.model.other_task(Task::Detect));
        };
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let picture = |input: &Fitted| Picture {
            size: input.resized.map(|side| side as f32),
            scale_factor: input.scale_factor(),
        };
        let pictures: Vec<Picture> = inputs.iter().map(picture).collect();
        let values: Vec<&[f32]> = inputs.iter().map(|input| input.values.as_slice()).collect();
        let detected = self
            .model
            .stack(&values, first.size)
            .and_then(|images| network.forward(&images, &pictures, self.selection, self.masks))
            .map_err(|error| self.model.compute_error(error))?;
        let _ = watch(inputs.len());
        Ok(inputs.iter().zip(detected).map(|(input, detected)| self.objects(input, detected)).collect())
    }
}
