//! The maps that a backbone makes of an image.

use super::module::{Count, count};

/// What the levels of a backbone give what stands on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Height and width of the image in pixels.
    pub image: [usize; 2],
    /// Each level's map, finest first.
    pub levels: Vec<MapSize>,
}

/// The map of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSize {
    /// Height times width.
    pub positions: Count,
    /// Channels.
    pub dim: usize,
}

impl MapSizes {
    /// Pixels of the image.
    pub fn pixels(&self) -> Count {
        let [height, width] = self.image.map(count);
        height * width
    }

    /// Channels of each map.
    pub fn dims(&self) -> Vec<usize> {
        self.levels.iter().map(|map| map.dim).collect()
    }

    /// Positions of a map; none of one that there is not.
    pub fn positions(&self, level: usize) -> Count {
        self.levels.get(level).map_or(count(0), |map| map.positions)
    }
}
