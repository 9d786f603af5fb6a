//! A convolution over maps of several sizes.

use candle_core::{Result, Tensor};
use nat_convert::arch::ConvModuleSpec;

use super::backend;
use super::form::PyramidForm;
use super::parts::{ConvParts, PyramidParts, Window};
use crate::profile::{Kind, span};
use crate::weights::Weights;

/// OpenMMLab's 3x3 ConvModule (convolution, BatchNorm, ReLU) over the concatenation of maps that are
/// resampled to the size of the first, bilinear with or without PyTorch's `align_corners`.
pub struct PyramidConv2d {
    form: Box<dyn PyramidForm>,
    levels: usize,
    channels: usize,
    outputs: usize,
}

impl PyramidConv2d {
    /// For `levels` maps, each of as many of the channels that `spec` takes.
    pub fn new(spec: &ConvModuleSpec, levels: usize, align_corners: bool, weights: &Weights) -> Self {
        let conv = ConvParts::module(spec, weights);
        let (channels, outputs) = (conv.inputs() / levels.max(1), conv.outputs());
        let form = backend::of(weights).pyramid(PyramidParts { conv, levels, align_corners }, weights);
        Self { form, levels, channels, outputs }
    }

    /// Maps [B, H, W, C], [B, h, w, C], … to one map [B, H, W, outputs].
    ///
    /// # Errors
    /// When the maps do not suit the layer.
    pub fn forward(&self, maps: &[Tensor]) -> Result<Tensor> {
        if maps.len() != self.levels || maps.is_empty() {
            candle_core::bail!("a pyramid of {} maps got {}", self.levels, maps.len());
        }
        let mut macs = 0;
        for map in maps {
            let (_, h, w, c) = map.dims4()?;
            if c != self.channels || h == 0 || w == 0 {
                candle_core::bail!("a pyramid of {} channels got a map of {:?}", self.channels, map.shape());
            }
            macs += map.elem_count() * Window::SAME.kernel.pow(2) * self.outputs;
        }
        let _span = span(Kind::Convolution, macs);
        self.form.forward(maps)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use nat_convert::arch::Scope;
    use nat_convert::recipe::EPSILON;
    use nat_testing::tensors::largest;

    use super::*;

    #[test]
    fn agrees_with_resampling_and_concatenating() {
        let pyramids = [&[[8, 12], [4, 6], [2, 3]][..], &[[9, 7], [5, 4], [3, 2], [2, 1]], &[[3, 1], [1, 1]]];
        for (sizes, align_corners) in pyramids.into_iter().flat_map(|sizes| [(sizes, false), (sizes, true)]) {
            let map = |[h, w]: [usize; 2]| Tensor::randn(0f32, 1.0, (2, h, w, 6), &Device::Cpu).unwrap();
            let maps: Vec<Tensor> = sizes.iter().copied().map(map).collect();
            let build = |weights: &Weights| {
                let inputs = 6 * sizes.len();
                let spec = ConvModuleSpec::new(&Scope::default(), inputs, 10, Window::SAME, EPSILON);
                PyramidConv2d::new(&spec, sizes.len(), align_corners, weights).forward(&maps).unwrap()
            };
            let split = build(&Weights::random(5, DType::F32, Device::Cpu));
            let plain = build(&Weights::random(5, DType::F32, Device::Cpu).plain());
            assert_eq!(split.dims(), plain.dims());
            let off = largest(&split, &plain);
            assert!(off < 1e-4, "{sizes:?} {align_corners}: {off}");
            assert!(plain.sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.1);
        }
    }
}
