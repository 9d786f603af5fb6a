//! Pixels on their way into an upright image.

use image::RgbImage;

/// An EXIF orientation, 1 to 8: which way up an image is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    /// As stored.
    pub const UPRIGHT: Self = Self(1);

    /// Values that mean nothing count as upright, as in Pillow.
    pub fn new(value: u64) -> Self {
        u8::try_from(value).ok().filter(|value| (1..=8).contains(value)).map_or(Self::UPRIGHT, Self)
    }

    /// What an EXIF block says, with or without its marker; nothing where it says nothing.
    pub fn of_exif(exif: &[u8]) -> Option<Self> {
        let mut exif = exif;
        while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
            exif = rest;
        }
        let found = image::metadata::Orientation::from_exif_chunk(exif)?;
        Some(Self(found.to_exif()))
    }

    /// What an XMP packet says, which counts where EXIF says nothing, as in Pillow.
    pub fn of_xmp(xmp: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"tiff:Orientation";
        let after = xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
        let mut values = after.filter_map(|(at, _)| {
            let value = &xmp[at + NAME.len()..];
            let digit = value.strip_prefix(b"=\"").or_else(|| value.strip_prefix(b">"))?.first()?;
            digit.is_ascii_digit().then(|| Self::new(u64::from(digit - b'0')))
        });
        values.next()
    }

    /// Whether turning it upright makes rows of columns.
    fn swaps_sides(self) -> bool {
        self.0 >= 5
    }
}

/// Red, green, blue.
pub const CHANNELS: usize = 3;

/// An image that stored rows are put into and that is upright all the time: turning it takes no second copy.
#[derive(Debug)]
pub struct Canvas {
    /// Rows of RGB, upright.
    pixels: Vec<u8>,
    /// Upright.
    width: u32,
    /// Upright.
    height: u32,
    /// Where the first stored pixel is, in pixels.
    first: isize,
    /// From a stored pixel to the next one in its row.
    right: isize,
    /// From a stored pixel to the one below it.
    down: isize,
}

impl Canvas {
    /// A black one of `width` x `height` stored pixels.
    pub fn new(width: u32, height: u32, orientation: Orientation) -> Self {
        let pixels = vec![0; CHANNELS * width as usize * height as usize];
        let (w, h) = (width as isize, height as isize);
        let (last_column, last_row) = (w - 1, h - 1);
        // An upright row has w pixels in the first four cases, h in the others.
        let (first, right, down) = match orientation.0 {
            2 => (last_column, -1, w),
            3 => (last_row * w + last_column, -1, -w),
            4 => (last_row * w, 1, -w),
            5 => (0, h, 1),
            6 => (last_row, h, -1),
            7 => (last_column * h + last_row, -h, -1),
            8 => (last_column * h, -h, 1),
            _ => (0, 1, w),
        };
        let (width, height) = if orientation.swaps_sides() { (height, width) } else { (width, height) };
        Self { pixels, width, height, first, right, down }
    }

    /// Puts `row`, RGB, into stored row `y` from stored column `x` on, every `step`-th column.
    ///
    /// # Panics
    /// When the row does not fit.
    pub fn put(&mut self, x: usize, y: usize, step: usize, row: &[u8]) {
        let step = self.right * step as isize;
        let start = self.first + self.right * x as isize + self.down * y as isize;
        if step == 1 {
            let start = CHANNELS * start as usize;
            self.pixels[start..start + row.len()].copy_from_slice(row);
            return;
        }
        let mut at = start;
        for pixel in row.chunks_exact(CHANNELS) {
            let start = CHANNELS * at as usize;
            self.pixels[start..start + CHANNELS].copy_from_slice(pixel);
            at += step;
        }
    }

    /// Makes every pixel `colour`.
    pub fn fill(&mut self, colour: [u8; CHANNELS]) {
        for pixel in self.pixels.chunks_exact_mut(CHANNELS) {
            pixel.copy_from_slice(&colour);
        }
    }

    /// The upright image.
    pub fn finish(self) -> RgbImage {
        RgbImage::from_raw(self.width, self.height, self.pixels)
            .unwrap_or_else(|| unreachable!("three bytes were made of each pixel"))
    }
}

#[cfg(test)]
mod tests {
    use image::DynamicImage;

    use super::*;

    #[test]
    fn turned_is_as_the_image_crate_turns() {
        let (width, height) = (3, 2);
        let stored = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for value in 0..10 {
            let orientation = Orientation::new(value);
            let mut canvas = Canvas::new(width, height, orientation);
            for (y, row) in stored.as_raw().chunks(3 * width as usize).enumerate() {
                canvas.put(0, y, 2, &[&row[..3], &row[6..]].concat());
                canvas.put(1, y, 1, &row[3..6]);
            }
            let mut right = DynamicImage::ImageRgb8(stored.clone());
            if let Some(orientation) = image::metadata::Orientation::from_exif(value as u8) {
                right.apply_orientation(orientation);
            }
            assert_eq!(canvas.finish(), right.into_rgb8(), "{value}");
        }
    }

    #[test]
    fn xmp_is_read_as_pillow_reads_it() {
        for (xmp, value) in [
            (&b"<x tiff:Orientation=\"6\"/>"[..], Some(6)),
            (b"<tiff:Orientation>3</tiff:Orientation>", Some(3)),
            (b"tiff:Orientation='6' tiff:Orientation=\"8\"", Some(8)),
            (b"tiff:Orientation=\"9\"", Some(1)),
            (b"tiff:Orientation", None),
            (b"", None),
        ] {
            assert_eq!(Orientation::of_xmp(xmp).map(|o| o.0), value);
        }
    }
}
