//! How kernels are launched.

use super::module::Module;

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

/// The most blocks along each axis of a grid.
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, u16::MAX as u32, u16::MAX as u32];

impl Launch {
    /// A launch of `blocks` blocks of `threads` threads.
    pub(crate) fn linear(
        module: Module,
        function: &'static str,
        blocks: usize,
        threads: u32,
        sizes: &[usize],
    ) -> Result<Self, TooLarge> {
        Self::of(module, function, [blocks, 1, 1], [threads as usize, 1], sizes)
    }

    /// A launch of a `grid` of blocks of width x height threads.
    pub(crate) fn of(
        module: Module,
        function: &'static str,
        grid: [usize; 3],
        [width, height]: [usize; 2],
        sizes: &[usize],
    ) -> Result<Self, TooLarge> {
        let mut blocks = MOST_BLOCKS;
        for (blocks, wanted) in blocks.iter_mut().zip(grid) {
            *blocks = u32::try_from(wanted).ok().filter(|wanted| wanted <= blocks).ok_or(TooLarge)?;
        }
        let size = |&size: &usize| i32::try_from(size).map_err(|_| TooLarge);
        Ok(Self {
            module,
            function,
            grid: blocks,
            block: [width as u32, height as u32, 1],
            shared_bytes: 0,
            sizes: sizes.iter().map(size).collect::<Result<_, _>>()?,
        })
    }
}

/// Blocks that are several for each of the places that a large GPU has for them (H100: 132 · 8).
const ENOUGH_BLOCKS: usize = 8192;

/// Blocks for `wanted` places along an axis of which each block takes several, alike in number, where there are
/// blocks enough: with more each would only prepare anew. `others` is how many there are beside each.
pub(crate) fn looped(wanted: usize, others: usize) -> usize {
    let each = wanted.saturating_mul(others).div_ceil(ENOUGH_BLOCKS).clamp(1, wanted.max(1));
    wanted.div_ceil(each)
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
