//! How far results may be off from f64: ‖got − want‖ / ‖want‖ of the stage that is furthest off. Weights and inputs are
//! exact in every type, so all of it is rounding on the way: a half to a tenth of these bounds, on processors and on the
//! emulated GPU.
//!
//! | what | type | bound | what rounds |
//! | --- | --- | --- | --- |
//! | operator | f64 | [`DOUBLE`] | the order of sums |
//! | operator | f32 | [`SINGLE`] | sums of up to 49 products, an exponential |
//! | operator on the CPU | f16, bf16 | [`RESULT_HALF`], [`RESULT_BRAIN`] | the result; what makes it is f32 |
//! | operator on a GPU | f16, bf16 | [`HALF`], [`BRAIN`] | probabilities too, sums are f32 |
//! | networks | f32 | [`DEEP_SINGLE`] | a dozen layers |
//! | networks on the CPU | f16, bf16 | [`DEEP_SINGLE`] | as f32: maps are f32 there, and so are products |
//! | their gradients | f16, bf16 | [`RESULT_HALF`], [`RESULT_BRAIN`] | the result, which is of the images' type |
//! | networks whose maps or products are half | f16, bf16 | [`DEEP_HALF`], [`DEEP_BRAIN`] | every layer |
//!
//! A bias that is wrong at one border is off by 3e-1 of the operator and 3e-2 of a network, an epsilon that is wrong by 1 % by
//! 5e-4 of a network, a sum that is wrong by 1e-4 by as much.

use candle_core::{DType, Device};

use super::check::Direction;

/// The operator in f64 against the definition.
const DOUBLE: f64 = 1e-13;
/// The operator in f32.
const SINGLE: f64 = 2e-6;
/// What was computed in f32 and rounded to f16: 2e-4 by itself.
const RESULT_HALF: f64 = 5e-4;
/// What was computed in f32 and rounded to bf16.
const RESULT_BRAIN: f64 = 4e-3;
/// The operator in f16.
const HALF: f64 = 1e-3;
/// The operator in bf16.
const BRAIN: f64 = 8e-3;
/// Networks in f32.
const DEEP_SINGLE: f64 = 1e-5;
/// Networks in f16.
const DEEP_HALF: f64 = 5e-3;
/// Networks in bf16.
const DEEP_BRAIN: f64 = 4e-2;

/// Of the operator.
pub(super) fn operator(device: &Device, dtype: DType) -> f64 {
    match dtype {
        DType::F64 => DOUBLE,
        DType::F32 => SINGLE,
        DType::F16 if device.is_cpu() => RESULT_HALF,
        DType::F16 => HALF,
        _ if device.is_cpu() => RESULT_BRAIN,
        _ => BRAIN,
    }
}

/// Of a network with weights of a type; `multiplies_bf16` says whether a CPU takes operands of this type.
pub(super) fn network(device: &Device, dtype: DType, pass: Direction, multiplies_bf16: bool) -> f64 {
    let narrow = !device.is_cpu() || (dtype == DType::BF16 && multiplies_bf16);
    match (dtype, pass) {
        (DType::F16, _) if narrow => DEEP_HALF,
        (DType::BF16, _) if narrow => DEEP_BRAIN,
        (DType::F16, Direction::Backward) => RESULT_HALF,
        (DType::BF16, Direction::Backward) => RESULT_BRAIN,
        _ => DEEP_SINGLE,
    }
}
