//! The gradient of neighborhood attention in f32 on all cores. Nothing of size H·W·K² is kept from the forward
//! pass: scores are recomputed.
//!
//! The work is cut into bands: some rows of queries of one image, head and dilation class, which go through
//! their tiles one after the other. With p = softmax(q·k / √dim + rpb) and g the gradient of a
//! query's output, a batch of pairs takes these steps:
//!
//! - p as in the forward pass, and the gradient of p, g·v, as another product with lanes of keys;
//! - the gradient of the scores, p ⊙ (g·v − Σ p g·v), which is also that of the biases;
//! - the gradient of q: the sum of keys with these weights, as outputs are sums of values;
//! - the gradients of k and v, where each load and store of a key's serves both queries.
//!
//! Keys near the border of a band are seen from its neighbours too: what a band has for them is kept beside
//! and added when all bands are done, in their order, so that results do not depend on chance.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::geometry::{
    ANY, BATCH, Band, KernelSize, Query, QueryTile, USUAL, bands, reach, reach_rows, strips,
};
use super::microkernels::{add_rows, blocks, dots_of, fill_masks, mix_all, score_gradients, spread};
use super::packing::{Arrangement, copy_row, slices, transpose_row};
use super::pixels::{HeadPixels, Qkv, SharedOut};
use super::scores::{BIAS_PAD, WindowSoftmax, padded_biases};
use crate::attention::problem::Problem;
use crate::simd::{Isa, Kernel, Simd};

/// Gradients of biases that are kept at once, of all bands together: 64 megabytes of them.
const MOST_BIASES: usize = 1 << 24;

/// The gradients of a loss with respect to `qkv` [B, H, W, 3·heads·dim] and, if `rpb_too`, to `rpb`
/// [heads, 2K−1, 2K−1], from that with respect to the output, `grad` [B, H, W, heads·dim]. `pad` is a constant, as in
/// the forward pass.
pub(in crate::attention) fn backward(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
    grad: &[f32],
    rpb_too: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let &Problem { batch, height, width, heads, dim, bias_side, .. } = problem;
    assert_eq!(grad.len(), batch * height * width * heads * dim);
    assert_eq!(qkv.len(), 3 * grad.len());
    assert!(!problem.is_padded() || pad.len() == 3 * heads * dim);
    let bias = padded_biases(problem, rpb);
    let bands = bands(problem, rayon::current_num_threads());
    let mut grad_qkv = vec![0.0; qkv.len()];
    let out = SharedOut(grad_qkv.as_mut_ptr());
    let differentiate = |task: usize| {
        thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        let (task, head) = (task / heads, task % heads);
        let (image, band) = (task / bands.len(), &bands[task % bands.len()]);
        SCRATCH.with_borrow_mut(|scratch| {
            let out = &out;
            isa.run(DifferentiateBand {
                problem,
                qkv,
                bias: &bias,
                pad,
                grad,
                out,
                rpb_too,
                image,
                head,
                band,
                scratch,
            })
        })
    };
    let tasks = batch * bands.len() * heads;
    // A large dilation makes many bands, each with gradients of all biases: they are added up now and then.
    let table = bias_side * bias_side;
    let at_once =
        if rpb_too { (MOST_BIASES / table).max(rayon::current_num_threads()) } else { tasks.max(1) };
    let mut grad_rpb = rpb_too.then(|| vec![0.0; rpb.len()]);
    let mut spilled_keys = Vec::with_capacity(tasks);
    for first in (0..tasks).step_by(at_once) {
        let some = first..tasks.min(first + at_once);
        let spills: Vec<Spill> = some.clone().into_par_iter().with_max_len(1).map(differentiate).collect();
        for (task, Spill { keys, biases }) in some.zip(spills) {
            if let Some(sums) = &mut grad_rpb {
                sums[task % heads * table..].iter_mut().zip(biases).for_each(|(sum, x)| *sum += x);
            }
            spilled_keys.push(keys);
        }
    }

    (0..batch * heads).into_par_iter().for_each(|map| {
        let (image, head) = (map / heads, map % heads);
        for (i, band) in bands.iter().enumerate() {
            let spilled = &spilled_keys[(image * bands.len() + i) * heads + head];
            // SAFETY: the bands are done, and an image's head is this task's alone.
            unsafe { add_spilled(problem, band, image, head, spilled, &out) };
        }
    });
    (grad_qkv, grad_rpb)
}

/// What a band has for others.
struct Spill {
    /// Gradients of the keys and values of the rows that it reaches and that are not its own,
    /// [row, column, 2, dim].
    keys: Vec<f32>,
    /// Gradients of its head's biases, where they are wanted.
    biases: Vec<f32>,
}

