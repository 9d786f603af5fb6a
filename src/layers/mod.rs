//! The building blocks that the models share, fast on the CPU: each beside the plain version that
//! it is tested against.

pub mod simd;
