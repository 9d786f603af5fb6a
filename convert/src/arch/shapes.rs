//! What tensors a checkpoint has, as a network is read off their names and shapes.

use std::collections::BTreeMap;

/// Canonical names with shapes.
pub(crate) type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// More than the size of any dimension: files can claim anything, and products of a few of these stay far from
/// overflowing.
pub(crate) const MAX_DIM: usize = 1 << 24;

/// Why no architecture can be read off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InferError {
    /// The tensors that every network here has are not there.
    OtherNetwork,
    /// They are, but a size can't be told: which, and why.
    Unclear(String),
}

/// Tensors below a prefix.
pub(crate) struct ShapeView<'a> {
    /// All tensors.
    pub shapes: &'a Shapes<'a>,
    /// What the names that are asked for begin with.
    pub prefix: &'a str,
}

impl ShapeView<'_> {
    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(format!("{}{name}", self.prefix).as_str()).copied()
    }

    /// Dimension `axis` of a tensor that must be there.
    pub fn dim(&self, name: &str, axis: usize) -> Result<usize, InferError> {
        let shape = self.shape(name).ok_or_else(|| InferError::Unclear(format!("`{name}` is missing")))?;
        match shape.get(axis) {
            Some(&dim) if (1..=MAX_DIM).contains(&dim) => Ok(dim),
            _ => Err(InferError::Unclear(format!("`{name}` has shape {shape:?}"))),
        }
    }

    /// The names below `stem`, without it.
    pub fn below(&self, stem: &str) -> impl Iterator<Item = &str> {
        let stem = format!("{}{stem}", self.prefix);
        self.shapes.keys().filter_map(move |name| name.strip_prefix(stem.as_str()))
    }

    /// Whether there is a tensor below `stem`.
    pub fn has(&self, stem: &str) -> bool {
        self.below(stem).next().is_some()
    }

    /// How many there are of a numbered thing (`stem` followed by a number, then `tail`): one more
    /// than the largest number.
    pub fn count(&self, stem: &str, tail: &str) -> Result<usize, InferError> {
        let numbers = self.below(stem).filter_map(|rest| {
            let (number, rest) = rest.split_once('.')?;
            number.parse::<usize>().ok().filter(|_| rest.starts_with(tail))
        });
        match numbers.max() {
            None => Ok(0),
            Some(last) if last < self.shapes.len() => Ok(last + 1),
            Some(last) => Err(InferError::Unclear(format!("`{stem}{last}` has too large a number"))),
        }
    }
}
