//! Segmentation: a class for every pixel of an image.

use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use nat_convert::arch::Geometry;
use nat_convert::labels::Labels;
use nat_convert::recipe::SegmenterRecipe;
use nat_convert::zoo::Task;
use rayon::prelude::*;

use self::views::{PassLogits, PassRows, PixelScores, Scratch, SlidingWindows};
use super::files::NewFile;
use super::image_task::{one, unwatched};
use super::{ImageTask, Model, TaskError};
use crate::images::colours::colour;
use crate::images::{Fitted, KeepRatio, RgbPixels, palette};
use crate::layers::softmax::likeliest;
use crate::models::Network;
use crate::models::segmenter::Segmenter;
use crate::results::ClassShare;
use crate::tensors::with_all_f32;

mod views;

/// The published multi-scale protocol's sizes, times the model's scale.
const RATIOS: [f64; 6] = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75];

/// A segmenter with its preprocessing and its labels.
pub struct Segment {
    model: Arc<Model>,
    fits: Vec<KeepRatio>,
    flip: bool,
    labels: Vec<String>,
    /// Values that the network gives of a pixel: 1, or one for each class.
    outputs: usize,
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SegmentOptions {
    /// Bounds of the long and the short side in pixels.
    pub scale: Option<[usize; 2]>,
    /// Take the mean over six sizes, from half to 1.75 times the scale.
    pub multi_scale: bool,
    /// Take the mean with the mirror image.
    pub flip: bool,
}

/// The class of every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelMap {
    /// Width and height of the image.
    pub size: [usize; 2],
    /// Class indices, row by row.
    pub classes: Vec<u8>,
}

impl Segment {
    /// Makes a task of a model, which other tasks may share: a `Model`, or an `Arc` of one.
    ///
    /// # Errors
    /// When the model is no segmenter or has more than 256 classes, its windows leave parts of a picture out,
    /// or the options do not suit it.
    pub fn new(model: impl Into<Arc<Model>>, options: &SegmentOptions) -> Result<Self, TaskError> {
        let model = model.into();
        let architecture = &model.metadata.architecture;
        let (Network::Segmenter(network), Some(classes)) = (&model.network, architecture.classes()) else {
            return Err(model.other_task(Task::Segment));
        };
        let outputs = network.outputs();
        if classes > 256 {
            return Err(TaskError::Classes { model: model.name.clone(), classes });
        }
        let Geometry::Scale { scale: own, .. } = model.metadata.preprocessing.geometry else {
            return Err(TaskError::NoScale { model: model.name.clone() });
        };
        let scale = options.scale.unwrap_or(own);
        let ratios: &[f64] = if options.multi_scale { &RATIOS } else { &[1.0] };
        let fit = |ratio: &f64| model.keep_ratio(Some(scale.map(|side| (side as f64 * ratio) as usize)));
        let fits = ratios.iter().map(fit).collect::<Result<_, _>>()?;
        let labels = model.metadata.labels.clone();
        let labels = labels.unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect());
        Ok(Self { fits, flip: options.flip, labels, outputs, model })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Names of the classes.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How an image becomes an input, at each size.
    pub fn fits(&self) -> &[KeepRatio] {
        &self.fits
    }

    /// The class of every pixel of an image.
    ///
    /// # Errors
    /// When the network can't be computed on an image of this size, or overflows.
    pub fn run(&self, image: &RgbImage) -> Result<LabelMap, TaskError> {
        one(self, &self.prepare(image), &mut unwatched)
    }

    /// How the model decides.
    fn recipe(&self) -> &SegmenterRecipe {
        &self.model.metadata.architecture.recipe.segmenter
    }

