//! The left operand of a product: rows of values, from memory or made on demand, as words of operands
//! (one f32, or two bf16).

use std::ops::Range;

use super::simd::Simd;

/// Rows of words, `stride` from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) words: &'a [f32],
    pub(crate) stride: usize,
}

/// The left operand: rows of `depth` values, from memory or made on demand.
pub(crate) trait Rows: Sync {
    /// The rows in `range` as operands: a slice of memory, or made in `scratch`.
    fn get<'a, S: Simd>(&'a self, s: S, range: Range<usize>, scratch: &'a mut Vec<f32>) -> Operands<'a>;
}

/// Rows that lie in memory as f32.
pub(crate) struct Plain<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) depth: usize,
}

impl Rows for Plain<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(&'a self, s: S, range: Range<usize>, scratch: &'a mut Vec<f32>) -> Operands<'a> {
        let rows = &self.rows[range.start * self.depth..range.end * self.depth];
        if S::WORD == 1 && stride(self.depth) == self.depth {
            return Operands { words: rows, stride: self.depth };
        }
        let stride = room::<S>(scratch, range.len(), self.depth);
        for (from, to) in rows.chunks_exact(self.depth).zip(scratch.chunks_exact_mut(stride)) {
            operands(s, from, to, 0);
        }
        Operands { words: scratch, stride }
    }
}

/// Rows that lie in memory, each value multiplied with its column's factor.
pub(crate) struct Scaled<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) factors: &'a [f32],
}

impl Rows for Scaled<'_> {
    #[inline(always)]
    fn get<'a, S: Simd>(&'a self, s: S, range: Range<usize>, scratch: &'a mut Vec<f32>) -> Operands<'a> {
        let depth = self.factors.len();
        let rows = &self.rows[range.start * depth..range.end * depth];
        let stride = room::<S>(scratch, range.len(), depth);
        for (from, to) in rows.chunks_exact(depth).zip(scratch.chunks_exact_mut(stride)) {
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
        Operands { words: scratch, stride }
    }
}

/// Words from a row of `words` to the next: rows at multiples of 2 KiB would share two sets of the L1
/// cache, and a tile's rows would drive each other out of it.
fn stride(words: usize) -> usize {
    if words.is_multiple_of(512) { words + 16 } else { words }
}

/// Makes `scratch` as long as `rows` rows of `depth` operands and returns the words from one to the
/// next. What an odd depth leaves of a row's last word is zero.
#[inline(always)]
pub(crate) fn room<S: Simd>(scratch: &mut Vec<f32>, rows: usize, depth: usize) -> usize {
    let words = depth.div_ceil(S::WORD);
    let stride = stride(words);
    scratch.resize(rows * stride, 0.0);
    if !depth.is_multiple_of(S::WORD) {
        scratch.iter_mut().skip(words - 1).step_by(stride).for_each(|word| *word = 0.0);
    }
    stride
}

/// Writes `values` as operands, from the `at`-th of `row` on.
#[inline(always)]
pub(crate) fn operands<S: Simd>(s: S, values: &[f32], row: &mut [f32], at: usize) {
    assert!(at + values.len() <= row.len() * S::WORD);
    for i in (0..values.len()).step_by(S::LANES) {
        let n = S::LANES.min(values.len() - i);
        // SAFETY: `n` values from `i` on, and room for them by the assertion.
        unsafe { s.store_operands(row.as_mut_ptr(), at + i, s.load_first(values.as_ptr().add(i), n), n) };
    }
}
