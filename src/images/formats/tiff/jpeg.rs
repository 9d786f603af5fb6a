//! JPEG inside of TIFF: each strip or tile is a JPEG file, but for tables that they have in common.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};

use super::colour::YCBCR;
use super::directory::PixelStorage;
use super::error::{TRUNCATED, damaged, one_line, unsupported};
use crate::images::error::ImageErrorKind;

/// Bytes of a marker.
const MARKER: usize = 2;
/// A part may have more rows than are used: whole blocks of the largest sampling.
const BLOCK_ROWS: usize = 32;

/// Fills `out` with the samples of a part of `storage`: red, green and blue where they are stored as YCbCr, else
/// as they are stored. `tables` is what the parts have in common.
///
/// # Errors
/// When the part is damaged, or not of the size that the directory says.
pub fn unpack(
    storage: &PixelStorage,
    tables: &[u8],
    stored: &[u8],
    out: &mut [u8],
) -> Result<(), ImageErrorKind> {
    if stored.len() <= MARKER {
        return Err(TRUNCATED);
    }
    // Where the tables end and the part begins there are markers in the way.
    let jpeg = match tables.len().checked_sub(MARKER) {
        Some(end) if end > MARKER => &[&tables[..end], &stored[MARKER..]].concat(),
        _ => stored,
    };
    // libjpeg's errors arrive as panics that say nothing by themselves.
    match catch_unwind(AssertUnwindSafe(|| decode(storage, jpeg, out))) {
        Ok(result) => result,
        Err(panic) => Err(fatal(&*panic)),
    }
}

fn decode(storage: &PixelStorage, jpeg: &[u8], out: &mut [u8]) -> Result<(), ImageErrorKind> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WouldBlock => TRUNCATED,
        _ => damaged(one_line(&e.to_string())),
    };
    let decoder = Decompress::new_mem(jpeg).map_err(failed)?;
    let samples = usize::from(storage.samples / storage.planes());
    let (width, height) = decoder.size();
    let row_bytes = storage.chunk_width as usize * samples;
    let rows = out.len() / row_bytes;
    if width != storage.chunk_width as usize
        || height < rows
        || height > storage.chunk_height as usize + BLOCK_ROWS
        || decoder.components().len() != samples
    {
        let components = decoder.components().len();
        return Err(damaged(format!(
            "a part of it is JPEG of {width}x{height} pixels of {components} samples"
        )));
    }
    let stored_as = decoder.color_space();
    if stored_as == ColorSpace::JCS_UNKNOWN {
        return Err(unsupported(format!("JPEG compression of {samples} samples")));
    }
    let to_rgb = storage.photometric == YCBCR && stored_as == ColorSpace::JCS_YCbCr && samples > 1;
    let space = if to_rgb { ColorSpace::JCS_RGB } else { stored_as };
    let mut decoder = decoder.to_colorspace(space).map_err(failed)?;
    let pixels: Vec<u8> = decoder.read_scanlines().map_err(failed)?;
    out.copy_from_slice(pixels.get(..out.len()).ok_or(TRUNCATED)?);
    Ok(())
}

fn fatal(panic: &(dyn Any + Send)) -> ImageErrorKind {
    let message = crate::crash::panic_message(panic);
    let reason = one_line(message.trim_start_matches("libjpeg fatal error: "));
    if reason.contains("rithmetic") {
        unsupported("JPEG with arithmetic coding".to_owned())
    } else {
        damaged(reason)
    }
}
