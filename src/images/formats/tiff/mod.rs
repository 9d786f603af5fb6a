//! TIFF and BigTIFF: the first image, part by part, so that no second copy of the pixels is in memory unless
//! the file has them in one part.
//!
//! Crates unpack each compression; the directory is read and what samples mean is told here, as Pillow
//! does: grey either way, palettes, RGB, CMYK, YCbCr, whatever samples follow the colour, of any size. (The crate
//! `tiff` takes no palettes and no directory with a tag missing, fails on tiles of LZW and on planes of tiles,
//! and wants the whole image in memory.)

mod colour;
mod directory;
mod error;
mod jpeg;
mod unpack;

use image::RgbImage;

use self::colour::Colours;
use self::directory::{Directory, PixelStorage, compression, tag};
use self::error::{FORMAT, TRUNCATED};
use self::unpack::Unpacker;
use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use crate::images::error::ImageErrorKind;

/// What a file begins with: both byte orders, the version's bytes in order or not, TIFF and BigTIFF.
const MAGIC: [&[u8]; 6] = [b"II\x2a\0", b"MM\0\x2a", b"II\0\x2a", b"MM\x2a\0", b"II\x2b\0", b"MM\0\x2b"];

/// Whether `bytes` begin as a TIFF does.
pub fn is_tiff(bytes: &[u8]) -> bool {
    MAGIC.iter().any(|magic| bytes.starts_with(magic))
}

/// The first image.
pub fn read(bytes: &[u8], allowance: &mut Allowance) -> Result<RgbImage, ImageErrorKind> {
    let directory = Directory::new(bytes)?;
    // Values take eight bytes here, and as few as one in the file.
    let lists = [tag::STRIP_OFFSETS, tag::STRIP_BYTES, tag::TILE_OFFSETS, tag::TILE_BYTES, tag::COLOURS];
    allowance.take(lists.iter().map(|&list| 8 * directory.bytes(list).len() as u64).sum())?;
    let storage = PixelStorage::new(&directory)?;
    let colours = Colours::new(&storage, &directory)?;
    let turned = match directory.first(tag::ORIENTATION, 0)? {
        0 => Orientation::of_xmp(directory.bytes(tag::XMP)),
        value => Some(Orientation::new(value)),
    };
    let mut canvas = allowance.canvas(FORMAT, storage.width, storage.height, turned)?;

    let row_bytes = row_bytes(&storage);
    let part_bytes = row_bytes.saturating_mul(u64::from(storage.chunk_height) * u64::from(storage.planes()));
    // JPEG is unpacked in one piece, Zstandard keeps what it refers to; rows are copied.
    let copies = match storage.compression {
        compression::JPEG | compression::ZSTANDARD => 2,
        _ => 1,
    };
    let longest = storage.lengths.iter().max().copied().unwrap_or_default().min(bytes.len() as u64);
    let stored_copy =
        if storage.low_bit_first || storage.compression == compression::JPEG { longest } else { 0 };
    let row_copies = row_bytes + (CHANNELS as u64) * u64::from(storage.chunk_width);
    allowance.take(part_bytes.saturating_mul(copies).saturating_add(stored_copy + row_copies))?;
    let [row_bytes, part_bytes] = [row_bytes, part_bytes].map(|bytes| bytes as usize);

    let tables = directory.bytes(tag::JPEG_TABLES);
    if tables.is_empty() && directory.has(tag::JPEG_TABLES) {
        return Err(TRUNCATED);
    }
    let unpacker = Unpacker { storage: &storage, big_endian: directory.is_big_endian(), bytes, tables };
    let mut part = vec![0; part_bytes];
    let mut rgb = Vec::with_capacity(CHANNELS * storage.chunk_width as usize);
    let chunks = storage.chunks() as usize;
    for chunk in 0..chunks {
        let x = chunk as u32 % storage.across() * storage.chunk_width;
        let y = chunk as u32 / storage.across() * storage.chunk_height;
        let columns = storage.chunk_width.min(storage.width - x) as usize;
        let rows = storage.chunk_height.min(storage.height - y) as usize;
        // The last strip has only the rows that are left, the last tiles are whole.
        let plane_bytes = row_bytes * if storage.tiled { storage.chunk_height as usize } else { rows };
        for plane in 0..usize::from(storage.planes()) {
            let out = &mut part[plane * plane_bytes..][..plane_bytes];
            unpacker.chunk(plane * chunks + chunk, out, row_bytes)?;
        }
        let unpacked = &part[..plane_bytes * usize::from(storage.planes())];
        for row in 0..rows {
            let planes =
                unpacked.chunks_exact(plane_bytes).map(|plane| &plane[row * row_bytes..][..row_bytes]);
            rgb.clear();
            colours.row(planes, columns, &mut rgb);
            canvas.put(x as usize, y as usize + row, 1, &rgb[..CHANNELS * columns]);
        }
    }
    Ok(canvas.finish())
}

