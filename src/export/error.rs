//! Why there is no dataset.

use std::io;
use std::path::Path;

use crate::pipeline::name_of;

/// Why a dataset can't be written: one line each.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum ExportError {
    /// People correct annotations by hand: what is there is not replaced unless that was asked for.
    #[error("{file} is there already, and may have been corrected by hand")]
    There { file: String },
    #[error("{file} has what an interrupted run left")]
    Interrupted { file: String },
    #[error("{file}: another process is writing it")]
    Busy { file: String },
    /// What would be lost where it was written again.
    #[error("{file} is no dataset of this program and this model, or has more in it than it writes")]
    Foreign { file: String },
    #[error("{first} and {second} would both be {file}")]
    Shared { first: String, second: String, file: String },
    #[error("{file}: can't be read: {error}")]
    Read { file: String, error: io::Error },
    #[error("{file}: can't be written: {error}")]
    Write { file: String, error: io::Error },
}

impl ExportError {
    /// A file can't be read.
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        let file = name_of(path);
        move |error| Self::Read { file: file.clone(), error }
    }

    /// A file can't be written.
    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        let file = name_of(path);
        move |error| match error.kind() {
            io::ErrorKind::WouldBlock => Self::Busy { file: file.clone() },
            _ => Self::Write { file: file.clone(), error },
        }
    }
}
