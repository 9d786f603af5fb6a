//! Top-1 and top-5 accuracy, as timm's `validate.py` counts them, also by reassessed labels.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::error::DatasetError;
use crate::results::{ClassScores, JudgedImage, TopAccuracy};

/// How many of the most probable classes count for `top5`.
pub const TOP: usize = 5;

/// How ImageNet's validation images begin, which the list is about: their numbers follow.
const VALIDATION: &str = "ILSVRC2012_val_";

/// Longest file of reassessed labels that is read: ImageNet's takes half a megabyte.
const LONGEST: u64 = 256 << 20;

/// Reassessed labels of ImageNet's validation images ("ReaL", arXiv 2006.07159): several for an image, or none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ReassessedLabels {
    /// Of `ILSVRC2012_val_00000001.JPEG` and the following ones.
    Numbered(Vec<Vec<usize>>),
    /// By file name.
    Named(HashMap<String, Vec<usize>>),
}

impl ReassessedLabels {
    /// Reads `real.json`: a list with a list of classes for each of ImageNet's validation images, or an object of file
    /// names and such lists.
    ///
    /// # Errors
    /// When it can't be read or is neither.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let failed = |error: &dyn std::fmt::Display| DatasetError::of(path, error);
        let length = fs::metadata(path).map_err(|error| failed(&error))?.len();
        let text = if length > LONGEST { Ok(String::new()) } else { fs::read_to_string(path) };
        serde_json::from_str(&text.map_err(|error| failed(&error))?).map_err(|_| {
            failed(&"neither a JSON list of lists of classes nor an object of them by file name")
        })
    }

    /// The classes of an image, by the last part of its path.
    ///
    /// # Errors
    /// When the file has none for it, not even an empty list.
    pub fn of(&self, path: &Path, file: &Path) -> Result<&[usize], DatasetError> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let classes = match self {
            Self::Named(classes) => classes.get(&*name),
            Self::Numbered(classes) => {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                let number = stem.strip_prefix(VALIDATION).and_then(|digits| digits.parse::<usize>().ok());
                number.and_then(|number| classes.get(number.checked_sub(1)?))
            }
        };
        let none = || DatasetError::new(path, format!("has no labels of {name}"));
        classes.map(Vec::as_slice).ok_or_else(none)
    }
}

/// How many images of a class there are, and how many of them were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    images: u64,
    top1: u64,
    top5: u64,
}

impl Told {
    fn count(&mut self, rank: Option<usize>) {
        self.images += 1;
        self.top1 += u64::from(rank == Some(0));
        self.top5 += u64::from(rank.is_some_and(|rank| rank < TOP));
    }

    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.top1 += other.top1;
        self.top5 += other.top5;
    }

    /// In percent.
    fn percent(&self, of: u64) -> Option<f64> {
        (self.images > 0).then(|| 100.0 * of as f64 / self.images as f64)
    }
}

/// Counts images that are told, by class.
#[derive(Clone, Debug, Default)]
pub struct TopCounts {
    classes: BTreeMap<usize, Told>,
    real: Option<Told>,
    pairs: BTreeMap<(usize, Option<usize>), u64>,
    /// Whether some answers have fewer classes than count for `top5`.
    fewer: bool,
}

impl TopCounts {
    /// Says that some answers have fewer classes than [`TOP`], of more: then there is no `top5`.
    pub fn has_fewer(&mut self) {
        self.fewer = true;
    }

    /// Counts an image.
    pub fn add(&mut self, image: &JudgedImage) {
        let rank = |right: &dyn Fn(usize) -> bool| image.top.iter().position(|scored| right(scored.index));
        self.classes.entry(image.class).or_default().count(rank(&|index| index == image.class));
        let answer = image.top.first().map(|scored| scored.index);
        *self.pairs.entry((image.class, answer)).or_default() += 1;
        if let Some(real) = &image.real {
            let told = self.real.get_or_insert_default();
            // What nobody could name counts neither way.
            if !real.is_empty() {
                told.count(rank(&|index| real.contains(&index)));
            }
        }
    }

