//! What is passed over where images are looked for.

use std::path::Path;

use super::names::name_of;

/// How many names of an argument are no images, without being wrong.
#[derive(Default)]
pub struct PassedOver {
    pub folders: usize,
    pub files: usize,
    pub hidden: usize,
}

impl PassedOver {
    /// In words, of an argument; `None` of nothing.
    pub fn told(&self, argument: &Path) -> Option<String> {
        let Self { folders, files, hidden } = *self;
        let counts: Vec<String> = [
            (folders, "folder", "folders"),
            (files, "file of another kind", "files of other kinds"),
            (hidden, "hidden name", "hidden names"),
        ]
        .into_iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, many)| format!("{n} {}", if n == 1 { one } else { many }))
        .collect();
        (!counts.is_empty()).then(|| format!("{}: passed over {}", name_of(argument), counts.join(", ")))
    }
}
