//! The streams that recordings are made on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::CudaDevice;

/// For each GPU, by its number, the stream that recordings are made on. While a stream is recorded everything that any thread
/// launches on it becomes part of the recording, so it is a stream on which nobody else has anything to do, and only one
/// thread at a time.
static RECORDERS: Mutex<Vec<(usize, CudaDevice)>> = Mutex::new(Vec::new());

/// Waits until nothing is recorded, and lets nothing be recorded: for whatever a recording does not survive, which is work on
/// its stream, memory of its stream that is given back, and waiting for all streams.
pub(super) fn recorders() -> MutexGuard<'static, Vec<(usize, CudaDevice)>> {
    RECORDERS.lock().unwrap_or_else(PoisonError::into_inner)
}
