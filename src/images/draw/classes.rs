//! The classes of all pixels, and a legend.

use image::RgbImage;

use super::object::DrawnObject;
use super::shapes::{blend, fill};
use super::style::Style;
use super::text::{Text, ink};
use crate::images::resize::Region;

/// How much of its class's colour a pixel takes.
const CLASS_OPACITY: f32 = 0.5;

/// Draws the classes of an image's pixels, row by row, each in its colour, and a legend: the names and
/// shares (as scores) of `largest`, upwards from the lower left corner, in at most half of the height.
///
/// # Panics
/// When there are not as many `classes` as pixels, or one has no colour.
pub fn classes(image: &mut RgbImage, classes: &[u8], colours: &[[u8; 3]], largest: &[DrawnObject]) {
    let size = [image.width() as usize, image.height() as usize];
    assert_eq!(classes.len(), size[0] * size[1]);
    for (pixel, &class) in image.as_chunks_mut().0.iter_mut().zip(classes) {
        blend(pixel, colours[class as usize], CLASS_OPACITY);
    }
    let Some(height) = Style::new(size).letters else { return };
    let texts =
        largest.iter().filter_map(|object| Some((Text::of(object, height, size[0])?, colours[object.index])));
    let texts: Vec<_> = texts.take(size[1] / 2 / height).collect();
    let width = texts.iter().map(|(text, _)| text.width).max().unwrap_or(0);
    for (line, (text, colour)) in texts.iter().enumerate() {
        let top = size[1] - (texts.len() - line) * height;
        fill(image, &Region { x: 0..width, y: top..top + height }, *colour);
        text.draw(image, [0, top], ink(*colour));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        image.get_pixel(x, y).0
    }

    #[test]
    fn classes_are_blended_above_their_legend() {
        let mut image = RgbImage::from_pixel(200, 160, image::Rgb([100; 3]));
        let labels: Vec<u8> = (0..200 * 160).map(|i| u8::from(i % 200 >= 100)).collect();
        let colours = [[200, 0, 0], [0, 0, 200]];
        let entry = |index, label, score| DrawnObject { index, label, score, corners: [0.0; 4], mask: None };
        classes(&mut image, &labels, &colours, &[entry(1, "sky", 0.5), entry(0, "wall", 0.5)]);
        assert_eq!([at(&image, 50, 60), at(&image, 150, 60)], [[150, 50, 50], [50, 50, 150]]);
        // The last line of the legend ends with the image, the first is above it.
        assert_eq!([at(&image, 0, 159), at(&image, 0, 159 - 13)], [[200, 0, 0], [0, 0, 200]]);
        assert_eq!(at(&image, 199, 159), [50, 50, 150]);
    }
}
