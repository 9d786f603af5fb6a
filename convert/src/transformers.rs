//! The JSON files beside a Transformers checkpoint, as its own reader takes them (Transformers 4.49).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arch::{Filter, Geometry, IMAGENET_MEAN, IMAGENET_STD, MAX_SIDE, Preprocessing};
use crate::error::ConvertError;
use crate::recipe::Scores;

/// Largest JSON file that is read; ImageNet-22K's labels take two megabytes.
const MAX_BYTES: u64 = 16 << 20;

/// What is used of `config.json`. Sizes come from the tensors and are only compared with these;
/// `hidden_size` is left out because it is wrong in several published files.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub model_type: Option<String>,
    pub embed_dim: Option<usize>,
    pub depths: Option<Vec<usize>>,
    pub num_heads: Option<Vec<usize>>,
    pub kernel_size: Option<usize>,
    pub dilations: Option<Vec<Vec<usize>>>,
    pub layer_norm_eps: Option<f64>,
    pub hidden_act: Option<String>,
    pub problem_type: Option<String>,
    id2label: Option<BTreeMap<String, Value>>,
}

impl Config {
    /// Class names in index order: `None` when there are none or Transformers made them up.
    ///
    /// # Errors
    /// When the indices are not 0, 1, 2, …, or a name is neither text nor a number.
    pub fn labels(&self) -> Result<Option<Vec<String>>, String> {
        let Some(map) = self.id2label.as_ref().filter(|map| !map.is_empty()) else { return Ok(None) };
        let name = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(format!("id2label names a class {other}, which is neither text nor a number")),
        };
        let named = |i: usize| map.get(&i.to_string()).map(name);
        let labels = (0..map.len()).map(named).collect::<Option<Result<Vec<_>, _>>>();
        let labels =
            labels.ok_or_else(|| format!("id2label does not number its labels 0 to {}", map.len() - 1))??;
        let made_up = labels.iter().enumerate().all(|(i, label)| *label == format!("LABEL_{i}"));
        Ok((!made_up).then_some(labels))
    }

    /// What Transformers' pipeline makes of the logits of more than one class.
    pub fn scores(&self) -> Scores {
        match self.problem_type.as_deref() {
            Some("multi_label_classification") => Scores::Sigmoid,
            _ => Scores::Softmax,
        }
    }
}

/// What is used of `preprocessor_config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Preprocessor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<Value>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    crop_pct: Option<f64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Value>,
    image_std: Option<Value>,
    do_convert_rgb: Option<bool>,
}

/// A size in the ways in which Transformers has written them.
#[derive(Clone, Copy, Debug)]
enum Size {
    Short(usize),
    Square(usize),
}

impl Size {
    fn side(self) -> usize {
        match self {
            Self::Short(side) | Self::Square(side) => side,
        }
    }

    /// # Errors
    /// What is wrong with the value of `key`.
    fn of(key: &str, value: &Value) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("{key} is {value}, {why}"));
        let side = |value: &Value| value.as_u64().and_then(|side| usize::try_from(side).ok());
        let part = |name: &str| value.get(name).and_then(side);
        let size = match value {
            Value::Number(_) => side(value).map(Self::Square),
            // Height and width.
            Value::Array(sides) => match sides.iter().map(side).collect::<Option<Vec<_>>>().as_deref() {
                Some([side]) => Some(Self::Square(*side)),
                Some([height, width]) if height == width => Some(Self::Square(*height)),
                Some([_, _]) => return refused("and only squares are taken"),
                _ => None,
            },
            Value::Object(_) => match (part("shortest_edge"), part("height"), part("width")) {
                _ if value.get("longest_edge").is_some_and(|edge| !edge.is_null()) => {
                    return refused("and a longest edge is not taken");
                }
                (Some(side), None, None) => Some(Self::Short(side)),
                (None, Some(height), Some(width)) if height == width => Some(Self::Square(height)),
                (None, Some(_), Some(_)) => return refused("and only squares are taken"),
                _ => None,
            },
            _ => None,
        };
        match size {
            Some(size) if (1..=MAX_SIDE).contains(&size.side()) => Ok(size),
            Some(_) => refused(&format!("not from 1 to {MAX_SIDE} pixels")),
            None => refused("which is no size"),
        }
    }
}

