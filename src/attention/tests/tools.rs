//! What the tests share: bounds, the operator, both of its gradients.

use crate::attention::NeighborhoodAttention;
use crate::attention::cpu;
use crate::attention::problem::Problem;
use crate::simd::Isa;

/// ‖a − b‖ / ‖b‖ that f32 kernels stay under, by the largest |score| of the problem: a score of that
/// size has an error of its own of 6e-8 times it, which the softmax passes on.
pub(in crate::attention) const TOLERANCES: [(f64, f64); 2] = [(10.0, 5e-7), (200.0, 5e-6)];

/// The same for gradients, in which p and g·v differ from their mean by less than their own size; ten times as much
/// where keys are padded, and most of them differ little.
pub(in crate::attention) const GRADIENT_TOLERANCES: [(f64, f64); 2] = [(10.0, 2e-6), (200.0, 2e-5)];

pub(in crate::attention) fn attention(
    heads: usize,
    kernel_size: usize,
    dilation: usize,
) -> NeighborhoodAttention {
    NeighborhoodAttention { heads, kernel_size, dilation }
}

pub(in crate::attention) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(in crate::attention) fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// Both gradients of the CPU's kernels; that of qkv is the same by itself.
pub(in crate::attention) fn gradients(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (grad_qkv, grad_rpb) = cpu::backward(problem, isa, qkv, rpb, pad, grad, true);
    let (alone, none) = cpu::backward(problem, isa, qkv, rpb, pad, grad, false);
    assert!(none.is_none() && bits(&alone) == bits(&grad_qkv), "{problem:?}");
    (grad_qkv, grad_rpb.unwrap())
}