/// Width and height of the first image, upright or not.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let storage = PixelStorage::new(&Directory::new(bytes).ok()?).ok()?;
    Some((storage.width, storage.height))
}

/// Bytes of a chunk's row; rows begin at whole bytes.
fn row_bytes(storage: &PixelStorage) -> u64 {
    let samples = u64::from(storage.samples / storage.planes());
    (u64::from(storage.chunk_width) * samples * u64::from(storage.bits)).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use nat_testing::picture::tiff;

    use super::*;
    use crate::images::limits::{Exif, Limits};

    fn read_within(bytes: &[u8], memory: u64) -> Result<RgbImage, String> {
        let limits = Limits { memory, ..Limits::default() };
        read(bytes, &mut Allowance::new(limits, Exif::Apply, bytes.len())).map_err(|e| e.to_string())
    }

    const GREY_2X2: [(u16, u16); 4] = [(256, 2), (257, 2), (258, 8), (262, 1)];

    #[test]
    fn what_is_not_read_is_named() {
        assert_eq!(read_within(&tiff(&GREY_2X2, &[1, 2, 3, 4]), 1000).unwrap()[(1, 1)].0, [4; 3]);
        for (more, feature) in [
            (&[(259, 2)][..], "CCITT modified Huffman compression"),
            (&[(259, 3), (292, 1)], "CCITT group 3 compression in two dimensions"),
            (&[(259, 6)], "old-style JPEG compression"),
            (&[(259, 34712)], "JPEG 2000 compression"),
            (&[(259, 34887)], "LERC compression"),
            (&[(259, 34925)], "LZMA compression"),
            (&[(259, 999)], "unknown (number 999) compression"),
            (&[(258, 3)], "samples of 3 bits"),
            (&[(258, 24), (339, 3)], "floating-point samples of 24 bits"),
            (&[(339, 6)], "complex numbers as samples"),
            (&[(277, 100)], "more than 16 samples a pixel, or none"),
            (&[(259, 5), (258, 4), (317, 2)], "predictor 2 on samples of 4 bits"),
            (&[(259, 7), (258, 16)], "JPEG compression of samples of 16 bits"),
            (&[(258, 16), (262, 3)], "a palette for samples of 16 bits"),
            (&[(262, 4)], "a mask for pixels"),
            (&[(262, 8)], "CIE Lab colours"),
            (&[(262, 6), (277, 3), (530, 2)], "YCbCr of fewer colours than pixels, other than as JPEG"),
            (&[(262, 32803)], "a camera's raw pixels"),
            (&[(262, 77)], "photometric interpretation 77"),
        ] {
            let mut tags = GREY_2X2.to_vec();
            tags.retain(|(tag, _)| more.iter().all(|(other, _)| other != tag));
            tags.extend(more);
            let error = read_within(&tiff(&tags, &[0; 4]), 1000).unwrap_err();
            let says =
                format!("TIFF with {feature}, which is not read; save it anew without, as PNG for example");
            assert_eq!(error, says);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (more, strip, reason) in [
            (&[(322, 0)][..], &[0; 3][..], "truncated TIFF image: the file ends before its pixels do"),
            (&[(278, 1)], &[0; 4], "damaged or unsupported TIFF image: it has 1 parts of 2"),
            (&[(278, 0)], &[0; 4], "damaged or unsupported TIFF image: its parts have 2x0 pixels"),
            (&[(262, 3)], &[0; 4], "damaged or unsupported TIFF image: it has no palette"),
            (&[(262, 5)], &[0; 4], "damaged or unsupported TIFF image: its pixels have 1 samples of 4"),
            (&[(257, 0)], &[0; 4], "damaged or unsupported TIFF image: it has 2x0 pixels"),
            (&[(259, 8)], b"no zlib, and that is sure", "damaged or unsupported TIFF image: "),
            (&[(259, 7)], b"no JPEG, and that is sure", "damaged or unsupported TIFF image: Not a JPEG file"),
        ] {
            let mut tags = GREY_2X2.to_vec();
            tags.retain(|(tag, _)| more.iter().all(|(other, _)| other != tag));
            tags.extend(more);
            // Else where a strip ends is unknown, and the file may be cut.
            tags.push((tag::STRIP_BYTES, strip.len() as u16));
            let error = read_within(&tiff(&tags, strip), 1000).unwrap_err();
            assert!(error.starts_with(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn memory_is_refused_before_it_is_taken() {
        // A part, a row as RGB and the image of 30000 x 3000 grey pixels; the file has none of them.
        let tags = [(256, 30_000), (257, 3000), (258, 8), (262, 1)];
        let bytes = tiff(&tags, &[]);
        let needed = 4 * 30_000 * 3000 + 4 * 30_000 + 8 * 2 + bytes.len() as u64;
        let says = "needs more memory than the limit of 343 MiB; make it smaller first";
        assert_eq!(read_within(&bytes, needed - 1).unwrap_err(), says);
        assert!(read_within(&bytes, needed).unwrap_err().starts_with("truncated"));
    }
}
