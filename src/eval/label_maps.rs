//! Label maps: the images of a dataset with their classes, and mean intersection over union.
//!
//! What is counted is summed by the crate `hotcoco`, which says what mmsegmentation says.

use std::collections::BTreeMap;

use hotcoco::metrics::is_computed;
use hotcoco::metrics::semantic::{ClassCounts, PixelConfusion, semantic_scores};

use super::DatasetError;
pub use super::label_files::{LabelImage, read_labels};
pub use super::label_pairs::{LabelIds, LabelPair, LabelPairs, pairs, prediction_of};
use crate::results::{ClassScores, PixelMetrics};

/// The most classes that are counted: their table has a cell for every two of them.
pub const MOST_CLASSES: usize = 4096;

/// What the values of label maps mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelRules {
    /// How many classes there are; values from 0 on.
    pub classes: usize,
    /// Whether 0 is no class and 1 the first one, in the dataset's label maps; predictions are not shifted.
    pub reduce_zero_label: bool,
    /// The value of pixels that don't count.
    pub ignore: u16,
}

impl LabelRules {
    /// `classes` classes, where 255 doesn't count.
    pub fn new(classes: usize, reduce_zero_label: bool) -> Self {
        Self { classes, reduce_zero_label, ignore: 255 }
    }

    /// The class of a value of the dataset's; `None` where it doesn't count.
    fn class(self, value: u16) -> Option<u16> {
        if value == self.ignore {
            return None;
        }
        let class = if self.reduce_zero_label { value.checked_sub(1)? } else { value };
        (class != self.ignore).then_some(class)
    }
}

/// How many pixels of an image have a class, and which one was predicted: true class, predicted class or the number of
/// classes where none was, pixels.
pub type SparseCount = (u16, u16, u64);

/// Pixels by their class and the one that was predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelCounts {
    rules: LabelRules,
    confusion: PixelConfusion,
}

impl PixelCounts {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When there is no class, or more than [`MOST_CLASSES`].
    pub fn new(rules: LabelRules) -> Result<Self, DatasetError> {
        if !(1..=MOST_CLASSES).contains(&rules.classes) {
            let why = format!("{} of them can't be counted; from 1 to {MOST_CLASSES} can", rules.classes);
            return Err(DatasetError { file: "classes".to_owned(), why });
        }
        Ok(Self { rules, confusion: PixelConfusion::with_unlabeled_pred(rules.classes) })
    }

    /// The rules that it counts by.
    pub fn rules(&self) -> LabelRules {
        self.rules
    }

    /// Counts an image, and says what it counted, so that a run can go on where it ended and the parts of one can be
    /// put together. Without a prediction all its pixels are missed; so are those that are predicted to be
    /// [`LabelRules::ignore`]. Of an error nothing is counted.
    ///
    /// # Errors
    /// When the two are not of one size, or have a value that is no class.
    pub fn add(
        &mut self,
        truth: &LabelImage,
        predicted: Option<&LabelImage>,
    ) -> Result<Vec<SparseCount>, DatasetError> {
        let sparse = self.rules.count(truth, predicted)?;
        self.add_known(&sparse);
        Ok(sparse)
    }

    /// Counts what [`add`](Self::add) said of an image, or of several.
    ///
    /// # Errors
    /// When it is of other classes; nothing is counted then.
    pub fn add_sparse(&mut self, sparse: &[SparseCount]) -> Result<(), DatasetError> {
        let classes = self.rules.classes;
        for &(class, predicted, _) in sparse {
            if usize::from(class) >= classes || usize::from(predicted) > classes {
                let why = format!(
                    "pixels of class {class} that are predicted to be {predicted} are not of {classes} classes"
                );
                return Err(DatasetError { file: "counts".to_owned(), why });
            }
        }
        self.add_known(sparse);
        Ok(())
    }

    /// Counts what another one has counted, as of another part of the images.
    ///
    /// # Errors
    /// When it counted by other rules.
    pub fn merge(&mut self, other: &Self) -> Result<(), DatasetError> {
        if self.rules != other.rules {
            let why = format!("{:?} and {:?} can't be put together", self.rules, other.rules);
            return Err(DatasetError { file: "counts".to_owned(), why });
        }
        self.confusion.add(&other.confusion);
        Ok(())
    }

