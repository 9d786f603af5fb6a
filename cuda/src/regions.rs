//! Launches for the regions and boxes of detectors.

use crate::module::REGIONS;
use crate::{Element, Launch, TooLarge};

/// The pyramid levels that regions take features from.
pub const LEVELS: usize = 4;
/// The most boxes that [`suppress`] takes.
pub const MOST_BOXES: usize = 8192;

/// A level of a pyramid, a map [height, width, channels].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct PyramidLevel {
    pub height: usize,
    pub width: usize,
    /// Pixels a position.
    pub stride: usize,
}

/// RoIAlign: pointers to the maps of the levels, rois [count, 5] (level, x1, y1, x2, y2; always f32), out
/// [count, side, side, channels].
///
/// # Errors
/// When there are too many elements for a launch.
pub fn roi_align(
    element: Element,
    levels: [PyramidLevel; LEVELS],
    channels: usize,
    count: usize,
    side: usize,
) -> Result<Launch, TooLarge> {
    let function = match element {
        Element::F32 => "roi_align_f32",
        Element::F16 => "roi_align_f16",
        Element::Bf16 => "roi_align_bf16",
    };
    let mut sizes: Vec<usize> =
        levels.iter().flat_map(|level| [level.height, level.width, level.stride]).collect();
    sizes.extend([channels, side]);
    let threads = channels.next_multiple_of(32).clamp(32, 256) as u32;
    Launch::linear(REGIONS, function, count * side * side, threads, &sizes)
}

/// Words of 32 boxes.
pub fn words(count: usize) -> usize {
    count.div_ceil(32)
}

/// Which later boxes each box overlaps by an IoU of more than `threshold`: pointers boxes [count, 4] (f32,
/// best first), mask [count, words] (u32, bit j % 32 of word j / 32).
///
/// # Errors
/// When there are too many elements for a launch.
pub fn overlaps(count: usize, threshold: f32) -> Result<Launch, TooLarge> {
    let mut launch = Launch::linear(REGIONS, "overlaps", words(count).pow(2), 32, &[count, words(count)])?;
    // Sizes are whole numbers: the threshold goes as its bits.
    launch.sizes.push(threshold.to_bits() as i32);
    Ok(launch)
}

/// Greedy suppression by such a mask: pointers mask [count, words], kept `[count]` (u32, 1 for a box that
/// stays).
///
/// # Errors
/// When there are more than [`MOST_BOXES`].
pub fn suppress(count: usize) -> Result<Launch, TooLarge> {
    if count > MOST_BOXES {
        return Err(TooLarge);
    }
    Launch::linear(REGIONS, "suppress", 1, 256, &[count, words(count)])
}
