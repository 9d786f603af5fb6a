//! YOLO's labels: a text file for each image, a line for each object.
//!
//! <https://docs.ultralytics.com/datasets/detect/> and `/segment/`.

use std::fmt::Write;

use super::labelled::{ExportClass, ImageLabels, LabelledObject, LabelledWith};
use crate::images::outline::{Outline, joined, outlines};

/// Where in a pixel a point lies. Readers cut coordinates to pixels or round them, of f32: both have to find this pixel.
pub(super) const IN_PIXEL: f64 = 0.45;

/// The lines of an image: the class's index, and the polygon around the object's pixels, or the middle, width and height of its
/// box; all as shares of the image's width and height. An object is one line, regions are a line for each part.
pub(super) fn text(image: &ImageLabels, with: LabelledWith) -> String {
    let [width, height] = image.size.map(|side| side as f64);
    let mut text = String::new();
    let mut line = |index: usize, points: &[[f64; 2]]| {
        // There is no failing to write to a text.
        let _ = write!(text, "{index}");
        for [x, y] in points {
            let _ = write!(text, " {:.7} {:.7}", x / width, y / height);
        }
        text.push('\n');
    };
    for object in image.objects() {
        let inside = |points: Vec<[usize; 2]>| -> Vec<[f64; 2]> {
            points.iter().map(|point| point.map(|at| at as f64 + IN_PIXEL)).collect()
        };
        let LabelledObject { index, mask, .. } = &*object;
        let parts = mask.as_ref().map(outlines).unwrap_or_default();
        let [left, top, right, bottom] = within(object.bbox, [width, height]);
        match (parts.is_empty(), with) {
            (false, LabelledWith::Regions) => {
                parts.iter().for_each(|part: &Outline| line(*index, &inside(part.pixels())));
            }
            (false, _) => line(*index, &inside(joined(&parts))),
            // Readers take a file's lines all as boxes or all as polygons.
            (true, LabelledWith::Masks | LabelledWith::Regions) => {
                line(*index, &[[left, top], [right, top], [right, bottom], [left, bottom]]);
            }
            (true, _) => {
                line(*index, &[[(left + right) / 2.0, (top + bottom) / 2.0], [right - left, bottom - top]])
            }
        }
    }
    text
}

/// The left, top, right and bottom edge of a box, in the image.
pub(super) fn within([x, y, w, h]: [f32; 4], [width, height]: [f64; 2]) -> [f64; 4] {
    let [x, y, w, h] = [x, y, w, h].map(f64::from);
    [x.clamp(0.0, width), y.clamp(0.0, height), (x + w).clamp(0.0, width), (y + h).clamp(0.0, height)]
}

/// `data.yaml`, which names the classes: what training is started with once the images are in the folder `images` beside it.
pub(super) fn data(classes: &[ExportClass]) -> String {
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    // A list of JSON is one of YAML.
    let names = serde_json::to_string(&names).unwrap_or_default();
    format!(
        "# Put the images, or a link to their folder, at `images`.\ntrain: images\nval: images\nnc: {}\nnames: {names}\n",
        classes.len()
    )
}

/// The classes' names, one a line, as labelling tools list them.
pub(super) fn names(classes: &[ExportClass]) -> String {
    classes.iter().map(|class| class.name.replace(['\n', '\r'], " ") + "\n").collect()
}
