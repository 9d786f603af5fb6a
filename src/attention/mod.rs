//! Neighborhood attention, the operator: every query of a map attends to the K×K keys around it.
//!
//! For the query at pixel i with the neighbours j(t), 0 ≤ t < K² (row-major), in each head of `dim`
//! channels:
//!
//! ```text
//! score[i, t] = q_i · k_j(t) / √dim + rpb[head, r_y(t), r_x(t)]
//! out_i       = Σ_t softmax(score[i])_t · v_j(t)
//! ```
//!
//! [`window`] says which pixels j(t) are and which bias (r_y, r_x) each takes: with dilation d every
//! d-th pixel, and a window that shifts at a border instead of shrinking. On a map that is smaller than a window some
//! neighbours are padded positions, which share one key and one value.
//!
//! Sources: arXiv 2204.07143, section 3; arXiv 2209.15001, section 3 (dilation); the published weights
//! were trained with NATTEN 0.14, whose formulas these are.
//!
//! It is differentiable: candle's `backward` gives the gradients of qkv and rpb. With p = softmax(score) and g the
//! gradient of out:
//!
//! ```text
//! ∂score[i, t] = p[i, t] · (g_i · v_j(t) − Σ_u p[i, u] · g_i · v_j(u))      ∂rpb[head, r_y, r_x] = Σ_i ∂score[i, t]
//! ∂q_i = Σ_t ∂score[i, t] · k_j(t) / √dim      ∂k_j += ∂score[i, t] · q_i / √dim      ∂v_j += p[i, t] · g_i
//! ```
//!
//! `reference.rs` computes both in f64, plainly; `cpu/` is the fast path in f32, and `cuda.rs` launches the kernels of
//! the crate nat-cuda. None of them stores anything of size H·W·K². `operator.rs` is what candle and users see of them:
//! it checks a computation's sizes, which are a `Problem` then, and chooses the path. `slices.rs` is the same for arrays
//! that are not candle's, and `halves.rs` has the products before and after the softmax on their own, for code that puts
//! something between them: what lies between is of size H·W·K².
#[cfg(feature = "cuda")]
mod biased;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod halves;
mod operator;
mod problem;
mod reference;
mod slices;
#[cfg(test)]
mod tests;
pub mod window;

#[cfg(feature = "cuda")]
pub(crate) use biased::BiasedAttention;
pub use error::AttentionError;
pub use halves::AttentionHalves;
pub use operator::NeighborhoodAttention;
pub use slices::AttentionNumber;
