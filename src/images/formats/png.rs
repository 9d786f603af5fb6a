//! PNG: row by row with the crate `png`, so that no second copy of the pixels is ever in memory.
//!
//! As in Pillow, the pixels end the work: a missing end chunk and what follows it don't matter, a wrong
//! checksum of pixel chunks does not either (zlib has its own), and colours beyond the palette are black.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;
use image::RgbImage;
use png::{BitDepth, ColorType, DecodeOptions, Decoder, Transformations};

use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use super::samples::{bits_at, extend_pixels, full_scale};
use crate::images::error::ImageErrorKind;

const FORMAT: &str = "PNG";
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Profiles in text are a few kilobytes; more is not looked at.
const TEXT_BYTES: u64 = 1 << 20;
/// Rows that the decoder keeps: two, and what it has inflated ahead.
const ROWS: u64 = 4;

/// Where the pixels of Adam7's passes are: first column and row, and the steps to the next.
const PASSES: [(usize, usize, usize, usize); 7] =
    [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

/// The image in `bytes`; of an animated one the default image.
pub fn read(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    check(bytes)?;
    let mut options = DecodeOptions::default();
    options.set_ignore_crc(true); // of critical chunks they are checked above, but for pixels
    options.set_ignore_adler32(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(PixelChunks::new(bytes), options);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_limits(png::Limits { bytes: usize::try_from(allowance.left()).unwrap_or(usize::MAX) });
    let header = decoder.read_header_info().map_err(|e| allowance.failure(FORMAT, &e))?;
    let (width, height) = header.size();
    let mut canvas = allowance.canvas(FORMAT, width, height, orientation(bytes))?;
    let row_bytes = header.raw_row_length() as u64;
    allowance.take(ROWS * row_bytes + CHANNELS as u64 * u64::from(width))?;
    let mut reader = decoder.read_info().map_err(|e| allowance.failure(FORMAT, &e))?;

    let info = reader.info();
    let (colour, depth, interlaced) = (info.color_type, info.bit_depth, info.interlaced);
    let palette = Palette::new(info.palette.as_deref().unwrap_or_default());
    let (width, height) = (width as usize, height as usize);
    let passes: &[_] = if interlaced { &PASSES } else { &[(0, 0, 1, 1)] };
    let mut rgb = Vec::with_capacity(CHANNELS * width);
    for &(x, y, right, down) in passes {
        let columns = width.saturating_sub(x).div_ceil(right);
        if columns == 0 {
            continue;
        }
        for y in (y..height).step_by(down) {
            let row = reader.next_row().map_err(|e| allowance.failure(FORMAT, &e))?;
            let row = row.ok_or(ImageErrorKind::Truncated { format: FORMAT })?;
            rgb.clear();
            to_rgb(row.data(), columns, colour, depth, &palette, &mut rgb);
            canvas.put(x, y, right, &rgb);
        }
    }
    Ok(canvas.finish())
}

/// Width and height, as the header says.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.read_header_info().ok().map(png::Info::size)
}

/// 256 colours, black where the file has none.
struct Palette([[u8; CHANNELS]; 256]);

impl Palette {
    fn new(stored: &[u8]) -> Self {
        let mut colours = [[0; CHANNELS]; 256];
        for (colour, stored) in colours.iter_mut().zip(stored.as_chunks::<CHANNELS>().0) {
            *colour = *stored;
        }
        Self(colours)
    }
}

/// One row's pixels, `columns` of them.
fn to_rgb(
    row: &[u8],
    columns: usize,
    colour: ColorType,
    depth: BitDepth,
    palette: &Palette,
    rgb: &mut Vec<u8>,
) {
    let bits = depth as usize;
    let channels = colour.samples();
    match (colour, depth) {
        (ColorType::Rgb, BitDepth::Eight) => rgb.extend_from_slice(row),
        (ColorType::Rgb | ColorType::Rgba, _) => {
            // Of 16 bits the first byte is the high one.
            let sample = bits / 8;
            let pixels = row.chunks_exact(channels * sample);
            extend_pixels(rgb, pixels.map(|pixel| [pixel[0], pixel[sample], pixel[2 * sample]]));
        }
        (ColorType::Indexed, BitDepth::Eight) => {
            extend_pixels(rgb, row.iter().map(|&index| palette.0[usize::from(index)]));
        }
        (ColorType::Indexed, _) => {
            let indices = (0..columns).map(|column| bits_at(row, column, bits));
            extend_pixels(rgb, indices.map(|index| palette.0[usize::from(index)]));
        }
        (ColorType::Grayscale | ColorType::GrayscaleAlpha, BitDepth::Eight | BitDepth::Sixteen) => {
            let pixels = row.chunks_exact(channels * bits / 8);
            extend_pixels(rgb, pixels.map(|pixel| [pixel[0]; CHANNELS]));
        }
        (ColorType::Grayscale | ColorType::GrayscaleAlpha, _) => {
            let scale = full_scale(bits);
            extend_pixels(rgb, (0..columns).map(|column| [scale * bits_at(row, column, bits); CHANNELS]));
        }
    }
}

/// A chunk with its checksum as it stands in the file.
struct Chunk<'a> {
    /// Name and data, which the checksum is of.
    named: &'a [u8],
    checksum: u32,
}

