//! What a configuration says of a name.

/// A value of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Py {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// Lists, tuples and sets.
    List(Vec<Py>),
    /// Dictionaries, and calls of `dict`. Keys that are no text are their text.
    Dict(Vec<(String, Py)>),
    /// What is no literal, as it is written.
    Other(String),
}

impl Py {
    /// The value of a key, the last one if it is there twice; `None` also of what is no dictionary.
    pub fn get(&self, key: &str) -> Option<&Py> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::Int(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }

    /// The members of a list.
    pub fn list(&self) -> Option<&[Py]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// How many values this is.
    pub(super) fn size(&self) -> usize {
        1 + match self {
            Self::List(items) => items.iter().map(Self::size).sum(),
            Self::Dict(pairs) => pairs.iter().map(|(_, value)| value.size()).sum(),
            _ => 0,
        }
    }
}
