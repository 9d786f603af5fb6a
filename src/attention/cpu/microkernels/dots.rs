//! Products of queries with the keys of their windows: keys as lanes, two queries to a load of keys.

// Vectors are indexed beside others of another array: zips of arrays of them leave the registers.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use crate::attention::cpu::geometry::{KernelSize, even_parts};
use crate::attention::cpu::packing::Arrangement;
use crate::simd::Simd;

/// The vectors of eight keys that a window has, in blocks that have room in the registers: with the sums of
/// both queries, a vector of keys, and both queries.
#[inline(always)]
pub(in crate::attention::cpu) fn blocks<S: Simd, const K: usize>(
    size: KernelSize<K>,
) -> impl Iterator<Item = Range<usize>> + use<S, K> {
    let vectors = size.lanes() / 8;
    even_parts(vectors, vectors.div_ceil(((S::REGISTERS - 3) / 2).min(7)))
}

/// [`dots`] of a block of vectors.
#[inline(always)]
pub(in crate::attention::cpu) fn dots_of<N: Simd, const K: usize>(
    n: N,
    arrangement: &Arrangement<K>,
    block: Range<usize>,
    q: [&[f32]; 2],
    keys: &[f32],
    column: usize,
    scores: &mut [f32],
) {
    let first = block.start;
    match block.len() {
        1 => dots::<_, 1, K>(n, arrangement, first, q, keys, column, scores),
        2 => dots::<_, 2, K>(n, arrangement, first, q, keys, column, scores),
        3 => dots::<_, 3, K>(n, arrangement, first, q, keys, column, scores),
        4 => dots::<_, 4, K>(n, arrangement, first, q, keys, column, scores),
        5 => dots::<_, 5, K>(n, arrangement, first, q, keys, column, scores),
        6 => dots::<_, 6, K>(n, arrangement, first, q, keys, column, scores),
        7 => dots::<_, 7, K>(n, arrangement, first, q, keys, column, scores),
        _ => unreachable!("blocks have up to seven vectors"),
    }
}

/// q·k of two queries with V vectors of the keys of their windows, from vector `first` on. `keys` are the
/// rows of the windows, which start at `column`.
#[inline(always)]
fn dots<N: Simd, const V: usize, const K: usize>(
    n: N,
    arrangement: &Arrangement<K>,
    first: usize,
    q: [&[f32]; 2],
    keys: &[f32],
    column: usize,
    scores: &mut [f32],
) {
    let &Arrangement { size, dim, rows, key_row, .. } = arrangement;
    let (kernel_size, row_lanes, pitch) = (size.get(), size.row_lanes(), size.pitch());
    let chunks = row_lanes / N::LANES;
    assert!(q[0].len() == dim && q[1].len() == dim && scores.len() == 2 * kernel_size * row_lanes);
    assert!(rows > 0 && keys.len() == rows * dim * pitch && key_row == dim * pitch);
    assert!(first + V <= kernel_size * chunks && column + row_lanes <= pitch);
    let (mut row, mut chunk) = (first / chunks, first % chunks);
    let mut k = [keys.as_ptr(); V];
    for k in &mut k {
        *k = k.wrapping_add(row.min(rows - 1) * key_row + column + chunk * N::LANES);
        chunk += 1;
        if chunk == chunks {
            (row, chunk) = (row + 1, 0);
        }
    }
    let mut sums = [[n.splat(0.0); V]; 2];
    for c in 0..dim {
        // SAFETY: by the assertions `q` has `dim` values, and the vectors from `first` on are in rows of `keys` and
        // in the window's lanes, which every channel has from `column` on.
        unsafe {
            let q = [n.splat(*q[0].get_unchecked(c)), n.splat(*q[1].get_unchecked(c))];
            for j in 0..V {
                let k = n.load(k[j].add(c * pitch));
                sums[0][j] = n.fma(k, q[0], sums[0][j]);
                sums[1][j] = n.fma(k, q[1], sums[1][j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate() {
            let at = i * kernel_size * row_lanes + (first + j) * N::LANES;
            // SAFETY: vector first + j of query i lies in `scores` by the assertions.
            unsafe { n.store(scores.as_mut_ptr().add(at), sum) };
        }
    }
}
