//! Label maps: PNG files whose values are class numbers.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Transformations};

use super::DatasetError;
use super::read::whole_file;
use crate::images::Limits;
use crate::pipeline::name_of;

/// The class numbers of an image's pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    /// What messages call it: its file.
    pub name: String,
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Row by row.
    pub values: Vec<u16>,
}

/// Bytes of memory for a pixel: as it is decoded, and its value.
const PIXEL_BYTES: u64 = 4;

/// The label map at `path`: an 8- or 16-bit, grey or palette PNG (1, 2 or 4 bits too), whose stored values count, not
/// colours. It costs no more than [`Limits::default`] allows.
///
/// # Errors
/// When it can't be read, is of another format or damaged, or would cost too much.
pub fn read_labels(path: &Path) -> Result<LabelImage, DatasetError> {
    let bytes = whole_file(path)?;
    let (size, values) = decode(&bytes, Limits::default()).map_err(|why| DatasetError::new(path, why))?;
    Ok(LabelImage { name: name_of(path), size, values })
}

fn decode(bytes: &[u8], limits: Limits) -> Result<([usize; 2], Vec<u16>), String> {
    const WANTED: &str = "a grey or palette PNG whose values are class numbers is wanted";
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(format!("no PNG; {WANTED}"));
    }
    let damaged = |error: png::DecodingError| match error {
        png::DecodingError::LimitsExceeded => "decoding it would take too much memory".to_owned(),
        error => {
            let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            format!("a damaged PNG ({reason}); copy or download it again")
        }
    };
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let left = limits.memory.saturating_sub(bytes.len() as u64);
    decoder.set_limits(png::Limits { bytes: usize::try_from(left).unwrap_or(usize::MAX) });
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = header.size();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels || PIXEL_BYTES * pixels > left {
        return Err(format!("{width}x{height} pixels are more than are read"));
    }
    let kind = match header.color_type {
        ColorType::Grayscale | ColorType::Indexed => None,
        ColorType::Rgb => Some("RGB"),
        ColorType::Rgba => Some("RGBA"),
        ColorType::GrayscaleAlpha => Some("grey and alpha"),
    };
    if let Some(kind) = kind {
        return Err(format!("a PNG of colours ({kind}); {WANTED}"));
    }
    let mut reader = decoder.read_info().map_err(damaged)?;
    let Some(packed) = reader.output_buffer_size() else {
        return Err("decoding it would take too much memory".to_owned());
    };
    let mut rows = vec![0; packed];
    let frame = reader.next_frame(&mut rows).map_err(damaged)?;
    let (width, height) = (width as usize, height as usize);
    let mut values = Vec::with_capacity(width * height);
    for row in rows.chunks_exact(frame.line_size).take(height) {
        match frame.bit_depth {
            BitDepth::Sixteen => {
                values.extend(row.as_chunks().0.iter().map(|&pixel| u16::from_be_bytes(pixel)));
            }
            BitDepth::Eight => values.extend(row.iter().map(|&pixel| u16::from(pixel))),
            packed => {
                let bits = packed as usize;
                let mask = u8::MAX >> (8 - bits);
                let value = |x: usize| row[x * bits / 8] >> (8 - bits - x * bits % 8) & mask;
                values.extend((0..width).map(|x| u16::from(value(x))));
            }
        }
    }
    Ok(([width, height], values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(color: ColorType, depth: BitDepth, size: [u32; 2], rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, size[0], size[1]);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![9; 3 << (depth as usize).min(8)]);
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        bytes
    }

    #[test]
    fn stored_values_are_read_of_every_depth() {
        for (color, depth, rows, values) in [
            (ColorType::Grayscale, BitDepth::One, &[0b1010_0000, 0b0110_0000][..], [1, 0, 1, 0, 1, 1]),
            (ColorType::Grayscale, BitDepth::Two, &[0b1101_0000, 0b0010_1100], [3, 1, 0, 0, 2, 3]),
            (ColorType::Indexed, BitDepth::Four, &[0x1f, 0x20, 0x03, 0x40], [1, 15, 2, 0, 3, 4]),
            (ColorType::Indexed, BitDepth::Eight, &[0, 1, 255, 7, 8, 9], [0, 1, 255, 7, 8, 9]),
            (ColorType::Grayscale, BitDepth::Eight, &[0, 1, 255, 7, 8, 9], [0, 1, 255, 7, 8, 9]),
            (
                ColorType::Grayscale,
                BitDepth::Sixteen,
                &[1, 0, 0, 2, 255, 255, 0, 0, 0, 1, 1, 1],
                [256, 2, 65535, 0, 1, 257],
            ),
        ] {
            let bytes = png(color, depth, [3, 2], rows);
            assert_eq!(
                decode(&bytes, Limits::default()),
                Ok(([3, 2], values.to_vec())),
                "{color:?} {depth:?}"
            );
        }
    }

    /// A grey 4-bit image of 9 x 3 pixels in seven passes.
    #[test]
    fn interlaced_files_are_read() {
        use flate2::write::ZlibEncoder;
        use nat_testing::picture::png_chunk;
        use std::io::Write;
        let value = |x: usize, y: usize| (3 * x + 5 * y) as u8 % 16;
        let mut raw = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ];
        for (x0, y0, dx, dy) in passes {
            for y in (y0..3).step_by(dy) {
                let pass: Vec<u8> = (x0..9).step_by(dx).map(|x| value(x, y)).collect();
                let packed: Vec<u8> =
                    pass.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect();
                if !pass.is_empty() {
                    raw.write_all(&[&[0], &packed[..]].concat()).unwrap();
                }
            }
        }
        let header = png_chunk(b"IHDR", b"\0\0\0\x09\0\0\0\x03\x04\0\0\0\x01");
        let data = png_chunk(b"IDAT", &raw.finish().unwrap());
        let bytes = [b"\x89PNG\r\n\x1a\n", &header[..], &data, &png_chunk(b"IEND", b"")].concat();
        let values: Vec<u16> = (0..27).map(|i| u16::from(value(i % 9, i / 9))).collect();
        assert_eq!(decode(&bytes, Limits::default()), Ok(([9, 3], values)));
    }

    #[test]
    fn what_is_no_label_map_is_refused() {
        let whole = png(ColorType::Grayscale, BitDepth::Eight, [64, 64], &[7; 64 * 64]);
        let limits = Limits { pixels: 64 * 64 - 1, ..Limits::default() };
        let rgb = png(ColorType::Rgb, BitDepth::Eight, [1, 1], &[1, 2, 3]);
        let rgba = png(ColorType::Rgba, BitDepth::Sixteen, [1, 1], &[0; 8]);
        let alpha = png(ColorType::GrayscaleAlpha, BitDepth::Eight, [1, 1], &[0; 2]);
        for (bytes, limits, says) in [
            (
                &b"\xff\xd8\xff\xe0"[..],
                Limits::default(),
                "no PNG; a grey or palette PNG whose values are class numbers is wanted",
            ),
            (b"", Limits::default(), "no PNG"),
            (&rgb, Limits::default(), "a PNG of colours (RGB); a grey or palette PNG"),
            (&rgba, Limits::default(), "a PNG of colours (RGBA)"),
            (&alpha, Limits::default(), "a PNG of colours (grey and alpha)"),
            (&whole[..whole.len() / 2], Limits::default(), "a damaged PNG ("),
            (&whole, limits, "64x64 pixels are more than are read"),
        ] {
            let error = decode(bytes, limits).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
    }
}
