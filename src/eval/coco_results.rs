//! What was found on a dataset's images, in COCO's terms.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use hotcoco::mask::{RleRef, rle_to_string};
use hotcoco::{Annotation, COCO, Segmentation};
use rayon::prelude::*;

use super::DatasetError;
use super::coco_categories::CategoryNames;
use super::coco_files::{CocoImage, ResultRecord};
use crate::results::CocoResult;

/// Objects that were found on the images of a dataset.
#[derive(Clone)]
pub struct CocoResults {
    coco: Arc<COCO>,
    boxes: bool,
    masks: bool,
    other_categories: OtherCategories,
    known_categories: bool,
}

/// Results of categories that a dataset doesn't have.
#[derive(Clone, Debug, Default)]
struct OtherCategories {
    count: usize,
    /// The category of the first.
    first: Option<String>,
}

impl OtherCategories {
    fn add(&mut self, category: String) {
        self.count += 1;
        self.first.get_or_insert(category);
    }
}

impl CocoResults {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.annotations().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.annotations().is_empty()
    }

    /// Whether some have a box.
    pub fn has_boxes(&self) -> bool {
        self.boxes
    }

    /// Whether some have a mask.
    pub fn has_masks(&self) -> bool {
        self.masks
    }

    /// How many more there were of categories that the dataset doesn't have. They don't count, as with pycocotools.
    pub fn other_categories(&self) -> usize {
        self.other_categories.count
    }

    /// Whether any result is of a category of the dataset, be it of an image that doesn't count.
    pub fn has_known_categories(&self) -> bool {
        self.known_categories
    }

    /// The category of the first of these: its name, or its number.
    pub fn first_other_category(&self) -> Option<&str> {
        self.other_categories.first.as_deref()
    }

    pub(super) fn coco(&self) -> Arc<COCO> {
        self.coco.clone()
    }

    pub(super) fn dataset(&self) -> &COCO {
        &self.coco
    }

    pub(super) fn annotations(&self) -> &[Annotation] {
        &self.coco.dataset.annotations
    }
}

/// The images that a file of annotations lists.
pub struct DatasetImages {
    by_id: HashMap<u64, CocoImage>,
    /// By the last part of their names.
    by_name: HashMap<String, Vec<u64>>,
}

impl DatasetImages {
    pub fn new(images: Vec<CocoImage>) -> Self {
        let mut by_name: HashMap<String, Vec<u64>> = HashMap::new();
        for image in &images {
            by_name.entry(last(&image.file_name).to_owned()).or_default().push(image.id);
        }
        Self { by_id: images.into_iter().map(|image| (image.id, image)).collect(), by_name }
    }

    /// The image that a path leads to: the one of this name, or of several the one whose folders the path ends with.
    fn named(&self, path: &str) -> Option<u64> {
        let ids = self.by_name.get(last(path))?;
        let in_folders = |id: &&u64| {
            let name = self.by_id.get(*id).map_or("", |image| image.file_name.as_str());
            path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(['/', '\\']))
        };
        match ids.as_slice() {
            [one] => Some(*one),
            several => several.iter().find(in_folders).copied(),
        }
    }
}

/// A path's last part.
fn last(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Results while they are read.
pub struct Collected<'a> {
    path: &'a Path,
    truth: &'a Arc<COCO>,
    images: &'a DatasetImages,
    categories: CategoryNames<'a>,
    /// Whether categories have names rather than their numbers alone.
    named: bool,
    /// With the place in the file of each, from 0.
    found: Vec<(usize, Annotation)>,
    /// The same of classes that have no name, with their places among a model's.
    unnamed: Vec<(usize, usize, Annotation)>,
    /// The last place of such a class.
    last_place: Option<usize>,
    number: usize,
    other_categories: OtherCategories,
    known_categories: bool,
    /// Results of images that the dataset doesn't have, and the first of these images.
    strangers: Option<(usize, String)>,
}

impl<'a> Collected<'a> {
    /// Nothing yet of the results at `path`; `truth` has the images that count, `images` all that there are.
    pub fn new(path: &'a Path, truth: &'a Arc<COCO>, images: &'a DatasetImages) -> Self {
        // A category without a name has its number for one.
        let categories = truth.dataset.categories.iter();
        let categories = categories.filter(|category| category.name != category.id.to_string());
        let named = categories.clone().next().is_some();
        Self {
            named,
            path,
            truth,
            images,
            categories: CategoryNames::new(categories.map(|category| (category.name.as_str(), category.id))),
            found: Vec::new(),
            unnamed: Vec::new(),
            last_place: None,
            number: 0,
            known_categories: false,
            other_categories: OtherCategories::default(),
            strangers: None,
        }
    }

