//! Why there are no pixels.

use std::io;

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
    /// The file uses a feature of its format that is not read.
    #[error("{format} with {feature}, which is not read; save it anew without, as PNG for example")]
    Unsupported {
        /// The format by its usual name.
        format: &'static str,
        /// The feature by its usual name.
        feature: String,
    },
    /// The file is wrong inside, or uses a feature of its format that is not supported.
    #[error("damaged or unsupported {format} image: {reason}")]
    Damaged {
        /// The format by its usual name.
        format: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Width times height is over [`Limits::pixels`](super::Limits::pixels).
    #[error("{width}x{height} is over the limit of {limit} pixels; make it smaller first")]
    TooManyPixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// The file or its decoding is over [`Limits::memory`](super::Limits::memory).
    #[error("needs more memory than the limit of {} MiB; make it smaller first", limit >> 20)]
    TooMuchMemory {
        /// The limit in bytes.
        limit: u64,
    },
}
