//! The driver: cuts a product into blocks for the threads and these into tiles, with what is around them.

use std::ops::Range;

use rayon::prelude::*;

use super::buffers::Buffers;
use super::cells::{Cells, ValueCells, filled};
use super::epilogue::{Epilogue, TilePlace, finish};
use super::geometry::{DEPTH, GemmBlocks, TILE_VALUES, VECTORS, part, tile_rows};
use super::microkernel::RegisterTile;
use super::operands::{Operands, Rows};
use super::packed::{CacheLine, LINE_WORDS, Packed};
use crate::layers::cpu::norm::Norm;
use crate::simd::{Kernel, Simd};

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
        let rows = self.lhs.get(s, self.range.clone(), &mut scratch.room);
        // SAFETY: the tasks' rows and panels are disjoint.
        unsafe {
            block(s, rows, self.weight, self.panels, &self.epilogue, self.out, self.range.clone());
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

/// Multiplies one block: `rows`, range.len() of them, into the output's rows `range`, columns of `panels`.
///
/// # Safety
/// No other task writes that part of `out` at the same time.
#[inline(always)]
pub(crate) unsafe fn block<S: Simd>(
    s: S,
    rows: Operands<S::Word>,
    weight: &Packed,
    panels: Range<usize>,
    epilogue: &Epilogue,
    out: impl Cells<S>,
    range: Range<usize>,
) {
    let (words, n, count, columns) = (weight.words(), weight.n(), range.len(), weight.columns());
    let (Operands { words: rows, stride }, lines) = (rows, weight.lines::<S::Word>());
    assert!(rows.len() == count * stride && words <= stride && columns == VECTORS * S::LANES);
    assert!(lines.len() * LINE_WORDS >= weight.panels() * words * columns);
    assert!(panels.end <= weight.panels() && range.end <= out.rows() && out.columns() == n);
    epilogue.check(out.rows(), n);
    let tiles = count.div_ceil(tile_rows(weight.isa()));
    let slices = words.div_ceil(DEPTH).max(1);
    // Of one tile, or of all where a later slice adds to them.
    let mut one = [CacheLine([0f32; LINE_WORDS]); TILE_VALUES / LINE_WORDS];
    let mut all = if slices > 1 { vec![one; tiles * panels.len()] } else { Vec::new() };
    for slice in 0..slices {
        let depth = part(words, slices, slice);
        for (p, panel) in panels.clone().enumerate() {
            let first = panel * columns;
            for tile in 0..tiles {
                let Range { start, end } = part(count, tiles, tile);
                let sums = all.get_mut(p * tiles + tile).unwrap_or(&mut one);
                let panel = lines.as_ptr().cast::<S::Word>().wrapping_add(panel * words * columns);
                s.call(RegisterTile {
                    rows: end - start,
                    a: rows[start * stride + depth.start..].as_ptr(),
                    stride,
                    b: panel.wrapping_add(depth.start * columns),
                    words: depth.len(),
                    more: slice > 0,
                    sums: sums.as_mut_ptr().cast(),
                });
                if depth.end == words {
                    let place = TilePlace {
                        rows: range.start + start..range.start + end,
                        columns: first..n.min(first + columns),
                    };
                    // SAFETY: the tile lies inside the output (asserted above) and is this task's own.
                    unsafe { finish(s, sums.as_ptr().cast(), &place, epilogue, out) };
                }
            }
        }
    }
}
