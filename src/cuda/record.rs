//! Recording what a network launches as a CUDA graph.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, result};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Device, Error, Result, Shape, Storage, Tensor, bail};

use super::open::open_with_driver;
use super::operands::{on_gpu, pointer, set_recording};
use super::product::product;
use super::recorders::recorders;
use super::run::uninitialized;
use crate::tensors::in_words;

/// Why a network could not be recorded, the last time that one could not.
static PROBLEM: Mutex<Option<String>> = Mutex::new(None);

/// Why the launches of a network could not be recorded, if that happened to any in this process: it then computes the same, more
/// slowly where a batch is small.
pub fn recording_problem() -> Option<String> {
    PROBLEM.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A recorded network: its launches as one.
pub(crate) struct RecordedGraph {
    /// Until it is dropped.
    recorded: Option<Recorded>,
    /// The stream that it is launched on.
    stream: Arc<CudaStream>,
}

struct Recorded {
    graph: CudaGraph,
    /// What it reads and writes each time. All other memory is the graph's own.
    input: Tensor,
    output: Tensor,
}

// SAFETY: the driver's handles belong to no thread, and without `Sync` one thread at a time uses them.
unsafe impl Send for RecordedGraph {}

/// A stream that is recorded, until this is dropped.
struct Capture<'a>(Option<&'a Arc<CudaStream>>);

impl<'a> Capture<'a> {
    fn begin(stream: &'a Arc<CudaStream>) -> Result<Self> {
        // Relaxed: other threads go on with whatever they do on their streams.
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).w()?;
        set_recording(true);
        Ok(Self(Some(stream)))
    }

    /// What was recorded.
    fn end(&mut self) -> Result<CudaGraph> {
        set_recording(false);
        let Some(stream) = self.0.take() else { bail!("nothing is recorded") };
        // An error of what was dropped on the way is kept by cudarc, whose next call would return it before it does
        // anything: the stream would stay as it is.
        let dropped = stream.context().check_err();
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).w()?;
        dropped.w()?;
        graph.ok_or_else(|| Error::msg("nothing was recorded"))
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.0.is_some() {
            // What failed is told by whoever returns early; here the stream is let go.
            let _ = self.end();
        }
    }
}

impl RecordedGraph {
    /// Records what `network` launches for an input like this one, for which it gives an output of shape `shape` and type
    /// `dtype`. It has run for such an input before, so that all its kernels are loaded.
    ///
    /// # Errors
    /// When anything in it can't be recorded. The input's stream has taken no notice of it.
    pub(crate) fn new(
        input: &Tensor,
        (shape, dtype): (&Shape, DType),
        network: &dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let stream = input.device().as_cuda_device()?.cuda_stream();
        let gpu = stream.context().ordinal();
        let mut recorders = recorders();
        let mut record = || {
            let recorder = match recorders.iter().position(|(of, _)| *of == gpu) {
                Some(place) => recorders.swap_remove(place).1,
                None => warmed(open_with_driver(gpu)?)?,
            };
            let recorded = Recorded::new(&recorder, input, (shape, dtype), network);
            if recorded.is_ok() {
                recorders.push((gpu, recorder));
            } else {
                // Nobody knows what a failure leaves the driver with: this stream is not used again, and not even closed, as
                // cudarc panics where that fails.
                mem::forget(recorder);
            }
            recorded
        };
        match record() {
            Ok(recorded) => Ok(Self { recorded: Some(recorded), stream }),
            Err(error) => {
                *PROBLEM.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_words(&error));
                Err(error)
            }
        }
    }

    /// The network's output for `input`, which is like the one it was recorded for and on the same stream.
    ///
    /// # Errors
    /// When the GPU fails.
    pub(crate) fn replay(&self, input: &Tensor) -> Result<Tensor> {
        let Some(Recorded { graph, input: reads, output: writes }) = &self.recorded else {
            bail!("nothing is recorded")
        };
        let device = input.device().as_cuda_device()?;
        copy(&input.contiguous()?, reads, &self.stream)?;
        // SAFETY: the graph reads and writes memory that is its own or lives as long as this.
        unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream.cu_stream()) }.w()?;
        // SAFETY: the copy writes all of it.
        let out = unsafe { uninitialized(device, writes.dtype(), writes.elem_count())? };
        let out = Tensor::from_storage(Storage::Cuda(out), writes.shape(), BackpropOp::none(), false);
        copy(writes, &out, &self.stream)?;
        Ok(out)
    }
}

impl Recorded {
    fn new(
        recorder: &CudaDevice,
        input: &Tensor,
        (shape, dtype): (&Shape, DType),
        network: &dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let on = recorder.cuda_stream();
        let memory = |shape: &Shape, dtype| -> Result<Tensor> {
            // SAFETY: the input is written before each launch, and the output by it.
            let storage = Storage::Cuda(unsafe { uninitialized(recorder, dtype, shape.elem_count())? });
            Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
        };
        let (input, output) = (memory(input.shape(), input.dtype())?, memory(shape, dtype)?);
        // Other streams may use it from now on.
        on.synchronize().w()?;
        // Whatever is uploaded meanwhile would be read again at each launch, from memory that is gone by then: with this candle
        // refuses to.
        let _refused = recorder.enable_cuda_graph_htod_cache();
        let mut capture = Capture::begin(&on)?;
        // What it makes on the way is dropped within the recording, whose memory that is.
        let recorded = network(&input).and_then(|got| copy(&got, &output, &on));
        let graph = capture.end();
        recorded?;
        Ok(Self { graph: graph?, input, output })
    }
}

/// A stream to record on whose cuBLAS has computed before: what it prepares for that is not to be recorded.
fn warmed(recorder: CudaDevice) -> Result<CudaDevice> {
    let device = Device::Cuda(recorder.clone());
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let zeros = Tensor::zeros((8, 8), dtype, &device)?;
        product(&zeros, &zeros)?;
    }
    Ok(recorder)
}

impl Drop for RecordedGraph {
    fn drop(&mut self) {
        // Its memory is given back on the stream that it was recorded on, which does not wait for the one that it is launched
        // on. cudarc waits for nothing while it keeps an error of something that was dropped.
        let context = self.stream.context();
        let kept = context.check_err();
        context.record_err(self.stream.synchronize());
        context.record_err(kept);
        let _none_recorded = recorders();
        self.recorded = None;
    }
}

/// Copies a contiguous tensor into the memory of another of the same shape and type.
fn copy(from: &Tensor, to: &Tensor, stream: &CudaStream) -> Result<()> {
    if (from.shape(), from.dtype()) != (to.shape(), to.dtype()) {
        bail!("{:?} of {:?} is copied to {:?} of {:?}", from.dtype(), from.shape(), to.dtype(), to.shape());
    }
    let held = [from, to].map(Tensor::storage_and_layout);
    let mut places = [(0, None), (0, None)];
    for ((storage, layout), place) in held.iter().zip(&mut places) {
        let (storage, layout) = on_gpu(storage, layout)?;
        let Some((start, _)) = layout.contiguous_offsets() else { bail!("a copy of what is not contiguous") };
        let (address, guard) = pointer(storage, start, stream)?;
        *place = (address, Some(guard));
    }
    let bytes = from.elem_count() * from.dtype().size_in_bytes();
    stream.context().bind_to_thread().w()?;
    // SAFETY: both are memory of so many bytes, and alive until the copy is on the stream.
    unsafe { result::memcpy_dtod_async(places[1].0, places[0].0, bytes, stream.cu_stream()) }.w()
}
