//! Matrix products, by cuBLAS.

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Error, Result, Storage, Tensor, bail};
use nat_cuda::TooLarge;

use super::operands::{check_device, on_gpu, pointer};
use super::run::uninitialized;

/// x · weightᵀ: `x` [.., inputs], `weight` [outputs, inputs], both contiguous and of one type; sums in f32.
///
/// candle asks cuBLAS for an algorithm that may round the factors of f32 to halves on the way
/// (`CUBLAS_GEMM_DEFAULT_TENSOR_OP`, "while allowing use of reduced precision CUBLAS_COMPUTE_32F_FAST_16F kernels"). This one
/// may not.
///
/// # Errors
/// When the tensors are not on one GPU, do not fit or are too large, or cuBLAS fails.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let (mut shape, rows) = (x.dims().to_vec(), x.elem_count() / inputs.max(1));
    match shape.last_mut() {
        Some(last) if *last == inputs && inputs > 0 => *last = outputs,
        _ => bail!("a product of {:?} and a weight of {:?}", x.shape(), weight.shape()),
    }
    let device = x.device().as_cuda_device()?;
    let dtype = x.dtype();
    let kind = match dtype {
        _ if dtype != weight.dtype() => bail!("a product of {dtype:?} and {:?}", weight.dtype()),
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        other => bail!("the GPU computes in f32, f16 and bf16, not in {other:?}"),
    };
    let size = |size: usize| i32::try_from(size).map_err(|_| Error::wrap(TooLarge));
    // Elements too are counted in 32 bits somewhere.
    size(x.elem_count())?;
    size(rows * outputs)?;
    let (m, n, k) = (size(outputs)?, size(rows)?, size(inputs)?);
    // SAFETY: the product below writes every element.
    let out = unsafe { uninitialized(device, dtype, rows * outputs)? };
    if m > 0 && n > 0 {
        let stream = device.cuda_stream();
        let held = [x, weight].map(Tensor::storage_and_layout);
        let [(x, x_layout), (weight, weight_layout)] = &held;
        let (x, weight) = (on_gpu(x, x_layout)?, on_gpu(weight, weight_layout)?);
        let start =
            |(storage, layout): (&CudaStorage, &candle_core::Layout)| match layout.contiguous_offsets() {
                Some((start, _)) => check_device(device, storage).map(|()| start),
                None => Err(Error::RequiresContiguous { op: "a GPU's product" }.bt()),
            };
        let (x_start, weight_start) = (start(x)?, start(weight)?);
        let (x, _x) = pointer(x.0, x_start, &stream)?;
        let (weight, _weight) = pointer(weight.0, weight_start, &stream)?;
        let (to, _to) = pointer(&out, 0, &stream)?;
        let (one, zero) = (1f32, 0f32);
        let blas = device.cublas_handle();
        // cuBLAS's matrices are column by column: outᵀ [outputs, rows] = weight · xᵀ.
        // SAFETY: the pointers are to contiguous matrices of these sizes and this type, which stay alive until their use is on
        // the stream; the factors are read before the call returns.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                m,
                n,
                k,
                (&raw const one).cast(),
                weight as *const _,
                kind,
                k,
                0,
                x as *const _,
                kind,
                k,
                0,
                (&raw const zero).cast(),
                to as *mut _,
                kind,
                m,
                0,
                1,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(Error::wrap)?;
    }
    Ok(Tensor::from_storage(Storage::Cuda(out), shape, BackpropOp::none(), false))
}
