//! Labels, each where it hides no better one.

use std::ops::Range;

use image::RgbImage;

use super::object::DrawnObject;
use super::shapes::{fill, line, pixels};
use super::style::Style;
use super::text::{Text, ink};
use crate::images::resize::Region;

/// How far from its box a label may be moved, in heights of a label.
const FARTHEST: usize = 8;

/// Labels cover this share of the picture at most, as one of so many parts.
const COVERED: usize = 4;

/// A label and its place.
struct Label {
    text: Text,
    area: Region,
    colour: [u8; 3],
    /// From the label to its box, where they do not touch.
    leader: Option<[[f32; 2]; 2]>,
}

impl Label {
    /// The label of a box in the first place that those already `placed` leave free, if it can be one at which it hides
    /// little of the `others`' boxes; none where there is no such place, or the image is too narrow.
    fn place(
        object: &DrawnObject,
        colour: [u8; 3],
        height: usize,
        size: [usize; 2],
        placed: &[Self],
        others: &[Region],
    ) -> Option<Self> {
        let area = pixels(object.corners, size)?;
        let text = Text::of(object, height, size[0])?;
        // Labels of like colours would run together without a gap.
        let gap = (height / 8).max(1);
        let taken: Vec<Region> = placed.iter().map(|label| grown(&label.area, gap)).collect();
        let near = places(&area, [text.width, height], size, &taken);
        let free = |place: &&Region| !taken.iter().any(|other| overlap(place, other));
        let hides = |place: &&Region| others.iter().any(|other| *other != area && hides(place, other));
        let good = |place: &&Region| free(place) && !hides(place);
        let place = near.iter().find(good).cloned().or_else(|| {
            let mut far = farther(&area, [text.width, height], size);
            far.retain(|place| !self::hides(place, &area));
            far.iter().find(good).or_else(|| near.iter().chain(&far).find(free)).cloned()
        })?;
        let leader = leader(&place, &area);
        Some(Self { text, area: place, colour, leader })
    }

    fn draw(&self, image: &mut RgbImage) {
        fill(image, &self.area, self.colour);
        self.text.draw(image, [self.area.x.start, self.area.y.start], ink(self.colour));
    }

    /// Draws the line to the box, with a dot where it ends; dark or light around, so that it is seen on everything.
    fn draw_leader(&self, image: &mut RgbImage, width: f32) {
        /// Widths of the line around the line, and of the dot.
        const AROUND: f32 = 2.0;
        const DOT: f32 = 3.0;
        const OPACITY: f32 = 0.6;
        let Some([from, to]) = self.leader else { return };
        line(image, [from, to], width + AROUND, ink(self.colour), OPACITY);
        line(image, [to, to], DOT * width + AROUND, ink(self.colour), OPACITY);
        line(image, [from, to], width, self.colour, 1.0);
        line(image, [to, to], DOT * width, self.colour, 1.0);
    }
}

