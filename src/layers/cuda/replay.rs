//! Networks as CUDA graphs.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{CudaDevice, DType, Result, Shape, Tensor, bail};

use crate::layers::form::{BatchForm, NetworkRun};

/// A network whose launches are recorded and replayed as one: with few images, launching some hundred
/// kernels takes longer than they do.
#[derive(Default)]
pub(super) struct Replay(Mutex<Recorded>);

#[derive(Default)]
enum Recorded {
    /// Has run for nothing yet.
    #[default]
    Fresh,
    /// Has run for an input like this one, so all modules are loaded.
    Seen(Shape, DType),
    /// Recorded for inputs like its own.
    Done(RecordedGraph),
    /// Can't be recorded.
    Unable,
}

/// A recorded network.
struct RecordedGraph {
    input: Tensor,
    output: Tensor,
    graph: CudaGraph,
}

// SAFETY: the driver's handles belong to no thread, and the mutex around them lets in one at a time.
unsafe impl Send for RecordedGraph {}

/// More images keep the GPU busy for longer than their launches take.
const MOST_IMAGES: usize = 8;

impl BatchForm for Replay {
    fn together(&self, batch: usize, _: usize) -> usize {
        batch
    }

    /// The second input of a shape is recorded, which the later ones replay.
    fn run(&self, input: &Tensor, network: NetworkRun) -> Result<Tensor> {
        if !(1..=MOST_IMAGES).contains(&input.dim(0)?) || input.track_op() {
            return network(input);
        }
        let device = input.device().as_cuda_device()?;
        let alike = |shape: &Shape, dtype| shape == input.shape() && dtype == input.dtype();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // candle keeps the sizes that some of its kernels read from memory, which a graph needs.
        let _cache = device.enable_cuda_graph_htod_cache();
        match &*state {
            Recorded::Done(recording) if alike(recording.input.shape(), recording.input.dtype()) => {
                recording.replay(input)
            }
            Recorded::Seen(shape, dtype) if alike(shape, *dtype) => {
                let recording = RecordedGraph::new(device, input, network);
                *state = recording.map_or(Recorded::Unable, Recorded::Done);
                match &*state {
                    Recorded::Done(recording) => recording.replay(input),
                    _ => network(input),
                }
            }
            Recorded::Unable => network(input),
            // A caller's own device may track the order of streams, which a graph can't hold.
            _ if device.is_event_tracking() => network(input),
            _ => {
                *state = Recorded::Seen(input.shape().clone(), input.dtype());
                network(input)
            }
        }
    }
}

impl RecordedGraph {
    fn new(device: &CudaDevice, input: &Tensor, network: NetworkRun) -> Result<Self> {
        let (input, stream) = (input.copy()?, device.cuda_stream());
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).w()?;
        let output = network(&input);
        // The output's memory is the graph's own: each launch takes it anew, at the same address.
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags).w()?;
        match (output, graph) {
            (Ok(output), Some(graph)) => Ok(Self { input, output, graph }),
            (Err(error), _) => Err(error),
            (_, None) => bail!("nothing was recorded"),
        }
    }

    fn replay(&self, input: &Tensor) -> Result<Tensor> {
        self.input.slice_set(&input.contiguous()?, 0, 0)?;
        self.graph.launch().w()?;
        self.output.copy()
    }
}
