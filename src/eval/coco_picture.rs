//! What was found on an image and what there is, in words and drawn side by side.

use std::collections::BTreeMap;

use hotcoco::{Annotation, COCO};
use image::RgbImage;

use super::coco::{CocoTruth, SURE};
use super::coco_results::CocoResults;
use crate::images::draw::{DrawnObject, beside, objects};
use crate::images::mask::Mask;

/// How much of a mask's colour its pixels take.
const OPACITY: f32 = 0.5;
/// How many kinds of objects are named.
const NAMED: usize = 4;

impl CocoTruth {
    /// The objects of an image, and those that were found on it with more than [`SURE`], in words: `2 cat, 1 dog`.
    pub fn told(&self, image: u64, results: &CocoResults) -> [String; 2] {
        [true_ones(self, image), found_ones(image, results)].map(|objects| self.counted(&objects))
    }

    /// An image with the objects that were found on it with more than [`SURE`], and beside it with its objects.
    pub fn picture(&self, image: u64, picture: RgbImage, results: &CocoResults) -> RgbImage {
        let found = self.drawn(picture.clone(), &found_ones(image, results));
        beside(&found, &self.drawn(picture, &true_ones(self, image)))
    }

    fn counted(&self, objects: &[&Annotation]) -> String {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        objects.iter().for_each(|object| *counts.entry(object.category_id).or_default() += 1);
        let mut counts: Vec<(u64, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
        let told = counts.iter().take(NAMED).map(|(id, count)| format!("{count} {}", self.name(*id)));
        let mut text: Vec<String> = told.collect();
        let rest: usize = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
        if rest > 0 {
            text.push(format!("{rest} others"));
        }
        if text.is_empty() { "nothing".to_owned() } else { text.join(", ") }
    }

    fn name(&self, category: u64) -> String {
        let found = self.categories().iter().find(|known| known.id == category);
        found.map_or_else(|| category.to_string(), |known| known.name.clone())
    }

    fn drawn(&self, picture: RgbImage, list: &[&Annotation]) -> RgbImage {
        let size = [picture.width(), picture.height()];
        let masks: Vec<Option<Mask>> = list.iter().map(|object| self.mask(object, size)).collect();
        let names: Vec<String> = list.iter().map(|object| self.name(object.category_id)).collect();
        let drawn = list.iter().zip(&masks).zip(&names).filter_map(|((object, mask), label)| {
            let [x, y, w, h] = object.bbox?.map(|edge| edge as f32);
            let index = self.categories().iter().position(|known| known.id == object.category_id)?;
            let score = object.score.unwrap_or(1.0) as f32;
            Some(DrawnObject { index, label, score, corners: [x, y, x + w, y + h], mask: mask.as_ref() })
        });
        let drawn: Vec<DrawnObject> = drawn.collect();
        objects(picture, &drawn, OPACITY)
    }

    /// An object's mask on a picture of this size; a mask of another size, which may be any, is none of it.
    fn mask(&self, object: &Annotation, picture: [u32; 2]) -> Option<Mask> {
        let rle = self.dataset().ann_to_rle(object).filter(|rle| [rle.w, rle.h] == picture)?;
        let [width, height] = [rle.w as usize, rle.h as usize];
        // Column by column.
        let columns = hotcoco::mask::decode(&rle);
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels =
            rows.map(|(x, y)| columns.get(x * height + y).is_some_and(|&pixel| pixel != 0)).collect();
        Some(Mask { origin: [0, 0], size: [width, height], pixels })
    }
}

fn true_ones(truth: &CocoTruth, image: u64) -> Vec<&Annotation> {
    of_image(truth.dataset(), image, |object| !object.iscrowd)
}

fn found_ones(image: u64, results: &CocoResults) -> Vec<&Annotation> {
    of_image(results.dataset(), image, |found| found.score.is_some_and(|score| score > SURE))
}

fn of_image(dataset: &COCO, image: u64, counts: impl Fn(&Annotation) -> bool) -> Vec<&Annotation> {
    let ids = dataset.get_ann_ids_for_img(image).iter();
    ids.filter_map(|&id| dataset.get_ann(id)).filter(|object| counts(object)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::CocoResult;

    #[test]
    fn what_was_found_stands_left_of_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.json");
        let object = |id: u64, image: u64, category: u64, crowd: u8| {
            format!(
                r#"{{"id": {id}, "image_id": {image}, "category_id": {category}, "bbox": [8, 8, 40, 30], "area": 1200, "iscrowd": {crowd}}}"#
            )
        };
        let objects = [
            object(1, 5, 2, 0),
            object(2, 5, 2, 0),
            object(3, 5, 1, 0),
            object(4, 5, 1, 1),
            object(5, 6, 1, 0),
        ];
        let text = format!(
            r#"{{"images": [{{"id": 5, "file_name": "a.png", "width": 64, "height": 48}}, {{"id": 6, "file_name": "b.png"}}],
                "categories": [{{"id": 1, "name": "dog"}}, {{"id": 2, "name": "cat"}}], "annotations": [{}]}}"#,
            objects.join(",")
        );
        std::fs::write(&path, text).unwrap();
        let truth = CocoTruth::open(&path).unwrap();
        let found = |image_id: u64, score: f32| CocoResult {
            image_id,
            category_id: 1,
            bbox: [8.0, 8.0, 40.0, 30.0],
            score,
            segmentation: None,
        };
        let results = truth.results_of([found(5, 0.9), found(5, 0.2), found(6, 0.1)]).unwrap();
        // Crowds, and what is unlikely, are left out; the most frequent come first.
        assert_eq!(truth.told(5, &results), ["2 cat, 1 dog", "1 dog"]);
        assert_eq!(truth.told(6, &results), ["1 dog", "nothing"]);
        // A mask is drawn on what it is of, and never unpacked for anything else.
        let mask = |size: [usize; 2]| {
            let counts = hotcoco::mask::rle_to_string(&hotcoco::mask::encode(&[1; 12], 3, 4).unwrap());
            let mask = crate::results::Rle { size, counts };
            truth.results_of([CocoResult { segmentation: Some(mask), ..found(6, 0.9) }]).unwrap()
        };
        for (size, picture, drawn) in [([3, 4], [4, 3], true), ([3, 4], [64, 48], false)] {
            let results = mask(size);
            assert_eq!(truth.mask(&results.annotations()[0], picture).is_some(), drawn, "{picture:?}");
        }
        let grey = RgbImage::from_pixel(64, 48, image::Rgb([128; 3]));
        let picture = truth.picture(6, grey, &results);
        let half = picture.width() / 2;
        let is_drawn = |columns: std::ops::Range<u32>| {
            let mut pixels = columns.flat_map(|x| (0..picture.height()).map(move |y| (x, y)));
            pixels.any(|(x, y)| ![[128; 3], [255; 3]].contains(&picture.get_pixel(x, y).0))
        };
        assert!(!is_drawn(0..half - 8) && is_drawn(half + 8..picture.width()));
    }
}
