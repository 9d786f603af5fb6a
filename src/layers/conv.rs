//! Convolutions on channels-last maps, as products over windows that are gathered a block at a time.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Activation, Epilogue, PackedLayer, Then, product};
use super::norm::{LayerNorm, Norm};
use super::operator::{Layer, apply};
use super::plain::{self, Finish};
use super::profile::{Kind, span};
use super::rows::{Operands, Plain, Rows, operands, room};
use super::simd::Simd;
use super::vector;
use crate::weights::Weights;

/// Geometry of a convolution. An input outside the map is zero and the output has
/// ceil(side / stride) positions: PyTorch's 3x3 with padding 1, and patch embeddings that pad the
/// right and the bottom up to whole patches.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros before the first row and column.
    pub padding: usize,
}

impl Window {
    /// A convolution on one point.
    pub const POINT: Self = Self { kernel: 1, stride: 1, padding: 0 };
    /// 3x3, and the map keeps its size.
    pub const SAME: Self = Self { kernel: 3, stride: 1, padding: 1 };
}

/// A convolution, its result channels-last.
pub struct Conv2d {
    form: Form,
    inputs: usize,
    outputs: usize,
    window: Window,
    source: MapLayout,
    activation: Activation,
}

enum Form {
    Packed(Arc<PackedLayer>),
    Plain {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// For products on the GPU, [outputs, depth] as `cuda::flattened` makes it.
    #[cfg(feature = "cuda")]
    Flat {
        weight: Tensor,
        bias: Option<Tensor>,
    },
}

/// Order of the dimensions of a convolution's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapLayout {
    /// [B, C, H, W]: images.
    ChannelsFirst,
    /// [B, H, W, C]: feature maps.
    ChannelsLast,
}

impl Conv2d {
    /// Takes `weight` [outputs, inputs, kernel, kernel] and, with `bias`, `bias` `[outputs]`.
    pub fn new(
        channels: (usize, usize),
        window: Window,
        bias: bool,
        source: MapLayout,
        weights: &Weights,
    ) -> Self {
        let (inputs, outputs) = channels;
        let weight = weights.get(&[outputs, inputs, window.kernel, window.kernel], "weight");
        let bias = bias.then(|| weights.get(&[outputs], "bias"));
        Self::of(weight, bias, channels, window, source, weights)
    }

    /// OpenMMLab's ConvModule: a convolution without bias, BatchNorm with its running statistics, and
    /// ReLU. Takes `conv.weight` and `bn.weight`, `bn.bias`, `bn.running_mean`, `bn.running_var`; `epsilon`
    /// is added to the variance.
    pub fn module(channels: (usize, usize), window: Window, epsilon: f64, weights: &Weights) -> Self {
        let (weight, bias) = Self::folded(channels, window, epsilon, weights);
        Self::of(weight, Some(bias), channels, window, MapLayout::ChannelsLast, weights).relu()
    }

