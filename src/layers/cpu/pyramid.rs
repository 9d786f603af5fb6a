//! A convolution over maps of several sizes, resampled to the finest and concatenated, that does neither.
//!
//! Resampling acts on positions and a tap of the kernel on channels, so they can change places: each tap
//! multiplies a coarse map where it is small, and the products are resampled. That saves most of the
//! arithmetic, and the maps of full size.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::conv;
use super::linear::PackedLinear;
use super::packing::Packing;
use crate::layers::form::{ConvForm, ConvSizes, LinearForm, PyramidForm};
use crate::layers::parts::{Activation, ConvParts, LinearParts, PyramidParts, Window};
use crate::layers::resample::{Tap, taps};
use crate::tensors::{map_f32, with_all_f32};
use crate::weights::Weights;

/// Side of the kernel.
const SIDE: usize = Window::SAME.kernel;

/// The finest map's part of the kernel, and of each coarser one all taps, [9 · outputs, channels].
pub(super) struct PackedPyramid {
    finest: Box<dyn ConvForm>,
    coarser: Vec<Arc<PackedLinear>>,
    outputs: usize,
    align_corners: bool,
}

impl PackedPyramid {
    pub(super) fn new(parts: PyramidParts, packing: Packing, weights: &Weights) -> Self {
        let PyramidParts { conv, levels, align_corners } = parts;
        let (channels, outputs) = (conv.inputs() / levels.max(1), conv.outputs());
        let part = |level: usize| conv.weight.narrow(1, level * channels, channels)?.contiguous();
        let shape = [outputs, channels, SIDE, SIDE];
        let finest = weights.made(&shape, "conv.weight", part(0));
        let taps = |level: usize| {
            let rows = [SIDE * SIDE * outputs, channels];
            let by_tap =
                part(level).and_then(|part| part.permute((2, 3, 0, 1))?.contiguous()?.reshape(&rows));
            PackedLinear::new(&LinearParts::of(weights.made(&rows, "conv.weight", by_tap), None), packing)
        };
        let coarser = (1..levels).map(taps).collect();
        let finest = ConvParts { weight: finest, activation: Activation::None, ..conv };
        Self { finest: conv::form(&finest, packing), coarser, outputs, align_corners }
    }
}

impl PyramidForm for PackedPyramid {
    fn forward(&self, maps: &[Tensor]) -> Result<Tensor> {
        let Some((first, rest)) = maps.split_first() else { candle_core::bail!("a pyramid without maps") };
        let (b, h, w, c) = first.dims4()?;
        let tapped = |(taps, map): (&Arc<PackedLinear>, &Tensor)| {
            let (b, h, w, _) = map.dims4()?;
            taps.forward(map, None, &(b, h, w, SIDE * SIDE * self.outputs).into())
        };
        let products = self.coarser.iter().zip(rest).map(tapped).collect::<Result<Vec<_>>>()?;
        let sum = resampled_sum(&products, [b, h, w], self.align_corners)?;
        let sizes = ConvSizes { batch: b, map: [h, w, c], out: [h, w], outputs: self.outputs };
        let sum = self.finest.forward(first, Some(&sum), sizes)?;
        // Not candle's ReLU, which makes 0 of what is no number: that has to be seen in the result.
        map_f32(&sum, sum.shape(), |x| x.iter().map(|&x| if x < 0.0 { 0.0 } else { x }).collect())
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
