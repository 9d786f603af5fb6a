//! A convolution over maps of several sizes, resampled to the finest and concatenated, that does neither.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::resample::{Tap, resized, taps};
use super::{Conv2d, Linear, MapLayout, Window, map_f32, with_all_f32};
use crate::weights::Weights;

/// Side of the kernel.
const SIDE: usize = Window::SAME.kernel;

/// OpenMMLab's 3x3 ConvModule (convolution, BatchNorm, ReLU) over the concatenation of maps that are
/// resampled to the size of the first, bilinear with or without PyTorch's `align_corners`.
///
/// Resampling acts on positions and a tap of the kernel on channels, so they can change places: each tap
/// multiplies a coarse map where it is small, and the products are resampled. That saves most of the
/// arithmetic, and the maps of full size.
pub struct PyramidConv2d {
    form: Form,
    align_corners: bool,
}

enum Form {
    /// The finest map's part of the kernel, and of each coarser one all taps, [9 · outputs, channels].
    Split { finest: Conv2d, coarser: Vec<Linear> },
    /// As it is written: any device, differentiable.
    Plain(Conv2d),
}

impl PyramidConv2d {
    /// For `levels` maps of `channels` each. Takes what [`Conv2d::module`] takes.
    pub fn new(
        levels: usize,
        (channels, outputs): (usize, usize),
        epsilon: f64,
        align_corners: bool,
        weights: &Weights,
    ) -> Self {
        let inputs = levels * channels;
        if weights.is_plain() {
            let conv = Conv2d::module((inputs, outputs), Window::SAME, epsilon, weights);
            return Self { form: Form::Plain(conv), align_corners };
        }
        let (weight, bias) = Conv2d::folded((inputs, outputs), Window::SAME, epsilon, weights);
        let part = |level: usize| weight.narrow(1, level * channels, channels)?.contiguous();
        let shape = [outputs, channels, SIDE, SIDE];
        let finest = weights.made(&shape, "conv.weight", part(0));
        let taps = |level: usize| {
            let rows = [SIDE * SIDE * outputs, channels];
            let by_tap =
                part(level).and_then(|part| part.permute((2, 3, 0, 1))?.contiguous()?.reshape(&rows));
            Linear::of(weights.made(&rows, "conv.weight", by_tap), None, weights)
        };
        let coarser = (1..levels).map(taps).collect();
        let layout = MapLayout::ChannelsLast;
        let finest = Conv2d::of(finest, Some(bias), (channels, outputs), Window::SAME, layout, weights);
        Self { form: Form::Split { finest, coarser }, align_corners }
    }

    /// Maps [B, H, W, C], [B, h, w, C], … to one map [B, H, W, outputs].
    ///
    /// # Errors
    /// When the maps do not suit the layer.
    pub fn forward(&self, maps: &[Tensor]) -> Result<Tensor> {
        let Some((first, rest)) = maps.split_first() else { candle_core::bail!("a pyramid without maps") };
        let (b, h, w, _) = first.dims4()?;
        match &self.form {
            Form::Plain(conv) => {
                let maps = maps.iter().map(|map| resized(map, [h, w], self.align_corners));
                let maps = maps.collect::<Result<Vec<_>>>()?;
                conv.forward(&Tensor::cat(&maps, 3)?, None)
            }
            Form::Split { finest, coarser } => {
                if coarser.len() != rest.len() {
                    candle_core::bail!("a pyramid of {} maps got {}", coarser.len() + 1, maps.len());
                }
                let products: Vec<Tensor> =
                    coarser.iter().zip(rest).map(|(taps, map)| taps.forward(map)).collect::<Result<_>>()?;
                let sum = resampled_sum(&products, [b, h, w], self.align_corners)?;
                let sum = finest.forward_residual(first, &sum)?;
                // Not candle's ReLU, which makes 0 of what is no number: that has to be seen in the result.
                map_f32(&sum, sum.shape(), |x| x.iter().map(|&x| if x < 0.0 { 0.0 } else { x }).collect())
            }
        }
    }
}

