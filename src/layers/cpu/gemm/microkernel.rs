//! The register tile: the one loop in which nearly all of a network's arithmetic is done.

use super::geometry::VECTORS;
use crate::simd::{KernelFor, Simd};

/// One register tile, whose pointers its maker vouches for: sums[r, c] = Σ a[r, k] · b[k, c] over words k for up to
/// [`tile_rows`](super::geometry::tile_rows) rows and two vectors.
pub(super) struct RegisterTile<W> {
    pub(super) rows: usize,
    pub(super) a: *const W,
    /// From a row of `a` to the next.
    pub(super) stride: usize,
    pub(super) b: *const W,
    pub(super) words: usize,
    /// Whether the products are added to the sums that are there.
    pub(super) more: bool,
    pub(super) sums: *mut f32,
}

impl<S: Simd> KernelFor<S> for RegisterTile<S::Word> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        // SAFETY: the driver passes rows of at least `words`, a panel, and a buffer for a full tile.
        unsafe {
            match self.rows {
                1 => sums::<S, 1>(s, &self),
                2 => sums::<S, 2>(s, &self),
                3 => sums::<S, 3>(s, &self),
                4 => sums::<S, 4>(s, &self),
                5 => sums::<S, 5>(s, &self),
                6 => sums::<S, 6>(s, &self),
                7 => sums::<S, 7>(s, &self),
                8 => sums::<S, 8>(s, &self),
                9 => sums::<S, 9>(s, &self),
                10 => sums::<S, 10>(s, &self),
                11 => sums::<S, 11>(s, &self),
                12 => sums::<S, 12>(s, &self),
                _ => sums::<S, 13>(s, &self),
            }
        }
    }
}

/// The sums of a tile of R rows.
///
/// # Safety
/// The tile has as many rows of words, a panel of as many, and room for a full tile's sums.
#[inline(always)]
unsafe fn sums<S: Simd, const R: usize>(s: S, tile: &RegisterTile<S::Word>) {
    // Three rows a pointer, reached by one and two strides: thirteen pointers would not fit the
    // general registers.
    let bases: [*const S::Word; 5] = std::array::from_fn(|i| tile.a.wrapping_add(3 * i * tile.stride));
    let mut sums = [[s.splat(0.0); VECTORS]; R];
    if tile.more {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the buffer holds a full tile.
            unsafe {
                let from = tile.sums.add(VECTORS * r * S::LANES);
                *sum = [s.load(from), s.load(from.add(S::LANES))];
            }
        }
    }
    for k in 0..tile.words {
        // SAFETY: k < words, rows < R and columns inside the panel, by the caller's promise.
        unsafe {
            let b = tile.b.add(k * VECTORS * S::LANES);
            let (b0, b1) = (s.load_words(b), s.load_words(b.add(S::LANES)));
            for (r, sum) in sums.iter_mut().enumerate() {
                let a = s.splat_word(*bases[r / 3].add(k + (r % 3) * tile.stride));
                *sum = [s.dot(a, b0, sum[0]), s.dot(a, b1, sum[1])];
            }
        }
    }
    // By reference: an array moved into an iterator would travel through the stack.
    for (r, sum) in sums.iter().enumerate() {
        // SAFETY: the buffer holds a full tile.
        unsafe {
            let to = tile.sums.add(VECTORS * r * S::LANES);
            s.store(to, sum[0]);
            s.store(to.add(S::LANES), sum[1]);
        }
    }
}