    /// Weight and bias of a ConvModule with its BatchNorm in them.
    pub(super) fn folded(
        (inputs, outputs): (usize, usize),
        window: Window,
        epsilon: f64,
        weights: &Weights,
    ) -> (Tensor, Tensor) {
        let shape = [outputs, inputs, window.kernel, window.kernel];
        let weight = weights.pp("conv").get(&shape, "weight");
        let bn = weights.pp("bn");
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| bn.get(&[outputs], name));
        let fold = || -> Result<(Tensor, Tensor)> {
            let wide = |x: &Tensor| x.to_dtype(DType::F32);
            let scale = (wide(&gamma)? / (wide(&variance)? + epsilon)?.sqrt()?)?;
            let bias = (wide(&beta)? - (wide(&mean)? * &scale)?)?;
            let weight = wide(&weight)?.broadcast_mul(&scale.reshape((outputs, 1, 1, 1))?)?;
            Ok((weight.to_dtype(gamma.dtype())?, bias.to_dtype(gamma.dtype())?))
        };
        match fold() {
            Ok(folded) => folded,
            Err(error) => (weights.made(&shape, "conv.weight", Err(error)), beta),
        }
    }

    pub(super) fn of(
        weight: Tensor,
        bias: Option<Tensor>,
        (inputs, outputs): (usize, usize),
        window: Window,
        source: MapLayout,
        weights: &Weights,
    ) -> Self {
        let area = window.kernel.pow(2);
        #[cfg(feature = "cuda")]
        if weights.has_kernels() {
            let depth = super::cuda::depth(window.kernel, inputs);
            let flat = weights.made(&[outputs, depth], "weight", super::cuda::flattened(&weight));
            let form = Form::Flat { weight: flat, bias };
            return Self { form, inputs, outputs, window, source, activation: Activation::None };
        }
        let form = if weights.is_plain() {
            Form::Plain { weight, bias }
        } else {
            let mut values = vector(&weight);
            if source == MapLayout::ChannelsLast {
                values = channels_inmost(&values, inputs, area);
            }
            let layer = PackedLayer::new(weights, [outputs, inputs * area], &values, bias.as_ref());
            Form::Packed(Arc::new(layer))
        };
        Self { form, inputs, outputs, window, source, activation: Activation::None }
    }

    /// The convolution with max(x, 0) behind it.
    #[must_use]
    pub fn relu(self) -> Self {
        Self { activation: Activation::Relu, ..self }
    }

    /// norm(conv(x)): a map in the layout given at construction to [B, H', W', outputs].
    ///
    /// # Errors
    /// When `x` is not such a map.
    pub fn forward(&self, x: &Tensor, norm: Option<&LayerNorm>) -> Result<Tensor> {
        self.run(x, norm, None)
    }

    /// residual + conv(x); `residual` [B, H', W', outputs].
    ///
    /// # Errors
    /// When `x` is not a map in the layout given at construction, or the shapes do not fit.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, None, Some(residual))
    }

    fn run(&self, x: &Tensor, norm: Option<&LayerNorm>, residual: Option<&Tensor>) -> Result<Tensor> {
        let (b, c, h, w) = match self.source {
            MapLayout::ChannelsFirst => x.dims4()?,
            MapLayout::ChannelsLast => {
                let (b, h, w, c) = x.dims4()?;
                (b, c, h, w)
            }
        };
        if c != self.inputs || h == 0 || w == 0 {
            candle_core::bail!(
                "a convolution of {} channels got a map of shape {:?}",
                self.inputs,
                x.shape()
            );
        }
        let (oh, ow) = (h.div_ceil(self.window.stride), w.div_ceil(self.window.stride));
        let shape = Shape::from((b, oh, ow, self.outputs));
        let taps = self.window.kernel.pow(2) * c;
        let _span = span(Kind::Convolution, b * oh * ow * self.outputs * taps);
        match &self.form {
            Form::Packed(layer) => {
                let fused = |norm| Convolution {
                    layer: layer.clone(),
                    windows: Windows {
                        layout: self.source,
                        size: [h, w, c],
                        out: [oh, ow],
                        window: self.window,
                    },
                    activation: self.activation,
                    norm,
                };
                match norm {
                    // The norm's gradient takes what it normalised.
                    Some(norm) if x.track_op() => norm.forward(&apply(fused(None), x, residual, &shape)?),
                    Some(norm) => apply(fused(Some(norm.fused(&shape)?)), x, residual, &shape),
                    None => apply(fused(None), x, residual, &shape),
                }
            }
            Form::Plain { weight, bias } => {
                let y = plain::convolution(&self.channels_last(x, weight)?, weight, self.window, [oh, ow])?;
                self.finish(y, bias, residual, norm)
            }
            #[cfg(feature = "cuda")]
            Form::Flat { weight, bias } => {
                let x = self.channels_last(x, weight)?;
                let rows = match self.window {
                    Window { kernel: 1, stride: 1, .. } if c == weight.dim(1)? => x,
                    window => super::cuda::windows(&x, window, [oh, ow])?,
                };
                self.finish(plain::product(&rows, weight)?, bias, residual, norm)
            }
        }
    }

    /// A map in the layout given at construction as [B, H, W, C], of the type of `weight`: images come in
    /// any.
    fn channels_last(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self.source {
            MapLayout::ChannelsFirst => x.permute((0, 2, 3, 1))?.to_dtype(weight.dtype())?.contiguous(),
            MapLayout::ChannelsLast => x.to_dtype(weight.dtype()),
        }
    }

    /// What follows the product.
    fn finish(
        &self,
        y: Tensor,
        bias: &Option<Tensor>,
        residual: Option<&Tensor>,
        norm: Option<&LayerNorm>,
    ) -> Result<Tensor> {
        let y = Finish { activation: self.activation, residual, ..Finish::bias(bias) }.apply(y)?;
        norm.map_or_else(|| Ok(y.clone()), |norm| norm.forward(&y))
    }
}