    /// What the network gives of `images` [B, 3, H, W], through each window of its recipe.
    /// Of padded ones the first `resized` columns and rows are the pictures.
    fn view(
        &self,
        network: &dyn Segmenter,
        images: &Tensor,
        resized: [usize; 2],
        mirrored: bool,
    ) -> candle_core::Result<PassLogits> {
        let images = if mirrored { mirror(images, resized[0])? } else { images.clone() };
        let size = [images.dim(3)?, images.dim(2)?];
        let windows = SlidingWindows::new(size, self.recipe().window);
        let logits = |part: candle_core::Result<Tensor>| {
            network.forward(&part?)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)
        };
        let logits = windows.parts(&images).map(logits).collect::<candle_core::Result<_>>()?;
        Ok(PassLogits { logits, windows, size, resized, mirrored })
    }

    /// What each of so many passes gives of a pixel, which are then added up.
    fn scores(&self, passes: usize) -> PixelScores {
        match (self.outputs, passes) {
            (1, _) => PixelScores::Sigmoid,
            // Of one pass the largest logit is the largest probability.
            (_, 1) => PixelScores::Logits,
            _ => PixelScores::Softmax,
        }
    }

    /// The class of a pixel by the sums of its scores of so many passes.
    fn class(&self, sums: &[f32], passes: usize) -> u8 {
        match sums {
            [sum] => u8::from(sum / passes as f32 > self.recipe().threshold as f32),
            _ => likeliest(sums) as u8,
        }
    }

    /// The class of every pixel of image `b` of a batch, which has this `size`.
    fn label_map(&self, views: &[PassLogits], b: usize, size: [usize; 2]) -> Result<LabelMap, TaskError> {
        let failed = |error| self.model.compute_error(error);
        let outputs = self.outputs;
        let logits = views.iter().flat_map(|view| &view.logits).map(|logits| logits.narrow(0, b, 1));
        let logits = logits.collect::<candle_core::Result<Vec<_>>>().map_err(failed)?;
        let mut labels = vec![0; size[0] * size[1]];
        let finite = with_all_f32(&logits, |logits| {
            let mut rest = logits;
            let passes = views.iter().map(|view| {
                let (logits, others) = rest.split_at(view.logits.len());
                rest = others;
                PassRows::new(view, logits, size, self.recipe().align_corners)
            });
            let passes = passes.collect::<candle_core::Result<Vec<PassRows>>>()?;
            let scores = self.scores(passes.len());
            // Strips, not all rows at once: at full size the logits of a photograph take gigabytes.
            let strip = size[1].div_ceil(4 * rayon::current_num_threads()).clamp(1, 64);
            let finite = labels
                .par_chunks_mut(strip * size[0])
                .enumerate()
                .map(|(i, labels)| {
                    let mut scratch: Vec<Scratch> = passes.iter().map(|_| Scratch::default()).collect();
                    let mut sums = vec![0.0; size[0] * outputs];
                    let mut finite = true;
                    for (y, labels) in labels.chunks_exact_mut(size[0]).enumerate() {
                        sums.fill(0.0);
                        for (pass, scratch) in passes.iter().zip(&mut scratch) {
                            pass.add(i * strip + y, scratch, scores, &mut sums);
                        }
                        for (label, sums) in labels.iter_mut().zip(sums.chunks_exact(outputs)) {
                            finite &= sums.iter().all(|sum| sum.is_finite());
                            *label = self.class(sums, passes.len());
                        }
                    }
                    finite
                })
                .reduce(|| true, |a, b| a && b);
            Ok(finite)
        });
        let finite = finite.and_then(|finite| finite).map_err(failed)?;
        if !finite {
            return Err(TaskError::NotFinite { model: self.model.name.clone() });
        }
        Ok(LabelMap { size, classes: labels })
    }

    /// What covers how much of an image, largest first.
    pub fn shares(&self, map: &LabelMap) -> Vec<ClassShare> {
        let mut pixels = vec![0; self.labels.len()];
        map.classes.iter().for_each(|&class| pixels[class as usize] += 1);
        let share = |(index, &pixels): (usize, &usize)| ClassShare {
            index,
            label: self.labels[index].clone(),
            pixels,
            fraction: pixels as f64 / map.classes.len() as f64,
        };
        let mut shares: Vec<ClassShare> =
            pixels.iter().enumerate().filter(|(_, n)| **n > 0).map(share).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.pixels));
        shares
    }

    /// The colour of each class: the model's own, or ADE20K's where these are its classes.
    pub fn colours(&self) -> Vec<[u8; 3]> {
        let own = self.model.metadata.palette.as_ref();
        if let Some(own) = own.filter(|own| own.len() == self.labels.len()) {
            return own.clone();
        }
        if self.labels == Labels::Ade20k.names() {
            return palette::ade20k();
        }
        (0..self.labels.len()).map(colour).collect()
    }

    /// Writes a label map to a PNG file whose values are class indices, with `coloured` shown in the
    /// classes' colours; whole or not at all.
    ///
    /// # Errors
    /// When the file can't be written; what was there before is then unchanged.
    pub fn save_labels(&self, map: &LabelMap, coloured: bool, path: &Path) -> Result<(), TaskError> {
        let failed = |error| TaskError::Write { path: path.display().to_string(), error };
        let colours = coloured.then(|| self.colours());
        let mut file = NewFile::create(path).map_err(failed)?;
        palette::write_labels(&mut file, &map.classes, map.size, colours.as_deref())
            .map_err(|error| failed(error.into()))?;
        file.keep().map_err(failed)
    }

    /// How many passes an image takes.
    fn passes(&self) -> usize {
        self.fits.len() * if self.flip { 2 } else { 1 }
    }
}

