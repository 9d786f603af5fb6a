//! Saliency: which pixels of an image speak for a class.
//!
//! [`Method::SmoothGrad`] (arXiv 1706.03825) is the gradient of the class's logit with respect to the normalised
//! input, averaged over noisy copies of it: fine, to the pixel. [`Method::GradCam`] (arXiv 1610.02391) weighs the
//! channels of the last level's map with their mean gradients: coarse, and of a single forward pass.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use fastrand::Rng;
use image::RgbImage;
use nat_convert::zoo::Task;
use rayon::prelude::*;

use super::classify::ClassifyOptions;
use super::files::save_png;
use super::image_task::one;
use super::{Classify, ImageTask, Model, TaskError, features};
use crate::images::{CenterCrop, RgbPixels, heat};
use crate::layers::{bilinear, in_words};
use crate::models::classifier::{Classifier, MOST_GRADIENTS};
use crate::results::Scored;

/// A classifier that has gradients, with its preprocessing and its labels.
pub struct Saliency {
    classify: Classify,
    class: Option<usize>,
    method: Method,
}

/// How a map is made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// Averaged gradients of the input.
    SmoothGrad(SmoothGrad),
    /// The last level's map, weighed by gradients.
    GradCam,
}

/// What SmoothGrad does.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SmoothGrad {
    /// Noisy copies.
    pub samples: usize,
    /// Standard deviation of the noise, as a share of the range of the input's values; with 0 the map is of the
    /// input's own gradient.
    pub noise: f32,
    /// What the noise is drawn from: the same for every image.
    pub seed: u64,
    /// Take gradients that are positive, where more of a colour speaks for the class, in place of all by their
    /// size.
    pub signed: bool,
    /// Copies that are computed together, at most.
    pub together: usize,
}

impl Default for SmoothGrad {
    /// 25 copies, noise of 0.15.
    fn default() -> Self {
        Self { samples: 25, noise: 0.15, seed: 0, signed: false, together: MOST_GRADIENTS }
    }
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SaliencyOptions {
    /// The class that the map is about; the most probable one where it is `None`.
    pub class: Option<usize>,
    /// Side of the square input in pixels.
    pub resolution: Option<usize>,
    /// Share of the resized short side that the crop keeps.
    pub crop_pct: Option<f64>,
    /// Names of the classes, one for each.
    pub labels: Option<Vec<String>>,
}

/// How much each pixel of an input speaks for a class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SaliencyMap {
    /// The class, with its probability on this image.
    pub class: Scored,
    /// Width and height: those of the network's input.
    pub size: [usize; 2],
    /// Values row by row, none negative.
    pub values: Vec<f32>,
}

impl Saliency {
    /// Makes a task of a model, which other tasks may share, that was loaded with [`gradients`](super::LoadOptions::gradients).
    ///
    /// # Errors
    /// When the model is no classifier or has no such class, or the options do not suit it.
    pub fn new(
        model: impl Into<Arc<Model>>,
        method: Method,
        options: &SaliencyOptions,
    ) -> Result<Self, TaskError> {
        let SaliencyOptions { class, resolution, crop_pct, labels } = options.clone();
        let options = ClassifyOptions { resolution, crop_pct, labels, top_k: Some(1) };
        let classify = Classify::new(model, &options)?;
        let classes = classify.labels().len();
        if let Some(class) = class.filter(|&class| class >= classes) {
            return Err(TaskError::Class { model: classify.model().name().to_owned(), class, classes });
        }
        Ok(Self { classify, class, method })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        self.classify.model()
    }

    /// How images become inputs.
    pub fn crop(&self) -> &CenterCrop {
        self.classify.crop()
    }

    /// The task with maps of the class that `name` stands for, see [`Classify::class_named`].
    ///
    /// # Errors
    /// When it stands for none, or for several.
    pub fn about(self, name: &str) -> Result<Self, TaskError> {
        Ok(Self { class: Some(self.classify.class_named(name)?), ..self })
    }

    /// The classifier that is asked.
    pub fn classify(&self) -> &Classify {
        &self.classify
    }

    /// How many copies of an image a map is made of.
    pub fn copies(&self) -> usize {
        match self.method {
            Method::SmoothGrad(settings) => settings.copies(),
            Method::GradCam => 1,
        }
    }

