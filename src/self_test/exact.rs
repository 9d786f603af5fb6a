//! Numbers that every type holds.

use candle_core::{DType, Device, Result, Shape, Tensor};
use nat_convert::arch::Architecture;

use crate::tensors::with_f32;
use crate::weights::Weights;

/// The numbers' seed: any does.
const SEED: u64 = 7;

/// `x` near a number that f16 and bf16 hold: of 8 bits, as bf16 has, and nothing that is so small that f16 has fewer.
fn rounded(x: f32) -> f64 {
    /// Whose last of 8 bits is the smallest number of f16.
    const SMALLEST: f32 = 1.0 / (1 << 17) as f32;
    /// Half of the last bit that is kept.
    const HALF: u32 = 1 << 15;
    if x.abs() < SMALLEST { 0.0 } else { f32::from_bits((x.to_bits() + HALF) & !(2 * HALF - 1)).into() }
}

/// Uniform values from −`spread` to `spread`, f64 on the CPU; others for every `seed`.
pub(super) fn values(seed: u64, shape: impl Into<Shape>, spread: f32) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = fastrand::Rng::with_seed(SEED ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let values: Vec<f64> =
        (0..shape.elem_count()).map(|_| rounded(spread * (2.0 * rng.f32() - 1.0))).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The tensors of a network, in f64 on the CPU, of which weights of any type and device are made.
pub(super) fn tensors(architecture: &Architecture) -> Result<Vec<(String, Tensor)>> {
    let random = Weights::random(SEED, DType::F32, Device::Cpu).plain();
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = with_f32(&random.get(&shape, &name), |x| x.iter().copied().map(rounded).collect())?;
        Ok((name, Tensor::from_vec::<_, f64>(values, shape, &Device::Cpu)?))
    };
    architecture.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_holds_them() {
        let x = values(1, (40, 50), 3.0).unwrap();
        let small = values(1, (40, 50), 1e-4).unwrap();
        let flat =
            |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for x in [&x, &small] {
                assert_eq!(flat(&x.to_dtype(dtype).unwrap()), flat(x), "{dtype:?}");
            }
        }
        let largest = flat(&x).into_iter().fold(0.0, f64::max);
        assert!((2.9..=3.0).contains(&largest), "{largest}");
        assert_ne!(flat(&x), flat(&values(2, (40, 50), 3.0).unwrap()));
    }
}
