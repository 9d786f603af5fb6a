//! Images whose bytes may belong to somebody else: nothing that is only looked at has to be copied.

use std::fmt;
use std::sync::Arc;

use image::{ImageBuffer, Rgb, RgbImage};

/// An 8-bit RGB image over bytes of any owner, row by row: an [`RgbImage`], or a [`RgbView`].
pub type RgbPixels<P> = ImageBuffer<Rgb<u8>, P>;

/// An 8-bit RGB image over bytes that are borrowed.
pub type RgbView<'a> = RgbPixels<&'a [u8]>;

/// An 8-bit RGB image in memory that others hold too, as an array of Python's.
#[derive(Clone)]
pub struct SharedPixels {
    size: [u32; 2],
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl SharedPixels {
    /// An image of `size` (width, height) over three bytes for each pixel, row by row, none of which changes while it is
    /// used. `None` where there are not as many, or no pixel.
    pub fn new(size: [u32; 2], bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Option<Self> {
        let wanted = size.iter().try_fold(3, |n: usize, &side| n.checked_mul(side as usize))?;
        (wanted > 0 && bytes.as_ref().len() == wanted).then(|| Self { size, bytes: Arc::new(bytes) })
    }

    /// The image.
    pub fn view(&self) -> RgbView<'_> {
        let [width, height] = self.size;
        RgbView::from_raw(width, height, (*self.bytes).as_ref())
            .unwrap_or_else(|| unreachable!("the bytes were counted"))
    }

    /// A copy of the image.
    pub fn to_image(&self) -> RgbImage {
        let [width, height] = self.size;
        RgbImage::from_raw(width, height, (*self.bytes).as_ref().to_vec())
            .unwrap_or_else(|| unreachable!("the bytes were counted"))
    }
}

impl PartialEq for SharedPixels {
    /// Whether both are the same memory.
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && Arc::ptr_eq(&self.bytes, &other.bytes)
    }
}

impl Eq for SharedPixels {}

impl fmt::Debug for SharedPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [width, height] = self.size;
        write!(f, "SharedPixels({width}x{height})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_shared_and_counted() {
        let bytes: Vec<u8> = (0..18).collect();
        let pixels = SharedPixels::new([3, 2], bytes.clone()).unwrap();
        assert_eq!(pixels.view().get_pixel(2, 1).0, [15, 16, 17]);
        assert_eq!(pixels.to_image().into_raw(), bytes);
        assert_eq!(pixels, pixels.clone());
        assert_ne!(pixels, SharedPixels::new([3, 2], bytes).unwrap());
        for (size, bytes) in [([3, 2], 17), ([3, 2], 19), ([0, 2], 0), ([u32::MAX; 2], 3)] {
            assert!(SharedPixels::new(size, vec![0; bytes]).is_none(), "{size:?}");
        }
    }
}
