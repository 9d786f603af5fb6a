//! BMP of Windows and OS/2, as Pillow reads it: palettes, 16 to 32 bits with or without masks, run lengths.
//!
//! Values of fewer than 8 bits are spread by `value * 255 / largest`, rounded down. Colours beyond the palette
//! are black; pixels that run lengths leave out have the palette's first. Alpha is dropped.

use image::RgbImage;

use super::allowance::Allowance;
use super::canvas::CHANNELS;
use super::samples::{bits_at, extend_pixels};
use crate::images::error::ImageErrorKind;

const FORMAT: &str = "BMP";
/// Before the header there are the signature, the file's size and where the pixels are.
const FILE_HEADER: usize = 14;
const OS2_HEADER: usize = 12;
const INFO_HEADER: usize = 40;
/// A palette of more colours is nobody's.
const MOST_COLOURS: usize = 1 << 16;

const RUNS_OF_8: u32 = 1;
const RUNS_OF_4: u32 = 2;
const MASKS: u32 = 3;

/// The image in `bytes`.
pub fn read(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    let header = Header::new(bytes)?;
    let mut canvas = allowance.canvas(FORMAT, header.width, header.height, None)?;
    let (width, height) = (header.width as usize, header.height as usize);
    allowance.take((CHANNELS * width) as u64)?;
    let bits = usize::from(header.bits);
    let indices;
    let (rows, row_bytes, bits) = if matches!(header.compression, RUNS_OF_8 | RUNS_OF_4) {
        allowance.take((width * height) as u64)?;
        indices = unrun(bytes, &header)?;
        (&indices[..], width, 8)
    } else {
        (bytes.get(header.pixels..).unwrap_or_default(), (width * bits).div_ceil(32) * 4, bits)
    };
    let mut rgb = Vec::with_capacity(CHANNELS * width);
    for row in 0..height {
        // The padding of the last row may be missing.
        let stored = rows.get(row * row_bytes..).unwrap_or_default();
        if stored.len() < (width * bits).div_ceil(8) {
            return Err(TRUNCATED);
        }
        rgb.clear();
        header.to_rgb(stored, width, bits, &mut rgb);
        canvas.put(0, if header.top_down { row } else { height - 1 - row }, 1, &rgb);
    }
    Ok(canvas.finish())
}

/// Width and height, as the header says.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    Header::new(bytes).ok().map(|header| (header.width, header.height))
}

struct Header {
    width: u32,
    height: u32,
    /// Whether the first stored row is the highest.
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Black where the file has no colour.
    palette: [[u8; CHANNELS]; 256],
    masks: [ChannelBits; CHANNELS],
    /// Where the pixels are in the file.
    pixels: usize,
}

impl Header {
    fn new(bytes: &[u8]) -> Result<Self, ImageErrorKind> {
        let number = |at: usize| -> Result<u32, ImageErrorKind> {
            let four = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(TRUNCATED)?;
            Ok(u32::from_le_bytes(*four))
        };
        let short = |at: usize| -> Result<u16, ImageErrorKind> {
            let two = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(TRUNCATED)?;
            Ok(u16::from_le_bytes(*two))
        };
        let size = number(FILE_HEADER)? as usize;
        let end = FILE_HEADER + size;
        // Pixels from a value's place in the header on.
        let at = |offset: usize| FILE_HEADER + offset;
        let (width, height, bits, compression, colours, padded) = match size {
            OS2_HEADER => {
                let [width, height] = [short(at(4))?, short(at(6))?].map(i32::from);
                (width, height, short(at(10))?, 0, 0, CHANNELS)
            }
            INFO_HEADER | 52 | 56 | 64 | 108 | 124 => {
                let [width, height] = [number(at(4))? as i32, number(at(8))? as i32];
                (width, height, short(at(14))?, number(at(16))?, number(at(32))? as usize, CHANNELS + 1)
            }
            size => return Err(unsupported(format!("a header of {size} bytes"))),
        };
        match (compression, bits) {
            (0, 1 | 2 | 4 | 8 | 16 | 24 | 32) | (RUNS_OF_8, 8) | (RUNS_OF_4, 4) | (MASKS, 16 | 24 | 32) => {}
            (0 | MASKS, bits) => return Err(unsupported(format!("pixels of {bits} bits"))),
            (RUNS_OF_8 | RUNS_OF_4, bits) => {
                return Err(damaged(format!("run lengths for pixels of {bits} bits")));
            }
            (4, _) => return Err(unsupported("JPEG compression".to_owned())),
            (5, _) => return Err(unsupported("PNG compression".to_owned())),
            (number, _) => return Err(unsupported(format!("compression number {number}"))),
        }
        // Masks are a part of the longer headers and follow the short one.
        let masks_at = at(INFO_HEADER);
        let stored = match compression {
            MASKS => [number(masks_at)?, number(masks_at + 4)?, number(masks_at + 8)?],
            _ => [0; CHANNELS],
        };
        let masks = match (stored, bits) {
            ([0, 0, 0], 16) => [0x7C00, 0x3E0, 0x1F],
            ([0, 0, 0], _) | (_, 24) => [0xFF_0000, 0xFF00, 0xFF],
            (stored, _) => stored,
        };
        let masks = masks.map(ChannelBits::new);
        let palette_at = if compression == MASKS && size == INFO_HEADER { masks_at + 12 } else { end };

        let colours = match (bits, colours) {
            (1..=8, 0) => 1 << bits,
            (1..=8, colours) if colours <= MOST_COLOURS => colours,
            (1..=8, colours) => return Err(damaged(format!("it has a palette of {colours} colours"))),
            _ => 0,
        };
        let stored = bytes.get(palette_at..).unwrap_or_default();
        let stored = &stored[..stored.len().min(colours * padded)];
        let mut palette = [[0; CHANNELS]; 256];
        for (colour, bgr) in palette.iter_mut().zip(stored.chunks_exact(padded)) {
            *colour = [bgr[2], bgr[1], bgr[0]];
        }
        let palette_end = palette_at + colours * padded;
        // Some writers forget the palette, or the place of the pixels.
        let pixels = match number(10)? as usize {
            0 => palette_end,
            pixels if pixels == end && bits <= 8 => palette_end,
            pixels => pixels,
        };
        let top_down = height < 0;
        let width = u32::try_from(width).map_err(|_| damaged(format!("it is {width} pixels wide")))?;
        let height = height.unsigned_abs();
        Ok(Self { width, height, top_down, bits, compression, palette, masks, pixels })
    }

