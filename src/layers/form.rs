//! The seam between layers and backends: what a backend makes of each layer's parts, and what that has to do.
//!
//! A layer has one *form*, chosen when it takes its weights; the table of `backend.rs` says whose. A form does
//! not know its layer, and nothing above the layers knows forms.

use candle_core::{DType, Result, Shape, Tensor};

use super::parts::{BlockParts, ConvParts, LinearParts, MlpParts, NormParts, PyramidParts};
use crate::weights::Weights;

/// What computes layers: packed kernels of a processor, a GPU's kernels, candle's operators.
///
/// Forms are made of tensors that `weights` gave; what fails is told to these, and zeros stand in.
pub(crate) trait Backend: Sync {
    /// The form of a linear layer with what stands around it.
    fn linear(&self, parts: LinearParts, weights: &Weights) -> Box<dyn LinearForm>;
    /// The form of a block's MLP.
    fn mlp(&self, parts: MlpParts, weights: &Weights) -> Box<dyn MlpForm>;
    /// The form of consecutive blocks, where there is one that is more than the forms of their layers.
    fn blocks(&self, _: &[BlockParts], _: &Weights) -> Option<Box<dyn BlocksForm>> {
        None
    }
    /// The form of a convolution.
    fn conv(&self, parts: ConvParts, weights: &Weights) -> Box<dyn ConvForm>;
    /// The form of a layer norm that stands alone.
    fn norm(&self, parts: NormParts, weights: &Weights) -> Box<dyn NormForm>;
    /// The form of a convolution over a pyramid.
    fn pyramid(&self, parts: PyramidParts, weights: &Weights) -> Box<dyn PyramidForm>;
    /// How many images go through a network, and when.
    fn batches(&self) -> Box<dyn BatchForm>;
    /// What has no weights.
    fn maps(&self) -> &'static dyn MapForm;
}

/// residual + gamma · activation(linear(norm(x))), of which the parts say what there is.
pub(crate) trait LinearForm: Send + Sync {
    /// `x` [.., inputs] to `shape` [.., outputs]; a residual has that shape too.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, shape: &Shape) -> Result<Tensor>;
}

/// x + gamma · fc2(gelu(fc1(norm(x)))).
pub(crate) trait MlpForm: Send + Sync {
    /// `x` [.., dim]
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// Consecutive transformer blocks.
pub(crate) trait BlocksForm: Send + Sync {
    /// `x` [B, H, W, dim]
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// The sizes of a convolution's input and output.
#[derive(Clone, Copy)]
pub(crate) struct ConvSizes {
    pub(crate) batch: usize,
    /// Height, width and channels of the map.
    pub(crate) map: [usize; 3],
    /// Height and width of the output.
    pub(crate) out: [usize; 2],
    /// Channels of the output.
    pub(crate) outputs: usize,
}

impl ConvSizes {
    /// The shape of the output, [B, H', W', outputs].
    pub(crate) fn shape(&self) -> Shape {
        (self.batch, self.out[0], self.out[1], self.outputs).into()
    }
}

/// norm(residual + activation(conv(x))).
pub(crate) trait ConvForm: Send + Sync {
    /// A map in the layout of the parts to [B, H', W', outputs]; a residual has that shape too.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, sizes: ConvSizes) -> Result<Tensor>;
}

/// A layer norm.
pub(crate) trait NormForm: Send + Sync {
    /// `x` [.., dim]
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// activation(conv(concatenation of resampled maps)).
pub(crate) trait PyramidForm: Send + Sync {
    /// Maps [B, H, W, C], [B, h, w, C], … to [B, H, W, outputs].
    fn forward(&self, maps: &[Tensor]) -> Result<Tensor>;
}

/// A network, as it is run.
pub(crate) type NetworkRun<'a> = &'a (dyn Fn(&Tensor) -> Result<Tensor> + Sync);

/// How batches go through a network.
pub(crate) trait BatchForm: Send + Sync {
    /// How many of `batch` images of so many values each are best computed together; at most `most` where memory sets that
    /// limit.
    fn together(&self, batch: usize, values: usize, most: Option<usize>) -> usize;
    /// `network` of all `images` [B, ..] of a part.
    fn run(&self, images: &Tensor, network: NetworkRun) -> Result<Tensor> {
        network(images)
    }
}

/// A region on one map of a pyramid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Roi {
    /// The map.
    pub(crate) level: usize,
    /// Left, top, right and bottom edge in pixels.
    pub(crate) corners: [f32; 4],
}

impl Roi {
    /// As a GPU's kernel takes it: level, x1, y1, x2, y2.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn row(&self) -> [f32; 5] {
        let [x1, y1, x2, y2] = self.corners;
        [self.level as f32, x1, y1, x2, y2]
    }
}

/// What is done with maps and boxes that takes no weights.
pub(crate) trait MapForm: Sync {
    /// The mean of `x` [B, H, W, C] over its positions, [B, C].
    fn mean(&self, x: &Tensor) -> Result<Tensor>;
    /// `x` in f32.
    fn widened(&self, x: &Tensor) -> Result<Tensor> {
        x.to_dtype(DType::F32)
    }
    /// `x` [B, H, W, C] with the neighbours of every 2x2 positions side by side, in the order (0, 0), (1, 0), (0, 1), (1, 1) as
    /// (row, column): [B, H/2, W/2, 4·C], of sides that are rounded up, with zeros beyond the map.
    fn merged(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let x = x.pad_with_zeros(1, 0, h % 2)?.pad_with_zeros(2, 0, w % 2)?;
        let (h, w) = (h.div_ceil(2), w.div_ceil(2));
        // [B, H, 2, W, 2, C] -> [B, H, W, column, row, C].
        let x = x.reshape((b, h, 2, w, 2, c))?.permute([0, 1, 3, 4, 2, 5])?.contiguous()?;
        x.reshape((b, h, w, 4 * c))
    }
    /// `x` [B, H, W, C] at another height and width, bilinear, with or without PyTorch's `align_corners`.
    fn resized(&self, x: &Tensor, size: [usize; 2], align_corners: bool) -> Result<Tensor>;
    /// Features of regions from the maps [1, H, W, C] of `strides` pixels a position, by RoIAlign with an adaptive
    /// sampling grid: [regions, `side`, `side`, C].
    fn regions(&self, maps: &[Tensor], strides: &[usize], regions: &[Roi], side: usize) -> Result<Tensor>;
    /// Of boxes, best first, which of them non-maximum suppression keeps, compared on the device of `like`; `None`
    /// where that has nothing of its own to do it with.
    fn kept(&self, boxes: &[[f32; 4]], threshold: f32, like: &Tensor) -> Result<Option<Vec<bool>>>;
}
