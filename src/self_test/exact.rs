//! Numbers that every type holds.

use candle_core::{DType, Device, Result, Shape, Tensor};
use nat_convert::arch::Architecture;

use crate::weights::Weights;

/// The numbers' seed: any does.
const SEED: u64 = 7;

/// `x` on the CPU rounded to numbers that f16 and bf16 hold, in f64: to 8 bits first, of which f16 keeps all, or fewer of
/// what is very small.
fn rounded(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::BF16)?.to_dtype(DType::F16)?.to_dtype(DType::F64)
}

/// Uniform values from −`spread` to `spread`, f64 on the CPU; others for every `seed`.
pub(super) fn values(seed: u64, shape: impl Into<Shape>, spread: f32) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = fastrand::Rng::with_seed(SEED ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| spread * (2.0 * rng.f32() - 1.0)).collect();
    rounded(&Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The tensors of a network, in f64 on the CPU, of which weights of any type and device are made.
pub(super) fn tensors(architecture: &Architecture) -> Result<Vec<(String, Tensor)>> {
    let random = Weights::random(SEED, DType::F32, Device::Cpu).plain();
    let tensor = |(name, shape): (String, Vec<usize>)| Ok((name.clone(), rounded(&random.get(&shape, &name))?));
    architecture.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_holds_them() {
        let x = values(1, (40, 50), 3.0).unwrap();
        let flat = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(flat(&x.to_dtype(dtype).unwrap()), flat(&x), "{dtype:?}");
        }
        let largest = flat(&x).into_iter().fold(0.0, f64::max);
        assert!((2.9..=3.0).contains(&largest), "{largest}");
        assert_ne!(flat(&x), flat(&values(2, (40, 50), 3.0).unwrap()));
    }
}