    /// One stored row's pixels, `width` of them of `bits` bits each.
    fn to_rgb(&self, row: &[u8], width: usize, bits: usize, rgb: &mut Vec<u8>) {
        match bits {
            24 => extend_pixels(rgb, row.as_chunks().0[..width].iter().map(|&[b, g, r]| [r, g, b])),
            16 => {
                let pixels = row.as_chunks().0[..width].iter().map(|&pixel| u16::from_le_bytes(pixel).into());
                extend_pixels(rgb, pixels.map(|pixel| self.masks.each_ref().map(|mask| mask.level(pixel))));
            }
            32 => {
                let pixels = row.as_chunks().0[..width].iter().map(|&pixel| u32::from_le_bytes(pixel));
                extend_pixels(rgb, pixels.map(|pixel| self.masks.each_ref().map(|mask| mask.level(pixel))));
            }
            8 => extend_pixels(rgb, row[..width].iter().map(|&index| self.palette[usize::from(index)])),
            bits => {
                let indices = (0..width).map(|column| bits_at(row, column, bits));
                extend_pixels(rgb, indices.map(|index| self.palette[usize::from(index)]));
            }
        }
    }
}

/// The bits of a pixel that are one channel.
struct ChannelBits {
    shift: u32,
    largest: u32,
}

impl ChannelBits {
    fn new(mask: u32) -> Self {
        let shift = mask.trailing_zeros() % u32::BITS;
        Self { shift, largest: mask >> shift }
    }

    /// A pixel's channel as 0 to 255.
    fn level(&self, pixel: u32) -> u8 {
        let value = u64::from(pixel >> self.shift & self.largest);
        // A mask of no bits is a channel that is dark.
        (value * 255).checked_div(self.largest.into()).unwrap_or(0) as u8
    }
}

/// The palette indices of run lengths, row by row as they are stored.
fn unrun(bytes: &[u8], header: &Header) -> Result<Vec<u8>, ImageErrorKind> {
    const END_OF_ROW: u8 = 0;
    const END_OF_IMAGE: u8 = 1;
    const SKIP: u8 = 2;
    let (width, halves) = (header.width as usize, header.compression == RUNS_OF_4);
    let mut out = vec![0; width * header.height as usize];
    let (mut at, mut column, mut from) = (0, 0, header.pixels);
    let next = |from: &mut usize| -> Result<u8, ImageErrorKind> {
        *from += 1;
        bytes.get(*from - 1).copied().ok_or(TRUNCATED)
    };
    while at < out.len() {
        let (count, value) = (next(&mut from)?, next(&mut from)?);
        match (count, value) {
            (0, END_OF_ROW) => {
                at = at.next_multiple_of(width);
                column = 0;
            }
            (0, END_OF_IMAGE) => break,
            (0, SKIP) => {
                let (right, up) = (usize::from(next(&mut from)?), usize::from(next(&mut from)?));
                at = out.len().min(at + right + up * width);
                column = at % width;
            }
            (0, literal) => {
                let used = usize::from(literal).min(out.len() - at);
                let stored = if halves { used.div_ceil(2) } else { used };
                let values = bytes.get(from..from + stored).ok_or(TRUNCATED)?;
                for (index, out) in out[at..at + used].iter_mut().enumerate() {
                    *out = if halves { bits_at(values, index, 4) } else { values[index] };
                }
                at += used;
                column += usize::from(literal);
                from = (from + stored).next_multiple_of(2);
            }
            (count, value) => {
                // A run ends with its row.
                let used = usize::from(count).min(width.saturating_sub(column)).min(out.len() - at);
                for (index, out) in out[at..at + used].iter_mut().enumerate() {
                    *out = if halves { bits_at(&[value], index % 2, 4) } else { value };
                }
                at += used;
                column += used;
            }
        }
    }
    Ok(out)
}

const TRUNCATED: ImageErrorKind = ImageErrorKind::Truncated { format: FORMAT };

fn damaged(reason: String) -> ImageErrorKind {
    ImageErrorKind::Damaged { format: FORMAT, reason }
}

fn unsupported(feature: String) -> ImageErrorKind {
    ImageErrorKind::Unsupported { format: FORMAT, feature }
}