    /// Adds a result, or the results of an image.
    ///
    /// # Errors
    /// When it can't be one.
    pub fn record(&mut self, record: ResultRecord) -> Result<(), DatasetError> {
        if record.annotations.is_some() && record.image_id.is_none() {
            return Err(self.error("a dataset's annotations; COCO's list of results is wanted here"));
        }
        let Some(detections) = record.detections else {
            let Some(image) = record.image_id else { return Err(self.lacks("image_id")) };
            // What others write beside COCO's names means what they like.
            return self.object(image, ResultRecord { label: None, ..record });
        };
        let by_name = |name: &str| self.images.named(name);
        let image = record.image_id.or_else(|| by_name(record.image.as_deref()?));
        match (image, record.image) {
            (Some(image), _) => detections.into_iter().try_for_each(|object| self.object(image, object)),
            (None, Some(name)) => {
                self.stranger(&name);
                Ok(())
            }
            (None, None) => Err(self.lacks("image_id")),
        }
    }

    /// Adds a result of ours.
    ///
    /// # Errors
    /// When it can't be one.
    pub fn result(&mut self, result: CocoResult) -> Result<(), DatasetError> {
        let mask = result.segmentation.map(|mask| {
            // A mask that is larger than that is not of the image's size.
            let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
            Segmentation::CompressedRle { size: mask.size.map(side), counts: mask.counts }
        });
        let record = ResultRecord {
            category_id: Some(result.category_id as u64),
            bbox: Some(result.bbox.map(as_written)),
            score: Some(as_written(result.score)),
            segmentation: mask,
            ..ResultRecord::default()
        };
        self.object(result.image_id, record)
    }

    fn object(&mut self, image_id: u64, record: ResultRecord) -> Result<(), DatasetError> {
        let named = record.label.as_deref().and_then(|label| self.categories.find(label));
        // A class without a name is called by its place among the model's.
        let place = record.index.filter(|index| record.label.as_ref() == Some(&index.to_string()));
        let (category, called) = match (named, record.label, record.category_id) {
            (None, Some(label), _) if self.named || place.is_some() => (None, label),
            (Some(id), ..) | (None, _, Some(id)) => {
                (Some(id).filter(|id| self.truth.get_cat(*id).is_some()), id.to_string())
            }
            (None, _, None) => return Err(self.lacks("category_id")),
        };
        let Some(score) = record.score else { return Err(self.lacks("score")) };
        if record.bbox.is_none() && record.segmentation.is_none() {
            return Err(self.lacks("bbox and segmentation"));
        }
        self.known_categories |= category.is_some();
        let place = place.filter(|_| category.is_none()).and_then(|place| usize::try_from(place).ok());
        self.last_place = self.last_place.max(place);
        if !self.images.by_id.contains_key(&image_id) {
            self.stranger(&image_id.to_string());
        } else if self.truth.get_img(image_id).is_some() {
            let found = Annotation {
                image_id,
                category_id: category.unwrap_or_default(),
                bbox: record.bbox,
                segmentation: record.segmentation,
                score: Some(score),
                ..Annotation::default()
            };
            match (category, place) {
                (Some(_), _) => self.found.push((self.number, found)),
                (None, Some(place)) => self.unnamed.push((self.number, place, found)),
                (None, None) => self.other_categories.add(called),
            }
        }
        self.number += 1;
        Ok(())
    }

    /// Classes without names are the categories in their order, as far as there can be as many of them.
    fn place_unnamed(&mut self) {
        let categories = &self.truth.dataset.categories;
        let ordered = !self.known_categories && self.last_place.is_some_and(|last| last < categories.len());
        self.known_categories |= ordered;
        for (number, place, found) in std::mem::take(&mut self.unnamed) {
            match categories.get(place).filter(|_| ordered) {
                Some(category) => self.found.push((number, Annotation { category_id: category.id, ..found })),
                None => self.other_categories.add(place.to_string()),
            }
        }
        // Of results that are alike the first counts.
        self.found.sort_by_key(|(number, _)| *number);
    }

