//! What adds up what was found of each image.

use nat_infer::results::{ClassScores, FailedImage, Metrics};
use serde::de::DeserializeOwned;

use super::super::record::Record;

/// What is kept of an image while a dataset is evaluated: a line of `<stem>.images.jsonl`.
pub trait ImageRecord: Record + DeserializeOwned + Clone + PartialEq {
    /// The image.
    fn image(&self) -> &str;

    /// What decided what was found, see [`Evaluation::run`](nat_infer::results::Evaluation::run).
    fn run(&self) -> &str;
}

/// Adds up what was found of each image. The order of the images does not matter.
pub trait Score {
    /// What is found of an image.
    type Record: ImageRecord;

    /// The record of an earlier run, by what the dataset says of the image now; `None` where that takes computing it again.
    fn as_of_now(&self, record: Self::Record) -> Option<Self::Record>;

    /// Adds what was found of an image.
    ///
    /// # Errors
    /// When that is none of this dataset.
    fn add(&mut self, record: Self::Record) -> anyhow::Result<()>;

    /// Adds an image that has no answer, the one of this number in the run, and says of it what a merge has to know.
    ///
    /// # Errors
    /// When what it is compared with can't be read.
    fn add_failed(&mut self, number: usize, failed: &mut FailedImage) -> anyhow::Result<()>;

    /// Adds one that an earlier run could not do, with what that run said of it.
    ///
    /// # Errors
    /// When that is none of this dataset.
    fn add_known_failure(&mut self, failed: &FailedImage) -> anyhow::Result<()>;

    /// The scores, and those of every class.
    ///
    /// # Errors
    /// When there is nothing to score.
    fn scores(&mut self) -> anyhow::Result<(Metrics, Vec<ClassScores>)>;
}
