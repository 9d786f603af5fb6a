//! Classification: the most probable classes of an image.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use image::RgbImage;
use nat_convert::recipe::Scores;
use nat_convert::zoo::Task;

use super::image_task::all;
use super::{ImageTask, Model, TaskError};
use crate::images::{CenterCrop, RgbPixels};
use crate::layers::softmax::likeliest;
use crate::results::Scored;

/// A classifier with its preprocessing and its labels.
pub struct Classify {
    model: Arc<Model>,
    crop: CenterCrop,
    labels: Vec<String>,
    has_names: bool,
    top_k: usize,
}

/// What a caller may choose; `None` takes what belongs to the model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClassifyOptions {
    /// Side of the square input in pixels.
    pub resolution: Option<usize>,
    /// Share of the resized short side that the crop keeps.
    pub crop_pct: Option<f64>,
    /// Names of the classes, one for each.
    pub labels: Option<Vec<String>>,
    /// How many classes an answer has: 5, or as many as there are.
    pub top_k: Option<usize>,
}

impl Classify {
    /// Makes a task of a model, which other tasks may share: a `Model`, or an `Arc` of one.
    ///
    /// # Errors
    /// When the model is no classifier, or the options do not suit it.
    pub fn new(model: impl Into<Arc<Model>>, options: &ClassifyOptions) -> Result<Self, TaskError> {
        let model = model.into();
        let head = &model.metadata.architecture.head;
        let (Some(Task::Classify), Some(classes)) = (head.task(), head.classes()) else {
            return Err(model.other_task(Task::Classify));
        };
        let crop = model.center_crop(options.resolution, options.crop_pct)?;
        let names = options.labels.clone().or_else(|| model.metadata.labels.clone());
        let has_names = names.is_some();
        let labels = names.unwrap_or_else(|| (0..classes).map(|index| index.to_string()).collect());
        if labels.len() != classes {
            return Err(TaskError::Labels { model: model.name.clone(), given: labels.len(), classes });
        }
        Ok(Self { crop, labels, has_names, top_k: options.top_k.unwrap_or(5), model })
    }

    /// The model, which other tasks may share.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Names of the classes; their indices where nothing names them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether the model or the options name the classes.
    pub fn has_names(&self) -> bool {
        self.has_names
    }

