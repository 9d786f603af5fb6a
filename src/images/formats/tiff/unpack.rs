//! The bytes of a TIFF's strips and tiles, unpacked: compression, byte order, predictor.

use std::io::{self, Read};

use fax::Color;
use fax::decoder::{DecodeError, DecodeStatus, Group3Decoder, Group4Decoder, pels};
use flate2::read::ZlibDecoder;
use ruzstd::decoding::StreamingDecoder;
use weezl::{BitOrder, LzwStatus};

use super::directory::{PixelStorage, compression};
use super::error::{TRUNCATED, damaged, one_line, unsupported};
use super::jpeg;
use crate::images::error::ImageErrorKind;

/// Unpacks the chunks of one file.
pub struct Unpacker<'a> {
    pub storage: &'a PixelStorage,
    pub big_endian: bool,
    /// The file.
    pub bytes: &'a [u8],
    /// What JPEG chunks have in common.
    pub tables: &'a [u8],
}

impl Unpacker<'_> {
    /// Fills `out` with the rows of chunk `index`, values in this machine's byte order.
    ///
    /// # Errors
    /// When the chunk ends early or is damaged.
    pub fn chunk(&self, index: usize, out: &mut [u8], row_bytes: usize) -> Result<(), ImageErrorKind> {
        let (stored, is_whole) = self.stored(index, out.len());
        self.unpack(stored, out, row_bytes).map_err(|error| match error {
            // Codes that end somewhere are mostly wrong codes.
            ImageErrorKind::Damaged { .. } if !is_whole => TRUNCATED,
            error => error,
        })
    }

    fn unpack(&self, stored: &[u8], out: &mut [u8], row_bytes: usize) -> Result<(), ImageErrorKind> {
        let reversed: Vec<u8>;
        let stored = if self.storage.low_bit_first {
            reversed = stored.iter().map(|byte| byte.reverse_bits()).collect();
            &reversed
        } else {
            stored
        };
        match self.storage.compression {
            compression::JPEG => return jpeg::unpack(self.storage, self.tables, stored, out),
            compression::NONE => fill(stored, out)?,
            compression::PACK_BITS => unpack_bits(stored, out)?,
            compression::LZW => unlzw(stored, out)?,
            compression::DEFLATE | compression::OLD_DEFLATE => fill(ZlibDecoder::new(stored), out)?,
            compression::ZSTANDARD => {
                fill(StreamingDecoder::new(stored).map_err(|e| damaged(one_line(&e.to_string())))?, out)?;
            }
            compression::GROUP_3 => unfax_3(stored, self.storage.chunk_width, out, row_bytes)?,
            _ => unfax_4(stored, self.storage.chunk_width, out, row_bytes)?,
        }
        let width = usize::from(self.storage.bits / 8);
        let samples = usize::from(self.storage.samples / self.storage.planes());
        match self.storage.predictor {
            3 => out.chunks_exact_mut(row_bytes).for_each(|row| undo_float_predictor(row, width, samples)),
            predictor => {
                if self.big_endian != cfg!(target_endian = "big") && width > 1 {
                    out.chunks_exact_mut(width).for_each(<[u8]>::reverse);
                }
                if predictor == 2 {
                    out.chunks_exact_mut(row_bytes).for_each(|row| undo_predictor(row, width, samples));
                }
            }
        }
        Ok(())
    }

    /// The chunk as it stands in the file, as far as the file goes, and whether it goes that far.
    fn stored(&self, index: usize, unpacked: usize) -> (&[u8], bool) {
        let start = usize::try_from(self.storage.offsets[index]).unwrap_or(usize::MAX);
        let rest = self.bytes.get(start..).unwrap_or_default();
        // What is not packed is as long as its pixels, whatever the file says.
        let length = if self.storage.compression == compression::NONE {
            unpacked
        } else {
            usize::try_from(self.storage.lengths[index]).unwrap_or(usize::MAX)
        };
        (&rest[..length.min(rest.len())], length <= rest.len())
    }
}

fn fill(mut from: impl Read, out: &mut [u8]) -> Result<(), ImageErrorKind> {
    from.read_exact(out).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => TRUNCATED,
        _ => damaged(one_line(&e.to_string())),
    })
}

/// Apple's run lengths: a count less one and as many bytes, or one less a count and the byte to repeat.
fn unpack_bits(stored: &[u8], out: &mut [u8]) -> Result<(), ImageErrorKind> {
    const NOTHING: i8 = i8::MIN;
    let (mut stored, mut at) = (stored, 0);
    while at < out.len() {
        let (&count, rest) = stored.split_first().ok_or(TRUNCATED)?;
        let count = count as i8;
        let room = out.len() - at;
        stored = if count >= 0 {
            let copied = usize::from(count.unsigned_abs()) + 1;
            let (values, rest) = rest.split_at_checked(copied).ok_or(TRUNCATED)?;
            let used = copied.min(room);
            out[at..at + used].copy_from_slice(&values[..used]);
            at += used;
            rest
        } else if count == NOTHING {
            rest
        } else {
            let (&value, rest) = rest.split_first().ok_or(TRUNCATED)?;
            let used = (usize::from(count.unsigned_abs()) + 1).min(room);
            out[at..at + used].fill(value);
            at += used;
            rest
        };
    }
    Ok(())
}

