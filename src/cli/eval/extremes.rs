//! The images of a dataset that came out worst and best.

use std::cmp::Ordering;

/// An image that a report shows.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownImage {
    /// The image.
    pub name: String,
    /// How well it came out, 0 to 1.
    pub score: f64,
    /// Whether it is right, where there is right and wrong.
    pub right: Option<bool>,
    /// What it is, in words.
    pub truth: String,
    /// What was found, in words.
    pub answer: String,
}

/// The images with the lowest and with the highest scores, so many of each.
#[derive(Debug, Default)]
pub struct Extremes {
    most: usize,
    /// Lowest first.
    worst: Vec<ShownImage>,
    /// Highest first.
    best: Vec<ShownImage>,
}

impl Extremes {
    /// Keeps up to `most` of each.
    pub fn of(most: usize) -> Self {
        Self { most, worst: Vec::new(), best: Vec::new() }
    }

    /// Looks at an image. Of equal scores the name decides, so that the order of the images does not matter.
    pub fn add(&mut self, image: &ShownImage) {
        let by_name = |a: &ShownImage, b: &ShownImage| a.name.cmp(&b.name);
        let lower = |a: &ShownImage, b: &ShownImage| a.score.total_cmp(&b.score).then_with(|| by_name(a, b));
        let higher = |a: &ShownImage, b: &ShownImage| b.score.total_cmp(&a.score).then_with(|| by_name(a, b));
        keep(&mut self.worst, self.most, image, lower);
        keep(&mut self.best, self.most, image, higher);
    }

    /// All of them, the worst first, each once.
    pub fn into_images(self) -> Vec<ShownImage> {
        let mut images = self.worst;
        let best = self.best.into_iter().rev();
        images.extend(
            best.filter(|image| !images.iter().any(|other| other.name == image.name)).collect::<Vec<_>>(),
        );
        images
    }
}

fn keep(
    images: &mut Vec<ShownImage>,
    most: usize,
    image: &ShownImage,
    order: impl Fn(&ShownImage, &ShownImage) -> Ordering,
) {
    let place = images.partition_point(|other| order(other, image).is_lt());
    if place < most {
        images.insert(place, image.clone());
        images.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, score: f64) -> ShownImage {
        ShownImage { name: name.to_owned(), score, right: None, truth: String::new(), answer: String::new() }
    }

    #[test]
    fn the_ends_are_kept_whatever_the_order() {
        let all = [("a", 0.5), ("b", 0.1), ("c", 0.9), ("d", 0.1), ("e", 0.7), ("f", 0.9)];
        for turn in 0..all.len() {
            let mut extremes = Extremes::of(2);
            let turned = all[turn..].iter().chain(&all[..turn]);
            turned.for_each(|(name, score)| extremes.add(&shown(name, *score)));
            let names: Vec<String> = extremes.into_images().into_iter().map(|image| image.name).collect();
            assert_eq!(names, ["b", "d", "f", "c"]);
        }
        // Few images are each there once.
        let mut extremes = Extremes::of(3);
        ["x", "y"].iter().for_each(|name| extremes.add(&shown(name, 0.5)));
        assert_eq!(extremes.into_images().len(), 2);
        let mut none = Extremes::of(0);
        none.add(&shown("x", 0.5));
        assert!(none.into_images().is_empty());
    }
}
