//! The two halves of the operator on their own, for code that puts something between them, as dropout of the
//! probabilities is: the products before the softmax and those after it.
//!
//! Unlike the whole operator they have what lies between in memory: H·W·K² values for each head. Rows of maps are
//! computed in parallel. Every value is one thread's sum in an order that is always the same: it is the same to the bit
//! for any number of threads. The inner loops go over channels; those of the sums become vectors by the compiler.

use rayon::prelude::*;

use super::error::AttentionError;
use super::problem::Problem;
use super::slices::{AttentionNumber, check_length};
use super::window::Class;
use crate::simd::{Isa, Kernel, Simd};

/// The products of neighborhood attention before and after the softmax, for maps of one shape.
///
/// Layouts are NATTEN's: queries, keys and values are [B, heads, H, W, dim], scores and probabilities
/// [B, heads, H, W, K²], a query's neighbours row-major, and the relative position bias is [heads, 2K−1, 2K−1]. With
/// the neighbours j(t) of the query i:
///
/// ```text
/// scores(a, b)[i, t] = a_i · b_j(t) + rpb         mix(w, b)_i = Σ_t w[i, t] · b_j(t)
///                                                 spread(w, a)_j = Σ_{i, t: j(t) = j} w[i, t] · a_i
/// ```
///
/// No product is scaled: attention scales its queries with dim^−½ before. The gradients are these products again. With
/// that of the scores, s, and that of the outputs, g:
///
/// ```text
/// s = scores(q, k, rpb)       ∂q = mix(∂s, k)         ∂k = spread(∂s, q)     ∂rpb = bias_gradient(∂s)
/// out = mix(p, v)             ∂p = scores(g, v)       ∂v = spread(p, g)
/// ```
///
/// ```
/// use nat_infer::attention::AttentionHalves;
///
/// // One map of 7x7 and two heads of 32 channels.
/// let halves = AttentionHalves::new([1, 2, 7, 7, 32], 7, 1)?;
/// let [q, k, v] = [0.1f32, 0.2, 0.3].map(|x| vec![x; 2 * 7 * 7 * 32]);
/// let scores = halves.scores(&q, &k, None)?;
/// assert_eq!(scores.len(), 2 * 7 * 7 * 49);
/// // All scores are the same: so are the probabilities.
/// let out = halves.mix(&vec![1.0 / 49.0; scores.len()], &v)?;
/// assert!(out.iter().all(|x| (x - 0.3).abs() < 1e-5));
/// # Ok::<(), nat_infer::attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AttentionHalves {
    problem: Problem,
}

impl AttentionHalves {
    /// For queries, keys and values of `shape` [B, heads, H, W, dim], with a kernel of `kernel_size` pixels on each
    /// axis that are `dilation` apart.
    ///
    /// # Errors
    /// The variants of [`AttentionError`] about sizes that
    /// [`NeighborhoodAttention::forward`](super::NeighborhoodAttention::forward) has.
    pub fn new(shape: [usize; 5], kernel_size: usize, dilation: usize) -> Result<Self, AttentionError> {
        let [batch, heads, height, width, dim] = shape;
        let channels = heads.saturating_mul(dim).saturating_mul(3);
        let problem =
            Problem::checked(&[batch, height, width, channels], heads, kernel_size, dilation, false)?;
        Ok(Self { problem: Problem { dim, ..problem } })
    }

    /// The product of each vector of `a` [B, heads, H, W, dim] with its neighbours in `b`, of the same shape, and the
    /// bias `rpb` [heads, 2K−1, 2K−1] of the neighbour's relative position, if there is one: [B, heads, H, W, K²].
    ///
    /// # Errors
    /// [`AttentionError::Length`].
    pub fn scores<T: AttentionNumber>(
        &self,
        a: &[T],
        b: &[T],
        rpb: Option<&[T]>,
    ) -> Result<Vec<T>, AttentionError> {
        let Problem { heads, bias_side: side, .. } = self.problem;
        check_length("the first factor of the scores", a, &self.vectors())?;
        check_length("the second factor of the scores", b, &self.vectors())?;
        if let Some(rpb) = rpb {
            check_length("the relative position bias", rpb, &[heads, side, side])?;
        }
        // Where there are no maps, their sizes may be anything.
        if a.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys();
        Ok(self.by_rows(a.len() / self.problem.dim, self.window(), |map, y, out| {
            let [a, b] = [a, b].map(|x| self.map(x, map));
            let bias = rpb.map(|rpb| &rpb[map % heads * side * side..][..side * side]);
            Isa::best().run(ScoreRow { halves: self, keys: &keys, a, b, bias, y, out });
        }))
    }

