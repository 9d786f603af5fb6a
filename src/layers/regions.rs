//! Features of regions: RoIAlign (arXiv 1703.06870) as mmcv computes it, `aligned`, with a mean over an adaptive
//! sampling grid.

use candle_core::Result;
use rayon::prelude::*;

use super::form::Roi;

/// One pyramid level of one picture: values [height, width, channels].
pub(super) struct PyramidMap<'a> {
    values: &'a [f32],
    height: usize,
    width: usize,
    channels: usize,
    /// Positions a pixel.
    scale: f32,
}

impl<'a> PyramidMap<'a> {
    /// A map of this shape, `stride` pixels a position.
    ///
    /// # Errors
    /// When it is not one of one picture, of so many channels.
    pub(super) fn new(
        (batch, height, width, c): (usize, usize, usize, usize),
        values: &'a [f32],
        stride: usize,
        channels: usize,
    ) -> Result<Self> {
        if batch != 1 || c != channels || height == 0 || width == 0 {
            candle_core::bail!("regions of one picture got a map of {:?}", [batch, height, width, c]);
        }
        Ok(Self { values, height, width, channels, scale: 1.0 / stride as f32 })
    }
}

/// The features of `regions`, [regions, `side`, `side`, channels].
///
/// # Errors
/// When a region is on a map that is not there.
pub(super) fn align(maps: &[PyramidMap], regions: &[Roi], side: usize) -> Result<Vec<f32>> {
    let Some(first) = maps.first() else { candle_core::bail!("regions of no maps") };
    if let Some(region) = regions.iter().find(|region| region.level >= maps.len()) {
        candle_core::bail!("a region on map {} of {}", region.level, maps.len());
    }
    let count = side * side * first.channels;
    let mut out = vec![0.0; regions.len() * count];
    out.par_chunks_exact_mut(count.max(1))
        .zip(regions)
        .for_each(|(out, region)| maps[region.level].align(region.corners, side, out));
    Ok(out)
}

/// What one bin takes of one axis: positions and their weights.
type Bin = Vec<(usize, f32)>;

impl PyramidMap<'_> {
    /// Adds the features of `roi` to `out` [side, side, channels].
    fn align(&self, [x1, y1, x2, y2]: [f32; 4], side: usize, out: &mut [f32]) {
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
