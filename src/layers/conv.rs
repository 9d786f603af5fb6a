//! Convolutions whose results are channels-last.

use candle_core::{Result, Tensor};
use nat_convert::arch::{ConvModuleSpec, ConvSpec};

use super::backend;
use super::form::{ConvForm, ConvSizes};
use super::parts::{ConvParts, MapLayout, Window};
use crate::profile::{Kind, span};
use crate::weights::Weights;

/// norm(residual + activation(conv(x))), of which its parts say what there is; the result is channels-last.
pub struct Conv2d {
    form: Box<dyn ConvForm>,
    inputs: usize,
    outputs: usize,
    window: Window,
    source: MapLayout,
}

impl Conv2d {
    /// Takes the tensors that `spec` names, for inputs of the order `source`.
    pub fn new(spec: &ConvSpec, source: MapLayout, weights: &Weights) -> Self {
        Self::of(ConvParts::take(spec, source, weights), weights)
    }

    /// OpenMMLab's ConvModule on channels-last maps.
    pub fn module(spec: &ConvModuleSpec, weights: &Weights) -> Self {
        Self::of(ConvParts::module(spec, weights), weights)
    }

    /// The layer of these parts, which came of `weights`.
    ///
    /// # Panics
    /// When a norm is of other channels than the layer's outputs.
    pub fn of(parts: ConvParts, weights: &Weights) -> Self {
        let (inputs, outputs) = (parts.inputs(), parts.outputs());
        assert!(parts.norm.as_ref().is_none_or(|norm| norm.dim() == outputs), "a norm of other channels");
        let (window, source) = (parts.window, parts.source);
        Self { form: backend::of(weights).conv(parts, weights), inputs, outputs, window, source }
    }

    /// norm(activation(conv(x))): a map in the layout given at construction to [B, H', W', outputs].
    ///
    /// # Errors
    /// When `x` is not such a map.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None)
    }

    /// norm(residual + activation(conv(x))); `residual` [B, H', W', outputs].
    ///
    /// # Errors
    /// When `x` is not a map in the layout given at construction, or the shapes do not fit.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Some(residual))
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (batch, c, h, w) = match self.source {
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
        let out = [h, w].map(|side| side.div_ceil(self.window.stride));
        let sizes = ConvSizes { batch, map: [h, w, c], out, outputs: self.outputs };
        let taps = self.window.kernel.pow(2) * c;
        let _span = span(Kind::Convolution, sizes.shape().elem_count() * taps);
        self.form.forward(x, residual, sizes)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use nat_convert::arch::{LayerNormSpec, Scope};
    use nat_convert::recipe::EPSILON;
    use nat_testing::tensors::largest;

    use super::*;
    use crate::layers::parts::NormParts;
    use crate::tensors::vector;

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

    /// With a bias, or a norm behind it.
    fn conv(
        weights: &Weights,
        (window, layout, inputs, outputs): (Window, MapLayout, usize, usize),
        normed: bool,
    ) -> Conv2d {
        let at = |name: &str| Scope::default().at(name);
        let conv = ConvSpec::new(&at("conv"), inputs, outputs, window, !normed);
        let parts = ConvParts::take(&conv, layout, weights);
        let norm = NormParts::take(&LayerNormSpec::new(&at("norm"), outputs, EPSILON), weights);
        Conv2d::of(ConvParts { norm: normed.then_some(norm), ..parts }, weights)
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
                    conv(&weights, (window, layout, inputs, outputs), normed).forward(&x).unwrap()
                };
                let fused = run(Weights::random(2, dtype, Device::Cpu));
                let plain = run(Weights::random(2, DType::F32, Device::Cpu).plain());
                assert_eq!(fused.dims(), plain.dims(), "case {i}");
                let off = largest(&fused, &plain);
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
                    let y = conv(&weights, (window, layout, inputs, outputs), normed).forward(&x).unwrap();
                    let grads = (y.sqr().unwrap() + &y).unwrap().backward().unwrap();
                    (y.detach(), grads.get(&x).unwrap().clone())
                };
                let fused = run(Weights::random(2, DType::F32, Device::Cpu).differentiable());
                let plain = run(Weights::random(2, DType::F32, Device::Cpu).plain());
                for (fused, plain) in [(fused.0, plain.0), (fused.1, plain.1)] {
                    let off = largest(&fused, &plain) / largest(&plain, &plain.zeros_like().unwrap());
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
                let weights = form(weights());
                let spec = ConvModuleSpec::new(&Scope::default(), 3, 2, Window::POINT, epsilon);
                let got = Conv2d::module(&spec, &weights)
                    .forward(&x)
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                for (got, want) in got.iter().zip(&want) {
                    let off = (f64::from(*got) - want).abs();
                    assert!(off < 1e-5 * want.abs().max(1.0), "{epsilon}: {got}, not {want}");
                }
            }
        }
    }
}
