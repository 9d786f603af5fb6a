//! COCO's dataset: one JSON file.
//!
//! <https://cocodataset.org/#format-data>

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Write};

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::error::ExportError;
use super::journal::{Journal, JournalEntry};
use super::labelled::{ExportClass, ImageLabels, LabelledObject};
use crate::images::outline::{Outline, outlines};
use crate::results::Rle;
use crate::tasks::TaskError;

/// What the file says of itself.
const DESCRIPTION: &str = "annotations by nat-infer";

/// An image with its annotations.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CocoEntry {
    image: ExportedImage,
    annotations: Vec<ExportedAnnotation>,
}

// What is read again is refused where it has more than what was written: it would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedImage {
    /// `None` until it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedAnnotation {
    /// These two are counted when the file is made.
    id: u64,
    image_id: u64,
    category_id: usize,
    bbox: [f32; 4],
    area: f64,
    iscrowd: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segmentation: Option<CocoSegmentation>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CocoSegmentation {
    /// x and y of each point in turn, a list for each polygon.
    Polygons(Vec<Vec<Number>>),
    Rle(Rle),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedCategory {
    id: usize,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CocoInfo {
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CocoFile {
    info: CocoInfo,
    licenses: [(); 0],
    categories: Vec<ExportedCategory>,
    images: Vec<ExportedImage>,
    annotations: Vec<ExportedAnnotation>,
}

impl JournalEntry for CocoEntry {
    fn key(&self) -> &str {
        &self.image.file_name
    }

    fn of_file(file: File, classes: &[ExportClass]) -> io::Result<Vec<Self>> {
        let CocoFile { info, licenses: [], categories, images, annotations } =
            serde_json::from_reader(BufReader::new(file))?;
        let same = |(category, class): (&ExportedCategory, &ExportClass)| {
            category.id == class.id && category.name == class.name
        };
        let is_ours = info.description.starts_with(DESCRIPTION)
            && categories.len() == classes.len()
            && categories.iter().zip(classes).all(same);
        let mut by_image: HashMap<Option<u64>, Vec<ExportedAnnotation>> = HashMap::new();
        for annotation in annotations {
            by_image.entry(Some(annotation.image_id)).or_default().push(annotation);
        }
        let entry = |image: ExportedImage| Self {
            annotations: by_image.remove(&image.id).unwrap_or_default(),
            image,
        };
        let entries: Vec<Self> = images.into_iter().map(entry).collect();
        // Annotations of no image would be lost.
        match is_ours && by_image.is_empty() {
            true => Ok(entries),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// An image with its annotations.
///
/// # Errors
/// When it is too large for a mask.
pub(super) fn entry(image: &ImageLabels) -> Result<CocoEntry, TaskError> {
    let [width, height] = image.size;
    let annotation = |object: Cow<LabelledObject>| -> Result<ExportedAnnotation, TaskError> {
        let (segmentation, area) = match &object.mask {
            None => {
                let area = f64::from(object.bbox[2]) * f64::from(object.bbox[3]);
                // So many digits are read again as the same number by every reader.
                (None, (area * 1e3).round() / 1e3)
            }
            Some(mask) => {
                let list =
                    |outline: &Outline| outline.edges().into_iter().flatten().map(Number::from).collect();
                let polygons: Vec<Vec<Number>> = outlines(mask).iter().map(list).collect();
                // COCO's tools take no list without a polygon.
                let segmentation = match polygons.is_empty() {
                    true => CocoSegmentation::Rle(mask.encode(image.size)?),
                    false => CocoSegmentation::Polygons(polygons),
                };
                (Some(segmentation), mask.pixels.iter().filter(|on| **on).count() as f64)
            }
        };
        let LabelledObject { category_id, bbox, score, .. } = *object;
        Ok(ExportedAnnotation {
            id: 0,
            image_id: 0,
            category_id,
            bbox,
            area,
            iscrowd: 0,
            score,
            segmentation,
        })
    };
    Ok(CocoEntry {
        image: ExportedImage { id: image.image_id, file_name: image.place.file_name(), width, height },
        annotations: image.objects().map(annotation).collect::<Result<_, _>>()?,
    })
}

/// Writes the file. Of several that are shares of a dataset, `[index, count]` from 1, no two number two things alike.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(
    journal: &Journal<CocoEntry>,
    file: &mut impl Write,
    classes: &[ExportClass],
    [share, shares]: [usize; 2],
) -> Result<(), ExportError> {
    let category = |class: &ExportClass| ExportedCategory { id: class.id, name: class.name.clone() };
    let categories: Vec<ExportedCategory> = classes.iter().map(category).collect();
    let info = CocoInfo { description: format!("{DESCRIPTION} {}", env!("CARGO_PKG_VERSION")) };
    let failed = |error: serde_json::Error| ExportError::write(journal.target())(error.into());
    let [info, categories] =
        [serde_json::to_string(&info).map_err(failed)?, serde_json::to_string(&categories).map_err(failed)?];
    // Numbers that images have already are no others'.
    let mut known = HashSet::new();
    journal.each(|entry| {
        known.extend(entry.image.id);
        Ok(())
    })?;
    let number = |count: u64| share as u64 + count * shares as u64;
    let mut free = (0..).map(number).filter(|id| !known.contains(id));
    let mut ids = Vec::new();
    let mut text = format!("{{\"info\":{info},\"licenses\":[],\"categories\":{categories},\n\"images\":[");
    journal.each(|mut entry| {
        entry.image.id = entry.image.id.or_else(|| free.next());
        text += if ids.is_empty() { "\n" } else { ",\n" };
        text += &serde_json::to_string(&entry.image)?;
        ids.extend(entry.image.id);
        file.write_all(std::mem::take(&mut text).as_bytes())
    })?;
    text += "],\n\"annotations\":[";
    let (mut ids, mut annotations) = (ids.into_iter(), 0);
    journal.each(|entry| {
        let image_id = ids.next().unwrap_or_default();
        for mut annotation in entry.annotations {
            (annotation.id, annotation.image_id) = (number(annotations), image_id);
            text += if annotations == 0 { "\n" } else { ",\n" };
            text += &serde_json::to_string(&annotation)?;
            annotations += 1;
        }
        file.write_all(std::mem::take(&mut text).as_bytes())
    })?;
    text += "]}\n";
    file.write_all(text.as_bytes()).map_err(ExportError::write(journal.target()))
}
