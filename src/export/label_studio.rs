//! Label Studio's tasks with what a model found, its "pre-annotations", and the labelling configuration that they are shown by.
//!
//! <https://labelstud.io/guide/predictions>

use std::fs::File;
use std::io::{self, BufReader, Write};

use quick_xml::Writer;
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::journal::{Journal, JournalEntry};
use super::labelled::{
    ExportClass, ImageLabels, ImagePlace, Labelled, LabelledObject, LabelledWith, printable,
};
use crate::images::mask::Mask;
use crate::tasks::files::NewFile;

/// The configuration's names of what people label with.
const BOX: &str = "box";
const BRUSH: &str = "brush";
const CHOICE: &str = "choice";
const IMAGE: &str = "image";

/// An image that people label, with what a model found.
// What is read again is refused where it has more than what was written, such as people's annotations: it would be lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelStudioTask {
    data: TaskData,
    predictions: Vec<Prediction>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskData {
    image: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prediction {
    model_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    result: Vec<RegionResult>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionResult {
    id: String,
    #[serde(rename = "parentID", default, skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    r#type: String,
    from_name: String,
    to_name: String,
    /// The image's size, of what is in a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_width: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_height: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_rotation: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    value: RegionValue,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum RegionValue {
    /// In percent of the image's sides.
    Rectangle {
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        rotation: u8,
        rectanglelabels: [String; 1],
    },
    Brush {
        format: String,
        rle: Vec<u8>,
        brushlabels: [String; 1],
    },
    Choices {
        choices: Vec<String>,
    },
}

impl JournalEntry for LabelStudioTask {
    fn key(&self) -> &str {
        &self.data.image
    }

    fn of_file(file: File, _: &[ExportClass]) -> io::Result<Vec<Self>> {
        Ok(serde_json::from_reader(BufReader::new(file))?)
    }
}

/// The task of an image.
pub fn label_studio_task(image: &ImageLabels, with: LabelledWith) -> LabelStudioTask {
    let [width, height] = image.size;
    let region = |id: String, kind: &str, from_name: &str, score, value| {
        let is_part = !matches!(value, RegionValue::Choices { .. });
        RegionResult {
            id,
            parent_id: None,
            r#type: kind.to_owned(),
            from_name: from_name.to_owned(),
            to_name: IMAGE.to_owned(),
            original_width: is_part.then_some(width),
            original_height: is_part.then_some(height),
            image_rotation: is_part.then_some(0),
            score,
            value,
        }
    };
    let mut result = Vec::new();
    match &image.labelled {
        Labelled::Choices(top) => {
            if let Some(best) = top.first() {
                let value = RegionValue::Choices { choices: vec![printable(&best.label)] };
                result.push(region("choice".to_owned(), "choices", CHOICE, Some(best.score), value));
            }
        }
        Labelled::Objects(_) | Labelled::Regions { .. } => {
            for (number, object) in (1..).zip(image.objects()) {
                let LabelledObject { label, score, bbox, mask, .. } = &*object;
                let box_id = format!("box{number}");
                let has_box = with != LabelledWith::Regions;
                if has_box {
                    // So many digits are read again as the same number by every reader.
                    let of = |edge: f32, side: usize| (f64::from(edge) / side as f64 * 1e8).round() / 1e6;
                    let value = RegionValue::Rectangle {
                        x: of(bbox[0], width),
                        y: of(bbox[1], height),
                        width: of(bbox[2], width),
                        height: of(bbox[3], height),
                        rotation: 0,
                        rectanglelabels: [printable(label)],
                    };
                    result.push(region(box_id.clone(), "rectanglelabels", BOX, *score, value));
                }
                if let Some(mask) = mask {
                    let (format, rle) = ("rle".to_owned(), packed(mask, image.size));
                    let value = RegionValue::Brush { format, rle, brushlabels: [printable(label)] };
                    let brush = region(format!("brush{number}"), "brushlabels", BRUSH, *score, value);
                    // Both are of one object: the list of regions shows the brush below its box.
                    result.push(RegionResult { parent_id: has_box.then_some(box_id), ..brush });
                }
            }
        }
    }
    let scores: Vec<f32> = result.iter().filter_map(|region| region.score).collect();
    let score = (!scores.is_empty()).then(|| scores.iter().sum::<f32>() / scores.len() as f32);
    LabelStudioTask {
        data: TaskData { image: address(&image.place) },
        predictions: vec![Prediction { model_version: image.model.clone(), score, result }],
    }
}

/// Where Label Studio finds an image: files in the folder that it serves local files from.
pub(super) fn address(image: &ImagePlace) -> String {
    match &image.url {
        Some(url) => url.clone(),
        None => format!("/data/local-files/?d={}", escaped(&image.file_name())),
    }
}

/// A path as part of an address.
fn escaped(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let part = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(part).collect()
}

/// A mask of a picture of `size` (width, height) as Label Studio's brushes are packed: the bytes of its pixels in RGBA, all four
/// of a pixel alike, as runs.
///
/// First how many bytes there are (32 bits), that each value has 8 bits (5 bits, less 1), and the four lengths in bits of
/// a run's length (4 bits each, less 1); then for each run a 1, which of the four lengths it has (2 bits), its length less 1, and
/// the value. <https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack>
fn packed(mask: &Mask, [width, height]: [usize; 2]) -> Vec<u8> {
    const LENGTHS: [u32; 4] = [3, 4, 8, 16];
    let mut bits = Bits::default();
    bits.put((width * height * 4) as u64, 32);
    bits.put(7, 5);
    LENGTHS.iter().for_each(|bits_of| bits.put(u64::from(bits_of - 1), 4));
    let mut run = |on: bool, pixels: usize| {
        let mut left = pixels as u64 * 4;
        while left > 0 {
            let length = left.min(1 << LENGTHS[3]);
            let (which, of) = LENGTHS
                .iter()
                .enumerate()
                .find(|(_, bits)| length <= 1 << **bits)
                .unwrap_or((3, &LENGTHS[3]));
            bits.put(1, 1);
            bits.put(which as u64, 2);
            bits.put(length - 1, *of);
            bits.put(if on { 255 } else { 0 }, 8);
            left -= length;
        }
    };
    let ([left, top], [columns, rows]) = (mask.origin, mask.size);
    // Runs of the picture's rows: what is of one kind is one run.
    let mut pending = (false, top * width);
    let mut add = |on: bool, pixels: usize| {
        if on == pending.0 {
            pending.1 += pixels;
        } else {
            run(pending.0, pending.1);
            pending = (on, pixels);
        }
    };
    for row in mask.pixels.chunks_exact(columns.max(1)) {
        add(false, left);
        row.iter().for_each(|on| add(*on, 1));
        add(false, width - left - columns);
    }
    // Of a mask without a pixel there are no rows.
    let below = if columns == 0 { height - top } else { height - top - rows };
    add(false, below * width);
    run(pending.0, pending.1);
    bits.bytes
}

/// Bits, the highest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    /// Appends the lowest `count` bits of a number.
    fn put(&mut self, number: u64, count: u32) {
        for bit in (0..count).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((number >> bit & 1) as u8) << (7 - self.count % 8);
            }
            self.count += 1;
        }
    }
}