/// Reorders a weight [outputs, inputs, area] to [outputs, area, inputs].
fn channels_inmost(weight: &[f32], inputs: usize, area: usize) -> Vec<f32> {
    weight
        .chunks_exact(inputs * area)
        .flat_map(|filter| (0..area * inputs).map(move |i| filter[i % inputs * area + i / inputs]))
        .collect()
}

/// norm(activation(conv(x)) + residual) on the values of a map.
struct Convolution {
    layer: Arc<PackedLayer>,
    windows: Windows,
    activation: Activation,
    norm: Option<Arc<Norm>>,
}

impl Layer for Convolution {
    const NAME: &'static str = "convolution";

    fn forward(&self, map: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Self { layer, windows, activation, norm } = self;
        let epilogue = Epilogue { residual, ..layer.epilogue(*activation) };
        let then = norm.as_ref().map_or(Then::Nothing, |norm| Then::Norm(norm));
        let Windows { layout, size: [h, w, c], out: [oh, ow], window } = *windows;
        let rows = map.len() / (h * w * c) * oh * ow;
        if (window.kernel, window.stride, layout) == (1, 1, MapLayout::ChannelsLast) {
            return product(rows, &Plain { rows: map, depth: c }, &layer.weight, epilogue, then);
        }
        product(rows, &Gather { map, windows }, &layer.weight, epilogue, then)
    }

    fn backward(&self, map: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        if self.activation != Activation::None || self.norm.is_some() {
            candle_core::bail!("a convolution with an activation or a norm of its own has no gradient");
        }
        let (weight, depth) = (self.layer.transposed()?, self.layer.weight.n());
        let rows = Plain { rows: grad, depth };
        let taps = product(grad.len() / depth, &rows, weight, Epilogue::default(), Then::Nothing);
        Ok(self.windows.scatter(&taps, map.len()))
    }
}

/// Where the windows of a map lie.
struct Windows {
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
    windows: &'a Windows,
}

impl Rows for Gather<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(&'a self, s: S, range: Range<usize>, scratch: &'a mut Vec<f32>) -> Operands<'a> {
        let Windows { layout, size, window, .. } = *self.windows;
        let (rows, depth) = (range.len(), window.kernel.pow(2) * size[2]);
        let stride = room::<S>(scratch, rows, depth);
        match layout {
            MapLayout::ChannelsLast => {
                for (index, row) in range.zip(scratch.chunks_exact_mut(stride)) {
                    self.gather_last(s, index, row);
                }
            }
            MapLayout::ChannelsFirst if S::WORD == 1 => {
                for (index, row) in range.zip(scratch.chunks_exact_mut(stride)) {
                    self.gather_first(index, row);
                }
            }
            MapLayout::ChannelsFirst => {
                // Too short pieces to be rounded one by one: whole rows are, from behind the operands.
                scratch.resize(rows * (stride + depth), 0.0);
                let (to, from) = scratch.split_at_mut(rows * stride);
                for (index, row) in range.zip(from.chunks_exact_mut(depth)) {
                    self.gather_first(index, row);
                }
                for (from, to) in from.chunks_exact(depth).zip(to.chunks_exact_mut(stride)) {
                    operands(s, from, to, 0);
                }
            }
        }
        Operands { words: &scratch[..rows * stride], stride }
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

