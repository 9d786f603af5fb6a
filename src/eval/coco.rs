//! COCO: annotations, results, average precision.
//!
//! What is found and what counts is the crate `hotcoco`'s, which says what pycocotools says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, IouType, Segmentation};

use super::DatasetError;
use super::coco_categories::category_ids;
pub use super::coco_categories::{CategoryIds, CategoryRule};
pub use super::coco_files::{CocoCategory, CocoImage};
use super::coco_files::{TruthRecord, annotations};
pub use super::coco_results::CocoResults;
use super::coco_results::{Collected, DatasetImages};
use crate::results::{ClassScores, CocoMetrics, CocoResult, CocoSummary};

/// The objects of a dataset in COCO's format, all of them or those of some images.
#[derive(Clone)]
pub struct CocoTruth {
    path: PathBuf,
    sha256: String,
    coco: Arc<COCO>,
    images: Vec<CocoImage>,
    /// The images of the file, whatever is left of them here.
    whole: Arc<DatasetImages>,
    categories: Vec<CocoCategory>,
}

/// The scores of a run on a dataset in COCO's format.
#[derive(Clone, Debug, PartialEq)]
pub struct CocoScores {
    /// The numbers for boxes, unless no result has one, and for masks.
    pub metrics: CocoMetrics,
    /// Of every category in the file's order, which [`ClassScores::index`] counts: `AP` and `AP50` by boxes, `mask AP`
    /// and `mask AP50` by masks, fractions from 0 to 1.
    pub classes: Vec<ClassScores>,
}

