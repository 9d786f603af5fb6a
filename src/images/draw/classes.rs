//! The classes of all pixels.

use image::RgbImage;
use rayon::prelude::*;

use super::canvas::{canvas, factor};
use super::shapes::blend;
use super::style::Style;

/// The line between regions, and how much of it a pixel takes.
const BORDER: ([u8; 3], f32) = ([255; 3], 0.7);

/// Rows whose borders are looked for together.
const ROWS: usize = 64;

/// An image with the classes of its pixels drawn onto it, row by row, each in its colour, of which a pixel takes so much
/// as `opacity` says (0 to 1), with a thin line between regions of different classes. Small images are enlarged by a
/// whole factor.
///
/// # Panics
/// When there are not as many `classes` as pixels, or one has no colour.
pub fn classes(image: RgbImage, classes: &[u8], colours: &[[u8; 3]], opacity: f32) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    assert_eq!(classes.len(), width * height);
    if classes.is_empty() {
        return image;
    }
    let factor = factor([width, height]);
    let mut image = canvas(image);
    let (wide, high) = (factor * width, factor * height);
    let row = |y: usize| &classes[y / factor * width..][..width];
    let columns: Vec<usize> = (0..wide).map(|x| x / factor).collect();
    let line = Style::new([wide, high]).edge;
    // A border begins between a pixel and the next one: the line lies on both sides.
    let (before, behind) = ((line - 1) / 2, line / 2);
    image.par_chunks_mut(3 * wide * ROWS).enumerate().for_each(|(chunk, pixels)| {
        let first = chunk * ROWS;
        let rows = pixels.len() / (3 * wide);
        let mut borders = vec![false; rows * wide];
        for y in first.saturating_sub(behind)..(first + rows + before).min(high) {
            let (here, below) = (row(y), row((y + 1).min(high - 1)));
            let ends = |x: usize| {
                let class = here[columns[x]];
                columns.get(x + 1).is_some_and(|&next| here[next] != class) || below[columns[x]] != class
            };
            for x in (0..wide).filter(|&x| ends(x)) {
                for near_y in y.saturating_sub(before).max(first)..(y + behind + 1).min(first + rows) {
                    let columns = x.saturating_sub(before)..(x + behind + 1).min(wide);
                    borders[(near_y - first) * wide..][columns].fill(true);
                }
            }
        }
        for (i, (pixels, borders)) in
            pixels.chunks_exact_mut(3 * wide).zip(borders.chunks_exact(wide)).enumerate()
        {
            let here = row(first + i);
            let pixels = pixels.as_chunks_mut().0.iter_mut().zip(&columns).zip(borders);
            for ((pixel, &column), &is_border) in pixels {
                blend(pixel, colours[here[column] as usize], opacity);
                if is_border {
                    blend(pixel, BORDER.0, BORDER.1);
                }
            }
        }
    });
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURS: [[u8; 3]; 2] = [[200, 0, 0], [0, 0, 200]];

    /// The left half is of the first class, the right of the second.
    fn halves(width: u32, height: u32, opacity: f32) -> RgbImage {
        let labels: Vec<u8> = (0..width * height).map(|i| u8::from(i % width >= width / 2)).collect();
        classes(RgbImage::from_pixel(width, height, image::Rgb([100; 3])), &labels, &COLOURS, opacity)
    }

    #[test]
    fn classes_are_blended_with_a_border_between_them() {
        // Lines of 1120 / 560 and of 448 / 560 pixels, and of an image that is enlarged 15 times.
        for (size, drawn, line) in
            [([1120, 1120], [1120, 1120], 2), ([600, 448], [600, 448], 1), ([40, 30], [600, 450], 1)]
        {
            let image = halves(size[0], size[1], 0.5);
            assert_eq!([image.width(), image.height()], drawn);
            let light =
                |colour: [u8; 3]| colour.map(|v| (f32::from(v) + 0.7 * (255.0 - f32::from(v))).round() as u8);
            // The line begins left of the middle.
            let (middle, before) = (drawn[0] / 2, line / 2 + line % 2);
            for (x, _, pixel) in image.enumerate_pixels() {
                let blended = if x < middle { [150, 50, 50] } else { [50, 50, 150] };
                let is_line = (middle - before..middle - before + line).contains(&x);
                assert_eq!(pixel.0, if is_line { light(blended) } else { blended }, "{size:?}, {x}");
            }
        }
    }

    #[test]
    fn the_line_between_rows_is_as_wide_wherever_they_meet() {
        // Every row may be the first of those that are done together.
        for middle in [1_usize, 30, 63, 64, 65, 127, 128, 1000] {
            let size = 2240;
            let labels: Vec<u8> = (0..size * size).map(|i| u8::from(i / size >= middle)).collect();
            let grey = RgbImage::from_pixel(size as u32, size as u32, image::Rgb([100; 3]));
            let image = classes(grey, &labels, &[[100; 3]; 2], 0.5);
            let rows: Vec<u32> = (0..size as u32).filter(|&y| image.get_pixel(7, y).0 != [100; 3]).collect();
            let expected: Vec<u32> = (middle.saturating_sub(2) as u32..middle as u32 + 2).collect();
            assert_eq!(rows, expected, "{middle}");
        }
    }

    #[test]
    fn opacity_is_how_much_of_the_colour_a_pixel_takes() {
        for (opacity, expected) in [(0.0, [100; 3]), (0.25, [125, 75, 75]), (1.0, [200, 0, 0])] {
            assert_eq!(halves(500, 448, opacity).get_pixel(5, 5).0, expected);
        }
        assert_eq!(classes(RgbImage::new(0, 3), &[], &COLOURS, 0.5).dimensions(), (0, 3));
    }
}
