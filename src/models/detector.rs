//! What a detector does.

use candle_core::{Result, Tensor};
use nat_convert::recipe::DetectorRecipe;

use super::boxes::Corners;

/// A network that finds objects.
pub trait Detector: Send + Sync {
    /// The objects on each of the `pictures` that `images` [B, 3, H, W] were made of, normalised and with
    /// sides that are multiples of 32; with `masks` their masks. `None` of a picture of which the network
    /// says what is no number.
    ///
    /// # Errors
    /// When the images do not suit the network, or are not as many as `pictures`.
    fn forward(
        &self,
        images: &Tensor,
        pictures: &[Picture],
        selection: Selection,
        masks: bool,
    ) -> Result<Vec<Option<Detected>>>;

    /// Which detections are kept, as the detector was configured to be tested.
    fn selection(&self) -> Selection;
}

/// The picture that an input was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    /// Width and height of the resized picture, without padding.
    pub size: [f32; 2],
    /// Resized width and height over the original ones.
    pub scale_factor: [f32; 2],
}

/// Which detections are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// A class of a region counts when its probability is more than this.
    pub score_threshold: f32,
    /// The best so many are kept.
    pub max_detections: usize,
}

impl From<&DetectorRecipe> for Selection {
    /// As the detector was configured to be tested.
    fn from(recipe: &DetectorRecipe) -> Self {
        let &DetectorRecipe { score_threshold, max_detections, .. } = recipe;
        Self { score_threshold: score_threshold as f32, max_detections }
    }
}

/// A detected object.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The class.
    pub index: usize,
    /// Its probability.
    pub score: f32,
    /// The box in pixels of the original picture.
    pub corners: Corners,
}

/// What is on a picture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Detected {
    /// The objects, best first.
    pub found: Vec<Found>,
    /// Where they were asked for, the probability of each pixel of each object's box to belong to it, in a
    /// grid of 28x28: [objects, 28, 28], f32.
    pub masks: Option<Tensor>,
}
