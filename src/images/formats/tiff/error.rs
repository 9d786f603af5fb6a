//! What can be wrong with a TIFF.

use crate::images::error::ImageErrorKind;

/// How this format is called in errors.
pub const FORMAT: &str = "TIFF";

/// The file ends too early.
pub const TRUNCATED: ImageErrorKind = ImageErrorKind::Truncated { format: FORMAT };

/// Words of a library on one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The file is wrong inside.
pub fn damaged(reason: String) -> ImageErrorKind {
    ImageErrorKind::Damaged { format: FORMAT, reason }
}

/// The file uses what is not read.
pub fn unsupported(feature: String) -> ImageErrorKind {
    ImageErrorKind::Unsupported { format: FORMAT, feature }
}
