//! Which shade of its class's colour an object is drawn in.

use super::object::DrawnObject;
use crate::images::colours::shades;

/// What a shade that another object of the class has counts where the two do not meet: little, beside those that do.
const APART: f32 = 0.05;

/// What it counts that a shade is a step from its class's colour, by which a class is known; of more steps it counts
/// with their square.
const DEPARTURE: f32 = 0.01;

/// How far from each other the edges of boxes are that meet, as a share of the smaller one's longer side.
const NEAR: f32 = 0.1;

/// The colours of `objects`, the best of which come last. The best of a class has the class's own colour; each of the
/// others a shade that differs from those of the better ones that it meets, and if it can be from all others', as near to
/// the class's own colour as that allows.
pub fn colours(objects: &[&DrawnObject]) -> Vec<[u8; 3]> {
    let mut chosen: Vec<([u8; 3], i32)> = vec![([0; 3], 0); objects.len()];
    for i in (0..objects.len()).rev() {
        let others = (i + 1..objects.len()).filter(|&other| objects[other].index == objects[i].index);
        let others: Vec<(f32, i32)> =
            others.map(|other| (nearness(objects[i], objects[other]), chosen[other].1)).collect();
        let cost = |step: i32| -> f32 {
            let others = others.iter().map(|(near, other)| near * alike(step, *other));
            others.sum::<f32>() + DEPARTURE * step.pow(2) as f32
        };
        let shades = shades(objects[i].index);
        // Of equals the first: the nearest to the class's own colour.
        chosen[i] = shades.into_iter().min_by(|a, b| cost(a.1).total_cmp(&cost(b.1))).unwrap_or_default();
    }
    chosen.into_iter().map(|(colour, _)| colour).collect()
}

/// How alike two shades look, so many steps of lightness from their class's colour.
fn alike(a: i32, b: i32) -> f32 {
    0.25_f32.powi(a.abs_diff(b) as i32)
}

/// How much it matters that two objects look different.
fn nearness(a: &DrawnObject, b: &DrawnObject) -> f32 {
    let longer = |object: &DrawnObject| {
        let [left, top, right, bottom] = object.corners;
        (right - left).max(bottom - top)
    };
    let reach = NEAR * longer(a).min(longer(b));
    // With NaN each comparison is false.
    let meets = |axis: usize| {
        a.corners[axis] - reach < b.corners[axis + 2] && b.corners[axis] - reach < a.corners[axis + 2]
    };
    if meets(0) && meets(1) { 1.0 } else { APART }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::colours::colour;

    fn object(index: usize, left: f32) -> DrawnObject<'static> {
        DrawnObject { index, label: "", score: 0.5, corners: [left, 0.0, left + 10.0, 10.0], mask: None }
    }

    /// The colours of objects that are given best first.
    fn best_first(objects: &[DrawnObject]) -> Vec<[u8; 3]> {
        let mut colours = colours(&objects.iter().rev().collect::<Vec<_>>());
        colours.reverse();
        colours
    }

    /// How many steps a colour of a class is from the class's own.
    fn step(index: usize, colour: [u8; 3]) -> i32 {
        shades(index).into_iter().find(|shade| shade.0 == colour).unwrap().1
    }

    #[test]
    fn one_of_a_class_has_its_colour() {
        let objects = [object(0, 0.0), object(2, 3.0), object(7, 5.0)];
        assert_eq!(best_first(&objects), [0, 2, 7].map(colour));
    }

    #[test]
    fn those_that_meet_differ_most() {
        // A row in which each meets the one before and the one after, more than there are shades.
        let row: Vec<_> = (0..30).map(|i| object(0, 9.0 * i as f32)).collect();
        let steps: Vec<i32> = best_first(&row).into_iter().map(|colour| step(0, colour)).collect();
        assert_eq!(steps[0], 0);
        for (i, pair) in steps.windows(2).enumerate() {
            assert!(pair[0].abs_diff(pair[1]) >= 2, "{i}: {steps:?}");
        }
        assert!(steps.iter().collect::<std::collections::BTreeSet<_>>().len() >= 4, "{steps:?}");
        // All on one spot: the first six have the six shades.
        let pile: Vec<_> = (0..6).map(|_| object(0, 0.0)).collect();
        let mut steps: Vec<i32> = best_first(&pile).into_iter().map(|colour| step(0, colour)).collect();
        steps.sort_unstable();
        assert_eq!(steps, [-2, -1, 0, 1, 2, 3]);
        // Two that do not meet are a step apart, two that do are two.
        for (left, apart) in [(500.0, 1), (5.0, 2)] {
            let colours = best_first(&[object(0, 0.0), object(0, left)]);
            assert_eq!(step(0, colours[1]).abs(), apart, "{left}");
        }
        // The same again.
        assert_eq!(best_first(&row), best_first(&row));
    }

    #[test]
    fn boxes_that_are_none_are_no_matter() {
        let none = DrawnObject { corners: [f32::NAN; 4], ..object(0, 0.0) };
        assert_eq!(best_first(&[none, none]).len(), 2);
    }
}
