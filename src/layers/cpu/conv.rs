//! Convolutions on the CPU, as products over windows that are gathered a block at a time.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::gemm::{
    Epilogue, Operands, PackedLayer, Room, Rows, StoredRows, Then, operands, product, room_for,
};
use super::norm::Norm;
use super::operator::{Layer, apply};
use super::packing::Packing;
use crate::layers::form::{ConvForm, ConvSizes, NormForm};
use crate::layers::parts::{Activation, ConvParts, MapLayout, Window};
use crate::simd::{Simd, Word};
use crate::tensors::vector;

/// Reorders a weight [outputs, inputs, area] to [outputs, area, inputs].
fn channels_inmost(weight: &[f32], inputs: usize, area: usize) -> Vec<f32> {
    weight
        .chunks_exact(inputs * area)
        .flat_map(|filter| (0..area * inputs).map(move |i| filter[i % inputs * area + i / inputs]))
        .collect()
}

/// A convolution whose weight is packed.
struct PackedConv {
    layer: PackedLayer,
    window: Window,
    source: MapLayout,
    activation: Activation,
    norm: Option<Arc<Norm>>,
}

/// The form of a convolution of these parts.
pub(super) fn form(parts: &ConvParts, packing: Packing) -> Box<dyn ConvForm> {
    let conv = |norm| Arc::new(PackedConv::new(parts, packing, norm));
    match &parts.norm {
        // The norm's gradient takes what it normalised.
        Some(norm) if packing.differentiable => {
            Box::new(Differentiable { conv: conv(None), norm: Norm::new(norm) })
        }
        norm => Box::new(conv(norm.as_ref().map(Norm::new))),
    }
}

impl PackedConv {
    fn new(parts: &ConvParts, packing: Packing, norm: Option<Arc<Norm>>) -> Self {
        let &ConvParts { window, source, activation, .. } = parts;
        let (inputs, area) = (parts.inputs(), window.kernel.pow(2));
        let mut values = vector(&parts.weight);
        if source == MapLayout::ChannelsLast {
            values = channels_inmost(&values, inputs, area);
        }
        let layer = packing.layer([parts.outputs(), inputs * area], &values, parts.bias.as_ref());
        Self { layer, window, source, activation, norm }
    }
}

impl ConvForm for Arc<PackedConv> {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, sizes: ConvSizes) -> Result<Tensor> {
        let ConvSizes { map, out, .. } = sizes;
        let windows = MapWindows { layout: self.source, size: map, out, window: self.window };
        apply(Convolution { conv: self.clone(), windows }, x, residual, &sizes.shape())
    }
}

/// A convolution and its norm, one after the other.
struct Differentiable {
    conv: Arc<PackedConv>,
    norm: Arc<Norm>,
}

impl ConvForm for Differentiable {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, sizes: ConvSizes) -> Result<Tensor> {
        NormForm::forward(&self.norm, &self.conv.forward(x, residual, sizes)?)
    }
}

/// norm(activation(conv(x)) + residual) on the values of maps of one size.
struct Convolution {
    conv: Arc<PackedConv>,
    windows: MapWindows,
}

impl Layer for Convolution {
    const NAME: &'static str = "convolution";

    fn forward(&self, map: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Self { conv, windows } = self;
        let PackedConv { layer, activation, norm, .. } = &**conv;
        let epilogue = Epilogue { residual, ..Epilogue::of(layer, *activation) };
        let then = norm.as_ref().map_or(Then::Nothing, |norm| Then::Norm(norm));
        let MapWindows { layout, size: [h, w, c], out: [oh, ow], window } = *windows;
        let rows = map.len() / (h * w * c) * oh * ow;
        if (window.kernel, window.stride, layout) == (1, 1, MapLayout::ChannelsLast) {
            return product(rows, &StoredRows { rows: map, depth: c }, &layer.weight, epilogue, then);
        }
        product(rows, &Gather { map, windows }, &layer.weight, epilogue, then)
    }

    fn backward(&self, map: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let PackedConv { layer, activation, norm, .. } = &*self.conv;
        if *activation != Activation::None || norm.is_some() {
            candle_core::bail!("a convolution with an activation or a norm of its own has no gradient");
        }
        let (weight, depth) = (layer.transposed()?, layer.weight.n());
        let rows = StoredRows { rows: grad, depth };
        let taps = product(grad.len() / depth, &rows, weight, Epilogue::default(), Then::Nothing);
        Ok(self.windows.scatter(&taps, map.len()))
    }
}

/// Where the windows of a map lie.
struct MapWindows {
    layout: MapLayout,
    /// Height, width and channels of the map.
    size: [usize; 3],
    /// Height and width of the output.
    out: [usize; 2],
    window: Window,
}

/// The windows of a map as the rows of a product: values in the order of the packed weight.
struct Gather<'a> {
    map: &'a [f32],
    windows: &'a MapWindows,
}

