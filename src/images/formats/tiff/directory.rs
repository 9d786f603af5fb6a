//! A TIFF's first directory: its entries, and how it says that its pixels are stored.

use std::collections::BTreeMap;

use super::error::{TRUNCATED, damaged, unsupported};
use crate::images::error::ImageErrorKind;

/// Tags of a directory that say how pixels are stored.
pub mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const ORIENTATION: u16 = 274;
    pub const SAMPLES: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTES: u16 = 279;
    pub const PLANES: u16 = 284;
    pub const FAX_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOURS: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTES: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const SUBSAMPLING: u16 = 530;
    pub const XMP: u16 = 700;
}

/// Compressions by their numbers.
pub mod compression {
    pub const NONE: u64 = 1;
    pub const GROUP_3: u64 = 3;
    pub const GROUP_4: u64 = 4;
    pub const LZW: u64 = 5;
    pub const JPEG: u64 = 7;
    pub const DEFLATE: u64 = 8;
    pub const PACK_BITS: u64 = 32773;
    pub const OLD_DEFLATE: u64 = 32946;
    pub const ZSTANDARD: u64 = 50000;
}

/// The entries of the first directory, of which values are read when they are asked for.
pub struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: BTreeMap<u16, TagValues>,
}

/// Where a tag's values are: in the file's bytes.
struct TagValues {
    kind: u16,
    count: u64,
    at: u64,
}

impl<'a> Directory<'a> {
    /// # Errors
    /// When the file ends before its directory does.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ImageErrorKind> {
        let mut this = Self { bytes, big_endian: bytes.starts_with(b"MM"), entries: BTreeMap::new() };
        // Some writers swap the version's bytes; Pillow reads such files.
        let is_big = matches!(bytes.get(2..4), Some([0, 43] | [43, 0]));
        // Widths in bytes of: a directory's count, an entry, an entry's count and value; where the first is.
        let (counted, entry, word, first) = if is_big { (8, 20, 8, 8) } else { (2, 12, 4, 4) };
        let start = this.number(first, word).ok_or(TRUNCATED)?;
        let count = this.number(start, counted).ok_or(TRUNCATED)?;
        for index in 0..count {
            let at = entry_at(start, counted, index, entry).ok_or(TRUNCATED)?;
            let (Some(tag), Some(kind), Some(count)) =
                (this.number(at, 2), this.number(at + 2, 2), this.number(at + 4, word))
            else {
                return Err(TRUNCATED);
            };
            let value = at + 4 + word;
            let inline = width_of(kind as u16).checked_mul(count).is_some_and(|width| width <= word);
            let at = if inline { value } else { this.number(value, word).ok_or(TRUNCATED)? };
            // Both fit: they were read from two bytes.
            this.entries.insert(tag as u16, TagValues { kind: kind as u16, count, at });
        }
        Ok(this)
    }

    /// Whether values are stored with the high byte first.
    pub fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    /// Whether there is such a tag.
    pub fn has(&self, tag: u16) -> bool {
        self.entries.contains_key(&tag)
    }

    /// A tag's first value, or what it is when the tag is not there.
    ///
    /// # Errors
    /// When the values are no counts.
    pub fn first(&self, tag: u16, default: u64) -> Result<u64, ImageErrorKind> {
        Ok(self.numbers(tag)?.first().copied().unwrap_or(default))
    }

    /// A tag's values; none when it is not there.
    ///
    /// # Errors
    /// When they are no counts, or stand outside of the file.
    pub fn numbers(&self, tag: u16) -> Result<Vec<u64>, ImageErrorKind> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let width = match entry.kind {
            1 | 3 | 4 | 6 | 7 | 8 | 9 | 13 | 16 | 17 | 18 => width_of(entry.kind),
            kind => return Err(damaged(format!("its tag {tag} has values of type {kind}"))),
        };
        let values = self.slice(entry, width).ok_or(TRUNCATED)?;
        Ok(values.chunks_exact(width as usize).map(|value| self.value(value)).collect())
    }

    /// A tag's bytes; none when it is not there, or outside of the file.
    pub fn bytes(&self, tag: u16) -> &'a [u8] {
        self.entries.get(&tag).and_then(|entry| self.slice(entry, width_of(entry.kind))).unwrap_or_default()
    }

    fn slice(&self, entry: &TagValues, width: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(entry.at).ok()?;
        let length = usize::try_from(entry.count.checked_mul(width)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..at.checked_add(width as usize)?).map(|value| self.value(value))
    }

    fn value(&self, bytes: &[u8]) -> u64 {
        let join = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }
}

