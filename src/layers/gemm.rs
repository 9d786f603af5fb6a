//! out = epilogue(rows · weightᵀ + bias): the one matrix product under every layer, with weights
//! packed at load and everything around the product done while its data is in cache.
//!
//! A product runs in blocks of rows. The rows of a block come straight from memory or through a
//! [`Rows`] source (normalised, gathered from a convolution's window) into scratch that stays in L2;
//! register tiles of [`TILE_ROWS`] x two vectors run over the whole depth (up to [`DEPTH`]), so no partial
//! sums are stored; the [`Epilogue`] finishes a tile on its way from L1 to the output.
//!
//! Operands are counted in words of 32 bits: one f32, or two bf16 that follow each other in depth,
//! where a weight is packed for [`Isa::Avx512Bf16`]. Rows are then rounded on their way into scratch;
//! sums, epilogues and outputs are f32 in any case.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{Result, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::norm::Norm;
use super::rows::{Operands, Rows};
use super::simd::{Isa, Kernel, Simd};
use super::vector;
use crate::weights::Weights;

/// Bytes of scratch that a block of rows may take: half of a usual L2.
const BLOCK_BYTES: usize = 512 << 10;

/// Words of depth that a tile goes through at a time: its rows of them stay in L2. Deeper products go
/// over the output several times.
const DEPTH: usize = 4608;

/// Rows of a register tile: with two vectors a row, sums, weights and one broadcast fill the registers.
const fn tile_rows(isa: Isa) -> usize {
    match isa {
        // Not 14: the compiler then spills sums, and the speed falls to less than half.
        Isa::Avx512 | Isa::Avx512Bf16 => 13,
        Isa::Avx2 => 6,
        Isa::Portable => 3,
    }
}

/// The largest of [`tile_rows`] and twice the most lanes: the tile buffer's size.
const TILE_ROWS: usize = 13;
const TILE_LINES: usize = TILE_ROWS * 32 / 16;

/// A cache line, for alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A weight matrix [n, depth] in the order in which tiles read it: panels of two vectors of output
/// columns, each [words of depth, columns], the last one filled up with zeros.
pub(crate) struct Packed {
    isa: Isa,
    n: usize,
    words: usize,
    lines: Vec<Line>,
}

impl Packed {
    /// Packs `weight` [n, depth], as PyTorch's linear layers store it.
    pub(crate) fn new(isa: Isa, n: usize, depth: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), n * depth);
        let (cols, words) = (2 * isa.lanes(), isa.words(depth));
        let panels = n.div_ceil(cols);
        let mut lines = vec![Line([0.0; 16]); (panels * words * cols).div_ceil(16)];
        for (row, values) in weight.chunks_exact(depth.max(1)).enumerate() {
            let (panel, col) = (row / cols, row % cols);
            for (k, &value) in values.iter().enumerate() {
                let word = |k| (panel * words + k) * cols + col;
                if isa == Isa::Avx512Bf16 {
                    let at = word(k / 2);
                    let bits = u32::from(bf16::from_f32(value).to_bits()) << (k % 2 * 16);
                    let pair = &mut lines[at / 16].0[at % 16];
                    *pair = f32::from_bits(pair.to_bits() | bits);
                } else {
                    lines[word(k) / 16].0[word(k) % 16] = value;
                }
            }
        }
        Self { isa, n, words, lines }
    }

    /// Output columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Words of a row of the left operand.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// The instruction set it is packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    fn columns(&self) -> usize {
        2 * self.isa.lanes()
    }

    /// Panels of columns.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.columns())
    }
}

/// A layer's weight and bias, packed, and what takes gradients back through it.
pub(crate) struct PackedLayer {
    pub(crate) weight: Packed,
    pub(crate) bias: Option<Vec<f32>>,
    transposed: Option<Packed>,
}

impl PackedLayer {
    /// Packs `weight` [n, depth], transposed too where `weights` are to be differentiable.
    pub(crate) fn new(
        weights: &Weights,
        [n, depth]: [usize; 2],
        weight: &[f32],
        bias: Option<&Tensor>,
    ) -> Self {
        let transposed = weights.is_differentiable().then(|| {
            let columns: Vec<f32> = (0..n * depth).map(|i| weight[i % n * depth + i / n]).collect();
            Packed::new(weights.isa(), depth, n, &columns)
        });
        Self { weight: Packed::new(weights.isa(), n, depth, weight), bias: bias.map(vector), transposed }
    }

