//! Features of regions from a pyramid, and the rule that chooses the level.

use candle_core::{Result, Tensor};

use super::boxes::Corners;
use crate::layers::{Maps, Roi};

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
    ops: Maps,
    maps: &[Tensor],
    strides: &[usize],
    rois: &[Corners],
    finest_scale: f32,
    side: usize,
) -> Result<Tensor> {
    ops.regions(maps, strides, &regions_of(rois, maps.len(), finest_scale), side)
}

/// Regions with their levels.
fn regions_of(rois: &[Corners], levels: usize, finest_scale: f32) -> Vec<Roi> {
    let region = |&corners: &Corners| Roi { level: level(corners, levels, finest_scale), corners };
    rois.iter().map(region).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::weights::Weights;

    const FINEST: f32 = 56.0;

    fn maps() -> Maps {
        Maps::new(&Weights::random(1, DType::F32, Device::Cpu))
    }

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
        // Maps of f64 are the reference of the self-test.
        let wide = Maps::new(&Weights::random(1, DType::F64, Device::Cpu).plain());
        for (side, (ops, dtype, bound)) in [7, 2]
            .into_iter()
            .flat_map(|side| [(maps(), DType::F32, 1e-5), (wide, DType::F64, 1e-13)].map(|kind| (side, kind)))
        {
            let map = map.to_dtype(dtype).unwrap();
            let got = roi_align(ops, std::slice::from_ref(&map), &[4], &rois, FINEST, side).unwrap();
            assert_eq!(got.dtype(), dtype);
            let got = got.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for c in 0..channels {
                let plane: Vec<f64> = values.iter().skip(c).step_by(channels).map(|&x| x.into()).collect();
                let expected = rois.iter().flat_map(|&roi| naive(&plane, [h, w], 0.25, roi, side));
                for (i, expected) in expected.enumerate() {
                    let got = got[i * channels + c];
                    assert!((got - expected).abs() < bound, "side {side}, value {i}: {got}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_gpus_kernel_agrees_with_sample_by_sample() {
        use nat_cuda::Element;
        use nat_cuda::emulate::Emulator;
        use nat_cuda::regions::{self, PyramidLevel};

        let (channels, count) = (3, 40);
        let mut rng = fastrand::Rng::with_seed(5);
        // Sides of the levels' maps; the strides follow from a picture of 256 x 192.
        let levels =
            [4, 8, 16, 32].map(|stride| PyramidLevel { height: 192 / stride, width: 256 / stride, stride });
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
            let mut rows: Vec<f32> =
                regions_of(&rois, levels.len(), FINEST).iter().flat_map(Roi::row).collect();
            let [a, b, c, d] = maps.each_mut().map(|map| map.as_mut_ptr().cast());
            let pointers = [a, b, c, d, rows.as_mut_ptr().cast(), out.as_mut_ptr().cast()];
            // SAFETY: four maps, the regions and the result, of the launch's sizes.
            unsafe { Emulator::get().unwrap().launch(&launch, &pointers) };
            for (roi, got) in rois.iter().zip(out.chunks(side * side * channels)) {
                let at = level(*roi, levels.len(), FINEST);
                let PyramidLevel { height, width, stride } = levels[at];
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
