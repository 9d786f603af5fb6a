//! What networks of any kind compute, stage by stage.

use candle_core::{Result, Tensor};
use nat_convert::arch::{BOX_SIDE, DetectorWidths, Head, MASK_SIDE};

use super::check::Stage;
use super::networks::NetworkCase;
use crate::layers::{Maps, on_pool};
use crate::models::boxes::{Candidate, Corners, nms_on};
use crate::models::classifier::Classifier;
use crate::models::detector::{Found, Picture};
use crate::models::mask_rcnn::MaskRcnn;
use crate::models::uper::Upernet;
use crate::weights::{LoadError, Weights};

/// As often a GPU's classifier is run: as it is, recorded, and from the record.
const RUNS: usize = 3;

/// The stages of a network of `weights` on `images` [B, 3, H, W], of which a detector takes the first.
pub(super) fn forward(case: &NetworkCase, weights: &Weights, images: &Tensor) -> Result<Vec<Stage>> {
    on_pool(images.device(), || match &case.architecture.head {
        Head::Classifier(_) | Head::Features => classifier(case, weights, images),
        Head::MaskRcnn(widths) | Head::CascadeMaskRcnn(widths) => {
            detector(case, widths, weights, &images.narrow(0, 0, 1)?)
        }
        Head::Upernet(widths) => {
            let network = Upernet::new(&case.architecture, widths, weights).map_err(unloaded)?;
            let maps = network.maps(images)?;
            let decoded = network.decode(&maps)?;
            let logits = network.classify(&decoded)?;
            Ok([numbered("map", maps), vec![named("decoded", decoded), named("logits", logits)]].concat())
        }
    })
}

/// The gradient of logits with respect to `images`, of a classifier.
pub(super) fn backward(case: &NetworkCase, weights: &Weights, images: &Tensor) -> Result<Vec<Stage>> {
    let network = Classifier::new(&case.architecture, weights).map_err(unloaded)?;
    // Another class for each image.
    let classes: Vec<u32> = (0..images.dim(0)? as u32).collect();
    Ok(vec![named("images", network.gradients(images, &classes)?)])
}

fn classifier(case: &NetworkCase, weights: &Weights, images: &Tensor) -> Result<Vec<Stage>> {
    let network = Classifier::new(&case.architecture, weights).map_err(unloaded)?;
    let features = network.features(images)?;
    let mut stages = numbered("stage", features.stages);
    stages.extend(features.pooled.map(|pooled| named("pooled", pooled)));
    stages.extend(features.logits.map(|logits| named("logits", logits)));
    let image = images.narrow(0, 0, 1)?;
    let mut logits = network.forward(&image)?;
    for run in 1..=RUNS {
        // Elsewhere all runs are alike.
        if run > 1 && images.device().is_cuda() {
            logits = network.forward(&image)?;
        }
        stages.push((format!("logits of one, run {run}"), logits.clone()));
    }
    Ok(stages)
}

fn detector(
    case: &NetworkCase,
    widths: &DetectorWidths,
    weights: &Weights,
    image: &Tensor,
) -> Result<Vec<Stage>> {
    let network = MaskRcnn::new(&case.architecture, widths, weights).map_err(unloaded)?;
    let [height, width] = case.size.map(|side| side as f32);
    let picture = Picture { size: [width, height], scale_factor: [1.0, 1.0] };
    let maps = network.maps(image)?;
    let pyramid = network.pyramid(&maps)?;
    let predictions = network.predict(&pyramid)?;
    let mut stages = [numbered("map", maps), numbered("pyramid map", pyramid.clone())].concat();
    for (level, predictions) in (1..).zip(predictions) {
        stages.push((format!("objectness {level}"), predictions.cls));
        stages.push((format!("deltas {level}"), predictions.reg));
    }
    let rois = if widths.stages > 1 { &SMALL_REGIONS[..] } else { &REGIONS[..] };
    for side in [BOX_SIDE, MASK_SIDE] {
        stages.push((format!("regions of {side}"), network.features(&pyramid, rois, side)?));
    }
    let regions = network.regions(&pyramid, rois.to_vec(), picture)?;
    for (stage, (logits, deltas)) in (1..).zip(regions.logits.into_iter().zip(regions.deltas)) {
        stages.push((format!("box logits {stage}"), Tensor::new(logits, &candle_core::Device::Cpu)?));
        stages.push((format!("box deltas {stage}"), Tensor::new(deltas, &candle_core::Device::Cpu)?));
    }
    let found = |(i, &corners): (usize, &Corners)| Found { index: i % widths.classes, score: 1.0, corners };
    let found: Vec<Found> = rois.iter().enumerate().map(found).collect();
    stages.extend(numbered("masks", network.masks(&pyramid, &found, picture)?));
    stages.push(named("suppression", suppression(weights, &pyramid[0])?));
    Ok(stages)
}

/// Regions in pixels, on all maps: inside, beyond the border, long ones.
const REGIONS: [Corners; 6] = [
    [3.3, 7.7, 12.1, 18.2],
    [20.5, 10.5, 45.2, 33.1],
    [-9.0, -5.0, 30.5, 60.0],
    [1.5, 2.5, 94.5, 63.5],
    [50.0, 41.0, 103.0, 71.0],
    [10.0, 30.0, 90.0, 41.0],
];

/// Regions of which no bin is larger than a position, moved by deltas or not: the number of samples in a bin jumps
/// there, and what jumps can't be compared after a region was moved a little differently.
const SMALL_REGIONS: [Corners; 3] =
    [[13.0, 9.0, 17.0, 13.5], [40.2, 30.1, 44.6, 34.0], [70.5, 50.5, 74.9, 54.3]];

/// Which of many boxes are kept, 1 or 0: squares along a diagonal, each of which overlaps the next ones. The reference is
/// decided on the CPU.
fn suppression(weights: &Weights, like: &Tensor) -> Result<Tensor> {
    const BOXES: u16 = 150;
    /// Between the overlaps that there are: squares of 40 that are a multiple of 3 apart.
    const THRESHOLD: f32 = 0.5;
    let candidates: Vec<Candidate> = (0..BOXES)
        .map(|i| {
            // In an order that is not that of the places.
            let place = 3.0 * f32::from(i * 37 % BOXES);
            let corners = [place, place, place + 40.0, place + 40.0];
            Candidate { corners, score: 1.0 - f32::from(i) / 1000.0, group: usize::from(i % 2) }
        })
        .collect();
    let kept = nms_on(Maps::new(weights), like, &candidates, THRESHOLD)?;
    let mut decisions = vec![0f32; candidates.len()];
    kept.into_iter().for_each(|index| decisions[index] = 1.0);
    let count = decisions.len();
    Tensor::from_vec(decisions, count, &candle_core::Device::Cpu)
}

fn named(name: &str, x: Tensor) -> Stage {
    (name.to_owned(), x)
}

fn numbered(name: &str, tensors: Vec<Tensor>) -> Vec<Stage> {
    (1..).zip(tensors).map(|(i, x): (usize, _)| (format!("{name} {i}"), x)).collect()
}

fn unloaded(error: LoadError) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}