fn entry_at(start: u64, counted: u64, index: u64, width: u64) -> Option<u64> {
    // The sums that follow stay in range.
    let at = index.checked_mul(width)?.checked_add(start)?.checked_add(counted)?;
    (at < u64::MAX / 2).then_some(at)
}

/// Bytes of a value by its type; 1 for types that are not known, whose values are never read as counts.
fn width_of(kind: u16) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}

/// What samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    Unsigned,
    Signed,
    Float,
}

/// How pixels are stored.
pub struct PixelStorage {
    pub width: u32,
    pub height: u32,
    /// Bits of every sample.
    pub bits: u16,
    pub kind: SampleKind,
    /// Samples of a pixel.
    pub samples: u16,
    /// What the samples after the colour are: 1 is alpha that the colour is multiplied with.
    pub extra: Vec<u64>,
    pub photometric: u64,
    pub compression: u64,
    pub predictor: u64,
    /// Whether each sample has its own plane.
    pub planar: bool,
    /// Whether the lowest bit of a byte comes first.
    pub low_bit_first: bool,
    /// Whether chunks are tiles; else they are strips.
    pub tiled: bool,
    pub chunk_width: u32,
    pub chunk_height: u32,
    /// Of each chunk, one plane after the other, where its bytes are.
    pub offsets: Vec<u64>,
    /// Of each chunk, how many bytes it has.
    pub lengths: Vec<u64>,
}

impl PixelStorage {
    /// # Errors
    /// When the directory is wrong, or asks for what is not read.
    pub fn new(directory: &Directory) -> Result<Self, ImageErrorKind> {
        let side = |tag| -> Result<u32, ImageErrorKind> {
            u32::try_from(directory.first(tag, 0)?).map_err(|_| damaged("it is too large".to_owned()))
        };
        let (width, height) = (side(tag::WIDTH)?, side(tag::HEIGHT)?);
        let compression = directory.first(tag::COMPRESSION, compression::NONE)?;
        if let Some(name) = unread_compression(compression) {
            return Err(unsupported(format!("{name} compression")));
        }
        if compression == compression::GROUP_3 && directory.first(tag::FAX_OPTIONS, 0)? & 1 == 1 {
            return Err(unsupported("CCITT group 3 compression in two dimensions".to_owned()));
        }
        let samples = match u16::try_from(directory.first(tag::SAMPLES, 1)?) {
            Ok(samples @ 1..=MOST_SAMPLES) => samples,
            _ => return Err(unsupported(format!("more than {MOST_SAMPLES} samples a pixel, or none"))),
        };
        let bits = same(&directory.numbers(tag::BITS)?, samples, 1)
            .and_then(|bits| u16::try_from(bits).ok())
            .ok_or_else(|| unsupported("samples of different sizes".to_owned()))?;
        let kind = match same(&directory.numbers(tag::FORMAT)?, samples, 1) {
            Some(1 | 4) => SampleKind::Unsigned,
            Some(2) => SampleKind::Signed,
            Some(3) => SampleKind::Float,
            Some(5 | 6) => return Err(unsupported("complex numbers as samples".to_owned())),
            _ => return Err(unsupported("samples of different kinds".to_owned())),
        };
        match (kind, bits) {
            (SampleKind::Unsigned, 1 | 2 | 4 | 8 | 12 | 16 | 32 | 64) => {}
            (SampleKind::Signed, 8 | 16 | 32 | 64) | (SampleKind::Float, 16 | 32 | 64) => {}
            (SampleKind::Float, _) => {
                return Err(unsupported(format!("floating-point samples of {bits} bits")));
            }
            _ => return Err(unsupported(format!("samples of {bits} bits"))),
        }
        let planar = match directory.first(tag::PLANES, 1)? {
            2 => samples > 1,
            _ => false,
        };
        let low_bit_first = directory.first(tag::FILL_ORDER, 1)? == 2 && compression != compression::JPEG;
        // The other compressions have no predictor, whatever the tag says.
        let predictor = match compression {
            compression::LZW | compression::DEFLATE | compression::OLD_DEFLATE | compression::ZSTANDARD => {
                directory.first(tag::PREDICTOR, 1)?
            }
            _ => 1,
        };
        match (predictor, kind, bits) {
            (1, ..) | (2, _, 8 | 16 | 32 | 64) | (3, SampleKind::Float, _) => {}
            _ => return Err(unsupported(format!("predictor {predictor} on samples of {bits} bits"))),
        }

        match compression {
            compression::GROUP_3 | compression::GROUP_4 if samples > 1 || bits > 1 => {
                return Err(damaged(format!("CCITT compression of {samples} samples of {bits} bits")));
            }
            compression::JPEG if bits != 8 => {
                return Err(unsupported(format!("JPEG compression of samples of {bits} bits")));
            }
            _ => {}
        }

        let tiled = directory.has(tag::TILE_OFFSETS) && !directory.has(tag::STRIP_OFFSETS);
        let (chunk_width, chunk_height) = if tiled {
            (side(tag::TILE_WIDTH)?, side(tag::TILE_HEIGHT)?)
        } else {
            let rows = directory.first(tag::ROWS_PER_STRIP, u64::from(height))?;
            (width, u32::try_from(rows).unwrap_or(height).min(height))
        };
        let (offsets, lengths) =
            if tiled { (tag::TILE_OFFSETS, tag::TILE_BYTES) } else { (tag::STRIP_OFFSETS, tag::STRIP_BYTES) };
        let mut this = Self {
            width,
            height,
            bits,
            kind,
            samples,
            extra: directory.numbers(tag::EXTRA_SAMPLES)?,
            photometric: directory.first(tag::PHOTOMETRIC, 0)?,
            compression,
            predictor,
            planar,
            low_bit_first,
            tiled,
            chunk_width,
            chunk_height,
            offsets: directory.numbers(offsets)?,
            lengths: directory.numbers(lengths)?,
        };
        if width > 0 && height > 0 {
            this.check_chunks()?;
        }
        Ok(this)
    }

