//! Found objects: masks, boxes, labels.

use image::RgbImage;
use rayon::prelude::*;

use super::canvas::{canvas, factor};
use super::labels::labels;
use super::object::DrawnObject;
use super::shades::colours;
use super::shapes::{blend, frame, pixels};
use super::style::Style;
use crate::images::mask::Mask;
use crate::images::resize::Region;

/// An image with its objects drawn onto it, enlarged by a whole factor where it is small: all masks, of which a pixel
/// takes so much of the colour as `opacity` says (0 to 1), then the masks' edges, the boxes, the labels. Among each the
/// best object lies on top, of equal scores the first. Objects of a class are drawn in shades of its colour, those that
/// meet in shades that differ.
///
/// A label stands above its box, or inside or below where that is taken or outside the image, or else near it with a line
/// to it. One for which better labels leave no place is left out. Labels cover a quarter of the picture at most; strips
/// too narrow for letters that can be read get none.
pub fn objects(image: RgbImage, objects: &[DrawnObject], opacity: f32) -> RgbImage {
    let factor = factor([image.width() as usize, image.height() as usize]);
    let mut image = canvas(image);
    if factor == 1 {
        draw(&mut image, objects, opacity);
        return image;
    }
    let masks: Vec<Option<Mask>> =
        objects.par_iter().map(|object| object.mask.map(|mask| enlarged(mask, factor))).collect();
    let objects: Vec<DrawnObject> = objects
        .iter()
        .zip(&masks)
        .map(|(object, mask)| {
            let corners = object.corners.map(|edge| factor as f32 * edge);
            DrawnObject { corners, mask: mask.as_ref(), ..*object }
        })
        .collect();
    draw(&mut image, &objects, opacity);
    image
}

/// A mask of an image that is enlarged by a whole factor.
fn enlarged(mask: &Mask, factor: usize) -> Mask {
    let size = mask.size.map(|side| factor * side);
    let pixels = (0..size[1]).flat_map(|y| {
        let row = &mask.pixels[y / factor * mask.size[0]..][..mask.size[0]];
        row.iter().flat_map(move |&pixel| std::iter::repeat_n(pixel, factor))
    });
    Mask { origin: mask.origin.map(|at| factor * at), size, pixels: pixels.collect() }
}

/// Draws objects onto an image as it is.
fn draw(image: &mut RgbImage, objects: &[DrawnObject], opacity: f32) {
    let size = [image.width() as usize, image.height() as usize];
    if size.contains(&0) {
        return;
    }
    let style = Style::new(size);
    let mut objects: Vec<&DrawnObject> = objects.iter().collect();
    // From worst to best. `max` returns the other one of NaN.
    objects.sort_by(|a, b| b.score.max(0.0).total_cmp(&a.score.max(0.0)));
    objects.reverse();
    let colours = colours(&objects);

    let stencils = objects.iter().zip(&colours);
    let stencils: Vec<Stencil> =
        stencils.filter_map(|(object, colour)| Stencil::new(object.mask?, *colour, size)).collect();
    masks(image, &stencils, opacity, &style);
    for (object, colour) in objects.iter().zip(&colours) {
        if let Some(area) = pixels(object.corners, size) {
            frame(image, &area, style.line, *colour);
        }
    }
    labels(image, &objects, &colours, &style);
}

/// A mask's edge is so many times narrower than the side of a square as large as the mask, at least.
const EDGE_SHARE: usize = 24;

/// A mask of which the narrowest edge would take more than one of so many pixels has none.
const EDGE_PIXELS: usize = 3;

/// A mask in its colour, and where in the image it has pixels.
struct Stencil<'a> {
    colour: [u8; 3],
    mask: &'a Mask,
    extent: Region,
}

impl<'a> Stencil<'a> {
    fn new(mask: &'a Mask, colour: [u8; 3], [width, height]: [usize; 2]) -> Option<Self> {
        let [x, y] = [0, 1].map(|axis| {
            let (start, end) = (mask.origin[axis], mask.origin[axis] + mask.size[axis]);
            start.min([width, height][axis])..end.min([width, height][axis])
        });
        let extent = Region { x, y };
        (!extent.x.is_empty() && !extent.y.is_empty()).then_some(Self { colour, mask, extent })
    }

    /// The pixels of row `y` of the image from the extent's first column on.
    fn row(&self, y: usize) -> &[bool] {
        &self.mask.pixels[(y - self.mask.origin[1]) * self.mask.size[0]..][..self.extent.x.len()]
    }

    fn contains(&self, x: usize, y: usize) -> bool {
        self.extent.y.contains(&y) && self.extent.x.contains(&x) && self.row(y)[x - self.extent.x.start]
    }

