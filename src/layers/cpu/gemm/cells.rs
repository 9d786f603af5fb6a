//! Where a product's tiles go: rows of values that threads share, or operands of a next product.

use std::marker::PhantomData;
use std::ops::Range;

use crate::simd::{Simd, Word};

/// What takes the vectors of a tile.
pub(crate) trait Cells<S: Simd>: Copy {
    /// Rows there are.
    fn rows(&self) -> usize;
    /// Values in each.
    fn columns(&self) -> usize;
    /// Writes the first `n` lanes from column `first` of `row` on.
    ///
    /// # Safety
    /// The place is inside, and no other task writes it at the same time.
    unsafe fn put(&self, s: S, row: usize, first: usize, v: S::V, n: usize);
}

/// A shared view of rows of values that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct ValueCells {
    pointer: *mut f32,
    rows: usize,
    columns: usize,
}

// SAFETY: every task writes rows and columns of its own; the driver hands them out.
unsafe impl Send for ValueCells {}
// SAFETY: as above.
unsafe impl Sync for ValueCells {}

impl ValueCells {
    /// A view of a task's own rows of `columns` values.
    pub(crate) fn of(rows: &mut [f32], columns: usize) -> Self {
        Self { pointer: rows.as_mut_ptr(), rows: rows.len() / columns.max(1), columns }
    }

    /// The rows in `range`.
    ///
    /// # Safety
    /// They are written, and no other task touches them while the slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn rows_mut(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.rows);
        let (start, len) = (range.start * self.columns, range.len() * self.columns);
        // SAFETY: inside the view by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

impl<S: Simd> Cells<S> for ValueCells {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn columns(&self) -> usize {
        self.columns
    }
    #[inline(always)]
    unsafe fn put(&self, s: S, row: usize, first: usize, v: S::V, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { s.store_first(self.pointer.add(row * self.columns + first), v, n) }
    }
}

/// A task's own rows of operands, made by [`room`](super::operands::room).
#[derive(Clone, Copy)]
pub(crate) struct OperandCells<'a, W> {
    pointer: *mut W,
    rows: usize,
    columns: usize,
    /// Words from a row to the next.
    stride: usize,
    words: PhantomData<&'a mut [W]>,
}

impl<'a, W: Word> OperandCells<'a, W> {
    /// Rows of `columns` operands, `stride` words from one to the next.
    pub(crate) fn of(words: &'a mut [W], columns: usize, stride: usize) -> Self {
        assert!(columns.div_ceil(W::VALUES) <= stride);
        let rows = words.len() / stride.max(1);
        Self { pointer: words.as_mut_ptr(), rows, columns, stride, words: PhantomData }
    }
}

impl<S: Simd> Cells<S> for OperandCells<'_, S::Word> {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn columns(&self) -> usize {
        self.columns
    }
    #[inline(always)]
    unsafe fn put(&self, s: S, row: usize, first: usize, v: S::V, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { s.store_operands(self.pointer.add(row * self.stride), first, v, n) }
    }
}

/// Makes a vector of `rows` x `columns` values that `fill` writes in full.
pub(crate) fn filled(rows: usize, columns: usize, fill: impl FnOnce(ValueCells)) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * columns);
    fill(ValueCells { pointer: out.as_mut_ptr(), rows, columns });
    // SAFETY: the capacity is there and `fill` wrote every value.
    unsafe { out.set_len(rows * columns) };
    out
}
