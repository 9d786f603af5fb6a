//! Why a dataset or a file of predictions can't be used.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::pipeline::{name_of, reason};

/// Why a dataset or a file of predictions can't be used: one line that begins with the file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
#[non_exhaustive]
pub struct DatasetError {
    /// The file or folder.
    pub file: String,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl DatasetError {
    /// What is wrong with the file or folder at `path`.
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { file: name_of(path), why: why.into() }
    }

    /// Why the file or folder at `path` can't be read.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::new(path, "no such file or folder"),
            _ => Self::new(path, format!("can't be read: {}", reason(error))),
        }
    }

    /// An error of the file or folder at `path`, which may begin with its name already.
    pub fn of(path: &Path, error: &dyn Display) -> Self {
        let (text, name) = (error.to_string(), name_of(path));
        let why = text.strip_prefix(&format!("{name}: ")).map(str::to_owned);
        Self { file: name, why: why.unwrap_or(text) }
    }
}
