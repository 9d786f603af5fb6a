//! WebP, with the crate `image-webp`, which gives libwebp's bytes. Alpha is dropped; of an animation the first
//! frame counts, on a transparent black canvas, as in Pillow.

use std::io::Cursor;

use image::RgbImage;
use image_webp::WebPDecoder;

use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use super::raster;
use crate::images::error::ImageErrorKind;

const FORMAT: &str = "WebP";
/// The largest side, and the bits that it has.
const SIDE: u32 = (1 << 14) - 1;
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
    if !first_frame_fits(bytes, width, height) {
        let reason = "its frame is larger than itself".to_owned();
        return Err(ImageErrorKind::Damaged { format: FORMAT, reason });
    }
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
    // Also of metadata no more than this is copied, and it is dropped before there are pixels.
    decoder.set_memory_limit(usize::try_from(allowance.left()).unwrap_or(usize::MAX));
    let orientation = orientation(&mut decoder);
    allowance.take(channels as u64 * pixels)?;
    let mut while_decoding = allowance.clone();
    while_decoding.take(beside * blocks)?;

    let mut rgb = vec![0; channels * pixels as usize];
    decoder.read_image(&mut rgb).map_err(|e| failed(allowance, e))?;
    raster::drop_alpha(&mut rgb, channels);
    raster::upright(rgb, width, height, orientation, allowance, FORMAT)
}

/// Whether the first lossy frame has no more pixels than the image: its decoder takes memory for them first
/// and compares then.
fn first_frame_fits(bytes: &[u8], width: u32, height: u32) -> bool {
    const FRAME_HEADER: usize = 16;
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, data)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d] = head[4..] else { return true };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        match (&head[..4], data) {
            (b"VP8 ", &[_, _, _, _, _, _, w_low, w_high, h_low, h_high, ..]) => {
                let side = |low, high| u32::from(u16::from_le_bytes([low, high])) & SIDE;
                return side(w_low, w_high) <= width && side(h_low, h_high) <= height;
            }
            // A frame's chunks are inside of it.
            (b"ANMF", _) => rest = data.get(FRAME_HEADER..).unwrap_or_default(),
            _ => rest = data.get(length.saturating_add(length % 2)..).unwrap_or_default(),
        }
    }
    true
}

/// From EXIF, else from XMP.
fn orientation(decoder: &mut WebPDecoder<Cursor<&[u8]>>) -> Option<Orientation> {
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = || Orientation::of_xmp(&decoder.xmp_metadata().ok()??);
    exif.as_deref().and_then(Orientation::of_exif).or_else(xmp)
}

/// Width and height, as the header says.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    // After the file's header and a chunk's: what it is, then its sides, of 14 bits or of 24.
    let number = |at: usize, length: usize| {
        let stored = bytes.get(at..at + length)?;
        Some(stored.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_beyond_its_image_is_seen() {
        let frame = b"VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x40\0\x30\0";
        let still = [b"RIFF\0\0\0\0WEBPEXIF\x03\0\0\0abc\0", &frame[..]].concat();
        let moving = [&b"RIFF\0\0\0\0WEBPANMF\x22\0\0\0"[..], &[0; 16], frame].concat();
        for file in [still, moving] {
            assert!(first_frame_fits(&file, 64, 48));
            assert!(!first_frame_fits(&file, 63, 48));
            assert!(!first_frame_fits(&file, 64, 47));
        }
        assert!(first_frame_fits(b"RIFF", 1, 1));
    }
}
