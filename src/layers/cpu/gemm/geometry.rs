//! How a product is cut: register tiles, slices of depth, blocks of rows.

use std::ops::Range;

use crate::simd::Isa;

/// Bytes of scratch that a block of rows may take: half of a usual L2.
const BLOCK_BYTES: usize = 512 << 10;

/// Words of depth that a tile goes through at a time: its rows of them stay in L2. Deeper products go
/// over the output several times.
pub(super) const DEPTH: usize = 4608;

/// Vectors of columns that a register tile, and a panel of a packed weight, is wide.
pub(super) const VECTORS: usize = 2;

/// Rows of a register tile: with two vectors a row, sums, weights and one broadcast fill the registers.
pub(super) const fn tile_rows(isa: Isa) -> usize {
    match isa {
        // Not 14: the compiler then spills sums, and the speed falls to less than half.
        Isa::Avx512 | Isa::Avx512Bf16 => 13,
        // NEON's 32 registers are half as wide: as many vectors.
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 3,
    }
}

/// The largest of [`tile_rows`].
pub(super) const TILE_ROWS: usize = 13;

/// The most lanes of a vector.
const MOST_LANES: usize = 16;

/// Values of the largest tile.
pub(super) const TILE_VALUES: usize = TILE_ROWS * VECTORS * MOST_LANES;

/// Columns of a panel.
pub(super) fn columns(isa: Isa) -> usize {
    VECTORS * isa.lanes()
}

/// 0..n in `parts` ranges, as equal as they can be: the `i`-th of them.
#[inline(always)]
pub(super) fn part(n: usize, parts: usize, i: usize) -> Range<usize> {
    i * n / parts..(i + 1) * n / parts
}

/// How a product of `rows` rows is cut into tasks.
pub(crate) struct GemmBlocks {
    rows: usize,
    count: usize,
}

impl GemmBlocks {
    /// GemmBlocks of equal size that take at most [`BLOCK_BYTES`] at `words` a row, as many for each
    /// thread while that leaves every block a tile.
    pub(crate) fn new(rows: usize, words: usize, isa: Isa) -> Self {
        let (threads, tile) = (rayon::current_num_threads(), tile_rows(isa));
        let most = (BLOCK_BYTES / 4 / words.clamp(1, DEPTH) / tile).clamp(1, 4) * tile;
        let count = rows.div_ceil(most).next_multiple_of(threads).min(rows.div_ceil(tile / 2)).max(1);
        Self { rows, count }
    }

    /// The number of blocks.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The rows of block `i`.
    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        part(self.rows, self.count, i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_row_once() {
        for rows in [1, 2, 13, 49, 196, 3136, 50_176] {
            for depth in [27, 64, 512, 18_432] {
                let blocks = GemmBlocks::new(rows, depth, Isa::Avx512);
                let covered: Vec<usize> = (0..blocks.count()).flat_map(|i| blocks.range(i)).collect();
                assert_eq!(covered, (0..rows).collect::<Vec<_>>(), "{rows} rows of {depth}");
            }
        }
    }

    #[test]
    fn every_tile_fits_its_buffer() {
        for isa in Isa::all_available() {
            assert!(tile_rows(isa) <= TILE_ROWS && tile_rows(isa) * columns(isa) <= TILE_VALUES, "{isa:?}");
        }
    }
}