impl ImageTask for Segment {
    /// The image at each size.
    type Input = Vec<Fitted>;
    type Output = LabelMap;

    fn model(&self) -> &Model {
        &self.model
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.fits.iter().map(|fit| fit.apply(image)).collect()
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        let sizes = |fitted: &Fitted| (fitted.size, fitted.resized);
        a.iter().map(sizes).eq(b.iter().map(sizes))
    }

    fn bytes(&self, input: &Self::Input) -> usize {
        input.iter().map(|fitted| size_of_val(fitted.values.as_slice())).sum()
    }

    fn steps(&self) -> usize {
        self.passes()
    }

    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError> {
        let Network::Segmenter(network) = &self.model.network else {
            return Err(self.model.other_task(Task::Segment));
        };
        let failed = |error| self.model.compute_error(error);
        let mut remaining = inputs.len() * self.passes();
        let mut maps = Vec::with_capacity(inputs.len());
        // The logits of all passes are kept until an image's last one: at a time of so few images that they
        // take no more memory than those of all images in one pass.
        for inputs in inputs.chunks((inputs.len() / self.passes()).max(1)) {
            let mut views = Vec::with_capacity(self.passes());
            for (i, first) in inputs[0].iter().enumerate() {
                let values: Vec<&[f32]> = inputs.iter().map(|input| input[i].values.as_slice()).collect();
                let straight = self.model.stack(&values, first.size).map_err(failed)?;
                for mirrored in [false, true].into_iter().take(1 + usize::from(self.flip)) {
                    views.push(self.view(&**network, &straight, first.resized, mirrored).map_err(failed)?);
                    remaining -= inputs.len();
                    if watch(inputs.len()).is_break() && remaining > 0 {
                        return Err(TaskError::Stopped);
                    }
                }
            }
            let sizes = inputs.iter().map(|input| input[0].original).enumerate();
            maps.extend(sizes.map(|(b, size)| self.label_map(&views, b, size)));
        }
        Ok(maps)
    }
}

/// `x` [B, C, H, W] with its first `width` columns from right to left: padding stays at the right.
fn mirror(x: &Tensor, width: usize) -> candle_core::Result<Tensor> {
    let columns: Vec<u32> = (0..width as u32).rev().chain(width as u32..x.dim(3)? as u32).collect();
    x.index_select(&Tensor::new(columns, x.device())?, 3)
}

#[cfg(test)]
mod tests;
