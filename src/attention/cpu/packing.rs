//! How a tile lies in the scratch of its thread, and the copies that bring it there.

use std::ops::Range;

use super::geometry::{KernelSize, LINE, QueryTile};
use super::pixels::TileRow;
use crate::simd::Simd;

/// How a tile lies in its scratch: see the picture in [`super`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrangement<const K: usize> {
    /// K: gives the lanes of scores and the pitch of keys, which are [row][channel][column].
    pub(super) size: KernelSize<K>,
    pub(super) dim: usize,
    /// Rows of a window that are not alike: K, or fewer where some are padded.
    pub(super) rows: usize,
    /// Columns of keys and of values.
    pub(super) columns: usize,
    /// How many of these are not padded.
    pub(super) real: usize,
    /// From a row of keys to the next.
    pub(super) key_row: usize,
    /// Values are [row][column][channel], channels padded to `value`.
    pub(super) value: usize,
    pub(super) value_row: usize,
}

impl<const K: usize> Arrangement<K> {
    /// That of a tile whose windows reach these columns, for vectors of so many lanes.
    #[inline(always)]
    pub(super) fn new(
        size: KernelSize<K>,
        dim: usize,
        tile: &QueryTile,
        columns: &Range<usize>,
        vector: usize,
    ) -> Self {
        let value = dim.next_multiple_of(vector);
        let Range { start, end } = *columns;
        let columns = end - start;
        Self {
            size,
            dim,
            rows: size.get().min(tile.rows.size() + 1),
            columns,
            real: end.min(tile.columns.size()) - start,
            key_row: dim * size.pitch(),
            value,
            value_row: columns * value,
        }
    }

    /// Scores of two queries.
    #[inline(always)]
    pub(super) fn pair_lanes(&self) -> usize {
        2 * self.size.lanes()
    }
}

/// Copies a row of a tile, channels to rows: up to the last lane of the last window, with the last column again
/// after it, or what it is padded with.
#[inline(always)]
pub(super) fn transpose_row<S: Simd, const K: usize>(
    s: S,
    arrangement: &Arrangement<K>,
    row: &TileRow,
    to: &mut [f32],
) {
    let &Arrangement { size, dim, columns, .. } = arrangement;
    let &TileRow { from, stride, real, pad } = row;
    let (beyond, pitch) = (size.row_lanes() - size.get(), size.pitch());
    assert!(real == 0 || from.len() >= (real - 1) * stride + dim);
    assert!(real <= columns && (real == columns || pad.len() >= dim) && to.len() >= dim * pitch);
    let others = if real == columns { from.as_ptr().wrapping_add((real - 1) * stride) } else { pad.as_ptr() };
    for column in (0..(columns + beyond).min(pitch)).step_by(8) {
        let mut pixels = [others; 8];
        for (lane, pixel) in pixels.iter_mut().enumerate() {
            if column + lane < real {
                *pixel = from.as_ptr().wrapping_add((column + lane) * stride);
            }
        }
        // SAFETY: `from` has `dim` values of each real column, and so has `pad`, or `from` for the last column, of
        // the others; `to` has pitch values of each channel, in eights.
        unsafe { s.transpose(pixels, dim, to.as_mut_ptr().add(column), pitch) };
    }
}

/// Copies a row of a tile.
#[inline(always)]
pub(super) fn copy_row<S: Simd, const K: usize>(
    s: S,
    arrangement: &Arrangement<K>,
    row: &TileRow,
    to: &mut [f32],
) {
    let &Arrangement { dim, columns, value, .. } = arrangement;
    for (column, to) in to[..columns * value].chunks_exact_mut(value).enumerate() {
        let from = if column < row.real { &row.from[column * row.stride..] } else { row.pad };
        let from = &from[..dim];
        for c in (0..dim).step_by(S::LANES) {
            // SAFETY: `to` has whole vectors, `from` as many values as are read.
            unsafe {
                let (from, to) = (from.as_ptr().add(c), to.as_mut_ptr().add(c));
                if c + S::LANES <= dim {
                    s.store(to, s.load(from));
                } else {
                    s.store(to, s.load_first(from, dim - c));
                }
            }
        }
    }
}

/// Slices of `buffer` of these sizes, each from a cache line on.
pub(super) fn slices<const N: usize>(buffer: &mut Vec<f32>, sizes: [usize; N]) -> [&mut [f32]; N] {
    let total: usize = sizes.iter().map(|n| n.next_multiple_of(LINE)).sum();
    if buffer.len() < total + LINE {
        buffer.resize(total + LINE, 0.0);
    }
    let start = buffer.as_ptr().align_offset(size_of::<f32>() * LINE);
    let mut rest = &mut buffer[start..];
    sizes.map(|n| {
        let (slice, tail) = std::mem::take(&mut rest).split_at_mut(n.next_multiple_of(LINE));
        rest = tail;
        &mut slice[..n]
    })
}
