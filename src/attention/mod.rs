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
//! d-th pixel, and a window that shifts at a border instead of shrinking.
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
//! `reference.rs` computes both in f64, plainly; `cpu.rs` and the files below it are the fast path in f32, and
//! `cuda.rs` launches the kernels of the crate nat-cuda. None of them stores anything of size H·W·K².

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(test)]
mod tests;
pub mod window;

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use half::{bf16, f16};

use crate::layers::profile::{Kind, span};
use crate::layers::simd::Isa;
use crate::layers::with_all_f32;

/// Neighborhood attention with a relative position bias, as a candle operator over (qkv, rpb).
///
/// - `qkv` [B, H, W, 3·heads·dim]: q, k, v in this order, each [heads, dim], as one linear layer of
///   width 3·C writes them. Queries are unscaled: the operator multiplies scores with dim^−½.
/// - `rpb` [heads, 2K−1, 2K−1], shared by all dilations.
/// - The result is [B, H, W, heads·dim], of `qkv`'s type.
///
/// H and W are at least K·d: what to do with smaller maps is for the model to say (NAT pads with zeros
/// before the qkv layer). K is odd, or even where the window is the whole map (H = W = K, d = 1).
///
/// On the CPU f16 and bf16 are computed in f32, and f64 by a plain loop. On a GPU (feature `cuda`) scores and
/// sums are f32, and f64 is refused; heads of 32 channels in f16 and bf16 take the matrix units.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use nat_infer::attention::NeighborhoodAttention;
///
/// let (heads, dim, kernel_size) = (2, 32, 7);
/// let attention = NeighborhoodAttention { heads, kernel_size, dilation: 1 };
/// let qkv = Tensor::randn(0f32, 1., (1, 14, 14, 3 * heads * dim), &Device::Cpu)?;
/// let rpb = Tensor::zeros((heads, 2 * kernel_size - 1, 2 * kernel_size - 1), DType::F32, &Device::Cpu)?;
/// let out = attention.forward(&qkv, Some(&rpb))?;
/// assert_eq!(out.dims(), [1, 14, 14, heads * dim]);
/// // The same through candle's own interface for operators.
/// let same = qkv.apply_op2(&rpb, attention)?;
/// assert_eq!(same.dims(), out.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Gradients go through it as through any operator of candle:
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use nat_infer::attention::NeighborhoodAttention;
///
/// let (heads, dim, kernel_size) = (2, 32, 7);
/// let attention = NeighborhoodAttention { heads, kernel_size, dilation: 2 };
/// let qkv = Var::randn(0f32, 1., (1, 14, 14, 3 * heads * dim), &Device::Cpu)?;
/// let rpb = Var::randn(0f32, 1., (heads, 2 * kernel_size - 1, 2 * kernel_size - 1), &Device::Cpu)?;
///
/// let loss = attention.forward(&qkv, Some(&rpb))?.sqr()?.sum_all()?;
/// let gradients = loss.backward()?;
/// assert_eq!(gradients.get(&qkv).unwrap().dims(), qkv.dims());
/// // The same number added to all biases of a head changes nothing: their gradients cancel each other.
/// let sum = gradients.get(&rpb).unwrap().sum((1, 2))?.abs()?.max(0)?.to_scalar::<f32>()?;
/// assert!(sum < 1e-3);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborhoodAttention {
    /// Heads that the channels are divided into.
    pub heads: usize,
    /// K: neighbours on each axis.
    pub kernel_size: usize,
    /// d: distance between neighbours, 1 for the pixels next to each other.
    pub dilation: usize,
}

impl NeighborhoodAttention {
    /// Applies the operator to `qkv` [B, H, W, 3·heads·dim], without bias when `rpb` is `None`.
    ///
    /// # Errors
    /// Every variant of [`AttentionError`].
    pub fn forward(&self, qkv: &Tensor, rpb: Option<&Tensor>) -> Result<Tensor, AttentionError> {
        let problem = self.problem(qkv.dims())?;
        let Problem { heads, bias_side: side, .. } = problem;
        let _span = span(Kind::Attention, problem.macs());
        let rpb = match rpb {
            Some(rpb) => rpb.to_dtype(qkv.dtype())?.contiguous()?,
            None => Tensor::zeros((heads, side, side), qkv.dtype(), qkv.device())?,
        };
        Ok(qkv.contiguous()?.apply_op2(&rpb, *self)?)
    }

