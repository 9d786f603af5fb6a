//! Launches of what stands between the matrix products of a layer. Tensors are contiguous, channels last
//! and of one type; `vectors` says whether all of them begin at a multiple of 16 bytes.

use crate::launch::looped;
use crate::module::{LAYERS, NORMS};
use crate::{Element, Launch, TooLarge};

/// Threads of a block of the element-wise kernels.
const THREADS: usize = 256;
/// Threads of a block of the norm.
const NORM_THREADS: usize = 128;
/// Lanes of a warp.
const WARP: usize = 32;

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
        let vector = vector(element);
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

/// The kernel of a norm for a type and how many words a lane takes.
macro_rules! norm_kernel {
    ($name:literal, $element:expr, $each:expr) => {
        match ($element, $each) {
            (Element::F32, 1) => concat!($name, "_f32_1"),
            (Element::F32, 3) => concat!($name, "_f32_3"),
            (Element::F32, 4) => concat!($name, "_f32_4"),
            (Element::F32, 8) => concat!($name, "_f32_8"),
            (Element::F32, _) => concat!($name, "_f32_16"),
            (Element::F16, 1) => concat!($name, "_f16_1"),
            (Element::F16, 3) => concat!($name, "_f16_3"),
            (Element::F16, 4) => concat!($name, "_f16_4"),
            (Element::F16, _) => concat!($name, "_f16_8"),
            (Element::Bf16, 1) => concat!($name, "_bf16_1"),
            (Element::Bf16, 3) => concat!($name, "_bf16_3"),
            (Element::Bf16, 4) => concat!($name, "_bf16_4"),
            (Element::Bf16, _) => concat!($name, "_bf16_8"),
        }
    };
}

/// Elements of a word of 16 bytes.
fn vector(element: Element) -> usize {
    16 / element.bytes()
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
    countable(rows, words)?;
    // As few blocks beside each other as a row takes, alike in width; and rows as fill a block.
    let parts = words.div_ceil(THREADS).max(1);
    let width = words.div_ceil(parts).max(1);
    let height = THREADS / width;
    let blocks = looped(rows.div_ceil(height), parts);
    Launch::of(LAYERS[element as usize], function, [blocks, parts, 1], [width, height], &[rows, channels])
}

/// Layer norm over the channels, with `epsilon` added to the variance: pointers x [rows, channels], weight,
/// bias `[channels]`, out [rows, channels], which may be x.
///
/// # Errors
/// When there are too many elements for a launch.
pub fn layer_norm(
    element: Element,
    size: [usize; 2],
    epsilon: f32,
    vectors: bool,
) -> Result<Launch, TooLarge> {
    match row_lanes(element, size[1], vectors) {
        Some([lanes, each]) => norm(
            element,
            norm_kernel!("layer_norm", element, each),
            size,
            size[1] / vector(element),
            lanes,
            epsilon,
        ),
        None => {
            let function = match element {
                Element::F32 => "layer_norm_f32",
                Element::F16 => "layer_norm_f16",
                Element::Bf16 => "layer_norm_bf16",
            };
            // As many lanes as a row has work for.
            let lanes = 1 << size[1].max(1).ilog2().min(WARP.ilog2());
            norm(element, function, size, size[1], lanes, epsilon)
        }
    }
}

/// [`finish`] without an activation, and [`layer_norm`] of what it gives, each row from registers: pointers
/// x [rows, channels], bias, gamma `[channels]`, residual [rows, channels] (each of the three may be null),
/// weight, bias of the norm `[channels]`, out [rows, channels] (null if only the norm is wanted), normed
/// [rows, channels]. The values are those of the two kernels.
///
/// Nothing for channels that are no whole words of 16 bytes or more than [`NORM_CHANNELS`]: that takes the two.
///
/// # Errors
/// When there are too many elements for a launch.
pub fn finish_norm(
    element: Element,
    size: [usize; 2],
    epsilon: f32,
    vectors: bool,
) -> Option<Result<Launch, TooLarge>> {
    let [lanes, each] = row_lanes(element, size[1], vectors)?;
    let function = norm_kernel!("finish_norm", element, each);
    Some(norm(element, function, size, size[1] / vector(element), lanes, epsilon))
}

/// How many channels a norm can keep in registers.
pub const NORM_CHANNELS: usize = 2048;

/// Words of 16 bytes a lane for which there are kernels of norms; 16 only in f32.
const LANE_WORDS: [usize; 5] = [1, 3, 4, 8, 16];

/// How many lanes share a row in registers, and how many words each has for it: such that the fewest are idle,
/// and as many lanes as can be.
fn row_lanes(element: Element, channels: usize, vectors: bool) -> Option<[usize; 2]> {
    let words = channels / vector(element);
    if !vectors || channels != words * vector(element) || !(1..=NORM_CHANNELS).contains(&channels) {
        return None;
    }
    let shapes = LANE_WORDS.into_iter().flat_map(|each| {
        let lanes = words.div_ceil(each).next_power_of_two();
        (lanes <= WARP).then_some([lanes, each])
    });
    shapes.min_by_key(|[lanes, each]| lanes * each)
}

/// A launch of a norm, of rows of `words` whose places the kernel counts in 32 bits.
fn norm(
    element: Element,
    function: &'static str,
    [rows, channels]: [usize; 2],
    words: usize,
    lanes: usize,
    epsilon: f32,
) -> Result<Launch, TooLarge> {
    countable(rows, words)?;
    let height = NORM_THREADS / lanes;
    let grid = [rows.div_ceil(height), 1, 1];
    let mut launch = Launch::of(NORMS[element as usize], function, grid, [lanes, height], &[rows, channels])?;
    // Sizes are whole numbers: these go as their bits.
    let inverse = 1.0 / channels as f32;
    launch.sizes.extend([inverse, epsilon].map(|x| x.to_bits() as i32));
    Ok(launch)
}

/// Kernels count words in 32 bits.
fn countable(rows: usize, words: usize) -> Result<(), TooLarge> {
    let all = rows.checked_mul(words).filter(|&all| all <= i32::MAX as usize);
    all.map(|_| ()).ok_or(TooLarge)
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
        let words = self.depth() / each;
        // Kernels count the words of a row, and places in what surrounds a map, in 32 bits.
        for (rows, words) in [(ow, words), (oh, stride), (ow, stride)] {
            countable(rows, words)?;
        }
        let parts = (ow * words).div_ceil(THREADS).max(1);
        let grid = [oh, parts, looped(batch, oh.saturating_mul(parts))];
        let sizes = [batch, h, w, channels, oh, ow, self.depth(), kernel, stride, padding];
        Launch::of(LAYERS[element as usize], function, grid, [THREADS, 1], &sizes)
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
    Launch::linear(LAYERS[element as usize], function, blocks, THREADS as u32, &[places, channels])
}
