//! Label maps drawn onto their image.

use image::RgbImage;

use super::label_files::LabelImage;
use super::label_maps::LabelRules;
use crate::images::colours::colour;
use crate::images::draw::{beside, canvas, classes};

/// How much of its class's colour a pixel takes.
const OPACITY: f32 = 0.6;
/// What is no class, and its colour.
const NONE: (u8, [u8; 3]) = (u8::MAX, [96; 3]);

/// An image with its label map of a prediction, and beside it with the true one; without a prediction the image itself
/// is the left one. What is ignored is grey. `None` where a map is of another size.
pub fn label_picture(
    image: RgbImage,
    predicted: Option<&LabelImage>,
    truth: &LabelImage,
    rules: LabelRules,
) -> Option<RgbImage> {
    let shift = u16::from(rules.reduce_zero_label);
    let of_truth = |label: u16| label.checked_sub(shift).filter(|&class| class != rules.ignore);
    let right = drawn(image.clone(), truth, of_truth)?;
    Some(match predicted {
        Some(predicted) => beside(&drawn(image, predicted, Some)?, &right),
        None => beside(&canvas(image), &right),
    })
}

fn drawn(image: RgbImage, map: &LabelImage, class: impl Fn(u16) -> Option<u16>) -> Option<RgbImage> {
    let (none, grey) = NONE;
    // Where there are more classes than colours some look alike.
    let index = |&label: &u16| class(label).map_or(none, |class| (class % u16::from(none)) as u8);
    let colours: Vec<[u8; 3]> =
        (0..=none).map(|index| if index == none { grey } else { colour(usize::from(index)) }).collect();
    let values: Vec<u8> = map.values.iter().map(index).collect();
    let same = [image.width() as usize, image.height() as usize] == map.size;
    same.then(|| classes(image, &values, &colours, OPACITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_map_stands_to_the_right_of_the_predicted_one() {
        let image = RgbImage::from_pixel(64, 32, image::Rgb([200; 3]));
        let map =
            |value: u16| LabelImage { name: String::new(), size: [64, 32], values: vec![value; 64 * 32] };
        let rules = LabelRules::new(3, true);
        // Of the truth 0 is no class, and 2 is class 1.
        let picture = label_picture(image.clone(), Some(&map(1)), &map(2), rules).unwrap();
        let (left, right) = (picture.width() / 4, 3 * picture.width() / 4);
        assert_eq!(picture.get_pixel(left, 16), picture.get_pixel(right, 16));
        let picture = label_picture(image.clone(), Some(&map(1)), &map(0), rules).unwrap();
        assert_ne!(picture.get_pixel(left, 16), picture.get_pixel(right, 16));
        let grey = picture.get_pixel(right, 16).0;
        assert!(grey[0] == grey[1] && grey[1] == grey[2], "{grey:?}");
        assert!(label_picture(image, None, &LabelImage { size: [32, 64], ..map(0) }, rules).is_none());
    }
}
