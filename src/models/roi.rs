//! Features of regions: RoIAlign (arXiv 1703.06870) as mmcv computes it with `aligned=True` and an adaptive
//! sampling grid, and the rule that chooses the pyramid level.

#[cfg(feature = "cuda")]
use candle_core::Shape;
use candle_core::{Device, Result, Tensor};
#[cfg(feature = "cuda")]
use nat_cuda::regions;
use rayon::prelude::*;

use super::boxes::Corners;
use crate::layers::with_all_f32;

/// One pyramid level of one picture: values [height, width, channels].
struct Map<'a> {
    values: &'a [f32],
    height: usize,
    width: usize,
    channels: usize,
    /// Positions a pixel.
    scale: f32,
}

/// The level of the pyramid, of `levels`, that a region's features come from: the second finest from a side of
/// twice `finest_scale` on.
pub fn level([x1, y1, x2, y2]: Corners, levels: usize, finest_scale: f32) -> usize {
    let scale = ((x2 - x1) * (y2 - y1)).sqrt();
    let level = (scale / finest_scale + 1e-6).log2().floor();
    // Also NaN, of a box turned inside out, to the finest.
    level.max(0.0).min(levels as f32 - 1.0) as usize
}

/// Features of regions `rois`, in pixels, from the pyramid maps [1, H, W, C] of `strides`, each from the one that
/// [`level`] says: [rois, `side`, `side`, C].
///
/// # Errors
/// When the maps are not those of one picture.
pub fn roi_align(
    maps: &[Tensor],
    strides: &[usize],
    rois: &[Corners],
    finest_scale: f32,
    side: usize,
) -> Result<Tensor> {
    let Some(first) = maps.first() else { candle_core::bail!("regions of no maps") };
    #[cfg(feature = "cuda")]
    if first.device().is_cuda() {
        return on_gpu(maps, strides, rois, finest_scale, side);
    }
    let channels = first.dims4()?.3;
    let values = with_all_f32(maps, |values| {
        let mut levels = Vec::with_capacity(maps.len());
        for ((map, values), &stride) in maps.iter().zip(values).zip(strides) {
            let (batch, height, width, c) = map.dims4()?;
            if batch != 1 || c != channels || height == 0 || width == 0 {
                candle_core::bail!("regions of one picture got a map of {:?}", map.shape());
            }
            levels.push(Map { values, height, width, channels, scale: 1.0 / stride as f32 });
        }
        let mut out = vec![0.0; rois.len() * side * side * channels];
        out.par_chunks_exact_mut((side * side * channels).max(1))
            .zip(rois)
            .for_each(|(out, &roi)| levels[level(roi, levels.len(), finest_scale)].align(roi, side, out));
        Ok(out)
    })??;
    Tensor::from_vec(values, (rois.len(), side, side, channels), &Device::Cpu)?.to_device(first.device())
}

/// As [`roi_align`], of maps on a GPU, where the result stays.
#[cfg(feature = "cuda")]
fn on_gpu(
    maps: &[Tensor],
    strides: &[usize],
    rois: &[Corners],
    finest_scale: f32,
    side: usize,
) -> Result<Tensor> {
    let maps = maps.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let channels = maps[0].dims4()?.3;
    let mut levels = Vec::with_capacity(maps.len());
    for (map, &stride) in maps.iter().zip(strides) {
        let (batch, height, width, c) = map.dims4()?;
        if batch != 1 || c != channels || height == 0 || width == 0 || map.dtype() != maps[0].dtype() {
            candle_core::bail!("regions of one picture got a map of {:?}", map.shape());
        }
        levels.push(regions::Level { height, width, stride });
    }
    // The kernel takes as many maps as the published pyramids have: of fewer the last one stands in.
    let at = |level: usize| level.min(levels.len() - 1);
    if levels.len() > regions::LEVELS {
        candle_core::bail!("regions of {} maps: a GPU takes {}", levels.len(), regions::LEVELS);
    }
    let shape = Shape::from((rois.len(), side, side, channels));
    if rois.is_empty() {
        return Tensor::zeros(shape, maps[0].dtype(), maps[0].device());
    }
    let rois = Tensor::from_vec(rows(rois, levels.len(), finest_scale), (rois.len(), 5), maps[0].device())?;
    let inputs: [&Tensor; regions::LEVELS] = std::array::from_fn(|level| &maps[at(level)]);
    let inputs = inputs.into_iter().chain([&rois]).map(Some).collect::<Vec<_>>();
    let (element, levels) =
        (crate::cuda::element(maps[0].dtype())?, std::array::from_fn(|level| levels[at(level)]));
    crate::cuda::tensor_of(maps[0].dtype(), &inputs, &shape, |_| {
        regions::roi_align(element, levels, channels, shape.dims()[0], side)
    })
}

