//! Found objects: masks, boxes, labels.

use image::RgbImage;
use rayon::prelude::*;

use super::colours::colour;
use super::labels::labels;
use super::object::DrawnObject;
use super::shapes::{blend, frame, pixels};
use super::style::Style;
use crate::images::mask::Mask;
use crate::images::resize::Region;

/// Draws objects onto their image: all masks, then the masks' edges, the boxes, the labels. Among each the
/// best object lies on top, of equal scores the first.
///
/// A label stands above its box, or inside or below where that is taken or outside the image. One for
/// which better labels leave no place is left out. Labels cover a quarter of the picture at most;
/// pictures too small for letters that can be read get none.
pub fn objects(image: &mut RgbImage, objects: &[DrawnObject]) {
    let size = [image.width() as usize, image.height() as usize];
    if size.contains(&0) {
        return;
    }
    let style = Style::new(size);
    let mut objects: Vec<&DrawnObject> = objects.iter().collect();
    // From worst to best. `max` returns the other one of NaN.
    objects.sort_by(|a, b| b.score.max(0.0).total_cmp(&a.score.max(0.0)));
    objects.reverse();

    masks(image, &objects, &style);
    for object in &objects {
        if let Some(area) = pixels(object.corners, size) {
            frame(image, &area, style.line, colour(object.index));
        }
    }
    labels(image, &objects, &style);
}

/// How much of a mask's colour its pixels take.
const MASK_OPACITY: f32 = 0.4;

/// A mask in its colour, and where in the image it has pixels.
struct Stencil<'a> {
    colour: [u8; 3],
    mask: &'a Mask,
    extent: Region,
}

impl<'a> Stencil<'a> {
    fn new(object: &DrawnObject<'a>, [width, height]: [usize; 2]) -> Option<Self> {
        let mask = object.mask?;
        let [x, y] = [0, 1].map(|axis| {
            let (start, end) = (mask.origin[axis], mask.origin[axis] + mask.size[axis]);
            start.min([width, height][axis])..end.min([width, height][axis])
        });
        let extent = Region { x, y };
        (!extent.x.is_empty() && !extent.y.is_empty()).then(|| Self {
            colour: colour(object.index),
            mask,
            extent,
        })
    }

    /// The pixels of row `y` of the image from the extent's first column on.
    fn row(&self, y: usize) -> &[bool] {
        &self.mask.pixels[(y - self.mask.origin[1]) * self.mask.size[0]..][..self.extent.x.len()]
    }

    fn contains(&self, x: usize, y: usize) -> bool {
        self.extent.y.contains(&y) && self.extent.x.contains(&x) && self.row(y)[x - self.extent.x.start]
    }

    /// The pixels of the mask with a side to what is not of it; the image's border is not of it.
    fn rim(&self) -> Vec<[usize; 2]> {
        let mut rim = Vec::new();
        for y in self.extent.y.clone() {
            for x in self.extent.x.clone().filter(|&x| self.contains(x, y)) {
                // -1 wraps and is outside too.
                let sides = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
                if !sides.iter().all(|&(x, y)| self.contains(x, y)) {
                    rim.push([x, y]);
                }
            }
        }
        rim
    }
}

