//! How pixels become the input of a network.

use serde::{Deserialize, Serialize};

use crate::recipe::is_default;

/// How pixels become the network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Resize and crop.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Means on 0..1 of the network's channels.
    pub mean: [f64; 3],
    /// Standard deviations on 0..1 of the network's channels.
    pub std: [f64; 3],
    /// How a crop's picture is resized, as Pillow does; [`Geometry::Scale`] is OpenCV's bilinear resize.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: Filter,
    /// Whether the network's channels are blue, green and red; usually they are red, green and blue.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bgr: bool,
}

/// The kernel of a resize, by Pillow's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Filter {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    #[default]
    Bicubic,
    Lanczos,
}

impl Filter {
    /// The filter of a name, whatever its case: `bicubic`, `LANCZOS`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "nearest" => Self::Nearest,
            "box" => Self::Box,
            "bilinear" => Self::Bilinear,
            "hamming" => Self::Hamming,
            "bicubic" => Self::Bicubic,
            "lanczos" => Self::Lanczos,
            _ => return None,
        })
    }
}

/// Largest side in pixels that a picture is resized to.
pub const MAX_SIDE: usize = 1 << 13;

/// The resize that a task's reference does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Geometry {
    /// Classification: short side to floor(resolution / crop_pct), centre crop.
    Crop {
        /// Side of the square input in pixels.
        resolution: usize,
        /// Share of the resized short side that the crop keeps.
        crop_pct: f64,
    },
    /// Detection and segmentation: keep the ratio, fit into long x short.
    Scale {
        /// Bounds of the long and the short side in pixels.
        scale: [usize; 2],
        /// Zeros are added at the right and the bottom up to multiples of this: 32 for detection, 1 for
        /// segmentation.
        #[serde(default = "one")]
        divisor: usize,
        /// Whether the picture keeps its ratio; if not, its width and height become the two of `scale`.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        keep_ratio: bool,
    },
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Geometry {
    /// What mmdet's configurations do with a picture.
    pub fn detection(scale: [usize; 2]) -> Self {
        Self::Scale { scale, divisor: 32, keep_ratio: true }
    }

    /// What mmseg's configurations do with a picture.
    pub fn segmentation(scale: [usize; 2]) -> Self {
        Self::Scale { scale, divisor: 1, keep_ratio: true }
    }
}

/// ImageNet's channel means, on 0..1.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// ImageNet's channel standard deviations, on 0..1.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preprocessing {
    /// `geometry` with ImageNet's normalisation, which every published checkpoint uses.
    pub fn imagenet(geometry: Geometry) -> Self {
        Self { geometry, mean: IMAGENET_MEAN, std: IMAGENET_STD, filter: Filter::default(), bgr: false }
    }
}
