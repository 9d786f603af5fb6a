//! What the caller decides about reading images.

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
#[non_exhaustive]
pub struct Limits {
    /// Width times height.
    pub pixels: u64,
    /// Bytes of the file and of everything that decoding it takes at once: rows, parts and copies of the
    /// pixels, the image. Counted before they are taken; decoders' tables, well under a megabyte, are not.
    pub memory: u64,
}

impl Default for Limits {
    /// 2^28 pixels (the largest telephone cameras have 2 * 10^8) and 1 GiB.
    fn default() -> Self {
        Self { pixels: 1 << 28, memory: 1 << 30 }
    }
}