    /// The transposed weight [depth, n].
    ///
    /// # Errors
    /// When the layer was built without.
    pub(crate) fn transposed(&self) -> Result<&Packed> {
        self.transposed.as_ref().ok_or_else(|| {
            let why =
                "this network was built for inference: `Weights::differentiable` builds one with gradients";
            candle_core::Error::Msg(why.to_owned()).bt()
        })
    }

    /// With the bias, and `activation` behind it.
    pub(crate) fn epilogue(&self, activation: Activation) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_deref(), activation, ..Epilogue::default() }
    }
}

/// What happens to a sum on its way to the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// x Φ(x), the exact GELU.
    Gelu,
    /// max(x, 0)
    Relu,
}

/// out[r, c] = residual[r, c] + gamma[c] · activation(sum[r, c] + bias[c]) · times[r, c]
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// [n], or nothing to add.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) activation: Activation,
    /// Takes the derivative of GELU in its place.
    pub(crate) slope: bool,
    /// [rows, n], like the output.
    pub(crate) times: Option<&'a [f32]>,
    /// [rows, n], like the output.
    pub(crate) residual: Option<&'a [f32]>,
    /// [n]; only beside a residual.
    pub(crate) gamma: Option<&'a [f32]>,
}

/// A shared view of an output that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pointer: *mut f32,
    columns: usize,
    rows: usize,
    /// From a row to the next: the columns, or the words that [`room`] gives these as operands.
    stride: usize,
    /// Whether values are written as the operands of a next product.
    operands: bool,
}

// SAFETY: every task writes rows and columns of its own; the driver hands them out.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// A view of rows of `columns` values from `pointer` on.
    fn new(pointer: *mut f32, rows: usize, columns: usize) -> Self {
        Self { pointer, columns, rows, stride: columns, operands: false }
    }

    /// A view of a task's own rows of `columns` values.
    pub(crate) fn values(rows: &mut [f32], columns: usize) -> Self {
        Self::new(rows.as_mut_ptr(), rows.len() / columns.max(1), columns)
    }

    /// A view of rows of `columns` operands, made by [`room`].
    pub(crate) fn operands(rows: &mut [f32], columns: usize, stride: usize) -> Self {
        let count = rows.len() / stride.max(1);
        Self { pointer: rows.as_mut_ptr(), columns, rows: count, stride, operands: true }
    }

    /// The rows in `range`.
    ///
    /// # Safety
    /// They are written, and no other task touches them while the slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn rows_mut(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.rows && !self.operands);
        let (start, len) = (range.start * self.columns, range.len() * self.columns);
        // SAFETY: inside the output by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

/// Makes a vector of `rows` x `columns` values that `fill` writes in full.
pub(crate) fn output(rows: usize, columns: usize, fill: impl FnOnce(Output)) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * columns);
    fill(Output::new(out.as_mut_ptr(), rows, columns));
    // SAFETY: the capacity is there and `fill` wrote every value.
    unsafe { out.set_len(rows * columns) };
    out
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { rows: Vec::new(), hidden: Vec::new(), slopes: Vec::new() }) };
}

/// A thread's buffers, which keep their capacity between blocks. Taken and put back rather than lent
/// to a closure: a closure would lose the kernel's instruction set.
#[derive(Default)]
pub(crate) struct Scratch {
    /// For [`Rows::get`].
    pub(crate) rows: Vec<f32>,
    /// For a layer between two products.
    pub(crate) hidden: Vec<f32>,
    /// For the derivative of its activation.
    pub(crate) slopes: Vec<f32>,
}

impl Scratch {
    pub(crate) fn take() -> Self {
        SCRATCH.take()
    }

    pub(crate) fn put_back(self) {
        SCRATCH.set(self);
    }
}

/// How a product of `rows` rows is cut into tasks.
pub(crate) struct Blocks {
    rows: usize,
    count: usize,
}

impl Blocks {
    /// Blocks of equal size that take at most [`BLOCK_BYTES`] at `words` a row, as many for each
    /// thread while that leaves every block a tile.
    pub(crate) fn new(rows: usize, words: usize, isa: Isa) -> Self {
        let (threads, tile) = (rayon::current_num_threads(), tile_rows(isa));
        let most = (BLOCK_BYTES / 4 / words.clamp(1, DEPTH) / tile).clamp(1, 4) * tile;
        let count = rows.div_ceil(most).next_multiple_of(threads).min(rows.div_ceil(tile / 2)).max(1);
        Self { rows, count }
    }

