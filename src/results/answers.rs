//! What the commands say of images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What `classify` says about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The image as it was named on the command line or found in a folder; `-` is standard input.
    pub image: String,
    /// The model's name, or its file's where it has none.
    pub model: String,
    /// The most probable classes, highest score first.
    pub top: Vec<Scored>,
}

/// A class with its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Index among the network's outputs.
    pub index: usize,
    /// Name of the class; the index where no names are known.
    pub label: String,
    /// Probability, 0 to 1: softmax over the classes, or where the model says so the sigmoid of each.
    pub score: f32,
}

/// What `detect` says about an image: COCO's result format, so that its evaluators take the detections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// The image, as in [`Classification::image`].
    pub image: String,
    /// The model, as in [`Classification::model`].
    pub model: String,
    /// Width of the image in pixels.
    pub width: usize,
    /// Height of the image in pixels.
    pub height: usize,
    /// The image's number in COCO's annotations, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<u64>,
    /// The objects, highest score first.
    pub detections: Vec<Detection>,
}

/// One object in COCO's list of results, which `COCO.loadRes` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CocoResult {
    /// The image's number.
    pub image_id: u64,
    /// As in [`Detection::category_id`].
    pub category_id: usize,
    /// As in [`Detection::bbox`].
    pub bbox: [f32; 4],
    /// As in [`Detection::score`].
    pub score: f32,
    /// As in [`Detection::segmentation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Rle>,
}

/// An object on an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// COCO's number of the class, 1 to 90 with gaps; of other classes `index + 1`.
    pub category_id: usize,
    /// Index among the network's classes.
    pub index: usize,
    /// Name of the class; the index where no names are known.
    pub label: String,
    /// Probability, 0 to 1.
    pub score: f32,
    /// Left, top, width and height in pixels of the image.
    pub bbox: [f32; 4],
    /// The object's pixels, unless only boxes were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Rle>,
}

/// COCO's compressed run-length encoding of a mask, column by column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rle {
    /// Height and width of the image.
    pub size: [usize; 2],
    /// The runs, in pycocotools' string form.
    pub counts: String,
}

/// What `segment` says about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segmentation {
    /// The image, as in [`Classification::image`].
    pub image: String,
    /// The model, as in [`Classification::model`].
    pub model: String,
    /// Width of the image in pixels.
    pub width: usize,
    /// Height of the image in pixels.
    pub height: usize,
    /// What covers it, largest first.
    pub segments: Vec<ClassShare>,
}

/// The pixels of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassShare {
    /// Index among the network's classes.
    pub index: usize,
    /// Name of the class; the index where no names are known.
    pub label: String,
    /// How many pixels it covers.
    pub pixels: usize,
    /// Share of the image, 0 to 1.
    pub fraction: f64,
}

/// Where `features` put the tensors of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFeatures {
    /// The image, as in [`Classification::image`].
    pub image: String,
    /// The model, as in [`Classification::model`].
    pub model: String,
    /// The safetensors file.
    pub file: String,
    /// Names of its tensors, with their shapes.
    pub tensors: BTreeMap<String, Vec<usize>>,
}

/// Where `saliency` put the map of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSaliency {
    /// The image, as in [`Classification::image`].
    pub image: String,
    /// The model, as in [`Classification::model`].
    pub model: String,
    /// `smooth-grad` or `grad-cam`.
    pub method: String,
    /// The class that the map is about.
    pub class: Scored,
    /// The map in grey, a PNG file.
    pub map: String,
    /// The map over the image, a PNG file.
    pub picture: String,
    /// The map's values, a safetensors file, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_promised_form() {
        let record = Classification {
            image: "a/b.png".to_owned(),
            model: "nat-tiny".to_owned(),
            top: vec![Scored { index: 281, label: "tabby".to_owned(), score: 0.1 }],
        };
        let json =
            r#"{"image":"a/b.png","model":"nat-tiny","top":[{"index":281,"label":"tabby","score":0.1}]}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(serde_json::from_str::<Classification>(json).unwrap(), record);
    }
}
