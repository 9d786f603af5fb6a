//! Opening a GPU.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::{CudaDevice, Device, Error, Result};

use super::recorders::recorders;

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

/// Opens the GPU `ordinal`, counted from 0, with one stream for all work. What the driver loads for it, and a stream for
/// recordings, stay until the process ends.
///
/// # Errors
/// When there is no such GPU, or no driver for it.
pub fn open(ordinal: usize) -> std::result::Result<Device, OpenError> {
    if let Some(name) = nat_cuda::missing_library() {
        return Err(OpenError::Library { name, driver: name.starts_with("libcuda.") });
    }
    // Opening waits for all streams of the GPU, which one that is recorded does not survive.
    let _none_recorded = recorders();
    Ok(Device::Cuda(open_with_driver(ordinal)?))
}

/// The same where the driver is known to be there.
pub(super) fn open_with_driver(ordinal: usize) -> Result<CudaDevice> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: candle and this crate put all work on a tensor on its device's one stream, so its order is that of the program
    // without events; and a graph can't be recorded with them.
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
    Ok(device)
}