    /// The sizes of the computation on a qkv of this shape.
    fn problem(&self, qkv: &[usize]) -> Result<Problem, AttentionError> {
        let &Self { heads, kernel_size, dilation } = self;
        let &[batch, height, width, channels] = qkv else {
            return Err(AttentionError::Rank { shape: qkv.to_vec() });
        };
        if heads == 0 || kernel_size == 0 || dilation == 0 {
            return Err(AttentionError::Zero { heads, kernel_size, dilation });
        }
        if channels == 0 || !channels.is_multiple_of(3) || !(channels / 3).is_multiple_of(heads) {
            return Err(AttentionError::Channels { channels, heads });
        }
        let whole_map = height == kernel_size && width == kernel_size && dilation == 1;
        if kernel_size.is_multiple_of(2) && !whole_map {
            return Err(AttentionError::EvenKernel { kernel_size, dilation, height, width });
        }
        // Length >= K·d, in a form that cannot overflow.
        if height.min(width) / dilation < kernel_size {
            return Err(AttentionError::SmallMap { height, width, kernel_size, dilation });
        }
        let (dim, bias_side) = (channels / 3 / heads, 2 * kernel_size - 1);
        Ok(Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side })
    }

    /// The sizes of the computation on a qkv and a bias table of these layouts.
    fn problem_with_bias(&self, qkv: &Layout, rpb: &Layout) -> Result<Problem, AttentionError> {
        let problem = self.problem(qkv.dims())?;
        let Problem { heads, bias_side: side, .. } = problem;
        if rpb.dims() != [heads, side, side] {
            return Err(AttentionError::Bias { got: rpb.dims().to_vec(), heads, side });
        }
        Ok(problem)
    }
}

/// What a computation is about, checked.
#[derive(Clone, Copy, Debug)]
struct Problem {
    batch: usize,
    height: usize,
    width: usize,
    heads: usize,
    /// Channels of a head.
    dim: usize,
    kernel_size: usize,
    dilation: usize,
    /// 2K−1.
    bias_side: usize,
}

impl Problem {
    /// Multiply-accumulates of both products.
    fn macs(&self) -> usize {
        let &Self { batch, height, width, heads, dim, kernel_size, .. } = self;
        2 * batch * height * width * kernel_size.pow(2) * heads * dim
    }

    /// What a query's products with keys are multiplied by: dim^−½.
    fn scale(&self) -> f64 {
        (self.dim as f64).powf(-0.5)
    }

    /// The shape of the result.
    fn output(&self) -> Shape {
        (self.batch, self.height, self.width, self.heads * self.dim).into()
    }
}

