//! The naming schemes of checkpoints.

use std::fmt;

use serde::Serialize;

/// The naming schemes of the published files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// SHI-Labs' classifiers.
    Original,
    /// `backbone.`, `neck.`, … as mmdetection and mmsegmentation name them.
    #[serde(rename = "openmmlab")]
    OpenMmlab,
    /// `embeddings.`, `encoder.levels.`, … of Hugging Face Transformers.
    Transformers,
    /// A file that this crate wrote.
    Converted,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Original => "original (SHI-Labs)",
            Layout::OpenMmlab => "OpenMMLab",
            Layout::Transformers => "Transformers",
            Layout::Converted => "converted (nat-convert)",
        })
    }
}
