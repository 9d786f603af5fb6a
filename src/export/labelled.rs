//! An image with what was found on it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::images::mask::{Mask, MaskError};
use crate::pipeline::name_of;
use crate::results::{Detection, Scored};

/// An image with what was found on it.
#[derive(Clone, Debug)]
pub struct ImageLabels {
    /// Where it is.
    pub place: ImagePlace,
    /// Its width and height in pixels.
    pub size: [usize; 2],
    /// Its number in COCO's annotations, where somebody gave it one.
    pub image_id: Option<u64>,
    /// The name of the model.
    pub model: String,
    /// What was found.
    pub labelled: Labelled,
}

/// Where an image is, as datasets name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlace {
    /// Its path below the folder of the images.
    pub file_name: PathBuf,
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
    /// Where it is, if it is of the web.
    pub url: Option<String>,
}

/// What was found on an image.
#[derive(Clone, Debug)]
pub enum Labelled {
    /// What it shows, the most probable first.
    Choices(Vec<Scored>),
    /// Objects.
    Objects(Vec<LabelledObject>),
    /// What covers it.
    Regions {
        /// The class of every pixel, row by row.
        pixels: Vec<u8>,
        /// The classes, by their indices.
        classes: Vec<ExportClass>,
    },
}

/// An object, or all that is of a class.
#[derive(Clone, Debug)]
pub struct LabelledObject {
    /// Index among the network's classes.
    pub index: usize,
    /// Number of the class in COCO's lists.
    pub category_id: usize,
    /// Name of the class.
    pub label: String,
    /// Probability, 0 to 1, where there is one.
    pub score: Option<f32>,
    /// Left, top, width and height in pixels of the image.
    pub bbox: [f32; 4],
    /// Its pixels, where they are known.
    pub mask: Option<Mask>,
}

/// What images are labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelledWith {
    /// Classes of whole images.
    Choices,
    /// Objects by their boxes.
    Boxes,
    /// Objects by their pixels, and their boxes.
    Masks,
    /// The class of every pixel.
    Regions,
}

/// A class as datasets list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportClass {
    /// Its number in COCO's lists.
    pub id: usize,
    /// Its name.
    pub name: String,
}

impl ImagePlace {
    /// As it was given.
    pub(super) fn as_given(&self) -> String {
        let path = self.path.as_ref().unwrap_or(&self.file_name);
        self.url.clone().unwrap_or_else(|| name_of(path))
    }

    /// The image's path below the folder of the images as text.
    pub(super) fn file_name(&self) -> String {
        with_slashes(&self.file_name)
    }
}

impl ImageLabels {
    /// The objects; of regions each class that is there with all its pixels, made when it is its turn: together they would take
    /// the memory of the image many times.
    pub(super) fn objects(&self) -> Box<dyn Iterator<Item = Cow<'_, LabelledObject>> + '_> {
        match &self.labelled {
            Labelled::Objects(objects) => Box::new(objects.iter().map(Cow::Borrowed)),
            Labelled::Regions { pixels, classes } => {
                Box::new(of_classes(pixels, self.size, classes).map(Cow::Owned))
            }
            Labelled::Choices(_) => Box::new(std::iter::empty()),
        }
    }
}

/// A path as text, with `/` between its parts on every system.
pub(super) fn with_slashes(path: &Path) -> String {
    let parts: Vec<String> = path.components().map(|part| name_of(Path::new(part.as_os_str()))).collect();
    parts.join("/")
}

/// A text without the characters that XML does not have, however they are written.
pub(super) fn printable(text: &str) -> String {
    let is_in_xml = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if is_in_xml(c) { c } else { ' ' }).collect()
}

/// The objects of a detector's record.
///
/// # Errors
/// When a mask's run lengths are none.
pub fn of_detections(detections: &[Detection]) -> Result<Labelled, MaskError> {
    let object = |found: &Detection| {
        Ok(LabelledObject {
            index: found.index,
            category_id: found.category_id,
            label: found.label.clone(),
            score: Some(found.score),
            bbox: found.bbox,
            mask: found.segmentation.as_ref().map(Mask::decode).transpose()?,
        })
    };
    Ok(Labelled::Objects(detections.iter().map(object).collect::<Result<_, _>>()?))
}

/// What covers an image of `size` (width, height): of every class that is there all its pixels.
fn of_classes<'a>(
    pixels: &'a [u8],
    [width, height]: [usize; 2],
    classes: &'a [ExportClass],
) -> impl Iterator<Item = LabelledObject> + 'a {
    // The first and the last column and row of each class.
    let mut bounds = [None::<[usize; 4]>; 256];
    for (y, row) in pixels.chunks_exact(width.max(1)).enumerate().take(height) {
        for (x, class) in row.iter().enumerate() {
            let [left, top, right, bottom] = bounds[usize::from(*class)].get_or_insert([x, y, x, y]);
            (*left, *right, *bottom) = ((*left).min(x), (*right).max(x), y);
            *top = (*top).min(y);
        }
    }
    let object = move |(index, class): (usize, &ExportClass)| {
        let [left, top, right, bottom] = (*bounds.get(index)?)?;
        let (columns, rows) = (right + 1 - left, bottom + 1 - top);
        let of_row =
            |y: usize| pixels[y * width + left..][..columns].iter().map(|class| usize::from(*class) == index);
        Some(LabelledObject {
            index,
            category_id: class.id,
            label: class.name.clone(),
            score: None,
            bbox: [left, top, columns, rows].map(|edge| edge as f32),
            mask: Some(Mask {
                origin: [left, top],
                size: [columns, rows],
                pixels: (top..=bottom).flat_map(of_row).collect(),
            }),
        })
    };
    classes.iter().enumerate().filter_map(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_that_is_there_has_all_its_pixels() {
        let classes: Vec<_> = ["sky", "road", "car"]
            .iter()
            .zip(1..)
            .map(|(name, id)| ExportClass { id, name: name.to_string() })
            .collect();
        let pixels = [0, 0, 2, 2, 2, 0, 0, 2, 0, 0, 0, 0];
        let objects: Vec<_> = of_classes(&pixels, [4, 3], &classes).collect();
        let found: Vec<_> =
            objects.iter().map(|o| (o.index, o.category_id, o.label.as_str(), o.bbox)).collect();
        assert_eq!(found, [(0, 1, "sky", [0.0, 0.0, 4.0, 3.0]), (2, 3, "car", [0.0, 0.0, 4.0, 2.0])]);
        let whole: Vec<bool> = pixels.iter().map(|class| *class == 2).collect();
        assert_eq!(objects[1].mask.as_ref().unwrap().whole([4, 3]), whole);
    }
}
