//! The instruction sets of the CPU's kernels, one of which is chosen at run time: [`Isa`].
//!
//! A kernel is written once against the trait `Simd` as a `Kernel`; `Isa::run` compiles it for AVX-512, AVX2 with FMA, NEON,
//! and a portable form that is right everywhere. Kernels get a token of their instruction set; holding one is the proof
//! that the processor has it.
//!
//! NEON was tested in an emulator when it was written, and a workflow for arm64 machines tests it. Its speed was never
//! measured: that it is preferred to the portable form follows from its fused products and its registers alone.
//!
//! Products have operands of their own type, a `Word`: one f32, or a `Pair` of bf16 in the same place, of which an
//! instruction set that multiplies bf16 adds both products to a sum at once.
//!
//! Weights of bf16 are multiplied in that type only where it is faster, which is measured: [`IsaChoice`], [`multiply_add_rate`].
//!
//! To add an instruction set: a file with its token and `impl Simd`, one row of `isa.rs`'s table and one arm of
//! `Isa::run`. The tests of every kernel then meet it.

mod cache;
mod choice;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod rate;
#[cfg(test)]
mod tests;
mod vector;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use cache::second_cache;
pub use choice::{ISA_VARIABLE, IsaChoice, IsaError, IsaReason};
pub use isa::{Capabilities, Isa};
pub use rate::multiply_add_rate;
pub(crate) use vector::{Kernel, KernelFor, Simd};
pub(crate) use word::{Pair, Word};