    /// The shares of all images. Of none they are zero.
    pub fn accuracy(&self) -> TopAccuracy {
        let mut all = Told::default();
        self.classes.values().for_each(|told| all.add(*told));
        let real = |of: fn(&Told) -> u64| self.real.and_then(|told| told.percent(of(&told)));
        let five = |share: Option<f64>| share.filter(|_| !self.fewer);
        TopAccuracy {
            top1: all.percent(all.top1).unwrap_or_default(),
            top5: five(Some(all.percent(all.top5).unwrap_or_default())),
            real_top1: real(|told| told.top1),
            real_top5: five(real(|told| told.top5)),
            real_images: self.real.map(|told| told.images as usize),
        }
    }

    /// The shares of each class of which there are images.
    pub fn class_scores(&self, labels: &[String]) -> Vec<ClassScores> {
        let scores = |(&index, told): (&usize, &Told)| ClassScores {
            index,
            label: labels.get(index).cloned().unwrap_or_else(|| index.to_string()),
            count: told.images,
            scores: [
                ("top1".to_owned(), told.percent(told.top1)),
                ("top5".to_owned(), told.percent(told.top5).filter(|_| !self.fewer)),
            ]
            .into(),
        };
        self.classes.iter().map(scores).collect()
    }

    /// How many images of a class were taken for which; `None` of those that have no answer.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, Option<usize>, u64)> {
        self.pairs.iter().map(|(&(class, answer), &images)| (class, answer, images))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Scored;

    fn image(class: usize, top: &[usize], real: Option<&[usize]>) -> JudgedImage {
        let scored = |&index: &usize| Scored { index, label: index.to_string(), score: 0.1 };
        JudgedImage {
            image: String::new(),
            model: String::new(),
            run: String::new(),
            class,
            right: top.first() == Some(&class),
            top: top.iter().map(scored).collect(),
            real: real.map(<[usize]>::to_vec),
        }
    }

    #[test]
    fn images_count_where_their_class_is_among_the_first() {
        let mut counts = TopCounts::default();
        assert_eq!(counts.accuracy().top1, 0.0);
        for image in [
            image(3, &[3, 1, 2, 4, 5], Some(&[1])),
            image(3, &[1, 2, 4, 5, 3], Some(&[3, 9])),
            image(3, &[1, 2, 4, 5, 6, 3], Some(&[])),
            // One that failed.
            image(0, &[], Some(&[0])),
        ] {
            counts.add(&image);
        }
        let accuracy = counts.accuracy();
        assert_eq!((accuracy.top1, accuracy.top5), (25.0, Some(50.0)));
        let third = 100.0 / 3.0;
        assert_eq!((accuracy.real_top1, accuracy.real_top5), (Some(0.0), Some(2.0 * third)));
        assert_eq!(accuracy.real_images, Some(3));
        let classes = counts.class_scores(&["zero".to_owned()]);
        assert_eq!((&*classes[0].label, classes[0].count, classes[0].scores["top5"]), ("zero", 1, Some(0.0)));
        assert_eq!((&*classes[1].label, classes[1].count, classes[1].scores["top1"]), ("3", 3, Some(third)));
        counts.has_fewer();
        let accuracy = counts.accuracy();
        assert_eq!((accuracy.top1, accuracy.top5, accuracy.real_top5), (25.0, None, None));
        let pairs: Vec<_> = counts.pairs().collect();
        assert_eq!(pairs, [(0, None, 1), (3, Some(1), 2), (3, Some(3), 1)]);
    }

    #[test]
    fn reassessed_labels_are_found_by_number_or_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("real.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            ReassessedLabels::open(&path)
        };
        let labels = read("[[65], [], [1, 2]]").unwrap();
        let of = |name: &str| labels.of(&path, Path::new(name)).map(<[usize]>::to_vec);
        assert_eq!(of("val/n01/ILSVRC2012_val_00000003.JPEG").unwrap(), [1, 2]);
        assert_eq!(of("ILSVRC2012_val_00000002.JPEG").unwrap(), [0; 0]);
        for none in
            ["ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00000004.JPEG", "n01440764_2.JPEG", "cat.png"]
        {
            let error = of(none).unwrap_err().to_string();
            assert!(error.ends_with(&format!("real.json: has no labels of {none}")), "{error}");
        }
        let labels = read(r#"{"cat.png": [7]}"#).unwrap();
        assert_eq!(labels.of(&path, Path::new("a/cat.png")).unwrap(), [7]);
        for wrong in ["", "[1]", "{\"a\": 1}", "[[-1]]"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("neither a JSON list of lists"), "{error}");
        }
    }
}
