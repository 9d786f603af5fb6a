//! What is drawn on: the image, enlarged where it is small, with place beside it.

use image::RgbImage;

use super::shapes::fill;
use crate::images::resize::Region;

/// The smallest short side of a picture: below it there is no place for letters and lines, and a map would have more to
/// show than the picture has pixels.
const SHORT_SIDE: usize = 448;

/// By which whole factor an image of this width and height is enlarged before it is drawn on.
pub fn factor([width, height]: [usize; 2]) -> usize {
    let factor = SHORT_SIDE.div_ceil(width.min(height).max(1)).clamp(1, SHORT_SIDE);
    // A strip would become endless.
    factor.min((4 * SHORT_SIDE / width.max(height).max(1)).max(1))
}

/// An image as it is drawn on: small ones enlarged by a whole factor, so that their pixels stay what they are.
pub fn canvas(image: RgbImage) -> RgbImage {
    let factor = factor([image.width() as usize, image.height() as usize]) as u32;
    if factor == 1 {
        return image;
    }
    RgbImage::from_fn(factor * image.width(), factor * image.height(), |x, y| {
        *image.get_pixel(x / factor, y / factor)
    })
}

/// An image with so many columns on its right and rows below it, of one colour.
pub fn extended(image: RgbImage, [columns, rows]: [usize; 2], colour: [u8; 3]) -> RgbImage {
    let [width, height] = [image.width() as usize, image.height() as usize];
    if [columns, rows] == [0, 0] {
        return image;
    }
    let (wide, high) = (width + columns, height + rows);
    let mut pixels = image.into_raw();
    // No more than that: of a large photograph the reserve that a vector takes by itself would be as large again.
    pixels.reserve_exact(3 * (wide * high - width * height));
    pixels.resize(3 * wide * high, 0);
    // From the last row on, so that none lies where another is moved to.
    for y in (0..height).rev() {
        pixels.copy_within(3 * width * y..3 * width * (y + 1), 3 * wide * y);
    }
    let mut extended = RgbImage::from_raw(wide as u32, high as u32, pixels).unwrap_or_default();
    fill(&mut extended, &Region { x: width..wide, y: 0..height }, colour);
    fill(&mut extended, &Region { x: 0..wide, y: height..high }, colour);
    extended
}

/// Two pictures side by side, with a white strip between them; the lower one's rest is white too.
pub fn beside(left: &RgbImage, right: &RgbImage) -> RgbImage {
    let gap = (left.width() / 64).max(1);
    let size = (left.width() + gap + right.width(), left.height().max(right.height()));
    let mut both = RgbImage::from_pixel(size.0, size.1, image::Rgb([255; 3]));
    for (picture, x) in [(left, 0), (right, left.width() + gap)] {
        image::imageops::replace(&mut both, picture, i64::from(x), 0);
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_are_enlarged_by_whole_factors() {
        for ([width, height], factor) in [
            ([448, 600], 1),
            ([447, 600], 2),
            ([40, 30], 15),
            ([28, 28], 16),
            ([1, 1], 448),
            ([4, 896], 2),
            ([9, 3000], 1),
        ] {
            let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
            let drawn = canvas(image.clone());
            assert_eq!(drawn.dimensions(), (factor * width, factor * height), "{width}x{height}");
            let last = drawn.get_pixel(factor * width - 1, factor * height - 1);
            assert_eq!(last, image.get_pixel(width - 1, height - 1));
        }
        assert_eq!(canvas(RgbImage::new(0, 0)).dimensions(), (0, 0));
    }

    #[test]
    fn what_is_added_lies_beside_the_image() {
        let image = RgbImage::from_fn(5, 4, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for (columns, rows) in [(0, 0), (3, 0), (0, 2), (2, 3)] {
            let more = extended(image.clone(), [columns, rows], [9; 3]);
            assert_eq!(more.dimensions(), (5 + columns as u32, 4 + rows as u32));
            for (x, y, pixel) in more.enumerate_pixels() {
                assert_eq!(pixel, image.get_pixel_checked(x, y).unwrap_or(&image::Rgb([9; 3])), "{x}, {y}");
            }
        }
    }

    #[test]
    fn two_pictures_stand_side_by_side() {
        let picture = |width, height, value| RgbImage::from_pixel(width, height, image::Rgb([value; 3]));
        let both = beside(&picture(128, 20, 1), &picture(30, 40, 2));
        assert_eq!(both.dimensions(), (128 + 2 + 30, 40));
        for ([x, y], value) in
            [([127, 19], 1), ([0, 20], 255), ([128, 0], 255), ([129, 39], 255), ([130, 39], 2)]
        {
            assert_eq!(both.get_pixel(x, y).0, [value; 3], "{x}, {y}");
        }
    }
}
