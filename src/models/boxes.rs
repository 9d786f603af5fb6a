//! Boxes of detectors: decoding of regressed deltas, non-maximum suppression. Corners (x1, y1, x2, y2) in
//! pixels, arithmetic in f32 in mmdet's order: what follows jumps where boxes change order.

use candle_core::{Result, Tensor};
use nat_convert::recipe::BoxCoder;
use rayon::prelude::*;

use crate::layers::Maps;

/// Left, top, right and bottom edge.
pub type Corners = [f32; 4];

/// The largest |dw| and |dh| that are decoded: |ln(16 / 1000)|.
const MAX_LOG_RATIO: f32 = 4.135_166_6;

/// A box regressed from `anchor`: a network's `outputs` make (dx, dy, dw, dh) in units of the anchor's size as
/// `coder` says, and the box is clipped to a picture of `size` (width, height). mmdet's `delta2bbox`.
pub fn decode(anchor: Corners, outputs: [f32; 4], coder: &BoxCoder, size: [f32; 2]) -> Corners {
    let [x1, y1, x2, y2] = anchor;
    let deltas: [f32; 4] = std::array::from_fn(|i| outputs[i] * coder.stds[i] as f32 + coder.means[i] as f32);
    let mut out = [0.0; 4];
    for (axis, (low, high)) in [(x1, x2), (y1, y2)].into_iter().enumerate() {
        let (centre, side) = ((low + high) * 0.5, high - low);
        let moved = centre + side * deltas[axis];
        let log_ratio = deltas[axis + 2].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
        let half = side * log_ratio.exp() * 0.5;
        out[axis] = (moved - half).clamp(0.0, size[axis]);
        out[axis + 2] = (moved + half).clamp(0.0, size[axis]);
    }
    out
}

fn area([x1, y1, x2, y2]: Corners) -> f32 {
    (x2 - x1) * (y2 - y1)
}

/// Intersection over union; NaN of two empty boxes.
pub fn iou(a: Corners, b: Corners) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

/// A box with its score, and its group: a class or a pyramid level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The box.
    pub corners: Corners,
    /// The higher the better.
    pub score: f32,
    /// Only boxes of one group suppress each other.
    pub group: usize,
}

/// Greedy non-maximum suppression, group by group: a box goes when its IoU with a better one that stays
/// is more than `threshold`. Returns the indices that stay, best first; of equal scores the first one.
///
/// As mmcv's `batched_nms`, boxes are compared where they stand after each group was moved by its index
/// times the largest coordinate plus 1, which rounds them.
pub fn nms(candidates: &[Candidate], threshold: f32) -> Vec<usize> {
    suppress(best_first(candidates), &moved(candidates), candidates, threshold)
}

/// Of an order of boxes, best first, which stay; `moved` are all boxes where no two groups meet.
fn suppress(
    mut order: Vec<usize>,
    moved: &[Corners],
    candidates: &[Candidate],
    threshold: f32,
) -> Vec<usize> {
    let groups = candidates.iter().map(|c| c.group + 1).max().unwrap_or(0);
    let mut members = vec![Vec::new(); groups];
    for &index in &order {
        members[candidates[index].group].push(index);
    }
    let survivors = |indices: Vec<usize>| {
        let boxes: Vec<Corners> = indices.iter().map(|&index| moved[index]).collect();
        let mut gone = vec![false; boxes.len()];
        for i in 0..boxes.len() {
            if !gone[i] {
                for j in i + 1..boxes.len() {
                    gone[j] = gone[j] || iou(boxes[i], boxes[j]) > threshold;
                }
            }
        }
        indices.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(index, _)| index).collect::<Vec<_>>()
    };
    let kept: Vec<Vec<usize>> = members.into_par_iter().map(survivors).collect();
    let mut stays = vec![false; candidates.len()];
    kept.iter().flatten().for_each(|&index| stays[index] = true);
    order.retain(|&index| stays[index]);
    order
}

/// As [`nms`], compared on the device of `like` where `maps` have something of its own to do it with.
///
/// # Errors
/// When the device fails.
pub fn nms_on(maps: Maps, like: &Tensor, candidates: &[Candidate], threshold: f32) -> Result<Vec<usize>> {
    let mut order = best_first(candidates);
    let moved = moved(candidates);
    let boxes: Vec<Corners> = order.iter().map(|&index| moved[index]).collect();
    let Some(kept) = maps.kept(&boxes, threshold, like)? else {
        return Ok(suppress(order, &moved, candidates, threshold));
    };
    let mut kept = kept.into_iter();
    order.retain(|_| kept.next() == Some(true));
    Ok(order)
}

/// The indices of boxes, best first; of equal scores the first one.
fn best_first(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| candidates[b].score.total_cmp(&candidates[a].score));
    order
}

