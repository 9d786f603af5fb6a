//! What a user says about a checkpoint.

use crate::arch::Dilations;

/// What a user says about a checkpoint that the file does not.
#[derive(Clone, Debug, Default)]
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

/// How much of a network to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Backbone and head.
    #[default]
    All,
    /// The backbone, under the names of a bare one.
    Backbone,
}
