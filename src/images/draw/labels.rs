//! Labels, each where it hides no better one.

use std::ops::Range;

use image::RgbImage;

use super::colours::colour;
use super::object::DrawnObject;
use super::shapes::{fill, pixels};
use super::style::Style;
use super::text::{Text, ink};
use crate::images::resize::Region;

/// A label and its place.
struct Label {
    text: Text,
    area: Region,
    colour: [u8; 3],
}

impl Label {
    /// A label in the first place that those already `placed` leave free; none where there is no such
    /// place, or the image is too narrow.
    fn place(object: &DrawnObject, height: usize, size: [usize; 2], placed: &[Self]) -> Option<Self> {
        let area = pixels(object.corners, size)?;
        let text = Text::of(object, height, size[0])?;
        // Labels of a class have one colour: without a gap they would run together.
        let gap = (height / 8).max(1);
        let taken: Vec<Region> = placed.iter().map(|label| grown(&label.area, gap)).collect();
        let mut places = places(&area, [text.width, height], size, &taken).into_iter();
        let area = places.find(|place| !taken.iter().any(|other| overlap(place, other)))?;
        Some(Self { text, area, colour: colour(object.index) })
    }

    fn draw(&self, image: &mut RgbImage) {
        fill(image, &self.area, self.colour);
        self.text.draw(image, [self.area.x.start, self.area.y.start], ink(self.colour));
    }
}

/// Draws the labels. The best choose their places first; none hides another.
pub fn labels(image: &mut RgbImage, objects: &[&DrawnObject], style: &Style) {
    let Some(height) = style.letters else { return };
    let size = [image.width() as usize, image.height() as usize];
    let mut covered = 0;
    let mut placed = Vec::with_capacity(objects.len());
    for object in objects.iter().rev() {
        if let Some(label) = Label::place(object, height, size, &placed) {
            covered += label.area.x.len() * height;
            if 4 * covered > size[0] * size[1] {
                break;
            }
            placed.push(label);
        }
    }
    placed.iter().for_each(|label| label.draw(image));
}

/// Where a label of this size may stand, the usual place first. Each lies inside the image.
fn places(area: &Region, [width, height]: [usize; 2], size: [usize; 2], taken: &[Region]) -> Vec<Region> {
    let corners = [area.x.start, area.x.end.saturating_sub(width)];
    // Beside another label, as long as it's plain whose it is.
    let beside = taken.iter().flat_map(|other| [Some(other.x.end), other.x.start.checked_sub(width)]);
    let beside = beside.flatten().filter(|x| area.x.contains(&(x + width / 2)));
    let mut columns: Vec<usize> = corners.into_iter().chain(beside).map(|x| x.min(size[0] - width)).collect();
    columns.sort_by_key(|x| x.abs_diff(area.x.start));
    columns.dedup();

    let inside = 2 * height <= area.y.len();
    let rows = [
        area.y.start.checked_sub(height),
        inside.then_some(area.y.start),
        Some(area.y.end).filter(|y| y + height <= size[1]),
        inside.then(|| area.y.end - height),
    ];
    let at = |x: usize, y: usize| Region { x: x..x + width, y: y..y + height };
    rows.into_iter().flatten().flat_map(|y| columns.iter().map(move |&x| at(x, y))).collect()
}

/// An area and what is around it.
fn grown(area: &Region, by: usize) -> Region {
    let side = |side: &Range<usize>| side.start.saturating_sub(by)..side.end + by;
    Region { x: side(&area.x), y: side(&area.y) }
}

/// Whether two areas share a pixel.
fn overlap(a: &Region, b: &Region) -> bool {
    let side = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
    side(&a.x, &b.x) && side(&a.y, &b.y)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: [u8; 3] = [100; 3];

    fn object(corners: [f32; 4]) -> DrawnObject<'static> {
        DrawnObject { index: 3, label: "cat", score: 0.5, corners, mask: None }
    }

    /// Areas of the labels of these boxes on an image of this size, best first.
    fn placed(size: [usize; 2], boxes: &[[f32; 4]]) -> Vec<Region> {
        let mut labels = Vec::new();
        for &corners in boxes {
            labels.extend(Label::place(&object(corners), 16, size, &labels));
        }
        labels.into_iter().map(|label| label.area).collect()
    }

    #[test]
    fn labels_stand_where_there_is_place() {
        let size = [300, 200];
        let width = Text::of(&object([0.0; 4]), 16, 300).unwrap().width;
        for (corners, expected) in [
            // Above.
            ([50.0, 60.0, 150.0, 160.0], [50, 44]),
            ([50.0, 16.0, 150.0, 160.0], [50, 0]),
            // Inside.
            ([50.0, 15.0, 150.0, 160.0], [50, 15]),
            ([-20.0, -20.0, 150.0, 160.0], [0, 0]),
            // Below, of a box too low for its label.
            ([50.0, 5.0, 150.0, 30.0], [50, 30]),
            // Shifted into the image.
            ([290.0, 60.0, 300.0, 80.0], [300 - width, 44]),
        ] {
            let area = &placed(size, &[corners])[0];
            assert_eq!([area.x.start, area.y.start], expected, "{corners:?}");
            assert_eq!([area.x.len(), area.y.len()], [width, 16]);
        }
    }

    #[test]
    fn labels_do_not_hide_each_other() {
        let same = [[50.0, 60.0, 150.0, 160.0]; 40];
        let staggered: Vec<[f32; 4]> =
            (0..40).map(|i| [0.0, 0.0, 40.0, 60.0].map(|v| v + 6.0 * i as f32)).collect();
        for boxes in [&same[..], &staggered] {
            let areas = placed([300, 300], boxes);
            assert!(areas.len() >= 4, "{}", areas.len());
            for (i, a) in areas.iter().enumerate() {
                assert!(a.x.end <= 300 && a.y.end <= 300, "{a:?}");
                assert!(areas[..i].iter().all(|b| !overlap(a, b)), "{areas:?}");
            }
        }
    }

    #[test]
    fn labels_cover_a_quarter_at_most() {
        let boxes: Vec<DrawnObject> = (0..400)
            .map(|i| [(i % 20 * 15) as f32, (i / 20 * 10) as f32])
            .map(|[x, y]| object([x, y, x + 14.0, y + 9.0]))
            .collect();
        let mut image = RgbImage::from_pixel(300, 200, image::Rgb(GREY));
        labels(&mut image, &boxes.iter().collect::<Vec<_>>(), &Style::new([300, 200]));
        let covered = image.pixels().filter(|pixel| pixel.0 != GREY).count();
        assert!((10_000..=15_000).contains(&covered), "{covered}");
    }
}
