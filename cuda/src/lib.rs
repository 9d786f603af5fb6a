//! The CUDA kernels of nat-infer, and how each is launched.
//!
//! `kernels/*.cu` hold them. With the feature `ptx` they are compiled to PTX and embedded in
//! [`Module`]; with `emulate` the module of that name compiles them for the CPU and runs them there, from the
//! same sources and the same [`Launch`]es. Without features this crate is the launches alone.

pub mod attention;
#[cfg(feature = "emulate")]
pub mod emulate;
mod launch;
pub mod layers;
#[cfg(all(feature = "ptx", target_arch = "x86_64", target_os = "linux"))]
mod lazy;
#[cfg(feature = "ptx")]
mod libraries;
mod module;
pub mod regions;

pub use launch::{Element, Launch, TooLarge};
#[cfg(feature = "ptx")]
pub use libraries::{libraries, missing_library};
pub use module::{ATTENTION, ATTENTION_GRAD, ATTENTION_MMA, LAYERS, Module, REGIONS};