/// Draws the masks, then their edges.
fn masks(image: &mut RgbImage, objects: &[&DrawnObject], style: &Style) {
    let size = [image.width() as usize, image.height() as usize];
    let width = size[0];
    let masks: Vec<Stencil> = objects.iter().filter_map(|object| Stencil::new(object, size)).collect();
    image.par_chunks_exact_mut(3 * width).enumerate().for_each(|(y, row)| {
        for mask in masks.iter().filter(|mask| mask.extent.y.contains(&y)) {
            let x = mask.extent.x.clone();
            let pixels = row[3 * x.start..3 * x.end].as_chunks_mut().0;
            for (pixel, _) in pixels.iter_mut().zip(mask.row(y)).filter(|(_, inside)| **inside) {
                blend(pixel, mask.colour, MASK_OPACITY);
            }
        }
    });

    let rims: Vec<Vec<[usize; 2]>> = masks.par_iter().map(Stencil::rim).collect();
    // All that is nearer to the rim than the edge is wide, and of the mask: an edge never makes it larger.
    let reach = style.edge - 1;
    for (mask, rim) in masks.iter().zip(rims) {
        for [x, y] in rim {
            for near_y in y.saturating_sub(reach)..=y + reach {
                for near_x in x.saturating_sub(reach)..=x + reach {
                    let far = near_x.abs_diff(x).pow(2) + near_y.abs_diff(y).pow(2) >= style.edge.pow(2);
                    if !far && mask.contains(near_x, near_y) {
                        image.put_pixel(near_x as u32, near_y as u32, image::Rgb(mask.colour));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::draw::text::ink;

    const GREY: [u8; 3] = [100; 3];

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, image::Rgb(GREY))
    }

    fn object(corners: [f32; 4]) -> DrawnObject<'static> {
        DrawnObject { index: 3, label: "cat", score: 0.5, corners, mask: None }
    }

    fn at(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        image.get_pixel(x, y).0
    }

    #[test]
    fn nothing_panics_on_any_picture_and_box() {
        let numbers = [f32::NAN, f32::NEG_INFINITY, -7.0, 0.0, 0.5, 30.0, 99.5, 1e9, f32::INFINITY];
        let mut all = Vec::new();
        for (i, &left) in numbers.iter().enumerate() {
            for &right in &numbers {
                let label = ["", "person", "a\nb\u{4e2d}\u{1f600}", "W".repeat(2000).leak()][i % 4];
                let corners = [left, right, right, left];
                all.push(DrawnObject { index: i, label, score: left, corners, mask: None });
                all.push(DrawnObject { corners: [left, left, right, right], ..all[all.len() - 1] });
            }
        }
        for size in [[0, 0], [0, 5], [1, 1], [1, 3000], [3000, 1], [32, 32], [100, 80], [90, 700], [700, 90]]
        {
            let pixels = (0..size[0] * size[1]).map(|i| i % 7 < 4).collect();
            let mask = Mask { origin: [size[0] / 3, 0], size, pixels };
            let masked = all.iter().map(|&object| DrawnObject { mask: Some(&mask), ..object });
            let mut image = grey(size[0] as u32, size[1] as u32);
            objects(&mut image, &masked.collect::<Vec<_>>());
            objects(&mut image, &all);
        }
    }

    #[test]
    fn a_box_is_its_lines() {
        let mut image = grey(60, 50);
        objects(&mut image, &[object([10.0, 20.0, 40.0, 45.0])]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (10..40).contains(&x) && (20..45).contains(&y);
            let inner = (11..39).contains(&x) && (21..44).contains(&y);
            assert_eq!(pixel.0, if inside && !inner { colour(3) } else { GREY }, "{x}, {y}");
        }
        // 840 / 280 pixels, unless the box is small.
        let mut image = grey(840, 840);
        objects(&mut image, &[object([100.0, 300.0, 200.0, 400.0]), object([500.0, 500.0, 513.0, 540.0])]);
        let line = |x: u32, y| (x..x + 9).take_while(|&x| at(&image, x, y) == colour(3)).count();
        assert_eq!([line(100, 350), line(500, 520)], [3, 2]);
    }

    #[test]
    fn a_mask_is_blended_and_its_edge_is_not() {
        // A disc on a picture large enough for an edge of three pixels.
        let (size, radius) = (1440, 200);
        let far = |x: u32, y: u32| (x.abs_diff(700).pow(2) + y.abs_diff(600).pow(2)).isqrt();
        let mask: Vec<bool> = (0..size * size).map(|i| far(i % size, i / size) < radius).collect();
        let mut image = grey(size, size);
        let mask = Mask { origin: [0, 0], size: [size as usize; 2], pixels: mask };
        objects(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        let blended = colour(3).map(|v| (100.0 + 0.4 * (f32::from(v) - 100.0)).round() as u8);
        for (x, y, pixel) in image.enumerate_pixels() {
            match far(x, y) {
                d if d >= radius => assert_eq!(pixel.0, GREY, "{x}, {y}"),
                d if d >= radius - 2 => assert_eq!(pixel.0, colour(3), "{x}, {y}"),
                d if d < radius - 4 => assert_eq!(pixel.0, blended, "{x}, {y}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_mask_has_an_edge_at_the_border_of_the_image() {
        let mut image = grey(8, 6);
        // More than the image.
        let mask = Mask { origin: [0, 0], size: [9, 7], pixels: vec![true; 63] };
        objects(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let edge = x == 0 || y == 0 || x == 7 || y == 5;
            assert_eq!(pixel.0 == colour(3), edge, "{x}, {y}");
        }
    }

    #[test]
    fn a_mask_of_a_part_lies_where_it_belongs() {
        let mask = Mask { origin: [3, 1], size: [4, 2], pixels: vec![true; 8] };
        let mut image = grey(8, 6);
        objects(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (3..7).contains(&x) && (1..3).contains(&y);
            assert_eq!(pixel.0 == colour(3), inside, "{x}, {y}");
        }
    }

    #[test]
    fn the_best_lies_on_top() {
        let of = |index, score| DrawnObject { index, score, ..object([5.0, 5.0, 15.0, 15.0]) };
        for (scores, best) in
            [([0.9, 0.3], 0), ([0.3, 0.9], 1), ([0.5, 0.5], 0), ([f32::NAN, 0.1], 1), ([0.0, f32::NAN], 0)]
        {
            let mut image = grey(20, 20);
            objects(&mut image, &[of(0, scores[0]), of(1, scores[1])]);
            assert_eq!(at(&image, 5, 5), colour(best), "{scores:?}");
        }
    }

    #[test]
    fn labels_are_written_in_their_colour() {
        let mut image = grey(400, 300);
        objects(&mut image, &[DrawnObject { index: 1, ..object([50.0, 60.0, 350.0, 260.0]) }]);
        let label =
            || image.enumerate_pixels().filter(|(x, y, _)| (50..90).contains(x) && (47..60).contains(y));
        assert_eq!(ink(colour(1)), [0; 3]);
        assert!(label().all(|(.., pixel)| pixel[0] <= colour(1)[0] && pixel[1] <= colour(1)[1]));
        let dark = label().filter(|(.., pixel)| pixel[1] < 60).count();
        assert!((40..200).contains(&dark), "{dark}");
        assert_eq!(at(&image, 60, 46), GREY);
    }
}
