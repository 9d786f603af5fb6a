//! The region proposal network (arXiv 1506.01497) as mmdet's `RPNHead` computes it.

use candle_core::{DType, Device, Result, Tensor};
use nat_convert::arch::RpnSpec;
use nat_convert::recipe::{Anchors, DetectorRecipe, Proposals};

use super::boxes::{Candidate, Corners, decode, nms_on};
use crate::layers::{Conv2d, ConvParts, MapLayout, Maps};
use crate::weights::Weights;

/// Scores and moves the anchors of every pyramid level.
pub struct Rpn {
    conv: Conv2d,
    cls: Conv2d,
    reg: Conv2d,
}

/// What the network says about one level, channels-last.
pub struct Predictions {
    /// Objectness logits, [B, H, W, anchors].
    pub cls: Tensor,
    /// What makes the deltas (dx, dy, dw, dh) of each anchor, [B, H, W, 4 · anchors].
    pub reg: Tensor,
}

impl Rpn {
    /// Takes the tensors that `spec` names.
    pub fn new(spec: &RpnSpec, weights: &Weights) -> Self {
        let take = |conv| ConvParts::take(conv, MapLayout::ChannelsLast, weights);
        Self {
            conv: Conv2d::of(take(&spec.conv).relu(), weights),
            cls: Conv2d::of(take(&spec.cls), weights),
            reg: Conv2d::of(take(&spec.reg), weights),
        }
    }

    /// The predictions of one level's map [B, H, W, C].
    ///
    /// # Errors
    /// When the map has other channels.
    pub fn forward(&self, map: &Tensor) -> Result<Predictions> {
        let hidden = self.conv.forward(map)?;
        Ok(Predictions { cls: self.cls.forward(&hidden)?, reg: self.reg.forward(&hidden)? })
    }
}

/// The best boxes of all levels of each picture, best first, as many as the recipe keeps; a box's group is its
/// level. `None` of a picture of which a prediction is no number. Levels have `strides` pixels a position; `sizes`
/// are width and height of the pictures without padding.
///
/// # Errors
/// When a tensor can't be read, the recipe has other anchors, or there are not as many pictures as `sizes`.
pub fn proposals(
    maps: Maps,
    recipe: &DetectorRecipe,
    levels: &[Predictions],
    strides: &[usize],
    sizes: &[[f32; 2]],
) -> Result<Vec<Option<Vec<Candidate>>>> {
    let Some(first) = levels.first() else { return Ok(vec![Some(Vec::new()); sizes.len()]) };
    let values =
        |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>();
    let mut candidates: Vec<Option<Vec<Candidate>>> = vec![Some(Vec::new()); sizes.len()];
    let DetectorRecipe { anchors, proposals, .. } = recipe;
    if levels.len() > anchors.base_sizes.len() {
        candle_core::bail!("anchors of {} maps for a pyramid of {}", anchors.base_sizes.len(), levels.len());
    }
    let bases = anchors.base_sizes.iter().map(|&size| at_origin(anchors, size as f32));
    for (level, ((predictions, base), &stride)) in levels.iter().zip(bases).zip(strides).enumerate() {
        let (batch, _, width, count) = predictions.cls.dims4()?;
        if count != base.len() {
            candle_core::bail!("predictions of {count} anchors at a position, the recipe has {}", base.len());
        }
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
                let predictions = Flat { logits, deltas, base: &base, width, stride };
                candidates.extend(predictions.best(proposals, size).map(|(corners, score)| Candidate {
                    corners,
                    score,
                    group: level,
                }));
            }
        }
    }
    let suppress = |candidates: Vec<Candidate>| {
        let mut kept = nms_on(maps, &first.cls, &candidates, proposals.iou_threshold as f32)?;
        kept.truncate(proposals.most);
        Ok(kept.into_iter().map(|index| candidates[index]).collect())
    };
    candidates.into_iter().map(|candidates| candidates.map(suppress).transpose()).collect()
}

/// The predictions of one level of one picture: values of [H, W, anchors] and [H, W, 4 · anchors].
struct Flat<'a> {
    logits: &'a [f32],
    deltas: &'a [f32],
    /// The anchors around the origin.
    base: &'a [Corners],
    width: usize,
    stride: usize,
}

impl Flat<'_> {
    /// The boxes of the best anchors, best first, with their scores; none that are too small.
    fn best(&self, recipe: &Proposals, size: [f32; 2]) -> impl Iterator<Item = (Corners, f32)> {
        let &Self { logits, deltas, base, width, stride } = self;
        let &Proposals { coder, per_map, smallest, .. } = recipe;
        let scores: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if order.len() > per_map {
            // Of equal scores the first anchors count.
            let best_first = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
            order.select_nth_unstable_by(per_map, best_first);
            order.truncate(per_map);
            order.sort_unstable_by(best_first);
        }
        order.into_iter().filter_map(move |index| {
            let (place, kind) = (index / base.len(), index % base.len());
            let [x, y] = [place % width, place / width].map(|i| (i * stride) as f32);
            let [x1, y1, x2, y2] = base[kind];
            let delta = std::array::from_fn(|i| deltas[4 * index + i]);
            let corners = decode([x1 + x, y1 + y, x2 + x, y2 + y], delta, &coder, size);
            let side = |axis: usize| corners[axis + 2] - corners[axis];
            (side(0) > smallest as f32 && side(1) > smallest as f32).then_some((corners, scores[index]))
        })
    }
}

