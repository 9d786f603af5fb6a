//! Launches that move the values of maps and images. Tensors are contiguous; `vectors` says whether all of them begin at a
//! multiple of 16 bytes.

use crate::module::MAPS;
use crate::{Element, Launch, TooLarge};

/// Threads of a block.
const THREADS: usize = 256;
/// The most blocks along the second and the third axis of a grid.
const MOST_ROWS: usize = 65535;

/// In f32: pointers x `[count]` of f16 or bf16, out `[count]`.
///
/// # Errors
/// When there are too many elements for a launch.
pub fn widen(element: Element, count: usize) -> Option<Result<Launch, TooLarge>> {
    let function = match element {
        Element::F32 => return None,
        Element::F16 => "convert_f16_f32",
        Element::Bf16 => "convert_bf16_f32",
    };
    Some(Launch::linear(MAPS, function, count.div_ceil(THREADS), THREADS as u32, &[count]))
}

/// The neighbours of every 2x2 positions side by side, columns before rows: pointers x [batch, height, width, channels], out
/// [batch, ⌈height / 2⌉, ⌈width / 2⌉, 4 · channels], zero beyond the map.
///
/// # Errors
/// When there are too many elements for a launch.
pub fn merge(
    element: Element,
    [batch, height, width, channels]: [usize; 4],
    vectors: bool,
) -> Result<Launch, TooLarge> {
    let vector = 16 / element.bytes();
    let (function, each) = match (element, vectors && channels.is_multiple_of(vector)) {
        (Element::F32, false) => ("merge_f32", 1),
        (Element::F16, false) => ("merge_f16", 1),
        (Element::Bf16, false) => ("merge_bf16", 1),
        (Element::F32, true) => ("merge_f32_vector", vector),
        (Element::F16, true) => ("merge_f16_vector", vector),
        (Element::Bf16, true) => ("merge_bf16_vector", vector),
    };
    let row = width.div_ceil(2) * 4 * channels / each;
    rows(function, row, height.div_ceil(2), batch, &[batch, height, width, channels])
}

/// The windows of a convolution of images with square kernels.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct ImageWindows {
    pub batch: usize,
    pub channels: usize,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// Height and width of the result.
    pub out: [usize; 2],
    /// Side of the kernel.
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row and column.
    pub padding: usize,
}

impl ImageWindows {
    /// Pointers x [batch, channels, height, width] of f32 or of the element's own type, out [batch, out height, out width,
    /// [`depth`](crate::layers::depth)]; a window is in the order of PyTorch's weights, [channels, kernel, kernel].
    ///
    /// # Errors
    /// When there are too many elements for a launch.
    pub fn launch(&self, image: Element, element: Element) -> Option<Result<Launch, TooLarge>> {
        let &Self { batch, channels, size: [h, w], out: [oh, ow], kernel, stride, padding } = self;
        let function = match (image, element) {
            (Element::F32, Element::F32) => "image_windows_f32_f32",
            (Element::F32, Element::F16) => "image_windows_f32_f16",
            (Element::F32, Element::Bf16) => "image_windows_f32_bf16",
            (Element::F16, Element::F16) => "image_windows_f16_f16",
            (Element::Bf16, Element::Bf16) => "image_windows_bf16_bf16",
            _ => return None,
        };
        let depth = crate::layers::depth(kernel, channels);
        let sizes = [batch, channels, h, w, ow, depth, kernel, stride, padding];
        Some(rows(function, ow * depth, oh, batch, &sizes))
    }
}

/// A launch of a thread for each of `row` values, of `rows` rows and `images` images.
fn rows(
    function: &'static str,
    row: usize,
    rows: usize,
    images: usize,
    sizes: &[usize],
) -> Result<Launch, TooLarge> {
    if rows > MOST_ROWS || i32::try_from(row).is_err() {
        return Err(TooLarge);
    }
    let launch = Launch::linear(MAPS, function, row.div_ceil(THREADS), THREADS as u32, sizes)?;
    Ok(Launch { grid: [launch.grid[0], rows as u32, images.min(MOST_ROWS) as u32], ..launch })
}
