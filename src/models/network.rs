//! Networks by what they answer, and the registry of what stands on a backbone.

use nat_convert::arch::{Architecture, Head};

use super::classifier::Classifier;
use super::detector::Detector;
use super::mask_rcnn::MaskRcnn;
use super::segmenter::Segmenter;
use super::uper::Upernet;
use crate::weights::{LoadError, Weights};

/// A network of any task.
#[non_exhaustive]
pub enum Network {
    /// A classifier, or a backbone alone.
    Classifier(Box<Classifier>),
    /// Finds objects.
    Detector(Box<dyn Detector>),
    /// Gives every pixel a class.
    Segmenter(Box<dyn Segmenter>),
}

impl Network {
    /// Builds the network that `architecture` describes and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ.
    pub fn new(architecture: &Architecture, weights: &Weights) -> std::result::Result<Self, LoadError> {
        Ok(match &architecture.head {
            Head::Features | Head::Classifier(_) => {
                Self::Classifier(Box::new(Classifier::new(architecture, weights)?))
            }
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => {
                Self::Detector(Box::new(MaskRcnn::new(architecture, detector, weights)?))
            }
            Head::Upernet(widths) => Self::Segmenter(Box::new(Upernet::new(architecture, widths, weights)?)),
        })
    }
}
