//! WebP, with the crate `image-webp`, which gives libwebp's bytes. Alpha is dropped; of an animation the first
//! frame counts, on a transparent black canvas, as in Pillow.

use std::io::Cursor;

use image::RgbImage;
use image_webp::WebPDecoder;

use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use super::raster;
use crate::images::decode::ImageErrorKind;

const FORMAT: &str = "WebP";
/// The image in `bytes`.
pub fn read(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    let failed = |allowance: &Allowance, e| match allowance.failure(FORMAT, &e) {
        // What is cut its decoder calls corrupt.
        ImageErrorKind::Damaged { format, .. } if !is_whole(bytes) => ImageErrorKind::Truncated { format },
        other => other,
    };
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| failed(allowance, e))?;
    let (width, height) = decoder.dimensions();
    let pixels = allowance.pixels(FORMAT, width, height)?;
    let channels = if decoder.has_alpha() { 4 } else { CHANNELS };
    // Bytes of a pixel that the decoder holds beside its output: a lossless frame's four; a lossy one's planes,
    // and five of its alpha; of an animation the frame, whatever it is, and the canvas.
    let beside = match (decoder.is_animated(), decoder.is_lossy(), decoder.has_alpha()) {
        (true, ..) => 15,
        (_, true, true) => 7,
        (_, true, false) => 2,
        (_, false, _) => 5,
    };
    // Blocks of 16 x 16 pixels are whole.
    let blocks = 256 * u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = || Orientation::of_xmp(&decoder.xmp_metadata().ok()??);
    let orientation = exif.as_deref().and_then(Orientation::of_exif).or_else(xmp);
    allowance.take(channels as u64 * pixels)?;
    let mut while_decoding = allowance.clone();
    while_decoding.take(beside * blocks)?;

    let mut rgb = vec![0; channels * pixels as usize];
    decoder.set_memory_limit(usize::try_from(allowance.left()).unwrap_or(usize::MAX));
    decoder.read_image(&mut rgb).map_err(|e| failed(allowance, e))?;
    raster::drop_alpha(&mut rgb, channels);
    raster::upright(rgb, width, height, orientation, allowance, FORMAT)
}

/// Width and height, as the header says.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    // After the file's header and a chunk's: what it is, then its sides, of 14 bits or of 24.
    let number = |at: usize, length: usize| {
        let stored = bytes.get(at..at + length)?;
        Some(stored.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    };
    const SIDE: u32 = (1 << 14) - 1;
    match bytes.get(12..16)? {
        b"VP8 " => Some((number(26, 2)? & SIDE, number(28, 2)? & SIDE)),
        b"VP8L" => number(21, 4).map(|sides| ((sides & SIDE) + 1, (sides >> 14 & SIDE) + 1)),
        b"VP8X" => Some((number(24, 3)? + 1, number(27, 3)? + 1)),
        _ => None,
    }
}

/// Whether there are as many bytes as the RIFF header says.
fn is_whole(bytes: &[u8]) -> bool {
    let size = bytes.get(4..8).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    size.is_some_and(|size| bytes.len() as u64 >= u64::from(size) + 8)
}