/// Regions as the GPU's kernel takes them, [rois, 5]: level, x1, y1, x2, y2.
#[cfg(any(test, feature = "cuda"))]
fn rows(rois: &[Corners], levels: usize, finest_scale: f32) -> Vec<f32> {
    let row = |&roi: &Corners| std::iter::once(level(roi, levels, finest_scale) as f32).chain(roi);
    rois.iter().flat_map(row).collect()
}

/// What one bin takes of one axis: positions and their weights.
type Bin = Vec<(usize, f32)>;

impl Map<'_> {
    /// Adds the features of `roi` to `out` [side, side, channels].
    fn align(&self, [x1, y1, x2, y2]: Corners, side: usize, out: &mut [f32]) {
        // A sample is bilinear and a bin their mean, so both are a product of one weight for each axis.
        let rows = bins(y1 * self.scale - 0.5, y2 * self.scale - 0.5, side, self.height);
        let columns = bins(x1 * self.scale - 0.5, x2 * self.scale - 0.5, side, self.width);
        let mut out = out.chunks_exact_mut(self.channels);
        for row in &rows {
            for column in &columns {
                let Some(out) = out.next() else { return };
                for &(y, wy) in row {
                    for &(x, wx) in column {
                        let weight = wy * wx;
                        let from = &self.values[(y * self.width + x) * self.channels..][..self.channels];
                        for (out, &value) in out.iter_mut().zip(from) {
                            *out += weight * value;
                        }
                    }
                }
            }
        }
    }
}

