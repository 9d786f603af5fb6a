//! Segmentation: a class for every pixel of an image.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use nat_convert::arch::{Geometry, Head};
use nat_convert::labels::Labels;
use nat_convert::zoo::Task;
use rayon::prelude::*;

use super::files::{NewFile, save_png};
use super::image_task::{one, unwatched};
use super::{ImageTask, Model, TaskError};
use crate::images::{Fitted, KeepRatio, draw, palette};
use crate::layers::resample::{Tap, row, taps};
use crate::layers::softmax::{likeliest, softmax};
use crate::layers::with_all_f32;
use crate::models::Network;
use crate::results::Segment as Share;

/// The published multi-scale protocol's sizes, times the model's scale.
const RATIOS: [f64; 6] = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75];

/// Classes that a picture's legend names at most.
const LEGEND: usize = 10;

/// A segmenter with its preprocessing and its labels.
pub struct Segment {
    model: Model,
    fits: Vec<KeepRatio>,
    flip: bool,
    labels: Vec<String>,
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug, Default)]
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
pub struct LabelMap {
    /// Width and height of the image.
    pub size: [usize; 2],
    /// Class indices, row by row.
    pub classes: Vec<u8>,
}

impl Segment {
    /// Makes a task of a model.
    ///
    /// # Errors
    /// When the model is no segmenter or has more than 256 classes, or the options do not suit it.
    pub fn new(model: Model, options: &SegmentOptions) -> Result<Self, TaskError> {
        let Head::Upernet { classes, .. } = model.metadata.architecture.head else {
            return Err(model.other_task(Task::Segment));
        };
        if classes > 256 {
            return Err(TaskError::Classes { model: model.name, classes });
        }
        let Geometry::Scale { scale: own, .. } = model.metadata.preprocessing.geometry else {
            return Err(TaskError::NoScale { model: model.name });
        };
        let scale = options.scale.unwrap_or(own);
        let ratios: &[f64] = if options.multi_scale { &RATIOS } else { &[1.0] };
        let fit = |ratio: &f64| model.keep_ratio(Some(scale.map(|side| (side as f64 * ratio) as usize)));
        let fits = ratios.iter().map(fit).collect::<Result<_, _>>()?;
        let labels = model.metadata.labels.clone();
        let labels = labels.unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect());
        Ok(Self { fits, flip: options.flip, labels, model })
    }

    /// The model.
    pub fn model(&self) -> &Model {
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

    /// The class of every pixel of image `b` of a batch, which has this `size`.
    fn label_map(&self, views: &[View], b: usize, size: [usize; 2]) -> Result<LabelMap, TaskError> {
        let failed = |error| self.model.compute_error(error);
        let classes = self.labels.len();
        let logits = views.iter().map(|view| view.logits.narrow(0, b, 1));
        let logits = logits.collect::<candle_core::Result<Vec<_>>>().map_err(failed)?;
        let mut labels = vec![0; size[0] * size[1]];
        let finite = with_all_f32(&logits, |logits| {
            let passes: Vec<Pass> = views
                .iter()
                .zip(logits)
                .map(|(view, logits)| Pass::new(view, logits, size, classes))
                .collect();
            // Strips, not all rows at once: at full size the logits of a photograph take gigabytes.
            let strip = size[1].div_ceil(4 * rayon::current_num_threads()).clamp(1, 64);
            labels
                .par_chunks_mut(strip * size[0])
                .enumerate()
                .map(|(i, labels)| {
                    let mut scratch: Vec<Scratch> = passes.iter().map(|_| Scratch::default()).collect();
                    let mut sums = vec![0.0; size[0] * classes];
                    let mut finite = true;
                    for (y, labels) in labels.chunks_exact_mut(size[0]).enumerate() {
                        sums.fill(0.0);
                        for (pass, scratch) in passes.iter().zip(&mut scratch) {
                            pass.add(i * strip + y, scratch, passes.len() > 1, &mut sums);
                        }
                        for (label, scores) in labels.iter_mut().zip(sums.chunks_exact(classes)) {
                            finite &= scores.iter().all(|score| score.is_finite());
                            *label = likeliest(scores) as u8;
                        }
                    }
                    finite
                })
                .reduce(|| true, |a, b| a && b)
        })
        .map_err(failed)?;
        if !finite {
            return Err(TaskError::NotFinite { model: self.model.name.clone() });
        }
        Ok(LabelMap { size, classes: labels })
    }

    /// What covers how much of an image, largest first.
    pub fn shares(&self, map: &LabelMap) -> Vec<Share> {
        let mut pixels = vec![0; self.labels.len()];
        map.classes.iter().for_each(|&class| pixels[class as usize] += 1);
        let share = |(index, &pixels): (usize, &usize)| Share {
            index,
            label: self.labels[index].clone(),
            pixels,
            fraction: pixels as f64 / map.classes.len() as f64,
        };
        let mut shares: Vec<Share> = pixels.iter().enumerate().filter(|(_, n)| **n > 0).map(share).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.pixels));
        shares
    }

    /// The colour of each class: ADE20K's where these are its classes.
    fn colours(&self) -> Vec<[u8; 3]> {
        if self.labels == Labels::Ade20k.names() {
            return palette::ade20k();
        }
        (0..self.labels.len()).map(draw::colour).collect()
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

    /// Draws a label map onto its image, with a legend of the largest classes, and writes it to a PNG
    /// file, whole or not at all.
    ///
    /// # Errors
    /// When the file can't be written; what was there before is then unchanged.
    pub fn save_picture(
        &self,
        mut image: RgbImage,
        map: &LabelMap,
        shares: &[Share],
        path: &Path,
    ) -> Result<(), TaskError> {
        let largest: Vec<draw::Object> = shares
            .iter()
            .filter(|share| share.fraction >= 0.01)
            .take(LEGEND)
            .map(|share| draw::Object {
                index: share.index,
                label: &share.label,
                score: share.fraction as f32,
                corners: [0.0; 4],
                mask: None,
            })
            .collect();
        draw::classes(&mut image, &map.classes, &self.colours(), &largest);
        save_png(&image, path)
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

    fn prepare(&self, image: &RgbImage) -> Self::Input {
        self.fits.iter().map(|fit| fit.apply(image)).collect()
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        a.iter().map(|fitted| fitted.size).eq(b.iter().map(|fitted| fitted.size))
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
                    let compute = || {
                        let images = if mirrored { mirror(&straight)? } else { straight.clone() };
                        network.forward(&images)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)
                    };
                    let logits = compute().map_err(failed)?;
                    views.push(View { logits, size: first.size, mirrored });
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

/// `x` [B, C, H, W] from right to left.
fn mirror(x: &Tensor) -> candle_core::Result<Tensor> {
    let columns: Vec<u32> = (0..x.dim(3)? as u32).rev().collect();
    x.index_select(&Tensor::new(columns, x.device())?, 3)
}

/// What one forward pass gave.
struct View {
    /// [B, h, w, classes], f32, on the CPU.
    logits: Tensor,
    /// Width and height of the input.
    size: [usize; 2],
    mirrored: bool,
}

/// The way of a pass's logits to rows of the original picture: to the input's size, then to the original
/// one, both bilinear.
struct Pass<'a> {
    logits: &'a [f32],
    /// Width of the logits in values.
    stride: usize,
    classes: usize,
    mirrored: bool,
    to_input: [Vec<Tap>; 2],
    to_original: [Vec<Tap>; 2],
}

/// Rows of the input's size that were made last, with their numbers, and one of the original's.
#[derive(Default)]
struct Scratch {
    rows: [(Option<usize>, Vec<f32>); 2],
    out: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(view: &View, logits: &'a [f32], size: [usize; 2], classes: usize) -> Self {
        let dims = view.logits.dims();
        let (h, w) = (dims[1], dims[2]);
        let [width, height] = view.size;
        Self {
            logits,
            stride: w * classes,
            classes,
            mirrored: view.mirrored,
            to_input: [taps(w, width), taps(h, height)],
            to_original: [taps(width, size[0]), taps(height, size[1])],
        }
    }

    /// Adds the scores of row `y` of the original picture to `sums` [width, classes]: logits, or with
    /// `soft` probabilities.
    fn add(&self, y: usize, scratch: &mut Scratch, soft: bool, sums: &mut [f32]) {
        let ([columns, rows], classes) = (&self.to_input, self.classes);
        let tap = self.to_original[1][y];
        // A row is needed by several: it stays in the place of its parity.
        for at in tap.at {
            let (made, line) = &mut scratch.rows[at % 2];
            if *made != Some(at) {
                let from = rows[at].at.map(|y| &self.logits[y * self.stride..][..self.stride]);
                line.resize(columns.len() * classes, 0.0);
                row(from, rows[at].part, columns, classes, line);
                *made = Some(at);
            }
        }
        let lines = tap.at.map(|at| scratch.rows[at % 2].1.as_slice());
        let width = self.to_original[0].len();
        scratch.out.resize(width * classes, 0.0);
        row(lines, tap.part, &self.to_original[0], classes, &mut scratch.out);
        if soft {
            softmax(&mut scratch.out, classes);
        }
        for (x, scores) in scratch.out.chunks_exact(classes).enumerate() {
            let x = if self.mirrored { width - 1 - x } else { x };
            sums[x * classes..][..classes].iter_mut().zip(scores).for_each(|(sum, score)| *sum += *score);
        }
    }
}
