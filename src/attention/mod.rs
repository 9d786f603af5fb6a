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
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor, WithDType};
use half::{bf16, f16};

use crate::layers::profile::{Kind, span};
use crate::layers::with_all_f32;
use crate::simd::Isa;

/// Neighborhood attention with a relative position bias, as a candle operator over (qkv, rpb).
///
/// - `qkv` [B, H, W, 3·heads·dim]: q, k, v in this order, each [heads, dim], as one linear layer of
///   width 3·C writes them. Queries are unscaled: the operator multiplies scores with dim^−½.
/// - `rpb` [heads, 2K−1, 2K−1], shared by all dilations.
/// - The result is [B, H, W, heads·dim], of `qkv`'s type.
///
/// H and W are at least K·d: smaller maps are for [`NeighborhoodAttention::forward_padded`]. K is odd, or even where
/// the window is the whole map (H = W = K, d = 1).
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
    /// Every variant of [`AttentionError`] but that of a wrong `pad`.
    pub fn forward(&self, qkv: &Tensor, rpb: Option<&Tensor>) -> Result<Tensor, AttentionError> {
        let problem = self.problem(qkv.dims(), false)?;
        let _span = span(Kind::Attention, problem.macs());
        Ok(qkv.contiguous()?.apply_op2(&problem.table(rpb, qkv)?, *self)?)
    }

    /// The same on a map of any size: an axis shorter than K·d is padded at its end up to that.
    ///
    /// A padded position is a key like any other and no query: the result is that of the map of K·d whose positions
    /// beyond H and W all have `pad` [3·heads·dim] for their q, k and v, cut back to [B, H, W, heads·dim]. It costs
    /// what the map itself does: nothing of the padded size is computed or kept. NAT's networks pad with zeros before
    /// their qkv layer, which makes `pad` that layer's bias; `None` is zeros.
    ///
    /// No gradient goes to `pad`.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use nat_infer::attention::NeighborhoodAttention;
    ///
    /// let attention = NeighborhoodAttention { heads: 2, kernel_size: 7, dilation: 4 };
    /// let qkv = Tensor::randn(0f32, 1., (1, 14, 30, 3 * 64), &Device::Cpu)?;
    /// let bias = Tensor::randn(0f32, 1., 3 * 64, &Device::Cpu)?;
    /// let out = attention.forward_padded(&qkv, None, Some(&bias))?;
    /// assert_eq!(out.dims(), [1, 14, 30, 64]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every variant of [`AttentionError`] but [`AttentionError::SmallMap`].
    pub fn forward_padded(
        &self,
        qkv: &Tensor,
        rpb: Option<&Tensor>,
        pad: Option<&Tensor>,
    ) -> Result<Tensor, AttentionError> {
        let problem = self.problem(qkv.dims(), true)?;
        if !problem.is_padded() {
            return Self { dilation: problem.dilation, ..*self }.forward(qkv, rpb);
        }
        let _span = span(Kind::Attention, problem.macs());
        let channels = 3 * problem.heads * problem.dim;
        let pad = match pad {
            Some(pad) if pad.dims() != [channels] => {
                return Err(AttentionError::Pad { got: pad.dims().to_vec(), channels });
            }
            Some(pad) => pad.to_dtype(qkv.dtype())?.contiguous()?.detach(),
            None => Tensor::zeros(channels, qkv.dtype(), qkv.device())?,
        };
        Ok(qkv.contiguous()?.apply_op3(&problem.table(rpb, qkv)?, &pad, Padded(*self))?)
    }

    /// The sizes of the computation on a qkv of this shape, which may be `padded`.
    fn problem(&self, qkv: &[usize], padded: bool) -> Result<Problem, AttentionError> {
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
            if !padded {
                return Err(AttentionError::SmallMap { height, width, kernel_size, dilation });
            }
            if kernel_size > MOST_PADDED {
                return Err(AttentionError::LargeKernel { height, width, kernel_size });
            }
        }
        let (dim, bias_side) = (channels / 3 / heads, 2 * kernel_size - 1);
        // Beyond the map a dilation changes nothing.
        let dilation = dilation.min(height.max(width)).max(1);
        Ok(Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side })
    }

    /// The sizes of the computation on a qkv and a bias table of these layouts.
    fn problem_with_bias(&self, qkv: &Layout, rpb: &Layout, padded: bool) -> Result<Problem, AttentionError> {
        let problem = self.problem(qkv.dims(), padded)?;
        let Problem { heads, bias_side: side, .. } = problem;
        if rpb.dims() != [heads, side, side] {
            return Err(AttentionError::Bias { got: rpb.dims().to_vec(), heads, side });
        }
        Ok(problem)
    }
}

