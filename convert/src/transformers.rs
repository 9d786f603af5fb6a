//! The JSON files beside a Transformers checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::arch::{Filter, Geometry, IMAGENET_MEAN, IMAGENET_STD, Preprocessing};
use crate::error::ConvertError;

/// Largest JSON file that is read; ImageNet-22K's labels take two megabytes.
const MAX_BYTES: u64 = 16 << 20;

/// What is used of `config.json`. Sizes come from the tensors and are only compared with these;
/// `hidden_size` is left out because it is wrong in several published files.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    pub model_type: Option<String>,
    pub embed_dim: Option<usize>,
    pub depths: Option<Vec<usize>>,
    pub num_heads: Option<Vec<usize>>,
    pub kernel_size: Option<usize>,
    pub dilations: Option<Vec<Vec<usize>>>,
    pub layer_norm_eps: Option<f64>,
    pub hidden_act: Option<String>,
    pub id2label: Option<BTreeMap<String, String>>,
}

impl Config {
    /// Class names in index order: `None` when there are none or Transformers made them up.
    ///
    /// # Errors
    /// When the indices are not 0, 1, 2, ….
    pub fn labels(&self) -> Result<Option<Vec<String>>, String> {
        let Some(map) = &self.id2label else { return Ok(None) };
        let named = |i: usize| map.get(&i.to_string()).cloned();
        let labels = (0..map.len()).map(named).collect::<Option<Vec<_>>>();
        let labels =
            labels.ok_or_else(|| format!("id2label does not number its labels 0 to {}", map.len() - 1))?;
        let made_up = labels.iter().enumerate().all(|(i, label)| *label == format!("LABEL_{i}"));
        Ok((!made_up).then_some(labels))
    }
}

/// What is used of `preprocessor_config.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Preprocessor {
    size: Option<Size>,
    crop_size: Option<Size>,
    do_center_crop: Option<bool>,
    crop_pct: Option<f64>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

/// The ways in which Transformers has written a size.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Short { shortest_edge: usize },
    Both { height: usize, width: usize },
}

impl Size {
    fn side(self) -> usize {
        match self {
            Size::Side(side) | Size::Short { shortest_edge: side } => side,
            Size::Both { height, width } => height.min(width),
        }
    }
}

impl Preprocessor {
    /// The classifier's preprocessing; `None` without a usable size.
    ///
    /// A size with a centre crop gives the crop's share; without one, the published models' rule
    /// holds: 0.875, and 1 from 384 pixels on.
    pub fn preprocessing(&self) -> Option<Preprocessing> {
        let size = self.size?.side();
        let crop = self.crop_size.filter(|_| self.do_center_crop != Some(false)).map(Size::side);
        let (resolution, share) = match crop {
            Some(crop) if crop <= size => (crop, Some(crop as f64 / size as f64)),
            _ => (size, self.crop_pct.filter(|pct| (0.1..=1.0).contains(pct))),
        };
        if !(1..=1 << 16).contains(&resolution) {
            return None;
        }
        Some(Preprocessing {
            geometry: Geometry::Crop { resolution, crop_pct: share.unwrap_or_else(|| crop_pct(resolution)) },
            mean: self.image_mean.unwrap_or(IMAGENET_MEAN),
            std: self.image_std.unwrap_or(IMAGENET_STD),
            filter: Filter::default(),
            bgr: false,
        })
    }
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
    serde_json::from_str(&text).map(Some).map_err(|error| config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_every_style() {
        let cases = [
            (r#"{"size": 224}"#, Some((224, 0.875))),
            (r#"{"size": 384}"#, Some((384, 1.0))),
            (r#"{"size": {"height": 224, "width": 224}, "crop_pct": 0.9}"#, Some((224, 0.9))),
            (
                r#"{"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}"#,
                Some((224, 0.875)),
            ),
            (r#"{"size": 256, "crop_size": 224, "do_center_crop": false}"#, Some((256, 0.875))),
            (r#"{"crop_pct": 0.9}"#, None),
            (r#"{"size": 0}"#, None),
        ];
        for (json, expected) in cases {
            let preprocessing = serde_json::from_str::<Preprocessor>(json).unwrap().preprocessing();
            let geometry = preprocessing.map(|p| p.geometry);
            let expected = expected.map(|(resolution, crop_pct)| Geometry::Crop { resolution, crop_pct });
            assert_eq!(geometry, expected, "{json}");
        }
    }

    #[test]
    fn labels_are_dense_or_refused() {
        let labels = |json: &str| serde_json::from_str::<Config>(json).unwrap().labels();
        assert_eq!(labels(r#"{"id2label": {"1": "b", "0": "a"}}"#), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(labels(r#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#), Ok(None));
        assert_eq!(labels(r#"{"hidden_size": 512}"#), Ok(None));
        assert!(labels(r#"{"id2label": {"0": "a", "2": "b"}}"#).unwrap_err().contains("0 to 1"));
    }
}
