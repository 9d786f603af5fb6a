//! Files, bytes and standard input to 8-bit RGB, as Pillow's `convert("RGB")` makes it.
//!
//! Grey is repeated, palettes are looked up, alpha is dropped without blending. Of 16-bit channels the
//! high byte counts; Pillow does the same with colour, and with grey saturates at 255, which makes
//! most 16-bit grey images white: that is not followed. Floating point is taken as 0 to 1. Of animations
//! the first frame counts. JPEG is decoded as libjpeg-turbo does it, which Pillow and OpenCV use. Colour
//! profiles are ignored, as the references do.

use std::error::Error;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::jpeg;

/// What is done with the orientation that a camera wrote into the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exif {
    /// Turn the pixels upright.
    #[default]
    Apply,
    /// Leave them as stored: the published accuracies were measured so.
    Ignore,
}

/// What an image may cost. Files come from anywhere, and a few kilobytes can ask for gigabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Width times height.
    pub pixels: u64,
    /// Bytes of the file, and bytes that decoding allocates for pixels as the file has them.
    pub memory: u64,
}

impl Default for Limits {
    /// 2^28 pixels (the largest telephone cameras have 2 * 10^8) and 1 GiB.
    fn default() -> Self {
        Self { pixels: 1 << 28, memory: 1 << 30 }
    }
}

/// Why there are no pixels: one line that begins with the image's name.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {kind}")]
pub struct ImageError {
    /// The path, or what the caller calls the bytes.
    pub name: String,
    /// What is wrong.
    pub kind: ImageErrorKind,
}

/// What can be wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The bytes are something else.
    #[error("not an image, it looks like {looks_like}; JPEG, PNG, WebP, BMP, GIF and TIFF are read")]
    NotAnImage {
        /// A guess at what the bytes are, with its article.
        looks_like: String,
    },
    /// A picture or a film in a format that no decoder here takes.
    #[error("{format}, a format that is not read; JPEG, PNG, WebP, BMP, GIF and TIFF are")]
    OtherFormat {
        /// The format, with its article.
        format: &'static str,
    },
    /// Bytes that stand where an image should be.
    #[error("{what}")]
    NoContent {
        /// What they are, and what to do.
        what: &'static str,
    },
    /// The file ends before its pixels do.
    #[error("truncated {format} image: the file ends before its pixels do; copy or download it again")]
    Truncated {
        /// The format by its usual name.
        format: &'static str,
    },
    /// The file is wrong inside, or uses a feature of its format that is not supported.
    #[error("damaged or unsupported {format} image: {reason}")]
    Damaged {
        /// The format by its usual name.
        format: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Width times height is over [`Limits::pixels`].
    #[error("{width}x{height} is over the limit of {limit} pixels; make it smaller first")]
    TooManyPixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// The file or its decoding is over [`Limits::memory`].
    #[error("needs more memory than the limit of {} MiB; make it smaller first", limit >> 20)]
    TooMuchMemory {
        /// The limit in bytes.
        limit: u64,
    },
}

/// Reads images, all in the same way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// The camera's orientation.
    pub exif: Exif,
    /// What one image may cost.
    pub limits: Limits,
}

impl Reader {
    /// The image in a file; its content tells the format, its name does not.
    ///
    /// # Errors
    /// Every [`ImageErrorKind`].
    pub fn file(&self, path: &Path) -> Result<RgbImage, ImageError> {
        let bytes = self.load(path)?;
        self.decode(&bytes).map_err(|kind| ImageError { name: path.display().to_string(), kind })
    }

    /// The bytes of a file, which are not looked at.
    ///
    /// # Errors
    /// When it is not there, can't be read, or has more bytes than [`Limits::memory`].
    pub fn load(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let named = |kind| ImageError { name: path.display().to_string(), kind };
        let file = File::open(path).map_err(|e| {
            named(match e.kind() {
                io::ErrorKind::NotFound => ImageErrorKind::Missing,
                _ => ImageErrorKind::Unreadable(e),
            })
        })?;
        self.stream(file).map_err(named)
    }

    /// How many bytes the image in `bytes` has once it is decoded, as its header says; 0 where that can't be told.
    pub fn decoded_bytes(&self, bytes: &[u8]) -> u64 {
        // Headers come first; some readers copy all that they are given.
        let header = &bytes[..bytes.len().min(1 << 18)];
        let size = || match image::guess_format(header).ok()? {
            ImageFormat::Jpeg => jpeg::dimensions(header),
            format => ImageReader::with_format(Cursor::new(header), format).into_dimensions().ok(),
        };
        let size = catch_unwind(size).ok().flatten();
        size.map_or(0, |(width, height)| 3 * u64::from(width) * u64::from(height))
    }

