//! Where the channels of a head lie in tensors [B, H, W, channels], and what stands for a pixel that is not there.

use super::geometry::QueryTile;
use crate::attention::problem::Problem;

/// The output, which tasks write at distinct places.
pub(super) struct SharedOut(pub(super) *mut f32);

// SAFETY: each task writes the pixels of its tile and the channels of its head, which no other has.
unsafe impl Sync for SharedOut {}

/// Where a head's channels lie in a tensor [B, H, W, channels], by the places of a class's pixels.
#[derive(Clone, Copy)]
pub(super) struct HeadPixels {
    first: usize,
    row: usize,
    column: usize,
}

impl HeadPixels {
    /// Those of a tile's classes in an image of so many channels.
    #[inline(always)]
    pub(super) fn new(
        problem: &Problem,
        image: usize,
        head: usize,
        tile: &QueryTile,
        channels: usize,
    ) -> Self {
        let &Problem { height, width, dim, .. } = problem;
        let first = (image * height + tile.rows.position(0)) * width + tile.columns.position(0);
        Self {
            first: first * channels + head * dim,
            row: tile.rows.dilation() * width * channels,
            column: tile.columns.dilation() * channels,
        }
    }

    /// Where they begin at a place.
    #[inline(always)]
    pub(super) fn at(&self, y: usize, x: usize) -> usize {
        self.first + y * self.row + x * self.column
    }
}

/// Where a tile's queries, keys and values come from.
#[derive(Clone, Copy)]
pub(super) struct Qkv<'a> {
    /// [B, H, W, 3, heads, dim]
    pub(super) values: &'a [f32],
    /// Those of the tile's head.
    pub(super) pixels: HeadPixels,
    /// Of a padded position [3, heads, dim], from the tile's head on; empty where there is none.
    pad: &'a [f32],
    /// From q to k and from k to v.
    pub(super) channels: usize,
}

/// A row of a tile's keys, or of its values.
pub(super) struct TileRow<'a> {
    /// Begins with the first one, of which `real` are there, `stride` apart.
    pub(super) from: &'a [f32],
    pub(super) stride: usize,
    pub(super) real: usize,
    /// All others.
    pub(super) pad: &'a [f32],
}

impl<'a> Qkv<'a> {
    /// Those of a head of an image; `pad` [3, heads, dim] may be empty.
    #[inline(always)]
    pub(super) fn new(
        problem: &Problem,
        values: &'a [f32],
        pad: &'a [f32],
        image: usize,
        head: usize,
        tile: &QueryTile,
    ) -> Self {
        let channels = problem.heads * problem.dim;
        Self {
            values,
            pixels: HeadPixels::new(problem, image, head, tile, 3 * channels),
            pad: pad.get(head * problem.dim..).unwrap_or_default(),
            channels,
        }
    }

    /// Row `y` of the keys (1) or values (2) of a tile, whose columns begin at place `x`; in rows of pixels `real` are
    /// not padded.
    #[inline(always)]
    pub(super) fn row(&self, tile: &QueryTile, part: usize, y: usize, x: usize, real: usize) -> TileRow<'a> {
        let (skipped, stride) = (part * self.channels, self.pixels.column);
        let (from, real) = match y < tile.rows.size() {
            true => (&self.values[self.pixels.at(y, x) + skipped..], real),
            false => (&[][..], 0),
        };
        TileRow { from, stride, real, pad: self.pad.get(skipped..).unwrap_or_default() }
    }
}
