//! Why weights could not be taken.

/// One tensor that does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The source has no such tensor; `nearest` is the most similar name that it has.
    #[error("{name} is missing{}", .nearest.as_ref().map(|n| format!(" (nearest: {n})")).unwrap_or_default())]
    Missing { name: String, nearest: Option<String> },
    /// It has another shape than the network.
    #[error("{name} has shape {got:?}, expected {expected:?}")]
    Shape { name: String, got: Vec<usize>, expected: Vec<usize> },
    /// It is there and can't be taken.
    #[error("{name}: {why}")]
    Unreadable { name: String, why: String },
    /// The network has no use for it.
    #[error("{name} is not used")]
    Unused { name: String },
}

/// Why weights could not be taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum LoadError {
    /// A file, or what was given instead of one, can't be read.
    #[error("{path}: {why}")]
    File { path: String, why: String },
    /// Everything in which the weights differ from the network.
    #[error("the weights do not fit the model: {}", list(.0))]
    Mismatch(Vec<TensorProblem>),
    /// The architecture is of no network that can be built.
    #[error("the model can't be built: {0}")]
    Architecture(String),
}

/// Problems that a message lists.
pub(super) const SHOWN: usize = 12;

/// The first problems in words, and how many more there are.
fn list(problems: &[TensorProblem]) -> String {
    let mut text = problems.iter().take(SHOWN).map(TensorProblem::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text += &format!("; and {} more", problems.len() - SHOWN);
    }
    text
}