    /// The number of blocks.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The rows of block `i`.
    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        i * self.rows / self.count..(i + 1) * self.rows / self.count
    }
}

/// What is done with a block's rows of the output while they are in cache.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// Nothing.
    Nothing,
    /// They are normalised.
    Norm(&'a Norm),
    /// They are gradients of a norm's result, of which those of its rows `x` are made.
    NormGradient { norm: &'a Norm, x: &'a [f32] },
}

/// out = then(epilogue(rows · weightᵀ)), [rows, n], on all threads of the current pool.
pub(crate) fn product(
    rows: usize,
    lhs: &impl Rows,
    weight: &Packed,
    epilogue: Epilogue,
    then: Then,
) -> Vec<f32> {
    let blocks = Blocks::new(rows, weight.words, weight.isa);
    // Too few blocks for the threads (a classifier's head): the columns are cut as well.
    let strips = match then {
        Then::Nothing => rayon::current_num_threads().div_ceil(blocks.count()).min(weight.panels()),
        _ => 1,
    };
    output(rows, weight.n, |out| {
        (0..blocks.count() * strips).into_par_iter().with_max_len(1).for_each(|task| {
            let (block, strip) = (task / strips, task % strips);
            let panels = strip * weight.panels() / strips..(strip + 1) * weight.panels() / strips;
            let range = blocks.range(block);
            weight.isa.run(Product { lhs, range, weight, panels, epilogue, then, out });
        });
    })
}

struct Product<'a, R> {
    lhs: &'a R,
    range: Range<usize>,
    weight: &'a Packed,
    panels: Range<usize>,
    epilogue: Epilogue<'a>,
    /// Something only where `panels` are all of them.
    then: Then<'a>,
    out: Output,
}

impl<R: Rows> Kernel for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut scratch = Scratch::take();
        let rows = self.lhs.get(s, self.range.clone(), &mut scratch.rows);
        // SAFETY: the tasks' rows and panels are disjoint.
        unsafe {
            block(s, rows, self.weight, self.panels, &self.epilogue, self.out, self.range.clone());
            match self.then {
                Then::Nothing => {}
                Then::Norm(norm) => norm.in_place(s, self.out.rows_mut(self.range)),
                Then::NormGradient { norm, x } => {
                    let x = &x[self.range.start * self.weight.n..self.range.end * self.weight.n];
                    norm.differentiate(s, x, self.out.rows_mut(self.range), None);
                }
            }
        }
        scratch.put_back();
    }
}

/// Multiplies one block: `rows`, range.len() of them, into the output's rows `range`, columns of `panels`.
///
/// # Safety
/// No other task writes that part of `out` at the same time.
#[inline(always)]
pub(crate) unsafe fn block<S: Simd>(
    s: S,
    rows: Operands,
    weight: &Packed,
    panels: Range<usize>,
    epilogue: &Epilogue,
    out: Output,
    range: Range<usize>,
) {
    let (words, count, columns) = (weight.words, range.len(), 2 * S::LANES);
    let Operands { words: rows, stride } = rows;
    assert!(rows.len() == count * stride && words <= stride && columns == weight.columns());
    assert!((weight.isa == Isa::Avx512Bf16) == (S::WORD == 2));
    assert!(panels.end <= weight.panels() && range.end <= out.rows && out.columns == weight.n);
    assert!(epilogue.bias.is_none_or(|b| b.len() == weight.n));
    assert!(epilogue.gamma.is_none_or(|g| g.len() == weight.n));
    assert!(epilogue.residual.is_none_or(|r| r.len() == out.rows * out.columns));
    assert!(epilogue.times.is_none_or(|t| t.len() == out.rows * out.columns));
    let tiles = count.div_ceil(tile_rows(weight.isa));
    let slices = words.div_ceil(DEPTH).max(1);
    // Of one tile, or of all where a later slice adds to them.
    let mut one = [Line([0.0; 16]); TILE_LINES];
    let mut all = if slices > 1 { vec![one; tiles * panels.len()] } else { Vec::new() };
    for slice in 0..slices {
        let depth = slice * words / slices..(slice + 1) * words / slices;
        for (p, panel) in panels.clone().enumerate() {
            let first = panel * columns;
            for tile in 0..tiles {
                let (start, end) = (tile * count / tiles, (tile + 1) * count / tiles);
                let sums = all.get_mut(p * tiles + tile).unwrap_or(&mut one);
                s.call(Tile {
                    rows: end - start,
                    a: rows[start * stride + depth.start..].as_ptr(),
                    stride,
                    b: weight
                        .lines
                        .as_ptr()
                        .cast::<f32>()
                        .wrapping_add((panel * words + depth.start) * columns),
                    words: depth.len(),
                    more: slice > 0,
                    sums: sums.as_mut_ptr().cast(),
                });
                if depth.end == words {
                    let target = Target {
                        rows: range.start + start..range.start + end,
                        columns: first..weight.n.min(first + columns),
                    };
                    // SAFETY: the tile lies inside the output (asserted above) and is this task's own.
                    unsafe { finish(s, sums.as_ptr().cast(), &target, epilogue, out) };
                }
            }
        }
    }
}

