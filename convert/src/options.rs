//! What a user says about a checkpoint.

use crate::arch::Dilations;

/// What a user says about a checkpoint that the file does not: nothing by default.
///
/// ```
/// use nat_convert::checkpoint::{Options, Part};
///
/// let options = Options::default().with_weights_key("state_dict").with_part(Part::Backbone);
/// assert_eq!(options.weights_key.as_deref(), Some("state_dict"));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// A name from weights.toml: its dilations and preprocessing are taken, its sizes compared.
    pub arch: Option<String>,
    /// Dilations, preferred to all others.
    pub dilations: Option<Dilations>,
    /// How much of the network to take.
    pub part: Part,
    /// The key under which the file holds the weights, or keys joined by dots; where names of several networks
    /// stand under it, what the names of one begin with follows. `None` takes the preferred ones.
    pub weights_key: Option<String>,
    /// Tensors to leave out, by their names in the file: `*` stands for any characters, `?` for one.
    pub ignore: Vec<String>,
}

impl Options {
    /// Sets [`Options::arch`].
    pub fn with_arch(self, arch: impl Into<String>) -> Self {
        Self { arch: Some(arch.into()), ..self }
    }

    /// Sets [`Options::dilations`].
    pub fn with_dilations(self, dilations: Dilations) -> Self {
        Self { dilations: Some(dilations), ..self }
    }

    /// Sets [`Options::part`].
    pub fn with_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// Sets [`Options::weights_key`].
    pub fn with_weights_key(self, weights_key: impl Into<String>) -> Self {
        Self { weights_key: Some(weights_key.into()), ..self }
    }

    /// Adds patterns to [`Options::ignore`].
    pub fn with_ignore<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.ignore.extend(patterns.into_iter().map(Into::into));
        self
    }
}

/// How much of a network to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Backbone and head.
    #[default]
    All,
    /// The backbone, under the names of a bare one.
    Backbone,
}
