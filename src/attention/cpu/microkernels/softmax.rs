//! From products to probabilities, and back: over the scores of one query, which are [row][lane].

use crate::attention::cpu::geometry::KernelSize;
use crate::simd::Simd;

/// Fills the masks of the queries whose windows start at lanes 0 and 1: ∞ in the lanes of the window, −∞ in others.
#[inline(always)]
pub(in crate::attention::cpu) fn fill_masks<const K: usize>(size: KernelSize<K>, masks: &mut [f32]) {
    for (shift, mask) in masks.chunks_exact_mut(size.row_lanes()).enumerate() {
        for (lane, mask) in mask.iter_mut().enumerate() {
            let inside = (shift..shift + size.get()).contains(&lane);
            *mask = if inside { f32::INFINITY } else { f32::NEG_INFINITY };
        }
    }
}

/// Makes q·k·`scale` + bias of a window's q·k and returns the largest. In lanes where `mask` is −∞, and
/// not ∞, scores become −∞, NaN included. Rows of biases are `bias_side` apart.
#[inline(always)]
pub(in crate::attention::cpu) fn add_bias<N: Simd>(
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
pub(in crate::attention::cpu) fn exponentials<N: Simd>(n: N, x: &mut [f32], max: f32) -> f32 {
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

/// Makes probabilities of the e^(score − largest) of a query, times `factor`, and of the gradients of these
/// that of the scores. Lanes where `mask` is −∞ keep nothing of use.
#[inline(always)]
pub(in crate::attention::cpu) fn score_gradients<N: Simd, const K: usize>(
    n: N,
    size: KernelSize<K>,
    mask: &[f32],
    factor: f32,
    p: &mut [f32],
    grad: &mut [f32],
) {
    let (kernel_size, row_lanes) = (size.get(), size.row_lanes());
    assert!(p.len() == kernel_size * row_lanes && grad.len() == p.len() && mask.len() == row_lanes);
    let (zero, factor) = (n.splat(0.0), n.splat(factor));
    let mut sum = zero;
    for at in (0..p.len()).step_by(N::LANES) {
        // SAFETY: vectors of `p` and `grad`, which are as long, and of `mask`.
        unsafe {
            // ∞ in the lanes of the window, and 0 in others, where e^x is so small that its multiples may be
            // denormal, and the gradient may be NaN. By the order of operands p keeps the window's NaN, and the
            // gradient makes infinities of it.
            let mask = n.max(n.load(mask.as_ptr().add(at % row_lanes)), zero);
            let (p_at, grad_at) = (p.as_mut_ptr().add(at), grad.as_mut_ptr().add(at));
            let p = n.mul(n.min(mask, n.load(p_at)), factor);
            let grad = n.min(n.max(n.load(grad_at), n.sub(zero, mask)), mask);
            sum = n.fma(p, grad, sum);
            n.store(p_at, p);
            n.store(grad_at, grad);
        }
    }
    let mean = n.splat(n.reduce_sum(sum));
    for at in (0..p.len()).step_by(N::LANES) {
        // SAFETY: as above.
        unsafe {
            let (p_at, grad_at) = (p.as_ptr().add(at), grad.as_mut_ptr().add(at));
            n.store(grad_at, n.mul(n.load(p_at), n.sub(n.load(grad_at), mean)));
        }
    }
}

/// Adds the K×K values of a window, of which `from` begins with the first, to rows of `to` that are `side`
/// apart.
#[inline(always)]
pub(in crate::attention::cpu) fn add_rows<N: Simd, const K: usize>(
    n: N,
    size: KernelSize<K>,
    from: &[f32],
    to: &mut [f32],
    side: usize,
) {
    let (kernel_size, row_lanes) = (size.get(), size.row_lanes());
    assert!(from.len() >= (kernel_size - 1) * row_lanes + kernel_size);
    assert!(to.len() >= (kernel_size - 1) * side + kernel_size.next_multiple_of(8));
    for row in 0..kernel_size {
        for lane in (0..kernel_size).step_by(N::LANES) {
            // SAFETY: the window's values by the first assertion, whole vectors of `to` by the second.
            unsafe {
                let x =
                    n.load_first(from.as_ptr().add(row * row_lanes + lane), N::LANES.min(kernel_size - lane));
                let to = to.as_mut_ptr().add(row * side + lane);
                n.store(to, n.add(n.load(to), x));
            }
        }
    }
}
