//! Neighborhood attention and its gradient on the GPU: chooses between the kernels of nat-cuda.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Storage, Tensor};
use nat_cuda::attention::Launches;
use nat_cuda::{Element, Launch, TooLarge};

use super::problem::Problem;
use crate::cuda::{Operand, aligned, element, on_gpu, run, run_into, uninitialized};

/// The output [B, H, W, heads·dim] for contiguous qkv, rpb and, where maps may be padded, pad, all of one type.
pub(super) fn forward(
    problem: &Problem,
    qkv: (&CudaStorage, &Layout),
    rpb: (&CudaStorage, &Layout),
    pad: Operand,
) -> Result<CudaStorage> {
    let device = qkv.0.device();
    let inputs = [Some(qkv), Some(rpb), pad, None];
    let launch = launch(problem, device, element(qkv.0.dtype())?)?(aligned(&inputs)).map_err(Error::wrap)?;
    let &Problem { batch, height, width, heads, dim, .. } = problem;
    run(device, &launch, &inputs, qkv.0.dtype(), batch * height * width * heads * dim)
}

/// The launch for a problem on a GPU by whether the tensors begin at a multiple of 16 bytes, of the kernel that serves it
/// best there: from (qkv, rpb, pad, query bias) to (out).
///
/// # Errors
/// When the driver does not say what the GPU is.
pub(super) fn launch(
    problem: &Problem,
    device: &CudaDevice,
    element: Element,
) -> Result<impl Fn(bool) -> std::result::Result<Launch, TooLarge>> {
    let launches = launches(problem);
    let (major, _) = device.cuda_stream().context().compute_capability().w()?;
    Ok(move |aligned| match launches.matrix_units(element) {
        Some(launch) if major >= 8 && aligned => launch,
        _ => launches.general(element, aligned),
    })
}

/// The gradients of those of qkv and rpb that candle keeps track of, for contiguous tensors of one type.
pub(super) fn backward(
    problem: &Problem,
    qkv: &Tensor,
    rpb: &Tensor,
    pad: Option<&Tensor>,
    grad: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (device, dtype) = (qkv.device().as_cuda_device()?, qkv.dtype());
    let (element, launches) = (element(dtype)?, launches(problem));
    let held = [Some(qkv), Some(rpb), pad, Some(grad)].map(|x| x.map(Tensor::storage_and_layout));
    let operands =
        held.iter().map(|held| held.as_ref().map(|(storage, layout)| on_gpu(storage, layout)).transpose());
    let mut inputs = operands.collect::<Result<Vec<Operand>>>()?;
    let aligned = aligned(&inputs);

    let &Problem { batch, height, width, heads, .. } = problem;
    let layout = Layout::contiguous((batch, height, width, heads, 2));
    // SAFETY: both are written before they are read: the gradient's q by the first launch and the rest by the
    // second, without which it is not returned.
    let (mut grad_qkv, mut statistics) = unsafe {
        let statistics = uninitialized(device, DType::F32, layout.shape().elem_count())?;
        (uninitialized(device, dtype, qkv.elem_count())?, statistics)
    };
    let launch = launches.query_gradients(element, aligned).map_err(Error::wrap)?;
    run_into(device, &launch, &inputs, &mut [Some(&mut grad_qkv), Some(&mut statistics)])?;
    inputs.push(Some((&statistics, &layout)));
    let tensor = |storage, like: &Tensor| {
        Tensor::from_storage(Storage::Cuda(storage), like.shape(), BackpropOp::none(), false)
    };
    let grad_qkv = if qkv.track_op() {
        let launch = launches.key_gradients(element, aligned).map_err(Error::wrap)?;
        run_into(device, &launch, &inputs, &mut [Some(&mut grad_qkv)])?;
        Some(tensor(grad_qkv, qkv))
    } else {
        None
    };
    let grad_rpb = if rpb.track_op() {
        let launch = launches.bias_gradients(element, aligned).map_err(Error::wrap)?;
        Some(tensor(run(device, &launch, &inputs, dtype, rpb.elem_count())?, rpb))
    } else {
        None
    };
    Ok((grad_qkv, grad_rpb))
}

fn launches(problem: &Problem) -> Launches {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
    Launches { batch, height, width, heads, dim, kernel_size, dilation }
}
