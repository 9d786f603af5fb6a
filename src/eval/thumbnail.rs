//! Small pictures that stand in a page.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;

use crate::images::encode::{EncodeError, PictureFormat, encode};
use crate::images::resize::{Filter, Region, resize};

/// Most pixels of a thumbnail's width and height: two pictures side by side are wide.
pub const THUMBNAIL_SIZE: [u32; 2] = [640, 320];

/// `image` as a `data:image/jpeg;base64,...` address, made smaller where a side is longer than [`THUMBNAIL_SIZE`] has it.
///
/// # Errors
/// When the image has no pixels.
pub fn thumbnail(image: &RgbImage) -> Result<String, EncodeError> {
    let (width, height) = image.dimensions();
    let [wide, high] = THUMBNAIL_SIZE;
    let jpeg = if (width <= wide && height <= high) || image.is_empty() {
        encode(image, PictureFormat::Jpeg)?
    } else {
        let scale = (f64::from(wide) / f64::from(width)).min(f64::from(high) / f64::from(height));
        let side = |side: u32| ((f64::from(side) * scale).round() as usize).max(1);
        let (width, height) = (side(width), side(height));
        let whole = Region { x: 0..width, y: 0..height };
        encode(&resize(image, [width, height], Filter::Bilinear, whole), PictureFormat::Jpeg)?
    };
    Ok(format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Reader;

    fn read(address: &str) -> RgbImage {
        let encoded = address.strip_prefix("data:image/jpeg;base64,").unwrap();
        Reader::default().bytes("thumbnail", &BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn both_sides_are_bounded() {
        for ([width, height], expected) in [
            ([1, 1], (1, 1)),
            ([320, 200], (320, 200)),
            ([640, 320], (640, 320)),
            ([640, 480], (427, 320)),
            ([100, 1000], (32, 320)),
            ([5000, 1], (640, 1)),
        ] {
            let image = RgbImage::from_pixel(width, height, image::Rgb([200, 100, 50]));
            let small = read(&thumbnail(&image).unwrap());
            assert_eq!(small.dimensions(), expected, "{width}x{height}");
            let off = small.pixels().flat_map(|p| (0..3).map(|c| p.0[c].abs_diff([200, 100, 50][c]))).max();
            assert!(off.unwrap() <= 3, "{off:?}");
        }
    }

    #[test]
    fn an_image_without_pixels_has_none() {
        assert!(thumbnail(&RgbImage::new(0, 7)).is_err());
        assert!(thumbnail(&RgbImage::new(1000, 0)).is_err());
    }
}