impl CustomOp2 for NeighborhoodAttention {
    fn name(&self) -> &'static str {
        "neighborhood-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        rpb: &CpuStorage,
        rpb_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let problem = self.problem_with_bias(qkv_layout, rpb_layout)?;
        let (Some((q0, q1)), Some((b0, b1))) =
            (qkv_layout.contiguous_offsets(), rpb_layout.contiguous_offsets())
        else {
            return Err(candle_core::Error::RequiresContiguous { op: self.name() }.bt());
        };
        let f32s = |qkv: &[f32], rpb: &[f32]| cpu::forward(&problem, Isa::best(), qkv, rpb);
        let out = match (qkv, rpb) {
            (CpuStorage::F32(qkv), CpuStorage::F32(rpb)) => CpuStorage::F32(f32s(&qkv[q0..q1], &rpb[b0..b1])),
            (CpuStorage::F16(qkv), CpuStorage::F16(rpb)) => {
                let widen = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
                let out = f32s(&widen(&qkv[q0..q1]), &widen(&rpb[b0..b1]));
                CpuStorage::F16(out.into_iter().map(f16::from_f32).collect())
            }
            (CpuStorage::BF16(qkv), CpuStorage::BF16(rpb)) => {
                let widen = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
                let out = f32s(&widen(&qkv[q0..q1]), &widen(&rpb[b0..b1]));
                CpuStorage::BF16(out.into_iter().map(bf16::from_f32).collect())
            }
            (CpuStorage::F64(qkv), CpuStorage::F64(rpb)) => {
                CpuStorage::F64(reference::forward(&problem, &qkv[q0..q1], &rpb[b0..b1]))
            }
            (qkv, rpb) => {
                use candle_core::backend::BackendStorage;
                return Err(AttentionError::Types { qkv: qkv.dtype(), rpb: rpb.dtype() }.into());
            }
        };
        Ok((out, problem.output()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        rpb: &candle_core::CudaStorage,
        rpb_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let problem = self.problem_with_bias(qkv_layout, rpb_layout)?;
        if qkv.dtype() != rpb.dtype() {
            return Err(AttentionError::Types { qkv: qkv.dtype(), rpb: rpb.dtype() }.into());
        }
        Ok((cuda::forward(&problem, (qkv, qkv_layout), (rpb, rpb_layout))?, problem.output()))
    }

    /// The gradients of the inputs that candle keeps track of.
    fn bwd(
        &self,
        qkv: &Tensor,
        rpb: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let problem = self.problem_with_bias(qkv.layout(), rpb.layout())?;
        let rpb_too = rpb.track_op();
        let (grad_qkv, grad_rpb) = match (qkv.device(), qkv.dtype()) {
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), _) => return cuda::backward(&problem, qkv, rpb, &grad.contiguous()?),
            (device, DType::F64) => {
                let [x, bias, grad] = [qkv, rpb, grad].map(|x| x.flatten_all()?.to_vec1());
                let (grad_qkv, grad_rpb) = reference::backward(&problem, &x?, &bias?, &grad?);
                let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), device);
                (tensor(grad_qkv, qkv)?, rpb_too.then(|| tensor(grad_rpb, rpb)).transpose()?)
            }
            (device, dtype) => {
                let (grad_qkv, grad_rpb) =
                    with_all_f32(&[qkv.clone(), rpb.clone(), grad.clone()], |inputs| {
                        cpu::backward(&problem, Isa::best(), inputs[0], inputs[1], inputs[2], rpb_too)
                    })?;
                let tensor =
                    |values, like: &Tensor| Tensor::from_vec(values, like.shape(), device)?.to_dtype(dtype);
                (tensor(grad_qkv, qkv)?, grad_rpb.map(|grad| tensor(grad, rpb)).transpose()?)
            }
        };
        Ok((qkv.track_op().then_some(grad_qkv), grad_rpb))
    }
}

/// Why neighborhood attention refused its inputs.
#[derive(Debug, thiserror::Error)]
pub enum AttentionError {
    /// qkv is not [B, H, W, channels].
    #[error("neighborhood attention takes qkv as [batch, height, width, 3 x channels], got {shape:?}")]
    Rank {
        /// The shape of qkv.
        shape: Vec<usize>,
    },
    /// A parameter that has to be positive is zero.
    #[error(
        "neighborhood attention needs positive parameters, got {heads} heads, kernel size {kernel_size}, \
         dilation {dilation}"
    )]
    Zero {
        /// Heads asked for.
        heads: usize,
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
    },
    /// The channels of qkv are not q, k and v of every head.
    #[error("{channels} channels of qkv cannot be divided into q, k and v of {heads} heads")]
    Channels {
        /// The last dimension of qkv.
        channels: usize,
        /// Heads asked for.
        heads: usize,
    },
    /// An even window has no middle: only the window that is the whole map may be even.
    #[error(
        "kernel size {kernel_size} is even: on a map of {height}x{width} with dilation {dilation} it has to \
         be odd"
    )]
    EvenKernel {
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
        /// H.
        height: usize,
        /// W.
        width: usize,
    },
    /// A window does not fit into the map.
    #[error(
        "a map of {height}x{width} is too small for kernel size {kernel_size} with dilation {dilation}: it \
         needs kernel size x dilation on both axes"
    )]
    SmallMap {
        /// H.
        height: usize,
        /// W.
        width: usize,
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
    },
    /// The bias table is not [heads, 2K−1, 2K−1].
    #[error("the relative position bias has shape {got:?}, expected [{heads}, {side}, {side}]")]
    Bias {
        /// The shape of rpb.
        got: Vec<usize>,
        /// Heads asked for.
        heads: usize,
        /// 2K−1.
        side: usize,
    },
    /// Types that the operator does not compute with.
    #[error(
        "neighborhood attention takes f16, bf16, f32 or f64 of one type, got qkv {qkv:?} and bias {rpb:?}"
    )]
    Types {
        /// Type of qkv.
        qkv: DType,
        /// Type of rpb.
        rpb: DType,
    },
    /// candle could not prepare the tensors.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<AttentionError> for candle_core::Error {
    fn from(error: AttentionError) -> Self {
        match error {
            AttentionError::Candle(error) => error,
            shape => Self::wrap(shape),
        }
    }
}
