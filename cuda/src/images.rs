//! Launches of the convolution that takes an image as it comes.

use crate::launch::looped;
use crate::module::IMAGES;
use crate::{Element, Launch, Module, TooLarge};

/// The most threads of a block.
const THREADS: usize = 128;
/// Positions of a row that a thread computes.
const POSITIONS: usize = 4;
/// Outputs that a thread computes.
const OUTPUTS: usize = 8;
/// Shared memory that every GPU gives a block, in bytes.
const SHARED_BYTES: usize = 48 << 10;

/// The kernel for a side of the convolution's kernel, a stride, and the types of image and map.
macro_rules! image_kernel {
    ($kernel:literal, $image:expr, $element:expr) => {
        match ($image, $element) {
            (Element::F32, Element::F32) => concat!("image_conv_", $kernel, "_f32_f32"),
            (Element::F32, Element::F16) => concat!("image_conv_", $kernel, "_f32_f16"),
            (Element::F32, Element::Bf16) => concat!("image_conv_", $kernel, "_f32_bf16"),
            (Element::F16, Element::F16) => concat!("image_conv_", $kernel, "_f16_f16"),
            (Element::Bf16, Element::Bf16) => concat!("image_conv_", $kernel, "_bf16_bf16"),
            _ => return None,
        }
    };
}

/// The convolution of images [batch, channels, height, width] with a square kernel, to a map with channels last.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct ImageConv {
    pub batch: usize,
    pub channels: usize,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// Height and width of the result. A window that ends behind the image sees zeros there.
    pub out: [usize; 2],
    pub outputs: usize,
    /// Side of the kernel.
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row and column.
    pub padding: usize,
}

impl ImageConv {
    /// Pointers image [batch, channels, height, width] of the type `image`, weight [outputs, channels, kernel,
    /// kernel], bias `[outputs]` (may be null), out [batch, out height, out width, outputs] of the type `element`;
    /// out begins at a multiple of 16 bytes.
    ///
    /// There are kernels for sides of 3 with a stride of 2 and for patches of 4. Nothing for others, for an image
    /// that is neither f32 nor of the map's type, for outputs that are no multiple of 8 or more than 1024, and for
    /// weights that take more than 48 KiB in f32.
    ///
    /// # Errors
    /// When there are too many rows for a launch, or too many pixels in one image.
    pub fn launch(&self, image: Element, element: Element) -> Option<Result<Launch, TooLarge>> {
        let function = match (self.kernel, self.stride) {
            (3, 2) => image_kernel!("3_2", image, element),
            (4, 4) => image_kernel!("4_4", image, element),
            _ => return None,
        };
        let width = self.outputs / OUTPUTS;
        let weights = [self.channels, self.kernel, self.kernel, self.outputs, size_of::<f32>()];
        let bytes = product(&weights)?;
        let fits = bytes <= SHARED_BYTES && (1..=THREADS).contains(&width);
        (fits && self.outputs.is_multiple_of(OUTPUTS))
            .then(|| self.of(IMAGES[element as usize], function, width, bytes))
    }

    fn of(
        &self,
        module: Module,
        function: &'static str,
        width: usize,
        shared_bytes: usize,
    ) -> Result<Launch, TooLarge> {
        let &Self { batch, channels, size: [h, w], out: [oh, ow], outputs, stride, padding, .. } = self;
        // Places in a plane and in what surrounds it are counted in 32 bits.
        for sizes in [[h, w], [oh, stride], [ow, stride]] {
            product(&sizes).filter(|&count| count <= i32::MAX as usize).ok_or(TooLarge)?;
        }
        let rows = product(&[batch, oh]).ok_or(TooLarge)?;
        // As few blocks beside each other as a row takes, alike in width.
        let tiles = ow.div_ceil(POSITIONS * (THREADS / width)).max(1);
        let height = ow.div_ceil(POSITIONS * tiles).max(1);
        let grid = [looped(rows, tiles), tiles, 1];
        let sizes = [rows, channels, h, w, oh, ow, outputs, padding];
        let launch = Launch::of(module, function, grid, [width, height], &sizes)?;
        Ok(Launch { shared_bytes: shared_bytes as u32, ..launch })
    }
}

fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1, |all: usize, &size| all.checked_mul(size))
}
