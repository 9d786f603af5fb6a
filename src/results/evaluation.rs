//! What `eval` says of a model and a dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Detection, Scored};

/// What `eval` says: one object for a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `classify`, `detect`, `segment`, `panoptic` or `knn`.
    pub task: String,
    /// The model's name; `None` of predictions that were there already.
    pub model: Option<String>,
    /// SHA-256 of the model's weights, in small hexadecimal digits: of the file, or of several files' hashes one after the
    /// other.
    pub weights_sha256: Option<String>,
    /// What decides the scores beside the images, in sixteen hexadecimal digits: weights, settings that are not of the
    /// machine, names of the classes, version. Records of another one are not added up with these.
    pub run: String,
    /// The scores.
    pub metrics: Metrics,
    /// How many images count, those that failed among them.
    pub images: usize,
    /// Images that have no answer. They count: as wrong, as without an object, as pixels of no class.
    pub failed: Vec<FailedImage>,
    /// What the scores depend on.
    pub settings: EvaluationSettings,
    /// Names and versions of what computed.
    pub versions: BTreeMap<String, String>,
    /// Seconds that the run took, without what an earlier one had done.
    pub seconds: f64,
    /// Images of this run by its seconds.
    pub images_per_second: f64,
    /// The published figures of the model by the names of ours, in the same units, where it is a published one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, f64>,
    /// The scores of each class.
    pub classes: Vec<ClassScores>,
}

/// The scores of a run over a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// Of `eval classify`.
    Classify(TopAccuracy),
    /// Of `eval knn`.
    Knn(KnnAccuracy),
    /// Of `eval segment`.
    Segment(PixelMetrics),
    /// Of `eval panoptic`.
    Panoptic(PanopticMetrics),
    /// Of `eval detect`.
    Detect(CocoMetrics),
}

impl Metrics {
    /// The single numbers by name, in the order in which they are told: `top1`, `bbox.AP`, `mIoU`, `All.PQ`, …
    pub fn figures(&self) -> Vec<(String, Option<f64>)> {
        let named = |names: &[(&str, Option<f64>)]| -> Vec<(String, Option<f64>)> {
            names.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        match self {
            Self::Classify(accuracy) => {
                let mut figures = named(&[("top1", Some(accuracy.top1)), ("top5", accuracy.top5)]);
                if accuracy.real_images.is_some() {
                    figures.extend(named(&[
                        ("real_top1", accuracy.real_top1),
                        ("real_top5", accuracy.real_top5),
                    ]));
                }
                figures
            }
            Self::Knn(accuracy) => named(&[("knn_top1", Some(accuracy.knn_top1))]),
            Self::Segment(pixels) => named(&[
                ("mIoU", pixels.mean_iou),
                ("mAcc", pixels.mean_accuracy),
                ("aAcc", pixels.all_accuracy),
            ]),
            Self::Panoptic(panoptic) => {
                [("All", panoptic.all), ("Things", panoptic.things), ("Stuff", panoptic.stuff)]
                    .into_iter()
                    .flat_map(|(of, quality)| {
                        [("PQ", quality.pq), ("SQ", quality.sq), ("RQ", quality.rq)]
                            .map(|(name, value)| (format!("{of}.{name}"), value))
                    })
                    .collect()
            }
            Self::Detect(coco) => [("bbox", &coco.bbox), ("segm", &coco.segm)]
                .into_iter()
                .filter_map(|(kind, summary)| Some((kind, summary.as_ref()?)))
                .flat_map(|(kind, summary)| {
                    summary.named().map(|(name, value)| (format!("{kind}.{name}"), Some(value)))
                })
                .collect(),
        }
    }
}

impl CocoSummary {
    /// The twelve numbers with their names, in pycocotools' order.
    pub fn named(&self) -> [(&'static str, f64); 12] {
        [
            ("AP", self.ap),
            ("AP50", self.ap50),
            ("AP75", self.ap75),
            ("APs", self.ap_small),
            ("APm", self.ap_medium),
            ("APl", self.ap_large),
            ("AR1", self.ar1),
            ("AR10", self.ar10),
            ("AR100", self.ar100),
            ("ARs", self.ar_small),
            ("ARm", self.ar_medium),
            ("ARl", self.ar_large),
        ]
    }
}

/// Shares of images in percent whose class is among the most probable ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopAccuracy {
    /// Whose class is the most probable one.
    pub top1: f64,
    /// Whose class is among the five most probable ones; `None` of predictions with fewer.
    pub top5: Option<f64>,
    /// As `top1` by reassessed labels ("ReaL", arXiv 2006.07159), of the images that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_top1: Option<f64>,
    /// As `top5` by reassessed labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_top5: Option<f64>,
    /// How many images have a reassessed label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_images: Option<usize>,
}

/// The share of images in percent whose nearest neighbours have their class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnnAccuracy {
    /// Of the class that the neighbours choose.
    pub knn_top1: f64,
    /// How many neighbours choose.
    pub neighbors: usize,
}

/// COCO's numbers for boxes and for masks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CocoMetrics {
    /// By the overlap of boxes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bbox: Option<CocoSummary>,
    /// By the overlap of masks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub segm: Option<CocoSummary>,
}