    fn add_known(&mut self, sparse: &[SparseCount]) {
        for &(class, predicted, pixels) in sparse {
            self.confusion.add_count(class.into(), predicted.into(), pixels);
        }
    }

    /// The scores over all that was counted.
    pub fn metrics(&self) -> PixelMetrics {
        let scores = self.confusion.scores();
        PixelMetrics {
            mean_iou: known(scores.miou),
            mean_accuracy: known(scores.macc),
            all_accuracy: known(scores.aacc),
            iou: scores.per_class.iter().map(|class| known(class.iou)).collect(),
            accuracy: scores.per_class.iter().map(|class| known(class.acc)).collect(),
        }
    }

    /// The scores of each class, `IoU` and `Acc`, fractions from 0 to 1; `labels` are their names, and numbers stand
    /// where there are none.
    pub fn class_scores(&self, labels: &[String]) -> Vec<ClassScores> {
        let classes = self.confusion.all_class_counts().into_iter().enumerate();
        let scores = |(index, counts): (usize, ClassCounts)| ClassScores {
            index,
            label: labels.get(index).cloned().unwrap_or_else(|| index.to_string()),
            count: counts.gt_area,
            scores: BTreeMap::from([("IoU".to_owned(), counts.iou()), ("Acc".to_owned(), counts.acc())]),
        };
        classes.map(scores).collect()
    }
}

/// The mean intersection over union of an image, over the classes that are there or predicted; `None` where no pixel
/// counts. `sparse` is what [`PixelCounts::add`] says.
pub fn image_iou(sparse: &[SparseCount], rules: LabelRules) -> Option<f64> {
    let mut classes: BTreeMap<u16, ClassCounts> = BTreeMap::new();
    for &(class, predicted, pixels) in sparse {
        let counts = classes.entry(class).or_default();
        counts.gt_area += pixels;
        counts.tp += if class == predicted { pixels } else { 0 };
        if usize::from(predicted) < rules.classes {
            classes.entry(predicted).or_default().pred_area += pixels;
        }
    }
    known(semantic_scores(&classes.into_values().collect::<Vec<_>>()).miou)
}

impl LabelRules {
    fn count(
        self,
        truth: &LabelImage,
        predicted: Option<&LabelImage>,
    ) -> Result<Vec<SparseCount>, DatasetError> {
        let wrong = |image: &LabelImage, why| Err(DatasetError { file: image.name.clone(), why });
        // One class more than there are: `PixelCounts::new` has seen that there is room.
        let (classes, none) = (self.classes, self.classes as u16);
        if let Some(predicted) = predicted
            && predicted.size != truth.size
        {
            let [[width, height], [wanted_width, wanted_height]] = [predicted.size, truth.size];
            let why = format!(
                "{width}x{height} pixels, and {} has {wanted_width}x{wanted_height}; a prediction for the image's size is \
                 wanted",
                truth.name
            );
            return wrong(predicted, why);
        }
        let mut counts: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        let mut values = truth.values.iter().enumerate().peekable();
        while let Some((at, &value)) = values.next() {
            // Neighbours are mostly alike.
            let guess = |at: usize| predicted.map(|image| image.values[at]);
            let mut run = 1;
            while values.next_if(|&(next, other)| *other == value && guess(next) == guess(at)).is_some() {
                run += 1;
            }
            let Some(class) = self.class(value) else { continue };
            if usize::from(class) >= classes {
                let advice = if usize::from(value) == classes && !self.reduce_zero_label {
                    "; in ADE20K's files 0 is no class, which reduce_zero_label is for"
                } else {
                    ""
                };
                let why = format!(
                    "its label {value} is none of {classes} classes, nor {}, which is ignored{advice}",
                    self.ignore
                );
                return wrong(truth, why);
            }
            let found = match predicted {
                Some(image) => {
                    let value = image.values[at];
                    if usize::from(value) < classes {
                        value
                    } else if value == self.ignore {
                        none
                    } else {
                        let why = format!(
                            "its label {value} is none of {classes} classes, which count from 0 in predictions"
                        );
                        return wrong(image, why);
                    }
                }
                None => none,
            };
            *counts.entry((class, found)).or_default() += run;
        }
        Ok(counts.into_iter().map(|((class, found), pixels)| (class, found, pixels)).collect())
    }
}

/// A number, unless it is what stands where there is none.
fn known(value: f64) -> Option<f64> {
    is_computed(value).then_some(value)
}
