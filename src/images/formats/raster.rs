//! Formats whose pixels come in one piece.

use image::RgbImage;

use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use crate::images::error::ImageErrorKind;

/// RGB of pixels that have `channels`, 3 or 4, in the same memory.
pub fn drop_alpha(pixels: &mut Vec<u8>, channels: usize) {
    if channels > CHANNELS {
        let count = pixels.len() / channels;
        for index in 1..count {
            pixels.copy_within(channels * index..channels * index + CHANNELS, CHANNELS * index);
        }
        pixels.truncate(CHANNELS * count);
    }
}

/// The upright image of stored rows of RGB, which are counted already; where they must be turned they are
/// copied, and the copy is counted too.
pub fn upright(
    rgb: Vec<u8>,
    width: u32,
    height: u32,
    orientation: Option<Orientation>,
    allowance: &mut Allowance,
    format: &'static str,
) -> Result<RgbImage, ImageErrorKind> {
    if allowance.orientation(orientation) == Orientation::UPRIGHT {
        return Ok(RgbImage::from_raw(width, height, rgb)
            .unwrap_or_else(|| unreachable!("three bytes were made of each of {width}x{height} pixels")));
    }
    let mut canvas = allowance.canvas(format, width, height, orientation)?;
    for (y, row) in rgb.chunks_exact(CHANNELS * width as usize).enumerate() {
        canvas.put(0, y, 1, row);
    }
    Ok(canvas.finish())
}
