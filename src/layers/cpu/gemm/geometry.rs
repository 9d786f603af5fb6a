//! How a product is cut: register tiles, slices of depth, blocks of rows.

use std::ops::Range;

use crate::simd::{Isa, second_cache};

/// Rows of a block, at most: with so many the weights are read seldom enough, and there are blocks for every thread.
const BLOCK_ROWS: usize = 108;

/// Rows that are one block for each thread, whatever they take: those of a map of 7x7.
const FEW_ROWS: usize = 52;

/// Words of depth that a tile goes through at a time: its rows of them stay in L2. Deeper products go
/// over the output several times.
pub(super) const DEPTH: usize = 4608;

/// Vectors of columns that a panel of a packed weight, and a register tile, is wide at most. The wider a tile, the fewer
/// values it loads for each product: a core whose other half is busy has not many loads to spare. Three take 32 registers.
const fn widest(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx512Bf16 => 3,
        Isa::Avx2 | Isa::Neon | Isa::Portable => 2,
    }
}

/// Rows of a register tile of so many vectors: sums, weights and one broadcast fill the registers.
pub(super) const fn tile_rows(isa: Isa, vectors: usize) -> usize {
    match (isa, vectors) {
        (Isa::Avx512 | Isa::Avx512Bf16, 3) => 9,
        (Isa::Avx512 | Isa::Avx512Bf16, _) => 13,
        // NEON's 32 registers are half as wide: as many vectors.
        (Isa::Avx2 | Isa::Neon, _) => 6,
        (Isa::Portable, _) => 3,
    }
}

/// The most tiles that so many rows are cut into, in panels of whatever width.
pub(super) const fn most_tiles(isa: Isa, rows: usize) -> usize {
    rows.div_ceil(tile_rows(isa, widest(isa)))
}

/// Whether a tile of so many rows and vectors is one that an instruction set of so many registers has: the others need not
/// be compiled.
pub(super) const fn fits(registers: usize, rows: usize, vectors: usize) -> bool {
    rows * vectors < registers && (vectors == 2 || registers == 32)
}

/// Values of the largest tile, of 9 rows and 3 vectors of 16 lanes.
pub(super) const TILE_VALUES: usize = 9 * 3 * 16;

/// How the columns of a weight are cut into panels: those of three vectors come first, then those of two.
#[derive(Clone, Copy)]
pub(super) struct PanelCut {
    lanes: usize,
    wide: usize,
    narrow: usize,
}

impl PanelCut {
    /// Of `n` columns: none of one vector, and zeros beside them only where they are a single vector or an odd number of
    /// them is cut in twos.
    pub(super) fn new(isa: Isa, n: usize) -> Self {
        let vectors = n.div_ceil(isa.lanes());
        let (wide, narrow) = match (widest(isa), vectors, vectors % 3) {
            (3, 2.., 1) => (vectors / 3 - 1, 2),
            (3, _, 0) => (vectors / 3, 0),
            (3, _, _) => (vectors / 3, 1),
            _ => (0, vectors.div_ceil(2)),
        };
        Self { lanes: isa.lanes(), wide, narrow }
    }

    /// Panels.
    pub(super) fn count(&self) -> usize {
        self.wide + self.narrow
    }

    /// Columns of all panels, those of zeros included.
    pub(super) fn columns(&self) -> usize {
        (3 * self.wide + 2 * self.narrow) * self.lanes
    }

    /// The columns of the `i`-th panel.
    #[inline(always)]
    pub(super) fn panel(&self, i: usize) -> Range<usize> {
        let first = if i < self.wide { 3 * i } else { 3 * self.wide + 2 * (i - self.wide) };
        let vectors = if i < self.wide { 3 } else { 2 };
        first * self.lanes..(first + vectors) * self.lanes
    }

    /// The panel of a column.
    pub(super) fn panel_of(&self, column: usize) -> usize {
        let vector = column / self.lanes;
        if vector < 3 * self.wide { vector / 3 } else { self.wide + (vector - 3 * self.wide) / 2 }
    }
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
    /// Blocks of equal size, as many for each thread while that leaves every block half a tile. They take at most half of
    /// the second cache at `words` a row, or what few rows take.
    pub(crate) fn new(rows: usize, words: usize, isa: Isa) -> Self {
        let (threads, tile) = (rayon::current_num_threads(), tile_rows(isa, widest(isa)));
        let fit = second_cache() / 2 / (4 * words.clamp(1, DEPTH));
        let most = match rows {
            // Were they cut further, all weights would be read once more.
            ..=FEW_ROWS => FEW_ROWS,
            _ => (fit.min(BLOCK_ROWS) / tile).max(1) * tile,
        };
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
        for rows in [0, 1, 2, 13, 49, 196, 3136, 50_176] {
            for (depth, isa) in
                [27, 64, 512, 18_432].into_iter().flat_map(|depth| Isa::all().map(move |isa| (depth, isa)))
            {
                let blocks = GemmBlocks::new(rows, depth, isa);
                let covered: Vec<usize> = (0..blocks.count()).flat_map(|i| blocks.range(i)).collect();
                assert_eq!(covered, (0..rows).collect::<Vec<_>>(), "{rows} rows of {depth}, {isa:?}");
                assert!(
                    (0..blocks.count()).all(|i| blocks.range(i).len() <= BLOCK_ROWS),
                    "{rows} rows of {depth}"
                );
            }
        }
    }

    #[test]
    fn every_tile_fits_its_buffer() {
        for isa in Isa::all() {
            for vectors in 2..=widest(isa) {
                let rows = tile_rows(isa, vectors);
                assert!(rows * vectors * isa.lanes() <= TILE_VALUES, "{isa:?}");
                assert!(
                    (0..300).all(|count: usize| count.div_ceil(rows) <= most_tiles(isa, count)),
                    "{isa:?}"
                );
            }
        }
    }

    #[test]
    fn panels_follow_each_other_and_hold_every_column() {
        for isa in Isa::all() {
            for n in 0..=300 {
                let cut = PanelCut::new(isa, n);
                let ends: Vec<_> = (0..cut.count()).map(|i| cut.panel(i)).collect();
                let covered: Vec<usize> = ends.iter().cloned().flatten().collect();
                assert_eq!(covered, (0..cut.columns()).collect::<Vec<_>>(), "{isa:?}, {n}");
                assert!(n <= cut.columns() && cut.columns() < n + 2 * isa.lanes(), "{isa:?}, {n}");
                assert!((0..n).all(|column| ends[cut.panel_of(column)].contains(&column)), "{isa:?}, {n}");
                let vectors = ends.iter().map(|panel| panel.len() / isa.lanes());
                assert!(vectors.into_iter().all(|vectors| (2..=widest(isa)).contains(&vectors)));
            }
        }
    }
}
