//! Files, bytes and standard input to 8-bit RGB, as Pillow's `convert("RGB")` makes it after `exif_transpose`.
//!
//! PNG, GIF, BMP, TIFF (BigTIFF too) and WebP give Pillow 13's bytes: grey is repeated, palettes are looked up
//! and black beyond their end, alpha is dropped without blending (and divided out first where it is
//! multiplied in), CMYK and YCbCr are converted by the same arithmetic, of animations and pages the first
//! counts, orientation comes from EXIF or XMP. JPEG is decoded by libjpeg-turbo, which Pillow and
//! OpenCV use. Colour profiles are ignored, as the references do.
//!
//! Not as in Pillow, on purpose:
//!
//! - Of 16 bits the high byte counts, of TIFF's 12 the high eight. Pillow does that with colour, and with
//!   grey saturates at 255, which makes most such images white. (Signed 16 and all 32-bit integers
//!   saturate here too.)
//! - Floating point is taken as 0 to 1; Pillow cuts it to 0 and 1.
//! - Packed big-endian TIFFs of signed or floating-point samples, and TIFFs of 16-bit colour in planes, are read
//!   as they were written; Pillow swaps their bytes, or takes half of them for pixels.
//! - Read here and refused by Pillow: TIFFs of colour in floating point, 64-bit samples and more samples than
//!   it knows, BMPs of 2 bits, with other masks or run lengths that end early, PNGs with a damaged text.
//! - Refused here and read by Pillow, by name: TIFFs of LZMA, of CCITT group 3 in two dimensions or without end
//!   marks, of CIE Lab, of YCbCr with fewer colours than pixels in other compressions than JPEG. Also PNGs
//!   and GIFs whose data end early in good order, of which Pillow leaves the rest black.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::error::{ImageError, ImageErrorKind};
use super::formats::allowance::Allowance;
use super::formats::kind::{self, FileKind};
use super::formats::{bmp, gif, png, tiff, webp};
use super::jpeg;
use super::limits::{Exif, Limits};

/// Reads images, all in the same way.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Reader {
    /// The camera's orientation.
    pub exif: Exif,
    /// What one image may cost.
    pub limits: Limits,
}

impl Reader {
    /// Reads images with this orientation, at this cost.
    pub fn new(exif: Exif, limits: Limits) -> Self {
        Self { exif, limits }
    }

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
        // Room for the whole file at once: growing would take twice as much. Pipes have no length.
        let length = file.metadata().map_or(0, |data| data.len());
        self.stream(file, length).map_err(named)
    }

    /// How many bytes the image in `bytes` has once it is decoded, as its header says; 0 where that can't be told.
    pub fn decoded_bytes(&self, bytes: &[u8]) -> u64 {
        let Some(kind) = FileKind::of(bytes) else { return 0 };
        let size = catch_unwind(|| kind.dimensions(bytes)).ok().flatten();
        size.map_or(0, |(width, height)| 3 * u64::from(width) * u64::from(height))
    }

    /// The image on standard input, which errors call `-`.
    ///
    /// # Errors
    /// Every [`ImageErrorKind`] but [`ImageErrorKind::Missing`].
    pub fn stdin(&self) -> Result<RgbImage, ImageError> {
        let bytes = self.stream(io::stdin().lock(), 0);
        bytes.and_then(|bytes| self.decode(&bytes)).map_err(|kind| ImageError { name: "-".to_owned(), kind })
    }

    /// The image in `bytes`, which errors call `name`.
    ///
    /// # Errors
    /// Every [`ImageErrorKind`] that is not about files.
    pub fn bytes(&self, name: &str, bytes: &[u8]) -> Result<RgbImage, ImageError> {
        self.decode(bytes).map_err(|kind| ImageError { name: name.to_owned(), kind })
    }

    /// All of `stream`, of which `length` bytes are expected.
    fn stream(&self, stream: impl Read, length: u64) -> Result<Vec<u8>, ImageErrorKind> {
        let limit = self.limits.memory;
        if length > limit {
            return Err(ImageErrorKind::TooMuchMemory { limit });
        }
        let mut bytes = Vec::with_capacity(length as usize);
        stream.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(ImageErrorKind::Unreadable)?;
        if bytes.len() as u64 > limit {
            return Err(ImageErrorKind::TooMuchMemory { limit });
        }
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        let kind = FileKind::of(bytes).ok_or_else(|| kind::no_image(bytes))?;
        fenced(kind, || self.decode_trusting(kind, bytes))
    }

    fn decode_trusting(&self, kind: FileKind, bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        let mut allowance = Allowance::new(self.limits, self.exif, bytes.len());
        match kind {
            FileKind::Jpeg => self.decode_jpeg(bytes),
            FileKind::Png => png::read(bytes, &mut allowance),
            FileKind::WebP => webp::read(bytes, &mut allowance),
            FileKind::Bmp => bmp::read(bytes, &mut allowance),
            FileKind::Gif => gif::read(bytes, &mut allowance),
            FileKind::Tiff => tiff::read(bytes, &mut allowance),
        }
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
}