/// The bins of an axis of `size` positions between `start` and `end`: the mean over ceil(bin) samples in each,
/// each sample spread over its two neighbours, or nothing more than one position outside.
fn bins(start: f32, end: f32, count: usize, size: usize) -> Vec<Bin> {
    let bin = (end - start) / count as f32;
    let grid = bin.ceil() as usize;
    let last = size - 1;
    let taps = |p: usize| {
        let mut taps: Bin = Vec::with_capacity(grid + 1);
        let mut add = |at: usize, weight: f32| match taps.iter_mut().rev().take(2).find(|(i, _)| *i == at) {
            Some((_, sum)) => *sum += weight,
            None => taps.push((at, weight)),
        };
        for i in 0..grid {
            let place = start + p as f32 * bin + (i as f32 + 0.5) * bin / grid as f32;
            if place < -1.0 || place > size as f32 {
                continue;
            }
            let place = place.max(0.0);
            let low = place as usize;
            if low >= last {
                add(last, 1.0);
            } else {
                let part = place - low as f32;
                add(low, 1.0 - part);
                add(low + 1, part);
            }
        }
        taps.iter_mut().for_each(|(_, weight)| *weight /= grid as f32);
        taps
    };
    (0..count).map(taps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINEST: f32 = 56.0;

    #[test]
    fn levels_double_from_the_finest_scale() {
        for (side, expected) in
            [(0.0, 0), (55.0, 0), (111.9, 0), (112.1, 1), (224.1, 2), (448.1, 3), (9e3, 3)]
        {
            for times in [1.0, 0.5, 3.0] {
                let corners = [10.0, 20.0, 10.0 + times * side, 20.0 + times * side];
                assert_eq!(level(corners, 4, times * FINEST), expected, "{side}, {times} times");
            }
        }
        assert_eq!(level([5.0, 5.0, 1.0, 9.0], 4, FINEST), 0);
    }

    /// mmcv's loops, one sample after the other, in f64.
    fn naive(map: &[f64], [h, w]: [usize; 2], scale: f64, roi: Corners, side: usize) -> Vec<f64> {
        let [x1, y1, x2, y2] = roi.map(|x| f64::from(x) * scale - 0.5);
        let (bin_w, bin_h) = ((x2 - x1) / side as f64, (y2 - y1) / side as f64);
        let grid = [bin_h, bin_w].map(|bin| bin.ceil() as usize);
        let sample = |y: f64, x: f64| {
            if y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 {
                return 0.0;
            }
            let split = |v: f64, n: usize| {
                let low = (v.max(0.0) as usize).min(n - 1);
                if low == n - 1 { (low, low, 0.0) } else { (low, low + 1, v.max(0.0) - low as f64) }
            };
            let ((y0, y1, fy), (x0, x1, fx)) = (split(y, h), split(x, w));
            let at = |y: usize, x: usize| map[y * w + x];
            (1.0 - fy) * ((1.0 - fx) * at(y0, x0) + fx * at(y0, x1))
                + fy * ((1.0 - fx) * at(y1, x0) + fx * at(y1, x1))
        };
        let mut out = Vec::new();
        for py in 0..side {
            for px in 0..side {
                let mut sum = 0.0;
                for iy in 0..grid[0] {
                    for ix in 0..grid[1] {
                        let y = y1 + py as f64 * bin_h + (iy as f64 + 0.5) * bin_h / grid[0] as f64;
                        let x = x1 + px as f64 * bin_w + (ix as f64 + 0.5) * bin_w / grid[1] as f64;
                        sum += sample(y, x);
                    }
                }
                out.push(sum / (grid[0] * grid[1]).max(1) as f64);
            }
        }
        out
    }

    #[test]
    fn regions_agree_with_sample_by_sample_inside_and_outside() {
        let (h, w, channels) = (9, 13, 2);
        let mut rng = fastrand::Rng::with_seed(3);
        let values: Vec<f32> = (0..h * w * channels).map(|_| rng.f32()).collect();
        let map = Tensor::from_vec(values.clone(), (1, h, w, channels), &Device::Cpu).unwrap();
        let rois = [
            [0.0, 0.0, 52.0, 36.0],
            [3.3, 7.7, 9.1, 30.2],
            [-9.0, -9.0, 8.0, 70.0],
            [48.0, 30.0, 52.0, 36.0],
            [10.0, 10.0, 10.0, 10.0],
            [51.5, 35.5, 52.5, 36.5],
        ];
        for side in [7, 2] {
            let got = roi_align(std::slice::from_ref(&map), &[4], &rois, FINEST, side).unwrap();
            let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for c in 0..channels {
                let plane: Vec<f64> = values.iter().skip(c).step_by(channels).map(|&x| x.into()).collect();
                let expected = rois.iter().flat_map(|&roi| naive(&plane, [h, w], 0.25, roi, side));
                for (i, expected) in expected.enumerate() {
                    let got = f64::from(got[i * channels + c]);
                    assert!((got - expected).abs() < 1e-5, "side {side}, value {i}: {got}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_gpus_kernel_agrees_with_sample_by_sample() {
        use nat_cuda::Element;
        use nat_cuda::emulate::Emulator;
        use nat_cuda::regions::{self, Level};

        let (channels, count) = (3, 40);
        let mut rng = fastrand::Rng::with_seed(5);
        // Sides of the levels' maps; the strides follow from a picture of 256 x 192.
        let levels = [4, 8, 16, 32].map(|stride| Level { height: 192 / stride, width: 256 / stride, stride });
        let mut maps = levels
            .map(|level| (0..level.height * level.width * channels).map(|_| rng.f32()).collect::<Vec<f32>>());
        let rois: Vec<Corners> = (0..count)
            .map(|_| {
                let [x, y, w, h] = [280.0, 220.0, 250.0, 200.0].map(|most| rng.f32() * most);
                [x - 12.0, y - 12.0, x + w - 12.0, y + h - 12.0]
            })
            .chain([[10.0; 4], [-90.0, -90.0, -50.0, -50.0], [0.0, 0.0, 256.0, 192.0]])
            .collect();
        for side in [7, 2] {
            let launch = regions::roi_align(Element::F32, levels, channels, rois.len(), side).unwrap();
            let mut out = vec![f32::NAN; rois.len() * side * side * channels];
            let mut rows = rows(&rois, levels.len(), FINEST);
            let [a, b, c, d] = maps.each_mut().map(|map| map.as_mut_ptr().cast());
            let pointers = [a, b, c, d, rows.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
            // SAFETY: four maps, the regions and the result, of the launch's sizes.
            unsafe { Emulator::get().unwrap().launch(&launch, &pointers) };
            for (roi, got) in rois.iter().zip(out.chunks(side * side * channels)) {
                let at = level(*roi, levels.len(), FINEST);
                let Level { height, width, stride } = levels[at];
                for channel in 0..channels {
                    let plane: Vec<f64> =
                        maps[at].iter().skip(channel).step_by(channels).map(|&x| x.into()).collect();
                    let expected = naive(&plane, [height, width], 1.0 / stride as f64, *roi, side);
                    for (i, expected) in expected.into_iter().enumerate() {
                        let got = f64::from(got[i * channels + channel]);
                        assert!((got - expected).abs() < 1e-4, "{roi:?}, side {side}: {got}, not {expected}");
                    }
                }
            }
        }
    }
}
