//! From where an image is to its pixels.

use std::io;

use image::RgbImage;

use super::source::{Location, Source};
use crate::images::{ImageError, ImageErrorKind, Reader, SharedPixels};

/// Reads the bytes behind an address, at most so many.
pub type Fetch = dyn Fn(&str, u64) -> Result<Vec<u8>, String> + Send + Sync;

impl Source {
    /// The image itself. An address is not fetched.
    ///
    /// # Errors
    /// When it is not there, or no image.
    pub fn read(&self, reader: &Reader) -> Result<RgbImage, ImageError> {
        read(self, reader, None, |_| {}).map(SourcePicture::into_image)
    }
}

/// The pixels of a source.
pub(super) enum SourcePicture {
    Decoded(RgbImage),
    Shared(SharedPixels),
}

impl SourcePicture {
    /// An image of its own.
    pub(super) fn into_image(self) -> RgbImage {
        match self {
            Self::Decoded(image) => image,
            Self::Shared(pixels) => pixels.to_image(),
        }
    }
}

/// The pixels of a source, decoded once `admit` has been told how many bytes that takes.
pub(super) fn read(
    source: &Source,
    reader: &Reader,
    fetch: Option<&Fetch>,
    admit: impl FnOnce(u64),
) -> Result<SourcePicture, ImageError> {
    let named = |kind| ImageError { name: source.name(), kind };
    let fetched;
    let bytes: &[u8] = match &source.place {
        Location::File(path) => {
            fetched = reader.load(path).map_err(|error| named(error.kind))?;
            &fetched
        }
        Location::Memory { bytes, .. } => bytes,
        Location::Pixels { pixels, .. } => return Ok(SourcePicture::Shared(pixels.clone())),
        Location::Member { archive, number } => {
            let limit = reader.limits.memory;
            let bytes = archive.read(*number, limit).map_err(|e| named(ImageErrorKind::Unreadable(e)))?;
            fetched = bytes.ok_or_else(|| named(ImageErrorKind::TooMuchMemory { limit }))?;
            &fetched
        }
        Location::Url(address) => {
            let none = || Err("addresses are not fetched here".to_owned());
            let answer = fetch.map_or_else(none, |fetch| fetch(address, reader.limits.memory));
            fetched = answer.map_err(|why| named(ImageErrorKind::Unreadable(io::Error::other(why))))?;
            &fetched
        }
    };
    admit(bytes.len() as u64 + reader.decoded_bytes(bytes));
    reader.bytes(&source.name(), bytes).map(SourcePicture::Decoded)
}
