//! candle's tensors as kernels take them.

use std::cell::Cell;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, DeviceRepr, SyncOnDrop};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Storage, Tensor, bail};
use nat_cuda::Element;

thread_local! {
    /// Whether this thread records a graph: a network's weights then are on another stream of the same GPU than its input.
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread begins or ends to record.
pub(super) fn set_recording(recording: bool) {
    RECORDING.set(recording);
}

/// An input of a kernel: contiguous, or nothing where the kernel takes a null pointer.
pub(crate) type Operand<'a> = Option<(&'a CudaStorage, &'a Layout)>;

/// The kernels' word for a type.
///
/// # Errors
/// When there are no kernels for it.
pub(crate) fn element(dtype: DType) -> Result<Element> {
    match dtype {
        DType::F32 => Ok(Element::F32),
        DType::F16 => Ok(Element::F16),
        DType::BF16 => Ok(Element::Bf16),
        other => bail!("the GPU computes in f32, f16 and bf16, not in {other:?}"),
    }
}

/// Whether tensors begin at a multiple of 16 bytes: memory does, a part of a tensor may not.
pub(crate) fn aligned(inputs: &[Operand]) -> bool {
    inputs
        .iter()
        .flatten()
        .all(|(storage, layout)| (layout.start_offset() * storage.dtype().size_in_bytes()).is_multiple_of(16))
}

/// The same of tensors.
pub(crate) fn all_aligned(inputs: &[Option<&Tensor>]) -> bool {
    let begins_aligned =
        |x: &&Tensor| (x.layout().start_offset() * x.dtype().size_in_bytes()).is_multiple_of(16);
    inputs.iter().flatten().all(begins_aligned)
}

/// Refuses memory of another GPU or stream: nothing puts the streams' work in order. A recording is no work.
///
/// # Errors
/// When `storage` is not of `device`.
pub(super) fn check_device(device: &CudaDevice, storage: &CudaStorage) -> Result<()> {
    if storage.device().id() != device.id() && !RECORDING.get() {
        bail!(
            "a GPU's kernel got tensors of two devices: a network's input belongs on the device of its weights"
        );
    }
    Ok(())
}

/// Where the elements from `start` on lie, and what keeps their use in order.
pub(super) fn pointer<'a>(
    storage: &'a CudaStorage,
    start: usize,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T: DeviceRepr>(
        slice: &'a impl DevicePtr<T>,
        start: usize,
        stream: &'a CudaStream,
    ) -> (u64, SyncOnDrop<'a>) {
        let (base, guard) = slice.device_ptr(stream);
        (base + (start * size_of::<T>()) as u64, guard)
    }
    match &storage.slice {
        CudaStorageSlice::F32(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::F16(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::BF16(slice) => Ok(of(slice, start, stream)),
        CudaStorageSlice::U32(slice) => Ok(of(slice, start, stream)),
        _ => bail!("no GPU kernel takes {:?}", storage.dtype()),
    }
}

/// A tensor's storage and layout as a kernel takes them.
///
/// # Errors
/// When the tensor is not on a GPU.
pub(crate) fn on_gpu<'a>(storage: &'a Storage, layout: &'a Layout) -> Result<(&'a CudaStorage, &'a Layout)> {
    match storage {
        Storage::Cuda(storage) => Ok((storage, layout)),
        _ => bail!("a GPU kernel got a tensor on the CPU"),
    }
}