/// The widest kernel that a smaller map is padded for. Its scores and its biases, which take memory by K², are then
/// not bounded by the map: at this width they are a few megabytes a thread and a quarter of one a head.
const MOST_PADDED: usize = 128;

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
    /// Whether a map is smaller than the window.
    fn is_padded(&self) -> bool {
        self.height.min(self.width) / self.dilation < self.kernel_size
    }

    /// Multiply-accumulates of both products.
    fn macs(&self) -> usize {
        let &Self { batch, height, width, heads, dim, kernel_size, .. } = self;
        (2 * batch * height * width * heads * dim).saturating_mul(kernel_size.pow(2))
    }

    /// The bias table, of `qkv`'s type and where that is: `rpb`, or zeros.
    fn table(&self, rpb: Option<&Tensor>, qkv: &Tensor) -> candle_core::Result<Tensor> {
        let &Self { heads, bias_side: side, .. } = self;
        match rpb {
            Some(rpb) => rpb.to_dtype(qkv.dtype())?.contiguous(),
            None => Tensor::zeros((heads, side, side), qkv.dtype(), qkv.device()),
        }
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

/// A tensor as an operator of candle gets it.
type Operand<'a, S> = (&'a S, &'a Layout);

/// The values of a contiguous tensor on the CPU.
fn stored<'a, T: WithDType>((storage, layout): Operand<'a, CpuStorage>) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => Err(candle_core::Error::RequiresContiguous { op: NAME }.bt()),
    }
}

/// What errors call the operator.
const NAME: &str = "neighborhood-attention";

impl NeighborhoodAttention {
    /// The output on the CPU; `pad` where maps may be padded.
    fn on_cpu(
        &self,
        qkv: Operand<CpuStorage>,
        rpb: Operand<CpuStorage>,
        pad: Option<Operand<CpuStorage>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let problem = self.problem_with_bias(qkv.1, rpb.1, pad.is_some())?;
        let dtype = qkv.0.dtype();
        if rpb.0.dtype() != dtype {
            return Err(AttentionError::Types { qkv: dtype, rpb: rpb.0.dtype() }.into());
        }
        let all = [Some(qkv), Some(rpb), pad];
        let f32s = |x: [Vec<f32>; 3]| cpu::forward(&problem, Isa::best(), &x[0], &x[1], &x[2]);
        let out = match dtype {
            DType::F32 => {
                let [qkv, rpb, pad] = slices(all)?;
                CpuStorage::F32(cpu::forward(&problem, Isa::best(), qkv, rpb, pad))
            }
            DType::F64 => {
                let [qkv, rpb, pad] = slices(all)?;
                CpuStorage::F64(reference::forward(&problem, qkv, rpb, pad))
            }
            DType::F16 => {
                let wide = slices(all)?.map(|x| x.iter().copied().map(f16::to_f32).collect());
                CpuStorage::F16(f32s(wide).into_iter().map(f16::from_f32).collect())
            }
            DType::BF16 => {
                let wide = slices(all)?.map(|x| x.iter().copied().map(bf16::to_f32).collect());
                CpuStorage::BF16(f32s(wide).into_iter().map(bf16::from_f32).collect())
            }
            other => return Err(AttentionError::Types { qkv: other, rpb: other }.into()),
        };
        Ok((out, problem.output()))
    }

    /// The output on the GPU; `pad` where maps may be padded.
    #[cfg(feature = "cuda")]
    fn on_gpu(
        &self,
        qkv: Operand<candle_core::CudaStorage>,
        rpb: Operand<candle_core::CudaStorage>,
        pad: Option<Operand<candle_core::CudaStorage>>,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let problem = self.problem_with_bias(qkv.1, rpb.1, pad.is_some())?;
        if qkv.0.dtype() != rpb.0.dtype() {
            return Err(AttentionError::Types { qkv: qkv.0.dtype(), rpb: rpb.0.dtype() }.into());
        }
        Ok((cuda::forward(&problem, qkv, rpb, pad)?, problem.output()))
    }

