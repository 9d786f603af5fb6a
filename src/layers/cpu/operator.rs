//! Fused layers as operators of candle, so that its `backward` goes through them.
//!
//! A layer knows nothing of tensors: it computes with the values of a contiguous map, forwards and backwards.
//! What the gradient needs beside its input it computes again. Only the gradient of the input is computed, and
//! only by layers that were built with [`Weights::differentiable`](crate::weights::Weights::differentiable).

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};

use crate::tensors::with_all_f32;

/// What a fused layer computes, on maps of f32.
pub(super) trait Layer: Send + Sync + 'static {
    /// What errors call it.
    const NAME: &'static str;

    /// The result for `x`, with `residual` added where the layer has one.
    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32>;

    /// The gradient of `x` from that of the result; a residual's is that of the result itself.
    ///
    /// # Errors
    /// When the layer was built for inference alone.
    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>>;
}

/// Applies a layer to `x`, of any float type, on the CPU: f32 of the shape `shape`. A `residual` has that
/// shape too.
///
/// # Errors
/// When a tensor is not on the CPU, or the residual has another shape.
pub(super) fn apply(
    layer: impl Layer,
    x: &Tensor,
    residual: Option<&Tensor>,
    shape: &Shape,
) -> Result<Tensor> {
    let operator = Operator { layer, shape: shape.clone() };
    let narrow = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    match residual {
        None => narrow(x)?.apply_op1(operator),
        Some(residual) if residual.shape() == shape => narrow(x)?.apply_op2(&narrow(residual)?, operator),
        Some(residual) => {
            candle_core::bail!(
                "a residual of shape {:?} beside a branch of shape {shape:?}",
                residual.shape()
            )
        }
    }
}

/// A layer with the shape of its result.
struct Operator<L> {
    layer: L,
    shape: Shape,
}

impl<L: Layer> Operator<L> {
    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let out = self.layer.forward(x, residual);
        if out.len() != self.shape.elem_count() {
            candle_core::bail!("{} made {} values for {:?}", L::NAME, out.len(), self.shape);
        }
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }

    fn backward(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let inputs = [x.clone(), grad.clone()];
        let grad = with_all_f32(&inputs, |inputs| self.layer.backward(inputs[0], inputs[1]))??;
        Tensor::from_vec(grad, x.shape(), x.device())
    }
}

impl<L: Layer> CustomOp1 for Operator<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(values(L::NAME, x, layout)?, None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.backward(x, grad).map(Some)
    }
}

impl<L: Layer> CustomOp2 for Operator<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let residual = values(L::NAME, residual, residual_layout)?;
        self.forward(values(L::NAME, x, x_layout)?, Some(residual))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad_x = if x.track_op() { Some(self.backward(x, grad)?) } else { None };
        Ok((grad_x, residual.track_op().then(|| grad.clone())))
    }
}

/// The values of a contiguous f32 map.
fn values<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => Err(candle_core::Error::RequiresContiguous { op }.bt()),
    }
}