    fn stranger(&mut self, image: &str) {
        self.strangers.get_or_insert_with(|| (0, image.to_owned())).0 += 1;
    }

    /// What has been collected.
    ///
    /// # Errors
    /// When images are not of the dataset, or masks are damaged or not of their image's size.
    pub fn finish(mut self) -> Result<CocoResults, DatasetError> {
        self.place_unnamed();
        if let Some((count, first)) = &self.strangers {
            return Err(self.error(&format!(
                "{count} of its results are of images that the annotations don't list, the first of image {first}; \
                 use the annotations of these images"
            )));
        }
        let boxes = self.all_or_none("bbox", |found| found.bbox.is_some());
        let masks = self.all_or_none("segmentation", |found| found.segmentation.is_some());
        // As with pycocotools the first result says what sizes are measured by.
        let by_boxes = self.found.first().is_some_and(|(_, found)| found.bbox.is_some());
        let (path, truth) = (self.path, self.truth);
        let wrong = |number: usize, why: String| {
            DatasetError::new(path, format!("its result {number} (from 0) has {why}"))
        };
        let completed: Result<Vec<Annotation>, DatasetError> = self
            .found
            .into_par_iter()
            .map(|(number, found)| complete(found, truth, by_boxes).map_err(|why| wrong(number, why)))
            .collect();
        let completed = completed?;
        let (boxes, masks) = (boxes?, masks?);
        let loaded = self.truth.load_res_anns(completed);
        let coco = loaded.map_err(|error| DatasetError::new(path, error.to_string()))?;
        Ok(CocoResults {
            coco: Arc::new(coco),
            boxes,
            masks,
            other_categories: self.other_categories,
            known_categories: self.known_categories,
        })
    }

    /// Whether all results have something, rather than none.
    ///
    /// # Errors
    /// When only some have: the others would count as nothing.
    fn all_or_none(&self, what: &str, has: impl Fn(&Annotation) -> bool) -> Result<bool, DatasetError> {
        let with = self.found.iter().any(|(_, found)| has(found));
        match self.found.iter().find(|(_, found)| with && !has(found)) {
            Some((number, _)) => {
                Err(self.error(&format!("its result {number} (from 0) has no {what}, and others have one")))
            }
            None => Ok(with),
        }
    }

    fn lacks(&self, what: &str) -> DatasetError {
        let number = self.number;
        self.error(&format!(
            "its result {number} (from 0) has no {what}; COCO's list of results is wanted here"
        ))
    }

    fn error(&self, why: &str) -> DatasetError {
        DatasetError::new(self.path, why)
    }
}

/// A result with the size that counts, where it doesn't follow from the box.
fn complete(mut found: Annotation, truth: &COCO, by_boxes: bool) -> Result<Annotation, String> {
    let [width, height] = truth.get_img(found.image_id).map_or([0; 2], |image| [image.width, image.height]);
    let Some(mask) = &found.segmentation else {
        found.area = found.bbox.map(|[_, _, width, height]| width * height);
        return Ok(found);
    };
    if let Some(RleRef::Compressed { h, w, .. } | RleRef::Runs { h, w, .. }) = mask.rle_ref()
        && width > 0
        && height > 0
        && [w, h] != [width, height]
    {
        return Err(format!("a mask of {w}x{h} pixels, and image {} has {width}x{height}", found.image_id));
    }
    let damaged = |error: hotcoco::Error| format!("a mask that can't be read: {error}");
    match (mask.rle_ref(), by_boxes) {
        (Some(compressed @ RleRef::Compressed { .. }), false) => {
            compressed.area().map_err(damaged)?;
        }
        (Some(runs), true) => found.area = Some(runs.area().map_err(damaged)? as f64),
        (_, true) => {
            mask.to_rle(height, width).map_err(damaged)?;
        }
        // Sizes are measured of what is compressed alone.
        (_, false) => {
            let runs = mask.to_rle(height, width).map_err(damaged)?;
            let counts = rle_to_string(&runs);
            found.segmentation = Some(Segmentation::CompressedRle { size: [runs.h, runs.w], counts });
        }
    }
    Ok(found)
}

/// The number that a reader of its shortest text finds, as of a file of results: scores are then the same.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