/// One register tile: sums[r, c] = Σ a[r, k] · b[k, c] over words k for up to [`tile_rows`] rows and two
/// vectors.
struct Tile {
    rows: usize,
    a: *const f32,
    /// From a row of `a` to the next.
    stride: usize,
    b: *const f32,
    words: usize,
    /// Whether the products are added to the sums that are there.
    more: bool,
    sums: *mut f32,
}

impl Kernel for Tile {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `block` passes rows of at least `words`, a panel, and a buffer for a full tile.
        unsafe {
            match self.rows {
                1 => self.sums::<S, 1>(s),
                2 => self.sums::<S, 2>(s),
                3 => self.sums::<S, 3>(s),
                4 => self.sums::<S, 4>(s),
                5 => self.sums::<S, 5>(s),
                6 => self.sums::<S, 6>(s),
                7 => self.sums::<S, 7>(s),
                8 => self.sums::<S, 8>(s),
                9 => self.sums::<S, 9>(s),
                10 => self.sums::<S, 10>(s),
                11 => self.sums::<S, 11>(s),
                12 => self.sums::<S, 12>(s),
                _ => self.sums::<S, 13>(s),
            }
        }
    }
}

impl Tile {
    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize>(&self, s: S) {
        // Three rows a pointer, reached by one and two strides: thirteen pointers would not fit the
        // general registers.
        let bases: [*const f32; 5] = std::array::from_fn(|i| self.a.wrapping_add(3 * i * self.stride));
        let mut sums = [[s.splat(0.0); 2]; R];
        if self.more {
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the buffer holds a full tile.
                unsafe {
                    let from = self.sums.add(2 * r * S::LANES);
                    *sum = [s.load(from), s.load(from.add(S::LANES))];
                }
            }
        }
        for k in 0..self.words {
            // SAFETY: k < words, rows < R and columns inside the panel, by the caller's promise.
            unsafe {
                let b = self.b.add(k * 2 * S::LANES);
                let (b0, b1) = (s.load(b), s.load(b.add(S::LANES)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = s.splat(*bases[r / 3].add(k + (r % 3) * self.stride));
                    *sum = [s.dot(a, b0, sum[0]), s.dot(a, b1, sum[1])];
                }
            }
        }
        // By reference: an array moved into an iterator would travel through the stack.
        for (r, sum) in sums.iter().enumerate() {
            // SAFETY: the buffer holds a full tile.
            unsafe {
                let to = self.sums.add(2 * r * S::LANES);
                s.store(to, sum[0]);
                s.store(to.add(S::LANES), sum[1]);
            }
        }
    }
}

