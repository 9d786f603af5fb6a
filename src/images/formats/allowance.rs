//! What an image may still cost while it is decoded, counted before it is taken.

use std::error::Error;
use std::io;

use super::canvas::{CHANNELS, Canvas, Orientation};
use crate::images::error::ImageErrorKind;
use crate::images::limits::{Exif, Limits};

/// What an image may still cost while it is decoded.
#[derive(Clone, Debug)]
pub struct Allowance {
    limits: Limits,
    left: u64,
    exif: Exif,
}

impl Allowance {
    /// All of `limits` but for the file itself, which is in memory already.
    pub fn new(limits: Limits, exif: Exif, file_bytes: usize) -> Self {
        Self { limits, left: limits.memory.saturating_sub(file_bytes as u64), exif }
    }

    /// Counts `bytes` that are about to be taken.
    ///
    /// # Errors
    /// [`ImageErrorKind::TooMuchMemory`] when there are not as many left.
    pub fn take(&mut self, bytes: u64) -> Result<(), ImageErrorKind> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(ImageErrorKind::TooMuchMemory { limit: self.limits.memory })?;
        Ok(())
    }

    /// Bytes that can still be taken.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Refuses an image that has too many pixels, or none.
    ///
    /// # Errors
    /// [`ImageErrorKind::TooManyPixels`], or [`ImageErrorKind::Damaged`] where a side is 0.
    pub fn pixels(&self, format: &'static str, width: u32, height: u32) -> Result<u64, ImageErrorKind> {
        if width == 0 || height == 0 {
            let reason = format!("it has {width}x{height} pixels");
            return Err(ImageErrorKind::Damaged { format, reason });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.limits.pixels {
            return Err(ImageErrorKind::TooManyPixels { width, height, limit: self.limits.pixels });
        }
        Ok(pixels)
    }

    /// `orientation`, unless it is to be ignored.
    pub fn orientation(&self, orientation: Option<Orientation>) -> Orientation {
        match self.exif {
            Exif::Apply => orientation.unwrap_or(Orientation::UPRIGHT),
            Exif::Ignore => Orientation::UPRIGHT,
        }
    }

    /// A black image of `width` x `height` stored pixels, counted before it is made.
    ///
    /// # Errors
    /// [`Self::pixels`]'s and [`Self::take`]'s.
    pub fn canvas(
        &mut self,
        format: &'static str,
        width: u32,
        height: u32,
        orientation: Option<Orientation>,
    ) -> Result<Canvas, ImageErrorKind> {
        let bytes = CHANNELS as u64 * self.pixels(format, width, height)?;
        self.take(bytes)?;
        Ok(Canvas::new(width, height, self.orientation(orientation)))
    }
}

impl Allowance {
    /// A decoder's error as ours.
    pub fn failure(&self, format: &'static str, error: &(dyn Error + 'static)) -> ImageErrorKind {
        if is_limit(error) {
            return ImageErrorKind::TooMuchMemory { limit: self.limits.memory };
        }
        if ends_early(error) {
            return ImageErrorKind::Truncated { format };
        }
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        // One line, whatever the decoder wrote.
        let reason = innermost.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        ImageErrorKind::Damaged { format, reason }
    }
}

/// Whether a decoder stopped at the memory that it was given.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(image::ImageError::Limits(_)))
        || matches!(error.downcast_ref(), Some(png::DecodingError::LimitsExceeded))
        || matches!(
            error.downcast_ref(),
            Some(gif::DecodingError::MemoryLimit | gif::DecodingError::OutOfMemory)
        )
}

/// Whether a decoder failed because there were no more bytes. Some say so in words only.
fn ends_early(error: &(dyn Error + 'static)) -> bool {
    const WORDS: [&str; 5] =
        ["end of file", "end of data", "end of image", "unexpected eof", "exhausted data"];
    let io: Option<&io::Error> = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(image::ImageError::IoError(io)), _) => Some(io),
        (_, Some(png::DecodingError::IoError(io))) => Some(io),
        _ => error.downcast_ref(),
    };
    let text = error.to_string().to_ascii_lowercase();
    io.is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
        || WORDS.iter().any(|words| text.contains(words))
        || error.source().is_some_and(ends_early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_before_it_is_taken() {
        let limits = Limits { pixels: 100, memory: 330 };
        let mut allowance = Allowance::new(limits, Exif::Apply, 20);
        assert!(matches!(allowance.canvas("x", 101, 1, None), Err(ImageErrorKind::TooManyPixels { .. })));
        assert!(allowance.canvas("x", 50, 2, None).is_ok());
        assert_eq!(allowance.left(), 10);
        assert!(matches!(
            allowance.canvas("x", 2, 2, None),
            Err(ImageErrorKind::TooMuchMemory { limit: 330 })
        ));
        assert!(matches!(allowance.canvas("x", 0, 2, None), Err(ImageErrorKind::Damaged { .. })));
    }
}
