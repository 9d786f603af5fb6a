//! What the tests share: bounds, inputs that are the same in every run, and how far results are off.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use candle_core::{Device, Shape, Tensor, WithDType};
use fastrand::Rng;

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

/// The cases that NATTEN computed, of `tests/golden` or `$NAT_INFER_GOLDEN`.
pub(in crate::attention) fn golden() -> PathBuf {
    std::env::var_os("NAT_INFER_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
        .join("attention")
}

pub(in crate::attention) fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (error / want.iter().map(|b| b * b).sum::<f64>().max(f64::MIN_POSITIVE)).sqrt()
}

pub(in crate::attention) fn values<T: WithDType>(x: &Tensor) -> Vec<T> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

pub(in crate::attention) fn attention(
    heads: usize,
    kernel_size: usize,
    dilation: usize,
) -> NeighborhoodAttention {
    NeighborhoodAttention { heads, kernel_size, dilation }
}

/// Values about as in a normal distribution with this deviation (twelve uniform ones are), the same in every run of
/// a test.
pub(in crate::attention) fn normal(shape: impl Into<Shape>, deviation: f32) -> Tensor {
    thread_local!(static RNG: RefCell<Rng> = const { RefCell::new(Rng::with_seed(7)) });
    let shape = shape.into();
    let value = |rng: &mut Rng| deviation * ((0..12).map(|_| rng.f32()).sum::<f32>() - 6.0);
    let values = RNG.with_borrow_mut(|rng| (0..shape.elem_count()).map(|_| value(rng)).collect::<Vec<_>>());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
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