/// The defaults of an image processor's class.
struct ProcessorClass {
    mean: [f64; 3],
    std: [f64; 3],
    filter: Filter,
    center_crop: bool,
}

/// Means and deviations of `IMAGENET_STANDARD_MEAN` and `OPENAI_CLIP_MEAN`.
const HALF: [f64; 3] = [0.5; 3];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl Preprocessor {
    /// The classifier's preprocessing, with what a user should know of it; `None` without a size.
    ///
    /// A size with a centre crop gives the crop's share; without one, the published models' rule
    /// holds: 0.875, and 1 from 384 pixels on.
    ///
    /// # Errors
    /// What it says that can't be done.
    pub fn preprocessing(&self) -> Result<Option<(Preprocessing, Option<String>)>, String> {
        let class = self.class()?;
        if self.do_resize == Some(false) {
            return Err("do_resize is false, and pictures are not taken in the sizes that they have".into());
        }
        if self.do_convert_rgb == Some(false) {
            return Err("do_convert_rgb is false, and pictures are always taken as RGB".into());
        }
        let Some(size) = self.size.as_ref().filter(|size| !size.is_null()) else { return Ok(None) };
        let size = Size::of("size", size)?;
        let crop = match &self.crop_size {
            Some(crop) if !crop.is_null() && self.do_center_crop != Some(false) => {
                Some(Size::of("crop_size", crop)?.side())
            }
            _ => None,
        };
        let side = size.side();
        let crop = crop.or((self.do_center_crop == Some(true) || class.center_crop).then_some(side));
        let mut note = None;
        let (resolution, crop_pct) = match crop {
            Some(crop) if crop <= side && self.crop_pct.is_none() => (crop, crop as f64 / side as f64),
            Some(crop) if crop > side => {
                return Err(format!("crop_size is {crop}, more than the size of {side}"));
            }
            _ => {
                let pct = self.crop_pct.unwrap_or_else(|| crop_pct(side));
                if !(0.1..=1.0).contains(&pct) {
                    return Err(format!("crop_pct is {pct}, not from 0.1 to 1"));
                }
                if self.crop_pct.is_none() {
                    note = Some(format!(
                        "pictures are cropped to {side}x{side} as the published figures were measured; \
                         Transformers' own processor would distort them to that size"
                    ));
                }
                (side, pct)
            }
        };
        let (mean, std) = self.normalisation(&class)?;
        let filter = self.filter()?.unwrap_or(class.filter);
        let geometry = Geometry::Crop { resolution, crop_pct };
        Ok(Some((Preprocessing { geometry, mean, std, filter, bgr: false }, note)))
    }

    fn class(&self) -> Result<ProcessorClass, String> {
        let name = self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref());
        let [mean, std] = [HALF; 2];
        Ok(match name.map(|name| name.trim_end_matches("Fast")) {
            // What Transformers takes for NAT and DiNAT.
            None | Some("ViTImageProcessor" | "ViTFeatureExtractor") => {
                ProcessorClass { mean, std, filter: Filter::Bilinear, center_crop: false }
            }
            Some("ConvNextImageProcessor" | "ConvNextFeatureExtractor") => {
                ProcessorClass { mean, std, filter: Filter::Bilinear, center_crop: false }
            }
            Some("BitImageProcessor") => {
                ProcessorClass { mean: CLIP_MEAN, std: CLIP_STD, filter: Filter::Bicubic, center_crop: true }
            }
            Some("CLIPImageProcessor" | "CLIPFeatureExtractor") => {
                ProcessorClass { mean: CLIP_MEAN, std: CLIP_STD, filter: Filter::Bicubic, center_crop: true }
            }
            Some("DeiTImageProcessor" | "DeiTFeatureExtractor") => ProcessorClass {
                mean: IMAGENET_MEAN,
                std: IMAGENET_STD,
                filter: Filter::Bicubic,
                center_crop: true,
            },
            Some(other) => return Err(format!("the image processor {other:?} is not known here")),
        })
    }

    /// Mean and deviation on 0..1 of what rescaling and normalising do together.
    fn normalisation(&self, class: &ProcessorClass) -> Result<([f64; 3], [f64; 3]), String> {
        let (mean, std) = match self.do_normalize {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (
                triple("image_mean", self.image_mean.as_ref())?.unwrap_or(class.mean),
                triple("image_std", self.image_std.as_ref())?.unwrap_or(class.std),
            ),
        };
        let factor = match (self.do_rescale, self.rescale_factor) {
            (Some(false), _) => 255.0,
            (_, None) => 1.0,
            // What 1/255 is after it was written.
            (_, Some(factor)) if (factor * 255.0 - 1.0).abs() < 1e-9 => 1.0,
            (_, Some(factor)) => factor * 255.0,
        };
        if !(factor.is_finite() && factor > 0.0) {
            return Err(format!("rescale_factor is {}, no positive number", factor / 255.0));
        }
        Ok((mean.map(|x| x / factor), std.map(|x| x / factor)))
    }

    fn filter(&self) -> Result<Option<Filter>, String> {
        // PIL's numbers.
        const BY_NUMBER: [Filter; 6] = [
            Filter::Nearest,
            Filter::Lanczos,
            Filter::Bilinear,
            Filter::Bicubic,
            Filter::Box,
            Filter::Hamming,
        ];
        let Some(value) = self.resample.as_ref().filter(|value| !value.is_null()) else { return Ok(None) };
        let by_number = value.as_u64().and_then(|number| BY_NUMBER.get(usize::try_from(number).ok()?));
        let filter = by_number.copied().or_else(|| Filter::named(value.as_str()?));
        filter.map(Some).ok_or_else(|| format!("resample is {value}, which is no filter of Pillow's"))
    }
}

