//! The operator as candle and users see it: checks sizes and types, and chooses the path that computes.

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor, WithDType};
use half::{bf16, f16};

#[cfg(feature = "cuda")]
use super::cuda;
use super::error::AttentionError;
use super::problem::Problem;
use super::{cpu, reference};
use crate::profile::{Kind, span};
use crate::simd::Isa;
use crate::tensors::with_all_f32;

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
    pub(super) fn problem(&self, qkv: &[usize], padded: bool) -> Result<Problem, AttentionError> {
        Problem::checked(qkv, self.heads, self.kernel_size, self.dilation, padded)
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

/// A tensor as an operator of candle gets it.
type StoredTensor<'a, S> = (&'a S, &'a Layout);

/// The values of a contiguous tensor on the CPU.
fn stored<'a, T: WithDType>((storage, layout): StoredTensor<'a, CpuStorage>) -> candle_core::Result<&'a [T]> {
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
        qkv: StoredTensor<CpuStorage>,
        rpb: StoredTensor<CpuStorage>,
        pad: Option<StoredTensor<CpuStorage>>,
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
        qkv: StoredTensor<candle_core::CudaStorage>,
        rpb: StoredTensor<candle_core::CudaStorage>,
        pad: Option<StoredTensor<candle_core::CudaStorage>>,
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
fn slices<T: WithDType>(
    tensors: [Option<StoredTensor<'_, CpuStorage>>; 3],
) -> candle_core::Result<[&[T]; 3]> {
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
