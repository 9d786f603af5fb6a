//! Why an image has no answer.

use super::source_error::SourceError;
use crate::images::ImageError;
use crate::tasks::TaskError;

/// Why an image has no answer: one line that begins with its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// What was named is no image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The image can't be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The task failed on it.
    #[error("{name}: {error}")]
    Task {
        /// The image.
        name: String,
        /// Why.
        error: Box<TaskError>,
    },
    /// The program itself failed on it.
    #[error("{name}: the program failed on this image ({message}); please report it")]
    Crash {
        /// The image.
        name: String,
        /// What it said.
        message: String,
    },
    /// The device does not answer any more: no image after this one can be done.
    #[error("{name}: the device is lost: {error}")]
    DeviceLost {
        /// The image.
        name: String,
        /// What it said last.
        error: Box<TaskError>,
    },
}