    /// The map of an image. `progress` is told how many copies are done, each time that some are, and may
    /// end the work before the last.
    ///
    /// # Errors
    /// When the network can't be computed at this resolution, overflows, or has no gradients;
    /// [`TaskError::Stopped`] when `progress` breaks off.
    pub fn run(
        &self,
        image: &RgbImage,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<SaliencyMap, TaskError> {
        one(self, &self.prepare(image), &mut progress)
    }

    fn map(
        &self,
        input: &[f32],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<SaliencyMap, TaskError> {
        let (model, size) = (self.model(), [self.crop().resolution(); 2]);
        let network = model.classifier(Task::Classify)?;
        let failed = |error| model.compute_error(error);
        let images = model.stack(&[input], size).map_err(failed)?;
        let (class, values) = match self.method {
            Method::SmoothGrad(settings) => {
                let logits = network.forward(&images).and_then(|logits| logits.flatten_all()?.to_vec1());
                let class = self.classify.one(&logits.map_err(failed)?, self.class)?;
                let values = settings.map(model, input, size, class.index, progress)?;
                (class, values)
            }
            Method::GradCam => {
                let (logits, values) = grad_cam(network, &images, self.class).map_err(failed)?;
                let _ = progress(1);
                (self.classify.one(&logits, self.class)?, values)
            }
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(TaskError::NotFinite { model: model.name.clone() });
        }
        Ok(SaliencyMap { class, size, values })
    }
}

impl ImageTask for Saliency {
    /// [3, resolution, resolution], normalised.
    type Input = Vec<f32>;
    type Output = SaliencyMap;

    fn model(&self) -> &Model {
        self.classify.model()
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.classify.prepare(image)
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        self.classify.goes_with(a, b)
    }

    fn bytes(&self, input: &Self::Input) -> usize {
        self.classify.bytes(input)
    }

    fn steps(&self) -> usize {
        self.copies()
    }

    /// One image after the other: a batch is made of an image's copies.
    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError> {
        let mut maps = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            let mut stopped = false;
            let map = self.map(input, &mut |steps| {
                let flow = watch(steps);
                stopped |= flow.is_break();
                flow
            });
            if matches!(map, Err(TaskError::Stopped)) || (stopped && i + 1 < inputs.len()) {
                return Err(TaskError::Stopped);
            }
            maps.push(map);
        }
        let failed = |map: &Result<SaliencyMap, TaskError>| matches!(map, Err(TaskError::Compute { .. }));
        if maps.iter().all(failed)
            && let Some(Err(error)) = maps.pop()
        {
            return Err(error);
        }
        Ok(maps)
    }
}

impl SaliencyMap {
    /// A map of `size` (width, height) from its values, row by row.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn new(class: Scored, size: [usize; 2], values: Vec<f32>) -> Self {
        assert_eq!(values.len(), size[0] * size[1]);
        Self { class, size, values }
    }

    /// Writes the map as a grey PNG of its own size, whole or not at all; [`heat::to_bytes`] says how values are
    /// scaled.
    ///
    /// # Errors
    /// When the file can't be written; what was there before is then unchanged.
    pub fn save_grey(&self, path: &Path) -> Result<(), TaskError> {
        save_png(&heat::grey(&self.values, self.size), path)
    }

    /// Writes the values as the tensor `saliency` [H, W], f32, of a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// As [`SaliencyMap::save_grey`].
    pub fn save_tensor(&self, path: &Path) -> Result<(), TaskError> {
        let [width, height] = self.size;
        let tensor = Tensor::from_slice(&self.values, (height, width), &Device::Cpu).map_err(|error| {
            let error = std::io::Error::other(in_words(&error));
            TaskError::Write { path: path.display().to_string(), error }
        })?;
        features::save(&BTreeMap::from([("saliency".to_owned(), tensor)]), path)
    }
}

impl SmoothGrad {
    /// How many copies there are: without noise they would all be the same.
    fn copies(&self) -> usize {
        if self.noise > 0.0 { self.samples.max(1) } else { 1 }
    }

