//! A state dict under canonical names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::naming::Layout;
use super::unusable;
use crate::error::Unusable;
use crate::source::{ElementType, TensorRef};
use crate::warning::Warning;

/// A tensor under its canonical name: parts of the file, one below the other.
#[derive(Clone, Debug)]
pub(crate) struct Canonical {
    /// The names in the file.
    pub from: String,
    pub dtype: ElementType,
    pub shape: Vec<usize>,
    /// Concatenated along the first axis.
    pub parts: Vec<TensorRef>,
}

/// A tensor of the file that the network does not need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// Its name in the file.
    pub name: String,
    /// Why it is not needed.
    pub reason: &'static str,
}

/// A state dict under canonical names.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub layout: Layout,
    pub tensors: BTreeMap<String, Canonical>,
    pub dropped: Vec<Dropped>,
    /// What should have become a tensor and can't, with the canonical names that it stands for.
    pub unusable: Vec<(Unusable, Vec<String>)>,
    /// What a user must know about what was left out.
    pub warnings: Vec<Warning>,
}

impl Mapped {
    pub(super) fn is_unusable(&mut self, from: &str, names: Vec<String>, kind: unusable::Obstacle) {
        let unusable::Obstacle { what, advice } = kind;
        self.unusable.push((Unusable { name: from.to_owned(), what, advice }, names));
    }

    pub(super) fn drop(&mut self, name: &str, reason: &'static str) {
        self.dropped.push(Dropped { name: name.to_owned(), reason });
    }
}