impl<'a> Chunk<'a> {
    fn name(&self) -> &'a [u8] {
        &self.named[..4]
    }

    fn data(&self) -> &'a [u8] {
        &self.named[4..]
    }

    fn is_whole(&self) -> bool {
        let mut sum = flate2::Crc::new();
        sum.update(self.named);
        sum.sum() == self.checksum
    }
}

/// The whole chunks up to the end chunk or the file's end.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?.checked_add(4)?;
        let named = after.get(..length)?;
        let (checksum, after) = after[length..].split_first_chunk()?;
        rest = if named.starts_with(b"IEND") { &[] } else { after };
        Some(Chunk { named, checksum: u32::from_be_bytes(*checksum) })
    })
}

/// A file without the chunks that say nothing about its first image's pixels: what they say may be wrong, and
/// much. What is left of a chunk that is cut is kept.
struct PixelChunks<'a> {
    /// What is not read yet of a chunk that is kept.
    piece: &'a [u8],
    /// The chunks after it.
    rest: &'a [u8],
}

impl<'a> PixelChunks<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (piece, rest) = bytes.split_at(bytes.len().min(SIGNATURE.len()));
        Self { piece, rest }
    }
}

impl Read for PixelChunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut next = self.fill_buf()?;
        let read = next.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for PixelChunks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty()
            && let Some((length, named)) = self.rest.split_first_chunk()
        {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            // The length itself, the name, the data, the checksum.
            let end = length.saturating_add(12).min(self.rest.len());
            let (chunk, rest) = self.rest.split_at(end);
            self.rest = rest;
            if matches!(named.first_chunk(), Some(b"IHDR" | b"PLTE" | b"IDAT" | b"IEND")) {
                self.piece = chunk;
            }
        }
        Ok(self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece = &self.piece[amount..];
    }
}

impl Seek for PixelChunks<'_> {
    /// The decoder asks for it and never goes back.
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Refuses a file whose header or palette is not what was written.
fn check(bytes: &[u8]) -> Result<(), ImageErrorKind> {
    match chunks(bytes).find(|chunk| matches!(chunk.name(), b"IHDR" | b"PLTE") && !chunk.is_whole()) {
        Some(chunk) => {
            let reason = format!("the checksum of its {} is wrong", String::from_utf8_lossy(chunk.name()));
            Err(ImageErrorKind::Damaged { format: FORMAT, reason })
        }
        None => Ok(()),
    }
}

