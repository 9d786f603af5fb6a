//! How far results may be off from f64: ‖got − want‖ / ‖want‖ of the stage that is furthest off. Weights and inputs are
//! exact in every type, so all of it is rounding on the way, and what is measured is some five times less.
//!
//! | what | type | bound | what rounds |
//! | --- | --- | --- | --- |
//! | operator | f64 | [`DOUBLE`] | the order of sums |
//! | operator | f32 | [`SINGLE`] | sums of up to 49 products, an exponential |
//! | operator | f16, bf16 | [`HALF`], [`BRAIN`] | inputs, probabilities and results of 11 and 8 bits, sums in f32 |
//! | networks | f32 | [`DEEP_SINGLE`] | a dozen layers |
//! | networks on the CPU | f16, bf16 | [`DEEP_SINGLE`] | as f32: maps are f32 there, and so are products |
//! | their gradients | f16, bf16 | [`HALF`], [`BRAIN`] | the result, which is of the images' type |
//! | networks whose products or maps are half | f16, bf16 | [`DEEP_HALF`], [`DEEP_BRAIN`] | every layer |
//!
//! A wrong neighbour, bias or epsilon is off by more than 1e-1 of a stage, as a rule, and by more than the bounds of f32
//! always: each kernel computes in f32 somewhere, or shares its source with one that does.

use candle_core::{DType, Device};

use super::check::Pass;

/// The operator in f64 against the definition.
const DOUBLE: f64 = 1e-13;
/// The operator in f32.
const SINGLE: f64 = 1e-6;
/// The operator in f16, and results of that type.
const HALF: f64 = 1e-3;
/// The operator in bf16, and results of that type.
const BRAIN: f64 = 8e-3;
/// Networks in f32.
const DEEP_SINGLE: f64 = 5e-6;
/// Networks in f16.
const DEEP_HALF: f64 = 5e-3;
/// Networks in bf16.
const DEEP_BRAIN: f64 = 4e-2;

/// Of the operator.
pub(super) fn operator(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => DOUBLE,
        DType::F32 => SINGLE,
        DType::F16 => HALF,
        _ => BRAIN,
    }
}

/// Of a network with weights of a type; `multiplies_bf16` says whether a CPU takes operands of this type.
pub(super) fn network(device: &Device, dtype: DType, pass: Pass, multiplies_bf16: bool) -> f64 {
    let narrow = !device.is_cpu() || (dtype == DType::BF16 && multiplies_bf16);
    match (dtype, pass) {
        (DType::F16, _) if narrow => DEEP_HALF,
        (DType::BF16, _) if narrow => DEEP_BRAIN,
        (DType::F16, Pass::Backward) => HALF,
        (DType::BF16, Pass::Backward) => BRAIN,
        _ => DEEP_SINGLE,
    }
}