/// Boxes where no two groups meet.
fn moved(candidates: &[Candidate]) -> Vec<Corners> {
    let largest = candidates.iter().flat_map(|c| c.corners).fold(f32::NEG_INFINITY, f32::max);
    candidates.iter().map(|c| c.corners.map(|x| x + c.group as f32 * (largest + 1.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_of_zero_give_the_anchor_and_clipping_holds() {
        let stds = BoxCoder { means: [0.0; 4], stds: [0.1, 0.1, 0.2, 0.2] };
        let means = BoxCoder { means: [0.5, 0.0, 0.0, 2f64.ln()], ..stds };
        let size = [100.0, 50.0];
        for (coder, anchor, deltas, expected) in [
            (stds, [10.0, 20.0, 30.0, 40.0], [0.0; 4], [10.0, 20.0, 30.0, 40.0]),
            // 0.1 · 5 of a side to the right; e^(0.2 · 5 ln 2) = twice as high.
            (stds, [10.0, 20.0, 30.0, 40.0], [5.0, 0.0, 0.0, 5.0 * 2f32.ln()], [20.0, 10.0, 40.0, 50.0]),
            (means, [10.0, 20.0, 30.0, 40.0], [0.0; 4], [20.0, 10.0, 40.0, 50.0]),
            (means, [10.0, 20.0, 30.0, 40.0], [-5.0, 0.0, 0.0, -5.0 * 2f32.ln()], [10.0, 20.0, 30.0, 40.0]),
            (stds, [-8.0, -8.0, 8.0, 8.0], [0.0; 4], [0.0, 0.0, 8.0, 8.0]),
            (stds, [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 1e9, f32::MAX], [0.0, 0.0, 100.0, 50.0]),
        ] {
            let got = decode(anchor, deltas, &coder, size);
            let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "{got:?}, not {expected:?}");
        }
    }

    /// The definition: all pairs, in f64, no groups moved.
    fn naive(candidates: &[Candidate], threshold: f64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|&a, &b| candidates[b].score.partial_cmp(&candidates[a].score).unwrap());
        let overlap = |a: &Candidate, b: &Candidate| {
            let [a, b] = [a.corners, b.corners].map(|c| c.map(f64::from));
            let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
            let area = |c: [f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
            let shared = side(0) * side(1);
            shared / (area(a) + area(b) - shared)
        };
        let mut kept: Vec<usize> = Vec::new();
        for i in order {
            let suppresses = |&k: &usize| {
                candidates[k].group == candidates[i].group
                    && overlap(&candidates[k], &candidates[i]) > threshold
            };
            if !kept.iter().any(suppresses) {
                kept.push(i);
            }
        }
        kept
    }

    #[test]
    fn suppression_agrees_with_the_definition() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (count, groups) in [(0, 1), (1, 1), (50, 1), (300, 4), (500, 80)] {
            let candidates: Vec<Candidate> = (0..count)
                .map(|_| {
                    let [x, y, w, h] = [90.0, 90.0, 40.0, 40.0].map(|most| rng.f32() * most);
                    let corners = [x, y, x + w, y + h];
                    Candidate { corners, score: rng.f32(), group: rng.usize(0..groups) }
                })
                .collect();
            assert_eq!(nms(&candidates, 0.3), naive(&candidates, 0.3), "{count} boxes in {groups} groups");
        }
    }

    #[test]
    fn the_gpus_kernels_keep_the_same() {
        use nat_cuda::emulate::Emulator;
        use nat_cuda::regions;

        let mut rng = fastrand::Rng::with_seed(9);
        for count in [1, 2, 31, 32, 33, 64, 65, 300, 1000] {
            let candidates: Vec<Candidate> = (0..count)
                .map(|_| {
                    let [x, y, w, h] = [90.0, 90.0, 40.0, 40.0].map(|most| rng.f32() * most);
                    // Empty boxes and equal scores among them.
                    let w = if rng.u8(..) < 10 { 0.0 } else { w };
                    let score = f32::from(rng.u8(..)) / 255.0;
                    Candidate { corners: [x, y, x + w, y + h], score, group: rng.usize(0..3) }
                })
                .collect();
            let (order, moved) = (best_first(&candidates), moved(&candidates));
            let mut boxes: Vec<Corners> = order.iter().map(|&index| moved[index]).collect();
            let mut mask = vec![u32::MAX; count * regions::words(count)];
            let mut kept = vec![u32::MAX; count];
            let emulator = Emulator::get().unwrap();
            let (boxes, mask) = (boxes.as_mut_ptr().cast(), mask.as_mut_ptr().cast());
            // SAFETY: boxes, mask and result are of the launches' sizes.
            unsafe {
                emulator.launch(&regions::overlaps(count, 0.3).unwrap(), &[boxes, mask]);
                emulator.launch(&regions::suppress(count).unwrap(), &[mask, kept.as_mut_ptr().cast()]);
            }
            let got: Vec<usize> =
                order.into_iter().zip(kept).filter(|(_, k)| *k == 1).map(|(i, _)| i).collect();
            assert_eq!(got, nms(&candidates, 0.3), "{count} boxes");
        }
    }

    #[test]
    fn equal_scores_keep_their_order_and_the_threshold_is_strict() {
        let candidate = |corners| Candidate { corners, score: 0.5, group: 0 };
        // IoU 1/2 exactly.
        let pair = [candidate([0.0, 0.0, 2.0, 1.0]), candidate([0.0, 0.0, 1.0, 1.0])];
        assert_eq!(nms(&pair, 0.5), [0, 1]);
        assert_eq!(nms(&pair, 0.49), [0]);
    }
}