/// Where a tile belongs in the output.
struct Target {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Applies the epilogue to a tile of sums and stores it.
///
/// # Safety
/// `sums` holds the tile, `target` lies inside `out` and the epilogue's slices, as [`block`] asserts.
#[inline(always)]
unsafe fn finish<S: Simd>(s: S, sums: *const f32, target: &Target, epilogue: &Epilogue, out: Output) {
    for half in 0..2 {
        let first = target.columns.start + half * S::LANES;
        let n = S::LANES.min(target.columns.end.saturating_sub(first));
        if n == 0 {
            continue;
        }
        // SAFETY: `n` columns from `first` on, inside everything that is indexed by column.
        unsafe {
            let bias = epilogue.bias.map(|bias| bias.as_ptr().add(first));
            let gamma = epilogue.gamma.map(|gamma| gamma.as_ptr().add(first));
            // Looked at once a tile: vectors, and a 1 where nothing scales.
            let bias = if let Some(bias) = bias { s.load_first(bias, n) } else { s.splat(0.0) };
            let gamma = if let Some(gamma) = gamma { s.load_first(gamma, n) } else { s.splat(1.0) };
            for (r, row) in target.rows.clone().enumerate() {
                let mut v = s.add(s.load(sums.add((2 * r + half) * S::LANES)), bias);
                v = match epilogue.activation {
                    Activation::None => v,
                    Activation::Gelu if epilogue.slope => s.gelu_derivative(v),
                    Activation::Gelu => s.gelu(v),
                    // The zero second: NaN stays NaN.
                    Activation::Relu => s.max(s.splat(0.0), v),
                };
                if let Some(times) = epilogue.times {
                    v = s.mul(v, s.load_first(times.as_ptr().add(row * out.columns + first), n));
                }
                if let Some(residual) = epilogue.residual {
                    let x = residual.as_ptr().add(row * out.columns + first);
                    v = s.fma(v, gamma, s.load_first(x, n));
                }
                let to = out.pointer.wrapping_add(row * out.stride);
                if out.operands {
                    s.store_operands(to, first, v, n);
                } else {
                    s.store_first(to.add(first), v, n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Plain;
    use super::*;

    /// The product, five lines, in f64.
    fn naive(m: usize, n: usize, depth: usize, a: &[f32], w: &[f32]) -> Vec<f64> {
        let dot = |r: usize, c: usize| {
            (0..depth).map(|k| a[r * depth + k] as f64 * w[c * depth + k] as f64).sum::<f64>()
        };
        (0..m * n).map(|i| dot(i / n, i % n)).collect()
    }

    fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect()
    }

    #[test]
    fn every_shape_and_epilogue_agrees_with_the_naive_product() {
        let shapes = [
            (1, 1, 1),
            (1, 1000, 64),
            (13, 33, 7),
            (15, 64, 27),
            (49, 96, 40),
            (57, 31, 3),
            (200, 10, 300),
            (30, 40, 9217),
        ];
        for isa in Isa::available().iter().copied().chain(Isa::bf16()) {
            for (i, (m, n, depth)) in shapes.into_iter().enumerate() {
                let (mut a, mut w) = (noise(i as u64, m * depth), noise(100 + i as u64, n * depth));
                let (bias, gamma, residual) = (noise(1, n), noise(2, n), noise(3, m * n));
                let packed = Packed::new(isa, n, depth, &w);
                let rows = a.clone();
                if isa == Isa::Avx512Bf16 {
                    a.iter_mut().chain(&mut w).for_each(|x| *x = bf16::from_f32(*x).to_f32());
                }
                let exact = naive(m, n, depth, &a, &w);
                let plain = Epilogue::default();
                let cases = [
                    plain,
                    Epilogue { bias: Some(&bias), ..plain },
                    Epilogue { bias: Some(&bias), activation: Activation::Gelu, ..plain },
                    Epilogue { bias: Some(&bias), activation: Activation::Relu, ..plain },
                    Epilogue { bias: Some(&bias), residual: Some(&residual), ..plain },
                    Epilogue { bias: Some(&bias), residual: Some(&residual), gamma: Some(&gamma), ..plain },
                ];
                for (case, epilogue) in cases.into_iter().enumerate() {
                    let got = product(m, &Plain { rows: &rows, depth }, &packed, epilogue, Then::Nothing);
                    for (j, (&got, &sum)) in got.iter().zip(&exact).enumerate() {
                        let biased = sum + epilogue.bias.map_or(0.0, |b| b[j % n] as f64);
                        let active = match epilogue.activation {
                            Activation::None => biased,
                            Activation::Relu => biased.max(0.0),
                            Activation::Gelu => {
                                0.5 * biased * (1.0 + libm::erf(biased * std::f64::consts::FRAC_1_SQRT_2))
                            }
                        };
                        let scaled = active * epilogue.gamma.map_or(1.0, |g| g[j % n] as f64);
                        let want = scaled + epilogue.residual.map_or(0.0, |r| r[j] as f64);
                        let off = (got as f64 - want).abs();
                        // Sums of thousands of terms grow, and with them the last bit.
                        assert!(
                            off < if depth > 1000 { 1e-3 } else { 2e-5 },
                            "{isa:?} {m}x{n}x{depth} case {case} at {j}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_cover_every_row_once() {
        for rows in [1, 2, 13, 49, 196, 3136, 50_176] {
            for depth in [27, 64, 512, 18_432] {
                let blocks = Blocks::new(rows, depth, Isa::Avx512);
                let covered: Vec<usize> = (0..blocks.count()).flat_map(|i| blocks.range(i)).collect();
                assert_eq!(covered, (0..rows).collect::<Vec<_>>(), "{rows} rows of {depth}");
            }
        }
    }
}
