//! The shapes that kernels are tested with.

/// Batch, height, width, heads, channels of a head, kernel size, dilation.
pub(in crate::attention) const SHAPES: [(usize, usize, usize, usize, usize, usize, usize); 22] = [
    (1, 3, 4, 1, 8, 1, 1),
    (1, 12, 9, 2, 32, 3, 1),
    (1, 9, 31, 1, 33, 5, 1),
    (2, 15, 26, 2, 32, 7, 1),
    (1, 28, 28, 4, 32, 7, 1),
    (1, 7, 7, 2, 32, 7, 1),
    (1, 8, 7, 2, 24, 7, 1),
    (1, 8, 8, 1, 32, 7, 1),
    (1, 7, 40, 1, 16, 7, 1),
    (1, 150, 8, 1, 16, 7, 1),
    (1, 14, 14, 2, 32, 7, 2),
    (2, 23, 26, 1, 64, 7, 3),
    (1, 56, 61, 1, 24, 7, 8),
    (1, 21, 20, 1, 128, 9, 2),
    (1, 6, 5, 2, 168, 3, 1),
    (1, 12, 11, 1, 7, 11, 1),
    (1, 20, 30, 1, 32, 13, 1),
    (1, 17, 16, 2, 32, 15, 1),
    (1, 21, 33, 1, 16, 21, 1),
    (1, 14, 14, 3, 32, 14, 1),
    (1, 8, 8, 2, 32, 8, 1),
    (1, 2, 2, 1, 1, 2, 1),
];

/// The same where an axis, or both, are padded.
pub(in crate::attention) const PADDED: [(usize, usize, usize, usize, usize, usize, usize); 18] = [
    (2, 2, 2, 1, 32, 3, 1),
    (1, 6, 7, 2, 32, 7, 1),
    (1, 7, 5, 1, 32, 7, 1),
    (2, 3, 20, 2, 24, 7, 1),
    (1, 26, 4, 1, 16, 7, 1),
    (1, 13, 13, 2, 32, 7, 2),
    (1, 9, 9, 1, 33, 5, 2),
    (1, 9, 14, 1, 32, 7, 2),
    (1, 5, 30, 2, 8, 3, 4),
    (2, 4, 5, 1, 32, 3, 4),
    (1, 5, 3, 1, 64, 7, 4),
    (1, 5, 6, 2, 32, 7, 4096),
    (1, 6, 21, 1, 32, 7, 3),
    (1, 4, 4, 1, 32, 13, 1),
    (1, 12, 16, 1, 32, 13, 1),
    (1, 17, 40, 1, 8, 13, 3),
    (1, 20, 23, 2, 16, 11, 5),
    (1, 2, 9, 1, 7, 9, 1),
];

/// The same, of which f32 makes more of its errors: a window with one pixel, and one with thousands of places.
pub(in crate::attention) const EXTREME: [(usize, usize, usize, usize, usize, usize, usize); 2] =
    [(1, 1, 1, 2, 32, 7, 1), (1, 70, 3, 1, 8, 75, 1)];