    /// The pixels of the mask with a side to what is not of it; the image's border is not of it. And how wide an edge
    /// suits the mask, at most `width`; 0 where any would fill it.
    fn rim(&self, width: usize) -> (Vec<[usize; 2]>, usize) {
        let (mut rim, mut area) = (Vec::new(), 0_usize);
        for y in self.extent.y.clone() {
            for x in self.extent.x.clone().filter(|&x| self.contains(x, y)) {
                area += 1;
                // -1 wraps and is outside too.
                let sides = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
                if !sides.iter().all(|&(x, y)| self.contains(x, y)) {
                    rim.push([x, y]);
                }
            }
        }
        // An edge of several pixels takes about as many times the rim.
        let fits = (area / EDGE_PIXELS).checked_div(rim.len()).unwrap_or(0);
        let width = width.min((area.isqrt() / EDGE_SHARE).max(1)).min(fits);
        (rim, width)
    }
}

/// Draws the masks, then their edges.
fn masks(image: &mut RgbImage, masks: &[Stencil], opacity: f32, style: &Style) {
    let width = image.width() as usize;
    image.par_chunks_exact_mut(3 * width).enumerate().for_each(|(y, row)| {
        for mask in masks.iter().filter(|mask| mask.extent.y.contains(&y)) {
            let x = mask.extent.x.clone();
            let pixels = row[3 * x.start..3 * x.end].as_chunks_mut().0;
            for (pixel, _) in pixels.iter_mut().zip(mask.row(y)).filter(|(_, inside)| **inside) {
                blend(pixel, mask.colour, opacity);
            }
        }
    });

    let rims: Vec<_> = masks.par_iter().map(|mask| mask.rim(style.edge)).collect();
    // All that is nearer to the rim than the edge is wide, and of the mask: an edge never makes it larger.
    for (mask, (rim, edge)) in masks.iter().zip(rims) {
        let Some(reach) = edge.checked_sub(1) else { continue };
        for [x, y] in rim {
            for near_y in y.saturating_sub(reach)..=y + reach {
                for near_x in x.saturating_sub(reach)..=x + reach {
                    let far = near_x.abs_diff(x).pow(2) + near_y.abs_diff(y).pow(2) >= edge.pow(2);
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
    use crate::images::colours::colour;
    use crate::images::draw::text::ink;

    const OPACITY: f32 = 0.4;

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
            draw(&mut image, &masked.collect::<Vec<_>>(), OPACITY);
            draw(&mut image, &all, OPACITY);
        }
    }

    #[test]
    fn a_box_is_its_lines() {
        let mut image = grey(60, 50);
        draw(&mut image, &[object([10.0, 20.0, 40.0, 45.0])], OPACITY);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (10..40).contains(&x) && (20..45).contains(&y);
            let inner = (11..39).contains(&x) && (21..44).contains(&y);
            assert_eq!(pixel.0, if inside && !inner { colour(3) } else { GREY }, "{x}, {y}");
        }
        // 840 / 280 pixels, unless the box is small.
        let mut image = grey(840, 840);
        for corners in [[100.0, 300.0, 200.0, 400.0], [500.0, 500.0, 513.0, 540.0]] {
            draw(&mut image, &[object(corners)], OPACITY);
        }
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
        draw(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }], OPACITY);
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
        let mut image = grey(40, 36);
        // More than the image.
        let mask = Mask { origin: [0, 0], size: [41, 37], pixels: vec![true; 41 * 37] };
        draw(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }], OPACITY);
        for (x, y, pixel) in image.enumerate_pixels() {
            let edge = x == 0 || y == 0 || x == 39 || y == 35;
            assert_eq!(pixel.0 == colour(3), edge, "{x}, {y}");
        }
    }

    #[test]
    fn an_edge_is_as_wide_as_suits_its_mask() {
        // On a picture of boxes of 8 pixels and edges of 4.
        for (size, width) in
            [([6, 6], 0), ([11, 11], 1), ([60, 60], 2), ([80, 80], 3), ([200, 200], 4), ([3, 300], 0)]
        {
            let mut image = grey(2240, 2240);
            let mask = Mask { origin: [100, 200], size, pixels: vec![true; size[0] * size[1]] };
            draw(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }], OPACITY);
            let middle = 200 + size[1] as u32 / 2;
            let edge = (100..).take_while(|&x| at(&image, x, middle) == colour(3)).count();
            assert_eq!(edge, width, "{size:?}");
            let full = image.pixels().filter(|pixel| pixel.0 == colour(3)).count();
            assert!(2 * full <= size[0] * size[1], "{size:?}: {full}");
        }
    }

    #[test]
    fn small_images_are_enlarged_with_what_is_on_them() {
        let mask = Mask { origin: [3, 1], size: [20, 12], pixels: (0..240).map(|i| i % 20 < 15).collect() };
        let object = DrawnObject { mask: Some(&mask), ..object([2.0, 1.0, 30.0, 25.0]) };
        let image = objects(grey(40, 30), &[object], 1.0);
        assert_eq!(image.dimensions(), (600, 450));
        // The mask's fifteen columns and twelve rows, each fifteen pixels.
        let is_mask = |x: u32, y: u32| (45..270).contains(&x) && (15..195).contains(&y);
        for (x, y) in [(45, 60), (269, 60), (100, 194)] {
            assert!(is_mask(x, y) && at(&image, x, y) == colour(3), "{x}, {y}");
        }
        assert_eq!([at(&image, 44, 60), at(&image, 270, 60), at(&image, 100, 195)], [GREY; 3]);
        // The box, with lines of two pixels, and a label in it.
        let line = |x: u32| at(&image, x, 250);
        assert_eq!([29, 30, 31, 32].map(line), [GREY, colour(3), colour(3), GREY]);
        assert_eq!([447, 448, 449, 450].map(line), [GREY, colour(3), colour(3), GREY]);
    }

    #[test]
    fn opacity_is_that_of_masks_alone() {
        let mask = Mask { origin: [100, 100], size: [200, 200], pixels: vec![true; 40_000] };
        let object = DrawnObject { mask: Some(&mask), ..object([90.0, 90.0, 310.0, 310.0]) };
        for (opacity, expected) in [(0.0, GREY), (1.0, colour(3))] {
            let image = objects(grey(500, 500), &[object], opacity);
            assert_eq!([at(&image, 200, 200), at(&image, 100, 200)], [expected, colour(3)]);
            assert_eq!(at(&image, 90, 200), colour(3));
        }
    }

    #[test]
    fn a_mask_of_a_part_lies_where_it_belongs() {
        let mask = Mask { origin: [3, 1], size: [4, 2], pixels: vec![true; 8] };
        let mut image = grey(8, 6);
        draw(&mut image, &[DrawnObject { mask: Some(&mask), ..object([f32::NAN; 4]) }], OPACITY);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (3..7).contains(&x) && (1..3).contains(&y);
            assert_eq!(pixel.0 != GREY, inside, "{x}, {y}");
        }
    }

    #[test]
    fn the_best_lies_on_top() {
        let of = |index, score| DrawnObject { index, score, ..object([5.0, 5.0, 15.0, 15.0]) };
        for (scores, best) in
            [([0.9, 0.3], 0), ([0.3, 0.9], 1), ([0.5, 0.5], 0), ([f32::NAN, 0.1], 1), ([0.0, f32::NAN], 0)]
        {
            let mut image = grey(20, 20);
            draw(&mut image, &[of(0, scores[0]), of(1, scores[1])], OPACITY);
            assert_eq!(at(&image, 5, 5), colour(best), "{scores:?}");
        }
    }

    #[test]
    fn labels_are_written_in_their_colour() {
        let mut image = grey(400, 300);
        draw(&mut image, &[DrawnObject { index: 1, ..object([50.0, 60.0, 350.0, 260.0]) }], OPACITY);
        let label =
            || image.enumerate_pixels().filter(|(x, y, _)| (50..90).contains(x) && (47..60).contains(y));
        assert_eq!(ink(colour(1)), [0; 3]);
        assert!(label().all(|(.., pixel)| pixel[0] <= colour(1)[0] && pixel[1] <= colour(1)[1]));
        let dark = label().filter(|(.., pixel)| pixel[1] < 60).count();
        assert!((40..200).contains(&dark), "{dark}");
        assert_eq!(at(&image, 60, 46), GREY);
    }

    /// Of thirty people in a row every one has box, edge and label of one colour, and neighbours another one.
    #[test]
    fn a_crowd_is_told_apart() {
        let masks: Vec<Mask> = (0..30)
            .map(|i| Mask { origin: [20 + 60 * i, 300], size: [70, 300], pixels: vec![true; 21_000] })
            .collect();
        let people: Vec<DrawnObject> = (masks.iter().zip(0..))
            .map(|(mask, i)| {
                let left = 20.0 + 60.0 * i as f32;
                let corners = [left, 300.0, left + 70.0, 600.0];
                DrawnObject {
                    index: 0,
                    label: "person",
                    score: 0.9 - 0.01 * i as f32,
                    corners,
                    mask: Some(mask),
                }
            })
            .collect();
        let image = objects(grey(1900, 900), &people, 0.5);
        let edges: Vec<[u8; 3]> = (0..30).map(|i| at(&image, 20 + 60 * i + 30, 599)).collect();
        let masks: Vec<[u8; 3]> = (0..30).map(|i| at(&image, 20 + 60 * i + 35, 450)).collect();
        for i in 1..30 {
            assert!(edges[i] != edges[i - 1] && masks[i] != masks[i - 1], "{i}");
        }
        let mut distinct = edges.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() >= 4 && distinct.contains(&colour(0)), "{distinct:?}");
        // Labels: letters apart, each line of pixels above the boxes has colours of people alone.
        let label = at(&image, 22, 270);
        assert!(edges.contains(&label), "{label:?}");
        assert!(objects(grey(1900, 900), &people, 0.5) == image);
    }
}
