//! A thread's buffers, which keep their capacity between blocks.

use std::any::Any;
use std::cell::Cell;

use super::panels::CacheLine;
use crate::simd::Word;

thread_local! {
    static BUFFERS: Cell<Option<Box<dyn Any>>> = const { Cell::new(None) };
}

/// Taken and put back rather than lent to a closure: a closure would lose the kernel's instruction set.
#[derive(Default)]
pub(crate) struct Buffers<W> {
    /// The left operand of a product.
    pub(crate) room: Room<W>,
    /// A panel of a weight whose values are kept in bf16, as f32.
    pub(crate) panel: Vec<CacheLine<f32>>,
    /// For a layer between two products.
    pub(crate) hidden: Vec<W>,
    /// For the derivative of its activation.
    pub(crate) slopes: Vec<f32>,
}

/// Where rows are made operands.
#[derive(Default)]
pub(crate) struct Room<W> {
    /// The operands.
    pub(crate) words: Vec<W>,
    /// What they are rounded from, where that has to be put together first.
    pub(crate) values: Vec<f32>,
}

impl<W: Word> Buffers<W> {
    /// This thread's; new ones where the last were of other words.
    pub(crate) fn take() -> Box<Self> {
        BUFFERS.take().and_then(|any| any.downcast().ok()).unwrap_or_default()
    }

    /// For the thread's next block.
    pub(crate) fn put_back(self: Box<Self>) {
        BUFFERS.set(Some(self));
    }
}