    /// The gradients of the inputs that candle keeps track of.
    fn gradients(
        &self,
        qkv: &Tensor,
        rpb: &Tensor,
        pad: Option<&Tensor>,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let problem = self.problem_with_bias(qkv.layout(), rpb.layout(), pad.is_some())?;
        let rpb_too = rpb.track_op();
        let (grad_qkv, grad_rpb) = match (qkv.device(), qkv.dtype()) {
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), _) => return cuda::backward(&problem, qkv, rpb, pad, &grad.contiguous()?),
            (device, DType::F64) => {
                let [x, bias, grad] = [qkv, rpb, grad].map(|x| x.flatten_all()?.to_vec1());
                let pad = pad.map_or_else(|| Ok(Vec::new()), Tensor::to_vec1)?;
                let (grad_qkv, grad_rpb) = reference::backward(&problem, &x?, &bias?, &pad, &grad?);
                let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), device);
                (tensor(grad_qkv, qkv)?, rpb_too.then(|| tensor(grad_rpb, rpb)).transpose()?)
            }
            (device, dtype) => {
                let inputs: Vec<Tensor> =
                    [Some(qkv), Some(rpb), Some(grad), pad].into_iter().flatten().cloned().collect();
                let (grad_qkv, grad_rpb) = with_all_f32(&inputs, |inputs| {
                    let pad = inputs.get(3).copied().unwrap_or_default();
                    cpu::backward(&problem, Isa::best(), inputs[0], inputs[1], pad, inputs[2], rpb_too)
                })?;
                let tensor =
                    |values, like: &Tensor| Tensor::from_vec(values, like.shape(), device)?.to_dtype(dtype);
                (tensor(grad_qkv, qkv)?, grad_rpb.map(|grad| tensor(grad, rpb)).transpose()?)
            }
        };
        Ok((qkv.track_op().then_some(grad_qkv), grad_rpb))
    }
}

/// The values of qkv, rpb and pad, the last of which may be absent.
fn slices<T: WithDType>(tensors: [Option<Operand<'_, CpuStorage>>; 3]) -> candle_core::Result<[&[T]; 3]> {
    let [qkv, rpb, pad] = tensors.map(|tensor| tensor.map_or(Ok(&[][..]), stored));
    Ok([qkv?, rpb?, pad?])
}

impl CustomOp2 for NeighborhoodAttention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        rpb: &CpuStorage,
        rpb_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.on_cpu((qkv, qkv_layout), (rpb, rpb_layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        rpb: &candle_core::CudaStorage,
        rpb_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        self.on_gpu((qkv, qkv_layout), (rpb, rpb_layout), None)
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        rpb: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(qkv, rpb, None, grad)
    }
}

/// The operator on maps of any size, over (qkv, rpb, pad).
struct Padded(NeighborhoodAttention);

impl CustomOp3 for Padded {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        rpb: &CpuStorage,
        rpb_layout: &Layout,
        pad: &CpuStorage,
        pad_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.on_cpu((qkv, qkv_layout), (rpb, rpb_layout), Some((pad, pad_layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        rpb: &candle_core::CudaStorage,
        rpb_layout: &Layout,
        pad: &candle_core::CudaStorage,
        pad_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        self.0.on_gpu((qkv, qkv_layout), (rpb, rpb_layout), Some((pad, pad_layout)))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        rpb: &Tensor,
        pad: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad_qkv, grad_rpb) = self.0.gradients(qkv, rpb, Some(pad), grad)?;
        Ok((grad_qkv, grad_rpb, None))
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
    /// A window is so much larger than the map that padding would take absurd memory.
    #[error(
        "kernel size {kernel_size} is too large for a map of {height}x{width}: maps are padded for kernel sizes up to \
         {MOST_PADDED}"
    )]
    LargeKernel {
        /// H.
        height: usize,
        /// W.
        width: usize,
        /// K.
        kernel_size: usize,
    },
    /// What stands for padded positions is not q, k and v of every head.
    #[error("the padding has shape {got:?}, expected [{channels}]")]
    Pad {
        /// The shape of pad.
        got: Vec<usize>,
        /// 3·heads·dim.
        channels: usize,
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