/// Draws the labels of `objects` in their `colours`. The best, which come last, choose their places first; none hides
/// another.
pub fn labels(image: &mut RgbImage, objects: &[&DrawnObject], colours: &[[u8; 3]], style: &Style) {
    let Some(height) = style.letters else { return };
    let size = [image.width() as usize, image.height() as usize];
    let mut covered = 0;
    let mut placed = Vec::with_capacity(objects.len());
    let boxes: Vec<Region> = objects.iter().filter_map(|object| pixels(object.corners, size)).collect();
    for (object, colour) in objects.iter().zip(colours).rev() {
        if let Some(label) = Label::place(object, *colour, height, size, &placed, &boxes) {
            covered += label.area.x.len() * height;
            if COVERED * covered > size[0] * size[1] {
                break;
            }
            placed.push(label);
        }
    }
    // No line crosses a label.
    placed.iter().for_each(|label| label.draw_leader(image, style.edge as f32));
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

/// Where a label of this size may stand that finds no place at its box: on a grid around it, the nearest first.
fn farther(area: &Region, [width, height]: [usize; 2], size: [usize; 2]) -> Vec<Region> {
    let reach = FARTHEST * height;
    // From the box's own edge on, so that labels stand in line with it.
    let grid = |edge: usize, step: usize, before: usize, behind: usize, last: usize| {
        let first = edge - before.min(edge) / step * step;
        (first..=behind.min(last)).step_by(step)
    };
    let (Some(right), Some(bottom)) = (size[0].checked_sub(width), size[1].checked_sub(height)) else {
        return Vec::new();
    };
    let rows = grid(area.y.start, (height / 2).max(1), reach + height, area.y.end + reach, bottom);
    let columns = grid(area.x.start, height, reach + width, area.x.end + reach, right);
    let at = |x: usize, y: usize| Region { x: x..x + width, y: y..y + height };
    let mut places: Vec<Region> =
        rows.flat_map(|y| columns.clone().map(move |x| (x, y))).map(|(x, y)| at(x, y)).collect();
    let distance = |place: &Region| {
        let apart = apart(&place.x, &area.x).pow(2) + apart(&place.y, &area.y).pow(2);
        (apart, place.x.start.abs_diff(area.x.start) + place.y.start.abs_diff(area.y.start))
    };
    places.retain(|place| distance(place).0 <= reach.pow(2));
    places.sort_by_key(distance);
    places
}

/// The line from a label to its box, between the points at which they are nearest; none where they touch.
fn leader(label: &Region, area: &Region) -> Option<[[f32; 2]; 2]> {
    if apart(&label.x, &area.x).max(apart(&label.y, &area.y)) == 0 {
        return None;
    }
    let ends = |label: &Range<usize>, area: &Range<usize>| {
        let (label, area) = ([label.start, label.end], [area.start, area.end]);
        let [label, area] = [label, area].map(|side| side.map(|end| end as f32));
        // Within what they have in common the middle of the label, as near as it can be.
        let low = label[0].max(area[0]).min(label[1]);
        let from = ((label[0] + label[1]) / 2.0).clamp(low, label[1].min(area[1]).max(low));
        (from, from.clamp(area[0], area[1]))
    };
    let ((x1, x2), (y1, y2)) = (ends(&label.x, &area.x), ends(&label.y, &area.y));
    Some([[x1, y1], [x2, y2]])
}

/// How many pixels lie between two sides.
fn apart(a: &Range<usize>, b: &Range<usize>) -> usize {
    b.start.saturating_sub(a.end).max(a.start.saturating_sub(b.end))
}

/// An area and what is around it.
fn grown(area: &Region, by: usize) -> Region {
    let side = |side: &Range<usize>| side.start.saturating_sub(by)..side.end + by;
    Region { x: side(&area.x), y: side(&area.y) }
}

/// Whether so much of a box lies under a label that it may be overlooked.
fn hides(label: &Region, area: &Region) -> bool {
    /// One of so many pixels.
    const SHARE: usize = 8;
    let common = |a: &Range<usize>, b: &Range<usize>| a.end.min(b.end).saturating_sub(a.start.max(b.start));
    SHARE * common(&label.x, &area.x) * common(&label.y, &area.y) > area.x.len() * area.y.len()
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

    /// The labels of these boxes on an image of this size, best first.
    fn placed(size: [usize; 2], boxes: &[[f32; 4]]) -> Vec<Label> {
        let areas: Vec<Region> = boxes.iter().filter_map(|&corners| pixels(corners, size)).collect();
        let mut labels = Vec::new();
        for &corners in boxes {
            labels.extend(Label::place(&object(corners), [0; 3], 16, size, &labels, &areas));
        }
        labels
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
            let Label { area, leader, .. } = &placed(size, &[corners])[0];
            assert_eq!(*leader, None, "{corners:?}");
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
            let areas: Vec<Region> = placed([300, 300], boxes).into_iter().map(|label| label.area).collect();
            assert!(areas.len() >= 30, "{}", areas.len());
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
        labels(&mut image, &boxes.iter().collect::<Vec<_>>(), &[[250, 0, 0]; 400], &Style::new([300, 200]));
        let covered = image.pixels().filter(|pixel| pixel.0 != GREY).count();
        // With the lines to those that had to move.
        assert!((10_000..=17_000).contains(&covered), "{covered}");
    }

    #[test]
    fn a_label_that_had_to_move_has_a_line_to_its_box() {
        // A box that takes the whole width, and one below it whose places better labels have.
        let size = [300, 200];
        let low = [100.0, 100.0, 130.0, 112.0];
        let labels = placed(size, &[low; 8]);
        assert_eq!(labels.len(), 8);
        let area = pixels(low, size).unwrap();
        let moved = labels.iter().filter(|label| label.leader.is_some()).count();
        assert!((3..8).contains(&moved), "{moved}");
        for label in &labels {
            let away = apart(&label.area.x, &area.x).max(apart(&label.area.y, &area.y));
            assert_eq!(label.leader.is_some(), away > 0, "{:?}", label.area);
            let Some([from, to]) = label.leader else { continue };
            let on = |[x, y]: [f32; 2], area: &Region| {
                let side = |at: f32, side: &Range<usize>| at >= side.start as f32 && at <= side.end as f32;
                side(x, &area.x) && side(y, &area.y)
            };
            assert!(on(from, &label.area) && on(to, &area), "{from:?} to {to:?}, {:?}", label.area);
            assert!(away <= FARTHEST * 16, "{away}");
        }
    }

    #[test]
    fn lines_are_the_shortest() {
        let area = |x: Range<usize>, y: Range<usize>| Region { x, y };
        let below = area(10..50, 40..60);
        for (label, expected) in [
            (area(0..30, 10..20), Some([[15.0, 20.0], [15.0, 40.0]])),
            (area(60..80, 10..20), Some([[60.0, 20.0], [50.0, 40.0]])),
            (area(60..80, 40..50), Some([[60.0, 45.0], [50.0, 45.0]])),
            (area(0..30, 30..40), None),
        ] {
            assert_eq!(leader(&label, &below), expected, "{label:?}");
        }
    }

    #[test]
    fn labels_leave_small_boxes_to_be_seen() {
        // Twelve small boxes, each of which would lie under the usual label of the one below it.
        let boxes: Vec<[f32; 4]> = (0..12)
            .map(|i| [200.0 + (i % 3 * 24) as f32, 200.0 + (i / 3 * 24) as f32])
            .map(|[x, y]| [x, y, x + 16.0, y + 16.0])
            .collect();
        let size = [600, 500];
        let labels = placed(size, &boxes);
        assert_eq!(labels.len(), 12);
        for (i, label) in labels.iter().enumerate() {
            let areas = boxes.iter().filter_map(|&corners| pixels(corners, size));
            assert!(areas.into_iter().all(|area| !hides(&label.area, &area)), "{i}: {:?}", label.area);
        }
        // Of a large box it hides little.
        assert!(!hides(&Region { x: 0..60, y: 0..16 }, &Region { x: 0..100, y: 0..100 }));
        assert!(hides(&Region { x: 0..60, y: 0..16 }, &Region { x: 0..70, y: 0..100 }));
    }
}