/// Three numbers, or one for all channels.
fn triple(key: &str, value: Option<&Value>) -> Result<Option<[f64; 3]>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let list = match value {
        Value::Array(list) => {
            list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>().and_then(|list| list.try_into().ok())
        }
        value => value.as_f64().map(|number| [number; 3]),
    };
    list.map(Some).ok_or_else(|| format!("{key} is {value}, neither a number nor three"))
}

/// The share that the published classifiers keep at a resolution.
pub(crate) fn crop_pct(resolution: usize) -> f64 {
    if resolution >= 384 { 1.0 } else { 0.875 }
}

/// Reads a JSON file; `None` when there is none.
///
/// # Errors
/// When it can't be read or understood.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConvertError> {
    let config = |reason: String| ConvertError::Config { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(config(error.to_string())),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| config(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(config(format!("longer than {} MiB", MAX_BYTES >> 20)));
    }
    // As Python's reader takes them.
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).map(Some).map_err(|error| config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocessing(json: &str) -> Result<Option<Preprocessing>, String> {
        let read: Preprocessor = serde_json::from_str(json).unwrap();
        read.preprocessing().map(|found| found.map(|(preprocessing, _)| preprocessing))
    }

    #[test]
    fn sizes_of_every_style() {
        let cases = [
            (r#"{"size": 224}"#, Some((224, 0.875))),
            (r#"{"size": 384}"#, Some((384, 1.0))),
            (r#"{"size": [224, 224]}"#, Some((224, 0.875))),
            (r#"{"size": {"height": 224, "width": 224}, "crop_pct": 0.9}"#, Some((224, 0.9))),
            (
                r#"{"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}"#,
                Some((224, 0.875)),
            ),
            (r#"{"size": 256, "crop_size": 224, "do_center_crop": false}"#, Some((256, 0.875))),
            (r#"{"size": 224, "do_center_crop": true}"#, Some((224, 1.0))),
            (r#"{"crop_pct": 0.9}"#, None),
            (r#"{"size": null}"#, None),
        ];
        for (json, expected) in cases {
            let geometry = preprocessing(json).unwrap().map(|p| p.geometry);
            let expected = expected.map(|(resolution, crop_pct)| Geometry::Crop { resolution, crop_pct });
            assert_eq!(geometry, expected, "{json}");
        }
    }

    #[test]
    fn pixels_are_what_the_processor_makes_of_them() {
        let third = |x: f64| [x; 3];
        for (json, mean, std, filter) in [
            // The defaults of ViTImageProcessor.
            (r#"{"size": 224}"#, HALF, HALF, Filter::Bilinear),
            (
                r#"{"size": 224, "image_mean": 0.5, "image_std": 0.25, "resample": 3}"#,
                HALF,
                third(0.25),
                Filter::Bicubic,
            ),
            (
                r#"{"size": 224, "do_normalize": false, "image_mean": [0.1, 0.2, 0.3], "resample": 1}"#,
                third(0.0),
                third(1.0),
                Filter::Lanczos,
            ),
            (
                r#"{"size": 224, "do_rescale": false, "image_mean": 51, "image_std": 255}"#,
                third(0.2),
                third(1.0),
                Filter::Bilinear,
            ),
            (
                r#"{"size": 224, "do_rescale": false, "do_normalize": false, "resample": "box"}"#,
                third(0.0),
                third(1.0 / 255.0),
                Filter::Box,
            ),
            (
                r#"{"size": 224, "rescale_factor": 0.00392156862745098, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}"#,
                IMAGENET_MEAN,
                IMAGENET_STD,
                Filter::Bilinear,
            ),
            (
                r#"{"size": 224, "rescale_factor": 0.00784313725490196, "image_mean": 1.0, "image_std": 1.0}"#,
                HALF,
                HALF,
                Filter::Bilinear,
            ),
            (
                r#"{"size": 256, "image_processor_type": "BitImageProcessor"}"#,
                CLIP_MEAN,
                CLIP_STD,
                Filter::Bicubic,
            ),
        ] {
            let found = preprocessing(json).unwrap().unwrap();
            let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close(found.mean, mean) && close(found.std, std), "{json}: {found:?}");
            assert_eq!(found.filter, filter, "{json}");
        }
    }

    #[test]
    fn what_can_not_be_done_is_refused_by_name() {
        for (json, says) in [
            (r#"{"size": 0}"#, "size is 0, not from 1 to 8192 pixels"),
            (r#"{"size": "big"}"#, "size is \"big\", which is no size"),
            (r#"{"size": [224, 320]}"#, "size is [224,320], and only squares are taken"),
            (r#"{"size": {"longest_edge": 640}}"#, "and a longest edge is not taken"),
            (r#"{"size": 224, "do_resize": false}"#, "do_resize is false"),
            (r#"{"size": 224, "crop_size": 256}"#, "crop_size is 256, more than the size of 224"),
            (r#"{"size": 224, "crop_pct": 0}"#, "crop_pct is 0, not from 0.1 to 1"),
            (r#"{"size": 224, "image_mean": [0.5]}"#, "image_mean is [0.5], neither a number nor three"),
            (r#"{"size": 224, "resample": 9}"#, "resample is 9, which is no filter of Pillow's"),
            (r#"{"size": 224, "rescale_factor": 0}"#, "rescale_factor is 0, no positive number"),
            (
                r#"{"size": 224, "image_processor_type": "SamImageProcessor"}"#,
                "\"SamImageProcessor\" is not known",
            ),
        ] {
            let error = preprocessing(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn labels_are_dense_or_refused() {
        let labels = |json: &str| serde_json::from_str::<Config>(json).unwrap().labels();
        assert_eq!(labels(r#"{"id2label": {"1": "b", "0": "a"}}"#), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(labels(r#"{"id2label": {"0": 7, "1": 8}}"#), Ok(Some(vec!["7".into(), "8".into()])));
        assert_eq!(labels(r#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#), Ok(None));
        assert_eq!(labels(r#"{"id2label": null}"#), Ok(None));
        assert_eq!(labels(r#"{"hidden_size": 512}"#), Ok(None));
        assert!(labels(r#"{"id2label": {"0": "a", "2": "b"}}"#).unwrap_err().contains("0 to 1"));
        assert!(labels(r#"{"id2label": {"0": null}}"#).unwrap_err().contains("neither text nor a number"));
    }
}