    /// The image on standard input, which errors call `-`.
    ///
    /// # Errors
    /// Every [`ImageErrorKind`] but [`ImageErrorKind::Missing`].
    pub fn stdin(&self) -> Result<RgbImage, ImageError> {
        let bytes = self.stream(io::stdin().lock());
        bytes.and_then(|bytes| self.decode(&bytes)).map_err(|kind| ImageError { name: "-".to_owned(), kind })
    }

    /// The image in `bytes`, which errors call `name`.
    ///
    /// # Errors
    /// Every [`ImageErrorKind`] that is not about files.
    pub fn bytes(&self, name: &str, bytes: &[u8]) -> Result<RgbImage, ImageError> {
        self.decode(bytes).map_err(|kind| ImageError { name: name.to_owned(), kind })
    }

    fn stream(&self, stream: impl Read) -> Result<Vec<u8>, ImageErrorKind> {
        let limit = self.limits.memory;
        let mut bytes = Vec::new();
        stream.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(ImageErrorKind::Unreadable)?;
        if bytes.len() as u64 > limit {
            return Err(ImageErrorKind::TooMuchMemory { limit });
        }
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        fenced(bytes, || self.decode_trusting(bytes))
    }

    fn decode_trusting(&self, bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        let not_an_image = || no_image(bytes);
        let format = image::guess_format(bytes).map_err(|_| not_an_image())?;
        let format_name = format_name(format).ok_or_else(not_an_image)?;
        if format == ImageFormat::Jpeg {
            return self.decode_jpeg(bytes);
        }
        // WebP's decoder calls what is missing corrupt.
        let cut = format == ImageFormat::WebP && !webp_is_whole(bytes);
        let failed = |e| match self.decoding_error(format_name, e) {
            ImageErrorKind::Damaged { format, .. } if cut => ImageErrorKind::Truncated { format },
            other => other,
        };

        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(self.limits.memory);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(failed)?;

        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > self.limits.pixels {
            return Err(ImageErrorKind::TooManyPixels { width, height, limit: self.limits.pixels });
        }
        limits.reserve(decoder.total_bytes()).map_err(failed)?;
        decoder.set_limits(limits).map_err(failed)?;
        let orientation = match self.exif {
            Exif::Apply => decoder.orientation().map_err(failed)?,
            Exif::Ignore => Orientation::NoTransforms,
        };
        let pixels = DynamicImage::from_decoder(decoder).map_err(failed)?;
        if width == 0 || height == 0 {
            let reason = format!("it has {width}x{height} pixels");
            return Err(ImageErrorKind::Damaged { format: format_name, reason });
        }
        if cut {
            return Err(ImageErrorKind::Truncated { format: format_name });
        }
        let mut pixels = DynamicImage::ImageRgb8(into_rgb8(pixels));
        pixels.apply_orientation(orientation);
        Ok(pixels.into_rgb8())
    }

    fn decode_jpeg(&self, bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        let orientation = match self.exif {
            Exif::Apply => jpeg::orientation(bytes),
            Exif::Ignore => Orientation::NoTransforms,
        };
        let copies = if orientation == Orientation::NoTransforms { 1 } else { 2 };
        let mut pixels = DynamicImage::ImageRgb8(jpeg::decode(bytes, &self.limits, copies)?);
        pixels.apply_orientation(orientation);
        Ok(pixels.into_rgb8())
    }

    fn decoding_error(&self, format: &'static str, error: image::ImageError) -> ImageErrorKind {
        if matches!(error, image::ImageError::Limits(_)) {
            return ImageErrorKind::TooMuchMemory { limit: self.limits.memory };
        }
        if ends_early(&error) {
            return ImageErrorKind::Truncated { format };
        }
        let mut innermost: &dyn Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        // One line, whatever the decoder wrote.
        let reason = innermost.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        ImageErrorKind::Damaged { format, reason }
    }
}

/// Files come from anywhere and decoders are not perfect: one that panics is one bad image.
fn fenced(
    bytes: &[u8],
    decode: impl FnOnce() -> Result<RgbImage, ImageErrorKind>,
) -> Result<RgbImage, ImageErrorKind> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let format = image::guess_format(bytes).ok().and_then(format_name).unwrap_or("unknown");
        let reason = format!("its decoder crashed ({})", crate::crash::panic_message(&*panic));
        Err(ImageErrorKind::Damaged { format, reason })
    })
}

