//! UPerNet (arXiv 1807.10221) as mmseg 0.30 computes it: pyramid pooling on the last map, a pyramid on
//! the others, everything fused at the finest one. The auxiliary head takes part in training only.

use candle_core::{Result, Tensor};
use nat_convert::arch::{Architecture, UpernetSpec, UpernetWidths};

use super::backbone::Backbone;
use super::segmenter::Segmenter;
use crate::layers::{Conv2d, MapLayout, Maps, PyramidConv2d, adaptive_mean, on_pool};
use crate::weights::{LoadError, Weights};

/// A segmenter.
pub struct Upernet {
    backbone: Backbone,
    /// Sides of the pooled maps.
    pool_scales: Vec<usize>,
    align_corners: bool,
    psp_modules: Vec<Conv2d>,
    bottleneck: Conv2d,
    lateral_convs: Vec<Conv2d>,
    fpn_convs: Vec<Conv2d>,
    fpn_bottleneck: PyramidConv2d,
    conv_seg: Conv2d,
    outputs: usize,
    maps: Maps,
}

impl Upernet {
    /// Builds the network, whose head has these `widths`, and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ.
    pub fn new(
        architecture: &Architecture,
        widths: &UpernetWidths,
        weights: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        weights.compare(&architecture.tensors())?;
        let Architecture { backbone, head, recipe } = architecture;
        let spec = UpernetSpec::new(widths, recipe, &backbone.dims());
        let align_corners = recipe.segmenter.align_corners;
        let module = |spec: &_| Conv2d::module(spec, weights);
        let levels = backbone.depths.len();
        let network = Self {
            backbone: Backbone::new(backbone, recipe, &head.backbone_scope(), weights),
            align_corners,
            psp_modules: spec.psp_modules.iter().map(module).collect(),
            bottleneck: module(&spec.bottleneck),
            lateral_convs: spec.lateral_convs.iter().map(module).collect(),
            fpn_convs: spec.fpn_convs.iter().map(module).collect(),
            fpn_bottleneck: PyramidConv2d::new(&spec.fpn_bottleneck, levels, align_corners, weights),
            conv_seg: Conv2d::new(&spec.conv_seg, MapLayout::ChannelsLast, weights),
            outputs: spec.conv_seg.outputs,
            pool_scales: spec.pool_scales,
            maps: Maps::new(weights),
        };
        weights.finish()?;
        Ok(network)
    }

    /// The backbone's maps, [B, H/4, W/4, C] and on.
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn maps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        self.backbone.forward(images)
    }

    /// The last map [B, h, w, C] with what its pooled forms say of the whole picture, [B, h, w, channels].
    ///
    /// # Errors
    /// When the map is not the backbone's.
    pub fn pool(&self, last: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = last.dims4()?;
        let mut parts = vec![last.clone()];
        for (conv, &side) in self.psp_modules.iter().zip(&self.pool_scales) {
            let pooled = conv.forward(&adaptive_mean(last, side)?)?;
            parts.push(self.maps.resized(&pooled, [h, w], self.align_corners)?);
        }
        self.bottleneck.forward(&Tensor::cat(&parts, 3)?)
    }

    /// The backbone's maps, finest first, to one map [B, H/4, W/4, channels].
    ///
    /// # Errors
    /// When the maps are not the backbone's.
    pub fn decode(&self, maps: &[Tensor]) -> Result<Tensor> {
        let Some((last, lower)) = maps.split_last() else { candle_core::bail!("a decoder got no maps") };
        let mut above = self.pool(last)?;
        let mut levels = vec![above.clone()];
        for ((map, lateral), conv) in lower.iter().zip(&self.lateral_convs).zip(&self.fpn_convs).rev() {
            let (_, h, w, _) = map.dims4()?;
            let resized = self.maps.resized(&above, [h, w], self.align_corners)?;
            above = lateral.forward_residual(map, &resized)?;
            levels.push(conv.forward(&above)?);
        }
        levels.reverse();
        self.fpn_bottleneck.forward(&levels)
    }

    /// Logits of a decoded map.
    ///
    /// # Errors
    /// When the map is not the decoder's.
    pub fn classify(&self, decoded: &Tensor) -> Result<Tensor> {
        self.conv_seg.forward(decoded)
    }
}

impl Segmenter for Upernet {
    fn outputs(&self) -> usize {
        self.outputs
    }

    /// At a quarter of the images' size.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        on_pool(images.device(), || self.classify(&self.decode(&self.backbone.forward(images)?)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use nat_convert::arch::Head;

    use nat_testing::tensors::largest;

    use super::*;
    use crate::zoo;

    /// candle's own resize.
    fn candles(x: &Tensor, like: &Tensor, align_corners: bool) -> Tensor {
        let (_, h, w, _) = like.dims4().unwrap();
        let x = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let x = x.upsample_bilinear2d(h, w, align_corners).unwrap();
        x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    }

    #[test]
    fn every_map_is_resized_as_the_recipe_says() {
        let mut architecture = zoo::find("upernet-nat-mini").unwrap().architecture.clone();
        architecture.backbone.embed_dim = 4;
        architecture.backbone.num_heads = vec![1; 4];
        let widths = UpernetWidths { classes: 3, channels: 8 };
        architecture.head = Head::Upernet(widths);
        architecture.recipe.segmenter.pool_scales = vec![4, 1, 3];
        let map = |(l, side): (usize, usize)| {
            Tensor::randn(0f32, 1.0, (1, side, side + 2, 4 << l), &Device::Cpu).unwrap()
        };
        let maps: Vec<Tensor> = [40, 20, 10, 5].into_iter().enumerate().map(map).collect();
        let mut decoded = Vec::new();
        for (align_corners, plain) in [(false, false), (false, true), (true, false), (true, true)] {
            architecture.recipe.segmenter.align_corners = align_corners;
            let weights = Weights::random(3, DType::F32, Device::Cpu);
            let weights = if plain { weights.plain() } else { weights };
            let network = Upernet::new(&architecture, &widths, &weights).unwrap();
            let mut parts = vec![maps[3].clone()];
            for (conv, side) in network.psp_modules.iter().zip([4, 1, 3]) {
                let pooled = conv.forward(&adaptive_mean(&maps[3], side).unwrap()).unwrap();
                parts.push(candles(&pooled, &maps[3], align_corners));
            }
            let mut above = network.bottleneck.forward(&Tensor::cat(&parts, 3).unwrap()).unwrap();
            let mut levels = vec![candles(&above, &maps[0], align_corners)];
            for i in (0..3).rev() {
                let side = network.lateral_convs[i].forward(&maps[i]).unwrap();
                above = (side + candles(&above, &maps[i], align_corners)).unwrap();
                let level = network.fpn_convs[i].forward(&above).unwrap();
                levels.insert(0, candles(&level, &maps[0], align_corners));
            }
            let expected = network.fpn_bottleneck.forward(&levels).unwrap();
            let ours = network.decode(&maps).unwrap();
            let size = largest(&expected, &expected.zeros_like().unwrap());
            let off = |a: &Tensor, b: &Tensor| largest(a, b) / size;
            assert!(off(&ours, &expected) < 1e-5, "{align_corners} {plain}: {}", off(&ours, &expected));
            decoded.push(ours);
            assert!(!align_corners || off(&decoded[0], &expected) > 1e-2);
        }
    }
}
