//! The region proposal network (arXiv 1506.01497) as mmdet's `RPNHead` computes it.

use candle_core::{DType, Device, Result, Tensor};
use nat_convert::arch::Detector;

use super::boxes::{Candidate, Corners, decode, nms_on};
use crate::layers::{Conv2d, MapLayout, Window};
use crate::weights::Weights;

/// Height over width of the anchors at each position.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// Side of a square anchor in strides.
const SCALE: f32 = 8.0;
/// Candidates that a level keeps before suppression, and proposals that remain after it.
const MOST: usize = 1000;
/// IoU above which a candidate is suppressed.
const IOU_THRESHOLD: f32 = 0.7;

/// Scores and moves the anchors of every pyramid level.
pub struct Rpn {
    conv: Conv2d,
    cls: Conv2d,
    reg: Conv2d,
}

/// What the network says about one level, channels-last.
pub struct Predictions {
    /// Objectness logits, [B, H, W, 3].
    pub cls: Tensor,
    /// Deltas (dx, dy, dw, dh) of each anchor, [B, H, W, 12].
    pub reg: Tensor,
}

impl Rpn {
    /// Takes `rpn_conv`, `rpn_cls` and `rpn_reg`.
    pub fn new(config: &Detector, weights: &Weights) -> Self {
        let channels = config.fpn_channels;
        let conv = |name: &str, outputs, window| {
            Conv2d::new((channels, outputs), window, true, MapLayout::ChannelsLast, &weights.pp(name))
        };
        Self {
            conv: conv("rpn_conv", channels, Window::SAME).relu(),
            cls: conv("rpn_cls", RATIOS.len(), Window::POINT),
            reg: conv("rpn_reg", 4 * RATIOS.len(), Window::POINT),
        }
    }

    /// The predictions of one level's map [B, H, W, C].
    ///
    /// # Errors
    /// When the map has other channels.
    pub fn forward(&self, map: &Tensor) -> Result<Predictions> {
        let hidden = self.conv.forward(map, None)?;
        Ok(Predictions { cls: self.cls.forward(&hidden, None)?, reg: self.reg.forward(&hidden, None)? })
    }
}

/// The best boxes of all levels of each picture, best first, at most 1000; a box's group is its level.
/// `None` of a picture of which a prediction is no number. Levels have `strides` pixels a position; `sizes`
/// are width and height of the pictures without padding.
///
/// # Errors
/// When a tensor can't be read, or there are not as many pictures as `sizes`.
pub fn proposals(
    levels: &[Predictions],
    strides: &[usize],
    sizes: &[[f32; 2]],
) -> Result<Vec<Option<Vec<Candidate>>>> {
    let device = levels.first().map_or(&Device::Cpu, |first| first.cls.device());
    let values =
        |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>();
    let mut candidates: Vec<Option<Vec<Candidate>>> = vec![Some(Vec::new()); sizes.len()];
    for (level, (predictions, &stride)) in levels.iter().zip(strides).enumerate() {
        let (batch, _, width, _) = predictions.cls.dims4()?;
        if batch != sizes.len() {
            candle_core::bail!("predictions of {batch} pictures and {} sizes", sizes.len());
        }
        let (logits, deltas) = (values(&predictions.cls)?, values(&predictions.reg)?);
        for (candidates, ((logits, deltas), &size)) in
            candidates.iter_mut().zip(logits.iter().zip(&deltas).zip(sizes))
        {
            // They would be sorted first, and dropped later without a word.
            if !logits.iter().chain(deltas).all(|x| x.is_finite()) {
                *candidates = None;
            }
            if let Some(candidates) = candidates {
                let predictions = Flat { logits, deltas, width, stride };
                candidates.extend(predictions.best(size).map(|(corners, score)| Candidate {
                    corners,
                    score,
                    group: level,
                }));
            }
        }
    }
    let suppress = |candidates: Vec<Candidate>| {
        let mut kept = nms_on(device, &candidates, IOU_THRESHOLD)?;
        kept.truncate(MOST);
        Ok(kept.into_iter().map(|index| candidates[index]).collect())
    };
    candidates.into_iter().map(|candidates| candidates.map(suppress).transpose()).collect()
}

/// The predictions of one level of one picture: values of [H, W, 3] and [H, W, 12].
struct Flat<'a> {
    logits: &'a [f32],
    deltas: &'a [f32],
    width: usize,
    stride: usize,
}

impl Flat<'_> {
    /// The boxes of the best anchors, best first, with their scores; none that are empty.
    fn best(&self, size: [f32; 2]) -> impl Iterator<Item = (Corners, f32)> {
        let &Self { logits, deltas, width, stride } = self;
        let scores: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if order.len() > MOST {
            // Of equal scores the first anchors count.
            let best_first = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
            order.select_nth_unstable_by(MOST, best_first);
            order.truncate(MOST);
            order.sort_unstable_by(best_first);
        }
        let base = RATIOS.map(|ratio| anchor(ratio, stride as f32));
        order.into_iter().filter_map(move |index| {
            let (place, ratio) = (index / RATIOS.len(), index % RATIOS.len());
            let [x, y] = [place % width, place / width].map(|i| (i * stride) as f32);
            let [x1, y1, x2, y2] = base[ratio];
            let delta = std::array::from_fn(|i| deltas[4 * index + i]);
            let corners = decode([x1 + x, y1 + y, x2 + x, y2 + y], delta, [1.0; 4], size);
            (corners[2] > corners[0] && corners[3] > corners[1]).then_some((corners, scores[index]))
        })
    }
}

/// The anchor of a height to width `ratio` around the origin.
fn anchor(ratio: f32, stride: f32) -> Corners {
    let height = ratio.sqrt();
    let [half_w, half_h] = [1.0 / height, height].map(|side| 0.5 * (stride * side * SCALE));
    [-half_w, -half_h, half_w, half_h]
}