/// The formats that are built in, by their usual names.
fn format_name(format: ImageFormat) -> Option<&'static str> {
    Some(match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Tiff => "TIFF",
        _ => return None,
    })
}

fn into_rgb8(image: DynamicImage) -> RgbImage {
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            let grey = image.into_luma16();
            let bytes = grey.as_raw().iter().flat_map(|&v| [high(v); 3]).collect();
            rgb(grey.width(), grey.height(), bytes)
        }
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
            let colour = image.into_rgb16();
            let bytes = colour.as_raw().iter().map(|&v| high(v)).collect();
            rgb(colour.width(), colour.height(), bytes)
        }
        image => image.into_rgb8(),
    }
}

fn rgb(width: u32, height: u32, bytes: Vec<u8>) -> RgbImage {
    RgbImage::from_raw(width, height, bytes)
        .unwrap_or_else(|| unreachable!("three bytes were made of each of {width}x{height} pixels"))
}

/// Whether a decoder failed because there were no more bytes. Some say so in words only.
fn ends_early(error: &(dyn Error + 'static)) -> bool {
    const WORDS: [&str; 5] =
        ["end of file", "end of data", "end of image", "unexpected eof", "exhausted data"];
    let io = match error.downcast_ref() {
        Some(image::ImageError::IoError(io)) => Some(io),
        _ => error.downcast_ref(),
    };
    let text = error.to_string().to_ascii_lowercase();
    io.is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
        || WORDS.iter().any(|words| text.contains(words))
        || error.source().is_some_and(ends_early)
}

/// Whether there are as many bytes as the RIFF header says.
fn webp_is_whole(bytes: &[u8]) -> bool {
    let size = bytes.get(4..8).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    size.is_some_and(|size| bytes.len() as u64 >= u64::from(size) + 8)
}

/// What bytes that no decoder takes seem to be.
fn no_image(bytes: &[u8]) -> ImageErrorKind {
    if let Some(what) = no_content(bytes) {
        return ImageErrorKind::NoContent { what };
    }
    match other_format(bytes) {
        Some(format) => ImageErrorKind::OtherFormat { format },
        None => ImageErrorKind::NotAnImage { looks_like: looks_like(bytes).to_owned() },
    }
}

/// What stands in an image's place, and what to do.
fn no_content(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [] => "an empty file; copy or download it again",
        _ if bytes.starts_with(b"version https://git-lfs") => {
            "a git-lfs pointer, not the image itself; run `git lfs pull`"
        }
        _ if bytes.iter().all(|&byte| byte == 0) => "a file of zeros; copy or download it again",
        _ => return None,
    })
}

/// Pictures and films that are known and not read.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let brand = if bytes.get(4..8) == Some(b"ftyp") { bytes.get(8..12) } else { None };
    Some(match brand {
        Some(b"avif" | b"avis") => "an AVIF image",
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => "a HEIC image",
        Some(b"jxl ") => "a JPEG XL image",
        Some(b"jp2 " | b"jpx ") => "a JPEG 2000 image",
        Some(b"crx ") => "a camera's raw image (CR3)",
        Some(b"qt  ") => "a video (QuickTime)",
        Some(_) => "a video (MP4)",
        None if begins(b"\xFF\x0A") || begins(b"\0\0\0\x0CJXL ") => "a JPEG XL image",
        None if begins(b"\0\0\0\x0CjP  ") || begins(b"\xFF\x4F\xFF\x51") => "a JPEG 2000 image",
        None if begins(b"8BPS") => "a Photoshop image",
        None if begins(b"gimp xcf") => "a GIMP image",
        None if begins(b"\x1A\x45\xDF\xA3") => "a video (Matroska or WebM)",
        None if begins(b"RIFF") && bytes.get(8..12) == Some(b"AVI ") => "a video (AVI)",
        None if begins(&[0, 0, 1, 0xBA]) || begins(&[0, 0, 1, 0xB3]) => "a video (MPEG)",
        None if begins(b"FLV\x01") => "a video (Flash)",
        None if start_of_text(bytes).contains("<svg") => "an SVG drawing",
        None => match image::guess_format(bytes).ok()? {
            ImageFormat::Ico => "an icon (ICO)",
            ImageFormat::Pnm => "a PNM image",
            ImageFormat::Hdr => "a Radiance HDR image",
            ImageFormat::OpenExr => "an OpenEXR image",
            ImageFormat::Dds => "a DDS texture",
            ImageFormat::Qoi => "a QOI image",
            _ => "an image of another kind",
        },
    })
}

