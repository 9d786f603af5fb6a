//! The register tile: the one loop in which nearly all of a network's arithmetic is done.

use super::geometry::fits;
use super::panels::{LINE_BYTES, Upcoming};
use crate::simd::{KernelFor, Simd, Word};

/// Words of depth that one turn of the loop takes: counting costs the more the busier the other half of the core is.
const UNROLLED: usize = 4;

/// One register tile, whose pointers its maker vouches for: sums[r, c] = Σ a[r, k] · b[k, c] over words k for up to
/// [`tile_rows`](super::geometry::tile_rows) rows and two or three vectors.
pub(super) struct RegisterTile<W> {
    pub(super) rows: usize,
    /// Vectors of columns.
    pub(super) vectors: usize,
    pub(super) a: *const W,
    /// From a row of `a` to the next.
    pub(super) stride: usize,
    pub(super) b: *const W,
    pub(super) words: usize,
    /// Whether the products are added to the sums that are there.
    pub(super) more: bool,
    pub(super) sums: *mut f32,
    /// What is asked of memory meanwhile.
    pub(super) upcoming: Upcoming,
}

/// A tile of R rows and C vectors: each is a function of its own, or the compiler would keep sums of one on behalf of
/// another.
struct TileOf<'a, W, const R: usize, const C: usize>(&'a RegisterTile<W>);

impl<S: Simd, const R: usize, const C: usize> KernelFor<S> for TileOf<'_, S::Word, R, C> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        // SAFETY: the driver passes rows of at least `words`, a panel, and a buffer for a full tile.
        unsafe { sums::<S, R, C>(s, self.0) };
    }
}

impl<W: Word> RegisterTile<W> {
    /// Computes it.
    #[inline(always)]
    pub(super) fn run<S: Simd<Word = W>>(&self, s: S) {
        macro_rules! by_size {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (self.vectors, self.rows) {
                    $($(($vectors, $rows) if const { fits(S::REGISTERS, $rows, $vectors) } => {
                        s.call(TileOf::<_, $rows, $vectors>(self));
                    })*)*
                    (vectors, rows) => unreachable!("{rows} rows of {vectors} vectors do not fit the registers"),
                }
            };
        }
        by_size! {
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13;
            3: 1 2 3 4 5 6 7 8 9;
        }
    }
}

/// The sums of a tile of R rows and C vectors.
///
/// # Safety
/// The tile has as many rows of words, a panel of as many, and room for a full tile's sums.
#[inline(always)]
unsafe fn sums<S: Simd, const R: usize, const C: usize>(s: S, tile: &RegisterTile<S::Word>) {
    let &RegisterTile { a, stride, mut b, words, upcoming, .. } = tile;
    // Three rows a pointer, reached by one and two strides: thirteen pointers would not fit the general
    // registers.
    let mut bases: [*const S::Word; 5] = std::array::from_fn(|i| a.wrapping_add(3 * i * stride));
    let mut sums = [[s.splat(0.0); C]; R];
    if tile.more {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the buffer holds a full tile.
                *sum = unsafe { s.load(tile.sums.add((C * r + c) * S::LANES)) };
            }
        }
    }
    let turns = words / UNROLLED;
    // With three vectors of sixteen lanes a word is three lines, with two of eight it is one: asking once a word, or every
    // second, three tiles or two ask for all. Of many tiles the address moves on by less than a line.
    let asks = if S::LANES == 16 { UNROLLED } else { UNROLLED / 2 };
    let (mut asked, step) = (upcoming.first, upcoming.lines * LINE_BYTES / (asks * turns).max(1));
    // SAFETY: `turns` times UNROLLED words and the rest are all of the tile's, by the caller's promise.
    unsafe {
        for _ in 0..turns {
            // Not a loop: see `add`.
            macro_rules! words {
                ($($k:literal)*) => {$(
                    if $k < asks {
                        s.prefetch_second(asked.wrapping_byte_add($k * step));
                    }
                    add::<S, R, C>(s, &bases, stride, b, $k, &mut sums);
                )*};
            }
            words!(0 1 2 3);
            asked = asked.wrapping_byte_add(asks * step);
            bases.iter_mut().for_each(|base| *base = base.wrapping_add(UNROLLED));
            b = b.wrapping_add(UNROLLED * C * S::LANES);
        }
        for _ in 0..words % UNROLLED {
            add::<S, R, C>(s, &bases, stride, b, 0, &mut sums);
            bases.iter_mut().for_each(|base| *base = base.wrapping_add(1));
            b = b.wrapping_add(C * S::LANES);
        }
    }
    // By reference: an array moved into an iterator would travel through the stack.
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            // SAFETY: the buffer holds a full tile.
            unsafe { s.store(tile.sums.add((C * r + c) * S::LANES), *sum) };
        }
    }
}

/// Adds the products of the `k`-th word from `bases` and `b` on to the sums of R rows.
///
/// # Safety
/// The rows, of which three begin at each of `bases`, and the panel `b` have it.
#[inline(always)]
unsafe fn add<S: Simd, const R: usize, const C: usize>(
    s: S,
    bases: &[*const S::Word; 5],
    stride: usize,
    b: *const S::Word,
    k: usize,
    sums: &mut [[S::V; C]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = b.add(k * C * S::LANES);
        let mut columns = [s.load_words(b); C];
        for (c, column) in columns.iter_mut().enumerate().skip(1) {
            *column = s.load_words(b.add(c * S::LANES));
        }
        // Not a loop: the compiler leaves one of so many rows as it is, and the sums in memory.
        macro_rules! rows {
            ($($r:literal)*) => {$(
                if $r < R {
                    let a = s.splat_word(*bases[$r / 3].add(k + $r % 3 * stride));
                    for (sum, column) in sums[$r].iter_mut().zip(columns) {
                        // Left alone, the compiler reads several rows ahead, and has no registers left for the sums.
                        *sum = s.in_order(s.dot(a, column, *sum));
                    }
                }
            )*};
        }
        rows!(0 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}
