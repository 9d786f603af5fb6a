//! How far results may be off from f64, ‖got − want‖ / ‖want‖ of a stage, and why. Inputs and weights are exact, so all of it
//! is rounding on the way. A wrong neighbour, bias or epsilon is off by more than any of these.

use candle_core::{DType, Device};

use super::check::Pass;

/// f64 against f64: the order of sums.
const DOUBLE: f64 = 1e-13;
pub(super) fn operator(device: &Device, dtype: DType, pass: Pass) -> f64 {
    let _ = (device, pass);
    match dtype {
        DType::F64 => DOUBLE,
        DType::F32 => 1e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    }
}
pub(super) fn network(device: &Device, dtype: DType, pass: Pass) -> f64 {
    let _ = (device, pass);
    match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 5e-3,
        _ => 5e-2,
    }
}
