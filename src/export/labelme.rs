//! labelme's annotations: a JSON file for each image.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::labelled::{ImageLabels, LabelledObject, LabelledWith, with_slashes};
use super::yolo::{IN_PIXEL, within};
use crate::images::outline::outlines;
use crate::pipeline::name_of;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LabelmeFile {
    /// Of the program whose files are like this.
    version: &'static str,
    flags: Flags,
    shapes: Vec<LabelmeShape>,
    image_path: String,
    image_data: (),
    image_height: usize,
    image_width: usize,
}

#[derive(Serialize)]
struct LabelmeShape {
    label: String,
    points: Vec<[f64; 2]>,
    /// Shapes of one number are one object.
    group_id: Option<usize>,
    /// The score, which labelme shows.
    description: String,
    shape_type: &'static str,
    flags: Flags,
    mask: (),
}

/// None of those that people define.
#[derive(Serialize)]
struct Flags {}

/// The file of an image, which will be in `folder`.
pub(super) fn json(image: &ImageLabels, with: LabelledWith, folder: &Path) -> String {
    let [width, height] = image.size.map(|side| side as f64);
    let mut shapes = Vec::new();
    for (number, object) in image.objects().enumerate() {
        let LabelledObject { label, score, mask, bbox, .. } = &*object;
        let description = score.map_or(String::new(), |score| score.to_string());
        let shape = |points, shape_type, group_id| {
            let (label, description) = (label.clone(), description.clone());
            LabelmeShape { label, points, group_id, description, shape_type, flags: Flags {}, mask: () }
        };
        let parts = mask.as_ref().map(outlines).unwrap_or_default();
        // Regions of a class are no one thing.
        let group = (parts.len() > 1 && with != LabelledWith::Regions).then_some(number + 1);
        let inside = |[x, y]: [usize; 2]| [x as f64 + IN_PIXEL, y as f64 + IN_PIXEL];
        shapes.extend(
            parts.iter().map(|part| shape(part.pixels().into_iter().map(inside).collect(), "polygon", group)),
        );
        if parts.is_empty() {
            let [left, top, right, bottom] = within(*bbox, [width, height]);
            shapes.push(shape(vec![[left, top], [right, bottom]], "rectangle", None));
        }
    }
    let image_path = match &image.place.path {
        Some(path) => relative(path, folder),
        None => image.place.file_name(),
    };
    let [image_width, image_height] = image.size;
    let file = LabelmeFile {
        version: "5.5.0",
        flags: Flags {},
        shapes,
        image_path,
        image_data: (),
        image_height,
        image_width,
    };
    serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
}

/// The way from a folder to a file, with `/` between its parts.
fn relative(file: &Path, folder: &Path) -> String {
    let absolute = |path: &Path| {
        path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
    };
    // The file's own name may be a link to one of another name.
    let [file_folder, folder] =
        [file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), folder]
            .map(absolute);
    let file = file_folder.join(file.file_name().unwrap_or_default());
    let [from, to]: [Vec<Component>; 2] = [folder.components().collect(), file.components().collect()];
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return name_of(&file);
    }
    let way: PathBuf =
        from[shared..].iter().map(|_| Component::ParentDir).chain(to[shared..].iter().copied()).collect();
    with_slashes(&way)
}
