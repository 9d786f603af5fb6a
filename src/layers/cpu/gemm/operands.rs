//! The left operand of a product: rows of values, from memory or made on demand, as words of operands
//! (one f32, or two bf16).

use std::ops::Range;

use super::buffers::Room;
use crate::simd::{Simd, Word};

/// Rows of words, `stride` from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, W> {
    pub(crate) words: &'a [W],
    pub(crate) stride: usize,
}

/// The left operand: rows of `depth` values, from memory or made on demand.
pub(crate) trait Rows: Sync {
    /// The rows in `range` as operands: a slice of memory, or made in `room`.
    fn get<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        room: &'a mut Room<S::Word>,
    ) -> Operands<'a, S::Word>;
}

/// Rows that lie in memory as f32.
pub(crate) struct StoredRows<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) depth: usize,
}

impl Rows for StoredRows<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        room: &'a mut Room<S::Word>,
    ) -> Operands<'a, S::Word> {
        let rows = &self.rows[range.start * self.depth..range.end * self.depth];
        if let Some(words) = S::Word::as_words(rows)
            && stride(self.depth) == self.depth
        {
            return Operands { words, stride: self.depth };
        }
        let stride = room_for::<S>(&mut room.words, range.len(), self.depth);
        for (from, to) in rows.chunks_exact(self.depth).zip(room.words.chunks_exact_mut(stride)) {
            operands(s, from, to, 0);
        }
        Operands { words: &room.words, stride }
    }
}

/// Rows that lie in memory, each value multiplied with its column's factor.
pub(crate) struct ScaledRows<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) factors: &'a [f32],
}

impl Rows for ScaledRows<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        room: &'a mut Room<S::Word>,
    ) -> Operands<'a, S::Word> {
        let depth = self.factors.len();
        let rows = &self.rows[range.start * depth..range.end * depth];
        let stride = room_for::<S>(&mut room.words, range.len(), depth);
        for (from, to) in rows.chunks_exact(depth).zip(room.words.chunks_exact_mut(stride)) {
            for i in (0..depth).step_by(S::LANES) {
                let n = S::LANES.min(depth - i);
                // SAFETY: `n` values of a row and of the factors from `i` on, and `room` for them.
                unsafe {
                    let factors = s.load_first(self.factors.as_ptr().add(i), n);
                    let x = s.mul(s.load_first(from.as_ptr().add(i), n), factors);
                    s.store_operands(to.as_mut_ptr(), i, x, n);
                }
            }
        }
        Operands { words: &room.words, stride }
    }
}

/// Words from a row of `words` to the next: rows at multiples of 2 KiB would share two sets of the L1
/// cache, and a tile's rows would drive each other out of it.
fn stride(words: usize) -> usize {
    if words.is_multiple_of(512) { words + 16 } else { words }
}

/// Makes `words` as long as `rows` rows of `depth` operands and returns the words from one to the
/// next. What an odd depth leaves of a row's last word is zero.
#[inline(always)]
pub(crate) fn room_for<S: Simd>(words: &mut Vec<S::Word>, rows: usize, depth: usize) -> usize {
    let count = depth.div_ceil(S::Word::VALUES);
    let stride = stride(count);
    words.resize(rows * stride, S::Word::default());
    if !depth.is_multiple_of(S::Word::VALUES) {
        words.iter_mut().skip(count - 1).step_by(stride).for_each(|word| *word = S::Word::default());
    }
    stride
}

/// Writes `values` as operands, from the `at`-th of `row` on.
#[inline(always)]
pub(crate) fn operands<S: Simd>(s: S, values: &[f32], row: &mut [S::Word], at: usize) {
    assert!(at + values.len() <= row.len() * S::Word::VALUES);
    for i in (0..values.len()).step_by(S::LANES) {
        let n = S::LANES.min(values.len() - i);
        // SAFETY: `n` values from `i` on, and room for them by the assertion.
        unsafe { s.store_operands(row.as_mut_ptr(), at + i, s.load_first(values.as_ptr().add(i), n), n) };
    }
}
