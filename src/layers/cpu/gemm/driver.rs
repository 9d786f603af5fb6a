//! The driver: cuts a product into blocks for the threads and these into tiles, with what is around them.

use std::ops::Range;

use rayon::prelude::*;

use super::buffers::Buffers;
use super::cells::{Cells, ValueCells, filled};
use super::epilogue::{Epilogue, TilePlace, finish};
use super::geometry::{DEPTH, GemmBlocks, TILE_VALUES, most_tiles, part, tile_rows};
use super::microkernel::RegisterTile;
use super::operands::{Operands, Rows};
use super::packed::Packed;
use super::panels::{CacheLine, LINE_WORDS, Upcoming};
use crate::layers::cpu::norm::Norm;
use crate::simd::{Kernel, Simd, Word};

/// What is done with a block's rows of the output while they are in cache.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// Nothing.
    Nothing,
    /// They are normalised.
    Norm(&'a Norm),
    /// They are gradients of a norm's result, of which those of its rows `x` are made.
    NormGradient { norm: &'a Norm, x: &'a [f32] },
}

/// out = then(epilogue(rows · weightᵀ)), [rows, n], on all threads of the current pool.
pub(crate) fn product(
    rows: usize,
    lhs: &impl Rows,
    weight: &Packed,
    epilogue: Epilogue,
    then: Then,
) -> Vec<f32> {
    let blocks = GemmBlocks::new(rows, weight.words(), weight.isa());
    // Too few blocks for the threads (a classifier's head): the columns are cut as well.
    let strips = match then {
        Then::Nothing => rayon::current_num_threads().div_ceil(blocks.count()).min(weight.panels()),
        _ => 1,
    };
    filled(rows, weight.n(), |out| {
        (0..blocks.count() * strips).into_par_iter().with_max_len(1).for_each(|task| {
            let (block, strip) = (task / strips, task % strips);
            let panels = part(weight.panels(), strips, strip);
            let range = blocks.range(block);
            weight.isa().run(Product { lhs, range, weight, panels, epilogue, then, out });
        });
    })
}

struct Product<'a, R> {
    lhs: &'a R,
    range: Range<usize>,
    weight: &'a Packed,
    panels: Range<usize>,
    epilogue: Epilogue<'a>,
    /// Something only where `panels` are all of them.
    then: Then<'a>,
    out: ValueCells,
}

impl<R: Rows> Kernel for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut scratch = Buffers::take();
        let Buffers { room, panel, .. } = &mut *scratch;
        let rows = self.lhs.get(s, self.range.clone(), room);
        // SAFETY: the tasks' rows and panels are disjoint.
        unsafe {
            let whole = RowBlock::of(rows, self.weight, &self.epilogue, self.range.clone(), panel);
            RowBlock { panels: self.panels, ..whole }.run(s, self.out);
            match self.then {
                Then::Nothing => {}
                Then::Norm(norm) => norm.in_place(s, self.out.rows_mut(self.range)),
                Then::NormGradient { norm, x } => {
                    let x = &x[self.range.start * self.weight.n()..self.range.end * self.weight.n()];
                    norm.differentiate(s, x, self.out.rows_mut(self.range), None);
                }
            }
        }
        scratch.put_back();
    }
}

/// One block of a product.
pub(crate) struct RowBlock<'a, W> {
    /// Its rows, as many as `range` has.
    pub(crate) rows: Operands<'a, W>,
    pub(crate) weight: &'a Packed,
    /// Those of the weight's that are multiplied.
    pub(crate) panels: Range<usize>,
    pub(crate) epilogue: &'a Epilogue<'a>,
    /// The rows of the output.
    pub(crate) range: Range<usize>,
    /// For a panel.
    pub(crate) room: &'a mut Vec<CacheLine<f32>>,
}

impl<'a, W: Word> RowBlock<'a, W> {
    /// One of all panels.
    pub(crate) fn of(
        rows: Operands<'a, W>,
        weight: &'a Packed,
        epilogue: &'a Epilogue<'a>,
        range: Range<usize>,
        room: &'a mut Vec<CacheLine<f32>>,
    ) -> Self {
        Self { rows, weight, panels: 0..weight.panels(), epilogue, range, room }
    }

    /// Multiplies it, into its rows and its panels' columns of `out`.
    ///
    /// # Safety
    /// No other task writes that part of `out` at the same time.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd<Word = W>>(self, s: S, out: impl Cells<S>) {
        let Self { rows: Operands { words: rows, stride }, weight, panels, epilogue, range, room } = self;
        let (words, n, count, isa) = (weight.words(), weight.n(), range.len(), weight.isa());
        let data = weight.data::<W>();
        assert!(rows.len() == count * stride && words <= stride);
        assert!(panels.end <= weight.panels() && range.end <= out.rows() && out.columns() == n);
        epilogue.check(out.rows(), n);
        let slices = words.div_ceil(DEPTH).max(1);
        // Of one tile, or of all where a later slice adds to them.
        let mut one = [CacheLine([0f32; LINE_WORDS]); TILE_VALUES / LINE_WORDS];
        let most = most_tiles(isa, count);
        let mut all = if slices > 1 { vec![one; most * panels.len()] } else { Vec::new() };
        for slice in 0..slices {
            let depth = part(words, slices, slice);
            for (p, panel) in panels.clone().enumerate() {
                let b = data.words(s, panel, &depth, room);
                let next = Some(panel + 1).filter(|next| panels.contains(next));
                let columns = data.columns(panel);
                let vectors = columns.len() / S::LANES;
                let tiles = count.div_ceil(tile_rows(isa, vectors));
                for tile in 0..tiles {
                    let Range { start, end } = part(count, tiles, tile);
                    let sums = all.get_mut(p * most + tile).unwrap_or(&mut one);
                    let register_tile = RegisterTile {
                        rows: end - start,
                        vectors,
                        a: rows[start * stride + depth.start..].as_ptr(),
                        stride,
                        b,
                        words: depth.len(),
                        more: slice > 0,
                        sums: sums.as_mut_ptr().cast(),
                        upcoming: match next {
                            Some(next) => data.upcoming(next, &depth, tiles, tile),
                            None => Upcoming::NOTHING,
                        },
                    };
                    register_tile.run(s);
                    if depth.end == words {
                        let place = TilePlace {
                            rows: range.start + start..range.start + end,
                            columns: columns.start..n.min(columns.end),
                            vectors,
                        };
                        // SAFETY: the tile lies inside the output (asserted above) and is this task's own.
                        unsafe { finish(s, sums.as_ptr().cast(), &place, epilogue, out) };
                    }
                }
            }
        }
    }
}