/// The twelve numbers of pycocotools' `COCOeval.summarize`, fractions from 0 to 1; -1 where there is nothing to find.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CocoSummary {
    #[serde(rename = "AP")]
    pub ap: f64,
    #[serde(rename = "AP50")]
    pub ap50: f64,
    #[serde(rename = "AP75")]
    pub ap75: f64,
    #[serde(rename = "APs")]
    pub ap_small: f64,
    #[serde(rename = "APm")]
    pub ap_medium: f64,
    #[serde(rename = "APl")]
    pub ap_large: f64,
    #[serde(rename = "AR1")]
    pub ar1: f64,
    #[serde(rename = "AR10")]
    pub ar10: f64,
    #[serde(rename = "AR100")]
    pub ar100: f64,
    #[serde(rename = "ARs")]
    pub ar_small: f64,
    #[serde(rename = "ARm")]
    pub ar_medium: f64,
    #[serde(rename = "ARl")]
    pub ar_large: f64,
}

/// What mmsegmentation's `IoUMetric` says, fractions from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelMetrics {
    /// The mean of [`iou`](Self::iou).
    #[serde(rename = "mIoU")]
    pub mean_iou: Option<f64>,
    /// The mean of [`accuracy`](Self::accuracy).
    #[serde(rename = "mAcc")]
    pub mean_accuracy: Option<f64>,
    /// The share of all pixels that have their class.
    #[serde(rename = "aAcc")]
    pub all_accuracy: Option<f64>,
    /// Intersection over union of each class; `None` of one that is neither there nor predicted.
    #[serde(rename = "IoU")]
    pub iou: Vec<Option<f64>>,
    /// The share of each class's pixels that have it; `None` of one that is not there.
    #[serde(rename = "Acc")]
    pub accuracy: Vec<Option<f64>>,
}

/// Panoptic quality over classes, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanopticMetrics {
    /// Over all classes.
    #[serde(rename = "All")]
    pub all: PanopticQuality,
    /// Over classes that can be counted.
    #[serde(rename = "Things")]
    pub things: PanopticQuality,
    /// Over the others.
    #[serde(rename = "Stuff")]
    pub stuff: PanopticQuality,
}

/// The mean over classes of panoptic quality (arXiv 1801.00868) and its two factors, in percent; `None` without a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanopticQuality {
    /// Panoptic quality.
    #[serde(rename = "PQ")]
    pub pq: Option<f64>,
    /// Segmentation quality: the overlap of the segments that were found.
    #[serde(rename = "SQ")]
    pub sq: Option<f64>,
    /// Recognition quality: how many were found.
    #[serde(rename = "RQ")]
    pub rq: Option<f64>,
    /// How many classes there are.
    pub n: usize,
}

/// The scores of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's number among the model's classes, or in the annotations where there is no model.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// How much of it there is: images of `classify` and `knn`, objects of `detect`, pixels of `segment`, segments of
    /// `panoptic`.
    pub count: u64,
    /// Its scores by name, in the units of [`Evaluation::metrics`]; `None` of what can't be said.
    pub scores: BTreeMap<String, Option<f64>>,
}

/// An image without an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedImage {
    /// The image.
    pub image: String,
    /// Why.
    pub error: String,
    /// Its class, of `classify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<usize>,
    /// Its classes as in [`JudgedImage::real`], of `classify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<Vec<usize>>,
    /// Its pixels as in [`SegmentedImage::pixels`], of `segment`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pixels: Vec<(u16, u16, u64)>,
}

/// What `eval classify` keeps of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedImage {
    /// The image.
    pub image: String,
    /// The model's name; empty of predictions that were there already.
    pub model: String,
    /// What decides the scores, see [`Evaluation::run`]; empty of predictions that were there already.
    pub run: String,
    /// Its class.
    pub class: usize,
    /// Whether that is the most probable one.
    pub right: bool,
    /// The five most probable classes, highest score first.
    pub top: Vec<Scored>,
    /// Its classes by reassessed labels, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<Vec<usize>>,
}

/// What `eval detect` keeps of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchedImage {
    /// The image.
    pub image: String,
    /// The model's name.
    pub model: String,
    /// As [`JudgedImage::run`].
    pub run: String,
    /// The image's number in the annotations.
    pub image_id: u64,
    /// The image's width in pixels.
    pub width: usize,
    /// The image's height in pixels.
    pub height: usize,
    /// What was found, highest score first, with the annotations' numbers of categories. What the annotations have no
    /// category for is left out.
    pub detections: Vec<Detection>,
}

/// What `eval segment` keeps of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentedImage {
    /// The image.
    pub image: String,
    /// The model's name; empty of predictions that were there already.
    pub model: String,
    /// As [`JudgedImage::run`].
    pub run: String,
    /// SHA-256 of the file of its label map, as [`Evaluation::weights_sha256`]; empty of predictions that were there already.
    pub labels_sha256: String,
    /// A class, what its pixels were taken for (as many as there are classes: for none), and how many of them were. The
    /// pixels that do not count are left out.
    pub pixels: Vec<(u16, u16, u64)>,
}

/// What the scores of a run depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSettings {
    /// The dataset, as it was named.
    pub data: String,
    /// The annotations, as they were named or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<String>,
    /// The predictions that were scored, where no model made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// How images become inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<String>,
    /// What is done with a camera's orientation: `apply` or `ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exif: Option<String>,
    /// The type that was computed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Where it was computed: `cpu` or `cuda`, and a CPU's instruction set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Images per forward pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// The first so many images were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The part of them that was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardNumber>,
    /// What was asked for that is not the model's own, by the options' names: scores are no published ones then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What else was chosen, by the options' names.
    #[serde(flatten)]
    pub options: BTreeMap<String, Value>,
}

/// Which part of a dataset a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardNumber {
    /// From 1.
    pub index: usize,
    /// Of so many.
    pub count: usize,
}
