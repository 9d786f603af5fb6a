//! The CUDA kernels of nat-infer, and how each is launched.
//!
//! `kernels/*.cu` hold them. With the feature `ptx` they are compiled to PTX and embedded in
//! [`Module`]; with `emulate` the module of that name compiles them for the CPU and runs them there, from the
//! same sources and the same [`Launch`]es. `lazy` is for programs that have to start where NVIDIA's libraries are not
//! installed. Without features this crate is the launches alone.

pub mod attention;
#[cfg(feature = "emulate")]
pub mod emulate;
pub mod images;
mod launch;
pub mod layers;
#[cfg(all(feature = "lazy", target_arch = "x86_64", target_os = "linux"))]
mod lazy;
mod libraries;
pub mod maps;
mod module;
pub mod regions;

pub use launch::{Element, Launch, TooLarge};
pub use libraries::{libraries, missing_library};
pub use module::Module;