/// The anchors of a map around the origin: of each ratio, one of each scale. mmdet's
/// `gen_single_level_base_anchors`.
fn at_origin(anchors: &Anchors, base_size: f32) -> Vec<Corners> {
    let centre = anchors.center_offset as f32 * base_size;
    let of_ratio = |&ratio: &f64| {
        let height = (ratio as f32).sqrt();
        anchors.scales.iter().map(move |&scale| {
            let [half_w, half_h] = [1.0 / height, height].map(|side| 0.5 * (base_size * side * scale as f32));
            [centre - half_w, centre - half_h, centre + half_w, centre + half_h]
        })
    };
    anchors.ratios.iter().flat_map(of_ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Area and ratio of each, in f64, and the order of ratios before scales.
    #[test]
    fn anchors_are_those_of_the_definition() {
        let other = Anchors {
            scales: vec![2.0, 4.5, 16.0],
            ratios: vec![2.0, 0.3],
            base_sizes: vec![5.0],
            center_offset: 0.5,
        };
        for (anchors, base) in [(Anchors::default(), 16.0), (other, 5.0)] {
            let got = at_origin(&anchors, base as f32);
            assert_eq!(got.len(), anchors.count());
            for (i, got) in got.into_iter().enumerate() {
                let ratio = anchors.ratios[i / anchors.scales.len()];
                let side: f64 = base * anchors.scales[i % anchors.scales.len()];
                let (w, h) = (side / ratio.sqrt(), side * ratio.sqrt());
                let centre = base * anchors.center_offset;
                let want = [centre - w / 2.0, centre - h / 2.0, centre + w / 2.0, centre + h / 2.0];
                let off = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(off < 1e-4, "anchor {i}: {got:?}, not {want:?}");
            }
        }
    }

    fn maps() -> Maps {
        Maps::new(&Weights::random(1, DType::F32, Device::Cpu))
    }

    /// Random predictions of two maps.
    fn predictions(anchors: usize) -> Vec<Predictions> {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut random = |spread: f32, [h, w]: [usize; 2], count: usize| {
            let values = (0..h * w * count).map(|_| spread * (2.0 * rng.f32() - 1.0)).collect();
            Tensor::from_vec(values, (1, h, w, count), &Device::Cpu).unwrap()
        };
        let map = |size| Predictions { cls: random(3.0, size, anchors), reg: random(0.5, size, 4 * anchors) };
        [[24, 32], [12, 16]].map(map).into()
    }

    #[test]
    fn proposals_are_as_many_and_as_large_as_the_recipe_says() {
        let predictions = predictions(3);
        let run = |alter: &dyn Fn(&mut Proposals)| {
            let mut recipe = DetectorRecipe::default();
            alter(&mut recipe.proposals);
            proposals(maps(), &recipe, &predictions, &[4, 8], &[[128.0, 96.0]]).unwrap().remove(0).unwrap()
        };
        let usual = run(&|_| ());
        assert!(usual.len() > 60);
        assert_eq!(run(&|p| p.most = 50), usual[..50]);
        let few = run(&|p| p.per_map = 20);
        assert!([0, 1].iter().all(|level| few.iter().filter(|c| c.group == *level).count() <= 20));
        assert_eq!(few[0], usual[0]);
        // With nothing suppressed: of each map its best anchors.
        let all = run(&|p| (p.per_map, p.iou_threshold, p.most) = (20, 1.0, usize::MAX));
        // But those that were clipped away.
        assert!((30..=40).contains(&all.len()), "{}", all.len());
        assert!(usual.len() < run(&|p| p.iou_threshold = 0.9).len());
        // Before suppression: exactly those of all that are larger.
        let large = |c: &Candidate| {
            let [x1, y1, x2, y2] = c.corners;
            x2 - x1 > 24.0 && y2 - y1 > 24.0
        };
        let larger = run(&|p| (p.per_map, p.iou_threshold, p.most, p.smallest) = (20, 1.0, usize::MAX, 24.0));
        assert_eq!(larger, all.iter().copied().filter(large).collect::<Vec<_>>());
        assert!(larger.len() < all.len() && !larger.is_empty());
        // A side of exactly so much is too small.
        let [x1, _, x2, _] = larger[0].corners;
        let width = f64::from(x2 - x1);
        let strict =
            run(&|p| (p.per_map, p.iou_threshold, p.most, p.smallest) = (20, 1.0, usize::MAX, width));
        assert!(!strict.contains(&larger[0]));
    }

    #[test]
    fn a_recipe_for_other_maps_is_an_error() {
        let run = |alter: &dyn Fn(&mut Anchors)| {
            let mut recipe = DetectorRecipe::default();
            alter(&mut recipe.anchors);
            proposals(maps(), &recipe, &predictions(3), &[4, 8], &[[128.0, 96.0]]).unwrap_err().to_string()
        };
        let error = run(&|anchors| anchors.scales.push(4.0));
        assert!(error.contains("predictions of 3 anchors at a position, the recipe has 6"), "{error}");
        let error = run(&|anchors| anchors.base_sizes.truncate(1));
        assert!(error.contains("anchors of 1 maps for a pyramid of 2"), "{error}");
    }
}
