//! What networks do with maps and boxes that takes no weights.

use candle_core::{Result, Tensor};

use super::backend;
use super::form::{MapForm, Roi};
use crate::weights::Weights;

/// Operations on channels-last maps, by what computes the layers of the same weights.
#[derive(Clone, Copy)]
pub struct Maps(&'static dyn MapForm);

impl Maps {
    /// For maps of a network of these weights.
    pub fn new(weights: &Weights) -> Self {
        Self(backend::of(weights).maps())
    }

    /// The mean of `x` [B, H, W, C] over its positions, [B, C].
    ///
    /// # Errors
    /// When `x` is no map.
    pub fn mean(&self, x: &Tensor) -> Result<Tensor> {
        self.0.mean(x)
    }

    /// `x` in f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn widened(&self, x: &Tensor) -> Result<Tensor> {
        self.0.widened(x)
    }

    /// `x` [B, H, W, C] with the neighbours of every 2x2 positions side by side, in the order (0, 0), (1, 0), (0, 1), (1, 1) as
    /// (row, column): [B, H/2, W/2, 4·C], of sides that are rounded up, with zeros beyond the map.
    ///
    /// # Errors
    /// When `x` is no map.
    pub fn merged(&self, x: &Tensor) -> Result<Tensor> {
        self.0.merged(x)
    }

    /// `x` [B, H, W, C] at another height and width, bilinear, with or without PyTorch's `align_corners`.
    ///
    /// # Errors
    /// When `x` is no map, or has no positions.
    pub fn resized(&self, x: &Tensor, size: [usize; 2], align_corners: bool) -> Result<Tensor> {
        self.0.resized(x, size, align_corners)
    }

    /// Features of regions from the maps [1, H, W, C] of `strides` pixels a position, by RoIAlign with an adaptive
    /// sampling grid: [regions, `side`, `side`, C].
    ///
    /// # Errors
    /// When the maps are not those of one picture.
    pub(crate) fn regions(
        &self,
        maps: &[Tensor],
        strides: &[usize],
        regions: &[Roi],
        side: usize,
    ) -> Result<Tensor> {
        self.0.regions(maps, strides, regions, side)
    }

    /// Of boxes, best first, which of them non-maximum suppression keeps, compared on the device of `like`; `None`
    /// where that has nothing of its own to do it with.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn kept(
        &self,
        boxes: &[[f32; 4]],
        threshold: f32,
        like: &Tensor,
    ) -> Result<Option<Vec<bool>>> {
        self.0.kept(boxes, threshold, like)
    }
}
