//! Launches of what stands between the matrix products of a layer. Tensors are contiguous, channels last
//! and of one type; `vectors` says whether all of them begin at a multiple of 16 bytes.

use crate::{Element, LAYERS, Launch, TooLarge};

/// Threads of a block of the element-wise kernels.
const THREADS: usize = 256;
/// Blocks that are several for each of the places that a large GPU has for them (H100: 132 · 8).
const ENOUGH_BLOCKS: usize = 8192;
/// Threads of a block of the norm.
const NORM_THREADS: usize = 128;

/// What follows the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KernelActivation {
    None,
    Gelu,
    Relu,
}

/// The kernel for a type, and how many elements a thread takes: 16 bytes where the channels allow it.
macro_rules! kernel {
    ($name:literal, $element:expr, $channels:expr, $vectors:expr) => {{
        let element: Element = $element;
        let vector = 16 / element.bytes();
        match (element, $vectors && $channels.is_multiple_of(vector)) {
            (Element::F32, true) => (concat!($name, "_f32_vector"), vector),
            (Element::F16, true) => (concat!($name, "_f16_vector"), vector),
            (Element::Bf16, true) => (concat!($name, "_bf16_vector"), vector),
            (Element::F32, false) => (concat!($name, "_f32"), 1),
            (Element::F16, false) => (concat!($name, "_f16"), 1),
            (Element::Bf16, false) => (concat!($name, "_bf16"), 1),
        }
    }};
}

/// residual + gamma · activation(x + bias): pointers x [rows, channels], bias, gamma `[channels]`, residual
/// [rows, channels] (each of the three may be null), out [rows, channels], which may be x or residual.
///
/// GELU is within one unit in the last place of f16 and bf16, save that of bf16 results below 2^-122 may be
/// zero. In these types that of -∞ is 0, in f32 it is NaN as in PyTorch.
///
/// # Errors
/// When there are too many elements for a launch.
pub fn finish(
    element: Element,
    [rows, channels]: [usize; 2],
    activation: KernelActivation,
    vectors: bool,
) -> Result<Launch, TooLarge> {
    let (function, each) = match activation {
        KernelActivation::None => kernel!("finish", element, channels, vectors),
        KernelActivation::Gelu => kernel!("finish_gelu", element, channels, vectors),
        KernelActivation::Relu => kernel!("finish_relu", element, channels, vectors),
    };
    let words = channels / each;
    // Kernels count words in 32 bits.
    if rows.checked_mul(words).is_none_or(|words| words > i32::MAX as usize) {
        return Err(TooLarge);
    }
    // As few blocks beside each other as a row takes, alike in width; and rows as fill a block.
    let parts = words.div_ceil(THREADS).max(1);
    let width = words.div_ceil(parts).max(1);
    let height = THREADS / width;
    let blocks = looped(rows.div_ceil(height), parts);
    Launch::of(LAYERS, function, [blocks, parts, 1], [width, height], &[rows, channels])
}

/// As many of the `wanted` blocks along an axis of which each block takes several, with `others` beside each,
/// as keep a GPU busy: with more each would only prepare anew.
fn looped(wanted: usize, others: usize) -> usize {
    wanted.min((ENOUGH_BLOCKS / others.max(1)).max(1))
}

/// Layer norm over the channels, with `epsilon` added to the variance: pointers x [rows, channels], weight,
/// bias `[channels]`, out [rows, channels].
///
/// # Errors
/// When there are too many elements for a launch.
pub fn layer_norm(
    element: Element,
    [rows, channels]: [usize; 2],
    epsilon: f32,
    vectors: bool,
) -> Result<Launch, TooLarge> {
    let (function, each) = kernel!("layer_norm", element, channels, vectors);
    // As many lanes as a row has work for.
    let lanes = (channels / each).max(1).ilog2().min(5);
    let blocks = (rows << lanes).div_ceil(NORM_THREADS);
    let mut launch =
        Launch::linear(LAYERS, function, blocks, NORM_THREADS as u32, &[rows, channels, 1 << lanes])?;
    // Sizes are whole numbers: epsilon goes as its bits.
    launch.sizes.push(epsilon.to_bits() as i32);
    Ok(launch)
}

/// The windows of a convolution with square kernels.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Windows {
    pub batch: usize,
    /// Height and width of the map.
    pub size: [usize; 2],
    pub channels: usize,
    /// Height and width of the result.
    pub out: [usize; 2],
    /// Side of the kernel.
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row and column.
    pub padding: usize,
}

impl Windows {
    /// Elements of a row, as [`depth`] says.
    pub fn depth(&self) -> usize {
        depth(self.kernel, self.channels)
    }

    /// Pointers x [batch, height, width, channels], out [batch, out height, out width, depth].
    ///
    /// # Errors
    /// When there are too many elements for a launch.
    pub fn launch(&self, element: Element, vectors: bool) -> Result<Launch, TooLarge> {
        let &Self { batch, size: [h, w], channels, out: [oh, ow], kernel, stride, padding } = self;
        let (function, each) = kernel!("windows", element, channels, vectors);
        let blocks = (batch * oh * ow * self.depth() / each).div_ceil(THREADS);
        let sizes = [batch, h, w, channels, oh, ow, self.depth(), kernel, stride, padding];
        Launch::linear(LAYERS, function, blocks, THREADS as u32, &sizes)
    }
}

/// Elements of a window of a square kernel, with zeros up to a multiple of 16 bytes of halves, without
/// which the matrix units are not used.
pub fn depth(kernel: usize, channels: usize) -> usize {
    (kernel.pow(2) * channels).next_multiple_of(8)
}

/// The mean over places: pointers x [batch, places, channels], out [batch, channels].
///
/// # Errors
/// When there are too many elements for a launch.
pub fn mean(element: Element, [batch, places, channels]: [usize; 3]) -> Result<Launch, TooLarge> {
    let function = match element {
        Element::F32 => "mean_f32",
        Element::F16 => "mean_f16",
        Element::Bf16 => "mean_bf16",
    };
    let blocks = batch * channels.div_ceil(32);
    Launch::linear(LAYERS, function, blocks, THREADS as u32, &[places, channels])
}
