//! What a product's operands come in.

use half::bf16;

/// What lies in one place of a product's operands: 32 bits that hold one or more values, which follow each other
/// in depth.
pub trait Word: Copy + Default + Send + Sync + 'static {
    /// Values in a word.
    const VALUES: usize;

    /// The word of up to [`Word::VALUES`] values, rounded to its type; what is left of it is zero.
    fn of(values: &[f32]) -> Self;

    /// Values as the words that they are already, if they are.
    fn as_words(values: &[f32]) -> Option<&[Self]>;

    /// Words as the values that they are, if they are f32.
    fn as_values(words: &mut [Self]) -> Option<&mut [f32]>;
}

impl Word for f32 {
    const VALUES: usize = 1;

    fn of(values: &[f32]) -> Self {
        values.first().copied().unwrap_or_default()
    }

    #[inline(always)]
    fn as_words(values: &[f32]) -> Option<&[Self]> {
        Some(values)
    }

    #[inline(always)]
    fn as_values(words: &mut [f32]) -> Option<&mut [f32]> {
        Some(words)
    }
}

/// Two bf16 that follow each other in depth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(4))]
pub struct Pair(pub [bf16; 2]);

impl Word for Pair {
    const VALUES: usize = 2;

    fn of(values: &[f32]) -> Self {
        Self(std::array::from_fn(|i| values.get(i).map_or(bf16::ZERO, |&value| bf16::from_f32(value))))
    }

    #[inline(always)]
    fn as_words(_: &[f32]) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn as_values(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}
