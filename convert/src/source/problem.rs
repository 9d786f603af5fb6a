//! What is wrong with a file.

use std::io;
use std::path::PathBuf;

/// Why a file could not be opened or read: one line that says which file, what, where in it, and
/// where possible what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
#[non_exhaustive]
pub struct StoreError {
    /// The file, or the name that bytes in memory were given.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Flaw,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The operating system refused.
    #[error("{0}")]
    Io(io::Error),
    /// The file is something else: what, and what to do.
    #[error("not a checkpoint but {0}")]
    NotACheckpoint(String),
    /// A part of the file contradicts itself or the file's length, or exceeds a limit.
    #[error("{place}: {what}")]
    Damaged {
        /// The entry of the archive and the byte in it.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// A checkpoint, but written in a way that is not read here.
    #[error("{0}")]
    Unsupported(String),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Lengths are checked against the file's: it was cut since.
            io::ErrorKind::UnexpectedEof => Flaw::Damaged {
                place: "file".into(),
                what: "it has become shorter while it was read: download or copy it again".into(),
            },
            // What the unpacker says of bytes that nobody packed.
            io::ErrorKind::InvalidData => Flaw::Damaged {
                place: "file".into(),
                what: format!("what is compressed in it is damaged ({error}): download or copy it again"),
            },
            _ => Flaw::Io(error),
        }
    }
}

/// A name out of a file as it may stand in a message: quoted, on one line, and short.
pub(super) fn quoted(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", name[..end].escape_debug()),
        None => format!("`{}`", name.escape_debug()),
    }
}