    /// The sum of the neighbours in `b` [B, heads, H, W, dim] of each pixel with its weights `w` [B, heads, H, W, K²]:
    /// of `b`'s shape.
    ///
    /// # Errors
    /// [`AttentionError::Length`].
    pub fn mix<T: AttentionNumber>(&self, w: &[T], b: &[T]) -> Result<Vec<T>, AttentionError> {
        self.sums::<T, false>(w, b)
    }

    /// The transpose of [`AttentionHalves::mix`]: to each pixel the sum of those in `a` [B, heads, H, W, dim] that it
    /// is a neighbour of, with the weights that they have for it in `w` [B, heads, H, W, K²]: of `a`'s shape.
    ///
    /// # Errors
    /// [`AttentionError::Length`].
    pub fn spread<T: AttentionNumber>(&self, w: &[T], a: &[T]) -> Result<Vec<T>, AttentionError> {
        self.sums::<T, true>(w, a)
    }

    /// The gradient of the relative position bias, [heads, 2K−1, 2K−1], from that of the scores, `grad`
    /// [B, heads, H, W, K²]: the sum over all queries.
    ///
    /// # Errors
    /// [`AttentionError::Length`].
    pub fn bias_gradient<T: AttentionNumber>(&self, grad: &[T]) -> Result<Vec<T>, AttentionError> {
        check_length("the gradient of the scores", grad, &self.weights())?;
        let Problem { batch, heads, width, kernel_size, bias_side: side, .. } = self.problem;
        let mut out = vec![T::default(); heads * side * side];
        if grad.is_empty() {
            return Ok(out);
        }
        let [rows, columns] = self.keys();
        out.par_chunks_mut(side).enumerate().for_each(|(row, out)| {
            // Sums of thousands of values, which an f32 would not hold to its precision.
            let mut sums = vec![0.0; side];
            for map in (0..batch).map(|image| image * heads + row / side) {
                let grad = self.map(grad, map);
                for (y, keys) in rows.iter().enumerate() {
                    let Some(key) = keys.iter().find(|key| key.bias == row % side) else { continue };
                    for (x, keys) in columns.iter().enumerate() {
                        let window = &grad[(y * width + x) * self.window()..][key.t * kernel_size..];
                        for (key, &grad) in keys.iter().zip(window) {
                            sums[key.bias] += grad.into();
                        }
                    }
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::nearest(sum));
        });
        Ok(out)
    }

    fn sums<T: AttentionNumber, const SPREAD: bool>(
        &self,
        w: &[T],
        values: &[T],
    ) -> Result<Vec<T>, AttentionError> {
        check_length("the tensor of weights", w, &self.weights())?;
        check_length("the weighted tensor", values, &self.vectors())?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let dim = self.problem.dim;
        let keys = self.keys();
        let others = if SPREAD { keys.map(|axis| queries(&axis)) } else { keys };
        Ok(self.by_rows(values.len() / dim, dim, |map, y, out| {
            let [weights, values] = [w, values].map(|x| self.map(x, map));
            Isa::best().run(SumRow::<T, SPREAD> { halves: self, others: &others, weights, values, y, out });
        }))
    }

    /// The shape of queries, keys and values.
    fn vectors(&self) -> [usize; 5] {
        let Problem { batch, heads, height, width, dim, .. } = self.problem;
        [batch, heads, height, width, dim]
    }

    /// The shape of scores and probabilities.
    fn weights(&self) -> [usize; 5] {
        let Problem { batch, heads, height, width, .. } = self.problem;
        [batch, heads, height, width, self.window()]
    }

    /// K².
    fn window(&self) -> usize {
        self.problem.kernel_size.saturating_pow(2)
    }

    /// One head of one image.
    fn map<'a, T>(&self, tensor: &'a [T], map: usize) -> &'a [T] {
        let size = tensor.len() / (self.problem.batch * self.problem.heads);
        &tensor[map * size..][..size]
    }

    /// The keys that each query sees, on the axis of rows and on that of columns.
    fn keys(&self) -> [Links; 2] {
        let Problem { height, width, kernel_size, dilation, .. } = self.problem;
        [height, width].map(|length| keys(length, kernel_size, dilation))
    }

    /// A tensor with `size` values for each of so many `pixels`, at least one; `write` fills one row of one map.
    fn by_rows<T: AttentionNumber>(
        &self,
        pixels: usize,
        size: usize,
        write: impl Fn(usize, usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        let Problem { height, width, .. } = self.problem;
        let mut out = vec![T::default(); pixels * size];
        let rows = out.par_chunks_mut(width * size).enumerate();
        rows.for_each(|(row, out)| write(row / height, row % height, out));
        out
    }
}