fn unlzw(stored: &[u8], out: &mut [u8]) -> Result<(), ImageErrorKind> {
    // Before 1995 bits were stored the other way round, which shows in the first code.
    if let [0, second, ..] = stored
        && second & 1 == 1
    {
        return Err(unsupported("LZW compression of the old style".to_owned()));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let (mut stored, mut at) = (stored, 0);
    while at < out.len() {
        let done = decoder.decode_bytes(stored, &mut out[at..]);
        stored = &stored[done.consumed_in..];
        at += done.consumed_out;
        match done.status {
            Ok(LzwStatus::Ok) if done.consumed_in + done.consumed_out > 0 => {}
            Ok(_) if at < out.len() => return Err(TRUNCATED),
            Ok(_) => {}
            Err(e) => return Err(damaged(e.to_string())),
        }
    }
    Ok(())
}

/// Rows of black and white, 0 is white.
fn unfax_4(stored: &[u8], width: u32, out: &mut [u8], row_bytes: usize) -> Result<(), ImageErrorKind> {
    let width = fax_width(width)?;
    let bytes = stored.iter().map(|&byte| Ok::<_, io::Error>(byte));
    let mut decoder = Group4Decoder::new(bytes, width).map_err(|_| TRUNCATED)?;
    for row in out.chunks_exact_mut(row_bytes) {
        match decoder.advance() {
            Ok(DecodeStatus::Incomplete) => draw(decoder.transition(), width, row),
            Ok(DecodeStatus::End) | Err(DecodeError::Reader(_)) => return Err(TRUNCATED),
            Err(_) => return Err(wrong_codes()),
        }
    }
    Ok(())
}

/// The same of rows that don't refer to each other.
fn unfax_3(stored: &[u8], width: u32, out: &mut [u8], row_bytes: usize) -> Result<(), ImageErrorKind> {
    let width = fax_width(width)?;
    let bytes = stored.iter().map(|&byte| Ok::<_, io::Error>(byte));
    let mut decoder = Group3Decoder::new(bytes).map_err(|_| wrong_codes())?;
    let rows = out.chunks_exact_mut(row_bytes);
    let last = rows.len().saturating_sub(1);
    for (index, row) in rows.enumerate() {
        // After the last row the mark that ends it may be missing.
        let status = decoder.advance();
        if status.is_err() && index < last {
            return Err(wrong_codes());
        }
        draw(decoder.transitions(), width, row);
    }
    Ok(())
}

fn fax_width(width: u32) -> Result<u16, ImageErrorKind> {
    u16::try_from(width).map_err(|_| unsupported(format!("CCITT compression of {width} columns")))
}

fn wrong_codes() -> ImageErrorKind {
    damaged("its CCITT codes are wrong or end early".to_owned())
}

/// Sets the bits of black pixels, of which `changes` tells where they begin and end.
fn draw(changes: &[u16], width: u16, row: &mut [u8]) {
    row.fill(0);
    for (column, colour) in pels(changes, width).enumerate() {
        if colour == Color::Black {
            row[column / 8] |= 0x80 >> (column % 8);
        }
    }
}

/// Each value is stored as its difference to the one before it; `width` bytes each, in this machine's order.
fn undo_predictor(row: &mut [u8], width: usize, samples: usize) {
    macro_rules! sums {
        ($number:ty) => {{
            const WIDTH: usize = size_of::<$number>();
            let values = row.as_chunks_mut::<WIDTH>().0;
            for index in samples..values.len() {
                let before = <$number>::from_ne_bytes(values[index - samples]);
                let value = <$number>::from_ne_bytes(values[index]).wrapping_add(before);
                values[index] = value.to_ne_bytes();
            }
        }};
    }
    match width {
        1 => sums!(u8),
        2 => sums!(u16),
        4 => sums!(u32),
        _ => sums!(u64),
    }
}

/// Bytes are differences; all highest bytes come first, then the next ones.
fn undo_float_predictor(row: &mut [u8], width: usize, samples: usize) {
    for index in samples..row.len() {
        row[index] = row[index].wrapping_add(row[index - samples]);
    }
    let planes = row.to_vec();
    let count = planes.len() / width;
    for (index, value) in row.chunks_exact_mut(width).enumerate() {
        for (byte, to) in value.iter_mut().enumerate() {
            let rank = if cfg!(target_endian = "big") { byte } else { width - 1 - byte };
            *to = planes[rank * count + index];
        }
    }
}
