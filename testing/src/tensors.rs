//! Comparisons and noise of candle's tensors, on whatever device and of whatever type of floats.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Shape, Tensor, WithDType};

use crate::{close, noise};

/// The values in the order of the axes. The type is the tensor's own.
pub fn values<T: WithDType>(x: &Tensor) -> Vec<T> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The values in the order of the axes, widened, from any device.
pub fn wide(x: &Tensor) -> Vec<f64> {
    values(&x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap())
}

#[track_caller]
fn both(got: &Tensor, want: &Tensor) -> [Vec<f64>; 2] {
    assert_eq!(got.dims(), want.dims());
    [wide(got), wide(want)]
}

/// ‖got − want‖ / ‖want‖, as [`close::relative`]; their shapes are the same.
#[track_caller]
pub fn relative(got: &Tensor, want: &Tensor) -> f64 {
    let [got, want] = both(got, want);
    close::relative(&got, &want)
}

/// The largest difference of two values, as [`close::largest`]; their shapes are the same.
#[track_caller]
pub fn largest(got: &Tensor, want: &Tensor) -> f64 {
    let [got, want] = both(got, want);
    close::largest(&got, &want)
}

/// The root of the mean square of the differences, in standard deviations of `want`; their shapes are the same.
#[track_caller]
pub fn deviations(got: &Tensor, want: &Tensor) -> f64 {
    let [got, want] = both(got, want);
    let mean = want.iter().sum::<f64>() / want.len() as f64;
    let variance = want.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (want.len() - 1) as f64;
    let squares = got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / want.len() as f64;
    let off = (squares / variance).sqrt();
    if off.is_nan() { f64::INFINITY } else { off }
}

/// A tensor of f32 on the CPU with [`noise::normal`] values.
pub fn normal(shape: impl Into<Shape>, deviation: f32) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(noise::normal(shape.elem_count(), deviation), shape, &Device::Cpu).unwrap()
}

/// A tensor of f32 on the CPU with [`noise::ramp`]'s values.
pub fn ramp(shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(noise::ramp(shape.elem_count()), shape, &Device::Cpu).unwrap()
}

/// The tensors of a safetensors file, on the CPU.
#[track_caller]
pub fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_compared_in_f64() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let y = (&x + 1.0).unwrap();
        assert_eq!(largest(&y, &x), 1.0);
        assert_eq!(relative(&y, &x), (4.0f64 / 30.0).sqrt());
        assert_eq!(deviations(&y, &x), (1.0f64 / (5.0 / 3.0)).sqrt());
        assert_eq!(largest(&y.to_dtype(DType::BF16).unwrap(), &x), 1.0);
        assert_eq!(normal((2, 3), 1.0).dims(), [2, 3]);
        assert_eq!(values::<f32>(&ramp((1, 2)))[0], -1.0);
    }

    #[test]
    #[should_panic]
    fn shapes_are_the_same() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        largest(&x.narrow(0, 0, 1).unwrap(), &x);
    }
}