/// Adds what a band has of the keys and values of others.
///
/// # Safety
/// Nothing else reads or writes that head of that image in `out`, a gradient of qkv.
unsafe fn add_spilled(
    problem: &Problem,
    band: &Band,
    image: usize,
    head: usize,
    spilled: &[f32],
    out: &SharedOut,
) {
    let &Problem { heads, dim, kernel_size, .. } = problem;
    let tile = band.tile(0..band.columns.size());
    let pixels = HeadPixels::new(problem, image, head, &tile, 3 * heads * dim);
    let mut vectors = spilled.chunks_exact(dim);
    for y in band.others(kernel_size) {
        for x in 0..band.columns.size() {
            for (part, from) in (1..=2).zip(&mut vectors) {
                let to = out.0.wrapping_add(pixels.at(y, x) + part * heads * dim);
                for (c, x) in from.iter().enumerate() {
                    // SAFETY: channel c of that head of a pixel; the rest is the caller's promise.
                    unsafe { *to.add(c) += x };
                }
            }
        }
    }
}

/// The gradients of one band.
struct DifferentiateBand<'a> {
    problem: &'a Problem,
    qkv: &'a [f32],
    /// As [`padded_biases`] makes them.
    bias: &'a [f32],
    pad: &'a [f32],
    grad: &'a [f32],
    /// The gradient of qkv.
    out: &'a SharedOut,
    rpb_too: bool,
    image: usize,
    head: usize,
    band: &'a Band,
    scratch: &'a mut Vec<f32>,
}

impl Kernel for DifferentiateBand<'_> {
    type Output = Spill;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Spill {
        match self.problem.kernel_size {
            USUAL => self.differentiate::<S, USUAL>(s),
            _ => self.differentiate::<S, ANY>(s),
        }
    }
}

impl DifferentiateBand<'_> {
    #[inline(always)]
    fn differentiate<S: Simd, const K: usize>(self, s: S) -> Spill {
        let Self { problem, qkv, bias, pad, grad, out, rpb_too, image, head, band, scratch } = self;
        let &Problem { heads, dim, bias_side, .. } = problem;
        let size = KernelSize::<K>::new(problem.kernel_size);
        let kernel_size = size.get();
        let rows = reach_rows(band.rows, &band.y, kernel_size);
        let others = band.others(kernel_size).count();
        let mut spill = Spill {
            keys: vec![0.0; others * band.columns.size() * 2 * dim],
            biases: vec![0.0; if rpb_too { bias_side * bias_side + BIAS_PAD } else { 0 }],
        };
        for x in strips(band.columns, kernel_size) {
            let tile = &band.tile(x);
            let columns = reach(tile.columns, &tile.x, kernel_size);
            let arrangement = Arrangement::new(size, dim, tile, &columns, S::LANES);
            let (transposed, plain) = (rows.len() * arrangement.key_row, rows.len() * arrangement.value_row);
            let scores = BATCH * arrangement.pair_lanes();
            let sizes = [
                transposed,
                transposed,
                plain,
                plain,
                plain,
                scores,
                scores,
                2 * arrangement.size.row_lanes(),
            ];
            let [keys, values, key_rows, grad_keys, grad_values, p, grad_p, masks] = slices(scratch, sizes);
            fill_masks(size, masks);
            grad_keys.fill(0.0);
            grad_values.fill(0.0);
            let mut work = BackwardPass {
                s,
                problem,
                tile,
                source: Qkv::new(problem, qkv, pad, image, head, tile),
                grad,
                grad_pixels: HeadPixels::new(problem, image, head, tile, heads * dim),
                out,
                rows: rows.clone(),
                columns,
                keys,
                values,
                key_rows,
                grad_keys,
                grad_values,
                p,
                grad_p,
                softmax: WindowSoftmax { problem, tile, head, bias, masks },
                arrangement,
            };
            work.run(&mut spill);
        }
        spill.biases.truncate(bias_side * bias_side);
        spill
    }
}

/// A tile of a band and its scratch.
struct BackwardPass<'a, S, const K: usize> {
    s: S,
    problem: &'a Problem,
    arrangement: Arrangement<K>,
    tile: &'a QueryTile,
    source: Qkv<'a>,
    grad: &'a [f32],
    grad_pixels: HeadPixels,
    out: &'a SharedOut,
    /// Places of the keys and values; one row stands for all that are padded.
    rows: Range<usize>,
    columns: Range<usize>,
    /// Keys and values with keys as lanes, [row][channel][column].
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// [row][column][channel], as are the gradients.
    key_rows: &'a mut [f32],
    grad_keys: &'a mut [f32],
    grad_values: &'a mut [f32],
    /// Of each pair of a batch, [query][row][lane]: the probabilities, and the gradients of these and then of
    /// the scores.
    p: &'a mut [f32],
    grad_p: &'a mut [f32],
    softmax: WindowSoftmax<'a>,
}

