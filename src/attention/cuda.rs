//! Neighborhood attention on the GPU: chooses between the kernels of nat-cuda.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::{CudaStorage, Layout, Result};
use nat_cuda::attention::Problem as Kernels;

use super::Problem;
use crate::cuda::{aligned, element, run};

/// The output [B, H, W, heads·dim] for contiguous qkv and rpb of one type.
pub(super) fn forward(
    problem: &Problem,
    qkv: (&CudaStorage, &Layout),
    rpb: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = qkv.0.device();
    let element = element(qkv.0.dtype())?;
    let inputs = [Some(qkv), Some(rpb)];
    let kernels = kernels(problem);
    let (major, _) = device.cuda_stream().context().compute_capability().w()?;
    let launch = match kernels.matrix_units(element) {
        Some(launch) if major >= 8 && aligned(&inputs) => launch,
        _ => kernels.general(element, aligned(&inputs)),
    };
    let launch = launch.map_err(candle_core::Error::wrap)?;
    let &Problem { batch, height, width, heads, dim, .. } = problem;
    run(device, &launch, &inputs, qkv.0.dtype(), batch * height * width * heads * dim)
}

fn kernels(problem: &Problem) -> Kernels {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
    Kernels { batch, height, width, heads, dim, kernel_size, dilation }
}
