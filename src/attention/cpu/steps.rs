//! The inner loops over a batch of pairs of queries: scores, softmax and weighted sums.

use super::*;

/// The vectors of eight keys that a window has, in blocks that have room in the registers: with the sums of
/// both queries, a vector of keys, and both queries.
#[inline(always)]
pub(super) fn blocks<S: Simd>(layout: &Layout) -> impl Iterator<Item = Range<usize>> + use<S> {
    let vectors = layout.kernel_size * layout.row_lanes / 8;
    even_parts(vectors, vectors.div_ceil(((S::REGISTERS - 3) / 2).min(7)))
}

/// [`dots`] of a block of vectors.
#[inline(always)]
pub(super) fn dots_of<N: Simd>(
    n: N,
    layout: &Layout,
    block: Range<usize>,
    q: [&[f32]; 2],
    keys: &[f32],
    column: usize,
    scores: &mut [f32],
) {
    let first = block.start;
    match block.len() {
        1 => dots::<_, 1>(n, layout, first, q, keys, column, scores),
        2 => dots::<_, 2>(n, layout, first, q, keys, column, scores),
        3 => dots::<_, 3>(n, layout, first, q, keys, column, scores),
        4 => dots::<_, 4>(n, layout, first, q, keys, column, scores),
        5 => dots::<_, 5>(n, layout, first, q, keys, column, scores),
        6 => dots::<_, 6>(n, layout, first, q, keys, column, scores),
        7 => dots::<_, 7>(n, layout, first, q, keys, column, scores),
        _ => unreachable!("blocks have up to seven vectors"),
    }
}

/// q·k of two queries with V vectors of the keys of their windows, from vector `first` on. `keys` are the
/// rows of the windows, which start at `column`.
#[inline(always)]
fn dots<N: Simd, const V: usize>(
    n: N,
    layout: &Layout,
    first: usize,
    q: [&[f32]; 2],
    keys: &[f32],
    column: usize,
    scores: &mut [f32],
) {
    let &Layout { kernel_size, dim, rows, row_lanes, pitch, key_row, .. } = layout;
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

/// Makes q·k·`scale` + bias of a window's q·k and returns the largest. In lanes where `mask` is −∞, and
/// not ∞, scores become −∞, NaN included. Rows of biases are `bias_side` apart.
#[inline(always)]
pub(super) fn add_bias<N: Simd>(
    n: N,
    mask: &[f32],
    scores: &mut [f32],
    scale: f32,
    bias: &[f32],
    bias_side: usize,
) -> f32 {
    let rows = scores.len() / mask.len();
    assert!(rows > 0 && bias.len() >= (rows - 1) * bias_side + mask.len());
    let scale = n.splat(scale);
    let mut max = n.splat(f32::NEG_INFINITY);
    for (row, scores) in scores.chunks_exact_mut(mask.len()).enumerate() {
        for (chunk, x) in scores.chunks_exact_mut(N::LANES).enumerate() {
            let lane = chunk * N::LANES;
            // SAFETY: `x` is a vector, the one at `lane` of its row; `mask` and each row of `bias` have it.
            unsafe {
                let bias = n.load(bias.as_ptr().add(row * bias_side + lane));
                let score = n.fma(n.load(x.as_ptr()), scale, bias);
                let score = n.min(score, n.load(mask.as_ptr().add(lane)));
                max = n.max(max, score);
                n.store(x.as_mut_ptr(), score);
            }
        }
    }
    n.reduce_max(max)
}

/// Makes e^(x − `max`) of every x and returns their sum.
#[inline(always)]
pub(super) fn exponentials<N: Simd>(n: N, x: &mut [f32], max: f32) -> f32 {
    let max = n.splat(max);
    let mut sum = n.splat(0.0);
    for x in x.chunks_exact_mut(N::LANES) {
        // SAFETY: `x` is a vector.
        unsafe {
            let p = n.exp(n.sub(n.load(x.as_ptr()), max));
            sum = n.add(sum, p);
            n.store(x.as_mut_ptr(), p);
        }
    }
    n.reduce_sum(sum)
}

/// factor·Σ p·v of two queries: [`mix`] for all `dim` channels.
///
/// # Safety
/// Each `out` is valid for writes of `dim` values.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
pub(super) unsafe fn mix_all<S: Simd>(
    s: S,
    layout: &Layout,
    shift: usize,
    p: &[f32],
    v: &[f32],
    factors: &[f32; 2],
    out: [*mut f32; 2],
    dim: usize,
) {
    let mut c = 0;
    while c < dim {
        let (v, out) = (&v[c..], [out[0].wrapping_add(c), out[1].wrapping_add(c)]);
        // SAFETY: of the caller's promise `dim` − c values are left.
        let vectors = unsafe {
            match (dim - c).div_ceil(S::LANES) {
                1 => mix::<S, 1>(s, layout, shift, p, v, factors, out, dim - c),
                2 | 3 => mix::<S, 2>(s, layout, shift, p, v, factors, out, dim - c),
                _ => mix::<S, 4>(s, layout, shift, p, v, factors, out, dim - c),
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
unsafe fn mix<S: Simd, const V: usize>(
    s: S,
    layout: &Layout,
    shift: usize,
    p: &[f32],
    v: &[f32],
    factors: &[f32; 2],
    out: [*mut f32; 2],
    channels: usize,
) -> usize {
    let &Layout { kernel_size, rows, row_lanes, value, value_row, .. } = layout;
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