impl Rows for Gather<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        room: &'a mut Room<S::Word>,
    ) -> Operands<'a, S::Word> {
        let MapWindows { layout, size, window, .. } = *self.windows;
        let (rows, depth) = (range.len(), window.kernel.pow(2) * size[2]);
        let stride = room_for::<S>(&mut room.words, rows, depth);
        match layout {
            MapLayout::ChannelsLast => {
                for (index, row) in range.zip(room.words.chunks_exact_mut(stride)) {
                    self.gather_last(s, index, row);
                }
            }
            MapLayout::ChannelsFirst => {
                room.values.resize(depth, 0.0);
                for (index, to) in range.zip(room.words.chunks_exact_mut(stride)) {
                    match S::Word::as_values(to) {
                        Some(to) => self.gather_first(index, to),
                        // Too short pieces to be rounded one by one: whole rows are.
                        None => {
                            self.gather_first(index, &mut room.values);
                            operands(s, &room.values, to, 0);
                        }
                    }
                }
            }
        }
        Operands { words: &room.words, stride }
    }
}

/// The part of a window that lies inside the map.
struct Inside {
    /// The image it is of.
    image: usize,
    /// Rows and columns of the kernel.
    rows: Range<usize>,
    columns: Range<usize>,
    /// The row and the column of the map that these begin at.
    y: usize,
    x: usize,
}

impl MapWindows {
    /// Where output `index` looks.
    #[inline(always)]
    fn inside(&self, index: usize) -> Inside {
        let Window { kernel, stride, padding } = self.window;
        let ([h, w, _], [oh, ow]) = (self.size, self.out);
        let (image, y, x) = (index / (oh * ow), index / ow % oh * stride, index % ow * stride);
        let part = |at: usize, side: usize| padding.saturating_sub(at)..kernel.min(side + padding - at);
        let (rows, columns) = (part(y, h), part(x, w));
        let (y, x) = (y + rows.start - padding, x + columns.start - padding);
        Inside { image, rows, columns, y, x }
    }

    /// Outputs and taps of the kernel, on one axis, that look at position `at`.
    fn looking(&self, at: usize, axis: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (Window { kernel, stride, padding }, out) = (self.window, self.out[axis]);
        (0..kernel)
            .filter_map(move |tap| (at + padding).checked_sub(tap).map(|first| (first, tap)))
            .filter(move |(first, _)| first.is_multiple_of(stride) && first / stride < out)
            .map(move |(first, tap)| (first / stride, tap))
    }

    /// Sums up what `taps`, the windows of all outputs, have for each position: a map of `count` values.
    fn scatter(&self, taps: &[f32], count: usize) -> Vec<f32> {
        let ([h, w, c], [oh, ow], kernel) = (self.size, self.out, self.window.kernel);
        let depth = kernel.pow(2) * c;
        let mut map = vec![0.0; count];
        match self.layout {
            MapLayout::ChannelsLast => map.par_chunks_exact_mut(w * c).enumerate().for_each(|(row, map)| {
                let (image, y) = (row / h, row % h);
                for (oy, ky) in self.looking(y, 0) {
                    for (x, map) in map.chunks_exact_mut(c).enumerate() {
                        for (ox, kx) in self.looking(x, 1) {
                            let at = ((image * oh + oy) * ow + ox) * depth + (ky * kernel + kx) * c;
                            map.iter_mut().zip(&taps[at..at + c]).for_each(|(sum, tap)| *sum += tap);
                        }
                    }
                }
            }),
            MapLayout::ChannelsFirst => map.par_chunks_exact_mut(w).enumerate().for_each(|(row, map)| {
                let (image, channel, y) = (row / (c * h), row / h % c, row % h);
                for (oy, ky) in self.looking(y, 0) {
                    for (x, sum) in map.iter_mut().enumerate() {
                        for (ox, kx) in self.looking(x, 1) {
                            let at = ((image * oh + oy) * ow + ox) * depth;
                            *sum += taps[at + (channel * kernel + ky) * kernel + kx];
                        }
                    }
                }
            }),
        }
        map
    }
}

impl Gather<'_> {
    /// Writes the window of output `index`, [kernel, kernel, channels], into `row`.
    #[inline(always)]
    fn gather_last<S: Simd>(&self, s: S, index: usize, row: &mut [S::Word]) {
        let ([h, w, c], kernel) = (self.windows.size, self.windows.window.kernel);
        let Inside { image, rows, columns, y, x } = self.windows.inside(index);
        if rows.len() < kernel || columns.len() < kernel {
            row.fill(S::Word::default());
        }
        for (ky, y) in rows.zip(y..) {
            let from = &self.map[((image * h + y) * w + x) * c..][..columns.len() * c];
            operands(s, from, row, (ky * kernel + columns.start) * c);
        }
    }

    /// Writes the window of output `index`, [channels, kernel, kernel], into `row`.
    #[inline(always)]
    fn gather_first(&self, index: usize, row: &mut [f32]) {
        let ([h, w, c], kernel) = (self.windows.size, self.windows.window.kernel);
        let Inside { image, rows, columns, y, x } = self.windows.inside(index);
        if rows.len() < kernel || columns.len() < kernel {
            row.fill(0.0);
        }
        for channel in 0..c {
            for (ky, y) in rows.clone().zip(y..) {
                let from = &self.map[((image * c + channel) * h + y) * w + x..][..columns.len()];
                let to = &mut row[(channel * kernel + ky) * kernel + columns.start..][..columns.len()];
                // Of known length, or a call of memcpy would cost more than these few values.
                match columns.len() {
                    3 => to[..3].copy_from_slice(&from[..3]),
                    4 => to[..4].copy_from_slice(&from[..4]),
                    _ => to.copy_from_slice(from),
                }
            }
        }
    }
}
