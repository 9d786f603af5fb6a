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
}
