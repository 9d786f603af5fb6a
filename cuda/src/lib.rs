//! The CUDA kernels of nat-infer, and how each is launched.
//!
//! `kernels/*.cu` hold them. With the feature `ptx` they are compiled to PTX and embedded in
//! [`Module`]; with `emulate` the module of that name compiles them for the CPU and runs them there, from the
//! same sources and the same [`Launch`]es. Without features this crate is the launches alone.

pub mod attention;
#[cfg(feature = "emulate")]
pub mod emulate;
pub mod layers;
#[cfg(all(feature = "ptx", target_arch = "x86_64", target_os = "linux"))]
mod lazy;
pub mod regions;

/// The first of NVIDIA's libraries that computing takes which this machine lacks: the driver's or the CUDA
/// runtime's. Elsewhere than on x86-64 Linux a program that starts has them.
#[cfg(feature = "ptx")]
pub fn missing_library() -> Option<&'static str> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let missing = lazy::missing_library();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let missing = None;
    missing
}

/// One file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// A name that no other crate's module has: candle keeps modules by it.
    pub name: &'static str,
    /// The kernels for the driver to compile.
    #[cfg(feature = "ptx")]
    pub ptx: &'static str,
}

macro_rules! modules {
    ($($(#[$doc:meta])* $module:ident, $file:literal;)*) => {
        $($(#[$doc])*
        pub const $module: Module = Module {
            name: concat!("nat-infer-", $file),
            #[cfg(feature = "ptx")]
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $file, ".ptx")),
        };)*
    };
}

modules! {
    /// Neighborhood attention for any shape.
    ATTENTION, "attention";
    /// The gradient of neighborhood attention for any shape.
    ATTENTION_GRAD, "attention_grad";
    /// Neighborhood attention on the matrix units (compute capability 8.0 and later).
    ATTENTION_MMA, "attention_mma";
    /// What stands between the matrix products of a layer.
    LAYERS, "layers";
    /// Regions and boxes of detectors.
    REGIONS, "regions";
}

/// How a kernel is launched: everything but the pointers. A kernel's parameters are its pointers, inputs
/// before outputs, and then `sizes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Where the kernel is.
    pub module: Module,
    /// Its name.
    pub function: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// The parameters behind the pointers.
    pub sizes: Vec<i32>,
}

/// The most blocks along the first axis of a grid.
const MOST_BLOCKS: u32 = i32::MAX as u32;

impl Launch {
    /// A launch of `blocks` blocks of `threads` threads.
    fn linear(
        module: Module,
        function: &'static str,
        blocks: usize,
        threads: u32,
        sizes: &[usize],
    ) -> Result<Self, TooLarge> {
        let size = |&size: &usize| i32::try_from(size).map_err(|_| TooLarge);
        Ok(Self {
            module,
            function,
            grid: [blocks.try_into().ok().filter(|&blocks| blocks <= MOST_BLOCKS).ok_or(TooLarge)?, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: 0,
            sizes: sizes.iter().map(size).collect::<Result<_, _>>()?,
        })
    }
}

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A computation is too large for one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "tensors of more than 2^31 elements are too large for the GPU's kernels: use smaller batches",
        )
    }
}

impl std::error::Error for TooLarge {}
