//! Launches of neighborhood attention: qkv [batch, height, width, 3 · heads · dim] and rpb
//! [heads, 2K−1, 2K−1] to out [batch, height, width, heads · dim], all of one type.

use crate::{ATTENTION, ATTENTION_MMA, Element, Launch, TooLarge};

/// The sizes of a computation; height and width are at least `kernel_size` · `dilation`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Problem {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    pub kernel_size: usize,
    pub dilation: usize,
}

/// Queries of a warp of the general kernels: one.
const WARPS: usize = 4;
/// Channels that the kernels for narrow heads sum up in one pass over the window.
const NARROW: usize = 32;
/// Side of the queries of a warp on the matrix units.
const SIDE: usize = 4;
/// Channels of a head on the matrix units.
const MMA_DIM: usize = 32;

impl Problem {
    /// The launch for any problem. `aligned`: whether the tensors begin at a multiple of 16 bytes.
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn general(&self, element: Element, aligned: bool) -> Result<Launch, TooLarge> {
        let &Self { batch, height, width, heads, dim, kernel_size, dilation } = self;
        let function = match (element, dim <= NARROW) {
            (Element::F32, true) => "attention_f32",
            (Element::F16, true) => "attention_f16",
            (Element::Bf16, true) => "attention_bf16",
            (Element::F32, false) => "attention_wide_f32",
            (Element::F16, false) => "attention_wide_f16",
            (Element::Bf16, false) => "attention_wide_bf16",
        };
        let vectors = aligned && (dim * element.bytes()).is_multiple_of(16);
        let queries = batch * height * width * heads;
        let sizes = [batch, height, width, heads, dim, kernel_size, dilation, vectors.into()];
        Launch::linear(ATTENTION, function, queries.div_ceil(WARPS), 32 * WARPS as u32, &sizes)
    }

    /// The launch on the matrix units, for the problems and types that they serve, of tensors that begin
    /// at a multiple of 16 bytes on a card of compute capability 8.0 or later.
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn matrix_units(&self, element: Element) -> Option<Result<Launch, TooLarge>> {
        let &Self { batch, height, width, heads, dim, kernel_size, dilation } = self;
        if dim != MMA_DIM {
            return None;
        }
        let (function, [warps_y, warps_x]) = match (element, kernel_size) {
            (Element::F16, 3) => ("attention_mma_f16_3", [2, 2]),
            (Element::F16, 5) => ("attention_mma_f16_5", [2, 2]),
            (Element::F16, 7) => ("attention_mma_f16_7", [2, 2]),
            (Element::F16, 9) => ("attention_mma_f16_9", [2, 2]),
            (Element::F16, 11) => ("attention_mma_f16_11", [2, 2]),
            (Element::F16, 13) => ("attention_mma_f16_13", [1, 2]),
            (Element::Bf16, 3) => ("attention_mma_bf16_3", [2, 2]),
            (Element::Bf16, 5) => ("attention_mma_bf16_5", [2, 2]),
            (Element::Bf16, 7) => ("attention_mma_bf16_7", [2, 2]),
            (Element::Bf16, 9) => ("attention_mma_bf16_9", [2, 2]),
            (Element::Bf16, 11) => ("attention_mma_bf16_11", [2, 2]),
            (Element::Bf16, 13) => ("attention_mma_bf16_13", [1, 2]),
            _ => return None,
        };
        // Tiles and halos of the largest class.
        let [(tiles_y, halo_y), (tiles_x, halo_x)] =
            [(height, warps_y), (width, warps_x)].map(|(length, warps)| {
                let (class, tile) = (length.div_ceil(dilation), SIDE * warps);
                (class.div_ceil(tile), class.min(tile + kernel_size - 1))
            });
        let blocks = batch * dilation.pow(2) * tiles_y * tiles_x * heads;
        let bias_bytes = 4 * (2 * kernel_size - 1).pow(2);
        let key_bytes = element.bytes() * MMA_DIM;
        let shared_bytes = (2 * halo_y * halo_x * key_bytes + bias_bytes) as u32;
        let threads = 32 * (warps_y * warps_x) as u32;
        let launch =
            Launch::linear(ATTENTION_MMA, function, blocks, threads, &[height, width, heads, dilation]);
        Some(launch.map(|launch| Launch { shared_bytes, ..launch }))
    }
}