/// Files come from anywhere and decoders are not perfect: one that panics is one bad image.
fn fenced(
    kind: FileKind,
    decode: impl FnOnce() -> Result<RgbImage, ImageErrorKind>,
) -> Result<RgbImage, ImageErrorKind> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let reason = format!("its decoder crashed ({})", crate::crash::panic_message(&*panic));
        Err(ImageErrorKind::Damaged { format: kind.name(), reason })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};

    use super::*;

    fn decoded() -> std::path::PathBuf {
        nat_testing::golden::path("pillow/decode")
    }

    fn pillows(file: &Path) -> std::path::PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".png");
        name.into()
    }

    /// The files of tests/golden/pillow/decode, without Pillow's answers.
    fn files() -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(decoded()).unwrap().map(|e| e.unwrap().path());
        let files: Vec<_> = all.filter(|p| pillows(p).exists()).collect();
        assert!(files.len() >= 180, "{}", files.len());
        files
    }

    #[test]
    fn every_format_and_mode_is_what_pillow_reads() {
        for file in files() {
            let expected = image::open(pillows(&file)).unwrap().into_rgb8();
            let decoded = Reader::default().file(&file).unwrap();
            assert_eq!(decoded.dimensions(), expected.dimensions(), "{}", file.display());
            let off = decoded.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            let name = file.file_name().unwrap().to_str().unwrap();
            let allowed = 0;
            assert!(off.unwrap() <= allowed, "{name}: off by {off:?}");
            let estimate = Reader::default().decoded_bytes(&std::fs::read(&file).unwrap());
            assert_eq!(estimate, decoded.as_raw().len() as u64, "{name}");
        }
    }

    #[test]
    fn orientation_can_be_left_as_stored() {
        let read =
            |exif, name: &str| Reader { exif, ..Reader::default() }.file(&decoded().join(name)).unwrap();
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
    fn a_cut_file_is_truncated_unless_all_pixels_are_there() {
        let mut whole = 0;
        let mut truncated = 0;
        for file in files() {
            let name = file.file_name().unwrap().to_str().unwrap();
            let bytes = std::fs::read(&file).unwrap();
            let stored = Reader { exif: Exif::Ignore, ..Reader::default() };
            let pixels = stored.bytes(name, &bytes).unwrap();
            for cut in [bytes.len() / 2, bytes.len() * 3 / 4, bytes.len() - bytes.len() / 8] {
                match stored.bytes(name, &bytes[..cut]) {
                    Ok(cut_pixels) => {
                        assert!(cut_pixels == pixels, "{name}, {cut} of {} bytes", bytes.len());
                        whole += 1;
                    }
                    Err(ImageError { kind: ImageErrorKind::Truncated { .. }, .. }) => truncated += 1,
                    Err(error) => panic!("{cut} of {} bytes: {error}", bytes.len()),
                }
            }
        }
        // What follows the pixels: further frames and pages, metadata.
        assert!(whole < truncated / 8, "{whole} {truncated}");
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
        for (bytes, format) in [(&b"\xFF\xD8\xFF"[..], "JPEG"), (b"GIF89a", "GIF")] {
            let error =
                fenced(FileKind::of(bytes).unwrap(), || panic!("index {} out of range", 8)).unwrap_err();
            let says = "its decoder crashed (index 8 out of range)";
            assert_eq!(error.to_string(), format!("damaged or unsupported {format} image: {says}"));
        }
    }

    #[test]
    fn limits_are_named() {
        let file = decoded().join("rgb.png");
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
        let error = Reader::default().file(&decoded()).unwrap_err();
        assert!(matches!(error.kind, ImageErrorKind::Unreadable(_)), "{error}");
    }
}
