//! TIFF and BigTIFF: the first image, part by part, so that no second copy of the pixels is in memory unless
//! the file has them in one part.
//!
//! Crates unpack each compression; the directory is read and what samples mean is told here, as Pillow
//! does: grey either way, palettes, RGB, CMYK, YCbCr, whatever samples follow the colour, of any size. (The crate
//! `tiff` takes no palettes and no directory with a tag missing, fails on tiles of LZW and on planes of tiles,
//! and wants the whole image in memory.)

mod colour;
mod directory;
mod jpeg;
mod unpack;

use image::RgbImage;

use self::colour::Colours;
use self::directory::{Directory, Layout, compression, tag};
use self::unpack::Unpacker;
use super::allowance::Allowance;
use super::canvas::{CHANNELS, Orientation};
use crate::images::decode::ImageErrorKind;

const FORMAT: &str = "TIFF";
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
    let layout = Layout::new(&directory)?;
    let colours = Colours::new(&layout, &directory)?;
    let turned = match directory.first(tag::ORIENTATION, 0)? {
        0 => Orientation::of_xmp(directory.bytes(tag::XMP)),
        value => Some(Orientation::new(value)),
    };
    let mut canvas = allowance.canvas(FORMAT, layout.width, layout.height, turned)?;

    let row_bytes = row_bytes(&layout);
    let part_bytes = row_bytes.saturating_mul(u64::from(layout.chunk_height) * u64::from(layout.planes()));
    // JPEG is unpacked in one piece, Zstandard keeps what it refers to; rows are copied.
    let copies = match layout.compression {
        compression::JPEG | compression::ZSTANDARD => 2,
        _ => 1,
    };
    let longest = layout.lengths.iter().max().copied().unwrap_or_default().min(bytes.len() as u64);
    let stored_copy =
        if layout.low_bit_first || layout.compression == compression::JPEG { longest } else { 0 };
    let row_copies = row_bytes + (CHANNELS as u64) * u64::from(layout.chunk_width);
    allowance.take(part_bytes.saturating_mul(copies).saturating_add(stored_copy + row_copies))?;
    let [row_bytes, part_bytes] = [row_bytes, part_bytes].map(|bytes| bytes as usize);

    let unpacker = Unpacker {
        layout: &layout,
        big_endian: directory.is_big_endian(),
        bytes,
        tables: directory.bytes(tag::JPEG_TABLES),
    };
    let mut part = vec![0; part_bytes];
    let mut rgb = Vec::with_capacity(CHANNELS * layout.chunk_width as usize);
    let chunks = layout.chunks() as usize;
    for chunk in 0..chunks {
        let x = chunk as u32 % layout.across() * layout.chunk_width;
        let y = chunk as u32 / layout.across() * layout.chunk_height;
        let columns = layout.chunk_width.min(layout.width - x) as usize;
        let rows = layout.chunk_height.min(layout.height - y) as usize;
        // The last strip has only the rows that are left, the last tiles are whole.
        let plane_bytes = row_bytes * if layout.tiled { layout.chunk_height as usize } else { rows };
        for plane in 0..usize::from(layout.planes()) {
            let out = &mut part[plane * plane_bytes..][..plane_bytes];
            unpacker.chunk(plane * chunks + chunk, out, row_bytes)?;
        }
        let unpacked = &part[..plane_bytes * usize::from(layout.planes())];
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
    let layout = Layout::new(&Directory::new(bytes).ok()?).ok()?;
    Some((layout.width, layout.height))
}

/// Bytes of a chunk's row; rows begin at whole bytes.
fn row_bytes(layout: &Layout) -> u64 {
    let samples = u64::from(layout.samples / layout.planes());
    (u64::from(layout.chunk_width) * samples * u64::from(layout.bits)).div_ceil(8)
}

const TRUNCATED: ImageErrorKind = ImageErrorKind::Truncated { format: FORMAT };

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn damaged(reason: String) -> ImageErrorKind {
    ImageErrorKind::Damaged { format: FORMAT, reason }
}

fn unsupported(feature: String) -> ImageErrorKind {
    ImageErrorKind::Unsupported { format: FORMAT, feature }
}
