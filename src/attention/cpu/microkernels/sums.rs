//! Weighted sums over the windows of two queries, and their transpose: channels as lanes, two queries to a load of
//! values.

// Vectors are indexed beside others of another array: zips of arrays of them leave the registers.
#![allow(clippy::needless_range_loop)]

use crate::attention::cpu::packing::Arrangement;
use crate::simd::Simd;

/// factor·Σ p·v of two queries: [`mix`] for all `dim` channels.
///
/// # Safety
/// Each `out` is valid for writes of `dim` values.
#[inline(always)]
pub(in crate::attention::cpu) unsafe fn mix_all<S: Simd, const K: usize>(
    s: S,
    arrangement: &Arrangement<K>,
    shift: usize,
    p: &[f32],
    v: &[f32],
    factors: &[f32; 2],
    out: [*mut f32; 2],
) {
    let (dim, mut c) = (arrangement.dim, 0);
    while c < dim {
        let (v, out) = (&v[c..], [out[0].wrapping_add(c), out[1].wrapping_add(c)]);
        // SAFETY: of the caller's promise `dim` − c values are left.
        let vectors = unsafe {
            match (dim - c).div_ceil(S::LANES) {
                1 => mix::<S, 1, K>(s, arrangement, shift, p, v, factors, out, dim - c),
                2 | 3 => mix::<S, 2, K>(s, arrangement, shift, p, v, factors, out, dim - c),
                _ => mix::<S, 4, K>(s, arrangement, shift, p, v, factors, out, dim - c),
            }
        };
        c += vectors * S::LANES;
    }
}

/// factor·Σ p·v of two queries, V vectors of channels of the `channels` that are left. Returns V.
///
/// # Safety
/// Each `out` is valid for writes of `channels` values.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
unsafe fn mix<S: Simd, const V: usize, const K: usize>(
    s: S,
    arrangement: &Arrangement<K>,
    shift: usize,
    p: &[f32],
    v: &[f32],
    factors: &[f32; 2],
    out: [*mut f32; 2],
    channels: usize,
) -> usize {
    let &Arrangement { size, rows, value, value_row, .. } = arrangement;
    let (kernel_size, row_lanes) = (size.get(), size.row_lanes());
    assert!(shift <= 1 && kernel_size + shift <= row_lanes && p.len() == 2 * kernel_size * row_lanes);
    assert!(rows > 0);
    assert!(v.len() >= (rows - 1) * value_row + (kernel_size + shift - 1) * value + V * S::LANES);
    let mut sums = [[s.splat(0.0); V]; 2];
    for row in 0..kernel_size {
        // SAFETY: the window, of K + shift keys in each of K rows, lies in `p` and, with `rows` of them, in `v` by
        // the assertions.
        unsafe {
            let p = p.as_ptr().add(row * row_lanes);
            let p = [p, p.add(kernel_size * row_lanes)];
            let v = v.as_ptr().add(row.min(rows - 1) * value_row);
            // Both queries have the keys 1 to K - 1; the first has key 0 too, the second key 0 or K.
            let (p0, p1) = (s.splat(*p[0]), s.splat(*p[1].add(shift * kernel_size)));
            for j in 0..V {
                let v = v.add(j * S::LANES);
                sums[0][j] = s.fma(s.load(v), p0, sums[0][j]);
                sums[1][j] = s.fma(s.load(v.add(shift * kernel_size * value)), p1, sums[1][j]);
            }
            for key in 1..kernel_size {
                let (p0, p1) = (s.splat(*p[0].add(key)), s.splat(*p[1].add(key)));
                for j in 0..V {
                    let v = s.load(v.add(key * value + j * S::LANES));
                    sums[0][j] = s.fma(v, p0, sums[0][j]);
                    sums[1][j] = s.fma(v, p1, sums[1][j]);
                }
            }
        }
    }
    for i in 0..2 {
        let factor = s.splat(factors[i]);
        for j in 0..V {
            let left = channels.saturating_sub(j * S::LANES);
            let x = s.mul(sums[i][j], factor);
            let to = out[i].wrapping_add(j * S::LANES);
            // SAFETY: the caller's promise.
            unsafe {
                if left >= S::LANES {
                    s.store(to, x);
                } else {
                    s.store_first(to, x, left);
                }
            }
        }
    }
    V
}

/// Adds `scale`·weight·x of two queries to the rows of their windows, V vectors of channels from the first of
/// each `x` and of `rows` on: the transpose of [`mix`]. The second window begins `shift` keys behind the
/// first; without a shift there is no second query.
#[inline(always)]
pub(in crate::attention::cpu) fn spread<S: Simd, const V: usize, const K: usize>(
    s: S,
    arrangement: &Arrangement<K>,
    shift: Option<usize>,
    weights: &[f32],
    x: [&[f32]; 2],
    scale: f32,
    rows: &mut [f32],
) {
    let &Arrangement { size, rows: count, value, value_row, .. } = arrangement;
    let (kernel_size, row_lanes) = (size.get(), size.row_lanes());
    let (second, shift) = (shift.is_some(), shift.unwrap_or(0));
    assert!(shift <= 1 && kernel_size + shift <= row_lanes && weights.len() == 2 * kernel_size * row_lanes);
    assert!(count > 0);
    assert!(rows.len() >= (count - 1) * value_row + (kernel_size + shift - 1) * value + V * S::LANES);
    let mut vectors = [[s.splat(0.0); V]; 2];
    for i in 0..1 + usize::from(second) {
        for j in 0..V {
            let left = x[i].len().saturating_sub(j * S::LANES).min(S::LANES);
            // SAFETY: so many channels are left.
            let x = unsafe { s.load_first(x[i].as_ptr().wrapping_add(j * S::LANES), left) };
            vectors[i][j] = s.mul(x, s.splat(scale));
        }
    }
    for row in 0..kernel_size {
        // SAFETY: the window, of K + shift keys in each of K rows, lies in `weights` and, with `count` of them, in
        // `rows` by the assertions.
        unsafe {
            let weights = weights.as_ptr().add(row * row_lanes);
            let weights = [weights, weights.add(kernel_size * row_lanes)];
            let rows = rows.as_mut_ptr().add(row.min(count - 1) * value_row);
            // Both queries have the keys from `shift` to K - 1; the first has key 0 too, the second key K.
            if shift == 1 {
                for (i, key) in [(0, 0), (1, kernel_size)] {
                    let weight = s.splat(*weights[i].add(key));
                    for j in 0..V {
                        let to = rows.add(key * value + j * S::LANES);
                        s.store(to, s.fma(weight, vectors[i][j], s.load(to)));
                    }
                }
            }
            for key in shift..kernel_size {
                let (first, second) = (s.splat(*weights[0].add(key)), s.splat(*weights[1].add(key)));
                for j in 0..V {
                    let to = rows.add(key * value + j * S::LANES);
                    let sum = s.fma(first, vectors[0][j], s.load(to));
                    s.store(to, s.fma(second, vectors[1][j], sum));
                }
            }
        }
    }
}