/// That a query sees a key, on one axis.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Where on the axis the other one of both is.
    at: usize,
    /// Which of the query's neighbours the key is.
    t: usize,
    /// Its bias.
    bias: usize,
}

/// Of each position of an axis, the others that it has to do with.
type Links = Vec<Vec<Link>>;

/// The keys that each query of an axis sees, in their order.
fn keys(length: usize, kernel_size: usize, dilation: usize) -> Links {
    let mut links = vec![Vec::new(); length];
    for class in Class::all(length, kernel_size, dilation) {
        for m in 0..class.size() {
            let (start, bias) = (class.start(m), class.bias(m));
            let link = |t| Link { at: class.position(start + t), t, bias: bias + t };
            links[class.position(m)] = (0..kernel_size).map(link).collect();
        }
    }
    links
}

/// The queries that see each key of an axis, in their order.
fn queries(keys: &[Vec<Link>]) -> Links {
    let mut links = vec![Vec::new(); keys.len()];
    for (query, keys) in keys.iter().enumerate() {
        for key in keys {
            links[key.at].push(Link { at: query, ..*key });
        }
    }
    links
}

/// The scores of one row of queries.
struct ScoreRow<'a, T> {
    halves: &'a AttentionHalves,
    keys: &'a [Links; 2],
    a: &'a [T],
    b: &'a [T],
    /// That of the head, if there is one.
    bias: Option<&'a [T]>,
    y: usize,
    out: &'a mut [T],
}

impl<T: AttentionNumber> Kernel for ScoreRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { halves, keys: [rows, columns], a, b, bias, y, out } = self;
        let Problem { width, dim, bias_side: side, .. } = halves.problem;
        for (x, (out, columns)) in out.chunks_exact_mut(halves.window()).zip(columns).enumerate() {
            let a = &a[(y * width + x) * dim..][..dim];
            for (out, row) in out.chunks_exact_mut(columns.len()).zip(&rows[y]) {
                for (out, column) in out.iter_mut().zip(columns) {
                    *out = T::product(s, a, &b[(row.at * width + column.at) * dim..][..dim]);
                }
                if let Some(bias) = bias {
                    for (out, column) in out.iter_mut().zip(columns) {
                        *out += bias[row.bias * side + column.bias];
                    }
                }
            }
        }
    }
}

/// One row of weighted sums: of the keys of its queries, or with `SPREAD` of the queries of its keys.
struct SumRow<'a, T, const SPREAD: bool> {
    halves: &'a AttentionHalves,
    others: &'a [Links; 2],
    weights: &'a [T],
    values: &'a [T],
    y: usize,
    out: &'a mut [T],
}

impl<T: AttentionNumber, const SPREAD: bool> Kernel for SumRow<'_, T, SPREAD> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let Problem { width, dim, .. } = self.halves.problem;
        for x in 0..width {
            let mut c = 0;
            while c < dim {
                // Sums that stay in the registers.
                c += match dim - c {
                    32.. => self.sum::<32>(x, c),
                    8.. => self.sum::<8>(x, c),
                    _ => self.sum::<1>(x, c),
                }
            }
        }
    }
}

impl<T: AttentionNumber, const SPREAD: bool> SumRow<'_, T, SPREAD> {
    /// Writes the sums of N channels from `c` on of the pixel in column `x`: N.
    #[inline(always)]
    fn sum<const N: usize>(&mut self, x: usize, c: usize) -> usize {
        let Problem { width, dim, kernel_size, .. } = self.halves.problem;
        let window = self.halves.window();
        let own = self.y * width + x;
        let mut sums = [T::default(); N];
        for row in &self.others[0][self.y] {
            for column in &self.others[1][x] {
                let other = row.at * width + column.at;
                let query = if SPREAD { other } else { own };
                let weight = self.weights[query * window + row.t * kernel_size + column.t];
                let values = &self.values[other * dim + c..][..N];
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
        }
        self.out[x * dim + c..][..N].copy_from_slice(&sums);
        N
    }
}