impl Windows {
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
    fn gather_last<S: Simd>(&self, s: S, index: usize, row: &mut [f32]) {
        let ([h, w, c], kernel) = (self.windows.size, self.windows.window.kernel);
        let Inside { image, rows, columns, y, x } = self.windows.inside(index);
        if rows.len() < kernel || columns.len() < kernel {
            row.fill(0.0);
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use nat_convert::recipe::EPSILON;

    use super::*;

    /// Window, layout, channels in and out, size.
    fn cases() -> [(Window, MapLayout, usize, usize, [usize; 2]); 8] {
        use MapLayout::{ChannelsFirst, ChannelsLast};
        let three = |stride| Window { kernel: 3, stride, padding: 1 };
        let patch = |side| Window { kernel: side, stride: side, padding: 0 };
        [
            (three(2), ChannelsFirst, 3, 8, [13, 10]),
            (three(2), ChannelsLast, 16, 32, [7, 8]),
            (three(2), ChannelsLast, 5, 7, [1, 1]),
            (three(1), ChannelsLast, 8, 40, [6, 9]),
            (Window::POINT, ChannelsLast, 8, 12, [5, 4]),
            (patch(4), ChannelsFirst, 3, 16, [10, 8]),
            (patch(4), ChannelsFirst, 3, 16, [3, 9]),
            (patch(16), ChannelsFirst, 3, 24, [40, 16]),
        ]
    }

    #[test]
    fn agrees_with_candle_on_every_window_and_odd_sizes() {
        for (i, (window, layout, inputs, outputs, [h, w])) in cases().into_iter().enumerate() {
            let shape =
                if layout == MapLayout::ChannelsFirst { (2, inputs, h, w) } else { (2, h, w, inputs) };
            let x = Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            for (normed, (dtype, tolerance)) in [false, true]
                .into_iter()
                .flat_map(|n| [(DType::F32, 5e-5), (DType::BF16, 4e-2)].map(|t| (n, t)))
            {
                let run = |weights: Weights| {
                    let conv = Conv2d::new((inputs, outputs), window, !normed, layout, &weights.pp("conv"));
                    let norm = LayerNorm::new(outputs, EPSILON, &weights.pp("norm"));
                    conv.forward(&x, normed.then_some(&norm)).unwrap()
                };
                let fused = run(Weights::random(2, dtype, Device::Cpu));
                let plain = run(Weights::random(2, DType::F32, Device::Cpu).plain());
                assert_eq!(fused.dims(), plain.dims(), "case {i}");
                let off =
                    (fused - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(off < tolerance, "case {i}, norm {normed}, {dtype:?}: {off}");
            }
        }
    }

    #[test]
    fn gradients_are_candles() {
        for (i, (window, layout, inputs, outputs, [h, w])) in cases().into_iter().enumerate() {
            let shape =
                if layout == MapLayout::ChannelsFirst { (2, inputs, h, w) } else { (2, h, w, inputs) };
            let x = Var::from_tensor(&Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()).unwrap();
            for normed in [false, true] {
                let run = |weights: Weights| {
                    let conv = Conv2d::new((inputs, outputs), window, !normed, layout, &weights.pp("conv"));
                    let norm = LayerNorm::new(outputs, EPSILON, &weights.pp("norm"));
                    let y = conv.forward(&x, normed.then_some(&norm)).unwrap();
                    let grads = (y.sqr().unwrap() + &y).unwrap().backward().unwrap();
                    (y.detach(), grads.get(&x).unwrap().clone())
                };
                let fused = run(Weights::random(2, DType::F32, Device::Cpu).differentiable());
                let plain = run(Weights::random(2, DType::F32, Device::Cpu).plain());
                for (fused, plain) in [(fused.0, plain.0), (fused.1, plain.1)] {
                    let largest =
                        |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                    let off = largest(&(fused - &plain).unwrap()) / largest(&plain);
                    assert!(off < 1e-5, "case {i}, norm {normed}: {off}");
                }
            }
        }
    }
    /// BatchNorm as it is defined, after the convolution, in f64.
    #[test]
    fn a_modules_norm_has_its_epsilon() {
        for epsilon in [1e-12, EPSILON, 1e-3, 0.25] {
            let weights = || Weights::random(4, DType::F32, Device::Cpu);
            let x = Tensor::new(&[[[[0.3f32, -0.8, 1.7]]]], &Device::Cpu).unwrap();
            let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
                .map(|name| vector(&weights().pp("bn").get(&[2], name)).into_iter().map(f64::from));
            let weight = vector(&weights().pp("conv").get(&[2, 3, 1, 1], "weight"));
            let sums = weight.chunks(3).map(|w| {
                [0.3f32, -0.8, 1.7].iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
            });
            let want: Vec<f64> = sums
                .zip(gamma.zip(beta))
                .zip(mean.zip(variance))
                .map(|((sum, (gamma, beta)), (mean, variance))| {
                    ((sum - mean) / (variance + epsilon).sqrt() * gamma + beta).max(0.0)
                })
                .collect();
            for form in [|weights| weights, Weights::plain] {
                let conv = Conv2d::module((3, 2), Window::POINT, epsilon, &form(weights()));
                let got = conv.forward(&x, None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (got, want) in got.iter().zip(&want) {
                    let off = (f64::from(*got) - want).abs();
                    assert!(off < 1e-5 * want.abs().max(1.0), "{epsilon}: {got}, not {want}");
                }
            }
        }
    }
}
