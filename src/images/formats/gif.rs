//! GIF: the first frame on its screen, as Pillow shows it.
//!
//! What the frame leaves free has the transparent colour if there is one, else the palette's first; the
//! background colour in the header is not used. A frame that is larger than the screen makes it grow. Where
//! there is no palette, values are grey; colours beyond it are black.

use std::io::Read;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};
use image::RgbImage;

use super::allowance::Allowance;
use super::canvas::CHANNELS;
use super::samples::extend_pixels;
use crate::images::error::ImageErrorKind;

const FORMAT: &str = "GIF";
/// Signature, version, screen.
const HEADER_BYTES: usize = 13;
/// Where the flags are in it, and the one that says that a palette follows; the low bits are its size.
const FLAGS: usize = 10;
const HAS_PALETTE: u8 = 0x80;
const PALETTE_OF_256: u8 = 0x07;

/// The first frame's image.
pub fn read(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    let (palette, bytes) = with_palette(bytes);
    let mut decoder =
        open(palette.chain(bytes), allowance.left()).map_err(|e| allowance.failure(FORMAT, &e))?;
    let screen = (decoder.width(), decoder.height());
    let first = decoder.next_frame_info().map_err(|e| allowance.failure(FORMAT, &e))?;
    let frame = first.ok_or_else(no_frame)?.clone();
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    let (width, height) = grown(screen, &frame);

    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let palette = frame.palette.clone().or(global).unwrap_or_default();
    let mut colours = [[0; CHANNELS]; 256];
    for (colour, stored) in colours.iter_mut().zip(palette.as_chunks().0) {
        *colour = *stored;
    }
    let colour = |index: u8| colours[usize::from(index)];
    let mut canvas = allowance.canvas(FORMAT, width, height, None)?;
    allowance.pixels(FORMAT, columns as u32, rows as u32)?;
    allowance.take((columns * rows + CHANNELS * columns) as u64)?;
    let free = colour(frame.transparent.unwrap_or(0));
    if (columns, rows) != (width as usize, height as usize) && free != [0; CHANNELS] {
        canvas.fill(free);
    }
    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices).map_err(|e| allowance.failure(FORMAT, &e))?;
    let mut rgb = Vec::with_capacity(CHANNELS * columns);
    for (row, indices) in indices.chunks_exact(columns).enumerate() {
        rgb.clear();
        extend_pixels(&mut rgb, indices.iter().map(|&index| colour(index)));
        canvas.put(left, top + row, 1, &rgb);
    }
    Ok(canvas.finish())
}

/// Width and height of the screen, as far as the first frame makes it grow.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let (palette, bytes) = with_palette(bytes);
    let mut decoder = open(palette.chain(bytes), u64::MAX).ok()?;
    let screen = (decoder.width(), decoder.height());
    let frame = decoder.next_frame_info().ok()??;
    Some(grown(screen, frame))
}

fn open<R: Read>(bytes: R, memory: u64) -> Result<Decoder<R>, gif::DecodingError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(NonZeroU64::new(memory).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    options.read_info(bytes)
}

fn grown(screen: (u16, u16), frame: &gif::Frame) -> (u32, u32) {
    let right = u32::from(frame.left) + u32::from(frame.width);
    let bottom = u32::from(frame.top) + u32::from(frame.height);
    (right.max(u32::from(screen.0)), bottom.max(u32::from(screen.1)))
}

/// The start of a file and the rest of it. A file without a palette for all frames gets a grey one: the
/// decoder refuses frames that have none.
fn with_palette(bytes: &[u8]) -> (impl Read, &[u8]) {
    let (header, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES));
    let mut start = header.to_vec();
    if let Some(flags) = start.get_mut(FLAGS).filter(|flags| **flags & HAS_PALETTE == 0) {
        *flags |= HAS_PALETTE | PALETTE_OF_256;
        if header.len() == HEADER_BYTES {
            start.extend((0..=u8::MAX).flat_map(|grey| [grey; CHANNELS]));
        }
    }
    (std::io::Cursor::new(start), rest)
}

fn no_frame() -> ImageErrorKind {
    ImageErrorKind::Damaged { format: FORMAT, reason: "it has no frame".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::limits::{Exif, Limits};

    /// One pixel on a screen of 16000 x 16000: a few bytes that ask for 768 MB.
    const SCREEN: &[u8] =
        b"GIF89a\x80\x3e\x80\x3e\x80\0\0\x01\x02\x03\x04\x05\x06,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;";

    #[test]
    fn a_screen_beyond_the_memory_is_refused() {
        let needed = 3 * 16_000 * 16_000 + 1 + 3 + SCREEN.len() as u64;
        let limits = Limits { memory: needed - 1, ..Limits::default() };
        let refused = read(SCREEN, &mut Allowance::new(limits, Exif::Apply, SCREEN.len())).unwrap_err();
        assert!(matches!(refused, ImageErrorKind::TooMuchMemory { .. }), "{refused}");
        let limits = Limits { pixels: 1_000_000, ..Limits::default() };
        let refused = read(SCREEN, &mut Allowance::new(limits, Exif::Apply, SCREEN.len())).unwrap_err();
        assert!(matches!(refused, ImageErrorKind::TooManyPixels { width: 16_000, .. }), "{refused}");
        assert_eq!(dimensions(SCREEN), Some((16_000, 16_000)));
    }
}
