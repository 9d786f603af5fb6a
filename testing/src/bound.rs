//! How far results may be off: each promise once, with its reason. A bound that has to grow is a bug to find.
//!
//! | what | bound | how measured | why |
//! | --- | --- | --- | --- |
//! | [`NETWORK`] | 1e-4 | ‖a − b‖ / ‖b‖ | f32 on another machine is 2e-6 to 6e-6 off f64; this catches any other formula |
//! | [`SAME`] | 1e-5 | ‖a − b‖ / ‖b‖ | one network computed in two ways in f32: only the order of sums differs |
//! | [`SAME_SCORE`] | 1e-6 | largest | probabilities of one image in batches of different size |
//! | [`F16`], [`BF16`] | 2e-3, 2e-2 | ‖a − b‖ / ‖b‖ | weights of 11 and 8 bits through a dozen layers, sums in f32 |
//! | [`GPU_F16`] | 5e-3 | ‖a − b‖ / ‖b‖ | there maps are of half types too |
//! | [`GRADIENT_F16`], [`GRADIENT_BF16`] | 1e-2, 1e-1 | ‖a − b‖ / ‖b‖ | maps of half types, forward and backward |
//! | [`FEATURES`] | 1e-4 | root mean square, in standard deviations | features of detectors: f32 against f64 is 2e-6 to 1e-5 |
//! | [`SCORE`] | 1e-4 | largest | scores of f32 against f64 differ by 2e-5 |
//! | [`PIXELS`] | 0.01 | largest, in pixels | boxes of f32 against f64 differ by 1e-3 |
//! | [`MASK_PROBABILITY`] | 2e-4 | largest | of logits that are 5e-4 off |
//! | [`MASK_PIXELS`] | 0.5 % | pixels of a box | a handful lie within 1e-3 of the threshold |
//! | [`LABEL_PIXELS`] | 0.1 % | pixels of a map | two classes that are likely alike; f32 against f64 differ in none |
//!
//! Kernels have bounds of their own, in the tests beside them: there they depend on sizes.

/// A network's maps, logits and gradients in f32 against what the original computed: ‖a − b‖ / ‖b‖.
pub const NETWORK: f64 = 1e-4;
/// One network in f32, computed in two ways: ‖a − b‖ / ‖b‖.
pub const SAME: f64 = 1e-5;
/// A probability of one image in batches of different size.
pub const SAME_SCORE: f64 = 1e-6;
/// Logits of weights in f16 on the CPU: ‖a − b‖ / ‖b‖.
pub const F16: f64 = 2e-3;
/// Logits in bf16, on any device: ‖a − b‖ / ‖b‖.
pub const BF16: f64 = 2e-2;
/// Logits in f16 on a GPU, whose maps are of this type: ‖a − b‖ / ‖b‖.
pub const GPU_F16: f64 = 5e-3;
/// Gradients of an image in f16 on a GPU: ‖a − b‖ / ‖b‖.
pub const GRADIENT_F16: f64 = 1e-2;
/// Gradients of an image in bf16 on a GPU: ‖a − b‖ / ‖b‖.
pub const GRADIENT_BF16: f64 = 1e-1;
/// Maps of detectors and segmenters: root of the mean square, in standard deviations.
pub const FEATURES: f64 = 1e-4;
/// The score of a detection.
pub const SCORE: f64 = 1e-4;
/// An edge of a box, in pixels.
pub const PIXELS: f64 = 0.01;
/// The probability of a pixel of a mask.
pub const MASK_PROBABILITY: f64 = 2e-4;
/// Pixels of a mask that may differ, as a share of its box.
pub const MASK_PIXELS: f64 = 0.005;
/// Pixels of a map of classes that may differ, as a share of all.
pub const LABEL_PIXELS: f64 = 0.001;
