//! The forward pass: tiles in parallel, each row by row.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::geometry::{ANY, BATCH, KernelSize, LINE, Query, QueryTile, USUAL, reach, reach_rows, tiles};
use super::microkernels::{blocks, dots_of, fill_masks, mix_all};
use super::packing::{Arrangement, copy_row, slices, transpose_row};
use super::pixels::{HeadPixels, Qkv, SharedOut};
use super::scores::{WindowSoftmax, padded_biases};
use crate::attention::problem::Problem;
use crate::simd::{Isa, Kernel, Simd};

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim], `rpb` [heads, 2K−1, 2K−1] and, where an axis is
/// shorter than K·d, `pad` [3·heads·dim]: of a padded position what qkv has of a pixel.
pub(in crate::attention) fn forward(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
) -> Vec<f32> {
    let &Problem { batch, height, width, heads, dim, .. } = problem;
    let values = batch * height * width * heads * dim;
    assert_eq!(qkv.len(), 3 * values);
    assert!(!problem.is_padded() || pad.len() == 3 * heads * dim);
    let bias = padded_biases(problem, rpb);
    let tiles = tiles(problem, rayon::current_num_threads());
    let mut out = Vec::with_capacity(values);
    let shared = SharedOut(out.as_mut_ptr());
    (0..batch * tiles.len() * heads).into_par_iter().with_max_len(1).for_each(|task| {
        thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        // Heads last: those of a pixel share pages.
        let (task, head) = (task / heads, task % heads);
        let (image, tile) = (task / tiles.len(), &tiles[task % tiles.len()]);
        SCRATCH.with_borrow_mut(|scratch| {
            isa.run(Attend { problem, qkv, bias: &bias, pad, out: &shared, image, head, tile, scratch });
        });
    });
    // SAFETY: the capacity is `values`, and the tasks wrote every channel of every query of every head.
    unsafe { out.set_len(values) };
    out
}

/// Attention of the queries of one tile.
struct Attend<'a> {
    problem: &'a Problem,
    qkv: &'a [f32],
    /// As [`padded_biases`] makes them.
    bias: &'a [f32],
    pad: &'a [f32],
    out: &'a SharedOut,
    image: usize,
    head: usize,
    tile: &'a QueryTile,
    scratch: &'a mut Vec<f32>,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.problem.kernel_size {
            USUAL => self.attend::<S, USUAL>(s),
            _ => self.attend::<S, ANY>(s),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn attend<S: Simd, const K: usize>(self, s: S) {
        let Self { problem, qkv, bias, pad, out, image, head, tile, scratch } = self;
        let &Problem { heads, dim, .. } = problem;
        let size = KernelSize::<K>::new(problem.kernel_size);
        let kernel_size = size.get();
        let rows = reach_rows(tile.rows, &tile.y, kernel_size);
        let columns = reach(tile.columns, &tile.x, kernel_size);
        let arrangement = Arrangement::new(size, dim, tile, &columns, S::LANES);
        let sizes = [
            rows.len() * arrangement.key_row,
            rows.len() * arrangement.value_row,
            BATCH * arrangement.pair_lanes(),
            2 * arrangement.size.row_lanes(),
        ];
        let [keys, values, scores, masks] = slices(scratch, sizes);
        fill_masks(size, masks);
        let source = Qkv::new(problem, qkv, pad, image, head, tile);
        let out_pixels = HeadPixels::new(problem, image, head, tile, heads * dim);
        let softmax = WindowSoftmax { problem, tile, head, bias, masks };
        let mut work = ForwardPass {
            s,
            tile,
            arrangement,
            source,
            out,
            out_pixels,
            rows,
            columns,
            keys,
            values,
            scores,
            softmax,
        };

        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut factors = [[0.0; 2]; BATCH];
        let mut packed = work.rows.start;
        let mut next = Some(tile.first());
        while let Some(Query { window_y, .. }) = next {
            let count = tile.batch(&mut next, work.arrangement.size.slack(), &mut pairs);
            let window_end = window_y + work.arrangement.rows;
            for y in packed + 1..window_end {
                work.ask_for(y, 0..work.arrangement.real);
            }
            while packed < window_end {
                work.pack(packed);
                packed += 1;
            }
            let (pairs, factors) = (&pairs[..count], &mut factors[..count]);
            work.dots(pairs, (packed < work.rows.end).then_some(packed));
            work.softmax.run(s.narrow(), size, pairs, work.scores, factors);
            work.mix(pairs, factors);
        }
    }
}