/// Writes the file: a list of tasks.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(journal: &Journal<LabelStudioTask>, file: &mut NewFile) -> Result<(), ExportError> {
    let mut before = "[\n";
    journal.each(|task| {
        file.write_all(before.as_bytes())?;
        before = ",\n";
        file.write_all(serde_json::to_string(&task)?.as_bytes())
    })?;
    file.write_all(b"\n]\n").map_err(ExportError::write(journal.target()))
}

/// The labelling configuration: what a project of these tasks is set up with.
///
/// # Errors
/// Never: it is written to memory.
pub(super) fn config(classes: &[ExportClass], with: LabelledWith) -> io::Result<Vec<u8>> {
    let tags: &[[&str; 3]] = match with {
        LabelledWith::Choices => &[["Choices", CHOICE, "Choice"]],
        LabelledWith::Boxes => &[["RectangleLabels", BOX, "Label"]],
        LabelledWith::Masks => &[["RectangleLabels", BOX, "Label"], ["BrushLabels", BRUSH, "Label"]],
        LabelledWith::Regions => &[["BrushLabels", BRUSH, "Label"]],
    };
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.create_element("View").write_inner_content(|writer| {
        writer
            .create_element("Image")
            .with_attributes([("name", IMAGE), ("value", "$image"), ("zoom", "true")])
            .write_empty()?;
        for [tag, name, each] in tags {
            writer
                .create_element(*tag)
                .with_attributes([("name", *name), ("toName", IMAGE)])
                .write_inner_content(|writer| {
                    for class in classes {
                        let name = printable(&class.name);
                        writer
                            .create_element(*each)
                            .with_attribute(("value", name.as_str()))
                            .write_empty()?;
                    }
                    Ok(())
                })?;
        }
        Ok(())
    })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads runs as Label Studio does.
    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut at = 0;
        let mut read = |count: usize| {
            let bits = (at..at + count).map(|bit| u64::from(bytes[bit / 8] >> (7 - bit % 8) & 1));
            at += count;
            bits.fold(0, |number, bit| number << 1 | bit) as usize
        };
        let (values, bits) = (read(32), read(5) + 1);
        let lengths: Vec<usize> = (0..4).map(|_| read(4) + 1).collect();
        let mut all = Vec::new();
        while all.len() < values {
            assert_eq!(read(1), 1);
            let which = read(2);
            let (length, value) = (read(lengths[which]) + 1, read(bits) as u8);
            all.extend(vec![value; length]);
        }
        all
    }

    #[test]
    fn brushes_are_the_pixels_of_masks() {
        let mut rng = fastrand::Rng::with_seed(2);
        for round in 0..200 {
            // Also of more pixels than a run can have.
            let size = if round == 0 { [300, 250] } else { [rng.usize(1..30), rng.usize(1..30)] };
            let origin = size.map(|side| rng.usize(0..side));
            let within = [0, 1].map(|axis| rng.usize(0..=size[axis] - origin[axis]));
            let pixels = (0..within[0] * within[1]).map(|_| rng.usize(0..8) > round % 8).collect();
            let mask = Mask { origin, size: within, pixels };
            let whole: Vec<u8> =
                mask.whole(size).iter().flat_map(|on| [if *on { 255 } else { 0 }; 4]).collect();
            assert_eq!(unpacked(&packed(&mask, size)), whole, "{mask:?}");
        }
    }

    #[test]
    fn addresses_are_of_the_web_or_below_the_folder_that_is_served() {
        let place = |file_name: &str, url: Option<&str>| ImagePlace {
            file_name: file_name.into(),
            path: None,
            url: url.map(str::to_owned),
        };
        for (image, wanted) in [
            (place("a b/ä?.jpg", None), "/data/local-files/?d=a%20b/%C3%A4%3F.jpg"),
            (place("x.jpg", Some("https://host/x.jpg?y=1")), "https://host/x.jpg?y=1"),
        ] {
            assert_eq!(address(&image), wanted);
        }
    }
}
