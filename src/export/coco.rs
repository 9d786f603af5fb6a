//! COCO's dataset: one JSON file.
//!
//! <https://cocodataset.org/#format-data>

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Write};

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::error::ExportError;
use super::journal::{Entry, Journal};
use super::labelled::{ExportClass, LabelledImage, LabelledObject};
use crate::images::outline::{Outline, outlines};
use crate::results::Rle;
use crate::tasks::TaskError;

/// What the file says of itself.
const DESCRIPTION: &str = "annotations by nat-infer";

/// An image with its annotations.
#[derive(Serialize, Deserialize)]
pub(super) struct CocoEntry {
    image: CocoImage,
    annotations: Vec<CocoAnnotation>,
}

#[derive(Clone, Serialize, Deserialize)]
struct CocoImage {
    /// 0 where it is counted.
    id: u64,
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Serialize, Deserialize)]
struct CocoAnnotation {
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

#[derive(Serialize)]
struct CocoCategory<'a> {
    id: usize,
    name: &'a str,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
}

impl Entry for CocoEntry {
    fn key(&self) -> &str {
        &self.image.file_name
    }
}

/// An image with its annotations.
///
/// # Errors
/// When it is too large for a mask.
pub(super) fn entry(image: &LabelledImage) -> Result<CocoEntry, TaskError> {
    let [width, height] = image.size;
    let annotation = |object: &LabelledObject| -> Result<CocoAnnotation, TaskError> {
        let (segmentation, area) = match &object.mask {
            None => (None, f64::from(object.bbox[2]) * f64::from(object.bbox[3])),
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
        Ok(CocoAnnotation { id: 0, image_id: 0, category_id, bbox, area, iscrowd: 0, score, segmentation })
    };
    Ok(CocoEntry {
        image: CocoImage {
            id: image.image_id.unwrap_or(0),
            file_name: image.place.file_name(),
            width,
            height,
        },
        annotations: image.objects().iter().map(annotation).collect::<Result<_, _>>()?,
    })
}

/// The images of a file that was made before.
pub(super) fn entries(file: File) -> Option<Vec<CocoEntry>> {
    let CocoFile { images, annotations } = serde_json::from_reader(BufReader::new(file)).ok()?;
    let mut by_image: HashMap<u64, Vec<CocoAnnotation>> = HashMap::new();
    for annotation in annotations {
        by_image.entry(annotation.image_id).or_default().push(annotation);
    }
    let entry =
        |image: CocoImage| CocoEntry { annotations: by_image.remove(&image.id).unwrap_or_default(), image };
    Some(images.into_iter().map(entry).collect())
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
    let categories: Vec<CocoCategory> =
        classes.iter().map(|class| CocoCategory { id: class.id, name: &class.name }).collect();
    let number = |count: u64| share as u64 + (count - 1) * shares as u64;
    let image_id = |image: &CocoImage, count: u64| if image.id == 0 { number(count) } else { image.id };
    let head = format!(
        "{{\"info\":{{\"description\":\"{DESCRIPTION} {}\"}},\"licenses\":[],\"categories\":{},\n\"images\":[",
        env!("CARGO_PKG_VERSION"),
        serde_json::to_string(&categories).map_err(io::Error::from).unwrap_or_default(),
    );
    let mut images = 0;
    let mut text = head;
    journal.each(|mut entry| {
        images += 1;
        entry.image.id = image_id(&entry.image, images);
        text += if images == 1 { "\n" } else { ",\n" };
        text += &serde_json::to_string(&entry.image)?;
        file.write_all(std::mem::take(&mut text).as_bytes())
    })?;
    let (mut images, mut annotations) = (0, 0);
    text += "],\n\"annotations\":[";
    journal.each(|entry| {
        images += 1;
        for mut annotation in entry.annotations {
            annotations += 1;
            (annotation.id, annotation.image_id) = (number(annotations), image_id(&entry.image, images));
            text += if annotations == 1 { "\n" } else { ",\n" };
            text += &serde_json::to_string(&annotation)?;
        }
        file.write_all(std::mem::take(&mut text).as_bytes())
    })?;
    text += "]}\n";
    file.write_all(text.as_bytes()).map_err(ExportError::write(journal.target()))
}
