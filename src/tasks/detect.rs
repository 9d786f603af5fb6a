//! Detection: the objects on an image, with their boxes and masks.

use std::path::Path;

use candle_core::{DType, Device};
use image::RgbImage;
use nat_convert::arch::Head;
use nat_convert::labels::Labels;
use nat_convert::zoo::Task;
use rayon::prelude::*;

use super::files::save_png;
use super::{Model, TaskError};
use crate::images::mask::{Mask, paste};
use crate::images::{Fitted, KeepRatio, draw};
use crate::models::Network;
use crate::models::mask_rcnn::{Picture, Selection};
use crate::results::Detection;

/// A detector with its preprocessing and its labels.
pub struct Detect {
    model: Model,
    fit: KeepRatio,
    labels: Vec<String>,
    coco: bool,
    selection: Selection,
    masks: bool,
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug)]
pub struct DetectOptions {
    /// Bounds of the long and the short side in pixels.
    pub scale: Option<[usize; 2]>,
    /// Objects count when their probability is more than this.
    pub score_threshold: f32,
    /// The best so many objects of an image are kept.
    pub max_detections: usize,
    /// Whether masks are computed.
    pub masks: bool,
}

impl Default for DetectOptions {
    /// As the published detectors are tested.
    fn default() -> Self {
        let Selection { score_threshold, max_detections } = Selection::default();
        Self { scale: None, score_threshold, max_detections, masks: true }
    }
}

/// An object with its mask as pixels, for drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The record.
    pub detection: Detection,
    /// Its pixels, unless only boxes were asked for.
    pub mask: Option<Mask>,
}

impl Detect {
    /// Makes a task of a model.
    ///
    /// # Errors
    /// When the model is no detector, or the options do not suit it.
    pub fn new(model: Model, options: &DetectOptions) -> Result<Self, TaskError> {
        let (Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector)) = &model.metadata.architecture.head
        else {
            return Err(model.other_task(Task::Detect));
        };
        let fit = model.keep_ratio(options.scale)?;
        let names = model.metadata.labels.clone();
        let coco = names.as_ref().is_some_and(|names| *names == Labels::Coco.names());
        let labels = names.unwrap_or_else(|| (0..detector.classes).map(|index| index.to_string()).collect());
        let &DetectOptions { score_threshold, max_detections, masks, .. } = options;
        let selection = Selection { score_threshold, max_detections };
        Ok(Self { fit, labels, coco, selection, masks, model })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
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
        self.run_input(&self.fit.apply(image))
    }

    /// As [`Detect::run`], of an image that went through [`Detect::fit`].
    ///
    /// # Errors
    /// As [`Detect::run`].
    pub fn run_input(&self, input: &Fitted) -> Result<Vec<Object>, TaskError> {
        let Network::Detector(network) = &self.model.network else {
            return Err(self.model.other_task(Task::Detect));
        };
        let picture =
            Picture { size: input.resized.map(|side| side as f32), scale_factor: input.scale_factor() };
        let compute = || {
            let image = self.model.stack(&[&input.values], input.size)?;
            let (found, masks) = network.forward(&image, picture, self.selection, self.masks)?;
            let masks = masks.map(|masks| {
                masks.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>()
            });
            Ok((found, masks.transpose()?))
        };
        let (found, grids) = compute().map_err(|error| self.model.compute_error(error))?;
        let object = |i: usize| {
            let found = found[i];
            let [x1, y1, x2, y2] = found.corners;
            let mask = grids.as_ref().map(|grids| {
                let side = grids[i].len().isqrt();
                paste(&grids[i], side, found.corners, input.original)
            });
            let [width, height] = input.original;
            let segmentation = mask.as_ref().map(|mask| mask.encode(input.original)).transpose();
            let detection = Detection {
                category_id: if self.coco { Labels::Coco.category_id(found.index) } else { found.index + 1 },
                index: found.index,
                label: self.labels[found.index].clone(),
                score: found.score,
                bbox: [x1, y1, x2 - x1, y2 - y1],
                segmentation: segmentation.map_err(|error| TaskError::Mask { width, height, error })?,
            };
            Ok(Object { detection, mask })
        };
        (0..found.len()).into_par_iter().map(object).collect()
    }
}

/// Draws the objects of more than `threshold` onto their image and writes it to a PNG file, whole or not
/// at all.
///
/// # Errors
/// When the file can't be written; what was there before is then unchanged.
pub fn save(mut image: RgbImage, objects: &[Object], threshold: f32, path: &Path) -> Result<(), TaskError> {
    let drawn: Vec<draw::Object> = objects
        .iter()
        .filter(|object| object.detection.score > threshold)
        .map(|Object { detection, mask }| {
            let [x, y, w, h] = detection.bbox;
            draw::Object {
                index: detection.index,
                label: &detection.label,
                score: detection.score,
                corners: [x, y, x + w, y + h],
                mask: mask.as_ref(),
            }
        })
        .collect();
    draw::objects(&mut image, &drawn);
    save_png(&image, path)
}
