//! The operator on slices, for callers whose arrays are not candle's: nothing of the inputs is copied.

use std::ops::{Add, AddAssign, Mul};

use super::error::AttentionError;
use super::operator::NeighborhoodAttention;
use super::problem::Problem;
use super::{cpu, reference};
use crate::simd::{Isa, Simd};

/// A type that slices are computed in: `f32`, on all threads of the current rayon pool and with the processor's
/// vectors, and `f64`, of which the whole operator is one thread's plain loop, for checks.
pub trait AttentionNumber: sealed::Compute {}

impl AttentionNumber for f32 {}
impl AttentionNumber for f64 {}

mod sealed {
    use super::{Add, AddAssign, Isa, Mul, Problem, Simd, cpu, reference};

    /// The paths that compute in a type, and its arithmetic.
    pub trait Compute:
        Copy
        + Default
        + Send
        + Sync
        + Add<Output = Self>
        + Mul<Output = Self>
        + AddAssign
        + Into<f64>
        + 'static
    {
        /// The nearest value of the type.
        fn nearest(x: f64) -> Self;

        /// The product of two vectors, as long as the shorter one.
        fn product<S: Simd>(s: S, a: &[Self], b: &[Self]) -> Self;

        fn attend(problem: &Problem, qkv: &[Self], rpb: &[Self]) -> Vec<Self>;

        fn differentiate(
            problem: &Problem,
            qkv: &[Self],
            rpb: &[Self],
            grad: &[Self],
            rpb_too: bool,
        ) -> (Vec<Self>, Option<Vec<Self>>);
    }

    impl Compute for f32 {
        fn nearest(x: f64) -> Self {
            x as Self
        }

        #[inline(always)]
        fn product<S: Simd>(s: S, a: &[Self], b: &[Self]) -> Self {
            let length = a.len().min(b.len());
            let mut sum = s.splat(0.0);
            for c in (0..length).step_by(S::LANES) {
                let (a, b, left) = (a[c..].as_ptr(), b[c..].as_ptr(), length - c);
                // SAFETY: both have `left` values.
                let (a, b) = unsafe {
                    if left < S::LANES {
                        (s.load_first(a, left), s.load_first(b, left))
                    } else {
                        (s.load(a), s.load(b))
                    }
                };
                sum = s.fma(a, b, sum);
            }
            s.reduce_sum(sum)
        }

        fn attend(problem: &Problem, qkv: &[Self], rpb: &[Self]) -> Vec<Self> {
            cpu::forward(problem, Isa::best(), qkv, rpb, &[])
        }

        fn differentiate(
            problem: &Problem,
            qkv: &[Self],
            rpb: &[Self],
            grad: &[Self],
            rpb_too: bool,
        ) -> (Vec<Self>, Option<Vec<Self>>) {
            cpu::backward(problem, Isa::best(), qkv, rpb, &[], grad, rpb_too)
        }
    }

    impl Compute for f64 {
        fn nearest(x: f64) -> Self {
            x
        }

        #[inline(always)]
        fn product<S: Simd>(_: S, a: &[Self], b: &[Self]) -> Self {
            a.iter().zip(b).map(|(a, b)| a * b).sum()
        }

        fn attend(problem: &Problem, qkv: &[Self], rpb: &[Self]) -> Vec<Self> {
            reference::forward(problem, qkv, rpb, &[])
        }

        fn differentiate(
            problem: &Problem,
            qkv: &[Self],
            rpb: &[Self],
            grad: &[Self],
            rpb_too: bool,
        ) -> (Vec<Self>, Option<Vec<Self>>) {
            let (grad_qkv, grad_rpb) = reference::backward(problem, qkv, rpb, &[], grad);
            (grad_qkv, rpb_too.then_some(grad_rpb))
        }
    }
}

impl NeighborhoodAttention {
    /// The operator on `qkv` of `shape` [B, H, W, 3·heads·dim] and `rpb` [heads, 2K−1, 2K−1], no bias where it is
    /// `None`: [B, H, W, heads·dim].
    ///
    /// ```
    /// use nat_infer::attention::NeighborhoodAttention;
    ///
    /// let attention = NeighborhoodAttention { heads: 2, kernel_size: 7, dilation: 1 };
    /// let qkv = vec![1f32; 14 * 14 * 3 * 64];
    /// let out = attention.forward_slices([1, 14, 14, 3 * 64], &qkv, None)?;
    /// assert_eq!(out.len(), 14 * 14 * 64);
    /// # Ok::<(), nat_infer::attention::AttentionError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`NeighborhoodAttention::forward`] that are about sizes, and [`AttentionError::Length`].
    pub fn forward_slices<T: AttentionNumber>(
        &self,
        shape: [usize; 4],
        qkv: &[T],
        rpb: Option<&[T]>,
    ) -> Result<Vec<T>, AttentionError> {
        let problem = self.problem_of_slices(shape, qkv, rpb)?;
        let zeros = no_bias(&problem, rpb);
        Ok(T::attend(&problem, qkv, rpb.unwrap_or(&zeros)))
    }

    /// The gradients of a loss with respect to `qkv` and, if it is there and `rpb_too`, to `rpb`, of their shapes,
    /// from that with respect to the output, `grad` [B, H, W, heads·dim]. The rest is as in
    /// [`NeighborhoodAttention::forward_slices`].
    ///
    /// # Errors
    /// The same.
    pub fn backward_slices<T: AttentionNumber>(
        &self,
        shape: [usize; 4],
        qkv: &[T],
        rpb: Option<&[T]>,
        grad: &[T],
        rpb_too: bool,
    ) -> Result<(Vec<T>, Option<Vec<T>>), AttentionError> {
        let problem = self.problem_of_slices(shape, qkv, rpb)?;
        check_length("the gradient of the output", grad, &[qkv.len() / 3])?;
        let zeros = no_bias(&problem, rpb);
        Ok(T::differentiate(&problem, qkv, rpb.unwrap_or(&zeros), grad, rpb_too && rpb.is_some()))
    }

    /// The sizes of the computation, which are those of the slices.
    fn problem_of_slices<T>(
        &self,
        shape: [usize; 4],
        qkv: &[T],
        rpb: Option<&[T]>,
    ) -> Result<Problem, AttentionError> {
        let problem = self.problem(&shape, false)?;
        check_length("qkv", qkv, &shape)?;
        if let Some(rpb) = rpb {
            let Problem { heads, bias_side: side, .. } = problem;
            check_length("the relative position bias", rpb, &[heads, side, side])?;
        }
        Ok(problem)
    }
}

/// A table of zeros where there is none.
fn no_bias<T: AttentionNumber>(problem: &Problem, rpb: Option<&[T]>) -> Vec<T> {
    let side = if rpb.is_none() { problem.bias_side } else { 0 };
    vec![T::default(); problem.heads * side * side]
}

/// Whether a slice has the values of a tensor of this shape.
pub(super) fn check_length<T>(
    tensor: &'static str,
    values: &[T],
    shape: &[usize],
) -> Result<(), AttentionError> {
    // No slice has so many values that their number would not fit.
    let expected = shape.iter().copied().fold(1, usize::saturating_mul);
    if values.len() == expected {
        Ok(())
    } else {
        Err(AttentionError::Length { tensor, got: values.len(), expected })
    }
}