    /// Makes the chunks as many as they must be.
    fn check_chunks(&mut self) -> Result<(), ImageErrorKind> {
        if self.chunk_width == 0 || self.chunk_height == 0 {
            return Err(damaged(format!("its parts have {}x{} pixels", self.chunk_width, self.chunk_height)));
        }
        let chunks = self.chunks() * u64::from(self.planes());
        if (self.offsets.len() as u64) < chunks {
            return Err(damaged(format!("it has {} parts of {chunks}", self.offsets.len())));
        }
        self.offsets.truncate(chunks as usize);
        // Decoders need no length: they stop where the pixels do. Some writers leave lengths out.
        self.lengths.resize(chunks as usize, u64::from(u32::MAX));
        Ok(())
    }

    /// Chunks side by side.
    pub fn across(&self) -> u32 {
        self.width.div_ceil(self.chunk_width)
    }

    /// Chunks of a plane.
    pub fn chunks(&self) -> u64 {
        u64::from(self.across()) * u64::from(self.height.div_ceil(self.chunk_height))
    }

    /// Planes that pixels are spread over.
    pub fn planes(&self) -> u16 {
        if self.planar { self.samples } else { 1 }
    }
}

/// More samples a pixel are nobody's photograph.
const MOST_SAMPLES: u16 = 16;

/// The one value that `values` has for `samples` samples. One value stands for all, too many are cut.
fn same(values: &[u64], samples: u16, default: u64) -> Option<u64> {
    let first = values.first().copied().unwrap_or(default);
    let samples = usize::from(samples);
    let enough = values.len() <= 1 || values.len() >= samples;
    (enough && values.iter().take(samples).all(|&value| value == first)).then_some(first)
}

/// The name of a compression that is not read.
fn unread_compression(number: u64) -> Option<String> {
    Some(match number {
        compression::NONE
        | compression::GROUP_3
        | compression::GROUP_4
        | compression::LZW
        | compression::JPEG
        | compression::DEFLATE
        | compression::PACK_BITS
        | compression::OLD_DEFLATE
        | compression::ZSTANDARD => return None,
        2 => "CCITT modified Huffman".to_owned(),
        6 => "old-style JPEG".to_owned(),
        32809 => "ThunderScan".to_owned(),
        33003 | 33005 | 34712 => "JPEG 2000".to_owned(),
        34676 | 34677 => "SGI LogLuv".to_owned(),
        34887 => "LERC".to_owned(),
        34892 => "lossy DNG".to_owned(),
        34925 => "LZMA".to_owned(),
        50001 => "WebP".to_owned(),
        50002 | 52546 => "JPEG XL".to_owned(),
        number => format!("unknown (number {number})"),
    })
}
