//! What a file is, told by its first bytes; names are not looked at.

use image::ImageFormat;

use super::{bmp, gif, png, tiff, webp};
use crate::images::error::ImageErrorKind;
use crate::images::jpeg;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
    Tiff,
}

impl FileKind {
    /// What `bytes` are, if it is read.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if tiff::is_tiff(bytes) {
            return Some(Self::Tiff);
        }
        Some(match image::guess_format(bytes).ok()? {
            ImageFormat::Jpeg => Self::Jpeg,
            ImageFormat::Png => Self::Png,
            ImageFormat::WebP => Self::WebP,
            ImageFormat::Bmp => Self::Bmp,
            ImageFormat::Gif => Self::Gif,
            _ => return None,
        })
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
        }
    }

    /// Width and height of the stored pixels, as the header in `bytes` says.
    pub fn dimensions(self, bytes: &[u8]) -> Option<(u32, u32)> {
        match self {
            Self::Jpeg => jpeg::dimensions(bytes),
            Self::Bmp => bmp::dimensions(bytes),
            Self::Png => png::dimensions(bytes),
            Self::WebP => webp::dimensions(bytes),
            Self::Gif => gif::dimensions(bytes),
            Self::Tiff => tiff::dimensions(bytes),
        }
    }
}

/// What bytes that no decoder takes seem to be.
pub fn no_image(bytes: &[u8]) -> ImageErrorKind {
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
