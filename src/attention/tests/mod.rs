//! The operator against golden data, the reference and itself; the CPU's kernels one by one are tested beside them.

mod golden;
mod gpu;
mod gradients;
mod operator;
mod padding;
pub(super) mod shapes;
pub(super) mod tools;
