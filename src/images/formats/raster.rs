//! Formats whose pixels come in one piece.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use super::kind::Kind;
use crate::images::decode::ImageErrorKind;

/// The JPEG image in `bytes`.
pub fn jpeg(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    let name = Kind::Jpeg.name();
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
    reader.no_limits();
    let mut decoder = reader.into_decoder().map_err(|e| allowance.failure(name, &e))?;
    let (width, height) = decoder.dimensions();
    let pixels = allowance.pixels(name, width, height)?;
    allowance.take(CHANNELS as u64 * pixels)?;
    let mut while_decoding = allowance.clone();
    while_decoding.take(decoder.total_bytes())?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(allowance.left());
    decoder.set_limits(limits).map_err(|e| allowance.failure(name, &e))?;
    let orientation = decoder.orientation().map_err(|e| allowance.failure(name, &e))?;
    let image = DynamicImage::from_decoder(decoder).map_err(|e| allowance.failure(name, &e))?;
    let orientation = Orientation::new(orientation.to_exif().into());
    upright(image.into_rgb8().into_raw(), width, height, Some(orientation), allowance, name)
}

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
