//! Puts canonical tensors together that lie in parts in a file.

use super::mapped::Canonical;
use crate::source::TensorRef;

/// One row of a matrix.
pub(super) fn row(tensor: &TensorRef, index: usize) -> TensorRef {
    TensorRef {
        shape: tensor.shape[1..].to_vec(),
        strides: tensor.strides[1..].to_vec(),
        offset: tensor.offset + index * tensor.strides[0],
        ..*tensor
    }
}

/// A tensor of the file on its way to a canonical name.
pub(super) struct Piece {
    /// Where it stands among the parts of the canonical tensor, and how many there must be.
    pub place: usize,
    pub of: usize,
    pub from: String,
    pub tensor: TensorRef,
}

/// Puts the pieces of one canonical tensor together, or says which don't fit and what is wrong with them.
pub(super) fn assemble(mut pieces: Vec<Piece>) -> Result<Canonical, (String, &'static str)> {
    pieces.sort_by_key(|piece| piece.place);
    // A tensor that is saved under two names is one.
    pieces.dedup_by(|later, first| later.place == first.place && later.tensor == first.tensor);
    let names: Vec<_> = pieces.iter().map(|piece| piece.from.as_str()).collect();
    let (from, first) = (names.join(" + "), &pieces[0]);
    if !pieces.iter().map(|piece| piece.place).eq(0..first.of) {
        let names = names.join(" and ");
        return Err(match first.of {
            1 => (names, "tensors that go by the same name"),
            _ => (names, "parts of what query, key and value make together"),
        });
    }
    let (dtype, mut shape) = (first.tensor.dtype, first.tensor.shape.clone());
    for Piece { tensor, .. } in &pieces[1..] {
        if tensor.dtype != dtype || tensor.shape.is_empty() || tensor.shape.get(1..) != shape.get(1..) {
            return Err((from, "tensors that do not fit together"));
        }
        shape[0] = shape[0].saturating_add(tensor.shape[0]);
    }
    Ok(Canonical { from, dtype, shape, parts: pieces.into_iter().map(|piece| piece.tensor).collect() })
}