/// From EXIF, wherever it stands, else from what ImageMagick and XMP write.
fn orientation(bytes: &[u8]) -> Option<Orientation> {
    let exif = chunks(bytes).find(|chunk| chunk.name() == b"eXIf").map(|chunk| chunk.data());
    let texts = || chunks(bytes).filter_map(|chunk| text(&chunk));
    let profile = || texts().find(|(key, _)| key == b"Raw profile type exif").map(|(_, text)| unhex(&text));
    let from_exif = match exif {
        Some(exif) => Orientation::of_exif(exif),
        None => profile().and_then(|profile| Orientation::of_exif(&profile)),
    };
    let xmp = || texts().find(|(key, _)| key == b"XML:com.adobe.xmp");
    from_exif.or_else(|| Orientation::of_xmp(&xmp()?.1))
}

/// The key and the text of a text chunk.
fn text(chunk: &Chunk) -> Option<(Vec<u8>, Vec<u8>)> {
    fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let end = bytes.iter().position(|&byte| byte == 0)?;
        Some((&bytes[..end], &bytes[end + 1..]))
    }
    if !matches!(chunk.name(), b"tEXt" | b"zTXt" | b"iTXt") {
        return None;
    }
    let (key, rest) = field(chunk.data())?;
    let (packed, text) = match chunk.name() {
        b"tEXt" => (false, rest),
        b"zTXt" => (true, rest.get(1..)?),
        // Whether it is packed, how, its language, the key translated.
        _ => (*rest.first()? != 0, field(field(rest.get(2..)?)?.1)?.1),
    };
    let mut plain = Vec::new();
    if packed {
        ZlibDecoder::new(text).take(TEXT_BYTES).read_to_end(&mut plain).ok()?;
    } else {
        plain.extend(&text[..text.len().min(TEXT_BYTES as usize)]);
    }
    Some((key.to_vec(), plain))
}

/// The bytes of a profile written as text: an empty line, its kind, its length, then hexadecimal digits.
fn unhex(text: &[u8]) -> Vec<u8> {
    let digits = text.split(|&byte| byte == b'\n').skip(3).flatten();
    let digits: Vec<u8> =
        digits.filter_map(|&digit| char::from(digit).to_digit(16).map(|d| d as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use nat_testing::picture::png_chunk as chunk;

    use super::*;
    use crate::images::limits::{Exif, Limits};

    /// Two pixels, 7 and 9, of the palette whose grey is the index.
    fn file(before: &[u8]) -> Vec<u8> {
        let palette: Vec<u8> = (0..16).flat_map(|grey| [grey; 3]).collect();
        let zlib = b"\x78\x01\x01\x03\0\xfc\xff\0\x07\x09\0\x1a\0\x11";
        let header = chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x01\x08\x03\0\0\0");
        [SIGNATURE, &header, before, &chunk(b"PLTE", &palette), &chunk(b"IDAT", zlib)].concat()
    }

    fn pixels(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut allowance = Allowance::new(Limits::default(), Exif::Apply, bytes.len());
        read(bytes, &mut allowance).map(RgbImage::into_raw).map_err(|e| e.to_string())
    }

    #[test]
    fn checksums_count_where_pixels_depend_on_them() {
        let right = vec![7, 7, 7, 9, 9, 9];
        assert_eq!(pixels(&file(b"")), Ok(right.clone()));
        let mut text = chunk(b"tEXt", b"a\0b");
        *text.last_mut().unwrap() ^= 1;
        assert_eq!(pixels(&file(&text)), Ok(right.clone()));
        for (name, says) in [(b"IHDR", "IHDR"), (b"PLTE", "PLTE")] {
            let mut bytes = file(b"");
            let at = bytes.windows(4).position(|window| window == name).unwrap();
            bytes[at + 4 + 3] ^= 1;
            let says = format!("damaged or unsupported PNG image: the checksum of its {says} is wrong");
            assert_eq!(pixels(&bytes), Err(says));
        }
        // zlib's own checksum stands before that of the chunk.
        let mut bytes = file(b"");
        let at = bytes.len() - 5;
        bytes[at] ^= 1;
        assert!(pixels(&bytes).unwrap_err().starts_with("damaged or unsupported PNG image: "));
    }
}