/// What else bytes seem to be, with its article.
fn looks_like(bytes: &[u8]) -> &'static str {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let text = start_of_text(bytes);
    match bytes {
        _ if begins(b"%PDF") => "a PDF",
        _ if begins(b"PK") => "a zip archive, as checkpoints are",
        _ if begins(&[0x1F, 0x8B]) => "a gzip archive",
        _ if begins(&[0x80]) => "a pickle, as checkpoints are",
        _ if bytes.get(8) == Some(&b'{') => "a safetensors file, as checkpoints are",
        _ if begins(b"RIFF") => "sound or video (RIFF)",
        _ if text.starts_with("<!doctype html") || text.starts_with("<html") => "a web page",
        _ if std::str::from_utf8(bytes).is_ok() => "text",
        _ => "data of no known kind",
    }
}

/// The first bytes as text in lower case, whatever they are.
fn start_of_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Rgb};

    use super::*;

    fn golden() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pillow/decode")
    }

    fn pillows(file: &Path) -> std::path::PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".png");
        name.into()
    }

    /// The files of tests/golden/pillow/decode, without Pillow's answers.
    fn files() -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path());
        let files: Vec<_> = all.filter(|p| pillows(p).exists()).collect();
        assert!(files.len() >= 25, "{}", files.len());
        files
    }

    #[test]
    fn every_format_and_mode_is_what_pillow_reads() {
        for file in files() {
            let expected = image::open(pillows(&file)).unwrap().into_rgb8();
            let decoded = Reader::default().file(&file).unwrap();
            assert_eq!(decoded.dimensions(), expected.dimensions(), "{}", file.display());
            let off = decoded.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            // Lossy WebP's arithmetic is not laid down to the bit.
            let name = file.file_name().unwrap().to_str().unwrap();
            let allowed = if name == "lossy.webp" { 3 } else { 0 };
            assert!(off.unwrap() <= allowed, "{name}: off by {off:?}");
        }
    }

    #[test]
    fn orientation_can_be_left_as_stored() {
        let read =
            |exif, name: &str| Reader { exif, ..Reader::default() }.file(&golden().join(name)).unwrap();
        let upright = read(Exif::Ignore, "444.jpg");
        for orientation in 2..=8 {
            let name = format!("turned{orientation}.jpg");
            assert_eq!(read(Exif::Ignore, &name), upright, "{name}");
            assert_ne!(read(Exif::Apply, &name), upright, "{name}");
        }
    }

    #[test]
    fn of_sixteen_bits_the_high_eight_count() {
        let wide = ImageBuffer::from_fn(16, 16, |x, y| Rgb([0x00FF, 0x80FF + x as u16, 0xFF00 + y as u16]));
        let mut png = Cursor::new(Vec::new());
        DynamicImage::ImageRgb16(wide).write_to(&mut png, ImageFormat::Png).unwrap();
        let pixels = Reader::default().bytes("wide", png.get_ref()).unwrap();
        for (x, _, pixel) in pixels.enumerate_pixels() {
            assert_eq!(pixel.0, [0, if x == 0 { 0x80 } else { 0x81 }, 0xFF]);
        }
    }

    #[test]
    fn a_cut_file_is_truncated_wherever_it_is_cut() {
        for file in files() {
            let name = file.file_name().unwrap().to_str().unwrap();
            if name == "animated.gif" {
                continue; // its first frame is whole
            }
            let bytes = std::fs::read(&file).unwrap();
            for cut in [bytes.len() / 2, bytes.len() * 3 / 4, bytes.len() - bytes.len() / 8] {
                let result = Reader::default().bytes(name, &bytes[..cut]);
                let error = result.expect_err(name);
                assert!(
                    matches!(error.kind, ImageErrorKind::Truncated { .. }),
                    "{cut} of {}: {error}",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        for (bytes, says) in [
            (&b"%PDF-1.7"[..], "a PDF"),
            (b"PK\x03\x04....", "a zip archive, as checkpoints are"),
            (b"\x80\x02}q\0.", "a pickle, as checkpoints are"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":", "a safetensors file, as checkpoints are"),
            (b"\n<!DOCTYPE html><html>", "a web page"),
            (b"RIFF\x04\0\0\0WAVE", "sound or video (RIFF)"),
            (b"dear all,", "text"),
            (b"\x01\x02\xfe\xff\xc0", "data of no known kind"),
        ] {
            let error = Reader::default().bytes("x", bytes).unwrap_err();
            assert!(matches!(error.kind, ImageErrorKind::NotAnImage { .. }), "{error}");
            let says =
                format!("x: not an image, it looks like {says}; JPEG, PNG, WebP, BMP, GIF and TIFF are read");
            assert_eq!(error.to_string(), says);
        }
        for (bytes, says) in [
            (&b"\0\0\0\x1cftypheic"[..], "a HEIC image"),
            (b"\0\0\0\x1cftyphevc", "a HEIC image"),
            (b"\0\0\0\x1cftypavif", "an AVIF image"),
            (b"\0\0\0\x20ftypisom", "a video (MP4)"),
            (b"\0\0\0\x14ftypqt  ", "a video (QuickTime)"),
            (b"\x1a\x45\xdf\xa3\x01", "a video (Matroska or WebM)"),
            (b"RIFF\x04\0\0\0AVI LIST", "a video (AVI)"),
            (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
            (b"8BPS\0\x01", "a Photoshop image"),
            (b"\0\0\x01\0\x01\0\x10\x10", "an icon (ICO)"),
            (b"<?xml version=\"1.0\"?><svg>", "an SVG drawing"),
            (b"P6 1 1 255 \0\0\0", "a PNM image"),
        ] {
            let error = Reader::default().bytes("a.x", bytes).unwrap_err();
            assert!(matches!(error.kind, ImageErrorKind::OtherFormat { .. }), "{error}");
            let says =
                format!("a.x: {says}, a format that is not read; JPEG, PNG, WebP, BMP, GIF and TIFF are");
            assert_eq!(error.to_string(), says);
        }
        for (bytes, says) in [
            (&b""[..], "x: an empty file; copy or download it again"),
            (&[0; 70], "x: a file of zeros; copy or download it again"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
                "x: a git-lfs pointer, not the image itself; run `git lfs pull`",
            ),
        ] {
            assert_eq!(Reader::default().bytes("x", bytes).unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn damage_is_an_error_in_one_line() {
        for file in files() {
            let name = file.file_name().unwrap().to_str().unwrap();
            let bytes = std::fs::read(&file).unwrap();
            for flipped in (0..bytes.len()).step_by(7) {
                let mut bytes = bytes.clone();
                bytes[flipped] ^= 0x55;
                if let Err(error) = Reader::default().bytes(name, &bytes) {
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_decoder_that_panics_is_one_bad_image() {
        for (bytes, format) in [(&b"\xFF\xD8\xFF"[..], "JPEG"), (b"GIF89a", "GIF"), (b"", "unknown")] {
            let error = fenced(bytes, || panic!("index {} out of range", 8)).unwrap_err();
            let says = "its decoder crashed (index 8 out of range)";
            assert_eq!(error.to_string(), format!("damaged or unsupported {format} image: {says}"));
        }
    }

    #[test]
    fn limits_are_named() {
        let file = golden().join("rgb.png");
        let read = |pixels, memory| {
            let limits = Limits { pixels, memory };
            Reader { limits, ..Reader::default() }.file(&file).map_err(|e| e.kind.to_string())
        };
        assert!(read(27 * 19, 1 << 20).is_ok());
        let says = "27x19 is over the limit of 512 pixels; make it smaller first";
        assert_eq!(read(27 * 19 - 1, 1 << 20).unwrap_err(), says);
        for memory in [100, 1500] {
            assert!(
                read(27 * 19, memory).unwrap_err().starts_with("needs more memory than the limit"),
                "{memory}"
            );
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        // A PNG header that promises 60000 x 60000 pixels, with its checksum.
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0\x0f\xb0\xe2\x15\0\0\0\0IDAT";
        let error = Reader::default().bytes("bomb.png", png).unwrap_err();
        let says = "bomb.png: 60000x60000 is over the limit of 268435456 pixels; make it smaller first";
        assert_eq!(error.to_string(), says);
    }

    #[test]
    fn files_that_are_not_there_are_missing() {
        let error = Reader::default().file(Path::new("no/such.png")).unwrap_err();
        assert_eq!(error.to_string(), "no/such.png: no such file");
        let error = Reader::default().file(&golden()).unwrap_err();
        assert!(matches!(error.kind, ImageErrorKind::Unreadable(_)), "{error}");
    }
}
