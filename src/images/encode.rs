//! Pictures as files: PNG, JPEG and WebP, which say what made them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ImageBuffer, PixelWithColorType, RgbImage};
use image_webp::WebPEncoder;
use mozjpeg::{ColorSpace, Compress, Marker};

use super::software::{SOFTWARE, exif};
use crate::crash::panic_message;

/// Kinds of picture files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureFormat {
    /// Exact, and large of photographs.
    #[default]
    Png,
    /// Small; lines and letters are a little soft.
    Jpeg,
    /// Exact (lossless), and smaller than PNG.
    Webp,
}

/// Why a picture can't be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The format has no room for it.
    #[error(
        "a {format} file has up to {most} pixels a side, the picture is {width}x{height}; PNG has room for it"
    )]
    #[allow(missing_docs)]
    Size { format: &'static str, most: u32, width: u32, height: u32 },
    /// Anything else.
    #[error("{format}: {reason}")]
    #[allow(missing_docs)]
    Failed { format: &'static str, reason: String },
}

impl PictureFormat {
    /// What files of this format are called by.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// As messages call it.
    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
        }
    }

    /// The longest side that the programs take which read such files: libjpeg's `JPEG_MAX_DIMENSION`, a little under what
    /// the format could hold, and libwebp's `WEBP_MAX_DIMENSION`.
    fn longest_side(self) -> u32 {
        match self {
            Self::Png => i32::MAX as u32,
            Self::Jpeg => 65_500,
            Self::Webp => 16_383,
        }
    }
}

/// The file of a picture.
///
/// # Errors
/// When the picture has no pixels, or more on a side than the format has room for.
pub fn encode(image: &RgbImage, format: PictureFormat) -> Result<Vec<u8>, EncodeError> {
    let (width, height) = image.dimensions();
    let (name, most) = (format.name(), format.longest_side());
    if width.max(height) > most {
        return Err(EncodeError::Size { format: name, most, width, height });
    }
    if image.is_empty() {
        return Err(EncodeError::Failed { format: name, reason: "the picture has no pixels".to_owned() });
    }
    match format {
        PictureFormat::Png => png(image),
        PictureFormat::Jpeg => jpeg(image).map_err(|reason| EncodeError::Failed { format: name, reason }),
        PictureFormat::Webp => {
            let mut bytes = Vec::new();
            let mut encoder = WebPEncoder::new(&mut bytes);
            encoder.set_exif_metadata(exif());
            let encoded = encoder.encode(image.as_raw(), width, height, image_webp::ColorType::Rgb8);
            encoded.map_err(|error| EncodeError::Failed { format: name, reason: error.to_string() })?;
            Ok(bytes)
        }
    }
}

/// The PNG file of an image of 8 bits, grey or RGB.
///
/// # Errors
/// When the image has no pixels.
pub fn png<P>(image: &ImageBuffer<P, Vec<u8>>) -> Result<Vec<u8>, EncodeError>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    let encoded = || {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_color(match P::CHANNEL_COUNT {
            1 => png::ColorType::Grayscale,
            2 => png::ColorType::GrayscaleAlpha,
            3 => png::ColorType::Rgb,
            _ => png::ColorType::Rgba,
        });
        encoder.set_compression(png::Compression::Fast);
        // As small as with the filter that suits each row best, in half of the time.
        encoder.set_filter(png::Filter::Paeth);
        let [keyword, text] = SOFTWARE.map(str::to_owned);
        encoder.add_text_chunk(keyword, text)?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(image.as_raw())?;
        writer.finish()?;
        Ok(bytes)
    };
    encoded().map_err(|error: png::EncodingError| EncodeError::Failed {
        format: PictureFormat::Png.name(),
        reason: error.to_string(),
    })
}

/// libjpeg's scale. At 90 photographs look untouched, and the letters of labels are clean with a colour for each pixel.
const JPEG_QUALITY: f32 = 90.0;

