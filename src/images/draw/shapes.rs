//! Areas and lines of one colour.

use image::RgbImage;

use crate::images::resize::Region;

/// The pixels of a box; none where it is no box or lies outside.
pub fn pixels([left, top, right, bottom]: [f32; 4], [width, height]: [usize; 2]) -> Option<Region> {
    let side = |low: f32, high: f32, size: usize| {
        // With NaN each comparison is false. A cast takes what is too small as 0.
        (low <= high && low < size as f32 && high > 0.0).then(|| {
            let start = (low.round() as usize).min(size - 1);
            start..(high.round() as usize).clamp(start + 1, size)
        })
    };
    Some(Region { x: side(left, right, width)?, y: side(top, bottom, height)? })
}

/// Fills an area that lies inside the image.
pub fn fill(image: &mut RgbImage, area: &Region, colour: [u8; 3]) {
    let bytes = 3 * area.x.start..3 * area.x.end;
    let stride = 3 * image.width() as usize;
    for row in image.chunks_exact_mut(stride).skip(area.y.start).take(area.y.len()) {
        row[bytes.clone()].as_chunks_mut().0.fill(colour);
    }
}

/// Moves an area that lies inside the image towards a colour.
pub fn shade(image: &mut RgbImage, area: &Region, colour: [u8; 3], opacity: f32) {
    let bytes = 3 * area.x.start..3 * area.x.end;
    let stride = 3 * image.width() as usize;
    for row in image.chunks_exact_mut(stride).skip(area.y.start).take(area.y.len()) {
        row[bytes.clone()].as_chunks_mut().0.iter_mut().for_each(|pixel| blend(pixel, colour, opacity));
    }
}

/// Draws the border of an area, inside it: the lines of a box that the image cuts off stay visible.
pub fn frame(image: &mut RgbImage, area: &Region, line: usize, colour: [u8; 3]) {
    // Of small boxes the lines would leave nothing to see.
    let line = line.min(area.x.len().min(area.y.len()) / 6).max(1);
    let (x, y) = (&area.x, &area.y);
    let (left, right) = (x.start..x.start + line, x.end - line..x.end);
    let (top, bottom) = (y.start..y.start + line, y.end - line..y.end);
    for (x, y) in [(x, &top), (x, &bottom), (&left, y), (&right, y)] {
        fill(image, &Region { x: x.clone(), y: y.clone() }, colour);
    }
}

/// Draws a line from one point to another, in pixels and so wide, with round ends; what lies outside the image is cut off.
pub fn line(image: &mut RgbImage, [from, to]: [[f32; 2]; 2], width: f32, colour: [u8; 3], opacity: f32) {
    let radius = width / 2.0;
    let side = |axis: usize, size: u32| {
        let (low, high) = (from[axis].min(to[axis]) - radius - 1.0, from[axis].max(to[axis]) + radius + 1.0);
        // A cast takes what is below 0 as 0.
        low as u32..(high.ceil() as u32).min(size)
    };
    let (columns, rows) = (side(0, image.width()), side(1, image.height()));
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = along[0].powi(2) + along[1].powi(2);
    for y in rows {
        for x in columns.clone() {
            let at = [x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]];
            let part = ((at[0] * along[0] + at[1] * along[1]) / length.max(f32::EPSILON)).clamp(0.0, 1.0);
            let far = (at[0] - part * along[0]).hypot(at[1] - part * along[1]);
            let coverage = (radius + 0.5 - far).clamp(0.0, 1.0);
            blend(&mut image.get_pixel_mut(x, y).0, colour, opacity * coverage);
        }
    }
}

/// Moves a pixel towards a colour.
pub fn blend(pixel: &mut [u8; 3], colour: [u8; 3], opacity: f32) {
    for (value, colour) in pixel.iter_mut().zip(colour) {
        let (from, to) = (f32::from(*value), f32::from(colour));
        *value = (from + (to - from) * opacity).round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_cut_to_the_image() {
        let image = [20, 10];
        for (corners, expected) in [
            ([2.0, 3.0, 7.0, 8.0], Some((2..7, 3..8))),
            ([2.4, 3.5, 6.6, 7.7], Some((2..7, 4..8))),
            ([-5.0, -1e30, 25.0, f32::INFINITY], Some((0..20, 0..10))),
            // At least a pixel.
            ([4.0, 4.0, 4.0, 4.0], Some((4..5, 4..5))),
            ([19.9, 9.9, 19.9, 9.9], Some((19..20, 9..10))),
            ([0.1, 0.1, 0.2, 0.2], Some((0..1, 0..1))),
            // Outside.
            ([20.0, 0.0, 30.0, 10.0], None),
            ([0.0, -5.0, 10.0, 0.0], None),
            // No boxes.
            ([7.0, 3.0, 2.0, 8.0], None),
            ([2.0, f32::NAN, 7.0, 8.0], None),
            ([f32::NAN; 4], None),
        ] {
            let area = pixels(corners, image).map(|area| (area.x, area.y));
            assert_eq!(area, expected, "{corners:?}");
        }
    }

    #[test]
    fn lines_go_from_point_to_point() {
        let drawn = |ends: [[f32; 2]; 2], width| {
            let mut image = RgbImage::new(12, 9);
            line(&mut image, ends, width, [200; 3], 1.0);
            image
        };
        let image = drawn([[2.0, 4.5], [9.0, 4.5]], 1.0);
        for (x, y, pixel) in image.enumerate_pixels() {
            match (x, y) {
                (2..=8, 4) => assert_eq!(pixel.0, [200; 3], "{x}, {y}"),
                (..=0 | 11.., _) | (_, ..=3 | 5..) => assert_eq!(pixel.0, [0; 3], "{x}, {y}"),
                _ => {}
            }
        }
        // A slope, twice as wide; and a point.
        let image = drawn([[1.0, 1.0], [8.0, 8.0]], 2.0);
        assert_eq!([image.get_pixel(4, 4).0, image.get_pixel(4, 7).0], [[200; 3], [0; 3]]);
        assert!(drawn([[6.0, 4.0]; 2], 3.0).get_pixel(6, 4).0 == [200; 3]);
        // Outside of the image it ends.
        assert_eq!(drawn([[-50.0, 4.5], [50.0, 4.5]], 1.0).get_pixel(11, 4).0, [200; 3]);
        assert!(drawn([[-50.0, -9.0], [-5.0, -3.0]], 1.0).pixels().all(|pixel| pixel.0 == [0; 3]));
    }
}
