//! What `search` says of images.

use serde::{Deserialize, Serialize};

/// The images of an index that are nearest to an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// The image that was looked for, as in [`Classification::image`](super::Classification::image).
    pub image: String,
    /// The model, as in [`Classification::model`](super::Classification::model).
    pub model: String,
    /// The index's safetensors file.
    pub index: String,
    /// The nearest images, the most similar one first.
    pub nearest: Vec<NearestImage>,
}

/// An image of an index that is near.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearestImage {
    /// Its name in the index; the row where nothing names it.
    pub image: String,
    /// Its row, from 0.
    pub row: usize,
    /// The cosine of the angle between the two images' features, -1 to 1.
    pub similarity: f32,
}