/// The JPEG file of an image, 4:4:4. The library reports an error by unwinding through its frames, which are compiled for
/// that; here that ends.
fn jpeg(image: &RgbImage) -> Result<Vec<u8>, String> {
    let encoded = || {
        let mut jpeg = Compress::new(ColorSpace::JCS_RGB);
        jpeg.set_size(image.width() as usize, image.height() as usize);
        // libjpeg-turbo's way: the library's own takes ten times as long and saves a tenth of the size.
        jpeg.set_fastest_defaults();
        jpeg.set_quality(JPEG_QUALITY);
        jpeg.set_chroma_sampling_pixel_sizes((1, 1), (1, 1));
        jpeg.set_optimize_coding(true);
        let mut started = jpeg.start_compress(Vec::new())?;
        started.write_marker(Marker::APP(1), &[b"Exif\0\0", &exif()[..]].concat());
        started.write_scanlines(image.as_raw())?;
        started.finish()
    };
    match catch_unwind(AssertUnwindSafe(encoded)) {
        Ok(encoded) => encoded.map_err(|error: io::Error| error.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Reader;
    use crate::images::software::says_ours;

    const ALL: [PictureFormat; 3] = [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::Webp];

    /// Soft enough for a JPEG file to keep.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(255 * x / width) as u8, (255 * y / height) as u8, 90])
        })
    }

    #[test]
    fn a_picture_comes_back_from_its_file() {
        for (width, height) in [(1, 1), (17, 33), (300, 200)] {
            let image = gradient(width, height);
            for (format, begin) in ALL.into_iter().zip([&b"\x89PNG"[..], b"\xFF\xD8\xFF", b"RIFF"]) {
                let bytes = encode(&image, format).unwrap();
                assert!(bytes.starts_with(begin), "{format:?}");
                let read = Reader::default().bytes("picture", &bytes).unwrap();
                assert_eq!(read.dimensions(), (width, height));
                let off = read.as_raw().iter().zip(image.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
                let most = if format == PictureFormat::Jpeg { 6 } else { 0 };
                assert!(off.unwrap() <= most, "{format:?} {width}x{height}: {off:?}");
            }
        }
    }

    /// Of a colour for two pixels a JPEG file makes grey and pink of these.
    #[test]
    fn thin_lines_keep_their_colour() {
        let colour = |x: u32| if x % 8 == 3 { [230, 20, 20] } else { [120; 3] };
        let image = RgbImage::from_fn(64, 64, |x, _| image::Rgb(colour(x)));
        let read = Reader::default().bytes("picture", &encode(&image, PictureFormat::Jpeg).unwrap()).unwrap();
        for (x, y, pixel) in read.enumerate_pixels() {
            let off = (0..3).map(|c| pixel.0[c].abs_diff(colour(x)[c])).max().unwrap();
            assert!(off < 40, "{x}, {y}: {pixel:?}");
        }
    }

    #[test]
    fn files_say_what_made_them() {
        const SOME: usize = 4096;
        // Larger than what is looked at.
        let noise = RgbImage::from_fn(200, 100, |x, y| {
            let value = x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503)) >> 7;
            image::Rgb([value as u8, (value >> 8) as u8, (value >> 16) as u8])
        });
        for format in ALL {
            let bytes = encode(&noise, format).unwrap();
            assert!(bytes.len() > 2 * SOME, "{format:?}: {}", bytes.len());
            let (begin, end) = (&bytes[..SOME], &bytes[bytes.len() - SOME..]);
            assert!(says_ours(begin, end), "{format:?}");
            // The words alone are nobody's mark.
            assert!(!says_ours(&[&begin[..12], b"nat-infer"].concat(), b"nat-infer"), "{format:?}");
        }
        assert!(!says_ours(&exif(), &exif()));
    }

    #[test]
    fn a_side_that_a_format_has_no_room_for_is_named() {
        for (format, width, message) in [
            (
                PictureFormat::Webp,
                16_384,
                "a WebP file has up to 16383 pixels a side, the picture is 16384x1; PNG has room for it",
            ),
            (
                PictureFormat::Jpeg,
                65_501,
                "a JPEG file has up to 65500 pixels a side, the picture is 65501x1; PNG has room for it",
            ),
        ] {
            let of = |width| encode(&RgbImage::new(width, 1), format);
            assert_eq!(of(width).unwrap_err().to_string(), message);
            let read = Reader::default().bytes("picture", &of(width - 1).unwrap()).unwrap();
            assert_eq!(read.dimensions(), (width - 1, 1));
            assert!(encode(&RgbImage::new(width, 1), PictureFormat::Png).is_ok());
        }
        for format in ALL {
            let says = encode(&RgbImage::new(0, 4), format).unwrap_err().to_string();
            assert_eq!(says, format!("{}: the picture has no pixels", format.name()));
        }
    }
}