/// Σ over maps and taps (y, x) of the resampled `products` [B, h, w, 9 · outputs], moved by the tap and 0
/// outside: [B, height, width, outputs].
fn resampled_sum(
    products: &[Tensor],
    [batch, height, width]: [usize; 3],
    align_corners: bool,
) -> Result<Tensor> {
    let Some(first) = products.first() else { candle_core::bail!("a pyramid of one map") };
    let outputs = first.dims4()?.3 / (SIDE * SIDE);
    let mut levels = Vec::with_capacity(products.len());
    for product in products {
        let (b, h, w, c) = product.dims4()?;
        if b != batch || c != SIDE * SIDE * outputs {
            candle_core::bail!("a pyramid of {batch} images got a map of {:?}", product.shape());
        }
        levels.push(([h, w], taps(h, height, align_corners), taps(w, width, align_corners)));
    }
    let sum = with_all_f32(products, |products| {
        let mut out = vec![0.0; batch * height * width * outputs];
        out.par_chunks_exact_mut((width * outputs).max(1)).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / height, i % height);
            let mut column_sums = Vec::new();
            for (([h, w], rows, columns), product) in levels.iter().zip(products) {
                let product = &product[image * h * w * SIDE * SIDE * outputs..];
                // First the rows: of each tap's column what the three rows of taps give, [w, 3, outputs].
                column_sums.clear();
                column_sums.resize(w * SIDE * outputs, 0.0);
                for ky in 0..SIDE {
                    let Some(tap) = moved(y, ky).and_then(|y| rows.get(y)) else { continue };
                    for (row, weight) in ends(tap) {
                        let from =
                            product[row * w * SIDE * SIDE * outputs..].chunks_exact(SIDE * SIDE * outputs);
                        for (to, from) in column_sums.chunks_exact_mut(SIDE * outputs).zip(from) {
                            add(to, &from[ky * SIDE * outputs..][..SIDE * outputs], weight);
                        }
                    }
                }
                for (x, out) in out.chunks_exact_mut(outputs).enumerate() {
                    for kx in 0..SIDE {
                        let Some(tap) = moved(x, kx).and_then(|x| columns.get(x)) else { continue };
                        for (column, weight) in ends(tap) {
                            add(out, &column_sums[(column * SIDE + kx) * outputs..][..outputs], weight);
                        }
                    }
                }
            }
        });
        out
    })?;
    Tensor::from_vec(sum, (batch, height, width, outputs), first.device())
}

/// Where tap `k` of the kernel looks for output `at`, unless before the map.
fn moved(at: usize, k: usize) -> Option<usize> {
    (at + k).checked_sub(SIDE / 2)
}

/// The positions of a tap with their shares.
fn ends(tap: &Tap) -> [(usize, f32); 2] {
    [(tap.at[0], 1.0 - tap.part), (tap.at[1], tap.part)]
}

fn add(to: &mut [f32], from: &[f32], weight: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use nat_convert::recipe::EPSILON;

    use super::*;

    #[test]
    fn agrees_with_resampling_and_concatenating() {
        let pyramids = [&[[8, 12], [4, 6], [2, 3]][..], &[[9, 7], [5, 4], [3, 2], [2, 1]], &[[3, 1], [1, 1]]];
        for (sizes, align_corners) in pyramids.into_iter().flat_map(|sizes| [(sizes, false), (sizes, true)]) {
            let map = |[h, w]: [usize; 2]| Tensor::randn(0f32, 1.0, (2, h, w, 6), &Device::Cpu).unwrap();
            let maps: Vec<Tensor> = sizes.iter().copied().map(map).collect();
            let build = |weights: &Weights| {
                let layer = PyramidConv2d::new(sizes.len(), (6, 10), EPSILON, align_corners, weights);
                layer.forward(&maps).unwrap()
            };
            let split = build(&Weights::random(5, DType::F32, Device::Cpu));
            let plain = build(&Weights::random(5, DType::F32, Device::Cpu).plain());
            assert_eq!(split.dims(), plain.dims());
            let off = (split - &plain).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-4, "{sizes:?} {align_corners}: {off}");
            assert!(plain.sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.1);
        }
    }
}
