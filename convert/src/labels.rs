//! Names of the classes of the published checkpoints, embedded. `convert/assets/labels/README.md` says
//! where each list comes from.

use serde::Deserialize;

/// A set of classes, in the order of a network's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Labels {
    /// The 1000 classes of ILSVRC 2012, short names.
    #[serde(rename = "imagenet-1k")]
    Imagenet1k,
    /// The 21841 synsets of ImageNet's autumn 2011 release, in the order of their ids.
    #[serde(rename = "imagenet-22k")]
    Imagenet22k,
    /// MS-COCO's 80 object categories.
    Coco,
    /// ADE20K's 150 classes of the scene parsing benchmark.
    Ade20k,
    /// Handwritten digits, `0` to `9`.
    Digits,
}

impl Labels {
    /// How many classes there are.
    pub const fn classes(self) -> usize {
        match self {
            Self::Imagenet1k => 1000,
            Self::Imagenet22k => 21841,
            Self::Coco => 80,
            Self::Ade20k => 150,
            Self::Digits => 10,
        }
    }

    /// The names, in index order.
    pub fn names(self) -> Vec<&'static str> {
        self.lines().map(|line| line.split_once('\t').map_or(line, |(_, name)| name)).collect()
    }

    /// The number that a dataset's annotations give class `index`: MS-COCO's 1 to 90 with gaps,
    /// `index + 1` elsewhere.
    pub fn category_id(self, index: usize) -> usize {
        let listed = self.lines().nth(index).and_then(|line| line.split_once('\t'));
        listed.and_then(|(id, _)| id.parse().ok()).unwrap_or(index + 1)
    }

    /// The colours in which the classes are usually shown, red, green and blue, in index order; ADE20K alone has
    /// some.
    pub fn colours(self) -> Option<Vec<[u8; 3]>> {
        let colour = |line: &str| {
            let mut values = line.split(' ').map(|value| value.parse().unwrap_or_default());
            [(); 3].map(|()| values.next().unwrap_or_default())
        };
        let colours = || include_str!("../assets/labels/ade20k-colours.txt").lines().map(colour).collect();
        (self == Self::Ade20k).then(colours)
    }

    /// The WordNet ids of the classes, which ImageNet's folders are called by; ImageNet-1K alone has some.
    pub fn synsets(self) -> Option<Vec<&'static str>> {
        let ids = || include_str!("../assets/labels/imagenet-1k-synsets.txt").lines().collect();
        (self == Self::Imagenet1k).then(ids)
    }

    fn lines(self) -> std::str::Lines<'static> {
        match self {
            Self::Imagenet1k => include_str!("../assets/labels/imagenet-1k.txt"),
            Self::Imagenet22k => include_str!("../assets/labels/imagenet-22k.txt"),
            Self::Coco => include_str!("../assets/labels/coco.txt"),
            Self::Ade20k => include_str!("../assets/labels/ade20k.txt"),
            Self::Digits => include_str!("../assets/labels/digits.txt"),
        }
        .lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_whole_and_in_order() {
        for (labels, known) in [
            (Labels::Imagenet1k, &[(0, "tench"), (281, "tabby"), (999, "toilet tissue")][..]),
            (Labels::Imagenet22k, &[(0, "organism, being"), (359, "tench, Tinca tinca")]),
            (Labels::Coco, &[(0, "person"), (79, "toothbrush")]),
            (Labels::Ade20k, &[(0, "wall"), (2, "sky"), (149, "flag")]),
            (Labels::Digits, &[(0, "0"), (9, "9")]),
        ] {
            let names = labels.names();
            assert_eq!(names.len(), labels.classes(), "{labels:?}");
            assert!(names.iter().all(|n| !n.is_empty() && n.trim() == *n), "{labels:?}");
            for &(index, name) in known {
                assert_eq!(names[index], name, "{labels:?}");
            }
        }
    }

    #[test]
    fn ade20k_has_its_colours() {
        let colours = Labels::Ade20k.colours().unwrap();
        assert_eq!(colours.len(), Labels::Ade20k.classes());
        // wall, sky, flag
        assert_eq!([0, 2, 149].map(|i| colours[i]), [[120, 120, 120], [6, 230, 230], [92, 0, 255]]);
        assert_eq!(Labels::Coco.colours(), None);
    }

    #[test]
    fn coco_has_its_own_numbers() {
        let ids = |labels: Labels| (0..labels.classes()).map(|i| labels.category_id(i)).collect::<Vec<_>>();
        // The numbers between 1 and 90 that MS-COCO does not use.
        let left_out = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];
        assert_eq!(ids(Labels::Coco), (1..=90).filter(|i| !left_out.contains(i)).collect::<Vec<_>>());
        assert_eq!(ids(Labels::Digits), (1..=10).collect::<Vec<_>>());
    }
}