impl<S: Simd, const K: usize> BackwardPass<'_, S, K> {
    #[inline(always)]
    fn run(&mut self, spill: &mut Spill) {
        let (s, tile) = (self.s, self.tile);
        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut factors = [[0.0; 2]; BATCH];
        let mut packed = self.rows.start;
        let mut next = Some(tile.first());
        while let Some(Query { window_y, .. }) = next {
            let count = tile.batch(&mut next, self.arrangement.size.slack(), &mut pairs);
            while packed < window_y + self.arrangement.rows {
                self.pack(packed);
                packed += 1;
            }
            let (pairs, factors) = (&pairs[..count], &mut factors[..count]);
            self.dots(pairs);
            self.softmax.run(s.narrow(), self.arrangement.size, pairs, self.p, factors);
            self.scores(pairs, factors, &mut spill.biases);
            self.queries(pairs);
            self.keys_and_values(pairs);
        }
        self.flush(&mut spill.keys);
    }

    /// Copies row `y` of the keys and values.
    #[inline(always)]
    fn pack(&mut self, y: usize) {
        let (s, arrangement, row) = (self.s, &self.arrangement, y - self.rows.start);
        let [k, v] =
            [1, 2].map(|part| self.source.row(self.tile, part, y, self.columns.start, arrangement.real));
        transpose_row(s, arrangement, &k, &mut self.keys[row * arrangement.key_row..]);
        transpose_row(s, arrangement, &v, &mut self.values[row * arrangement.key_row..]);
        copy_row(s, arrangement, &k, &mut self.key_rows[row * arrangement.value_row..]);
    }

    /// The row and the column of the scratch in which a pair's windows begin.
    #[inline(always)]
    fn start(&self, pair: &[Query; 2]) -> (usize, usize) {
        (pair[0].window_y - self.rows.start, pair[0].window_x - self.columns.start)
    }

    /// The channels of a pair's queries in a tensor.
    #[inline(always)]
    fn vectors<'a>(&self, from: &'a [f32], pixels: HeadPixels, pair: &[Query; 2]) -> [&'a [f32]; 2] {
        let [first, second] = [pixels.at(pair[0].y, pair[0].x), pixels.at(pair[1].y, pair[1].x)];
        [&from[first..first + self.arrangement.dim], &from[second..second + self.arrangement.dim]]
    }

    /// q·k of a batch into `p`, and the gradients of the outputs times v into `grad_p`.
    #[inline(always)]
    fn dots(&mut self, pairs: &[[Query; 2]]) {
        let (n, arrangement) = (self.s.narrow(), &self.arrangement);
        let (lanes, size) = (arrangement.pair_lanes(), arrangement.rows * arrangement.key_row);
        for block in blocks::<S, K>(arrangement.size) {
            for (i, pair) in pairs.iter().enumerate() {
                let (row, column) = self.start(pair);
                let q = self.vectors(self.source.values, self.source.pixels, pair);
                let keys = &self.keys[row * arrangement.key_row..][..size];
                dots_of(n, arrangement, block.clone(), q, keys, column, &mut self.p[i * lanes..][..lanes]);
            }
        }
        for block in blocks::<S, K>(arrangement.size) {
            for (i, pair) in pairs.iter().enumerate() {
                let (row, column) = self.start(pair);
                let grad = self.vectors(self.grad, self.grad_pixels, pair);
                let values = &self.values[row * arrangement.key_row..][..size];
                dots_of(
                    n,
                    arrangement,
                    block.clone(),
                    grad,
                    values,
                    column,
                    &mut self.grad_p[i * lanes..][..lanes],
                );
            }
        }
    }

    /// Makes probabilities of `p`, with `factors`, and of `grad_p` the gradients of the scores; adds these to
    /// those of the `biases`, if there are any.
    #[inline(always)]
    fn scores(&mut self, pairs: &[[Query; 2]], factors: &[[f32; 2]], biases: &mut [f32]) {
        let (n, size, side) = (self.s.narrow(), self.arrangement.size, self.problem.bias_side);
        let lanes = size.lanes();
        for (i, &factor) in factors.as_flattened().iter().enumerate() {
            let (pair, query) = (&pairs[i / 2], &pairs[i / 2][i % 2]);
            let first_x = pair[0].window_x;
            let (p, grad) = (&mut self.p[i * lanes..][..lanes], &mut self.grad_p[i * lanes..][..lanes]);
            score_gradients(n, size, self.softmax.mask(size, query, first_x), factor, p, grad);
            if !biases.is_empty() && (i % 2 == 0 || pair[0] != pair[1]) {
                let (y, x) = (self.tile.rows.bias(query.y), self.tile.columns.bias(query.x));
                let shift = query.window_x - first_x;
                add_rows(n, size, &grad[shift..], &mut biases[y * side + x..], side);
            }
        }
    }

    /// Writes the gradients of q.
    #[inline(always)]
    fn queries(&mut self, pairs: &[[Query; 2]]) {
        let (s, arrangement) = (self.s, &self.arrangement);
        let &Arrangement { value, value_row, .. } = arrangement;
        let scale = self.problem.scale() as f32;
        for (i, pair) in pairs.iter().enumerate() {
            let shift = pair[1].window_x - pair[0].window_x;
            let (row, column) = self.start(pair);
            let weights = &self.grad_p[i * arrangement.pair_lanes()..][..arrangement.pair_lanes()];
            let keys = &self.key_rows[row * value_row + column * value..];
            let out = [0, 1].map(|i| self.out.0.wrapping_add(self.source.pixels.at(pair[i].y, pair[i].x)));
            // SAFETY: the head's q of these pixels is this task's alone to write, and has `dim` channels.
            unsafe { mix_all(s, arrangement, shift, weights, keys, &[scale; 2], out) };
        }
    }

    /// Adds to the gradients of the keys and values.
    #[inline(always)]
    fn keys_and_values(&mut self, pairs: &[[Query; 2]]) {
        let (s, scale) = (self.s, self.problem.scale() as f32);
        let &Arrangement { dim, value, value_row, .. } = &self.arrangement;
        let lanes = self.arrangement.pair_lanes();
        for (i, pair) in pairs.iter().enumerate() {
            let (row, column) = self.start(pair);
            let start = row * value_row + column * value;
            let q = self.vectors(self.source.values, self.source.pixels, pair);
            let grad = self.vectors(self.grad, self.grad_pixels, pair);
            let arrangement = &self.arrangement;
            let (p, grad_p) = (&self.p[i * lanes..][..lanes], &self.grad_p[i * lanes..][..lanes]);
            // A query that stands for both counts once.
            let shift = (pair[0] != pair[1]).then(|| pair[1].window_x - pair[0].window_x);
            for c in (0..dim).step_by(2 * S::LANES) {
                let [q, grad] = [q, grad].map(|x| [&x[0][c..], &x[1][c..]]);
                let (keys, values) = (&mut self.grad_keys[start + c..], &mut self.grad_values[start + c..]);
                if dim - c > S::LANES {
                    spread::<S, 2, K>(s, arrangement, shift, grad_p, q, scale, keys);
                    spread::<S, 2, K>(s, arrangement, shift, p, grad, 1.0, values);
                } else {
                    spread::<S, 1, K>(s, arrangement, shift, grad_p, q, scale, keys);
                    spread::<S, 1, K>(s, arrangement, shift, p, grad, 1.0, values);
                }
            }
        }
    }

    /// Adds the gradients of the keys and values to those of the band's other tiles: its own rows into the
    /// output, other rows into `spilled`.
    #[inline(always)]
    fn flush(&mut self, spilled: &mut [f32]) {
        let (s, channels) = (self.s, self.source.channels);
        let &Arrangement { dim, value, value_row, real, .. } = &self.arrangement;
        let mut other = 0;
        // Padded keys have no gradient.
        for (i, y) in self.rows.clone().enumerate().take_while(|(_, y)| *y < self.tile.rows.size()) {
            let own = self.tile.y.contains(&y);
            for column in 0..real {
                let x = self.columns.start + column;
                for (part, from) in [&self.grad_keys, &self.grad_values].into_iter().enumerate() {
                    let from = &from[i * value_row + column * value..][..value];
                    let to = if own {
                        self.out.0.wrapping_add(self.source.pixels.at(y, x) + (part + 1) * channels)
                    } else {
                        let at = ((other * self.tile.columns.size() + x) * 2 + part) * dim;
                        spilled[at..at + dim].as_mut_ptr()
                    };
                    for c in (0..dim).step_by(S::LANES) {
                        // SAFETY: `from` has whole vectors. `to` has `dim` channels: the head's k or v of a
                        // pixel of the band, which is this task's alone, or a part of `spilled`.
                        unsafe {
                            let (to, n) = (to.add(c), S::LANES.min(dim - c));
                            let sum = s.add(s.load_first(to, n), s.load(from.as_ptr().add(c)));
                            s.store_first(to, sum, n);
                        }
                    }
                }
            }
            other += usize::from(!own);
        }
    }
}