    /// The class that `name` stands for: an index, or else a label, but for case if none is the same.
    ///
    /// # Errors
    /// When it is neither, or the label of several classes.
    pub fn class_named(&self, name: &str) -> Result<usize, TaskError> {
        let model = || self.model.name.clone();
        let classes = self.labels.len();
        let index = name.parse().ok();
        if let Some(index) = index.filter(|&index| index < classes) {
            return Ok(index);
        }
        let those = |same: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..classes).filter(|&index| same(&self.labels[index])).collect()
        };
        let mut found = those(&|label| label == name);
        if found.is_empty() {
            let lower = name.to_lowercase();
            found = those(&|label| label.to_lowercase() == lower);
        }
        match (found.as_slice(), index) {
            (&[index], _) => Ok(index),
            ([], Some(class)) => Err(TaskError::Class { model: model(), class, classes }),
            ([], None) => {
                let nearest = if self.has_names { self.nearest(name) } else { Vec::new() };
                Err(TaskError::ClassName { model: model(), name: name.to_owned(), classes, nearest })
            }
            _ => Err(TaskError::Ambiguous { model: model(), name: name.to_owned(), indices: found }),
        }
    }

    /// The labels that are most like `name`.
    fn nearest(&self, name: &str) -> Vec<String> {
        const OFFERED: usize = 3;
        // Longer names are no class's; comparing takes the product of the lengths.
        const COMPARED: usize = 64;
        let beginning = |text: &str| text.chars().take(COMPARED).collect::<String>().to_lowercase();
        let name = beginning(name);
        let likeness = |label: &String| {
            let label = beginning(label);
            let within = !name.is_empty() && label.contains(&name);
            strsim::normalized_levenshtein(&name, &label) + f64::from(u8::from(within))
        };
        let mut labels: Vec<(f64, &String)> =
            self.labels.iter().map(|label| (likeness(label), label)).collect();
        labels.sort_by(|a, b| b.0.total_cmp(&a.0));
        labels.dedup_by(|a, b| a.1 == b.1);
        labels.into_iter().take(OFFERED).map(|(_, label)| label.clone()).collect()
    }

    /// How images become inputs.
    pub fn crop(&self) -> &CenterCrop {
        &self.crop
    }

    /// The most probable classes of each image, highest score first.
    ///
    /// # Errors
    /// When the network can't be computed at this resolution, or overflows.
    pub fn run(&self, images: &[RgbImage]) -> Result<Vec<Vec<Scored>>, TaskError> {
        all(self, &images.iter().map(|image| self.prepare(image)).collect::<Vec<_>>())
    }

    fn top(&self, logits: &[f32]) -> Result<Vec<Scored>, TaskError> {
        let scores = self.scores(logits)?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // The sort is stable: of equal scores the lower index comes first.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(self.top_k);
        Ok(order.into_iter().map(|index| self.scored(index, &scores)).collect())
    }

    /// `class`, or the most probable one where it is `None`.
    pub(super) fn one(&self, logits: &[f32], class: Option<usize>) -> Result<Scored, TaskError> {
        let scores = self.scores(logits)?;
        Ok(self.scored(class.unwrap_or_else(|| likeliest(logits)), &scores))
    }

    fn scores(&self, logits: &[f32]) -> Result<Vec<f64>, TaskError> {
        let scores = match self.model.metadata.architecture.recipe.scores {
            Scores::Softmax => softmax(logits),
            Scores::Sigmoid => sigmoid(logits),
        };
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(TaskError::NotFinite { model: self.model.name.clone() });
        }
        Ok(scores)
    }

    fn scored(&self, index: usize, scores: &[f64]) -> Scored {
        Scored { index, label: self.labels[index].clone(), score: scores[index] as f32 }
    }
}

impl ImageTask for Classify {
    /// [3, resolution, resolution], normalised.
    type Input = Vec<f32>;
    /// The most probable classes, highest score first.
    type Output = Vec<Scored>;

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
        let network = self.model.classifier(Task::Classify)?;
        let values: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let logits = self
            .model
            .stack(&values, [self.crop.resolution(); 2])
            .and_then(|images| network.forward(&images)?.to_vec2::<f32>())
            .map_err(|error| self.model.compute_error(error))?;
        let _ = watch(inputs.len());
        Ok(logits.iter().map(|logits| self.top(logits)).collect())
    }
}

/// The probability of each class by itself; of what is no number, none.
fn sigmoid(logits: &[f32]) -> Vec<f64> {
    // An infinite logit has a probability, and says that the network overflowed.
    let one = |&x: &f32| if x.is_finite() { 1.0 / (1.0 + (-f64::from(x)).exp()) } else { f64::NAN };
    logits.iter().map(one).collect()
}

/// Probabilities, computed in f64 so that they add up.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| (f64::from(x) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_own_probability() {
        let scores = sigmoid(&[0.0, 3f32.ln(), -100.0, 100.0]);
        for (score, expected) in scores.iter().zip([0.5, 0.75, 0.0, 1.0]) {
            assert!((score - expected).abs() < 1e-7, "{scores:?}");
        }
        assert!([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].iter().all(|&x| sigmoid(&[x])[0].is_nan()));
    }

    #[test]
    fn softmax_is_stable_and_sums_to_one() {
        for (logits, expected) in [
            (&[0.0, 0.0][..], &[0.5, 0.5][..]),
            (&[1000.0, 1000.0 + 3f32.ln()], &[0.25, 0.75]),
            (&[-1e30, 1e30], &[0.0, 1.0]),
        ] {
            let scores = softmax(logits);
            for (score, expected) in scores.iter().zip(expected) {
                assert!((score - expected).abs() < 1e-4, "{logits:?}: {scores:?}");
            }
            assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert!(softmax(&[f32::NAN, 0.0]).iter().any(|score| score.is_nan()));
        assert!(softmax(&[f32::INFINITY, 0.0]).iter().any(|score| score.is_nan()));
    }
}
