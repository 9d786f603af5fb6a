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
    /// Objectness logits, [1, H, W, 3].
    pub cls: Tensor,
    /// Deltas (dx, dy, dw, dh) of each anchor, [1, H, W, 12].
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

    /// The predictions of one level's map [1, H, W, C].
    ///
    /// # Errors
    /// When the map has other channels.
    pub fn forward(&self, map: &Tensor) -> Result<Predictions> {
        let hidden = self.conv.forward(map, None)?;
        Ok(Predictions { cls: self.cls.forward(&hidden, None)?, reg: self.reg.forward(&hidden, None)? })
    }
}

/// The best boxes of all levels, best first, at most 1000; a box's group is its level. Levels have
/// `strides` pixels a position; `size` is width and height of the picture without padding.
///
/// # Errors
/// When a tensor can't be read, or holds what is no number.
pub fn proposals(levels: &[Predictions], strides: &[usize], size: [f32; 2]) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for (level, (predictions, &stride)) in levels.iter().zip(strides).enumerate() {
        let (_, _, width, _) = predictions.cls.dims4()?;
        let values =
            |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let (logits, deltas) = (values(&predictions.cls)?, values(&predictions.reg)?);
        // They would be sorted first, and dropped later without a word.
        if !logits.iter().chain(&deltas).all(|x| x.is_finite()) {
            candle_core::bail!("proposals are no numbers; a wider compute type helps if it is f16");
        }
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
        for index in order {
            let (place, ratio) = (index / RATIOS.len(), index % RATIOS.len());
            let [x, y] = [place % width, place / width].map(|i| (i * stride) as f32);
            let [x1, y1, x2, y2] = base[ratio];
            let delta = std::array::from_fn(|i| deltas[4 * index + i]);
            let corners = decode([x1 + x, y1 + y, x2 + x, y2 + y], delta, [1.0; 4], size);
            if corners[2] > corners[0] && corners[3] > corners[1] {
                candidates.push(Candidate { corners, score: scores[index], group: level });
            }
        }
    }
    let device = levels.first().map_or(&Device::Cpu, |first| first.cls.device());
    let mut kept = nms_on(device, &candidates, IOU_THRESHOLD)?;
    kept.truncate(MOST);
    Ok(kept.into_iter().map(|index| candidates[index]).collect())
}

/// The anchor of a height to width `ratio` around the origin.
fn anchor(ratio: f32, stride: f32) -> Corners {
    let height = ratio.sqrt();
    let [half_w, half_h] = [1.0 / height, height].map(|side| 0.5 * (stride * side * SCALE));
    [-half_w, -half_h, half_w, half_h]
}
