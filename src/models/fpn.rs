//! The feature pyramid (arXiv 1612.03144) as mmdet's `FPN` computes it: no norms, no activations.

use candle_core::{Result, Tensor};
use nat_convert::arch::{ConvSpec, FpnSpec};

use crate::layers::{Conv2d, MapLayout};
use crate::weights::Weights;

/// Maps of all strides with the same channels, each knowing what the coarser ones know.
pub struct Fpn {
    lateral_convs: Vec<Conv2d>,
    fpn_convs: Vec<Conv2d>,
}

impl Fpn {
    /// One of each kind of convolution a backbone level.
    pub fn new(spec: &FpnSpec, weights: &Weights) -> Self {
        let convs = |specs: &[ConvSpec]| {
            specs.iter().map(|spec| Conv2d::new(spec, MapLayout::ChannelsLast, weights)).collect()
        };
        Self { lateral_convs: convs(&spec.lateral_convs), fpn_convs: convs(&spec.fpn_convs) }
    }

    /// The backbone's maps [B, H, W, C], finest first, to as many pyramid maps and one more: every second
    /// row and column of the last.
    ///
    /// # Errors
    /// When the maps are not those of the backbone.
    pub fn forward(&self, maps: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut pyramid: Vec<Tensor> = Vec::with_capacity(maps.len() + 1);
        let mut above: Option<Tensor> = None;
        for ((map, lateral), conv) in maps.iter().zip(&self.lateral_convs).zip(&self.fpn_convs).rev() {
            let merged = match &above {
                Some(above) => {
                    let (_, h, w, _) = map.dims4()?;
                    lateral.forward_residual(map, &nearest(above, h, w)?)?
                }
                None => lateral.forward(map)?,
            };
            pyramid.push(conv.forward(&merged)?);
            above = Some(merged);
        }
        pyramid.reverse();
        if let Some(last) = pyramid.last() {
            let (_, h, w, _) = last.dims4()?;
            let every_second = |side: usize| (0..side as u32).step_by(2).collect();
            pyramid.push(pick(last, every_second(h), every_second(w))?);
        }
        Ok(pyramid)
    }
}

/// `x` [B, H, W, C] at another size: position i shows floor(i · from / to).
fn nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let places = |from: usize, to: usize| {
        // PyTorch's rounding: the ratio in f32.
        let scale = from as f32 / to as f32;
        (0..to).map(|i| ((i as f32 * scale) as usize).min(from - 1) as u32).collect()
    };
    pick(x, places(h, height), places(w, width))
}

/// The rows and the columns of `x` [B, H, W, C] at these places.
fn pick(x: &Tensor, rows: Vec<u32>, columns: Vec<u32>) -> Result<Tensor> {
    let [rows, columns] = [rows, columns].map(|places| {
        let count = places.len();
        Tensor::from_vec(places, count, x.device())
    });
    x.index_select(&rows?, 1)?.index_select(&columns?, 2)
}
