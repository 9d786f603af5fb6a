//! Panoptic quality.
//!
//! What matches and what counts is the crate `hotcoco`'s, which says what panopticapi says.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use hotcoco::metrics::panoptic::{PqCounts, PqScores};
use hotcoco::panoptic::{PanopticAnnotation, PqSplit};
use hotcoco::{Category, PanopticDataset, PanopticEval};
use png::ColorType;

use super::DatasetError;
use super::coco_files::{PanopticFile, panoptic_file};
use crate::images::Limits;
use crate::pipeline::name_of;
use crate::pipeline::reason;
use crate::results::{ClassScores, PanopticMetrics, PanopticQuality};

/// The scores of panoptic predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct PanopticScores {
    /// Over all classes, and over things and stuff.
    pub metrics: PanopticMetrics,
    /// Of every category of the dataset in the file's order: `PQ`, `SQ` and `RQ` in percent. Segments that are to be
    /// found count.
    pub classes: Vec<ClassScores>,
    /// What each of `classes` comes from.
    pub counts: Vec<SegmentCounts>,
    /// How many images there are.
    pub images: usize,
}

/// The segments of a category.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentCounts {
    /// The category's number in the annotations.
    pub category_id: u64,
    /// Whether it can be counted; `None` where the annotations don't say.
    pub is_thing: Option<bool>,
    /// Segments that were found.
    pub found: u64,
    /// Segments that were predicted and aren't there.
    pub wrong: u64,
    /// Segments that were missed.
    pub missed: u64,
    /// The sum of intersection over union of those that were found.
    pub iou: f64,
}

/// The scores of the predictions `predicted` against `truth`, both COCO's panoptic JSON, with their PNG files in the
/// folders of their names without `.json`; with `limit` of the first so many images of `truth`.
///
/// # Errors
/// When a file can't be read, is of another kind or damaged, an image has no prediction, or a prediction can't be one.
pub fn score(truth: &Path, predicted: &Path, limit: Option<usize>) -> Result<PanopticScores, DatasetError> {
    let mut wanted = panoptic_file(truth)?;
    if wanted.categories.is_empty() {
        return Err(DatasetError::new(
            truth,
            "it lists no categories; a dataset's panoptic annotations are wanted here",
        ));
    }
    wanted.annotations.truncate(limit.unwrap_or(usize::MAX));
    let mut given = panoptic_file(predicted)?;
    let kept: HashSet<u64> = wanted.annotations.iter().map(|image| image.image_id).collect();
    given.annotations.retain(|image| kept.contains(&image.image_id));

    let by_image: HashMap<u64, &PanopticAnnotation> =
        given.annotations.iter().map(|image| (image.image_id, image)).collect();
    let mut missing = wanted.annotations.iter().filter(|image| !by_image.contains_key(&image.image_id));
    if let Some(first) = missing.next() {
        let name = first.file_name.as_deref().unwrap_or("no file");
        let why = format!(
            "{} of {} images have no prediction, the first is image {} ({name})",
            missing.count() + 1,
            wanted.annotations.len(),
            first.image_id,
        );
        return Err(DatasetError::new(predicted, why));
    }
    for image in &wanted.annotations {
        let size = segment_file_size(truth, image)?;
        if let Some(prediction) = by_image.get(&image.image_id) {
            let [width, height] = segment_file_size(predicted, prediction)?;
            if [width, height] != size {
                let why = format!(
                    "image {} has {}x{} pixels, and its prediction {width}x{height}",
                    image.image_id, size[0], size[1]
                );
                return Err(DatasetError::new(predicted, why));
            }
        }
    }

    let things: Vec<(u64, String, Option<bool>)> = {
        let mut seen = HashSet::new();
        let categories = wanted.categories.iter().filter(|category| seen.insert(category.id));
        categories.map(|category| (category.id, category.name.clone(), category.is_thing())).collect()
    };
    let mut evaluation = PanopticEval::new(dataset(truth, wanted), dataset(predicted, given));
    evaluation.run().map_err(|error| {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        DatasetError::new(if text.contains("ground-truth") { truth } else { predicted }, text)
    })?;
    let Some(result) = evaluation.result() else {
        return Err(DatasetError::new(predicted, "no scores came of it"));
    };
    let counts = |id| result.per_category.get(&id).copied().unwrap_or_default();
    let rows = things.iter().enumerate().map(|(index, (id, label, _))| {
        let counts: PqCounts = counts(*id);
        let percents =
            counts.scores().map(|PqScores { pq, sq, rq }| [pq, sq, rq].map(|share| PERCENT * share));
        let names = ["PQ", "SQ", "RQ"].into_iter().enumerate();
        let by_name = names.map(|(i, name)| (name.to_owned(), percents.map(|scores| scores[i])));
        ClassScores { index, label: label.clone(), count: counts.tp + counts.fn_, scores: by_name.collect() }
    });
    let segments = things.iter().map(|&(category_id, _, is_thing)| {
        let PqCounts { iou, tp, fp, fn_ } = counts(category_id);
        SegmentCounts { category_id, is_thing, found: tp, wrong: fp, missed: fn_, iou }
    });
    Ok(PanopticScores {
        metrics: PanopticMetrics {
            all: quality(&result.all),
            things: quality(&result.things),
            stuff: quality(&result.stuff),
        },
        classes: rows.collect(),
        counts: segments.collect(),
        images: result.n_images,
    })
}

/// What a share is multiplied with.
const PERCENT: f64 = 100.0;

fn quality(split: &PqSplit) -> PanopticQuality {
    let percent = |value: f64| (split.n > 0).then_some(PERCENT * value);
    let PqScores { pq, sq, rq } = split.scores;
    PanopticQuality { pq: percent(pq), sq: percent(sq), rq: percent(rq), n: split.n }
}

fn dataset(path: &Path, file: PanopticFile) -> PanopticDataset {
    let categories = file.categories.into_iter().map(|category| Category {
        id: category.id,
        isthing: category.is_thing(),
        name: category.name,
        ..Category::default()
    });
    let (categories, annotations) = (categories.collect(), file.annotations);
    PanopticDataset { annotations, categories, ..PanopticDataset::default() }
        .with_folder(path.with_extension(""))
}

/// Width and height of an image's PNG file, which is one that can be read.
fn segment_file_size(json: &Path, image: &PanopticAnnotation) -> Result<[u32; 2], DatasetError> {
    let Some(name) = &image.file_name else {
        return Err(DatasetError::new(json, format!("its image {} has no file_name", image.image_id)));
    };
    let folder = json.with_extension("");
    if !folder.is_dir() {
        let why = format!("no such folder; the PNG files of {} are wanted in it", name_of(json));
        return Err(DatasetError::new(&folder, why));
    }
    let path = folder.join(name);
    let file = File::open(&path).map_err(|error| {
        let why = format!("can't be read: {}; {} names it", reason(&error), name_of(json));
        DatasetError::new(&path, why)
    })?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    let header = decoder.read_header_info().map_err(|error| {
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        DatasetError::new(&path, format!("no PNG, or a damaged one ({reason})"))
    })?;
    let (width, height) = header.size();
    if u64::from(width) * u64::from(height) > Limits::default().pixels {
        return Err(DatasetError::new(&path, format!("{width}x{height} pixels are more than are read")));
    }
    match header.color_type {
        ColorType::Rgb | ColorType::Rgba | ColorType::Indexed => Ok([width, height]),
        ColorType::Grayscale | ColorType::GrayscaleAlpha => {
            Err(DatasetError::new(&path, "a grey PNG; one whose colours are the segments' ids is wanted"))
        }
    }
}
