//! Resampling of channels-last maps, as PyTorch does it.

use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::simd::{Isa, Kernel, Simd};
use crate::tensors::{map_f32, widened};

/// The two source positions of an output position on one axis, and the second one's share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tap {
    pub(crate) at: [usize; 2],
    pub(crate) part: f32,
}

/// The taps of an axis from `from` to `to` positions: `interpolate(mode="bilinear")`, with `align_corners` the
/// first and the last positions' centres on each other, without it their outer edges.
pub(crate) fn taps(from: usize, to: usize, align_corners: bool) -> Vec<Tap> {
    let scale = match align_corners {
        false => from as f32 / to as f32,
        true if to > 1 => (from - 1) as f32 / (to - 1) as f32,
        true => 0.0,
    };
    let tap = |i: usize| {
        let place = match align_corners {
            false => (scale * (i as f32 + 0.5) - 0.5).max(0.0),
            true => scale * i as f32,
        };
        let low = (place as usize).min(from - 1);
        Tap { at: [low, (low + 1).min(from - 1)], part: place - low as f32 }
    };
    (0..to).map(tap).collect()
}

/// One row of an interpolated map: `columns` of the row that lies between `rows`, all [width, channels].
pub(crate) fn row(rows: [&[f32]; 2], part: f32, columns: &[Tap], channels: usize, out: &mut [f32]) {
    Isa::best().run(Row { rows, part, columns, channels, out });
}

struct Row<'a> {
    rows: [&'a [f32]; 2],
    part: f32,
    columns: &'a [Tap],
    channels: usize,
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    /// Plain loops, which the compiler makes vectors of: of this instruction set, inlined here.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { rows, part, columns, channels, out } = self;
        for (out, tap) in out.chunks_exact_mut(channels).zip(columns) {
            let [a, b] = tap.at.map(|x| x * channels);
            let (p00, p01) = (&rows[0][a..a + channels], &rows[0][b..b + channels]);
            let (p10, p11) = (&rows[1][a..a + channels], &rows[1][b..b + channels]);
            for c in 0..channels {
                let above = (1.0 - tap.part) * p00[c] + tap.part * p01[c];
                let below = (1.0 - tap.part) * p10[c] + tap.part * p11[c];
                out[c] = (1.0 - part) * above + part * below;
            }
        }
    }
}

/// `x` [B, H, W, C] on the CPU at another size, bilinear with `align_corners=False`, f32.
///
/// # Errors
/// When `x` is no map on the CPU, or has no positions.
pub fn bilinear(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    resized(x, [height, width], false)
}

/// As [`bilinear`], to height and width, with or without PyTorch's `align_corners`.
///
/// # Errors
/// As [`bilinear`].
pub(crate) fn resized(x: &Tensor, [height, width]: [usize; 2], align_corners: bool) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    if h == 0 || w == 0 || c == 0 {
        candle_core::bail!("a map of shape {:?} can't be resampled", x.shape());
    }
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    let (rows, columns) = (taps(h, height, align_corners), taps(w, width, align_corners));
    map_f32(x, &(b, height, width, c).into(), |x| {
        let mut out = vec![0.0; b * height * width * c];
        out.par_chunks_exact_mut((width * c).max(1)).enumerate().for_each(|(i, out)| {
            let (image, tap) = (i / height, rows[i % height]);
            let lines = tap.at.map(|y| &x[(image * h + y) * w * c..][..w * c]);
            row(lines, tap.part, &columns, c, out);
        });
        out
    })
}

/// The means of `side` x `side` parts of `x` [B, H, W, C], f32, of f64 f64: part i of n positions is
/// floor(i · n / side)..ceil((i + 1) · n / side), PyTorch's `AdaptiveAvgPool2d`.
///
/// # Errors
/// When `x` is no map.
pub fn adaptive_mean(x: &Tensor, side: usize) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let x = widened(x)?;
    let part = |i: usize, n: usize| -> Range<usize> { i * n / side..((i + 1) * n).div_ceil(side) };
    let mut rows = Vec::with_capacity(side);
    for y in (0..side).map(|i| part(i, h)) {
        let strip = x.narrow(1, y.start, y.len())?;
        let parts =
            (0..side).map(|i| part(i, w)).map(|x| strip.narrow(2, x.start, x.len())?.mean_keepdim((1, 2)));
        rows.push(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 2)?);
    }
    Tensor::cat(&rows, 1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn bilinear_is_candles_and_flat_stays_flat() {
        for (h, w, height, width) in
            [(3, 5, 6, 10), (7, 4, 3, 9), (1, 1, 4, 5), (10, 7, 13, 23), (4, 6, 1, 1)]
        {
            let x = Tensor::randn(0f32, 1.0, (2, h, w, 5), &Device::Cpu).unwrap();
            let ours = bilinear(&x, height, width).unwrap();
            let theirs = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let theirs =
                theirs.upsample_bilinear2d(height, width, false).unwrap().permute((0, 2, 3, 1)).unwrap();
            let off = (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-5, "{h}x{w} to {height}x{width}: {off}");
        }
        let flat = bilinear(&Tensor::full(2.5f32, (1, 3, 4, 2), &Device::Cpu).unwrap(), 11, 5).unwrap();
        assert!(flat.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| (x - 2.5).abs() < 1e-6));
    }

    /// `x` [h, w] by the definition, in f64.
    fn aligned(x: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f64> {
        let place = |i: usize, from: usize, to: usize| match to {
            1 => 0.0,
            _ => i as f64 * (from - 1) as f64 / (to - 1) as f64,
        };
        // The weight of a position falls to 0 at a distance of 1.
        let weight = |at: f64, i: usize| (1.0 - (at - i as f64).abs()).max(0.0);
        let mut out = Vec::new();
        for i in 0..height * width {
            let (y, x_) = (place(i / width, h, height), place(i % width, w, width));
            let term = |j: usize| weight(y, j / w) * weight(x_, j % w) * f64::from(x[j]);
            out.push((0..h * w).map(term).sum());
        }
        out
    }

    #[test]
    fn aligned_corners_stay_where_they_are() {
        for (h, w, height, width) in [
            (3, 5, 6, 10),
            (7, 4, 3, 9),
            (1, 1, 4, 5),
            (10, 7, 13, 23),
            (4, 6, 1, 1),
            (2, 3, 2, 3),
            (5, 2, 1, 7),
        ] {
            let x = Tensor::randn(0f32, 1.0, (1, h, w, 1), &Device::Cpu).unwrap();
            let ours = resized(&x, [height, width], true).unwrap();
            assert_eq!(ours.dims(), [1, height, width, 1]);
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (x, ours) = (flat(&x), flat(&ours));
            let naive = aligned(&x, [h, w], [height, width]);
            for (ours, naive) in ours.iter().zip(&naive) {
                assert!(
                    (f64::from(*ours) - naive).abs() < 1e-5,
                    "{h}x{w} to {height}x{width}: {ours} {naive}"
                );
            }
            assert_eq!(ours[0], x[0]);
            if height > 1 && width > 1 {
                assert!((ours[ours.len() - 1] - x[x.len() - 1]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn parts_overlap_where_they_must() {
        let x = Tensor::from_vec((0..7).map(|x| x as f32).collect::<Vec<_>>(), (1, 1, 7, 1), &Device::Cpu)
            .unwrap();
        let means = adaptive_mean(&x, 3).unwrap();
        assert_eq!(means.dims(), [1, 3, 3, 1]);
        // 0..3, 2..5, 4..7
        assert_eq!(
            means.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            [1.0, 3.0, 5.0]
        );
    }
}
