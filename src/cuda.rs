//! NVIDIA GPUs: opening one, and this crate's kernels on candle's tensors.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda_backend::cudarc::driver::{
    CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg, SyncOnDrop, result,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Error, Layout, Result, Shape, Storage, Tensor, bail,
};
use nat_cuda::{Element, Launch, TooLarge};

/// Why a GPU can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A library of NVIDIA's is not installed.
    #[error("{name} can't be opened: {}", if *.driver {
        "this machine has no NVIDIA driver"
    } else {
        "install the CUDA runtime libraries, or name their folder in LD_LIBRARY_PATH"
    })]
    Library {
        /// Its file.
        name: &'static str,
        /// Whether it is the driver's own.
        driver: bool,
    },
    /// The driver knows no GPU.
    #[error("the NVIDIA driver finds no GPU")]
    NoDevice,
    /// There are fewer GPUs.
    #[error("there is no GPU of this number")]
    NoSuchDevice,
    /// The driver can't run this program's kernels.
    #[error("the NVIDIA driver is too old for this program: it was built with a newer CUDA")]
    OldDriver,
    /// Anything else.
    #[error("it does not answer: {0}")]
    Other(String),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        use candle_core::cuda_backend::CudaError;
        use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
        let code = match &error {
            Error::WithBacktrace { inner, .. } => match inner.as_ref() {
                Error::Cuda(inner) => inner.downcast_ref(),
                _ => None,
            },
            Error::Cuda(inner) => inner.downcast_ref(),
            _ => None,
        };
        let code = match code {
            Some(CudaError::Cuda(driver)) => Some(driver.0),
            _ => None,
        };
        match code {
            Some(CUresult::CUDA_ERROR_NO_DEVICE) => Self::NoDevice,
            Some(CUresult::CUDA_ERROR_INVALID_DEVICE) => Self::NoSuchDevice,
            Some(
                CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
                | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | CUresult::CUDA_ERROR_NOT_INITIALIZED,
            ) => Self::OldDriver,
            // candle's text has a backtrace below its first line.
            _ => Self::Other(error.to_string().lines().next().unwrap_or_default().to_owned()),
        }
    }
}

/// Opens the GPU `ordinal`, counted from 0, with one stream for all work.
///
/// # Errors
/// When there is no such GPU, or no driver for it.
pub fn open(ordinal: usize) -> std::result::Result<Device, OpenError> {
    if let Some(name) = nat_cuda::missing_library() {
        return Err(OpenError::Library { name, driver: name.starts_with("libcuda.") });
    }
    Ok(open_with_driver(ordinal)?)
}

fn open_with_driver(ordinal: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: candle and this crate put all work on the device's one stream, so its order is that of the
    // program without events; and a graph can't be captured with them.
    unsafe { device.disable_event_tracking() };
    if device.cuda_stream().context().has_async_alloc() {
        // Else every synchronisation gives freed memory back to the system, to be asked for again.
        let keep = u64::MAX;
        // SAFETY: the device exists, and the attribute is a u64 that is read during the call.
        unsafe {
            let pool = result::device::get_default_mem_pool(result::device::get(ordinal as i32).w()?).w()?;
            let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw const keep).cast_mut().cast()).w()?;
        }
    }
    Ok(Device::Cuda(device))
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

/// Runs a kernel on `inputs` into new memory of `count` elements of `dtype`.
///
/// # Errors
/// When an input is not contiguous, or the device fails.
pub(crate) fn run(
    device: &CudaDevice,
    launch: &Launch,
    inputs: &[Operand],
    dtype: DType,
    count: usize,
) -> Result<CudaStorage> {
    // SAFETY: the kernel writes every element of its output.
    let mut out = unsafe { uninitialized(device, dtype, count)? };
    run_into(device, launch, inputs, &mut [&mut out])?;
    Ok(out)
}

/// New memory of `count` elements of `dtype`.
///
/// # Safety
/// Kernels write every element before anything reads it.
///
/// # Errors
/// When the device has no such memory.
pub(crate) unsafe fn uninitialized(device: &CudaDevice, dtype: DType, count: usize) -> Result<CudaStorage> {
    // SAFETY: the caller's promise.
    let slice = unsafe {
        match dtype {
            DType::F32 => CudaStorageSlice::F32(device.alloc(count)?),
            DType::F16 => CudaStorageSlice::F16(device.alloc(count)?),
            DType::BF16 => CudaStorageSlice::BF16(device.alloc(count)?),
            DType::U32 => CudaStorageSlice::U32(device.alloc(count)?),
            other => bail!("no GPU kernel gives {other:?}"),
        }
    };
    Ok(CudaStorage { slice, device: device.clone() })
}