/// A tile and its scratch. The methods are the steps that a batch of pairs takes, all with windows in the
/// same rows.
struct ForwardPass<'a, S, const K: usize> {
    s: S,
    tile: &'a QueryTile,
    arrangement: Arrangement<K>,
    source: Qkv<'a>,
    out: &'a SharedOut,
    out_pixels: HeadPixels,
    /// Places of the keys and values; one row stands for all that are padded.
    rows: Range<usize>,
    columns: Range<usize>,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// Of each pair of a batch, [query][row][lane]. Lanes count from the pair's first window.
    scores: &'a mut [f32],
    softmax: WindowSoftmax<'a>,
}

impl<S: Simd, const K: usize> ForwardPass<'_, S, K> {
    /// Asks the memory for row `y` of q, k and v. It is far, and many requests at once would stall: they
    /// go out a few columns at a time, between the queries of the row before.
    #[inline(always)]
    fn ask_for(&self, y: usize, columns: Range<usize>) {
        let Qkv { values: qkv, pixels, channels, .. } = self.source;
        if y >= self.tile.rows.size() {
            return;
        }
        for column in columns {
            let q = qkv.as_ptr().wrapping_add(pixels.at(y, self.columns.start + column));
            for c in (0..self.arrangement.dim).step_by(LINE) {
                for part in 0..3 {
                    self.s.prefetch(q.wrapping_add(part * channels + c));
                }
            }
        }
    }

    /// Copies row `y` of the keys, transposed, and of the values.
    #[inline(always)]
    fn pack(&mut self, y: usize) {
        let (s, arrangement, row) = (self.s, &self.arrangement, y - self.rows.start);
        let [k, v] =
            [1, 2].map(|part| self.source.row(self.tile, part, y, self.columns.start, arrangement.real));
        transpose_row(s, arrangement, &k, &mut self.keys[row * arrangement.key_row..]);
        copy_row(s, arrangement, &v, &mut self.values[row * arrangement.value_row..]);
    }

    /// The first column of a pair's windows, from the tile's first.
    #[inline(always)]
    fn column(&self, pair: &[Query; 2]) -> usize {
        pair[0].window_x - self.columns.start
    }

    /// The scores q·k of a batch; asks for row `upcoming` meanwhile.
    #[inline(always)]
    fn dots(&mut self, pairs: &[[Query; 2]], upcoming: Option<usize>) {
        let &Arrangement { dim, rows, real, key_row, .. } = &self.arrangement;
        let Qkv { values: qkv, pixels, .. } = self.source;
        let row = pairs[0][0].window_y - self.rows.start;
        // The keys of one block after the other stay in the L1 cache, where those of a wide window would not.
        for block in blocks::<S, K>(self.arrangement.size) {
            for (i, pair) in pairs.iter().enumerate() {
                if let Some(y) = upcoming
                    && block.start == 0
                {
                    self.ask_for(y, i * real / pairs.len()..(i + 1) * real / pairs.len());
                }
                let column = self.column(pair);
                let [q0, q1] = [pixels.at(pair[0].y, pair[0].x), pixels.at(pair[1].y, pair[1].x)];
                let q = [&qkv[q0..q0 + dim], &qkv[q1..q1 + dim]];
                let keys = &self.keys[row * key_row..][..rows * key_row];
                let scores =
                    &mut self.scores[i * self.arrangement.pair_lanes()..][..self.arrangement.pair_lanes()];
                dots_of(self.s.narrow(), &self.arrangement, block.clone(), q, keys, column, scores);
            }
        }
    }

    /// Writes the outputs of a batch.
    #[inline(always)]
    fn mix(&mut self, pairs: &[[Query; 2]], factors: &[[f32; 2]]) {
        let (s, arrangement) = (self.s, &self.arrangement);
        let &Arrangement { value, value_row, .. } = arrangement;
        let row = pairs[0][0].window_y - self.rows.start;
        for (i, (pair, factors)) in pairs.iter().zip(factors).enumerate() {
            let shift = pair[1].window_x - pair[0].window_x;
            let p = &self.scores[i * arrangement.pair_lanes()..][..arrangement.pair_lanes()];
            let v = &self.values[row * value_row + self.column(pair) * value..];
            let [out0, out1] =
                [self.out_pixels.at(pair[0].y, pair[0].x), self.out_pixels.at(pair[1].y, pair[1].x)];
            let out = [self.out.0.wrapping_add(out0), self.out.0.wrapping_add(out1)];
            // SAFETY: the head's `dim` channels of these pixels are this task's alone.
            unsafe { mix_all(s, arrangement, shift, p, v, factors, out) };
        }
    }
}
