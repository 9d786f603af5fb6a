//! The operator against golden data, the reference and itself; the CPU's kernels one by one are tested beside them.

mod golden;
mod gpu;
mod gradients;
mod halves;
mod operator;
mod padding;
pub(super) mod shapes;
mod slices;
pub(super) mod tools;
