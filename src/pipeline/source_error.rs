//! Why something that was named gives no image.

use std::io;

/// Names that are images in a folder; a file that is named itself may be called anything.
pub(super) const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Why something that was named gives no image: one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("{0}: no such file or folder")]
    Missing(String),
    #[error("{name}: no image in this folder{} ({}){}", if *.below { " or below it" } else { "" },
        EXTENSIONS.join(", "), if *.below { "" } else { "; folders in it are not searched" })]
    Empty { name: String, below: bool },
    #[error("{name}: can't be read: {reason}")]
    Unreadable { name: String, reason: String },
    #[error("{0}: no file matches")]
    NoMatch(String),
    #[error("{0}: a link that leads nowhere")]
    DeadLink(String),
    #[error("{name}: a link back to {to}, which is searched already")]
    Loop { name: String, to: String },
    #[error("-: standard input can be given once")]
    StdinTwice,
}

impl SourceError {
    /// What gives no image.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing(name) | Self::NoMatch(name) | Self::DeadLink(name) => name,
            Self::Empty { name, .. } | Self::Unreadable { name, .. } | Self::Loop { name, .. } => name,
            Self::StdinTwice => "-",
        }
    }
}

/// What the system says, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