    /// The mean gradient of the copies of an input [3, H, W], as one value a position.
    fn map(
        &self,
        model: &Model,
        input: &[f32],
        size: [usize; 2],
        class: usize,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<f32>, TaskError> {
        let &Self { noise, seed, signed, together, .. } = self;
        let network = model.classifier(Task::Classify)?;
        let gradients = |copies: &[Vec<f32>]| {
            let copies: Vec<&[f32]> = copies.iter().map(Vec::as_slice).collect();
            let images = model.stack(&copies, size)?;
            network.gradients(&images, &vec![class as u32; copies.len()])?.flatten_all()?.to_vec1::<f32>()
        };
        let (low, high) =
            input.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        let deviation = noise * (high - low);
        let samples = self.copies();
        let mut seeds = Rng::with_seed(seed);
        let mut rngs: Vec<Rng> = (0..samples).map(|_| seeds.fork()).collect();
        let mut sum = vec![0.0; input.len()];
        let mut remaining = samples;
        for rngs in rngs.chunks_mut(together.max(1)) {
            let copies: Vec<_> = rngs.par_iter_mut().map(|rng| noisy(input, deviation, rng)).collect();
            let gradients = gradients(&copies).map_err(|error| model.compute_error(error))?;
            for gradient in gradients.chunks_exact(input.len()) {
                sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
            }
            remaining -= copies.len();
            if progress(copies.len()).is_break() && remaining > 0 {
                return Err(TaskError::Stopped);
            }
        }
        let area = size[0] * size[1];
        let value = |i: usize| {
            let channels = (0..3).map(|c| sum[c * area + i] / samples as f32);
            channels.map(|x| if signed { x } else { x.abs() }).fold(0.0, nan_or_larger)
        };
        Ok((0..area).map(value).collect())
    }
}

/// The larger of two values, or NaN.
fn nan_or_larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// `input` with noise of a normal distribution (Box and Muller's).
fn noisy(input: &[f32], deviation: f32, rng: &mut Rng) -> Vec<f32> {
    let mut out = input.to_vec();
    for pair in out.chunks_mut(2) {
        // 1 − [0, 1) is never 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - rng.f32()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * rng.f32()).sin_cos();
        pair.iter_mut().zip([cos, sin]).for_each(|(x, part)| *x += deviation * radius * part);
    }
    out
}

/// The logits of an image [1, 3, H, W], and Grad-CAM for a class, resampled to its size.
fn grad_cam(
    network: &Classifier,
    image: &Tensor,
    class: Option<usize>,
) -> candle_core::Result<(Vec<f32>, Vec<f32>)> {
    let (_, _, height, width) = image.dims4()?;
    let (logits, map) = network.grad_cam(image, &[class.map(|class| class as u32)])?;
    let map = bilinear(&map.unsqueeze(3)?.to_device(&Device::Cpu)?, height, width)?;
    Ok((logits.flatten_all()?.to_vec1()?, map.flatten_all()?.to_vec1()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::LoadOptions;
    use crate::zoo::{self, Located};

    fn task(settings: SmoothGrad) -> Saliency {
        let options = LoadOptions { gradients: true, ..LoadOptions::default() };
        let model = Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, &options).unwrap();
        Saliency::new(model, Method::SmoothGrad(settings), &SaliencyOptions::default()).unwrap()
    }

    #[test]
    fn noise_is_normal() {
        let mut rng = Rng::with_seed(1);
        for length in [100_000, 99_999] {
            let noise = noisy(&vec![2.0; length], 0.5, &mut rng);
            let moment = |power| {
                noise.iter().map(|x| ((f64::from(*x) - 2.0) / 0.5).powi(power)).sum::<f64>() / length as f64
            };
            for (power, want) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
                assert!((moment(power) - want).abs() < 0.1, "moment {power} is {}", moment(power));
            }
            // Neighbours, which are made together, have nothing to do with each other.
            let pairs = noise.chunks_exact(2).map(|x| f64::from((x[0] - 2.0) * (x[1] - 2.0)) / 0.25);
            assert!((2.0 * pairs.sum::<f64>() / length as f64).abs() < 0.05);
        }
    }

    /// First the mean over copies, then the largest size over channels.
    #[test]
    fn gradients_are_averaged_before_they_lose_their_signs() {
        let settings = SmoothGrad { samples: 3, together: 2, ..SmoothGrad::default() };
        let task = task(settings);
        let input = task.crop().apply(&image::open("assets/nine.png").unwrap().into_rgb8());
        let mut done = Vec::new();
        let mut progress = |copies| {
            done.push(copies);
            ControlFlow::Continue(())
        };
        let map = one(&task, &input, &mut progress).unwrap();
        assert_eq!((done, map.class.index, map.size), (vec![2, 1], 9, [96, 96]));

        let (low, high) =
            (input.iter().copied().fold(f32::MAX, f32::min), input.iter().copied().fold(f32::MIN, f32::max));
        let mut seeds = Rng::with_seed(0);
        let copies: Vec<Vec<f32>> =
            (0..3).map(|_| noisy(&input, 0.15 * (high - low), &mut seeds.fork())).collect();
        let copies: Vec<&[f32]> = copies.iter().map(Vec::as_slice).collect();
        let images = task.model().stack(&copies, map.size).unwrap();
        let network = task.model().classifier(Task::Classify).unwrap();
        let mean = network.gradients(&images, &[9; 3]).unwrap().mean(0).unwrap();
        let want = mean.abs().unwrap().max(0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = want.iter().copied().fold(0.0, f32::max);
        for (i, (got, want)) in map.values.iter().zip(&want).enumerate() {
            assert!((got - want).abs() < 1e-4 * largest, "{i}: {got}, not {want}");
        }
    }

    #[test]
    fn work_ends_where_it_is_broken_off() {
        let task = task(SmoothGrad { samples: 1000, together: 2, ..SmoothGrad::default() });
        let image = image::open("assets/nine.png").unwrap().into_rgb8();
        let mut calls = 0;
        let stopped = task.run(&image, |_| {
            calls += 1;
            if calls < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(stopped, Err(TaskError::Stopped)) && calls == 2, "{calls} calls");
    }

    #[test]
    fn a_map_of_a_class_is_about_that_class() {
        let options = LoadOptions { gradients: true, ..LoadOptions::default() };
        for method in
            [Method::GradCam, Method::SmoothGrad(SmoothGrad { samples: 1, ..SmoothGrad::default() })]
        {
            let model =
                Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, &options).unwrap();
            let chosen = SaliencyOptions { class: Some(4), ..SaliencyOptions::default() };
            let task = Saliency::new(model, method, &chosen).unwrap();
            let image = image::open("assets/nine.png").unwrap().into_rgb8();
            let map = task.run(&image, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((map.class.index, map.class.label.as_str()), (4, "4"));
            assert!(map.class.score < 0.1, "{}", map.class.score);
            assert!(map.values.iter().all(|x| *x >= 0.0) && map.values.iter().any(|x| *x > 0.0));
        }
    }
}
