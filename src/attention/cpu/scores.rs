//! From the products of a batch of pairs to probabilities: where each query's biases and lanes are.

use super::geometry::{KernelSize, Query, QueryTile};
use super::microkernels::{add_bias, exponentials};
use crate::attention::problem::Problem;
use crate::simd::Simd;

/// Values before and after the bias table: the lanes outside a window read up to eight.
pub(super) const BIAS_PAD: usize = 8;

/// The bias table between [`BIAS_PAD`] values on either side.
pub(super) fn padded_biases(problem: &Problem, rpb: &[f32]) -> Vec<f32> {
    assert_eq!(rpb.len(), problem.heads * problem.bias_side * problem.bias_side);
    let mut bias = vec![0.0; BIAS_PAD + rpb.len() + BIAS_PAD];
    bias[BIAS_PAD..][..rpb.len()].copy_from_slice(rpb);
    bias
}

/// What makes probabilities of a tile's q·k.
pub(super) struct WindowSoftmax<'a> {
    pub(super) problem: &'a Problem,
    pub(super) tile: &'a QueryTile,
    pub(super) head: usize,
    /// As [`padded_biases`] makes them.
    pub(super) bias: &'a [f32],
    /// Two, as [`fill_masks`](super::microkernels::fill_masks) makes them.
    pub(super) masks: &'a [f32],
}

impl WindowSoftmax<'_> {
    /// Where the biases of a query's window begin in `bias`, whose lanes count from `first_x`.
    #[inline(always)]
    pub(super) fn bias_at(&self, query: &Query, first_x: usize) -> usize {
        let (y, x) = (self.tile.rows.bias(query.y), self.tile.columns.bias(query.x));
        let (side, shift) = (self.problem.bias_side, query.window_x - first_x);
        BIAS_PAD + (self.head * side + y) * side + x - shift
    }

    /// The mask of a query whose lanes count from `first_x`.
    #[inline(always)]
    pub(super) fn mask<const K: usize>(&self, size: KernelSize<K>, query: &Query, first_x: usize) -> &[f32] {
        let lanes = size.row_lanes();
        &self.masks[(query.window_x - first_x) * lanes..][..lanes]
    }

    /// Makes e^(score − largest) of the q·k of a batch, and `factors` of their sums: p is the product.
    #[inline(always)]
    pub(super) fn run<N: Simd, const K: usize>(
        &self,
        n: N,
        size: KernelSize<K>,
        pairs: &[[Query; 2]],
        scores: &mut [f32],
        factors: &mut [[f32; 2]],
    ) {
        let &Problem { dim, bias_side, .. } = self.problem;
        let lanes = size.lanes();
        let scale = (dim as f32).sqrt().recip();
        for (i, factor) in factors.as_flattened_mut().iter_mut().enumerate() {
            let (first_x, query) = (pairs[i / 2][0].window_x, &pairs[i / 2][i % 2]);
            let bias = &self.bias[self.bias_at(query, first_x)..];
            let mask = self.mask(size, query, first_x);
            *factor = add_bias(n, mask, &mut scores[i * lanes..][..lanes], scale, bias, bias_side);
        }
        // A loop of its own: the processor works on the exponentials of several queries at a time.
        for (i, factor) in factors.as_flattened_mut().iter_mut().enumerate() {
            *factor = exponentials(n, &mut scores[i * lanes..][..lanes], *factor).recip();
        }
    }
}