impl CocoTruth {
    /// The annotations of objects at `path`, as `instances_val2017.json`.
    ///
    /// # Errors
    /// When it can't be read, is of another kind, or has no image, no category, or a number twice.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let wrong = |why: &str| Err(DatasetError::new(path, why));
        let (file, sha256) = annotations(path)?;
        if file.annotations.iter().any(|object| object.segments_info.is_some()) {
            return wrong("panoptic annotations; those of objects (instances_*.json) are wanted here");
        }
        if file.images.is_empty() {
            return wrong("it lists no images; COCO's annotations of objects are wanted here");
        }
        if file.categories.is_empty() {
            return wrong("it lists no categories; COCO's annotations of objects are wanted here");
        }
        if let Some(id) = twice(file.images.iter().map(|image| image.id)) {
            return wrong(&format!("several images have the id {id}; give each its own"));
        }
        if let Some(id) = twice(file.categories.iter().map(|category| category.id)) {
            return wrong(&format!("several categories have the id {id}; give each its own"));
        }
        let known: HashSet<u64> = file.images.iter().map(|image| image.id).collect();
        let mut objects = Vec::with_capacity(file.annotations.len());
        for (number, record) in file.annotations.into_iter().enumerate() {
            let Some(category) = record.category_id else {
                return wrong(&format!(
                    "its annotation {number} (from 0) has no category_id; annotations of objects are wanted here"
                ));
            };
            // Of images that are not listed nothing counts.
            if known.contains(&record.image_id) {
                let Some(object) = object(record, category) else {
                    return wrong(&format!(
                        "its annotation {number} (from 0) has neither a bbox nor a segmentation with one"
                    ));
                };
                objects.push(object);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            sha256,
            coco: indexed(&file.images, &file.categories, objects),
            images: file.images.clone(),
            whole: Arc::new(DatasetImages::new(file.images)),
            categories: file.categories,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of the file's bytes, in small hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(super) fn dataset(&self) -> &COCO {
        &self.coco
    }

    /// The images that count, in the file's order.
    pub fn images(&self) -> &[CocoImage] {
        &self.images
    }

    /// The categories in the file's order.
    pub fn categories(&self) -> &[CocoCategory] {
        &self.categories
    }

    /// The objects of some images alone: scores are of those. Numbers of images that aren't there don't matter.
    #[must_use]
    pub fn restrict(&self, ids: &[u64]) -> Self {
        let kept: HashSet<u64> = ids.iter().copied().collect();
        let images: Vec<CocoImage> =
            self.images.iter().filter(|image| kept.contains(&image.id)).cloned().collect();
        let objects = self.coco.dataset.annotations.iter();
        let objects = objects.filter(|object| kept.contains(&object.image_id)).cloned().collect();
        Self {
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            coco: indexed(&images, &self.categories, objects),
            images,
            whole: self.whole.clone(),
            categories: self.categories.clone(),
        }
    }

    /// Whether its objects have masks.
    pub fn has_masks(&self) -> bool {
        self.coco.dataset.annotations.iter().any(|object| match &object.segmentation {
            Some(Segmentation::Polygon(polygons)) => !polygons.is_empty(),
            mask => mask.is_some(),
        })
    }

    /// That the masks of its objects can be compared with others.
    ///
    /// # Errors
    /// When images without a size have masks that need one.
    pub fn check_masks(&self) -> Result<(), DatasetError> {
        if !self.has_masks() {
            return Ok(());
        }
        let ids: Vec<u64> = self.images.iter().map(|image| image.id).collect();
        self.coco.check_mask_dims(&ids, None).map_err(|error| self.error(&error))
    }

    /// Which category each of a model's classes is, by the name of the class.
    ///
    /// # Errors
    /// When they aren't the file's, in a line that names some that are missing.
    pub fn category_ids(&self, labels: &[String]) -> Result<CategoryIds, DatasetError> {
        category_ids(&self.categories, labels).map_err(|why| DatasetError::new(&self.path, why))
    }

    /// The results at `path`: COCO's list of results, or what `detect` writes as `json` or `jsonl`, whose images are
    /// known by their number or their name. Of images that are not among [`images`](Self::images) only those count
    /// as an error that the file of annotations doesn't list either.
    ///
    /// # Errors
    /// When it can't be read, is of another kind, has results of other images, or a result that can't be one: without
    /// a score, without a box or mask that others have, with a mask that is damaged or not of the image's size.
    pub fn results(&self, path: &Path) -> Result<CocoResults, DatasetError> {
        let mut collected = Collected::new(path, &self.coco, &self.whole);
        super::coco_files::results(path, |record| collected.record(record))?;
        collected.finish()
    }

    /// Results that are in memory, as those of [`results`](Self::results).
    ///
    /// # Errors
    /// As those of [`results`](Self::results), of the file of annotations.
    pub fn results_of(
        &self,
        list: impl IntoIterator<Item = CocoResult>,
    ) -> Result<CocoResults, DatasetError> {
        let mut collected = Collected::new(&self.path, &self.coco, &self.whole);
        list.into_iter().try_for_each(|result| collected.result(result))?;
        collected.finish()
    }

    /// The scores of results of this dataset; `masks` says whether masks are scored too, where both sides have some.
    /// An empty list scores 0 for boxes, and for masks where they are asked for.
    ///
    /// # Errors
    /// When masks can't be scored, as of images without a size.
    pub fn score(&self, results: &CocoResults, masks: bool) -> Result<CocoScores, DatasetError> {
        let empty = results.is_empty();
        let boxes = (empty || results.has_boxes()).then(|| self.evaluate(results, IouType::Bbox));
        let masks = masks && self.has_masks() && (empty || results.has_masks());
        let masks = masks.then(|| self.evaluate(results, IouType::Segm));
        let (boxes, masks) = (boxes.transpose()?, masks.transpose()?);

        let mut counts: HashMap<u64, u64> = HashMap::new();
        for object in self.coco.dataset.annotations.iter().filter(|object| !object.iscrowd) {
            *counts.entry(object.category_id).or_default() += 1;
        }
        let classes = self.categories.iter().enumerate().map(|(index, category)| {
            let mut scores = BTreeMap::new();
            for (kind, prefix) in [(&boxes, ""), (&masks, "mask ")] {
                if let Some((_, by_category)) = kind {
                    let (all, half) = by_category.get(&category.id).copied().unwrap_or_default();
                    scores.insert(format!("{prefix}AP"), all);
                    scores.insert(format!("{prefix}AP50"), half);
                }
            }
            let count = counts.get(&category.id).copied().unwrap_or(0);
            ClassScores { index, label: category.name.clone(), count, scores }
        });
        Ok(CocoScores {
            classes: classes.collect(),
            metrics: CocoMetrics {
                bbox: boxes.map(|(summary, _)| summary),
                segm: masks.map(|(summary, _)| summary),
            },
        })
    }

    /// How well each image went, to sort them by: F1 at an overlap of one half of the results above [`SURE`], by boxes
    /// or, where results have none, by masks. 1 of an image without object and result.
    ///
    /// # Errors
    /// When masks can't be scored, as of images without a size.
    pub fn image_scores(&self, results: &CocoResults) -> Result<Vec<(u64, f64)>, DatasetError> {
        let kind = if results.has_boxes() || results.is_empty() { IouType::Bbox } else { IouType::Segm };
        let sure = results.annotations().iter().filter(|found| found.score.is_some_and(|score| score > SURE));
        let sure = sure.map(|found| match kind {
            IouType::Bbox => Annotation { segmentation: None, ..found.clone() },
            _ => found.clone(),
        });
        let sure = self.coco.load_res_anns(sure.collect()).map_err(|error| self.error(&error))?;
        let mut evaluation = COCOeval::new(self.coco.clone(), sure, kind);
        evaluation.params.iou_thrs = vec![OVERLAP];
        evaluation.params.area_ranges.retain(|range| range.label == "all");
        evaluation.evaluate().map_err(|error| self.error(&error))?;
        let by_image =
            evaluation.image_diagnostics(OVERLAP, SURE).map_err(|error| self.error(&error))?.images;
        let score = |image: &CocoImage| (image.id, by_image.get(&image.id).map_or(1.0, |summary| summary.f1));
        Ok(self.images.iter().map(score).collect())
    }

    /// The twelve numbers, and by category AP and AP50.
    fn evaluate(&self, results: &CocoResults, kind: IouType) -> Result<Evaluated, DatasetError> {
        let mut evaluation = COCOeval::new(self.coco.clone(), results.coco(), kind);
        evaluation.evaluate().map_err(|error| self.error(&error))?;
        evaluation.accumulate();
        // It computes what it would print.
        evaluation.summarize_lines();
        let stats = evaluation.stats().and_then(|stats| stats.try_into().ok());
        let (Some(stats), Some(curves)) = (stats, evaluation.accumulated()) else {
            return Err(DatasetError::new(&self.path, "no scores came of it"));
        };
        let (area, most) = (evaluation.params.all_area_idx(), evaluation.params.max_det_idx());
        let half = evaluation.params.iou_thr_idx(OVERLAP);
        let mut by_category = HashMap::new();
        for (k, &category) in curves.cat_ids.iter().enumerate() {
            let mean = |thresholds: std::ops::Range<usize>| {
                let points = thresholds.flat_map(|t| (0..curves.shape.r).map(move |r| (t, r)));
                let precisions =
                    points.map(|(t, r)| curves.precision[curves.precision_idx(t, r, k, area, most)]);
                // Without an object there is no precision.
                let known: Vec<f64> = precisions.filter(|&p| hotcoco::metrics::is_computed(p)).collect();
                (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
            };
            by_category.insert(category, (mean(0..curves.shape.t), half.and_then(|t| mean(t..t + 1))));
        }
        Ok((summary(stats), by_category))
    }

    fn error(&self, error: &hotcoco::Error) -> DatasetError {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        DatasetError::new(&self.path, text)
    }
}

/// The twelve numbers, and by category AP and AP50.
type Evaluated = (CocoSummary, HashMap<u64, (Option<f64>, Option<f64>)>);

/// Results that are less probable don't count for [`CocoTruth::image_scores`]: a model gives a hundred for an image.
pub const SURE: f64 = 0.3;
/// The overlap that is enough for an image's score and for AP50.
const OVERLAP: f64 = 0.5;

fn summary(stats: [f64; 12]) -> CocoSummary {
    let [ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100, ar_small, ar_medium, ar_large] =
        stats;
    CocoSummary {
        ap,
        ap50,
        ap75,
        ap_small,
        ap_medium,
        ap_large,
        ar1,
        ar10,
        ar100,
        ar_small,
        ar_medium,
        ar_large,
    }
}

/// The twelve numbers in pycocotools' wording, a line each.
pub fn twelve_lines(summary: &CocoSummary) -> String {
    let precision = |overlap, area, value| ("Average Precision", "(AP)", overlap, area, 100, value);
    let recall = |area, most, value| ("Average Recall", "(AR)", "0.50:0.95", area, most, value);
    let lines = [
        precision("0.50:0.95", "all", summary.ap),
        precision("0.50", "all", summary.ap50),
        precision("0.75", "all", summary.ap75),
        precision("0.50:0.95", "small", summary.ap_small),
        precision("0.50:0.95", "medium", summary.ap_medium),
        precision("0.50:0.95", "large", summary.ap_large),
        recall("all", 1, summary.ar1),
        recall("all", 10, summary.ar10),
        recall("all", 100, summary.ar100),
        recall("small", 100, summary.ar_small),
        recall("medium", 100, summary.ar_medium),
        recall("large", 100, summary.ar_large),
    ];
    let line = |(what, short, overlap, area, most, value): (_, _, _, _, _, f64)| {
        format!(
            " {what:<18} {short} @[ IoU={overlap:<9} | area={area:>6} | maxDets={most:>3} ] = {value:0.3}\n"
        )
    };
    lines.into_iter().map(line).collect()
}

/// An object with a box, which is the one around its mask where the file has none.
fn object(record: TruthRecord, category_id: u64) -> Option<Annotation> {
    let bbox = record.bbox.or_else(|| box_around(record.segmentation.as_ref()?));
    Some(Annotation {
        image_id: record.image_id,
        category_id,
        bbox: Some(bbox?),
        area: record.area,
        segmentation: record.segmentation,
        iscrowd: record.iscrowd.unwrap_or(0) != 0,
        ..Annotation::default()
    })
}

/// Left edge, top edge, width and height of a mask, as COCO's boxes are of their polygons; `None` of one that is empty or
/// damaged.
fn box_around(mask: &Segmentation) -> Option<[f64; 4]> {
    let Segmentation::Polygon(polygons) = mask else {
        return mask.rle_ref()?.to_bbox().ok().filter(|[.., width, height]| width * height > 0.0);
    };
    let bounds = |first: usize| {
        let edges = polygons.iter().flat_map(|polygon| polygon.iter().skip(first).step_by(2).copied());
        let bounds: Option<[f64; 2]> = edges.fold(None, |bounds, edge| match bounds {
            None => Some([edge; 2]),
            Some([low, high]) => Some([edge.min(low), edge.max(high)]),
        });
        bounds
    };
    let ([left, right], [top, bottom]) = (bounds(0)?, bounds(1)?);
    Some([left, top, right - left, bottom - top])
}

/// Objects that can be looked up, numbered anew: in files from elsewhere numbers occur twice.
fn indexed(images: &[CocoImage], categories: &[CocoCategory], mut objects: Vec<Annotation>) -> Arc<COCO> {
    for (number, object) in objects.iter_mut().enumerate() {
        object.id = number as u64 + 1;
    }
    let image = |image: &CocoImage| Image {
        id: image.id,
        width: image.width,
        height: image.height,
        ..Image::default()
    };
    let category = |category: &CocoCategory| Category {
        id: category.id,
        // A category without a name would be a warning on standard error.
        name: if category.name.is_empty() { category.id.to_string() } else { category.name.clone() },
        ..Category::default()
    };
    let mut coco = COCO::from_dataset(Dataset {
        images: images.iter().map(image).collect(),
        annotations: objects,
        categories: categories.iter().map(category).collect(),
        ..Dataset::default()
    });
    coco.fill_missing_areas();
    Arc::new(coco)
}

/// The first number that is there twice.
fn twice(ids: impl Iterator<Item = u64>) -> Option<u64> {
    let mut seen = HashSet::new();
    ids.into_iter().find(|&id| !seen.insert(id))
}
