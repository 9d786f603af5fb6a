//! What can make an answer another one than was meant.

use serde::Serialize;

/// Something that can make an answer another one than was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
#[non_exhaustive]
pub struct Warning {
    /// What it is, without what to do.
    pub text: String,
    /// What a caller can say about it.
    pub remedy: Option<Remedy>,
}

/// What a caller of [`Checkpoint::open`](crate::checkpoint::Checkpoint::open) can say so that a warning has no
/// reason any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// [`Options::arch`](crate::checkpoint::Options::arch) or
    /// [`Options::dilations`](crate::checkpoint::Options::dilations) states the dilations.
    Dilations,
    /// [`Options::weights_key`](crate::checkpoint::Options::weights_key) takes the other weights.
    WeightsKey,
    /// [`Options::ignore`](crate::checkpoint::Options::ignore) leaves the weights out that are taken.
    Ignore,
}

impl From<String> for Warning {
    fn from(text: String) -> Self {
        Self { text, remedy: None }
    }
}

impl From<Warning> for String {
    fn from(warning: Warning) -> Self {
        warning.text
    }
}
