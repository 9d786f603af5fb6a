//! How a network answers where its tensors leave a choice: numbers that a checkpoint's configuration says and
//! its weights do not. The defaults are those of the published checkpoints.
//!
//! Whoever computes a network follows every field: none of these types is `#[non_exhaustive]`, as [`crate::arch`] says.
//!
//! Sources of names and meanings: mmdetection 2.28 and 3.3, mmsegmentation 0.30 and 1.2, Transformers 4.49.

use serde::{Deserialize, Serialize};

/// The epsilon of every norm in the published checkpoints.
pub const EPSILON: f64 = 1e-5;

/// What a configuration chooses. Of the parts for a head, the network's own counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Added to the variance in the norms of the blocks, and in the one after the last level. The norms of
    /// the patch embedding, of downsamplers and of a detector's or segmenter's outputs have [`EPSILON`].
    #[serde(skip_serializing_if = "is_epsilon")]
    pub norm_epsilon: f64,
    /// Added to the variance in every BatchNorm.
    #[serde(skip_serializing_if = "is_epsilon")]
    pub batch_norm_epsilon: f64,
    /// What a query's products with its keys are multiplied by; `None` is dim^−½ of a head's channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_scale: Option<f64>,
    /// What a classifier's logits become.
    #[serde(skip_serializing_if = "is_default")]
    pub scores: Scores,
    /// Of Mask R-CNN and Cascade Mask R-CNN.
    #[serde(skip_serializing_if = "is_default")]
    pub detector: DetectorRecipe,
    /// Of UPerNet.
    #[serde(skip_serializing_if = "is_default")]
    pub segmenter: SegmenterRecipe,
}

/// What logits become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// Probabilities of classes of which one holds: they add up to 1.
    #[default]
    Softmax,
    /// The probability of each class by itself: several may hold, or none; and a single logit.
    Sigmoid,
}

/// How a two-stage detector proposes, moves and selects boxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorRecipe {
    /// The boxes that proposals start from.
    pub anchors: Anchors,
    /// The region proposal network.
    pub proposals: Proposals,
    /// The deltas of each stage's box head; of more than the network has stages, the first ones count.
    pub stages: Vec<BoxCoder>,
    /// Square root of the area, in pixels of the resized picture, from which a region takes its features from
    /// the second finest map at twice this.
    pub finest_scale: f64,
    /// A class of a region counts when its probability is more than this.
    pub score_threshold: f64,
    /// IoU above which a detection suppresses worse ones of its class.
    pub iou_threshold: f64,
    /// The best so many detections are kept.
    pub max_detections: usize,
    /// A pixel belongs to an object when its probability is at least this.
    pub mask_threshold: f64,
}

/// Anchors at every position of every map of the pyramid: of each ratio, one of each scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Anchors {
    /// Sides of a square anchor, in base sizes.
    pub scales: Vec<f64>,
    /// Height over width.
    pub ratios: Vec<f64>,
    /// Base size of each map in pixels, finest first.
    pub base_sizes: Vec<f64>,
    /// Where in its position an anchor is centred, 0 to 1, in base sizes from the position's corner.
    pub center_offset: f64,
}

impl Anchors {
    /// Anchors at a position.
    pub fn count(&self) -> usize {
        self.scales.len() * self.ratios.len()
    }
}

/// Which boxes the region proposal network hands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proposals {
    /// The deltas that move anchors.
    pub coder: BoxCoder,
    /// The best so many anchors of each map are looked at.
    pub per_map: usize,
    /// IoU above which a proposal suppresses worse ones of its map.
    pub iou_threshold: f64,
    /// Boxes with a side of at most this many pixels are dropped.
    pub smallest: f64,
    /// The best so many proposals of a picture are kept.
    pub most: usize,
}

/// Deltas (dx, dy, dw, dh) of a network's outputs: output · deviation + mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxCoder {
    /// Target means.
    #[serde(skip_serializing_if = "is_default")]
    pub means: [f64; 4],
    /// Target standard deviations.
    pub stds: [f64; 4],
}

/// How UPerNet pools, resizes and decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmenterRecipe {
    /// Sides of the pooled maps.
    pub pool_scales: Vec<usize>,
    /// Whether maps are resized with their corners' centres on each other, PyTorch's `align_corners`.
    pub align_corners: bool,
    /// Of a network with one output: its second class is where the probability is more than this.
    pub threshold: f64,
    /// The picture is looked at through a window that moves over it, and not as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<SlidingWindow>,
}

/// A window that moves over a picture; where windows overlap, their logits are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Height and width in pixels of the resized picture.
    pub crop: [usize; 2],
    /// Steps down and to the right in pixels, at most the window's sides.
    pub stride: [usize; 2],
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            norm_epsilon: EPSILON,
            batch_norm_epsilon: EPSILON,
            query_scale: None,
            scores: Scores::default(),
            detector: DetectorRecipe::default(),
            segmenter: SegmenterRecipe::default(),
        }
    }
}

impl Default for DetectorRecipe {
    /// As the published Mask R-CNN and Cascade Mask R-CNN were trained and tested.
    fn default() -> Self {
        let stage =
            |[center, side]: [f64; 2]| BoxCoder { means: [0.0; 4], stds: [center, center, side, side] };
        Self {
            anchors: Anchors::default(),
            proposals: Proposals::default(),
            stages: [[0.1, 0.2], [0.05, 0.1], [0.033, 0.067]].map(stage).to_vec(),
            finest_scale: 56.0,
            score_threshold: 0.05,
            iou_threshold: 0.5,
            max_detections: 100,
            mask_threshold: 0.5,
        }
    }
}

impl Default for Anchors {
    fn default() -> Self {
        Self {
            scales: vec![8.0],
            ratios: vec![0.5, 1.0, 2.0],
            base_sizes: vec![4.0, 8.0, 16.0, 32.0, 64.0],
            center_offset: 0.0,
        }
    }
}

impl Default for Proposals {
    fn default() -> Self {
        Self { coder: BoxCoder::default(), per_map: 1000, iou_threshold: 0.7, smallest: 0.0, most: 1000 }
    }
}

impl Default for BoxCoder {
    /// Outputs are deltas as they are.
    fn default() -> Self {
        Self { means: [0.0; 4], stds: [1.0; 4] }
    }
}

impl Default for SegmenterRecipe {
    fn default() -> Self {
        Self { pool_scales: vec![1, 2, 3, 6], align_corners: false, threshold: 0.3, window: None }
    }
}

fn is_epsilon(epsilon: &f64) -> bool {
    *epsilon == EPSILON
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
