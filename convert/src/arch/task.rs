//! What networks are for.

/// What a network answers about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One class for the whole image.
    Classify,
    /// Boxes with classes and masks.
    Detect,
    /// A class for every pixel.
    Segment,
}

impl Task {
    /// The command that runs it: `classify`, `detect`, `segment`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Detect => "detect",
            Self::Segment => "segment",
        }
    }
}
