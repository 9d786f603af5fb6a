//! What a library user calls: a model that is loaded, images in, results out. No arguments, no
//! printing, no network: a name is looked up and fetched by [`crate::zoo`].

pub mod bench;
pub mod classify;
pub mod detect;
mod embed;
mod error;
pub mod features;
pub mod files;
mod fingerprint;
mod image_task;
mod model;
#[cfg(feature = "draw")]
mod pictures;
pub mod saliency;
pub mod segment;
#[cfg(test)]
mod tests;

pub use classify::{Classify, ClassifyOptions};
pub use detect::{Detect, DetectOptions};
pub use embed::Embed;
pub use error::TaskError;
pub use features::ExtractFeatures;
pub use image_task::{ImageTask, usual_batch_size};
pub use model::{LoadOptions, Model};
#[cfg(feature = "draw")]
pub use pictures::{DetectPicture, SegmentPicture};
pub use saliency::{Saliency, SaliencyOptions};
pub use segment::{Segment, SegmentOptions};
