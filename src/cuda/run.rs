//! Running kernels on candle's tensors.

use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor, bail};
use nat_cuda::{Element, Launch, TooLarge};

use super::functions::function;
use super::operands::{Operand, aligned, check_device, element, on_gpu, pointer};

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
    run_into(device, launch, inputs, &mut [Some(&mut out)])?;
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
    // A driver may have no memory of no bytes.
    let count = count.max(1);
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

/// Runs a kernel on `inputs` into memory that is there, all of it or the part that the kernel writes; where there is none it
/// gets a null pointer.
///
/// # Errors
/// When an input is not contiguous, or the device fails.
pub(crate) fn run_into(
    device: &CudaDevice,
    launch: &Launch,
    inputs: &[Operand],
    outputs: &mut [Option<&mut CudaStorage>],
) -> Result<()> {
    let stream = device.cuda_stream();
    let mut pointers = Vec::with_capacity(inputs.len() + outputs.len());
    for input in inputs {
        pointers.push(match input {
            Some((storage, layout)) => match layout.contiguous_offsets() {
                Some((start, _)) => {
                    check_device(device, storage)?;
                    Some(pointer(storage, start, &stream)?)
                }
                None => return Err(Error::RequiresContiguous { op: "a GPU kernel" }.bt()),
            },
            None => None,
        });
    }
    for output in outputs {
        pointers.push(output.as_ref().map(|output| pointer(output, 0, &stream)).transpose()?);
    }
    if launch.grid.contains(&0) {
        return Ok(());
    }
    let addresses: Vec<u64> = pointers.iter().map(|p| p.as_ref().map_or(0, |(p, _)| *p)).collect();
    let function = function(launch, &stream)?;
    let mut builder = stream.launch_builder(&function);
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
    let (dtype, element) = one_type(inputs)?;
    tensor_of(dtype, inputs, shape, |aligned| launch(element, aligned))
}

/// The type of all `inputs`.
///
/// # Errors
/// When they are of several types, or the kernels compute in none of that.
pub(crate) fn one_type(inputs: &[Option<&Tensor>]) -> Result<(DType, Element)> {
    let Some(first) = inputs.iter().flatten().next() else { bail!("a GPU kernel without inputs") };
    match inputs.iter().flatten().find(|other| other.dtype() != first.dtype()) {
        Some(other) => bail!("a GPU kernel got {:?} and {:?} tensors", first.dtype(), other.dtype()),
        None => Ok((first.dtype(), element(first.dtype())?)),
    }
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
    let [out] = tensors(dtype, inputs, shape, [true], launch)?;
    out.ok_or_else(|| Error::msg("a kernel without an output"))
}

/// As [`tensor_of`], several of that shape, of which there are those that are `wanted`.
///
/// # Errors
/// As [`tensor`].
pub(crate) fn tensors<const N: usize>(
    dtype: DType,
    inputs: &[Option<&Tensor>],
    shape: &Shape,
    wanted: [bool; N],
    launch: impl FnOnce(bool) -> std::result::Result<Launch, TooLarge>,
) -> Result<[Option<Tensor>; N]> {
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
    let mut outputs = [const { None }; N];
    for (output, _) in outputs.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
        // SAFETY: the kernel writes every element of its outputs.
        *output = Some(unsafe { uninitialized(device, dtype, shape.elem_count())? });
    }
    run_into(device, &launch, &operands, &mut outputs.each_mut().map(Option::as_mut))?;
    let tensor = |storage| Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false);
    Ok(outputs.map(|output| output.map(tensor)))
}