/// Runs a kernel on `inputs` into memory that is there: all of it or the part that the kernel writes.
///
/// # Errors
/// When an input is not contiguous, or the device fails.
pub(crate) fn run_into(
    device: &CudaDevice,
    launch: &Launch,
    inputs: &[Operand],
    outputs: &mut [&mut CudaStorage],
) -> Result<()> {
    let stream = device.cuda_stream();
    let mut pointers = Vec::with_capacity(inputs.len() + outputs.len());
    for input in inputs {
        pointers.push(match input {
            Some((storage, layout)) => match layout.contiguous_offsets() {
                Some((start, _)) => Some(pointer(storage, start, &stream)?),
                None => return Err(Error::RequiresContiguous { op: "a GPU kernel" }.bt()),
            },
            None => None,
        });
    }
    for output in outputs {
        pointers.push(Some(pointer(output, 0, &stream)?));
    }
    if launch.grid.contains(&0) {
        return Ok(());
    }
    let addresses: Vec<u64> = pointers.iter().map(|p| p.as_ref().map_or(0, |(p, _)| *p)).collect();
    let function = device.get_or_load_custom_func(launch.function, launch.module.name, launch.module.ptx)?;
    let mut builder = function.builder();
    for address in &addresses {
        builder.arg(address);
    }
    for size in &launch.sizes {
        builder.arg(size);
    }
    let tuple = |[x, y, z]: [u32; 3]| (x, y, z);
    let config = LaunchConfig {
        grid_dim: tuple(launch.grid),
        block_dim: tuple(launch.block),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: nat-cuda's launches fit their kernels, which the tests run; the pointers are of the shapes that
    // the launch was made for, and stay alive until their use is on the stream.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Where the elements from `start` on lie, and what keeps their use in order.
fn pointer<'a>(
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

/// A tensor of `shape` and of the first input's type that `launch` makes of tensors, all of which are of that
/// type unless the kernel knows otherwise.
///
/// # Errors
/// When the tensors are not all on one GPU and contiguous, or the device fails.
pub(crate) fn tensor(
    inputs: &[Option<&Tensor>],
    shape: &Shape,
    launch: impl FnOnce(Element, bool) -> std::result::Result<Launch, TooLarge>,
) -> Result<Tensor> {
    let Some(first) = inputs.iter().flatten().next() else { bail!("a GPU kernel without inputs") };
    if let Some(other) = inputs.iter().flatten().find(|other| other.dtype() != first.dtype()) {
        bail!("a GPU kernel got {:?} and {:?} tensors", first.dtype(), other.dtype());
    }
    let element = element(first.dtype())?;
    tensor_of(first.dtype(), inputs, shape, |aligned| launch(element, aligned))
}

/// As [`tensor`], of the type `dtype` and of inputs of whatever types the kernel takes.
///
/// # Errors
/// As [`tensor`].
pub(crate) fn tensor_of(
    dtype: DType,
    inputs: &[Option<&Tensor>],
    shape: &Shape,
    launch: impl FnOnce(bool) -> std::result::Result<Launch, TooLarge>,
) -> Result<Tensor> {
    let Some(Device::Cuda(device)) = inputs.iter().flatten().next().map(|first| first.device()) else {
        bail!("a GPU kernel got a tensor on the CPU");
    };
    if inputs.iter().flatten().any(|input| input.track_op()) {
        bail!("a GPU kernel has no gradient: networks for gradients are built of `Weights::differentiable`");
    }
    let held: Vec<_> = inputs.iter().map(|input| input.map(Tensor::storage_and_layout)).collect();
    let operands =
        held.iter().map(|held| held.as_ref().map(|(storage, layout)| on_gpu(storage, layout)).transpose());
    let operands: Vec<Operand> = operands.collect::<Result<_>>()?;
    let launch = launch(aligned(&operands)).map_err(Error::wrap)?;
    let out = run(device, &launch, &operands, dtype, shape.elem_count())?;
    Ok(Tensor::from_storage(Storage::Cuda(out), shape, BackpropOp::none(), false))
}
